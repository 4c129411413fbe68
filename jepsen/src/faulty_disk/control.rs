//! How bad a disk is at the moment.

use std::fs::File;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;

use super::input_output_error;
use super::unsynced::{Change, Unsynced};

/// What is wrong with a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Bad {
    /// How long each read and write takes in addition.
    pub(crate) transfer: Duration,
    /// How long each sync takes in addition.
    pub(crate) sync: Duration,
    pub(crate) failing: Option<Failing>,
}

/// What a disk refuses to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Failing {
    /// Nothing is written.
    Writes,
    /// Nothing is synced.
    Syncs,
    /// Nothing is synced, and what a file was given since it was last synced is gone when its sync has failed: the kernel forgets
    /// pages that it could not write.
    SyncsWithLoss,
}

#[derive(Debug, Default)]
struct State {
    bad: Bad,
    /// Reads, writes and syncs that were held up or refused since the disk is bad.
    hits: u64,
    /// What could get lost; none while nobody cares.
    unsynced: Option<Unsynced>,
}

/// The switch of a disk.
#[derive(Debug, Default)]
pub(crate) struct Control {
    state: Mutex<State>,
    changed: Condvar,
}

impl Control {
    /// Makes the disk bad.
    pub(crate) fn spoil(&self, bad: Bad) {
        let mut state = self.lock();
        state.bad = bad;
        state.hits = 0;
        if bad.failing == Some(Failing::SyncsWithLoss) {
            state.unsynced = Some(Unsynced::default());
        }
    }

    /// Makes the disk good; returns how many reads, writes and syncs suffered.
    pub(crate) fn mend(&self) -> u64 {
        let mut state = self.lock();
        state.bad = Bad::default();
        state.unsynced = None;
        self.changed.notify_all();
        state.hits
    }

    /// Remembers from now on what is not synced. Whoever uses the disk has opened his files before.
    pub(crate) fn remember(&self) {
        self.lock().unsynced = Some(Unsynced::default());
    }

    /// Takes away what was written and not synced since [`Self::remember`], all or in part; returns how many changes were undone.
    /// Nobody may use the disk at the time.
    pub(crate) fn cut_power(&self, rng: &mut ChaCha8Rng) -> io::Result<usize> {
        match self.lock().unsynced.take() {
            Some(unsynced) => unsynced.lose_some(rng),
            None => Ok(0),
        }
    }

    /// Before a read.
    pub(super) fn before_read(&self) {
        self.hold_up(|bad| bad.transfer);
    }

    /// Before a file is written or its size changed.
    pub(super) fn before_change(&self, file: &Arc<File>, change: Change) -> io::Result<()> {
        self.hold_up(|bad| bad.transfer);
        let mut state = self.lock();
        if state.bad.failing == Some(Failing::Writes) {
            state.hits += 1;
            return Err(input_output_error());
        }
        match &mut state.unsynced {
            Some(unsynced) => unsynced.note(file, change),
            None => Ok(()),
        }
    }

    /// Instead of a sync, if it is to fail; and before it.
    pub(super) fn before_sync(&self, file: &File) -> io::Result<()> {
        self.hold_up(|bad| bad.sync);
        let mut state = self.lock();
        match state.bad.failing {
            None | Some(Failing::Writes) => return Ok(()),
            Some(Failing::Syncs) => {}
            Some(Failing::SyncsWithLoss) => {
                if let Some(unsynced) = &mut state.unsynced {
                    unsynced.lose(file)?;
                }
            }
        }
        state.hits += 1;
        Err(input_output_error())
    }

    /// After a sync that succeeded.
    pub(super) fn after_sync(&self, file: &File) -> io::Result<()> {
        match &mut self.lock().unsynced {
            Some(unsynced) => unsynced.note_synced(file),
            None => Ok(()),
        }
    }

    /// Waits as long as the disk is slow, and no longer than it is.
    fn hold_up(&self, of: impl Fn(&Bad) -> Duration) {
        let start = Instant::now();
        let mut state = self.lock();
        if !of(&state.bad).is_zero() {
            state.hits += 1;
        }
        loop {
            let left = of(&state.bad).saturating_sub(start.elapsed());
            if left.is_zero() {
                return;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const GOOD: Bad = Bad { transfer: Duration::ZERO, sync: Duration::ZERO, failing: None };

    fn file(text: &[u8]) -> Arc<File> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        Arc::new(file)
    }

    #[test]
    fn a_good_disk_does_as_it_is_told() {
        let (control, file) = (Control::default(), file(b""));
        control.before_change(&file, Change::Write { position: 0, data: b"x" }).unwrap();
        control.before_sync(&file).unwrap();
        control.after_sync(&file).unwrap();
        assert_eq!(control.mend(), 0);
    }

    #[test]
    fn a_failing_disk_refuses_what_it_is_to_refuse_until_it_is_mended() {
        let (control, file) = (Control::default(), file(b""));
        let write = || control.before_change(&file, Change::Write { position: 0, data: b"x" });
        control.spoil(Bad { failing: Some(Failing::Writes), ..GOOD });
        assert!(write().is_err() && control.before_sync(&file).is_ok());
        control.spoil(Bad { failing: Some(Failing::Syncs), ..GOOD });
        assert!(
            write().is_ok() && control.before_sync(&file).is_err() && control.before_sync(&file).is_err()
        );
        assert_eq!(control.mend(), 2);
        assert!(write().is_ok() && control.before_sync(&file).is_ok());
    }

    #[test]
    fn a_failed_sync_may_lose_what_it_was_to_write() {
        let (control, file) = (Control::default(), file(b"old"));
        control.spoil(Bad { failing: Some(Failing::SyncsWithLoss), ..GOOD });
        control.before_change(&file, Change::Write { position: 0, data: b"new text" }).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&*file, b"new text", 0).unwrap();
        assert!(control.before_sync(&file).is_err());
        let mut text = [0; 8];
        let length = std::os::unix::fs::FileExt::read_at(&*file, &mut text, 0).unwrap();
        assert_eq!(&text[..length], b"old");
    }

    #[test]
    fn a_slow_disk_holds_up_until_it_is_mended() {
        let (control, file) = (Control::default(), file(b""));
        control.spoil(Bad { sync: Duration::from_millis(30), ..GOOD });
        let start = Instant::now();
        control.before_read();
        control.before_sync(&file).unwrap();
        assert!(start.elapsed() >= Duration::from_millis(30));
        assert_eq!(control.mend(), 1);
        control.spoil(Bad { sync: Duration::from_secs(3_600), ..GOOD });
        let hung = std::thread::scope(|scope| {
            let hung = scope.spawn(|| control.before_sync(&file));
            while control.lock().hits == 0 {
                std::thread::yield_now();
            }
            control.mend();
            hung.join()
        });
        hung.unwrap().unwrap();
    }
}

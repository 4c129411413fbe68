//! Files without names, whose room is given back a little at a time.
//!
//! To free the blocks of a segment of 256 MiB takes a file system some 50 ms, and every sync of anything else waits for that: by far
//! the slowest append of a log that lets go of old records. So only the name goes at once; a thread cuts the file, 2 MiB by 2 MiB, and
//! rests in between, so that nobody waits longer than for one such piece: 3 ms instead of 52. Where many wait it
//! does not rest, for the room is needed; and when there are too many the caller does it.
//!
//! After a crash the file system frees what has no name.

use std::fs::File;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

/// Bytes that are given back at once.
const PIECE_BYTES: u64 = 2 << 20;
/// Between two pieces.
const REST: Duration = Duration::from_millis(2);
/// As long as no more files than this wait.
const UNHURRIED_MAX: usize = 8;
/// Files that may wait.
const WAITING_MAX: usize = 1024;

/// Takes files whose names are gone. Its thread begins with the first that is large, and ends with this.
#[derive(Default, Debug)]
pub(crate) struct Reaper {
    sender: OnceLock<Option<SyncSender<File>>>,
    waiting: Arc<AtomicUsize>,
}

impl Reaper {
    /// Gives back the room of a file whose name is gone.
    pub(crate) fn take(&self, file: File) {
        if file.metadata().is_ok_and(|metadata| metadata.len() <= PIECE_BYTES) {
            return;
        }
        let begin = || {
            let (sender, receiver) = sync_channel(WAITING_MAX);
            let waiting = Arc::clone(&self.waiting);
            let thread = std::thread::Builder::new().name("varve-reaper".to_owned());
            thread.spawn(move || reap(&receiver, &waiting)).is_ok().then_some(sender)
        };
        if let Some(sender) = self.sender.get_or_init(begin) {
            self.waiting.fetch_add(1, Ordering::Relaxed);
            if sender.try_send(file).is_err() {
                // It was dropped, and so its room is given back.
                self.waiting.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

fn reap(files: &Receiver<File>, waiting: &AtomicUsize) {
    while let Ok(file) = files.recv() {
        give_back(&file, || {
            if waiting.load(Ordering::Relaxed) <= UNHURRIED_MAX {
                std::thread::sleep(REST);
            }
        });
        drop(file);
        waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Cuts a file piece by piece; what is left when that fails goes when it is closed.
fn give_back(file: &File, mut rest: impl FnMut()) {
    let mut size = file.metadata().map_or(0, |metadata| metadata.len());
    while size > 0 {
        size = size.saturating_sub(PIECE_BYTES);
        if let Err(error) = file.set_len(size) {
            return tracing::debug!(%error, "what was removed cannot be cut");
        }
        rest();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_of(size: u64) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(size).unwrap();
        file
    }

    #[test]
    fn a_file_is_cut_piece_by_piece() {
        let file = file_of(2 * PIECE_BYTES + 5);
        let mut sizes = Vec::new();
        give_back(&file, || sizes.push(file.metadata().unwrap().len()));
        assert_eq!(sizes, [PIECE_BYTES + 5, 5, 0]);
    }

    #[test]
    fn what_is_large_is_given_back_by_a_thread_and_what_is_small_at_once() {
        let reaper = Reaper::default();
        reaper.take(file_of(PIECE_BYTES));
        assert!(reaper.sender.get().is_none(), "no thread is needed for that");
        let files: Vec<File> = (0..20).map(|_| file_of(3 * PIECE_BYTES)).collect();
        for file in &files {
            reaper.take(file.try_clone().unwrap());
        }
        while reaper.waiting.load(Ordering::Relaxed) > 0 {
            std::thread::yield_now();
        }
        let left: u64 = files.iter().map(|file| file.metadata().unwrap().len()).sum();
        assert_eq!(left, 0);
    }
}

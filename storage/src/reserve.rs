//! A disk with something in reserve: a file that is given back when the disk is full, so that what must be written still can be.
//!
//! A node whose disk is full has to go on taking part in view changes, or its groups cannot get rid of it; and deletions have to
//! be written before they free anything. So at its start a store writes a file of zeros. A write that finds no room removes it
//! and is tried again, unless it is one that has to do without ([`Reserved::sparing`]): records that clients append wait until
//! there is room and the reserve is whole again, so that they never eat it up. Before that goes all that logs have put by
//! (`spare`), whoever writes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use varve_protocol::mark::Mark;

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{IoContext, StorageError, is_full};
use crate::file;
use crate::spare::Spares;

/// The file.
pub(crate) const RESERVE_NAME: &str = "reserve";

/// Its size. Both copies of the superblocks of the most groups that a node may have never take more than 6 MiB, however often
/// their views change, for they are rewritten when they are mostly old. The rest holds thousands of entries of the metadata's log
/// that delete something, and the snapshots of logs that let go of segments.
pub(crate) const RESERVE_BYTES: u64 = 16 << 20;

const ZEROS: &[u8] = &[0; 64 << 10];

/// A disk, and its reserve. Clones are the same disk.
pub(crate) struct Reserved<D>(Arc<Mutex<Inner<D>>>);

struct Inner<D> {
    disk: D,
    size: u64,
    /// All of it is there.
    is_whole: bool,
    /// What is written now must do without it.
    is_spared: bool,
    spares: Spares,
}

/// An open file of such a disk.
pub(crate) struct ReservedFile<D: Disk> {
    file: D::File,
    disk: Reserved<D>,
}

impl<D> Clone for Reserved<D> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<D: Disk> Reserved<D> {
    /// A disk, with what an earlier process has put aside on it.
    pub(crate) fn new(disk: D, size: u64) -> Self {
        let found = disk.open(Path::new(RESERVE_NAME), OpenMode::Existing).and_then(|file| file.size());
        let is_whole = found.is_ok_and(|found| found >= size) || size == 0;
        Self(Arc::new(Mutex::new(Inner {
            disk,
            size,
            is_whole,
            is_spared: false,
            spares: Spares::default(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner<D>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether all of the reserve is there.
    pub(crate) fn is_whole(&self) -> bool {
        self.lock().is_whole
    }

    /// Does something, which must do without the reserve if `is_spared`.
    pub(crate) fn sparing<T>(&self, is_spared: bool, act: impl FnOnce() -> T) -> T {
        self.lock().is_spared = is_spared;
        let done = act();
        self.lock().is_spared = false;
        done
    }

    /// Puts the reserve aside if it is not there and there is room for it; says whether it is there.
    ///
    /// # Errors
    /// As the system reports; a full disk is none.
    pub(crate) fn restore(&self) -> Result<bool, StorageError> {
        let mut inner = self.lock();
        if inner.is_whole {
            return Ok(true);
        }
        let path = Path::new(RESERVE_NAME);
        let size = usize::try_from(inner.size).expect("a reserve fits the memory");
        let mut zeros = vec![Bytes::from_static(ZEROS); size / ZEROS.len()];
        zeros.push(Bytes::from_static(&ZEROS[..size % ZEROS.len()]));
        let mut made = file::create_whole_of(&inner.disk, path, &zeros);
        if made.as_ref().is_err_and(StorageError::is_disk_full) && inner.give_up_spares() {
            made = file::create_whole_of(&inner.disk, path, &zeros);
        }
        match made {
            Ok(_) => {
                Mark::ReserveRestored.hit();
                inner.is_whole = true;
            }
            Err(error) if error.is_disk_full() => {}
            Err(error) => return Err(error),
        }
        Ok(inner.is_whole)
    }

    /// Does something that may need room. If there is none it does it again without what was put by, and then without the reserve,
    /// if it may use that.
    fn attempt<T>(&self, act: impl Fn(&D) -> io::Result<T>) -> io::Result<T> {
        let mut inner = self.lock();
        loop {
            match act(&inner.disk) {
                Err(error) if is_full(error.kind()) && (inner.give_up_spares() || inner.give_back()) => {}
                done => return done,
            }
        }
    }
}

impl<D: Disk> Inner<D> {
    /// Removes all that was put by; says whether there was anything.
    fn give_up_spares(&mut self) -> bool {
        let spares = self.spares.drain();
        if spares.is_empty() {
            return false;
        }
        Mark::SparesGivenUp.hit();
        // One that is gone with its log makes no room, and one that stays is removed at the next start.
        let is_removed = |spare: &PathBuf| {
            self.disk
                .remove(spare)
                .and_then(|()| spare.parent().map_or(Ok(()), |dir| self.disk.sync_dir(dir)))
        };
        let removed = spares.iter().filter(|spare| is_removed(spare).is_ok()).count();
        tracing::info!(removed, "the disk is full; the files that were put by are given up");
        removed > 0
    }

    /// Gives the reserve back, if it may be; says whether there was one.
    fn give_back(&mut self) -> bool {
        if self.is_spared || !self.is_whole || self.size == 0 {
            return false;
        }
        Mark::ReserveGivenBack.hit();
        tracing::warn!(bytes = self.size, "the disk is full; the reserve is given back");
        let root = Path::new("");
        let removed =
            self.disk.remove(Path::new(RESERVE_NAME)).or_failed_to("remove", Path::new(RESERVE_NAME));
        let synced = removed.and_then(|()| self.disk.sync_dir(root).or_failed_to("sync directory", root));
        self.is_whole = false;
        synced.inspect_err(|error| tracing::error!(%error, "the reserve cannot be given back")).is_ok()
    }
}

impl<D: Disk> Disk for Reserved<D> {
    type File = ReservedFile<D>;

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.attempt(|disk| disk.create_dir(path))
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<ReservedFile<D>> {
        let file = self.attempt(|disk| disk.open(path, mode))?;
        Ok(ReservedFile { file, disk: self.clone() })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.lock().disk.list(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.attempt(|disk| disk.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.lock().disk.remove(path)
    }

    fn discard(&self, path: &Path) -> io::Result<()> {
        self.lock().disk.discard(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.lock().disk.remove_dir(path)
    }

    fn put_by(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.lock();
        let size = inner.disk.open(path, OpenMode::Existing)?.size()?;
        let spare = Spares::name_of(path);
        match inner.disk.rename(path, &spare) {
            Err(error) if is_full(error.kind()) => return inner.disk.discard(path),
            renamed => renamed?,
        }
        for gone in inner.spares.push(spare, size) {
            match inner.disk.discard(&gone) {
                // It has gone with its log.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed?,
            }
        }
        Ok(())
    }

    fn take_spare(&self, dir: &Path) -> Option<PathBuf> {
        self.lock().spares.pop(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.lock().disk.sync_dir(dir)
    }

    fn sync_all(&self) -> io::Result<()> {
        self.lock().disk.sync_all()
    }
}

impl<D: Disk> DiskFile for ReservedFile<D> {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.file.read_at(buffer, position)
    }

    fn write_at(&self, chunks: &[Bytes], position: u64) -> io::Result<()> {
        self.disk.attempt(|_| self.file.write_at(chunks, position))
    }

    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.disk.attempt(|_| self.file.set_size(size))
    }

    /// What is not needed yet is no reason to use the reserve.
    fn set_aside(&self, position: u64, size: u64) -> io::Result<()> {
        self.file.set_aside(position, size)
    }

    /// A sync that fails is not tried again, whatever it says.
    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn drop_cached(&self, position: u64, size: u64) {
        self.file.drop_cached(position, size);
    }
}

//! The seam between this package and a disk: what a file system promises, and no more.
//!
//! Paths are relative to the data directory; the empty path is the data directory itself. Everything is synchronous:
//! whoever owns the disk owns the thread that waits for it.
//!
//! Promises a caller may build on, and every implementation must keep (the conformance tests run on all of them):
//! * written bytes are read back at once, but survive a crash only after `sync` of the file returned success;
//!   without it any subset of the written sectors may survive;
//! * a created, renamed or removed name survives a crash only after `sync_dir` of its directory returned success;
//! * `sync_all` does both for all there is;
//! * a rename is atomic: after a crash there is the old name or the new one;
//! * a failed `sync` leaves unknown what is on the disk, and a later success says nothing about it.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

/// How [`Disk::open`] treats a file that is or is not there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenMode {
    /// The file must be there.
    Existing,
    /// The file must not be there; it is made, empty.
    CreateNew,
}

/// A data directory.
pub trait Disk: Send + 'static {
    /// An open file of this disk.
    type File: DiskFile;

    /// Makes a directory and its parents; succeeds if it is there.
    ///
    /// # Errors
    /// As the system reports.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Opens a file for reading and writing.
    ///
    /// # Errors
    /// `NotFound` or `AlreadyExists` as the mode says; else as the system reports.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Self::File>;

    /// Names the files and directories in a directory, sorted.
    ///
    /// # Errors
    /// `NotFound` if it is not there; else as the system reports.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Gives a file another name in the same directory, replacing what had that name.
    ///
    /// # Errors
    /// As the system reports.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. There is room for what it took when this returns.
    ///
    /// # Errors
    /// `NotFound` if it is not there; else as the system reports.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// The same, but that there may be room only a little later: what is large takes a disk a while, and others wait meanwhile.
    ///
    /// # Errors
    /// As [`Self::remove`].
    fn discard(&self, path: &Path) -> io::Result<()> {
        self.remove(path)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// `NotFound` if it is not there, `DirectoryNotEmpty` if it is not empty; else as the system reports.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;

    /// Removes a file that another one of its directory may be written over, if the disk keeps it for that ([`Self::take_spare`]).
    ///
    /// # Errors
    /// As [`Self::remove`].
    fn put_by(&self, path: &Path) -> io::Result<()> {
        self.discard(path)
    }

    /// A file of this directory that was put by, if the disk has kept one. Its name is a temporary one, and its bytes are
    /// anything.
    fn take_spare(&self, dir: &Path) -> Option<PathBuf> {
        let _ = dir;
        None
    }

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// As the system reports; then it is unknown which names are durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Makes everything durable that was written so far, by this process or an earlier one: the bytes, sizes and names of
    /// all files. Others who use the same file system are waited for as well.
    ///
    /// # Errors
    /// As the system reports; then it is unknown what is durable.
    fn sync_all(&self) -> io::Result<()>;
}

/// An open file. Positions and sizes are bytes.
pub trait DiskFile: Send + 'static {
    /// Fills `buffer` from `position`; returns fewer bytes only at the end of the file.
    ///
    /// # Errors
    /// As the system reports.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;

    /// Writes all chunks in a row from `position`; a gap behind the old end reads as zeros.
    ///
    /// # Errors
    /// `StorageFull` if there is no room, else as the system reports; a part may have been written.
    fn write_at(&self, chunks: &[Bytes], position: u64) -> io::Result<()>;

    /// The size of the file.
    ///
    /// # Errors
    /// As the system reports.
    fn size(&self) -> io::Result<u64>;

    /// Cuts the file, or extends it with zeros.
    ///
    /// # Errors
    /// As the system reports.
    fn set_size(&self, size: u64) -> io::Result<()>;

    /// Extends the file with zeros, as [`Self::set_size`] does, and sets the room for them aside, if the disk can do that; if not, nothing
    /// need happen.
    ///
    /// # Errors
    /// As the system reports; then nothing is set aside.
    fn set_aside(&self, position: u64, size: u64) -> io::Result<()> {
        let _ = (position, size);
        Ok(())
    }

    /// Makes the bytes and the size of the file durable.
    ///
    /// # Errors
    /// As the system reports; then it is unknown which bytes are durable, for good.
    fn sync(&self) -> io::Result<()>;

    /// Says that `size` bytes from `position` on, all durable, need not be kept in memory. Whoever reads them next reads the
    /// disk. It changes nothing else, and may do nothing.
    fn drop_cached(&self, position: u64, size: u64) {
        let (_, _) = (position, size);
    }
}

//! A data directory on a real file system. The directory is locked for this process by a lock on its file `LOCK`,
//! which the system releases when the process ends, however it ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, IoSlice};
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustix::fs::{Advice, FallocateFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{IoContext, StorageError};
use crate::reaper::Reaper;

const LOCK_NAME: &str = "LOCK";

/// Chunks in one system call; the kernel takes no more than 1024.
const CHUNKS_PER_WRITE_MAX: usize = 64;

/// A [`Disk`] over a directory of the system.
#[derive(Debug)]
pub struct FileDisk {
    root: PathBuf,
    /// The data directory. Open all the time, so that a sync of the file system tells of every write that failed meanwhile.
    dir: File,
    lock: File,
    reaper: Reaper,
}

impl FileDisk {
    /// Makes the directory if it is not there, and locks it.
    ///
    /// # Errors
    /// [`StorageError::Locked`] if another process holds it; `Io` as the system reports.
    pub fn open(root: PathBuf) -> Result<Self, StorageError> {
        std::fs::create_dir_all(&root).or_failed_to("create directory", &root)?;
        let path = root.join(LOCK_NAME);
        let lock = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let lock = lock.or_failed_to("open", &path)?;
        match lock.try_lock() {
            Ok(()) => {
                let dir = File::open(&root).or_failed_to("open", &root)?;
                Ok(Self { root, dir, lock, reaper: Reaper::default() })
            }
            Err(TryLockError::WouldBlock) => Err(StorageError::Locked { path: root }),
            Err(TryLockError::Error(error)) => Err(StorageError::io("lock", &path, error)),
        }
    }
}

/// Lets this process have as many files open as the system allows it: each group that was ever appended to keeps one open.
///
/// # Errors
/// As the system reports; the limit is as it was then.
pub fn raise_open_files_max() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    Ok(setrlimit(Resource::Nofile, raised)?)
}

impl Disk for FileDisk {
    type File = File;

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir_all(self.root.join(path))
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<File> {
        let create = mode == OpenMode::CreateNew;
        OpenOptions::new().read(true).write(true).create_new(create).open(self.root.join(path))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(self.root.join(dir))? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(self.root.join(from), self.root.join(to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(self.root.join(path))
    }

    fn discard(&self, path: &Path) -> io::Result<()> {
        let path = self.root.join(path);
        let file = OpenOptions::new().write(true).open(&path)?;
        std::fs::remove_file(path)?;
        self.reaper.take(file);
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir(self.root.join(path))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(self.root.join(dir))?.sync_all()
    }

    fn sync_all(&self) -> io::Result<()> {
        rustix::fs::syncfs(&self.dir)?;
        // Where nothing but the bytes of files has changed, not every file system has its device flush its cache by that.
        self.lock.sync_data()
    }
}

impl DiskFile for File {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match FileExt::read_at(self, &mut buffer[filled..], position + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, chunks: &[Bytes], position: u64) -> io::Result<()> {
        let mut position = position;
        for group in chunks.chunks(CHUNKS_PER_WRITE_MAX) {
            let mut slices = [IoSlice::new(&[]); CHUNKS_PER_WRITE_MAX];
            for (slice, chunk) in slices.iter_mut().zip(group) {
                *slice = IoSlice::new(chunk);
            }
            position = write_slices(self, &mut slices[..group.len()], position)?;
        }
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.set_len(size)
    }

    fn set_aside(&self, position: u64, size: u64) -> io::Result<()> {
        Ok(rustix::fs::fallocate(self, FallocateFlags::empty(), position, size)?)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn drop_cached(&self, position: u64, size: u64) {
        let Some(size) = NonZeroU64::new(size) else { return };
        if let Err(error) = rustix::fs::fadvise(self, position, Some(size), Advice::DontNeed) {
            tracing::debug!(%error, "the system does not take advice on what to keep in memory");
        }
    }
}

/// Writes all slices, and returns the position behind them.
fn write_slices(file: &File, slices: &mut [IoSlice<'_>], position: u64) -> io::Result<u64> {
    let mut position = position;
    let mut rest = slices;
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        match rustix::io::pwritev(file, rest, position) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                position += count as u64;
                IoSlice::advance_slices(&mut rest, count);
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(position)
}

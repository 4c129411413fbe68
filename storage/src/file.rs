//! Files that are there whole or not at all: written under a temporary name, synced, renamed, the directory synced.
//! Temporary files that a crash left behind are removed at open.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use varve_protocol::mutant::Mutant;

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{IoContext, StorageError};

const TEMPORARY_SUFFIX: &str = ".tmp";
const COPIED_AT_ONCE_BYTES: usize = 1 << 20;
/// What is behind the name of a file that nothing can be made of.
const UNREADABLE_SUFFIX: &str = ".unreadable";

/// Makes the file `path` with these bytes, replacing what had that name, durably; returns it open.
pub(crate) fn create_whole<D: Disk>(disk: &D, path: &Path, bytes: Bytes) -> Result<D::File, StorageError> {
    create_whole_of(disk, path, &[bytes])
}

/// The same with several chunks in a row. When the disk is full nothing of it is left behind.
pub(crate) fn create_whole_of<D: Disk>(
    disk: &D,
    path: &Path,
    chunks: &[Bytes],
) -> Result<D::File, StorageError> {
    let temporary = temporary_path(path);
    let file = disk.open(&temporary, OpenMode::CreateNew).or_failed_to("create", &temporary)?;
    let written = file.write_at(chunks, 0).or_failed_to("write to", &temporary);
    settle(disk, (file, written), path)
}

/// Makes the file `path` with so many bytes that are read elsewhere, durably; returns it open. When the disk is full nothing of it is
/// left behind.
pub(crate) fn create_copy<D: Disk>(
    disk: &D,
    path: &Path,
    (read, size): (impl FnMut(&mut [u8], u64) -> io::Result<usize>, u64),
) -> Result<D::File, StorageError> {
    let temporary = temporary_path(path);
    let file = disk.open(&temporary, OpenMode::CreateNew).or_failed_to("create", &temporary)?;
    let written = copy(read, &file, size).or_failed_to("write to", &temporary);
    settle(disk, (file, written), path)
}

fn copy(
    mut read: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
    to: &impl DiskFile,
    size: u64,
) -> io::Result<()> {
    let mut position = 0;
    while position < size {
        let left = usize::try_from(size - position).unwrap_or(usize::MAX);
        let mut piece = vec![0; left.min(COPIED_AT_ONCE_BYTES)];
        let count = read(&mut piece, position)?;
        if count == 0 {
            // There is less to be read: what is missing is zeros.
            return to.set_size(size);
        }
        piece.truncate(count);
        to.write_at(&[Bytes::from(piece)], position)?;
        position += count as u64;
    }
    Ok(())
}

/// Ends the making of a file, of which this was written under its temporary name.
fn settle<D: Disk>(
    disk: &D,
    (file, written): (D::File, Result<(), StorageError>),
    path: &Path,
) -> Result<D::File, StorageError> {
    let temporary = temporary_path(path);
    if written.as_ref().is_err_and(StorageError::is_disk_full) {
        disk.remove(&temporary).or_failed_to("remove", &temporary)?;
    }
    written?;
    file.sync().or_failed_to("sync", &temporary)?;
    disk.rename(&temporary, path).or_failed_to("rename to", path)?;
    let dir = path.parent().unwrap_or(Path::new(""));
    disk.sync_dir(dir).or_failed_to("sync directory", dir)?;
    Ok(file)
}

/// Makes the file `path` of another one of its directory, of which these bytes overwrite the beginning: durably, and at no time
/// is something else there under this name. Returns it open.
pub(crate) fn create_over<D: Disk>(
    disk: &D,
    path: &Path,
    spare: &Path,
    bytes: Bytes,
) -> Result<D::File, StorageError> {
    let file = disk.open(spare, OpenMode::Existing).or_failed_to("open", spare)?;
    file.write_at(&[bytes], 0).or_failed_to("write to", spare)?;
    if !Mutant::SpareNotSynced.is_on() {
        file.sync().or_failed_to("sync", spare)?;
    }
    disk.rename(spare, path).or_failed_to("rename to", path)?;
    let dir = path.parent().unwrap_or(Path::new(""));
    disk.sync_dir(dir).or_failed_to("sync directory", dir)?;
    Ok(file)
}

/// Whether there is a file of this name.
pub(crate) fn is_there<D: Disk>(disk: &D, path: &Path) -> Result<bool, StorageError> {
    match disk.open(path, OpenMode::Existing) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        opened => opened.or_failed_to("open", path).map(|_| true),
    }
}

/// Removes a file; one that somebody has lost need not be removed.
pub(crate) fn remove_if_there<D: Disk>(disk: &D, path: &Path) -> Result<(), StorageError> {
    match disk.discard(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed.or_failed_to("remove", path),
    }
}

/// Gives a file that nothing can be made of another name, durably. It goes with its directory.
pub(crate) fn put_aside<D: Disk>(disk: &D, path: &Path) -> Result<(), StorageError> {
    let mut name = path.as_os_str().to_owned();
    name.push(UNREADABLE_SUFFIX);
    let aside = PathBuf::from(name);
    tracing::error!(path = %path.display(), "nothing can be made of this file; what was in it is missing");
    disk.rename(path, &aside).or_failed_to("rename to", &aside)?;
    let dir = path.parent().unwrap_or(Path::new(""));
    disk.sync_dir(dir).or_failed_to("sync directory", dir)
}

/// Removes temporary files from a directory, and names the others.
pub(crate) fn list_whole<D: Disk>(disk: &D, dir: &Path) -> Result<Vec<String>, StorageError> {
    let mut names = disk.list(dir).or_failed_to("list", dir)?;
    for name in names.extract_if(.., |name| name.ends_with(TEMPORARY_SUFFIX)) {
        let path = dir.join(name);
        disk.remove(&path).or_failed_to("remove", &path)?;
    }
    Ok(names)
}

fn temporary_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(TEMPORARY_SUFFIX);
    PathBuf::from(name)
}

//! A data directory that is only looked at: what is written stays in memory, and nothing of it reaches the directory.
//!
//! So the code that opens a store can be let loose on a directory, also on one that a node is using, and tell what it would
//! find and do. What a node writes meanwhile may look torn: its newest round is not over.
//!
//! Of each file there is what the directory holds, as it was when it was first opened, and what was written over it:
//!
//! ```text
//!   in the directory   [.................]
//!   still visible      [...........]           cut here
//!   written            [     ##    ]  ####     the newest on top
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::disk::{Disk, DiskFile, OpenMode};

/// A [`Disk`] over a directory of the system that it leaves as it is.
#[derive(Debug)]
pub struct OverlayDisk {
    root: PathBuf,
    names: Mutex<Names>,
}

/// What is other than in the directory.
#[derive(Default, Debug)]
struct Names {
    /// Files that were opened or made; none: removed.
    files: BTreeMap<PathBuf, Option<OverlayFile>>,
    made_dirs: BTreeSet<PathBuf>,
    removed_dirs: BTreeSet<PathBuf>,
}

/// An open file; copies of it are the same file.
#[derive(Clone, Debug)]
pub struct OverlayFile(Arc<Mutex<Content>>);

#[derive(Debug)]
struct Content {
    base: Option<File>,
    /// Bytes of it that are visible.
    base_size: u64,
    size: u64,
    /// Where each was written, oldest first.
    written: Vec<(u64, Vec<u8>)>,
}

impl OverlayDisk {
    /// Looks at a directory.
    #[must_use]
    pub fn over(root: PathBuf) -> Self {
        Self { root, names: Mutex::default() }
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_dir(&self, names: &Names, dir: &Path) -> bool {
        let is_real = !names.removed_dirs.contains(dir) && self.root.join(dir).is_dir();
        is_real || names.made_dirs.contains(dir)
    }

    fn find(&self, names: &mut Names, path: &Path) -> io::Result<OverlayFile> {
        match names.files.get(path) {
            Some(Some(file)) => return Ok(file.clone()),
            Some(None) => return Err(io::ErrorKind::NotFound.into()),
            None => {}
        }
        let base = File::open(self.root.join(path))?;
        let size = base.metadata()?.len();
        let content = Content { base: Some(base), base_size: size, size, written: Vec::new() };
        let file = OverlayFile(Arc::new(Mutex::new(content)));
        names.files.insert(path.to_owned(), Some(file.clone()));
        Ok(file)
    }

    fn list_in(&self, names: &Names, dir: &Path) -> io::Result<Vec<String>> {
        if !self.has_dir(names, dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let mut found = BTreeSet::new();
        if self.root.join(dir).is_dir() && !names.removed_dirs.contains(dir) {
            for entry in std::fs::read_dir(self.root.join(dir))? {
                found.insert(entry?.file_name().to_string_lossy().into_owned());
            }
        }
        let name_in = |path: &PathBuf| {
            let name = path.file_name().filter(|_| path.parent() == Some(dir));
            name.map(|name| name.to_string_lossy().into_owned())
        };
        found.extend(names.made_dirs.iter().filter_map(name_in));
        for (path, file) in &names.files {
            match (name_in(path), file) {
                (Some(name), Some(_)) => drop(found.insert(name)),
                (Some(name), None) => drop(found.remove(&name)),
                (None, _) => {}
            }
        }
        for gone in names.removed_dirs.iter().filter_map(name_in) {
            found.remove(&gone);
        }
        Ok(found.into_iter().collect())
    }
}

impl Disk for OverlayDisk {
    type File = OverlayFile;

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut names = self.names();
        for dir in path.ancestors().filter(|dir| !dir.as_os_str().is_empty()) {
            if !self.has_dir(&names, dir) {
                names.removed_dirs.remove(dir);
                names.made_dirs.insert(dir.to_owned());
            }
        }
        Ok(())
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<OverlayFile> {
        let mut names = self.names();
        if mode == OpenMode::Existing {
            return self.find(&mut names, path);
        }
        if !self.has_dir(&names, path.parent().unwrap_or(Path::new(""))) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if self.find(&mut names, path).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let content = Content { base: None, base_size: 0, size: 0, written: Vec::new() };
        let file = OverlayFile(Arc::new(Mutex::new(content)));
        names.files.insert(path.to_owned(), Some(file.clone()));
        Ok(file)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.list_in(&self.names(), dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut names = self.names();
        let file = self.find(&mut names, from)?;
        names.files.insert(from.to_owned(), None);
        names.files.insert(to.to_owned(), Some(file));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut names = self.names();
        self.find(&mut names, path)?;
        names.files.insert(path.to_owned(), None);
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut names = self.names();
        if !self.list_in(&names, path)?.is_empty() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        names.made_dirs.remove(path);
        names.removed_dirs.insert(path.to_owned());
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        if self.has_dir(&self.names(), dir) { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn sync_all(&self) -> io::Result<()> {
        Ok(())
    }
}

impl OverlayFile {
    fn content(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DiskFile for OverlayFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let content = self.content();
        let count = clamp(content.size.saturating_sub(position), buffer.len());
        let buffer = &mut buffer[..count];
        buffer.fill(0);
        let from_base = clamp(content.base_size.saturating_sub(position), count);
        if let Some(base) = content.base.as_ref().filter(|_| from_base > 0) {
            DiskFile::read_at(base, &mut buffer[..from_base], position)?;
        }
        for (at, bytes) in &content.written {
            let start = position.max(*at);
            let end = (position + count as u64).min(at + bytes.len() as u64);
            if start < end {
                let piece = &bytes[clamp(start - at, bytes.len())..clamp(end - at, bytes.len())];
                let place = clamp(start - position, count);
                buffer[place..place + piece.len()].copy_from_slice(piece);
            }
        }
        Ok(count)
    }

    fn write_at(&self, chunks: &[Bytes], position: u64) -> io::Result<()> {
        let bytes = chunks.concat();
        if !bytes.is_empty() {
            let mut content = self.content();
            content.size = content.size.max(position + bytes.len() as u64);
            content.written.push((position, bytes));
        }
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.content().size)
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        let mut content = self.content();
        content.base_size = content.base_size.min(size);
        content.size = size;
        for (at, bytes) in &mut content.written {
            let kept = clamp(size.saturating_sub(*at), bytes.len());
            bytes.truncate(kept);
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// `number`, or `limit` if that is less.
fn clamp(number: u64, limit: usize) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX).min(limit)
}

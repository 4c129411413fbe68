//! Segments that were let go of, and that the next ones are written over.
//!
//! A sync of blocks that were written before costs no metadata: with rounds of 1 MiB half as much as one of blocks that are new
//! (`benches/preallocation.rs`). So a log that lets go of segments puts their files by, in its own directory, and makes the next
//! segment of one of them: its local block is overwritten and synced before the file has its new name. What is behind that are
//! prepares of before. They do not continue the log, so a start cuts them off like a torn round, and what was put by and not
//! used is removed, like every temporary file. With the log goes what it has put by; and what nothing was written over until the log lets
//! go of more, or of all it had, goes as well: records that are too old do not stay on the disk for it.
//!
//! Of all logs so many bytes are kept, those that were put by last; and none when the disk is full: that comes before the reserve.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

/// Bytes that all logs together may have put by: four segments of the usual size.
pub(crate) const SPARE_BYTES_MAX: u64 = 1 << 30;

/// Files that were put by, the oldest first.
#[derive(Default, Debug)]
pub(crate) struct Spares {
    files: VecDeque<(PathBuf, u64)>,
    bytes: u64,
}

impl Spares {
    /// The name of a file while it is put by.
    pub(crate) fn name_of(path: &Path) -> PathBuf {
        let mut name = path.as_os_str().to_owned();
        name.push(".spare.tmp");
        PathBuf::from(name)
    }

    /// Notes a file; gives those that are too many now.
    pub(crate) fn push(&mut self, path: PathBuf, size: u64) -> Vec<PathBuf> {
        self.files.push_back((path, size));
        self.bytes += size;
        let mut gone = Vec::new();
        while self.bytes > SPARE_BYTES_MAX
            && let Some((path, size)) = self.files.pop_front()
        {
            self.bytes -= size;
            gone.push(path);
        }
        gone
    }

    /// Takes a file of a directory, the one that was put by last.
    pub(crate) fn pop(&mut self, dir: &Path) -> Option<PathBuf> {
        let at = self.files.iter().rposition(|(path, _)| path.parent() == Some(dir))?;
        let (path, size) = self.files.remove(at)?;
        self.bytes -= size;
        Some(path)
    }

    /// Takes all.
    pub(crate) fn drain(&mut self) -> Vec<PathBuf> {
        self.bytes = 0;
        self.files.drain(..).map(|(path, _)| path).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_and_each_directory_gets_its_own() {
        let mut spares = Spares::default();
        let path = |name: &str| Spares::name_of(Path::new(name));
        let nothing: [PathBuf; 0] = [];
        let half = SPARE_BYTES_MAX / 2;
        assert_eq!(spares.push(path("a/1.log"), half), nothing);
        assert_eq!(spares.push(path("b/1.log"), half), nothing);
        assert_eq!(spares.push(path("a/2.log"), 1), [PathBuf::from("a/1.log.spare.tmp")]);
        assert_eq!(spares.pop(Path::new("c")), None);
        assert_eq!(spares.pop(Path::new("a")), Some(path("a/2.log")));
        assert_eq!(spares.pop(Path::new("a")), None);
        assert_eq!(spares.push(path("a/3.log"), half), nothing, "what was taken counts no more");
        assert_eq!(spares.drain(), [path("b/1.log"), path("a/3.log")]);
        assert_eq!(spares.pop(Path::new("b")), None);
    }
}

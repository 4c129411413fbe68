//! The wall clocks of nodes, as far as they are wrong: libfaketime, loaded into each node, adds what stands in a file.
//!
//! Only the wall clock is touched. The monotonic clock of a system neither jumps nor strobes, whatever happens to its time of
//! day, and the drift it may have is far below what timers notice.
//!
//! The library reads the file whenever a node asks for the time, so a change is felt at once. It keeps two files of its own in
//! shared memory for each process, and only removes them if the process ends in order; [`sweep`] does so otherwise.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Where systems keep libraries. Debian has a folder for each architecture in the first.
const FOLDERS: [&str; 4] = ["/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/local/lib64"];

/// The library for programs with threads, in one of those folders or a folder below.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// Finds the library.
pub(crate) fn library() -> Option<PathBuf> {
    FOLDERS.iter().find_map(|folder| library_in(Path::new(folder)))
}

fn library_in(folder: &Path) -> Option<PathBuf> {
    let below = fs::read_dir(folder).ok()?.filter_map(Result::ok).map(|entry| entry.path());
    let mut places: Vec<PathBuf> = below.collect();
    places.sort();
    places.insert(0, folder.to_owned());
    places.into_iter().map(|place| place.join(LIBRARY)).find(|path| path.is_file())
}

/// How far a clock is ahead of the right time, in milliseconds; negative if it is behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Ahead(pub(crate) i64);

impl Ahead {
    /// As the library reads it: seconds with their sign.
    fn text(self) -> String {
        let sign = if self.0 < 0 { '-' } else { '+' };
        let ms = self.0.unsigned_abs();
        format!("{sign}{}.{:03}\n", ms / 1_000, ms % 1_000)
    }
}

/// The clock of one node.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    /// A clock that is right.
    pub(super) fn make(library: &Path, folder: &Path, node: u8) -> anyhow::Result<Self> {
        let clock = Self { library: library.to_owned(), file: folder.join(format!("clock-{node}")) };
        clock.set(Ahead::default())?;
        Ok(clock)
    }

    /// Makes it wrong, or right.
    pub(super) fn set(&self, ahead: Ahead) -> anyhow::Result<()> {
        // Whoever reads meanwhile finds the one or the other.
        let new = self.file.with_extension("new");
        fs::write(&new, ahead.text())
            .and_then(|()| fs::rename(&new, &self.file))
            .with_context(|| format!("cannot write {}", self.file.display()))
    }

    /// What a process must find in its environment to have this clock.
    pub(super) fn environment(&self) -> [(&'static str, OsString); 5] {
        [
            ("LD_PRELOAD", self.library.as_os_str().to_owned()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.as_os_str().to_owned()),
            ("FAKETIME_NO_CACHE", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
            ("NO_FAKE_STAT", "1".into()),
        ]
    }
}

/// Removes what the library has left behind of a process that is gone: one that gets the same id would refuse to start.
pub(crate) fn sweep(pid: i32) {
    for name in [format!("faketime_shm_{pid}"), format!("sem.faketime_sem_{pid}")] {
        // Most processes have a right clock, and left nothing.
        let _ = fs::remove_file(Path::new("/dev/shm").join(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_written_as_the_library_reads_them() {
        let text = |ms| Ahead(ms).text();
        assert_eq!(text(0), "+0.000\n");
        assert_eq!(text(90_007), "+90.007\n");
        assert_eq!(text(-5), "-0.005\n");
        assert_eq!(text(-120_250), "-120.250\n");
    }

    #[test]
    fn the_library_is_found_in_a_folder_or_below() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(library_in(folder.path()), None);
        assert_eq!(library_in(&folder.path().join("missing")), None);
        for place in ["x86_64-linux-gnu", "."] {
            let path = folder.path().join(place).join(LIBRARY);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
            assert_eq!(library_in(folder.path()), Some(path));
        }
    }

    #[test]
    fn a_clock_is_right_until_it_is_set() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::make(Path::new("/lib/clock.so"), folder.path(), 3).unwrap();
        let read = || fs::read_to_string(folder.path().join("clock-3")).unwrap();
        assert_eq!(read(), "+0.000\n");
        clock.set(Ahead(-1_500)).unwrap();
        assert_eq!(read(), "-1.500\n");
    }
}

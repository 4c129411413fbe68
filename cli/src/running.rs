//! What a running `varve dev` tells other commands: the file `dev.json` in its data directory. It is there while the
//! cluster runs, so that commands in the same folder need no connection string.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

const FILE: &str = "dev.json";

const LOCK_FILE: &str = "dev.lock";

/// How long a command that looks whether something runs may hold the lock up.
const LOCK_WAIT: Duration = Duration::from_millis(500);

/// A cluster that `varve dev` runs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Running {
    /// The connection string.
    pub(crate) servers: String,
    /// The process of `varve dev`.
    pub(crate) pid: u32,
    /// Its configuration file.
    pub(crate) config: PathBuf,
    /// The nodes, by id.
    pub(crate) nodes: Vec<RunningNode>,
}

/// One node of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct RunningNode {
    /// Which one.
    pub(crate) id: u8,
    /// `host:port`.
    pub(crate) address: String,
    /// Its process; none if it has ended.
    pub(crate) pid: Option<u32>,
    /// Where it logs to.
    pub(crate) log: PathBuf,
}

impl Running {
    /// Reads what runs on a data directory; none if nothing does, whatever a `varve dev` that was killed left behind.
    pub(crate) fn read(data_dir: &Path) -> io::Result<Option<Self>> {
        if !is_locked(data_dir) {
            return Ok(None);
        }
        match std::fs::read(data_dir.join(FILE)) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Takes a data directory; none if another `varve dev` has it. The system gives the lock back when this process ends,
    /// however it ends.
    pub(crate) fn lock(data_dir: &Path) -> io::Result<Option<File>> {
        let file = File::create(data_dir.join(LOCK_FILE))?;
        let start = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(file)),
                Err(TryLockError::WouldBlock) if start.elapsed() > LOCK_WAIT => return Ok(None),
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_WAIT / 10),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }

    /// Writes the file anew; readers see the old or the new one, never half of it.
    pub(crate) fn write(&self, data_dir: &Path) -> io::Result<()> {
        let new = data_dir.join("dev.json.new");
        std::fs::write(&new, serde_json::to_vec_pretty(self)?)?;
        std::fs::rename(new, data_dir.join(FILE))
    }

    /// Takes the file away.
    pub(crate) fn remove(data_dir: &Path) -> io::Result<()> {
        std::fs::remove_file(data_dir.join(FILE))
    }
}

/// Whether a `varve dev` holds a data directory. If that cannot be found out, it is believed.
fn is_locked(data_dir: &Path) -> bool {
    match File::open(data_dir.join(LOCK_FILE)) {
        Ok(file) => file.try_lock_shared().is_err(),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_behind_does_not_run() {
        let dir = tempfile::tempdir().unwrap();
        let running =
            Running { servers: "varve://a:1".to_owned(), pid: 1, config: PathBuf::new(), nodes: Vec::new() };
        assert_eq!(Running::read(&dir.path().join("nowhere")).unwrap(), None);
        let lock = Running::lock(dir.path()).unwrap().unwrap();
        assert_eq!(Running::read(dir.path()).unwrap(), None);
        running.write(dir.path()).unwrap();
        assert_eq!(Running::read(dir.path()).unwrap(), Some(running));
        assert!(Running::lock(dir.path()).unwrap().is_none(), "there is one `varve dev` at a time");
        drop(lock);
        assert_eq!(Running::read(dir.path()).unwrap(), None);
    }
}

//! What a running `varve dev` tells other commands: the file `dev.json` in its data directory. It is there while the
//! cluster runs, so that commands in the same folder need no connection string.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

const FILE: &str = "dev.json";

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
    /// Reads what runs on a data directory; none if nothing does.
    pub(crate) fn read(data_dir: &Path) -> io::Result<Option<Self>> {
        match std::fs::read(data_dir.join(FILE)) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Ok(None)
            }
            Err(error) => Err(error),
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

//! A disk that can be made slow, made to fail, and deprived of what was not synced: a file system between a node and the folder
//! that holds its data.
//!
//! ```text
//!   varve node ──▶ kernel ──▶ the harness (FUSE) ──▶ data/node-N
//!                                   │
//!                            Control: wait, refuse, remember what is not synced
//! ```
//!
//! One thread serves a disk, so whoever waits holds up all others, as on a slow device. The kernel keeps nothing in memory of its
//! own: each read and write of the node comes here. It does not tell when a node syncs a whole file system, which nodes do
//! only while they open their data: what is not synced is remembered from some moment on, and that must be later.

mod control;
mod filesystem;
mod names;
mod unsynced;

use std::io;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use fuser::{BackgroundSession, Config, MountOption};

pub(crate) use self::control::{Bad, Control, Failing};
use self::filesystem::Passthrough;

/// What the kernel and the harness talk through.
const DEVICE: &str = "/dev/fuse";

/// Whether such disks can be mounted here; or why not.
pub(crate) fn faulty_disks_are_possible() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("bad disks are mounted, which needs root".to_owned());
    }
    let opened = std::fs::OpenOptions::new().read(true).write(true).open(DEVICE);
    opened.map(|_| ()).map_err(|error| format!("bad disks need FUSE: {DEVICE}: {error}"))
}

/// A mounted disk. It is unmounted when it is dropped, if nobody uses it any more.
pub(crate) struct FaultyDisk {
    pub(crate) control: Arc<Control>,
    _session: BackgroundSession,
}

impl FaultyDisk {
    /// Mounts `folder` at `mount` as well.
    pub(crate) fn mount(folder: &Path, mount: &Path) -> anyhow::Result<Self> {
        let control = Arc::new(Control::default());
        let filesystem = Passthrough::new(folder, control.clone());
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("varve-jepsen".to_owned()), MountOption::NoAtime];
        let session = fuser::spawn_mount(filesystem, mount, &config);
        let session = session.with_context(|| format!("cannot mount {}", mount.display()))?;
        Ok(Self { control, _session: session })
    }
}

/// What a broken device answers.
fn input_output_error() -> io::Error {
    io::Error::from(rustix::io::Errno::IO)
}

//! Bytes that survive: the logs and superblocks of all groups of a node, on one disk.
//!
//! * A group's log is a row of segment files that hold prepares exactly as they are sent ([`Store`], `segment`).
//! * What a log builds on that has let go of its oldest segments is a snapshot beside the others (`base`).
//! * A start reads what is behind the log's resume point (`resume`), and the indexes of full segments (`index_file`).
//! * What a replica promised is in the superblocks, two copies of one file for all groups (`superblocks`).
//! * A call of [`Store::execute`] is a group commit: all writes first, then what makes them durable, then the answers: one sync per log
//!   where few were written to; one for all of them, of a `journal`, where little was written to many.
//! * After a crash a torn end that was never acknowledged is cut; damage to what was durable is reported, never guessed
//!   away: the decision table is in `recovery`. A hole is filled with [`Job::Mend`] (`gap`); a lost end is in the superblock.
//! * A log that is in use is looked at again piece by piece, and is given back what has rotted ([`Job::Scrub`], `scrub`).
//! * With a key file, what users have stored is sealed (`keys`, `seal`, `sealed_file`).
//! * When the disk is full, what finds no room waits in the store until there is some (`store::full`); a reserve keeps view
//!   changes and deletions going meanwhile (`reserve`).
//! * [`Disk`] is the seam: [`FileDisk`] is the system's, [`MemoryDisk`] models what a crash may do to it, [`OverlayDisk`] only
//!   looks.
//!
//! Everything is synchronous and deterministic: no clock, no thread, no entropy of its own.
//!
//! Sources: Alagappan et al., "Protocol-Aware Recovery for Consensus-Based Storage" (FAST 2018); Rebello et al., "Can
//! Applications Recover from fsync Failures?" (ATC 2020): a failed sync is never retried.

mod base;
mod cut;
pub mod disk;
pub mod error;
mod file;
mod file_disk;
mod founders;
mod fresh;
mod gap;
mod identity;
mod index;
mod index_file;
pub mod job;
mod journal;
mod keys;
mod log;
mod memory_disk;
mod opening;
mod outside;
mod overlay_disk;
mod reader;
mod reaper;
mod recent;
mod recovery;
mod reserve;
mod resume;
mod round;
mod scrub;
mod seal;
mod sealed_file;
mod segment;
mod shelf;
mod spare;
mod store;
mod superblocks;
mod torn;
mod writer;

pub use base::{Summarize, Summary};
pub use disk::{Disk, DiskFile, OpenMode};
pub use error::{IoFailure, StorageError};
pub use file_disk::{FileDisk, raise_open_files_max};
pub use gap::Hole;
pub use identity::Identity;
pub use job::{ActiveSegment, Completion, Job, ReadFrom, SealedSegment};
pub use keys::{KEY_SIZE, KeyId, Keys, KeysError};
pub use memory_disk::{MemoryDisk, MemoryFile, SyncFault};
pub use outside::{Outside, OutsideDamage, look_from_outside};
pub use overlay_disk::{OverlayDisk, OverlayFile};
pub use recovery::{Extent, Piece};
pub use scrub::{Damage, Finding, Mark, ScrubFrom, Scrubbed};
pub use store::{Options, RecoveredGroup, Store};

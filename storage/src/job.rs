//! What a store is asked to do, and what it answers.
//!
//! A call of [`crate::Store::execute`] is a round, or several where a log is written after a superblock of its group. Every
//! job is answered in it: reads, looks and what is given back by one completion each; appends, syncs, truncations and snapshots that are taken by one
//! [`Completion::Durable`] per group and round; each saved superblock and each deletion by its own; and a group that failed by one [`Completion::Failed`] in place
//! of all of these but its reads.
//! When the disk is full, what finds no room is not answered but waits in the store: see [`Completion::DiskFull`].
//! A round is not atomic: after a crash in it, any part of it may be there. But nothing that a group wrote to its log after a
//! superblock was handed in is there without that superblock.

use std::collections::BTreeMap;

use varve_protocol::id::{DirectoryId, GroupId, NodeId, Offset, Op, Timestamp};
use varve_protocol::log_start::LogStart;
use varve_protocol::prepare::{Prepare, PrepareId};
use varve_protocol::resume_point::ResumePoint;
use varve_protocol::snapshot::Snapshot;
use varve_protocol::superblock::Superblock;

use crate::base::Summarize;
use crate::error::StorageError;
use crate::gap::Hole;
use crate::scrub::{Damage, ScrubFrom, Scrubbed};

/// Something to do for one group.
#[derive(Clone, Debug)]
pub enum Job {
    /// Puts prepares behind the end of the log.
    Append {
        /// Whose log.
        group: GroupId,
        /// In order; the first one follows the head, each one the one before it.
        prepares: Vec<Prepare>,
    },
    /// The same, but not durable before the next job that makes anything of this log durable. Nothing is answered.
    Write {
        /// Whose log.
        group: GroupId,
        /// As in [`Job::Append`].
        prepares: Vec<Prepare>,
    },
    /// Makes durable what was written to the log; answered like an append.
    Sync {
        /// Whose log.
        group: GroupId,
    },
    /// Cuts the log behind an op, durably before anything is appended again.
    Truncate {
        /// Whose log.
        group: GroupId,
        /// The newest op that stays.
        keep: Op,
    },
    /// Replaces a group's superblock; the first one makes the group.
    SaveSuperblock(Superblock),
    /// Reads whole prepares, in order; at least one if there is one, whatever its size.
    Read {
        /// Whose log.
        group: GroupId,
        /// Given back in the completion.
        token: u64,
        /// Where to start.
        from: ReadFrom,
        /// Bytes of headers and bodies to stay within, except for the first one.
        bytes_max: usize,
        /// The newest op to read.
        last: Op,
    },
    /// Notes for good which nodes founded the cluster, with which data directories; before the first superblock.
    SaveFounders(BTreeMap<NodeId, DirectoryId>),
    /// Puts prepares back into the first hole of a log, from its beginning on.
    Mend {
        /// Whose log.
        group: GroupId,
        /// In order.
        prepares: Vec<Prepare>,
    },
    /// Gives up the first hole of a log, and what is behind it: the log ends before it, and its superblock says that it has
    /// lost its end.
    GiveUpHoles {
        /// Whose log.
        group: GroupId,
    },
    /// Gives up all of a log that is in use: it is as if it had never been written to, and its superblock says that it has lost
    /// its end. What was handed in before and is not durable goes with it, and is not answered.
    GiveUpLog {
        /// Whose log.
        group: GroupId,
    },
    /// Lets go of the segments that lie wholly before an op, which is committed, and keeps a snapshot of what they meant.
    LetGo {
        /// Whose log.
        group: GroupId,
        /// The first op to keep.
        first: Op,
        /// Makes the snapshot.
        summarize: Summarize,
    },
    /// The same where what goes cannot be read any more: with a snapshot of another replica. Answered alike; nothing is let go
    /// if the snapshot does not help. If it is the very one that the log builds on, and that cannot be read, it takes its place.
    LetGoWith {
        /// Whose log.
        group: GroupId,
        /// The first op to keep.
        first: Op,
        /// What another replica's log builds on.
        snapshot: Snapshot,
        /// Makes a snapshot of what is behind that and goes as well.
        summarize: Summarize,
    },
    /// Puts a snapshot in the place of the whole log: what follows is appended behind it.
    TakeSnapshot {
        /// Whose log.
        group: GroupId,
        /// What it builds on from now on.
        snapshot: Snapshot,
    },
    /// Reads what the log builds on.
    ReadSnapshot {
        /// Whose log.
        group: GroupId,
        /// Given back in the completion.
        token: u64,
    },
    /// Keeps where the next start may go on reading a log; not answered. Nothing happens if there is no room.
    SaveResumePoint {
        /// Whose log.
        group: GroupId,
        /// Of a prepare that is durable in the log.
        point: Box<ResumePoint>,
    },
    /// Tells which segments there are.
    Survey {
        /// Whose log.
        group: GroupId,
    },
    /// Looks whether what was durable can still be read, and is what it was: a piece of a log that is in use.
    Scrub {
        /// Whose log.
        group: GroupId,
        /// Where to start.
        from: ScrubFrom,
        /// Bytes to look at, about; one prepare in any case.
        bytes_max: usize,
        /// The newest op to look at: committed, and durable here.
        last: Op,
    },
    /// Looks at what all groups share: superblocks that do not say what they said are written anew, and the journal begins anew, so
    /// that nothing in it gets old. Answered with the metadata's group if it fails.
    ScrubShared,
    /// Gives back prepares that cannot be read any more, to a log that is in use.
    Patch {
        /// Whose log.
        group: GroupId,
        /// Where they belong.
        damage: Damage,
        /// The first ones that are missing, in order.
        prepares: Vec<Prepare>,
    },
    /// Forgets a group and removes its files. Its id is never used again.
    DeleteGroup {
        /// Which one.
        group: GroupId,
    },
    /// Looks whether there is room again for what waits since the disk was full.
    Resume,
}

impl Job {
    /// Whose job this is.
    #[must_use]
    pub fn group(&self) -> GroupId {
        match self {
            Self::Append { group, .. }
            | Self::Write { group, .. }
            | Self::Sync { group }
            | Self::Truncate { group, .. }
            | Self::Read { group, .. }
            | Self::Mend { group, .. }
            | Self::GiveUpHoles { group }
            | Self::GiveUpLog { group }
            | Self::LetGo { group, .. }
            | Self::LetGoWith { group, .. }
            | Self::TakeSnapshot { group, .. }
            | Self::ReadSnapshot { group, .. }
            | Self::SaveResumePoint { group, .. }
            | Self::Survey { group }
            | Self::Scrub { group, .. }
            | Self::Patch { group, .. }
            | Self::DeleteGroup { group } => *group,
            Self::SaveSuperblock(superblock) => superblock.group,
            Self::SaveFounders(_) | Self::ScrubShared | Self::Resume => GroupId::METADATA,
        }
    }
}

impl Job {
    /// Whether a log is to lose something of its newer end.
    pub(crate) fn takes_from_log(&self) -> bool {
        match self {
            Self::Truncate { .. }
            | Self::TakeSnapshot { .. }
            | Self::GiveUpHoles { .. }
            | Self::GiveUpLog { .. } => true,
            Self::Append { .. }
            | Self::Write { .. }
            | Self::Sync { .. }
            | Self::SaveSuperblock(_)
            | Self::Read { .. }
            | Self::SaveFounders(_)
            | Self::Mend { .. }
            | Self::LetGo { .. }
            | Self::LetGoWith { .. }
            | Self::ReadSnapshot { .. }
            | Self::SaveResumePoint { .. }
            | Self::Survey { .. }
            | Self::Scrub { .. }
            | Self::ScrubShared
            | Self::Patch { .. }
            | Self::DeleteGroup { .. }
            | Self::Resume => false,
        }
    }

    /// Whether no file of a sealed segment is removed, made or written to.
    pub(crate) fn leaves_sealed_files(&self) -> bool {
        match self {
            Self::Append { .. }
            | Self::Write { .. }
            | Self::Sync { .. }
            | Self::SaveSuperblock(_)
            | Self::SaveFounders(_)
            | Self::Read { .. }
            | Self::ReadSnapshot { .. }
            | Self::SaveResumePoint { .. }
            | Self::Survey { .. }
            | Self::ScrubShared => true,
            Self::Truncate { .. }
            | Self::Mend { .. }
            | Self::GiveUpHoles { .. }
            | Self::GiveUpLog { .. }
            | Self::LetGo { .. }
            | Self::LetGoWith { .. }
            | Self::TakeSnapshot { .. }
            | Self::Scrub { .. }
            | Self::Patch { .. }
            | Self::DeleteGroup { .. }
            | Self::Resume => false,
        }
    }
}

/// A full segment, as a survey tells of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SealedSegment {
    /// Where the next one begins.
    pub next: LogStart,
    /// Bytes of its prepares.
    pub bytes: u64,
    /// The newest timestamp in it.
    pub newest: Timestamp,
}

/// The segment that is appended to, as a survey tells of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ActiveSegment {
    /// The newest prepare of the log.
    pub head: Op,
    /// Bytes of its prepares.
    pub bytes: u64,
    /// The newest timestamp in it.
    pub newest: Timestamp,
    /// Whether there are records in it.
    pub has_records: bool,
}

/// Where a read starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadFrom {
    /// At this op.
    Op(Op),
    /// At the prepare whose records include this offset; prepares without records include none.
    Offset(Offset),
    /// At the first prepare with this timestamp or a later one.
    Time(Timestamp),
}

/// What came of a job.
#[derive(Clone, PartialEq, Debug)]
pub enum Completion {
    /// The log of a group is durable up to its head; answers all its appends and truncations of the round.
    Durable {
        /// Whose log.
        group: GroupId,
        /// The newest durable prepare, which is the head.
        id: PrepareId,
    },
    /// A superblock is durable.
    SuperblockDurable(Superblock),
    /// The founders are durable.
    FoundersDurable,
    /// What was read.
    Read {
        /// Whose log.
        group: GroupId,
        /// As given in the job.
        token: u64,
        /// Empty if the log holds nothing from there up to the last op asked for.
        result: Result<Vec<Prepare>, StorageError>,
    },
    /// What was put back is durable, or what was to be given up is gone, durably.
    Mended {
        /// Whose log.
        group: GroupId,
        /// The first hole that is left.
        hole: Option<Hole>,
    },
    /// Segments were let go, durably, or there was nothing to let go, or they could not be read.
    LetGo {
        /// Whose log.
        group: GroupId,
        /// Where the log starts on this disk.
        start: LogStart,
    },
    /// A segment was filled, and the next one begun. Comes beside the answers to what was appended.
    Sealed {
        /// Whose log.
        group: GroupId,
        /// The last op of the full one.
        last: Op,
    },
    /// What the log builds on.
    Snapshot {
        /// Whose log.
        group: GroupId,
        /// As given in the job.
        token: u64,
        /// None if it begins with op 1.
        result: Result<Option<Snapshot>, StorageError>,
    },
    /// The segments there are.
    Surveyed {
        /// Whose log.
        group: GroupId,
        /// The full ones, oldest first.
        sealed: Vec<SealedSegment>,
        /// The one that is not full.
        active: ActiveSegment,
    },
    /// A piece of a log was looked at.
    Scrubbed {
        /// Whose log.
        group: GroupId,
        /// What was seen.
        piece: Scrubbed,
    },
    /// What all groups share was looked at.
    SharedScrubbed {
        /// Whether nothing had rotted.
        was_sound: bool,
    },
    /// What was given back is durable.
    Patched {
        /// Whose log.
        group: GroupId,
        /// What is still damaged; all of it if nothing could be given back.
        left: Option<Damage>,
    },
    /// Something that is to be let go cannot be read; nothing was.
    CannotLetGo {
        /// Whose log.
        group: GroupId,
        /// The first op that cannot be read.
        op: Op,
    },
    /// The snapshot of another replica that was to help to let go ends behind the last segment that goes as a whole, and before
    /// the first op to keep; nothing was let go.
    NoneFits {
        /// Whose log.
        group: GroupId,
    },
    /// What a log builds on could not be read, and is there again, durably.
    SnapshotRestored {
        /// Whose log.
        group: GroupId,
    },
    /// A group is gone, durably.
    Deleted {
        /// Which one.
        group: GroupId,
    },
    /// The disk is full. What this group has handed in and was not answered waits, and so does what it hands in from now on.
    DiskFull {
        /// Which group.
        group: GroupId,
    },
    /// There was room again, and nothing of this group waits any more.
    DiskHasRoom {
        /// Which group.
        group: GroupId,
    },
    /// The group cannot go on here: what it wrote in this round may be durable or not. It is closed until the store is
    /// opened again: later jobs are answered with the same error and nothing is retried. Only [`Job::DeleteGroup`] still works.
    Failed {
        /// Which group.
        group: GroupId,
        /// Why.
        error: StorageError,
    },
}

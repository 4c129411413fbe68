//! What a node remembers at its start: the superblock and log of every replica, and the metadata as far as it is surely
//! committed.

use std::collections::{BTreeMap, VecDeque};

use varve_consensus::RecoveredLog;
use varve_protocol::frame::Command;
use varve_protocol::id::{DirectoryId, GroupId, Op};
use varve_protocol::metadata::MetadataOp;
use varve_protocol::prepare::{Prepare, PrepareKind};
use varve_protocol::pulse::Founders;
use varve_protocol::snapshot::Snapshot;
use varve_protocol::superblock::Superblock;
use varve_protocol::version::{Version, Versions};
use varve_storage::{Disk, Hole, Identity, Options, Piece, StorageError, Store};

use crate::metadata::Metadata;
use crate::node::why_outside;

/// Why a replica takes no part whose snapshot is sound, and has another form than this release knows.
const UNREADABLE: &str = "what its log builds on was written by another release; start the one that wrote it, or upgrade step by step";

/// One replica as it was found.
#[derive(Debug)]
pub(crate) struct RecoveredReplica {
    pub(crate) superblock: Superblock,
    pub(crate) log: RecoveredLog,
    /// Why it cannot take part, if so.
    pub(crate) problem: Option<String>,
    /// What is missing in its log.
    pub(crate) hole: Option<Hole>,
    /// The op before the first one on the disk.
    pub(crate) base: Op,
    /// What the log builds on; not kept if the log has no hole.
    pub(crate) snapshot: Option<Snapshot>,
    /// The end of sealed segments that the next start has to read again, unless there is a resume point behind them.
    pub(crate) unmarked: Option<Op>,
}

/// Everything a node remembers.
#[derive(Debug, Default)]
pub struct Recovery {
    pub(crate) replicas: BTreeMap<GroupId, RecoveredReplica>,
    pub(crate) metadata: Metadata,
    /// Which data directory it is.
    pub(crate) directory: DirectoryId,
    /// The nodes that founded the cluster, with their data directories; none if it is not founded yet, as far as is known here.
    pub(crate) founders: Option<Founders>,
    /// Metadata prepares that may be committed or not, oldest first.
    pub(crate) metadata_tail: VecDeque<Prepare>,
    /// The newest version that anything read is written in.
    written: Version,
}

impl Recovery {
    /// Opens the store of a node and reads everything in it.
    ///
    /// # Errors
    /// When the data directory is not this node's, or cannot be read, or is sealed with a key that is not there.
    pub fn open<D: Disk>(
        disk: D,
        identity: Identity,
        options: Options,
    ) -> Result<(Store<D>, Self), StorageError> {
        let mut recovery = Self::default();
        // None: what it begins with cannot be read.
        let mut logs: BTreeMap<GroupId, Option<RecoveredLog>> = BTreeMap::new();
        let (store, groups) = Store::open(disk, identity, options, &mut |group, piece| match piece {
            Piece::Root => drop(logs.insert(group, Some(RecoveredLog::new()))),
            Piece::Snapshot(snapshot) => {
                let log = RecoveredLog::from_snapshot(snapshot);
                logs.insert(group, log.filter(|_| take_metadata(&mut recovery.metadata, snapshot)));
            }
            Piece::ResumePoint(point) => drop(logs.insert(group, RecoveredLog::from_resume_point(point))),
            Piece::Prepare(prepare) => {
                recovery.written = recovery.written.max(prepare.header().version());
                if let Some(Some(log)) = logs.get_mut(&group) {
                    push_recovered(log, group, prepare, &mut recovery.metadata, &mut recovery.metadata_tail);
                }
            }
        })?;
        recovery.directory = store.directory();
        recovery.founders = store.founders().cloned();
        for group in groups {
            let id = group.superblock.group;
            let is_for_operator = |problem: &StorageError| {
                matches!(problem, StorageError::KeyMissing { .. }) || problem.is_disk_full()
            };
            if let Some(problem) = group.problem.as_ref().filter(|problem| is_for_operator(problem)) {
                // Nothing is wrong with the disk, and the operator can help at once.
                return Err(problem.clone());
            }
            let log = logs.remove(&id).unwrap_or_else(|| Some(RecoveredLog::new()));
            let replica = RecoveredReplica {
                superblock: group.superblock,
                problem: match group.problem {
                    Some(problem) => Some(problem.to_string()),
                    None => log.is_none().then(|| UNREADABLE.to_owned()),
                },
                log: log.unwrap_or_default(),
                hole: group.hole,
                base: group.snapshot.as_ref().map_or(Op::ZERO, Snapshot::op),
                snapshot: group.snapshot.filter(|_| group.hole.is_some()),
                unmarked: group.unmarked,
            };
            if group.hole.is_some() && id == GroupId::METADATA {
                // It is read again from the start when it is mended.
                recovery.metadata_tail.clear();
            }
            recovery.replicas.insert(id, replica);
        }
        Ok((store, recovery))
    }

    /// Whether a release that knows these versions may go on with what was found; if not, why.
    ///
    /// # Errors
    /// When the cluster was raised to a version that it does not know.
    pub fn check_release(&self, versions: Versions) -> Result<(), String> {
        why_outside(self.metadata.version().max(self.written), versions).map_or(Ok(()), Err)
    }
}

/// Takes the metadata from what their log builds on; false if they cannot be read.
pub(crate) fn take_metadata(metadata: &mut Metadata, snapshot: &Snapshot) -> bool {
    if snapshot.header.group() != GroupId::METADATA {
        return true;
    }
    let taken = Metadata::from_snapshot(snapshot);
    let is_sound = taken.is_some();
    *metadata = taken.unwrap_or_default();
    is_sound
}

/// Takes the next prepare of a log that is read from its start, and applies what is surely committed of the metadata, if it
/// was not applied before.
pub(crate) fn push_recovered(
    log: &mut RecoveredLog,
    group: GroupId,
    prepare: &Prepare,
    metadata: &mut Metadata,
    metadata_tail: &mut VecDeque<Prepare>,
) {
    let committed = log.push(prepare);
    if group != GroupId::METADATA {
        return;
    }
    metadata_tail.push_back(prepare.clone());
    if let Some(header) = committed {
        let prepare = metadata_tail.pop_front().expect("what is committed was pushed before");
        assert!(prepare.id() == header.id(), "headers leave the recovered log in order");
        if prepare.op() > metadata.applied() {
            metadata.apply(prepare.op(), decode_operation(&prepare));
        }
    }
}

/// The metadata operation in a committed prepare, or `None` if it holds none.
///
/// # Panics
/// If the body is of kind `Metadata` and cannot be read: the primary that sealed it could, and the checksum is right, so this
/// node runs another release than the primary did; going on would let the nodes' metadata differ.
pub(crate) fn decode_operation(prepare: &Prepare) -> Option<MetadataOp> {
    match prepare.header().kind() {
        PrepareKind::Metadata => Some(
            varve_protocol::client::decode_archive(Command::Request, prepare.body())
                .expect("a committed metadata operation can be read by this release"),
        ),
        PrepareKind::Noop | PrepareKind::Records | PrepareKind::Replacement | PrepareKind::LogStart => None,
    }
}

//! Looks at the data directory of a node, also of one that runs, and changes nothing in it.
//!
//! The directory is opened with the code that a node opens it with, on a copy in memory of what that would write. So what is
//! told here is what a node that started now would find: what it would mend from others, what it would refuse, and why.

use std::collections::BTreeMap;
use std::path::Path;

use varve_protocol::id::{ClusterId, GroupId, NodeId, Offset, Op, View};
use varve_protocol::metadata::ClusterMap;
use varve_protocol::prepare::{Prepare, PrepareKind};
use varve_protocol::record::Batch;
use varve_protocol::snapshot::Snapshot;
use varve_storage::{
    Extent, Identity, Keys, Options, Outside, OutsideDamage, OverlayDisk, Piece, RecoveredGroup, Store,
    look_from_outside,
};

pub use varve_storage::StorageError;

use crate::metadata::Metadata;
use crate::recovery::{decode_operation, take_metadata};

/// How often it is looked again at what seems wrong.
const LOOKS_AGAIN: u32 = 2;

/// What is in a data directory.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// The node it belongs to.
    pub node: NodeId,
    /// Its groups, by id.
    pub groups: Vec<GroupInspection>,
    /// Streams, topics and partitions as the metadata's log here tells, committed or not; none if another release has summed it up.
    pub map: ClusterMap,
}

/// What is there of one group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupInspection {
    /// Which one.
    pub group: GroupId,
    /// The newest view that was promised.
    pub view: View,
    /// The newest view in which this replica worked.
    pub log_view: View,
    /// The first prepare that is there, or would be.
    pub first: Op,
    /// The last sound one before any damage.
    pub last: Op,
    /// Offset of the first record that is there, or would be.
    pub first_offset: Offset,
    /// Offset of the next record.
    pub next_offset: Offset,
    /// Sound prepares before any damage.
    pub prepares: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes of them, headers included.
    pub bytes: u64,
    /// What is wrong, and what comes of it; empty if nothing is.
    pub findings: Vec<String>,
}

/// What was counted of one log.
#[derive(Default)]
struct Count {
    next_offset: Offset,
    prepares: u64,
    records: u64,
    bytes: u64,
    bad_batches: Vec<Op>,
}

impl Count {
    fn add(&mut self, prepare: &Prepare) {
        let header = prepare.header();
        self.next_offset = header.next_offset();
        self.prepares += 1;
        self.records += u64::from(header.record_count());
        self.bytes += header.total_size() as u64;
        let is_bad = |batch: Batch| batch.record_count() != header.record_count();
        if header.kind() == PrepareKind::Records && Batch::decode(prepare.body().clone()).map_or(true, is_bad)
        {
            self.bad_batches.push(header.op());
        }
    }
}

/// Looks at everything in the data directory `dir`, and shows every sound prepare to `visit`: group by group, in order.
///
/// Of what is sealed with a key that is not among `keys`, no more is told than whether the disk has kept it.
///
/// # Errors
/// When it is no data directory, or nothing in it can be told because its identity or its superblocks are lost.
pub fn inspect(dir: &Path, keys: Keys, visit: &mut dyn FnMut(&Prepare)) -> Result<Inspection, StorageError> {
    let identity = Identity::of(&OverlayDisk::over(dir.to_owned()))?;
    let mut counts: BTreeMap<GroupId, Count> = BTreeMap::new();
    let mut metadata = Metadata::default();
    let mut is_readable = true;
    let disk = OverlayDisk::over(dir.to_owned());
    let options = Options { reserve_bytes: 0, extent: Extent::Whole, keys, ..Options::DEFAULT };
    let (_, groups) = Store::open(disk, identity, options, &mut |group, piece| match piece {
        // All of the logs is shown.
        Piece::Root | Piece::ResumePoint(_) => {}
        Piece::Snapshot(snapshot) => {
            counts.entry(group).or_default().next_offset = snapshot.next_offset();
            is_readable &= take_metadata(&mut metadata, snapshot);
        }
        Piece::Prepare(prepare) => {
            counts.entry(group).or_default().add(prepare);
            if group == GroupId::METADATA && is_readable {
                metadata.apply(prepare.op(), decode_operation(prepare));
            }
            visit(prepare);
        }
    })?;
    let report = |found: RecoveredGroup| {
        let group = found.superblock.group;
        let mut count = counts.remove(&group).unwrap_or_default();
        let mut from_outside = Vec::new();
        if matches!(found.problem, Some(StorageError::KeyMissing { .. })) {
            match look_from_outside(&OverlayDisk::over(dir.to_owned()), group) {
                Ok(seen) => from_outside = note_outside(&seen, &mut count),
                Err(error) => from_outside.push(error.to_string()),
            }
        }
        let mut report = report_of(&found, count);
        report.findings.extend(from_outside);
        report
    };
    let groups = groups.into_iter().map(report).collect();
    Ok(Inspection { cluster: identity.cluster, node: identity.node, groups, map: metadata.map() })
}

/// Looks as [`inspect`] does, and looks again where something is wrong. A node that runs deletes segments and replaces files while they
/// are read, and what that looks like is not found twice; what is damaged is.
///
/// # Errors
/// As those of [`inspect`].
pub fn verify(dir: &Path, keys: &Keys) -> Result<Inspection, StorageError> {
    let look = || inspect(dir, keys.clone(), &mut |_| {});
    let mut found = look();
    for _ in 0..LOOKS_AGAIN {
        let is_well = |found: &Inspection| found.groups.iter().all(|group| group.findings.is_empty());
        found = match found {
            Ok(found) if is_well(&found) => return Ok(found),
            Ok(before) => look().map(|again| again.confirming(&before)),
            Err(_) => look(),
        };
    }
    found
}

impl Inspection {
    /// What was wrong before as well.
    fn confirming(mut self, before: &Self) -> Self {
        for group in &mut self.groups {
            let told = before.groups.iter().find(|other| other.group == group.group);
            group.findings.retain(|finding| told.is_some_and(|told| told.findings.contains(finding)));
        }
        self
    }
}

/// Takes what was seen without a key; returns what is wrong.
fn note_outside(seen: &Outside, count: &mut Count) -> Vec<String> {
    (count.prepares, count.bytes) = (seen.prepares, seen.bytes);
    let told = |damage: &OutsideDamage| {
        let OutsideDamage { path, position } = damage;
        format!("{} is damaged from position {position} on", path.display())
    };
    let sound = format!(
        "without the key only checksums were looked at: those of {} prepares are right",
        seen.prepares
    );
    std::iter::once(sound).chain(seen.damaged.iter().map(told)).collect()
}

fn report_of(found: &RecoveredGroup, count: Count) -> GroupInspection {
    let superblock = &found.superblock;
    let start = found.snapshot.as_ref().map(Snapshot::log_start);
    let last = found.hole.map_or(found.head.op, |hole| hole.after.op);
    GroupInspection {
        group: superblock.group,
        view: superblock.view,
        log_view: superblock.log_view,
        first: start.map_or(Op::new(1), |start| start.op),
        last,
        first_offset: start.map_or(Offset::ZERO, |start| start.offset),
        next_offset: count.next_offset,
        prepares: count.prepares,
        records: count.records,
        bytes: count.bytes,
        findings: findings_in(found, &count),
    }
}

fn findings_in(found: &RecoveredGroup, count: &Count) -> Vec<String> {
    let mut findings = Vec::new();
    if let Some(problem) = &found.problem {
        findings.push(problem.to_string());
    }
    if let Some(hole) = found.hole {
        let (first, last) = (hole.after.op.next(), hole.last.op);
        let which = if first == last { format!("{first} is") } else { format!("{first} to {last} are") };
        findings.push(format!(
            "{which} damaged or missing: fetched from the other replicas, when the node finds it"
        ));
    }
    if found.superblock.is_torn {
        let end = found.head.op;
        findings.push(format!(
            "what was behind {end} is lost: it has no vote until a primary has told it the log"
        ));
    }
    for op in &count.bad_batches {
        findings.push(format!("{op} is as it was sealed, and its records cannot be read"));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looked(groups: &[(u64, &[&str])]) -> Inspection {
        let group = |(id, findings): &(u64, &[&str])| GroupInspection {
            group: GroupId::new(*id),
            view: View::ZERO,
            log_view: View::ZERO,
            first: Op::new(1),
            last: Op::new(9),
            first_offset: Offset::ZERO,
            next_offset: Offset::ZERO,
            prepares: 0,
            records: 0,
            bytes: 0,
            findings: findings.iter().map(|finding| (*finding).to_owned()).collect(),
        };
        let groups = groups.iter().map(group).collect();
        let (cluster, node) = (ClusterId::new(1), NodeId::new(1));
        Inspection { cluster, node, groups, map: ClusterMap::default() }
    }

    #[test]
    fn what_is_found_once_and_not_again_was_a_file_on_its_way() {
        let first = looked(&[(1, &["op 3 is missing"]), (2, &["rotten", "op 5 is missing"]), (3, &[])]);
        let again = looked(&[(2, &["op 7 is missing", "rotten"]), (3, &["op 1 is missing"]), (4, &["new"])]);
        let confirmed = again.confirming(&first);
        let findings: Vec<_> = confirmed.groups.iter().map(|group| group.findings.clone()).collect();
        assert_eq!(findings, [vec!["rotten".to_owned()], vec![], vec![]]);
    }
}

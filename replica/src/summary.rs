//! How the disk makes a snapshot of what it lets go.

use varve_consensus::snapshot::SnapshotBuilder;
use varve_protocol::id::GroupId;
use varve_protocol::prepare::{Prepare, PrepareHeader};
use varve_protocol::snapshot::Snapshot;
use varve_storage::{Summarize, Summary};

use crate::metadata::Metadata;
use crate::recovery::decode_operation;

/// How that is done for a group.
pub(crate) fn summary_of(group: GroupId) -> Summarize {
    if group == GroupId::METADATA { of_metadata } else { of_partition }
}

fn of_partition(before: Option<&Snapshot>) -> Option<Box<dyn Summary>> {
    Some(Box::new(OfPartition(SnapshotBuilder::new(before)?)))
}

fn of_metadata(before: Option<&Snapshot>) -> Option<Box<dyn Summary>> {
    let metadata = before.map_or_else(|| Some(Metadata::default()), Metadata::from_snapshot)?;
    Some(Box::new(OfMetadata { group: SnapshotBuilder::new(before)?, metadata }))
}

struct OfPartition(SnapshotBuilder);

impl Summary for OfPartition {
    fn push(&mut self, header: &PrepareHeader, prepare: Option<&Prepare>) {
        self.0.push(header, prepare);
    }

    fn finish(&self) -> Option<Snapshot> {
        self.0.finish(&[])
    }
}

struct OfMetadata {
    group: SnapshotBuilder,
    metadata: Metadata,
}

impl Summary for OfMetadata {
    fn push(&mut self, header: &PrepareHeader, prepare: Option<&Prepare>) {
        self.group.push(header, prepare);
        self.metadata.apply(header.op(), prepare.and_then(decode_operation));
    }

    fn finish(&self) -> Option<Snapshot> {
        self.group.finish(&self.metadata.encode())
    }
}

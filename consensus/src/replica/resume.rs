//! What a replica leaves to its next life, so that it need not read all of its log again.

use varve_protocol::id::Op;
use varve_protocol::mutant::Mutant;
use varve_protocol::resume_point::ResumePoint;
use varve_protocol::snapshot::Snapshot;

use super::Replica;
use super::recovery::RecoveredLog;
use crate::log::Log;
use crate::log_starts::LogStarts;
use crate::snapshot::State;

impl Replica {
    /// What the log up to the commit has brought about; `None` while not all of that is durable here, or nothing is committed.
    #[must_use]
    pub fn resume_point(&self) -> Option<ResumePoint> {
        if self.commit == Op::ZERO || self.commit > self.durable || self.has_snapshot_under_way() {
            return None;
        }
        let op = if Mutant::ResumePointAhead.is_on() { self.durable } else { self.commit };
        let header = *self.log.header(op)?;
        let mut replacements = self.replacements.clone();
        replacements.truncate(op);
        let state = State { client_table: self.client_table.clone(), replacements };
        let snapshot = Snapshot { header, state: state.encode() };
        Some(ResumePoint { log_start: self.log_starts.committed(), snapshot })
    }
}

impl RecoveredLog {
    /// A log of which everything up to a resume point is known to be there, and committed; `None` if its state cannot be read.
    #[must_use]
    pub fn from_resume_point(point: &ResumePoint) -> Option<Self> {
        let State { client_table, replacements } = State::decode(&point.snapshot.state)?;
        Some(Self {
            log: Log::starting_with(point.snapshot.header),
            client_table,
            replacements,
            log_starts: LogStarts::new(point.log_start),
            committed: point.op(),
        })
    }
}

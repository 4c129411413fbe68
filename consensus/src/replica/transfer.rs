//! State transfer: a replica that lacks what the others have let go takes the state that they build on instead (rule R3).
//!
//! ```text
//!   own log:    ... commit ... head                      (uncommitted ones may even be of another view)
//!   a peer's:                        snapshot | first ... head
//!   from now on:                     snapshot | (fetched as ever) ...
//! ```
//! The peer's driver sends its snapshot when it is asked for something older. It is committed, for a log never starts behind its
//! commit; that it belongs to the log of this view is proven as ever: the next header must name it as its parent.
//!
//! What stood here is given up only when the snapshot is durable, and nothing that depends on that is said before: the disk
//! answers with `Durable`, as for an append. Until then the replica does not acknowledge, does not tell its log and does not
//! begin to work in its view. The prepares behind the snapshot come one by one like any that are missing, so a transfer that is
//! interrupted goes on where it was.

use varve_protocol::id::{ReplicaIndex, View};
use varve_protocol::mark::Mark;
use varve_protocol::mutant::Mutant;
use varve_protocol::snapshot::Snapshot;

use super::Replica;
use crate::event::Output;
use crate::log::Log;
use crate::log_starts::LogStarts;
use crate::snapshot::State;
use crate::status::Status;

impl Replica {
    pub(super) fn on_snapshot(&mut self, from: ReplicaIndex, view: View, snapshot: Box<Snapshot>) {
        let fetches = (self.status == Status::Normal && !self.leads_view()) || self.is_installing();
        let verified = if self.is_installing() { self.catchup.verified() } else { self.log.head().op };
        let header = &snapshot.header;
        let is_ours = header.cluster() == self.config.cluster && header.group() == self.config.group;
        if view != self.view || !fetches || !is_ours || header.view() > view {
            return self.ignore_snapshot(from, &snapshot, "it is not of this view, or nothing is missing");
        }
        if snapshot.op() <= verified || snapshot.op() > self.catchup.target() {
            return self.ignore_snapshot(from, &snapshot, "it holds nothing that is missing");
        }
        if self.log.id(snapshot.op()) == Some(snapshot.id()) {
            self.catchup.advance(snapshot.op());
            return self.pursue();
        }
        if self.durable != self.log.head().op || self.has_snapshot_under_way() {
            Mark::SnapshotPutOff.hit();
            self.sync_log();
            return self.ignore_snapshot(from, &snapshot, "the disk is behind; it is asked for again");
        }
        match State::decode(&snapshot.state) {
            Some(state) => self.take_snapshot(state, snapshot),
            None => self.ignore_snapshot(from, &snapshot, "its state cannot be read"),
        }
    }

    fn take_snapshot(&mut self, state: State, snapshot: Box<Snapshot>) {
        assert!(snapshot.op() > self.commit, "a snapshot takes nothing back");
        Mark::SnapshotTaken.hit();
        tracing::info!(group = %self.config.group, view = %self.view, op = %snapshot.op(), head = %self.log.head(), "take a snapshot");
        self.log = Log::starting_with(snapshot.header);
        self.client_table = state.client_table;
        self.replacements = state.replacements;
        self.log_starts = LogStarts::new(snapshot.log_start());
        self.commit = snapshot.op();
        self.durable = snapshot.op();
        self.vouched = snapshot.op();
        self.syncing = snapshot.op();
        self.taking = Some(snapshot.id());
        self.catchup.advance(snapshot.op());
        self.catchup.set_asked(None);
        self.outputs.push_back(Output::TakeSnapshot(snapshot));
        self.pursue();
    }

    /// Whether a snapshot that takes the place of this log is not durable yet. What is said of the log meanwhile would not hold after
    /// a crash.
    #[must_use]
    pub fn has_snapshot_under_way(&self) -> bool {
        self.taking.is_some() && !Mutant::SnapshotNotAwaited.is_on()
    }

    fn ignore_snapshot(&self, from: ReplicaIndex, snapshot: &Snapshot, reason: &str) {
        tracing::debug!(group = %self.config.group, view = %self.view, %from, op = %snapshot.op(), reason, "ignore snapshot");
    }
}

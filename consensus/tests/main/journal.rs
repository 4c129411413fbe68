//! A log as a disk holds it: prepares, and a snapshot in place of those that were let go.

use varve_consensus::RecoveredLog;
use varve_consensus::snapshot::SnapshotBuilder;
use varve_protocol::id::Op;
use varve_protocol::prepare::{Prepare, PrepareHeader, PrepareId};
use varve_protocol::resume_point::ResumePoint;
use varve_protocol::snapshot::Snapshot;

#[derive(Clone, Default)]
pub(crate) struct Journal {
    pub(crate) snapshot: Option<Snapshot>,
    /// Where a start goes on reading, if that is there.
    pub(crate) resume_point: Option<ResumePoint>,
    prepares: Vec<Prepare>,
}

impl Journal {
    /// The op before the first prepare.
    pub(crate) fn base(&self) -> Op {
        self.snapshot.as_ref().map_or(Op::ZERO, Snapshot::op)
    }

    pub(crate) fn head(&self) -> Op {
        self.prepares.last().map_or(self.base(), Prepare::op)
    }

    /// The name of the newest prepare, in the snapshot or behind it.
    pub(crate) fn last(&self) -> PrepareId {
        let base = self.snapshot.as_ref().map_or(PrepareId::ROOT, Snapshot::id);
        self.prepares.last().map_or(base, Prepare::id)
    }

    pub(crate) fn push(&mut self, prepare: Prepare) {
        assert_eq!(prepare.op(), self.head().next(), "appends go behind the end");
        self.prepares.push(prepare);
    }

    pub(crate) fn truncate(&mut self, keep: Op) {
        assert!(keep >= self.base(), "nothing is cut of what a snapshot holds");
        self.prepares.retain(|prepare| prepare.op() <= keep);
    }

    /// Loses the last prepares, as far as there are any.
    pub(crate) fn lose(&mut self, count: usize) {
        self.prepares.truncate(self.prepares.len().saturating_sub(count));
    }

    /// Lets go of what is before `first`.
    pub(crate) fn let_go(&mut self, first: Op) {
        let mut builder = SnapshotBuilder::new(self.snapshot.as_ref()).expect("a snapshot can be read");
        let count = self.prepares.partition_point(|prepare| prepare.op() < first);
        for prepare in self.prepares.drain(..count) {
            builder.push(prepare.header(), Some(&prepare));
        }
        self.snapshot = builder.finish(&[]);
    }

    pub(crate) fn take(&mut self, snapshot: Snapshot) {
        self.prepares.clear();
        self.resume_point = None;
        self.snapshot = Some(snapshot);
    }

    pub(crate) fn get(&self, id: PrepareId) -> Option<&Prepare> {
        let place = id.op.as_raw().checked_sub(self.base().as_raw() + 1)?;
        self.prepares.get(usize::try_from(place).unwrap()).filter(|prepare| prepare.id() == id)
    }

    pub(crate) fn headers(&self, first: Op, last: Op) -> Vec<PrepareHeader> {
        let place = usize::try_from(first.as_raw() - self.base().as_raw() - 1).unwrap();
        let wanted = self.prepares[place..].iter().take_while(|prepare| prepare.op() <= last);
        wanted.map(|prepare| *prepare.header()).collect()
    }

    /// Whether the prepare is here, or in the snapshot.
    pub(crate) fn holds(&self, id: PrepareId) -> bool {
        let base = self.snapshot.as_ref().map_or(PrepareId::ROOT, Snapshot::id);
        id.op < base.op || id == base || self.get(id).is_some()
    }

    /// What a replica that starts on it is given, and the headers that it knows to be committed.
    pub(crate) fn recover(&self) -> (RecoveredLog, Vec<PrepareHeader>) {
        let mut log = match (self.resumes_at(), &self.snapshot) {
            (Some(point), _) => RecoveredLog::from_resume_point(point).expect("a resume point can be read"),
            (None, Some(snapshot)) => RecoveredLog::from_snapshot(snapshot).expect("a snapshot can be read"),
            (None, None) => RecoveredLog::new(),
        };
        let passed = self.resumes_at().map_or(self.base(), ResumePoint::op);
        let rest = self.prepares.iter().filter(|prepare| prepare.op() > passed);
        let committed = rest.filter_map(|prepare| log.push(prepare)).collect();
        (log, committed)
    }

    /// The resume point, if its prepare is there and was not let go.
    pub(crate) fn resumes_at(&self) -> Option<&ResumePoint> {
        self.resume_point.as_ref().filter(|point| self.get(point.snapshot.id()).is_some())
    }
}

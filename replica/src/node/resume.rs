//! Resume points: once the end of a full segment is committed, what the log up to the commit has brought about is kept, so that the
//! next start need not read that segment and those before it.
//!
//! The metadata have none: what their log has brought about is more than a resume point holds, and little of it is kept.

use varve_protocol::id::{GroupId, Op};
use varve_storage::Job;

use crate::node::Node;

impl Node {
    /// A segment of a group's log is full.
    pub(super) fn on_sealed(&mut self, id: GroupId, last: Op) {
        if let Some(group) = self.groups.get_mut(&id).filter(|_| id != GroupId::METADATA) {
            group.unmarked = Some(last);
        }
        self.save_resume_point(id);
    }

    /// Keeps a resume point if one is due and can be had.
    pub(super) fn save_resume_point(&mut self, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let Some(last) = group.unmarked else { return };
        let replica = group.replica().filter(|replica| replica.commit().op >= last);
        let Some(point) = replica.and_then(|replica| replica.resume_point()) else { return };
        group.unmarked = None;
        tracing::debug!(group = %id, op = %point.op(), "keep a resume point");
        self.submit(Job::SaveResumePoint { group: id, point: Box::new(point) });
    }
}

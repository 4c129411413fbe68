//! Where a partition ends: as one replica sees it, which may be late, or as it is now, which its primary tells once a quorum
//! has confirmed that it still leads.

use std::collections::BTreeMap;

use varve_consensus::event::{Input, ReadHandle, ReadOutcome};
use varve_consensus::{Replica, Status};
use varve_protocol::client::{PartitionOffsets, Refusal, Response};
use varve_protocol::frame::FrameHeader;
use varve_protocol::id::{GroupId, NodeId, Timestamp};
use varve_protocol::prepare::Prepare;
use varve_storage::ReadFrom;

use crate::event::Session;
use crate::group::Group;
use crate::node::Node;
use crate::node::disk::PendingRead;

/// A client that wants to know where a partition ends now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question {
    session: Session,
    correlation: u64,
    group: GroupId,
}

/// The questions that wait for a quorum's word; each core bounds those about its group.
#[derive(Debug, Default)]
pub(crate) struct Questions {
    waiting: BTreeMap<ReadHandle, Question>,
    next_handle: u64,
}

impl Node {
    pub(super) fn on_get_offsets(&mut self, session: Session, header: &FrameHeader) {
        match self.offsets_of(header.group) {
            Ok(offsets) => self.respond(session, header.correlation, &Response::Offsets(offsets)),
            Err(refusal) => self.refuse(session, header.correlation, refusal),
        }
    }

    pub(super) fn on_get_latest_offsets(&mut self, session: Session, header: &FrameHeader) {
        let FrameHeader { group, correlation, .. } = *header;
        if self.groups.get(&group).and_then(Group::replica).is_none() {
            return self.refuse(session, correlation, self.why_no_replica(group));
        }
        let handle = ReadHandle(self.questions.next_handle);
        self.questions.next_handle += 1;
        self.questions.waiting.insert(handle, Question { session, correlation, group });
        self.drive(group, Input::ConfirmRead { handle });
    }

    /// Where records of that time or later begin. Any replica may say: what it does not know of yet comes later.
    pub(super) fn on_get_offset_at(&mut self, session: Session, header: &FrameHeader, time: Timestamp) {
        let FrameHeader { group, correlation, .. } = *header;
        // One that has no voice yet may hold less than this node did in an earlier stay.
        let replica = self.groups.get(&group).and_then(Group::reader);
        let Some(replica) = replica.filter(|replica| replica.is_admitted()) else {
            return self.refuse(session, correlation, self.why_no_replica(group));
        };
        let last = replica.commit().op;
        let question = PendingRead::OffsetAt(Question { session, correlation, group }, time);
        self.read(group, ReadFrom::Time(time), (0, last), question);
    }

    /// The first prepare of that time or later was read, if there is one.
    pub(super) fn answer_offset_at(&mut self, question: Question, found: Option<&Prepare>) {
        let Question { session, correlation, group } = question;
        match self.offsets_of(group) {
            Ok(offsets) => {
                let offset = found.map_or(offsets.high_watermark, |prepare| prepare.header().base_offset());
                self.respond(session, correlation, &Response::OffsetAt(offset.max(offsets.log_start)));
            }
            Err(refusal) => self.refuse(session, correlation, refusal),
        }
    }

    /// What would have to be read to find that out is damaged.
    pub(super) fn refuse_unreadable_time(&mut self, question: Question) {
        let refusal = self.why_unreadable(question.group);
        self.refuse(question.session, question.correlation, refusal);
    }

    /// A question can be answered, or cannot be answered here.
    pub(super) fn reply_to_read(&mut self, handle: ReadHandle, outcome: ReadOutcome) {
        let Some(question) = self.questions.waiting.remove(&handle) else { return };
        let Question { session, correlation, group } = question;
        let answer = match outcome {
            ReadOutcome::Confirmed => self.offsets_of(group),
            ReadOutcome::NotPrimary => Err(self.redirect(group)),
            ReadOutcome::Busy => Err(Refusal::Busy),
        };
        match answer {
            Ok(offsets) => self.respond(session, correlation, &Response::Offsets(offsets)),
            Err(refusal) => self.refuse(session, correlation, refusal),
        }
    }

    /// Refuses the questions about a group that was deleted.
    pub(super) fn refuse_questions_about(&mut self, deleted: GroupId) {
        let about = |(handle, question): (&ReadHandle, &Question)| {
            (question.group == deleted).then_some((*handle, *question))
        };
        let refused: Vec<_> = self.questions.waiting.iter().filter_map(about).collect();
        for (handle, Question { session, correlation, group }) in refused {
            self.questions.waiting.remove(&handle);
            self.refuse(session, correlation, Refusal::UnknownGroup { group });
        }
    }

    fn offsets_of(&self, group: GroupId) -> Result<PartitionOffsets, Refusal> {
        let found = self.groups.get(&group).and_then(|found| Some((found, found.reader()?)));
        let Some((found, replica)) = found else { return Err(self.why_no_replica(group)) };
        Ok(PartitionOffsets {
            log_start: replica.log_start().offset,
            high_watermark: replica.next_offset_committed(),
            view: replica.view(),
            primary: if is_led(replica) { found.primary_node() } else { NodeId::ZERO },
        })
    }
}

/// Whether a replica knows who leads its group, and has no reason to doubt it.
pub(super) fn is_led(replica: &Replica) -> bool {
    replica.status() == Status::Normal && !replica.doubts_primary()
}

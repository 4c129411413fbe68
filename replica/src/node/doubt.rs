//! Replicas that may lack what they acknowledged: how their node stops without leaving one, says that it has one, and lets an
//! operator end the doubt.

use varve_consensus::event::Input;
use varve_consensus::{Replica, Status};
use varve_protocol::client::{Doubt, Response};
use varve_protocol::durability::Durability;
use varve_protocol::frame::FrameHeader;
use varve_protocol::id::GroupId;

use crate::event::Session;
use crate::group::Group;
use crate::node::Node;

/// What is said of a replica whose log has lost its end.
const TORN: &str = "its log has lost its end; it takes no part until a primary has told it the log";

/// What is said of a replica that stopped uncleanly.
const STOPPED_UNCLEANLY: &str = "it stopped before all that it had acknowledged was synced; it takes no part until a primary \
     has told it the log";

/// What is said of a group whose replicas wait for each other.
pub(super) const UNSAFE_RESTART: &str = "unsafe restart: so many of its replicas may lack what they acknowledged that the \
     others are no majority; start all of them, and if no primary comes back have the group go on with what is left: \
     `varve cluster force-recover` says what may be lost";

/// Why a replica takes no part, if it does not.
pub(super) fn problem_of(replica: &Replica) -> Option<&'static str> {
    let why = match replica.config().durability {
        Durability::QuorumDisk => TORN,
        Durability::QuorumMemory => STOPPED_UNCLEANLY,
    };
    replica.is_torn().then(|| if replica.is_restart_unsafe() { UNSAFE_RESTART } else { why })
}

impl Node {
    /// Has all replicas make ready for the end of the process.
    pub(super) fn stop(&mut self) {
        let ids: Vec<GroupId> = self.groups.keys().copied().collect();
        for id in ids {
            self.drive(id, Input::Stop);
        }
    }

    /// Whether the process may end, after [`crate::NodeInput::Stop`], without leaving a doubt about what its replicas hold.
    /// Ending it before, or at any time without a word, is safe as well; but what was acknowledged from memory may be lost
    /// then, and its replicas are silent after their restart until their groups have told them the log.
    #[must_use]
    pub fn may_stop(&self) -> bool {
        self.groups.values().filter_map(Group::replica).all(Replica::may_stop)
    }

    pub(super) fn on_get_doubt(&mut self, session: Session, header: &FrameHeader) {
        match self.groups.get(&header.group).and_then(Group::replica).map(doubt_of) {
            Some(doubt) => self.respond(session, header.correlation, &Response::Doubt(doubt)),
            None => self.refuse(session, header.correlation, self.why_no_replica(header.group)),
        }
    }

    pub(super) fn on_force_recover(&mut self, session: Session, header: &FrameHeader) {
        self.drive(header.group, Input::ForceRecover);
        self.on_get_doubt(session, header);
    }
}

fn doubt_of(replica: &Replica) -> Doubt {
    Doubt {
        is_in_doubt: replica.is_torn(),
        is_normal: replica.status() == Status::Normal,
        has_voice: replica.is_admitted(),
        log_view: replica.log_view(),
        head: replica.head().op,
        log_end: replica.log_end(),
    }
}

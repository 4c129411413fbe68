//! Replicas that begin anew, because something of their log has rotted that nothing makes whole (`crate::anew`).

use rand::Rng;
use varve_consensus::Status;
use varve_consensus::event::Input;
use varve_protocol::id::{GroupId, NodeId};
use varve_protocol::mark::Mark;
use varve_protocol::message::Message;
use varve_protocol::prepare::{PrepareHeader, PrepareId};
use varve_storage::Hole;

use crate::group::{Group, State};
use crate::mending::Mending;
use crate::node::Node;
use crate::node::scrub::hole_of;
use crate::scrubbing::RottenBase;
use crate::tail::Tail;

impl Node {
    /// What was offered in the place of what has rotted does not fit. Nothing ever may, if nobody has anything else to offer.
    pub(super) fn on_none_fits(&mut self, id: GroupId) {
        let peers = self.peers_of(id);
        let is_gone = |mending: &Mending| !peers.is_empty() && mending.is_gone_everywhere(&peers);
        if self.scrubbing.wound(id).is_some_and(|wound| wound.mending.as_ref().is_some_and(is_gone)) {
            Mark::NoneFitted.hit();
            self.ask_who_holds(id);
        }
    }

    /// Asks the others for what is committed here, if nothing has fitted for long enough.
    pub(super) fn ask_who_holds(&mut self, id: GroupId) {
        let (now, peers) = (self.now, self.peers_of(id));
        let Some(replica) = self.groups.get(&id).and_then(Group::replica) else { return };
        let (view, commit) = (replica.view(), replica.commit());
        if self.scrubbing.note_none_fits(id, now).asks_for(commit, now) {
            for node in peers {
                self.send_to(id, node, &Message::GetHeaders { view, first: commit.op, last: commit.op });
            }
        }
    }

    /// Whether these headers answer whether a peer holds what is committed.
    pub(super) fn is_asked_for_anew(&self, id: GroupId, headers: &[PrepareHeader]) -> bool {
        headers.first().is_some_and(|first| self.scrubbing.is_asked_for(id, first))
    }

    /// A peer holds what is committed here.
    pub(super) fn on_holder(&mut self, id: GroupId, node: NodeId) {
        let (now, peers) = (self.now, self.peers_of(id).len());
        if self.scrubbing.anew(id).is_some_and(|anew| anew.note_holder((node, now), peers)) {
            self.begin_anew(id);
        }
    }

    /// What is lost of a log, for good: it, or what it has brought about.
    fn lost_of(&self, id: GroupId) -> Option<Hole> {
        let summed_up = |base: &RottenBase| Hole { after: PrepareId::ROOT, last: base.id, head: base.id };
        let wound = self.scrubbing.first_wound(id).map(|wound| hole_of(&wound.damage));
        wound.or_else(|| self.scrubbing.rotten_base(id).map(summed_up))
    }

    /// Takes a replica out of its group until a primary says that it works without it. One that leads, or is not settled, stays as
    /// yet.
    fn begin_anew(&mut self, id: GroupId) {
        let Some(replica) = self.groups.get(&id).and_then(Group::replica) else { return };
        if replica.is_primary() {
            if let Some(to) = self.nearest_other(id) {
                self.drive(id, Input::HandOver { to });
            }
            return;
        }
        if replica.status() != Status::Normal || !replica.is_admitted() || self.full.contains(&id) {
            return;
        }
        let (superblock, commit) = (replica.superblock(), replica.commit().op);
        let Some(hole) = self.lost_of(id) else { return };
        Mark::BegunAnew.hit();
        let nonce = self.rng.random_range(1..=u64::MAX);
        let mending = Mending::anew(superblock, hole, (nonce, self.now));
        tracing::warn!(group = %id, problem = mending.problem(), "begin anew");
        let Some(before) = self.groups.remove(&id) else { return };
        self.writing_bytes -= before.writing_bytes();
        self.tail_bytes -= before.tail.bytes();
        let state = State::Mending(Box::new(mending));
        let mut group = Group::new(before.placement, state, Tail::default()).behind(before.base);
        group.armed = before.armed;
        group.told = before.told.max(commit);
        self.groups.insert(id, group);
        self.scrubbing.forget(id);
        self.refuse_fetches_of(id, &self.why_no_replica(id));
        self.arm(id);
    }
}

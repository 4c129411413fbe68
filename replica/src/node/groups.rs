//! The groups of a node: opened and closed as the metadata says, driven with inputs, and their outputs performed.

use std::collections::VecDeque;

use bytes::Bytes;
use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use varve_consensus::event::{Input, Output, Request, RequestHandle};
use varve_consensus::{Config, RecoveredLog, Replica};
use varve_protocol::durability::Durability;
use varve_protocol::id::{Epoch, GroupId, NodeId, Op, ProducerId, RequestNumber};
use varve_protocol::mark::Mark;
use varve_protocol::message::Message;
use varve_protocol::mutant::Mutant;
use varve_protocol::prepare::{Prepare, PrepareHeader, PrepareKind};
use varve_protocol::retention::Retention;
use varve_protocol::superblock::Superblock;
use varve_storage::Job;

use crate::group::{Group, PLACES, Placement, State, places};
use crate::mending::Mending;
use crate::node::Node;
use crate::node::clients::WRITING_BYTES_MAX;
use crate::recovery::{RecoveredReplica, decode_operation};
use crate::tail::Tail;
use crate::timers::Due;

/// Bytes of applied prepares that one group keeps in memory.
const TAIL_BYTES_PER_GROUP: usize = 8 << 20;

/// Bytes of prepares that all groups of a node together keep in memory before quiet groups give theirs up.
const TAIL_BYTES_PER_NODE: usize = 64 << 20;

impl Node {
    /// Opens group 0, of which every node has a replica; not before it is known who founded it.
    pub(super) fn open_metadata_group(&mut self, metadata_tail: VecDeque<Prepare>) {
        let founder = |node: &NodeId| self.founders.as_ref().and_then(|founders| founders.get(node).copied());
        let members: Vec<NodeId> = self.config.members.keys().copied().collect();
        let directories = members.iter().map(|node| founder(node).unwrap_or_default()).collect();
        let placement = Placement {
            arrived: vec![Op::ZERO; members.len()],
            founders: u8::try_from(members.len()).expect("a group has at most seven members"),
            nodes: members,
            directories,
            moving: None,
            retention: Retention { bytes: Some(self.config.metadata_bytes_kept), age_ms: None },
            durability: Durability::QuorumDisk,
        };
        if self.founders.is_none() {
            self.groups.insert(GroupId::METADATA, Group::new(placement, State::Opening, Tail::default()));
            return;
        }
        self.open_group(GroupId::METADATA, placement, metadata_tail);
    }

    pub(super) fn open_group(&mut self, id: GroupId, placement: Placement, tail: VecDeque<Prepare>) {
        self.unseated.insert(id);
        let Some(recovered) = self.dormant.remove(&id) else {
            // New here: nothing is promised yet, and nothing is said before the first superblock is durable.
            self.groups.insert(id, Group::new(placement, State::Opening, Tail::default()));
            return self.submit(Job::SaveSuperblock(Superblock::new(id)));
        };
        self.open_recovered(id, placement, recovered, tail);
    }

    /// Opens a replica that was here before; `tail` is what is in memory of its log.
    pub(super) fn open_recovered(
        &mut self,
        id: GroupId,
        placement: Placement,
        recovered: RecoveredReplica,
        tail: VecDeque<Prepare>,
    ) {
        if let Some(state) = self.why_closed(&placement, &recovered) {
            match &state {
                State::Mending(mending) => {
                    tracing::warn!(group = %id, problem = mending.problem(), "mending")
                }
                State::Damaged(problem) => {
                    Mark::ReplicaClosed.hit();
                    tracing::error!(group = %id, problem, "replica is damaged and takes no part");
                }
                State::Opening | State::Open(_) => {}
            }
            let base = recovered.base;
            self.groups.insert(id, Group::new(placement, state, Tail::default()).behind(base));
            return self.arm(id);
        }
        let RecoveredReplica { superblock, log, base, unmarked, .. } = recovered;
        let committed = log.committed();
        let config = self.replica_config(id, &placement);
        let replica = Replica::recover(config, self.draw_rng(), superblock, log);
        let group = Group::new(placement, State::Open(Box::new(replica)), Tail::new(committed));
        let mut group = group.behind(base);
        group.unmarked = unmarked.filter(|_| id != GroupId::METADATA);
        for prepare in tail {
            group.tail.push(prepare);
        }
        self.tail_bytes += group.tail.bytes();
        self.groups.insert(id, group);
        self.perform_outputs(id);
        self.let_go(id);
    }

    /// What a replica that was here before is instead of open, if it cannot take part now.
    fn why_closed(&mut self, placement: &Placement, recovered: &RecoveredReplica) -> Option<State> {
        let RecoveredReplica { superblock, problem, hole, snapshot, .. } = recovered;
        if let Some(problem) = problem {
            return Some(State::Damaged(problem.clone()));
        }
        // What a group acknowledges from memory it may lose, and an operator may say that it did.
        let is_lost = superblock.is_torn && placement.durability == Durability::QuorumDisk;
        if placement.holders().count() == 1 && (hole.is_some() || is_lost) {
            return Some(State::Damaged(
                "its log is damaged, and there is no other replica to mend it from".to_owned(),
            ));
        }
        let hole = hole.filter(|_| !Mutant::MendingVotes.is_on());
        let hole = hole?;
        let nonce = self.rng.random_range(1..=u64::MAX);
        Mark::MendingBegun.hit();
        let mending = Mending::new(*superblock, hole, self.now).behind(snapshot.clone(), nonce);
        Some(State::Mending(Box::new(mending)))
    }

    /// A group's first superblock is durable: from now on it takes part.
    pub(super) fn on_group_created(&mut self, id: GroupId) {
        let Some(group) = self.groups.get(&id) else { return };
        let config = self.replica_config(id, &group.placement);
        let rng = self.draw_rng();
        let replica = if config.is_original {
            Replica::new(config, rng)
        } else {
            // What stood here before is lost, or is elsewhere, and with it what it promised.
            tracing::info!(group = %id, "this replica is to take a place; it takes the log, without a voice");
            Replica::recover(config, rng, Superblock::new(id), RecoveredLog::new())
        };
        let (own, view) = (replica.config().replica, replica.view());
        let group = self.groups.get_mut(&id).expect("the group was found above");
        group.state = State::Open(Box::new(replica));
        group.look_who_is_seated();
        // The others may have begun, also later views, before this replica was here to listen, and may have no more to say.
        for peer in places().filter(|peer| *peer != own) {
            self.send(id, peer, &Message::GetStartView { view, nonce: 0 });
        }
        self.await_primary(id);
        self.perform_outputs(id);
    }

    fn replica_config(&self, id: GroupId, placement: &Placement) -> Config {
        let Placement { founders, directories, durability, .. } = placement;
        let replica = placement.place_of(self.config.node).expect("only who has a place opens a group");
        let is_original = directories.get(usize::from(replica.as_raw())) == Some(&self.directory);
        Config {
            cluster: self.config.cluster,
            group: id,
            epoch: Epoch::ZERO,
            replica,
            founders: *founders,
            places: PLACES,
            directory: self.directory,
            arrived: placement.arrived(self.config.node),
            is_original: is_original || Mutant::LostDiskVotes.is_on(),
            durability: *durability,
            timeouts: self.config.timing.consensus,
        }
    }

    fn draw_rng(&mut self) -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(self.rng.next_u64())
    }

    pub(super) fn on_group_due(&mut self, id: GroupId) {
        if let Some(group) = self.groups.get_mut(&id) {
            group.armed = None;
            if self.is_mending(id) {
                return self.mend(id);
            }
            self.drive(id, Input::Tick);
        }
    }

    /// Gives an input to a replica and performs what it wants done.
    pub(super) fn drive(&mut self, id: GroupId, input: Input) {
        let now = self.now;
        let Some(replica) = self.groups.get_mut(&id).and_then(Group::replica_mut) else { return };
        replica.step(now, input);
        self.perform_outputs(id);
    }

    fn perform_outputs(&mut self, id: GroupId) {
        let mut has_applied = false;
        while let Some(output) =
            self.groups.get_mut(&id).and_then(Group::replica_mut).and_then(Replica::poll_output)
        {
            has_applied |= matches!(output, Output::Apply(_) | Output::TakeSnapshot(_));
            self.perform(id, output);
        }
        if has_applied {
            self.after_apply(id);
        }
        if let Some(group) = self.groups.get_mut(&id) {
            let before = group.members;
            group.look_who_is_seated();
            if group.members != before {
                // Its primary may have left.
                self.timers.set(self.now, Due::Liveness(id));
            }
        }
        self.save_resume_point(id);
        self.arm(id);
        self.note_view(id);
    }

    fn perform(&mut self, id: GroupId, output: Output) {
        match output {
            Output::Send { to, message } => self.send(id, to, &message),
            Output::Append(prepare) => self.append(id, prepare),
            Output::Sync => self.submit(Job::Sync { group: id }),
            Output::Truncate { keep } => self.truncate(id, keep),
            Output::TakeSnapshot(snapshot) => self.take_snapshot(id, *snapshot),
            Output::SaveSuperblock(superblock) => self.submit(Job::SaveSuperblock(superblock)),
            Output::Apply(header) => self.apply(id, &header),
            Output::Reply { handle, outcome } => self.reply(handle, outcome),
            Output::ReplyToRead { handle, outcome } => self.reply_to_read(handle, outcome),
            Output::ServePrepares { to, view, ids } if self.catch_up.is_left(self.now) => {
                if let Some(asker) = self.groups.get(&id).map(|group| group.asker(to)) {
                    self.serve_prepares(id, asker, view, &ids);
                }
            }
            Output::ServePrepares { to, .. } => {
                Mark::CatchUpHeldBack.hit();
                tracing::trace!(group = %id, %to, "enough is sent for now to those who catch up; it is asked for again");
            }
            Output::ServeHeaders { to, view, first, last } => {
                if let Some(asker) = self.groups.get(&id).map(|group| group.asker(to)) {
                    self.serve_headers(id, asker, view, first..=last);
                }
            }
        }
    }

    fn append(&mut self, id: GroupId, prepare: Prepare) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        // Before anybody is sent it: who is put out by it does not get it.
        group.look_who_is_seated();
        let bytes = prepare.header().total_size();
        group.note_writing(prepare.op(), bytes);
        group.tail.push(prepare.clone());
        self.writing_bytes += bytes;
        self.tail_bytes += bytes;
        let prepares = vec![prepare];
        match group.placement.durability {
            Durability::QuorumDisk => self.submit(Job::Append { group: id, prepares }),
            Durability::QuorumMemory => {
                self.submit(Job::Write { group: id, prepares });
                if self.writing_bytes > WRITING_BYTES_MAX / 2 {
                    // What waits for its time to be synced must not keep producers waiting.
                    self.submit(Job::Sync { group: id });
                }
            }
        }
    }

    fn truncate(&mut self, id: GroupId, keep: Op) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let before = group.tail.bytes();
        group.tail.truncate(keep);
        self.tail_bytes -= before - group.tail.bytes();
        tracing::info!(group = %id, %keep, "log cut");
        self.submit(Job::Truncate { group: id, keep });
    }

    fn apply(&mut self, id: GroupId, header: &PrepareHeader) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        // A replica that began anew comes again to what this node knows already.
        if id == GroupId::METADATA && header.op() > self.metadata.applied() {
            let prepare =
                group.tail.get(header.op()).expect("a metadata prepare is in memory until it is applied");
            assert!(prepare.id() == header.id(), "the prepare in memory is the one that is committed");
            self.metadata.apply(header.op(), decode_operation(prepare));
        }
        group.tail.set_applied(header.op());
        if header.kind() == PrepareKind::LogStart {
            self.let_go(id);
        }
    }

    /// Once per batch of applied ops: what readers, backups and the group table learn from it.
    fn after_apply(&mut self, id: GroupId) {
        self.shrink_tails(id);
        self.wake_fetches(id);
        if self.groups.get(&id).and_then(Group::replica).is_some_and(Replica::is_primary) {
            self.note_news(id);
        }
        if id == GroupId::METADATA {
            self.note_registered();
            self.reconcile_groups();
        }
    }

    fn shrink_tails(&mut self, id: GroupId) {
        self.shrink_tail(id, TAIL_BYTES_PER_GROUP);
        if self.tail_bytes > TAIL_BYTES_PER_NODE {
            let ids: Vec<GroupId> = self.groups.keys().copied().collect();
            let share = TAIL_BYTES_PER_NODE / ids.len();
            for id in ids {
                self.shrink_tail(id, share);
            }
        }
    }

    fn shrink_tail(&mut self, id: GroupId, bytes_max: usize) {
        if let Some(group) = self.groups.get_mut(&id) {
            let before = group.tail.bytes();
            group.tail.shrink(bytes_max);
            self.tail_bytes -= before - group.tail.bytes();
        }
    }

    pub(super) fn arm(&mut self, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let wanted = group.next_timeout();
        if wanted == group.armed {
            return;
        }
        if let Some(at) = std::mem::replace(&mut group.armed, wanted) {
            self.timers.clear(at, Due::Group(id));
        }
        if let Some(at) = wanted {
            self.timers.set(at, Due::Group(id));
        }
    }

    /// When a replica has come to another view, it is told at once what is known of that view's primary; when it begins to
    /// lead one, the next pulses say so, for the first word of it may have been lost.
    fn note_view(&mut self, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let leads = group.replica().filter(|replica| replica.is_primary()).map(Replica::view);
        if group.view_led != leads {
            group.view_led = leads;
            if leads.is_some() {
                self.note_news(id);
            }
        }
        let Some(group) = self.groups.get_mut(&id) else { return };
        let view = group.replica().map(Replica::view);
        if group.view_seen == view {
            return;
        }
        group.view_seen = view;
        if let Some(replica) = group.replica() {
            tracing::info!(group = %id, view = %replica.view(), status = ?replica.status(), "view");
        }
        self.tell_liveness_of_primary(id);
    }

    /// Hands a request to a replica.
    pub(super) fn request(
        &mut self,
        id: GroupId,
        handle: RequestHandle,
        (producer, request): (ProducerId, RequestNumber),
        (kind, record_count, body): (PrepareKind, u32, Bytes),
    ) {
        let (now, version) = (self.wall, self.sealed());
        let request = Request { handle, producer, request, version, kind, record_count, now, body };
        self.drive(id, Input::Request(request));
    }
}

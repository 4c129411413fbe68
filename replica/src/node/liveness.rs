//! Who is alive: pulses between nodes, not between groups.
//!
//! A peer is heard when a pulse of it arrives that echoes a recent pulse of ours. So liveness is mutual: a node that can
//! send and not receive is suspected by all, and suspects all, however loud it is. The primaries of a suspected node are
//! suspected in every group it leads, and a group led here is told when a quorum of its nodes is heard no more; what the
//! groups do about it is theirs (`varve_consensus`).
//!
//! Idle groups cost nothing here: a pulse names only groups whose commit has moved since the last one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use varve_consensus::event::{Input, Liveness};
use varve_consensus::{Replica, Status};
use varve_protocol::client::PeerDistance;
use varve_protocol::frame::{Command, Frame, Voice};
use varve_protocol::id::{DirectoryId, GroupId, Incarnation, NodeId, Op, ReplicaIndex, View};
use varve_protocol::mark::Mark;
use varve_protocol::message::Message;
use varve_protocol::pulse::{Founders, Pulse, PulseEntry, PulseMoving};
use varve_protocol::time::Moment;
use varve_protocol::version::Versions;
use varve_transport::Lane;

use crate::event::Effect;
use crate::group::{Group, PLACES};
use crate::node::Node;
use crate::node::balance::Return;
use crate::node::distance::Distance;
use crate::node::probing::Incoming;
use crate::node::versions::why_outside;
use crate::timers::Due;

/// Groups named in one pulse; the rest wait for the next.
const PULSE_ENTRIES_MAX: usize = 1024;

/// How much longer than usual the silence of a peer may last that was suspected without cause.
const PATIENCE_MAX: u32 = 4;

/// How long a peer must not have been suspected without cause until the usual silence is enough again.
const PATIENCE_FOR: Duration = Duration::from_secs(10);

/// What is known of one peer.
#[derive(Debug)]
pub(crate) struct Peer {
    incarnation: Option<Incarnation>,
    /// Its data directory; none before the first pulse of this incarnation.
    pub(super) directory: Option<DirectoryId>,
    /// What its release knows; none before that, too.
    pub(super) versions: Option<Versions>,
    /// Whether that directory belongs to no cluster yet.
    pub(super) is_fresh: bool,
    /// What it says of the founding of the cluster.
    pub(super) founders: Founders,
    /// How far the replicas are that are being moved to it.
    pub(super) moving: BTreeMap<GroupId, PulseMoving>,
    is_connected: bool,
    /// Whether its connection is a new one, over which it was not heard yet.
    is_new: bool,
    is_suspected: bool,
    heard_at: Moment,
    /// The usual one, and how many times as long it is at the moment.
    suspicion_timeout: Duration,
    patience: u32,
    /// When it was last found to have been suspected without cause.
    wronged_at: Moment,
    /// Sequence number of our last pulse to it.
    sequence: u64,
    /// The newest sequence number of its pulses.
    heard_sequence: u64,
    pub(super) distance: Distance,
    /// The row of filler that comes in from it.
    pub(super) probes: Option<Incoming>,
    /// Groups we lead whose commit it has not been told.
    news: BTreeSet<GroupId>,
    /// Since it has come back, until it leads its groups again.
    pub(super) returned: Option<Return>,
}

impl Peer {
    pub(crate) fn new(now: Moment, suspicion_timeout: Duration, rng: &mut ChaCha8Rng) -> Self {
        Self {
            incarnation: None,
            directory: None,
            versions: None,
            is_fresh: false,
            founders: Founders::new(),
            moving: BTreeMap::new(),
            is_connected: false,
            is_new: true,
            is_suspected: false,
            heard_at: now,
            suspicion_timeout: suspicion_timeout.mul_f64(rng.random_range(1.0..1.25)),
            patience: 1,
            wronged_at: now,
            sequence: 0,
            heard_sequence: 0,
            distance: Distance::default(),
            probes: None,
            news: BTreeSet::new(),
            returned: None,
        }
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.is_connected && !self.is_suspected
    }

    /// How long it may be silent.
    fn silence_max(&self) -> Duration {
        self.suspicion_timeout * self.patience
    }

    /// A fresh pulse has come. One that was suspected and has been there all the time was busy, or the network is slow: it is
    /// given twice the time from now on. Otherwise a death that makes all nodes busy, because they lead many groups, would
    /// have them suspect each other again and again, which makes them busier. Says whether it was suspected.
    fn hear(&mut self, now: Moment) -> bool {
        self.heard_at = now;
        let was_suspected = std::mem::take(&mut self.is_suspected);
        let was_away = std::mem::take(&mut self.is_new);
        if was_suspected && !was_away {
            Mark::PatienceGrown.hit();
            self.patience = (self.patience * 2).min(PATIENCE_MAX);
            self.wronged_at = now;
        } else if now.since(self.wronged_at) > PATIENCE_FOR {
            self.patience = 1;
        }
        was_suspected
    }

    fn liveness(&self) -> Liveness {
        if self.is_suspected { Liveness::Suspected } else { Liveness::Heard }
    }
}

impl Node {
    pub(super) fn on_peer_up(&mut self, node: NodeId, incarnation: Incarnation) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let is_reborn = peer.incarnation.is_some_and(|before| before != incarnation);
        if peer.incarnation.replace(incarnation) != Some(incarnation) {
            (peer.directory, peer.versions) = (None, None);
            (peer.is_fresh, peer.founders) = (false, Founders::new());
            peer.moving.clear();
        }
        peer.is_connected = true;
        peer.is_new = true;
        peer.sequence = 0;
        peer.heard_sequence = 0;
        (peer.distance, peer.probes) = (Distance::default(), None);
        tracing::info!(peer = %node, is_reborn, "peer connected");
        self.note_return(node);
        self.tell_all_news(node);
        if is_reborn {
            // A restarted primary never resumes its view, so its backups need not wait for silence.
            self.tell_of_rebirth(node);
        }
    }

    pub(super) fn on_peer_down(&mut self, node: NodeId) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.is_connected = false;
            tracing::info!(peer = %node, "peer disconnected");
        }
    }

    pub(super) fn on_pulse(&mut self, node: NodeId, frame: &Frame) {
        let Ok(pulse) = Pulse::from_frame(frame) else {
            return self.drop_frame(node, frame, "not a pulse");
        };
        let pulse_interval = self.config.timing.pulse_interval;
        let (now, wall, version) = (self.now, self.wall, self.version());
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if peer.incarnation != Some(pulse.incarnation) {
            return;
        }
        if peer.versions.replace(pulse.versions) != Some(pulse.versions)
            && let Some(why) = why_outside(version, pulse.versions)
        {
            Mark::ReleaseShutOut.hit();
            tracing::error!(peer = %node, why, "peer is left out");
        }
        if !pulse.versions.contains(version) {
            return;
        }
        if pulse.sequence > peer.heard_sequence {
            peer.heard_sequence = pulse.sequence;
            peer.distance.note_heard(&pulse, (now, wall));
        }
        let has_other_disk = peer.directory.replace(pulse.directory) != Some(pulse.directory);
        let is_news = std::mem::replace(&mut peer.is_fresh, pulse.is_fresh) != pulse.is_fresh;
        peer.founders = pulse.founders;
        peer.note_moving(&pulse.moving);
        let echoes_behind_max = pulses_in(peer.silence_max(), pulse_interval);
        let is_fresh = pulse.echo > 0 && pulse.echo + echoes_behind_max >= peer.sequence;
        if is_fresh && peer.hear(now) {
            tracing::info!(peer = %node, patience = peer.patience, "peer is heard again");
            self.tell_groups_concerned(node);
            self.note_return(node);
            // It may have slept through a view change, and an idle group would never tell it.
            self.tell_all_news(node);
        }
        if has_other_disk || is_news {
            self.tell_groups_concerned(node);
        }
        self.found_or_join();
        for entry in pulse.entries {
            self.on_news(node, entry);
        }
    }

    /// A primary tells its commit. What is committed in any view stays so: it matters not whether another has taken its place.
    fn on_news(&mut self, node: NodeId, entry: PulseEntry) {
        let group = self.groups.get_mut(&entry.group);
        if let Some(group) = group.filter(|group| group.primary_node() == node)
            && group.mute_in == Some(entry.view)
        {
            // It says so in its present life: the view had not begun when the one before ended.
            group.mute_in = None;
            self.tell_liveness_of_primary(entry.group);
        }
        let place =
            u8::try_from(entry.view.as_raw() % u64::from(PLACES)).expect("there are at most seven places");
        let voice = Voice { replica: ReplicaIndex::new(place), generation: Op::new(u64::MAX) };
        let message = Message::Commit { view: entry.view, commit: entry.commit };
        self.deliver(node, entry.group, voice, message);
    }

    pub(super) fn on_pulse_due(&mut self) {
        let interval = self.config.timing.pulse_interval;
        self.pulse_due = self.now.plus(interval);
        let late = self.now.since(self.last_pulse);
        self.last_pulse = self.now;
        if late > self.config.timing.suspicion_timeout / 2 {
            // This process was paused: the silence was its own.
            Mark::PauseNoticed.hit();
            for peer in self.peers.values_mut() {
                peer.heard_at = self.now;
            }
        }
        self.suspect_silent_peers();
        self.look_for_useless_peers();
        self.send_pulses();
        self.found_or_join();
        self.register_nodes();
        self.finish_moves();
        self.seat_replicas();
        self.look_for_unled();
    }

    /// Tells a group what is known of the node that leads its view; if that is this node, whether it hears a quorum.
    pub(super) fn tell_liveness_of_primary(&mut self, id: GroupId) {
        let Some(group) = self.groups.get(&id) else { return };
        let primary = group.primary_node();
        let liveness = match self.peers.get(&primary) {
            // It has left the group.
            None if primary == NodeId::ZERO => Liveness::Suspected,
            // Alive as it is, it does not lead.
            Some(_) if group.primary_is_mute() => Liveness::Suspected,
            Some(peer) if self.is_useless(peer) => Liveness::Suspected,
            Some(peer) => peer.liveness(),
            None => self.liveness_of_quorum(group),
        };
        self.drive(id, Input::PrimaryLiveness(liveness));
    }

    fn liveness_of_quorum(&self, group: &Group) -> Liveness {
        let is_heard = |(replica, member): &(ReplicaIndex, NodeId)| {
            // One that has lost its disk has no voice, however loud it is.
            let is_well = |peer: &Peer| !peer.is_suspected && !self.is_useless(peer);
            let is_alive = self.peers.get(member).is_none_or(is_well);
            is_alive && self.is_seated(group, *replica)
        };
        let heard = group.holders().filter(is_heard).map(|(replica, _)| replica);
        let suffice = group.replica().is_none_or(|replica| replica.suffice(heard));
        if suffice { Liveness::Heard } else { Liveness::Suspected }
    }

    /// Notes that the backups of a group led here are to be told its new commit.
    pub(super) fn note_news(&mut self, id: GroupId) {
        let Some(group) = self.groups.get(&id) else { return };
        for member in group.audience() {
            if let Some(peer) = self.peers.get_mut(&member) {
                peer.news.insert(id);
            }
        }
    }

    fn suspect_silent_peers(&mut self) {
        let now = self.now;
        let mut silent = Vec::new();
        for (node, peer) in &mut self.peers {
            if !peer.is_suspected && now.since(peer.heard_at) > peer.silence_max() {
                peer.is_suspected = true;
                peer.returned = None;
                silent.push(*node);
            }
        }
        for node in silent {
            tracing::info!(peer = %node, "peer is suspected");
            self.tell_groups_concerned(node);
        }
    }

    fn send_pulses(&mut self) {
        let nodes: Vec<NodeId> = self.peers.keys().copied().collect();
        for node in nodes {
            let entries = self.take_news(node);
            let peer = self.peers.get_mut(&node).expect("the node is a peer");
            if !peer.is_connected {
                continue;
            }
            peer.sequence += 1;
            let (sequence, echo) = (peer.sequence, peer.heard_sequence);
            let held = peer.distance.note_sent(sequence, self.now);
            let pulse = Pulse {
                sequence,
                echo,
                sent_at: self.wall,
                held,
                incarnation: self.config.incarnation,
                directory: self.directory,
                versions: self.config.versions,
                is_fresh: self.is_fresh(),
                founders: self.founders_for(&self.peers[&node]),
                moving: self.moving_here(sequence),
                entries,
            };
            let frame = pulse.to_frame(self.config.cluster);
            self.effects.push_back(Effect::ToPeer { node, lane: Lane::Pulse, frame });
        }
    }

    /// How far the peers are that are heard.
    pub(super) fn distances(&self) -> Vec<PeerDistance> {
        let alive = self.peers.iter().filter(|(_, peer)| peer.is_alive());
        alive.filter_map(|(node, peer)| peer.distance.told(*node)).collect()
    }

    fn take_news(&mut self, node: NodeId) -> Vec<PulseEntry> {
        let Some(peer) = self.peers.get_mut(&node) else { return Vec::new() };
        let mut entries = Vec::new();
        while entries.len() < PULSE_ENTRIES_MAX {
            let Some(id) = peer.news.pop_first() else { break };
            let replica = self.groups.get(&id).and_then(|group| group.replica());
            if let Some(replica) = replica.filter(|replica| replica.is_primary()) {
                entries.push(PulseEntry { group: id, view: replica.view(), commit: replica.commit() });
            }
        }
        entries
    }

    /// Lets the next pulses to a peer tell of all groups that this node leads and the peer is a member of.
    fn tell_all_news(&mut self, node: NodeId) {
        let is_led_with = |group: &Group| {
            group.audience().any(|member| member == node) && group.replica().is_some_and(Replica::is_primary)
        };
        let news = self.groups.iter().filter(|(_, group)| is_led_with(group)).map(|(id, _)| *id).collect();
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.news = news;
        }
    }

    /// Lets the groups that a node leads, and those that this node leads with it, be told whether it is heard.
    pub(super) fn tell_groups_concerned(&mut self, node: NodeId) {
        let here = self.config.node;
        let is_concerned = |group: &Group| {
            let primary = group.primary_node();
            primary == node || (primary == here && group.members.contains(&node))
        };
        self.tell_groups(is_concerned, Due::Liveness);
    }

    /// Lets groups be told of something, one after the other between other inputs: all of thousands in one step would keep
    /// this node from its pulses until it is suspected itself.
    fn tell_groups(&mut self, which: impl Fn(&Group) -> bool, what: impl Fn(GroupId) -> Due) {
        for (id, _) in self.groups.iter().filter(|(_, group)| which(group)) {
            self.timers.set(self.now, what(*id));
        }
    }

    /// Lets the groups be told that a node led in an earlier life. A view that has not begun may begin in this one.
    fn tell_of_rebirth(&mut self, node: NodeId) {
        for (id, group) in self.groups.iter().filter(|(_, group)| group.primary_node() == node) {
            if let Some(replica) = group.replica().filter(|replica| replica.status() == Status::Normal) {
                self.timers.set(self.now, Due::Reborn(*id, replica.view()));
            }
        }
    }

    /// The node that led a group in a view has come back without what it had not synced.
    pub(super) fn on_primary_reborn(&mut self, id: GroupId, view: View) {
        if self.groups.get(&id).and_then(Group::replica).is_some_and(|replica| replica.view() == view) {
            Mark::RebirthNoticed.hit();
            self.on_mute_primary(id, view);
        }
    }

    /// The node that leads a group in a view is not to be waited for, although it is heard.
    pub(super) fn on_mute_primary(&mut self, id: GroupId, view: View) {
        if let Some(group) = self.groups.get_mut(&id) {
            group.mute_in = Some(view);
            self.drive(id, Input::PrimaryLiveness(Liveness::Suspected));
        }
    }

    pub(super) fn on_peer_frame(&mut self, node: NodeId, frame: &Frame) {
        if frame.header.cluster != self.config.cluster {
            return self.drop_frame(node, frame, "it is of another cluster");
        }
        if !self.can_read(frame) {
            return self.drop_frame(node, frame, "its version is newer than this release");
        }
        if frame.header.command == Command::Pulse {
            return self.on_pulse(node, frame);
        }
        if let Some(why) = self.why_not_understood(node) {
            return self.drop_frame(node, frame, why);
        }
        if frame.header.command == Command::Probe {
            return self.on_probe(node, frame);
        }
        if frame.header.command == Command::Probed {
            return self.on_probed(node, &frame.header);
        }
        match Message::from_frame(frame) {
            Some(Ok(message)) => self.deliver(node, frame.header.group, frame.header.voice, message),
            Some(Err(_)) => self.drop_frame(node, frame, "its body cannot be read"),
            None => self.drop_frame(node, frame, "nodes do not say this to each other"),
        }
    }
}

/// How many pulses an echo may lag behind and still prove, within a silence, that the peer hears us.
fn pulses_in(silence: Duration, pulse_interval: Duration) -> u64 {
    let pulses = silence.as_nanos() / pulse_interval.as_nanos().max(1);
    u64::try_from(pulses).unwrap_or(u64::MAX) + 1
}

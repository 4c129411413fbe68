//! Carries out the strikes of a scenario in the fast world, and takes them back.

use std::collections::BTreeMap;
use std::time::Duration;

use varve_protocol::client::{GroupStatus, NodeStatus, Role};
use varve_protocol::durability::Durability;
use varve_protocol::id::{GroupId, NodeId};

use super::host::Doom;
use super::machine::{Ending, Machine};
use super::universe::{Event, Universe};
use super::wire::Presence;
use crate::doubt;
use crate::oracle::Violation;
use crate::scenario::{Death, Fault, LeftBehind, Reach, Victim};
use crate::trace::Endpoint;

/// The first index of the faults that outlast the others.
const LEFT_BEHIND: usize = usize::MAX / 2;

/// What has to be taken back when a fault ends.
#[derive(Debug, Default)]
pub(crate) struct Undo {
    cuts: Vec<(Endpoint, Endpoint)>,
    crashed: Vec<NodeId>,
    frozen: Vec<NodeId>,
    slowed: Vec<NodeId>,
    hung: Vec<NodeId>,
    filled: Vec<NodeId>,
}

impl Undo {
    /// Has a node start again.
    pub(super) fn of_crash(node: NodeId) -> Self {
        Self { crashed: vec![node], ..Self::default() }
    }
}

impl<M: Machine> Universe<M> {
    /// A strike of the schedule begins.
    pub(crate) fn strike(&mut self, index: usize) -> Result<(), Violation> {
        let strike = self.scenario.strikes[index];
        self.note(format!("fault begins: {:?} for {:?}", strike.fault, strike.lasts));
        let undo = self.inflict(strike.fault, strike.lasts);
        self.undo.insert(index, undo);
        self.heap.push_after(strike.lasts, Event::Relief(index));
        Ok(())
    }

    /// A strike is over.
    pub(crate) fn relieve(&mut self, index: usize) {
        let Some(undo) = self.undo.remove(&index) else { return };
        let fault = self.scenario.strikes.get(index).map(|strike| strike.fault);
        self.note(format!("fault ends: {fault:?}"));
        for (from, to) in undo.cuts {
            self.wire.mend(from, to, &mut self.heap);
        }
        for node in undo.crashed {
            let host = self.host(node);
            host.down -= 1;
            if host.down == 0 {
                let life = host.life;
                self.heap.push(self.heap.now(), Event::Start(node, life));
            }
        }
        for node in undo.frozen {
            self.thaw(node);
        }
        for node in undo.slowed {
            let host = self.host(node);
            host.slow = host.slow.saturating_sub(1);
        }
        for node in undo.hung {
            self.host(node).hung -= 1;
        }
        for node in undo.filled {
            self.host(node).make_room();
        }
    }

    /// A death in the middle of writes comes about.
    pub(crate) fn on_doom(&mut self, node: NodeId, life: u64, doom: Doom) {
        let host = self.host(node);
        if host.life != life || !host.is_in_round() {
            return;
        }
        self.note(format!("{node} is in the middle of its writes: {doom:?}"));
        let nodes =
            if doom.death == Death::Everybody { self.scenario.node_ids().collect() } else { vec![node] };
        let undo = Undo { crashed: self.spared(nodes), ..Undo::default() };
        let ending = if doom.death == Death::Process { Ending::Process } else { Ending::Power };
        self.apply(&undo, ending);
        self.statistics.power_failures += u64::from(doom.death == Death::Everybody);
        self.undo_later(undo, doom.lasts);
    }

    /// Takes something back later that is no strike of the schedule.
    pub(super) fn undo_later(&mut self, undo: Undo, wait: Duration) {
        let index = self.scenario.strikes.len() + self.dooms;
        self.dooms += 1;
        self.undo.insert(index, undo);
        self.heap.push_after(wait, Event::Relief(index));
    }

    /// All strikes are over, and the network and the disks are well.
    pub(crate) fn heal(&mut self) {
        let open: Vec<usize> = self.undo.keys().copied().collect();
        for index in open {
            self.relieve(index);
        }
        self.wire.calm(&mut self.heap);
        for host in self.hosts.values_mut() {
            host.calm();
        }
    }

    /// Keeps some nodes out for as long as the others have to work without them.
    pub(crate) fn leave_behind(&mut self) {
        if !self.all_disks_are_good() {
            self.note("nobody is left behind: a majority would lack a disk".to_owned());
            self.awaits_homecoming = false;
            return;
        }
        if self.scenario.durability == Durability::QuorumMemory && !self.are_all_sound() {
            self.note("nobody is left behind: somebody is silent already".to_owned());
            self.awaits_homecoming = false;
            return;
        }
        for (index, LeftBehind { node, fault }) in self.scenario.left_behind.clone().into_iter().enumerate() {
            if self.atlas.harmed().is_some_and(|harmed| harmed != node) {
                // The others would have to do without two.
                continue;
            }
            self.note(format!("left behind: {fault:?}"));
            let undo = self.inflict(fault, Duration::MAX);
            self.undo.insert(LEFT_BEHIND + index, undo);
        }
    }

    /// Lets them in again.
    pub(crate) fn bring_back(&mut self) {
        let open: Vec<usize> = self.undo.keys().copied().filter(|index| *index >= LEFT_BEHIND).collect();
        for index in open {
            self.relieve(index);
        }
    }

    fn inflict(&mut self, fault: Fault, lasts: Duration) -> Undo {
        let mut undo = Undo::default();
        let mut ending = Ending::Power;
        let others = |this: &Self, node: NodeId| -> Vec<NodeId> {
            this.scenario.node_ids().filter(|other| *other != node).collect()
        };
        match fault {
            Fault::Isolate(victim, reach) => {
                undo.cuts = self.cuts_around(self.find(victim), reach);
            }
            Fault::Halves { mask } => {
                let side = |node: NodeId| mask >> (node.as_raw() - 1) & 1;
                undo.cuts = self.pairs(|a, b| side(a) != side(b));
            }
            Fault::Ring => {
                let nodes = self.scenario.nodes;
                undo.cuts = self.pairs(|a, b| {
                    let distance = a.as_raw().abs_diff(b.as_raw());
                    distance != 1 && distance != nodes - 1
                });
            }
            Fault::Mute(victim) => {
                let node = self.find(victim);
                let cut = |other| (Endpoint::Node(node), Endpoint::Node(other));
                undo.cuts = others(self, node).into_iter().map(cut).collect();
            }
            Fault::Deafen(victim) => {
                let node = self.find(victim);
                let cut = |other| (Endpoint::Node(other), Endpoint::Node(node));
                undo.cuts = others(self, node).into_iter().map(cut).collect();
            }
            Fault::OneWay { from, to } => undo.cuts.push((Endpoint::Node(from), Endpoint::Node(to))),
            Fault::Kill(victim) => {
                undo.crashed.push(self.find(victim));
                ending = Ending::Process;
            }
            Fault::Crash(victim) => undo.crashed.push(self.find(victim)),
            Fault::LoseDisk(victim) => undo.crashed.extend(self.choose_disk_to_lose(victim)),
            Fault::RotDisk(victim) => self.rot_in_use(self.find(victim)),
            Fault::PowerFailure => {
                undo.crashed = self.scenario.node_ids().collect();
                self.statistics.power_failures += 1;
            }
            Fault::Blackout => self.black_out(lasts),
            Fault::DieInWrites { victim, rounds, death } => {
                let node = self.find(victim);
                self.host(node).doom = Some(Doom { rounds, death, lasts });
            }
            Fault::Pause(victim) => undo.frozen.push(self.find(victim)),
            Fault::ResetConnections => self.wire.reset_all(&mut self.heap),
            Fault::SlowDisk(victim) => undo.slowed.push(self.find(victim)),
            Fault::HangDisk(victim) => undo.hung.push(self.find(victim)),
            Fault::FillDisk { victim, room } => {
                let node = self.find(victim);
                self.host(node).fill(room);
                self.statistics.disks_filled += 1;
                undo.filled.push(node);
            }
            Fault::JumpClock { victim, by_ms } => {
                let node = self.find(victim);
                self.host(node).jump_clock(by_ms);
            }
        }
        undo.crashed = self.spared(undo.crashed);
        self.apply(&undo, ending);
        if let (Fault::LoseDisk(_), Some(node)) = (fault, undo.crashed.first()) {
            self.host(*node).lose_disk();
        }
        undo
    }

    /// What cuts a node off from all others, and perhaps from the clients.
    fn cuts_around(&self, node: NodeId, reach: Reach) -> Vec<(Endpoint, Endpoint)> {
        let clients = if reach == Reach::NodesAndClients { self.clients.len() } else { 0 };
        let clients = (0..u32::try_from(clients).unwrap_or_default()).map(Endpoint::Client);
        let others = self.scenario.node_ids().filter(|other| *other != node).map(Endpoint::Node);
        let node = Endpoint::Node(node);
        others.chain(clients).flat_map(|other| [(node, other), (other, node)]).collect()
    }

    /// Whom of these the promise to groups that acknowledge from memory allows to stop now.
    pub(super) fn spared(&mut self, victims: Vec<NodeId>) -> Vec<NodeId> {
        if self.scenario.durability == Durability::QuorumDisk {
            return victims;
        }
        let count = victims.len();
        let statuses = self.statuses();
        let spared =
            doubt::spared(victims, &self.placement, |node, group| self.is_sound(node, group, &statuses));
        if spared.len() < count {
            self.note(format!("only {spared:?} of {count} are stopped: a majority must stay sound"));
        }
        spared
    }

    fn are_all_sound(&self) -> bool {
        let statuses = self.statuses();
        let mut replicas = self
            .placement
            .iter()
            .flat_map(|(group, members)| members.iter().map(move |node| (*node, *group)));
        replicas.all(|(node, group)| self.is_sound(node, group, &statuses))
    }

    fn is_sound(&self, node: NodeId, group: GroupId, statuses: &BTreeMap<NodeId, NodeStatus>) -> bool {
        let is_whole = self.lost_disk != Some(node) && self.atlas.harmed() != Some(node);
        is_whole && statuses.get(&node).is_some_and(|status| doubt::is_sound(status, group))
    }

    /// Whose disk is lost now, if one may be.
    fn choose_disk_to_lose(&mut self, victim: Victim) -> Option<NodeId> {
        if self.scenario.is_beyond() {
            return self.choose_any_disk_to_lose(self.find(victim));
        }
        if !self.all_disks_are_good() || self.atlas.harmed().is_some() {
            self.note("no other disk is lost now".to_owned());
            return None;
        }
        let node = self.find(victim);
        if self.spared(vec![node]).is_empty() {
            self.note("no disk is lost now: a majority would be silent".to_owned());
            return None;
        }
        self.lost_disk = Some(node);
        self.statistics.disks_lost += 1;
        self.lost_disk
    }

    /// Whether the disk that was lost last, if there is one, is made good: its node has all that there is, and a voice in
    /// all its groups.
    pub(crate) fn all_disks_are_good(&self) -> bool {
        let Some(node) = self.lost_disk else { return !self.placement.is_empty() };
        let statuses = self.statuses();
        let commit = |status: &NodeStatus| {
            let metadata = status.groups.iter().find(|replica| replica.group == GroupId::METADATA);
            metadata.map_or(0, |replica| replica.commit)
        };
        let newest = statuses.values().map(commit).max().unwrap_or_default();
        let works = |replica: &GroupStatus| matches!(replica.role, Role::Primary | Role::Backup);
        statuses.get(&node).is_some_and(|status| commit(status) == newest && status.groups.iter().all(works))
    }

    fn apply(&mut self, undo: &Undo, ending: Ending) {
        self.statistics.network_partitions += u64::from(!undo.cuts.is_empty());
        for (from, to) in &undo.cuts {
            self.wire.cut(*from, *to, &mut self.heap);
        }
        for node in &undo.crashed {
            self.crash(*node, ending);
        }
        for node in &undo.frozen {
            self.freeze(*node);
        }
        for node in &undo.slowed {
            self.host(*node).slow += 1;
        }
        for node in &undo.hung {
            self.host(*node).hung += 1;
        }
    }

    pub(super) fn crash(&mut self, node: NodeId, ending: Ending) {
        if self.stop(node, ending) {
            self.let_rot(node);
        }
    }

    /// The same, and the disk remembers. Gives whether it ran.
    pub(super) fn stop(&mut self, node: NodeId, ending: Ending) -> bool {
        let host = self.host(node);
        host.down += 1;
        // A process that is killed while it is frozen starts anew without being frozen.
        host.frozen = 0;
        let Some(in_round) = host.crash(ending) else { return false };
        self.statistics.crashes += 1;
        self.statistics.crashes_in_writes += u64::from(in_round);
        self.wire.set_presence(Endpoint::Node(node), Presence::Absent, &mut self.heap);
        true
    }

    fn freeze(&mut self, node: NodeId) {
        let host = self.host(node);
        if !host.is_up() {
            return;
        }
        host.frozen += 1;
        self.statistics.pauses += 1;
        self.wire.set_presence(Endpoint::Node(node), Presence::Frozen, &mut self.heap);
    }

    fn thaw(&mut self, node: NodeId) {
        let host = self.host(node);
        if host.frozen == 0 {
            return;
        }
        host.frozen -= 1;
        if host.frozen > 0 {
            return;
        }
        let stash = std::mem::take(&mut host.stash);
        for event in stash {
            self.heap.push(self.heap.now(), event);
        }
        self.wire.set_presence(Endpoint::Node(node), Presence::Running, &mut self.heap);
    }

    /// All directed pairs of nodes that `is_cut` chooses.
    fn pairs(&self, is_cut: impl Fn(NodeId, NodeId) -> bool) -> Vec<(Endpoint, Endpoint)> {
        let nodes: Vec<NodeId> = self.scenario.node_ids().collect();
        let all = nodes.iter().flat_map(|a| nodes.iter().map(move |b| (*a, *b)));
        all.filter(|(a, b)| a != b && is_cut(*a, *b))
            .map(|(a, b)| (Endpoint::Node(a), Endpoint::Node(b)))
            .collect()
    }

    /// Who is meant by a victim at this moment.
    fn find(&self, victim: Victim) -> NodeId {
        let number = match victim {
            Victim::Node(node) => return node,
            Victim::Primary(number) => number,
        };
        let group = match number.checked_sub(1) {
            None => GroupId::METADATA,
            Some(partition) => {
                let partition = self.placement.get(partition as usize);
                partition.map_or(GroupId::METADATA, |(group, _)| *group)
            }
        };
        let leads = self.hosts.iter().filter_map(|(node, host)| {
            let status = host.machine()?.status();
            let replica = status.groups.into_iter().find(|replica| replica.group == group)?;
            (replica.role == Role::Primary).then_some((replica.view, *node))
        });
        leads.max().map_or(NodeId::new(1), |(_, node)| node)
    }
}

//! Carries out the strikes of a scenario in the QUIC world, and takes them back.
//!
//! Connections cannot be reset from outside, so that this strike is left to the fast world. All else is the same in both.

mod disks;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use turmoil::Sim;
use varve_protocol::client::{NodeStatus, Role};
use varve_protocol::durability::Durability;
use varve_protocol::id::{GroupId, NodeId};

use super::board::Board;
use super::host::{Host, host_name};
use super::world::client_name;
use crate::doubt;
use crate::fast::machine::Ending;
use crate::fast::rot::Atlas;
use crate::scenario::{Death, Fault, LeftBehind, Reach, Scenario, Strike, Victim};

/// What has to be taken back when a fault ends.
#[derive(Debug, Default)]
struct Undo {
    cuts: Vec<(String, String)>,
    crashed: Vec<NodeId>,
    frozen: Vec<NodeId>,
    slowed: Vec<NodeId>,
    hung: Vec<NodeId>,
    filled: Vec<NodeId>,
}

/// The schedule, and what is broken at the moment.
#[derive(Debug)]
pub(crate) struct Nemesis {
    nodes: Vec<NodeId>,
    durability: Durability,
    clients: u32,
    strikes: Vec<Strike>,
    next: usize,
    open: BTreeMap<usize, Undo>,
    /// How many faults cut a direction.
    cuts: BTreeMap<(String, String), u32>,
    /// How many faults keep a node down.
    down: BTreeMap<NodeId, u32>,
    /// Who is to die in writes, and how.
    dooms: BTreeMap<NodeId, (Death, Duration)>,
    /// When those come back who died so.
    returns: Vec<(Duration, Vec<NodeId>)>,
    /// Those who are kept out while the others must work.
    left_behind: BTreeMap<usize, Undo>,
    /// What the disks have forgotten.
    atlas: Atlas,
    /// The node whose disk was lost last.
    lost_disk: Option<NodeId>,
}

impl Nemesis {
    /// The nemesis of a scenario, before its first strike.
    pub(crate) fn new(scenario: &Scenario, clients: u32) -> Self {
        Self {
            nodes: scenario.node_ids().collect(),
            durability: scenario.durability,
            clients,
            strikes: scenario.strikes.clone(),
            next: 0,
            open: BTreeMap::new(),
            cuts: BTreeMap::new(),
            down: BTreeMap::new(),
            dooms: BTreeMap::new(),
            returns: Vec::new(),
            left_behind: BTreeMap::new(),
            atlas: Atlas::of(scenario),
            lost_disk: None,
        }
    }

    /// Begins and ends what is due.
    pub(crate) fn strike(
        &mut self,
        now: Duration,
        sim: &mut Sim<'_>,
        board: &Board,
        hosts: &BTreeMap<NodeId, Arc<Host>>,
    ) {
        let is_over = |index: &&usize| self.strikes[**index].at + self.strikes[**index].lasts <= now;
        let over: Vec<usize> = self.open.keys().filter(is_over).copied().collect();
        for index in over {
            self.relieve(index, sim, board, hosts);
        }
        self.strike_in_writes(now, sim, board, hosts);
        while let Some(strike) = self.strikes.get(self.next).filter(|strike| strike.at <= now).copied() {
            board.lock().trace.note(now, format!("fault begins: {:?} for {:?}", strike.fault, strike.lasts));
            let undo = self.inflict((strike.fault, strike.lasts), sim, board, hosts);
            self.open.insert(self.next, undo);
            self.next += 1;
        }
    }

    /// Kills those who are in the round of writes in which they are to die, and starts those whose time is over.
    fn strike_in_writes(
        &mut self,
        now: Duration,
        sim: &mut Sim<'_>,
        board: &Board,
        hosts: &BTreeMap<NodeId, Arc<Host>>,
    ) {
        let (over, open): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.returns).into_iter().partition(|(at, _)| *at <= now);
        self.returns = open;
        for (_, nodes) in over {
            nodes.into_iter().for_each(|node| self.start(node, sim.elapsed(), hosts));
        }
        for (node, host) in hosts {
            let Some((death, lasts)) = self.dooms.get(node).copied().filter(|_| host.is_due()) else {
                continue;
            };
            self.dooms.remove(node);
            board.lock().trace.note(now, format!("{node} is in the middle of its writes: {death:?}"));
            let nodes = if death == Death::Everybody { self.nodes.clone() } else { vec![*node] };
            let ending = if death == Death::Process { Ending::Process } else { Ending::Power };
            board.lock().statistics.power_failures += u64::from(death == Death::Everybody);
            let nodes = self.crash_spared(nodes, ending, sim, (board, hosts));
            self.returns.push((now + lasts, nodes));
        }
    }

    fn start(&mut self, node: NodeId, now: Duration, hosts: &BTreeMap<NodeId, Arc<Host>>) {
        let down = self.down.entry(node).or_default();
        *down = down.saturating_sub(1);
        if *down == 0 {
            hosts[&node].start(now);
        }
    }

    /// Ends everything.
    pub(crate) fn heal(&mut self, sim: &mut Sim<'_>, board: &Board, hosts: &BTreeMap<NodeId, Arc<Host>>) {
        self.next = self.strikes.len();
        self.dooms.clear();
        for (_, nodes) in std::mem::take(&mut self.returns) {
            nodes.into_iter().for_each(|node| self.start(node, sim.elapsed(), hosts));
        }
        let open: Vec<usize> = self.open.keys().copied().collect();
        for index in open {
            self.relieve(index, sim, board, hosts);
        }
        for host in hosts.values() {
            host.calm();
        }
    }

    /// Keeps some nodes out for as long as the others have to work without them.
    pub(crate) fn leave_behind(
        &mut self,
        scenario: &Scenario,
        sim: &mut Sim<'_>,
        board: &Board,
        hosts: &BTreeMap<NodeId, Arc<Host>>,
    ) {
        if board.lock().placement.is_none() {
            // A cluster that is not founded yet needs all its nodes; one with a topic was founded.
            return board
                .lock()
                .trace
                .note(sim.elapsed(), "nobody is left behind: nothing was founded".to_owned());
        }
        if !self.all_disks_are_good(board) {
            let note = "nobody is left behind: a majority would lack a disk".to_owned();
            return board.lock().trace.note(sim.elapsed(), note);
        }
        if self.durability == Durability::QuorumMemory && !self.are_all_sound(board) {
            let note = "nobody is left behind: somebody is silent already".to_owned();
            return board.lock().trace.note(sim.elapsed(), note);
        }
        for (index, LeftBehind { node, fault }) in scenario.left_behind.iter().enumerate() {
            if self.harmed().is_some_and(|harmed| harmed != *node) {
                // The others would have to do without two.
                continue;
            }
            board.lock().trace.note(sim.elapsed(), format!("left behind: {fault:?}"));
            let undo = self.inflict((*fault, Duration::MAX), sim, board, hosts);
            self.left_behind.insert(index, undo);
        }
    }

    /// Lets them in again.
    pub(crate) fn bring_back(
        &mut self,
        sim: &mut Sim<'_>,
        board: &Board,
        hosts: &BTreeMap<NodeId, Arc<Host>>,
    ) {
        for (_, undo) in std::mem::take(&mut self.left_behind) {
            board.lock().trace.note(sim.elapsed(), "those left behind are back");
            self.take_back(undo, sim, hosts);
        }
    }

    fn inflict(
        &mut self,
        (fault, lasts): (Fault, Duration),
        sim: &mut Sim<'_>,
        board: &Board,
        hosts: &BTreeMap<NodeId, Arc<Host>>,
    ) -> Undo {
        let mut undo = Undo::default();
        let mut ending = Ending::Power;
        let find = |victim| find(victim, board);
        match fault {
            Fault::Isolate(victim, Reach::Nodes) => {
                let node = find(victim);
                undo.cuts = self.cuts_between(|a, b| a == node || b == node);
            }
            Fault::Isolate(victim, Reach::NodesAndClients) => undo.cuts = self.cuts_around(find(victim)),
            Fault::Pause(victim) => undo.frozen.push(find(victim)),
            Fault::Halves { mask } => {
                let side = |node: NodeId| mask >> (node.as_raw() - 1) & 1;
                undo.cuts = self.cuts_between(|a, b| side(a) != side(b));
            }
            Fault::Ring => {
                let count = self.nodes.len();
                undo.cuts = self.cuts_between(|a, b| {
                    let distance = usize::from(a.as_raw().abs_diff(b.as_raw()));
                    distance != 1 && distance != count - 1
                });
            }
            Fault::Mute(victim) => {
                let node = find(victim);
                undo.cuts = self.cuts_between(|a, _| a == node);
            }
            Fault::Deafen(victim) => {
                let node = find(victim);
                undo.cuts = self.cuts_between(|_, b| b == node);
            }
            Fault::OneWay { from, to } => undo.cuts = self.cuts_between(|a, b| (a, b) == (from, to)),
            Fault::Kill(victim) => {
                undo.crashed.push(find(victim));
                ending = Ending::Process;
            }
            Fault::Crash(victim) => undo.crashed.push(find(victim)),
            Fault::LoseDisk(victim) => {
                undo.crashed.extend(self.choose_disk_to_lose(find(victim), sim.elapsed(), board));
            }
            Fault::PowerFailure | Fault::Blackout => {
                undo.crashed = self.nodes.clone();
                board.lock().statistics.power_failures += 1;
            }
            Fault::DieInWrites { victim, rounds, death } => {
                let node = find(victim);
                hosts[&node].doom(rounds);
                self.dooms.insert(node, (death, lasts));
            }
            Fault::RotDisk(victim) => self.rot_in_use(find(victim), sim.elapsed(), (board, hosts)),
            Fault::FillDisk { victim, room } => {
                let node = find(victim);
                hosts[&node].fill(room);
                board.lock().statistics.disks_filled += 1;
                undo.filled.push(node);
            }
            Fault::ResetConnections => {}
            Fault::SlowDisk(victim) => undo.slowed.push(find(victim)),
            Fault::HangDisk(victim) => undo.hung.push(find(victim)),
            Fault::JumpClock { victim, by_ms } => hosts[&find(victim)].jump_clock(by_ms),
        }
        self.apply(&mut undo, ending, sim, (board, hosts));
        if let (Fault::LoseDisk(_), Some(node)) = (fault, undo.crashed.first()) {
            hosts[node].lose_disk();
        }
        undo
    }

    fn apply(
        &mut self,
        undo: &mut Undo,
        ending: Ending,
        sim: &mut Sim<'_>,
        (board, hosts): (&Board, &BTreeMap<NodeId, Arc<Host>>),
    ) {
        board.lock().statistics.network_partitions += u64::from(!undo.cuts.is_empty());
        for (from, to) in undo.cuts.clone() {
            let count = self.cuts.entry((from.clone(), to.clone())).or_default();
            *count += 1;
            if *count == 1 {
                sim.partition_oneway(from.as_str(), to.as_str());
            }
        }
        let victims = std::mem::take(&mut undo.crashed);
        undo.crashed = self.crash_spared(victims, ending, sim, (board, hosts));
        undo.frozen.retain(|node| hosts[node].freeze());
        board.lock().statistics.pauses += undo.frozen.len() as u64;
        for node in &undo.slowed {
            hosts[node].slow_down();
        }
        for node in &undo.hung {
            hosts[node].hang();
        }
    }

    fn relieve(
        &mut self,
        index: usize,
        sim: &mut Sim<'_>,
        board: &Board,
        hosts: &BTreeMap<NodeId, Arc<Host>>,
    ) {
        let Some(undo) = self.open.remove(&index) else { return };
        let fault = self.strikes[index].fault;
        board.lock().trace.note(sim.elapsed(), format!("fault ends: {fault:?}"));
        self.take_back(undo, sim, hosts);
    }

    fn take_back(&mut self, undo: Undo, sim: &mut Sim<'_>, hosts: &BTreeMap<NodeId, Arc<Host>>) {
        for (from, to) in undo.cuts {
            let count = self.cuts.entry((from.clone(), to.clone())).or_default();
            *count = count.saturating_sub(1);
            if *count == 0 {
                sim.repair_oneway(from.as_str(), to.as_str());
            }
        }
        for node in undo.crashed {
            self.start(node, sim.elapsed(), hosts);
        }
        for node in undo.frozen {
            hosts[&node].thaw();
        }
        for node in undo.hung {
            hosts[&node].unhang();
        }
        for node in undo.slowed {
            hosts[&node].speed_up();
        }
        for node in undo.filled {
            hosts[&node].make_room();
        }
    }

    /// Stops those of these that may be stopped; says which.
    fn crash_spared(
        &mut self,
        victims: Vec<NodeId>,
        ending: Ending,
        sim: &mut Sim<'_>,
        (board, hosts): (&Board, &BTreeMap<NodeId, Arc<Host>>),
    ) -> Vec<NodeId> {
        let nodes = self.spared(victims, board);
        for node in &nodes {
            self.crash(*node, ending, sim, (board, hosts));
        }
        nodes
    }

    fn crash(
        &mut self,
        node: NodeId,
        ending: Ending,
        sim: &mut Sim<'_>,
        (board, hosts): (&Board, &BTreeMap<NodeId, Arc<Host>>),
    ) {
        let down = self.down.entry(node).or_default();
        *down += 1;
        if *down > 1 {
            return;
        }
        let was_in_round = hosts[&node].lose_process(ending);
        self.let_rot(node, sim.elapsed(), (board, hosts));
        let state = &mut *board.lock();
        state.statuses.remove(&node);
        state.stopped.insert(node, sim.elapsed());
        state.statistics.crashes += 1;
        state.statistics.crashes_in_writes += u64::from(was_in_round);
    }

    /// Whom of these the promise to groups that acknowledge from memory allows to stop now, as far as the nodes have told lately.
    fn spared(&self, victims: Vec<NodeId>, board: &Board) -> Vec<NodeId> {
        if self.durability == Durability::QuorumDisk {
            return victims;
        }
        let state = board.lock();
        let Some(placement) = &state.placement else { return victims };
        doubt::spared(victims, placement, |node, group| self.is_sound(node, group, &state.statuses))
    }

    fn is_sound(&self, node: NodeId, group: GroupId, statuses: &BTreeMap<NodeId, NodeStatus>) -> bool {
        let is_whole = self.lost_disk != Some(node) && self.harmed() != Some(node);
        is_whole && statuses.get(&node).is_some_and(|status| doubt::is_sound(status, group))
    }

    fn are_all_sound(&self, board: &Board) -> bool {
        let state = board.lock();
        let placement = state.placement.iter().flatten();
        let mut replicas =
            placement.flat_map(|(group, members)| members.iter().map(move |node| (*node, *group)));
        replicas.all(|(node, group)| self.is_sound(node, group, &state.statuses))
    }

    /// Everything from and to a node.
    fn cuts_around(&self, node: NodeId) -> Vec<(String, String)> {
        let node = host_name(node);
        let others = self.nodes.iter().map(|other| host_name(*other)).filter(|other| *other != node);
        let others = others.chain((0..self.clients).map(client_name));
        others.flat_map(|other| [(other.clone(), node.clone()), (node.clone(), other)]).collect()
    }

    /// All directed pairs of nodes that `is_cut` chooses.
    fn cuts_between(&self, is_cut: impl Fn(NodeId, NodeId) -> bool) -> Vec<(String, String)> {
        let nodes = &self.nodes;
        let all = nodes.iter().flat_map(|a| nodes.iter().map(move |b| (*a, *b)));
        all.filter(|(a, b)| a != b && is_cut(*a, *b)).map(|(a, b)| (host_name(a), host_name(b))).collect()
    }
}

/// Who is meant by a victim, as far as the nodes have told lately.
pub(super) fn find(victim: Victim, board: &Board) -> NodeId {
    let number = match victim {
        Victim::Node(node) => return node,
        Victim::Primary(number) => number,
    };
    let state = board.lock();
    let partition = number.checked_sub(1).and_then(|partition| {
        let placement = state.placement.as_ref()?;
        placement.get(partition as usize).map(|(group, _)| *group)
    });
    let group = partition.unwrap_or(GroupId::METADATA);
    let leads = state.statuses.values().filter_map(|status| {
        let replica = status.groups.iter().find(|replica| replica.group == group)?;
        (replica.role == Role::Primary).then_some((replica.view, status.node))
    });
    leads.max().map_or(NodeId::new(1), |(_, node)| node)
}

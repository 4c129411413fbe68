//! The QUIC world itself: steps the simulated network, lets the nemesis strike, and moves through the three phases.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use turmoil::Sim;
use varve_protocol::id::{ClusterId, NodeId};
use varve_protocol::mark;

use super::board::Board;
use super::client::{Surroundings, act, consume, operate, produce, survey};
use super::host::{Ends, Host, host_name};
use super::nemesis::Nemesis;
use super::process::TICK;
use super::socket::{SharedWeather, Weather};
use crate::actor::Actor;
use crate::actor::balancer::Balancer;
use crate::actor::mover::Mover;
use crate::actor::producer::Producer;
use crate::actor::raiser::Raiser;
use crate::actor::reader::{Auditor, Wanderer};
use crate::actor::scout::Scout;
use crate::actor::tinkerer::Tinkerer;
use crate::oracle::Violation;
use crate::panics;
use crate::random::stream;
use crate::report::{Report, Verdict};
use crate::scenario::{Phase, Scenario};
use crate::trace::{Endpoint, Printing};

/// Packets that may wait in one socket.
const SOCKET_PACKETS_MAX: usize = 4096;

/// A universe.
pub(crate) struct World<'a> {
    scenario: Scenario,
    sim: Sim<'a>,
    board: Board,
    weather: SharedWeather,
    hosts: BTreeMap<NodeId, Arc<Host>>,
    nemesis: Nemesis,
    phase_until: Duration,
}

impl World<'_> {
    /// The universe of a scenario, at its beginning.
    pub(crate) fn new(scenario: Scenario, printing: Printing) -> Self {
        // What another universe on this thread has left.
        mark::take();
        let cluster = ClusterId::new(u128::from(scenario.seed) << 64 | 0x9_1c);
        let board = Board::new(printing, scenario.load.retention);
        let mut sim = simulation(&scenario);
        let ends = Arc::new(Ends::default());
        let weather = SharedWeather::new(weather_at(Duration::ZERO, &scenario));
        let mut hosts = BTreeMap::new();
        for node in scenario.node_ids() {
            let host = Host::new((cluster, node), &scenario, &board, (&ends, &weather));
            hosts.insert(node, Arc::clone(&host));
            sim.host(host_name(node), move || Arc::clone(&host).plug_in());
            ends.insert(sim.lookup(host_name(node)), Endpoint::Node(node));
        }
        let around = |client| Surroundings {
            scenario: scenario.clone(),
            cluster,
            client,
            board: board.clone(),
            ends: Arc::clone(&ends),
            weather: weather.clone(),
        };
        let clients = add_clients(&mut sim, &scenario, around);
        for client in 0..clients {
            ends.insert(sim.lookup(client_name(client)), Endpoint::Client(client));
        }
        for host in hosts.values() {
            host.start(Duration::ZERO);
        }
        let nemesis = Nemesis::new(&scenario, clients);
        Self { phase_until: scenario.safety, scenario, sim, board, weather, hosts, nemesis }
    }

    /// Lets everything happen.
    pub(crate) fn run(mut self) -> Report {
        let keeping = panics::Keeping::begin();
        let result = self.play();
        let simulated = self.sim.elapsed();
        self.hosts.values().for_each(|host| host.stop());
        drop(self.sim);
        drop(keeping);
        let verdict = match result {
            Ok(()) if self.board.lock().oracle.tally().acked == 0 => Verdict::NothingHappened,
            Ok(()) => Verdict::Pass,
            Err(violation) => Verdict::Violation(violation),
        };
        let state = &mut *self.board.lock();
        let mut statistics = state.statistics;
        statistics.simulated = simulated;
        statistics.events = state.trace.events();
        statistics.tally = state.oracle.tally();
        statistics.view_changes = state.views.values().sum();
        self.nemesis.add_to(&mut statistics);
        for host in self.hosts.values() {
            let work = host.work_done();
            statistics.packets_harmed += host.packets_dropped();
            statistics.truncations += work.truncations;
            statistics.let_go += work.let_go;
            statistics.snapshots += work.snapshots;
        }
        state.trace.note(simulated, format!("{verdict}; {:?}", statistics.tally));
        Report {
            seed: self.scenario.seed,
            world: self.scenario.world,
            profile: self.scenario.profile,
            verdict,
            statistics,
            trace: state.trace.digest(),
            marks: mark::take(),
            last: state.trace.last(),
        }
    }

    fn play(&mut self) -> Result<(), Violation> {
        while !self.turn()? {}
        Ok(())
    }

    /// Lets a millisecond pass; true at the end.
    fn turn(&mut self) -> Result<bool, Violation> {
        self.tick()?;
        let now = self.sim.elapsed();
        if self.board.phase() == Phase::Safety {
            self.weather.set(weather_at(now, &self.scenario));
        }
        self.nemesis.strike(now, &mut self.sim, &self.board, &self.hosts);
        self.nemesis.look_at_disks(now, &self.board, &self.hosts);
        self.advance(now)
    }

    /// Moves the network with all clients, and then the processes.
    fn tick(&mut self) -> Result<(), Violation> {
        let stepped = self.sim.step().map_err(|error| Violation::new("a client stopped", error.to_string()));
        let ticked = stepped.and_then(|_| self.hosts.values().try_for_each(|host| host.tick()));
        if let Some(panic) = panics::take() {
            return Err(Violation::new("a node stopped", panic));
        }
        ticked?;
        self.board.lock().violation.take().map_or(Ok(()), Err)
    }

    /// Moves to the next phase when this one is over; true at the end.
    fn advance(&mut self, now: Duration) -> Result<bool, Violation> {
        let phase = self.board.phase();
        let is_waiting = !self.board.lock().waits.is_empty();
        match phase {
            Phase::Safety if now >= self.phase_until => {
                self.nemesis.heal(&mut self.sim, &self.board, &self.hosts);
                self.nemesis.leave_behind(&self.scenario, &mut self.sim, &self.board, &self.hosts);
                // A path that has become narrow stays so.
                let Weather { packet_bytes_max, .. } = weather_at(now, &self.scenario);
                self.weather.set(Weather { packet_bytes_max, ..Weather::default() });
                self.begin(Phase::Liveness, now);
                let state = &mut *self.board.lock();
                state.statistics.acked_under_faults = state.oracle.tally().acked;
            }
            Phase::Liveness if !is_waiting => {
                self.nemesis.bring_back(&mut self.sim, &self.board, &self.hosts);
                self.begin(Phase::Audit, now);
            }
            Phase::Audit
                if !is_waiting
                    && !self.board.lock().ends.is_empty()
                    && self.nemesis.is_all_mended(&self.board) =>
            {
                self.nemesis.compare_disks(&self.board, &self.hosts)?;
                let state = &mut *self.board.lock();
                for (group, ends) in &state.ends {
                    state.oracle.verify_end(*group, ends)?;
                }
                state.phase = Phase::Over;
                return Ok(true);
            }
            Phase::Liveness | Phase::Audit if now >= self.phase_until => return Err(self.too_late(phase)),
            Phase::Safety | Phase::Liveness | Phase::Audit | Phase::Over => {}
        }
        Ok(false)
    }

    fn begin(&mut self, phase: Phase, now: Duration) {
        let state = &mut *self.board.lock();
        state.trace.note(now, format!("{phase:?} begins"));
        state.phase = phase;
        self.phase_until = now + self.scenario.recovery_max();
        if phase == Phase::Audit {
            if let Some(moved) = state.moved.take() {
                state.placement = Some(moved);
            }
            // Removed by the auditor when it has seen everything.
            state.waits.insert(u32::MAX, "nothing has been read".to_owned());
        }
    }

    fn too_late(&self, phase: Phase) -> Violation {
        let state = self.board.lock();
        let waits: Vec<String> =
            state.waits.iter().map(|(client, what)| format!("client {client}: {what}")).collect();
        let replicas = state.statuses.values().flat_map(|status| {
            status.groups.iter().map(|replica| {
                let (node, group, role) = (status.node, replica.group, replica.role);
                let problem = replica.problem.as_deref().unwrap_or_default();
                format!("{node} {group} {role:?} {} op{} {problem}", replica.view, replica.commit)
            })
        });
        let replicas: Vec<String> = replicas.collect();
        let limit = self.scenario.recovery_max();
        let harmed = self.nemesis.harmed();
        let detail = format!(
            "{limit:?} after {phase:?} began: {}; harmed: {harmed:?}; as told last: {}",
            waits.join("; "),
            replicas.join(", ")
        );
        Violation::new("did not recover in time", detail)
    }
}

/// What the network does to packets while faults strike.
fn weather_at(now: Duration, Scenario { link, safety, .. }: &Scenario) -> Weather {
    let is_narrow = now >= *safety / 3;
    let packet_bytes_max = link.narrows_to.filter(|_| is_narrow).map(|bytes| bytes as usize);
    Weather {
        loss_permille: link.loss_permille,
        duplicate_permille: link.duplicate_permille,
        reorder_permille: link.reorder_permille,
        corrupt_permille: link.corrupt_permille,
        packet_bytes_max,
    }
}

/// The host name of a client.
pub(crate) fn client_name(client: u32) -> String {
    format!("c{client}")
}

fn simulation<'a>(scenario: &Scenario) -> Sim<'a> {
    // What a process sends waits for the next tick, when its card takes it.
    let latency = scenario.link.latency.saturating_sub(TICK);
    let mut builder = turmoil::Builder::new();
    builder
        .tick_duration(TICK)
        .min_message_latency(latency)
        .max_message_latency(latency)
        .udp_capacity(SOCKET_PACKETS_MAX)
        .rng_seed(scenario.seed)
        .simulation_duration(Duration::from_secs(24 * 3600));
    builder.build()
}

/// Adds a client that is an actor over bare sessions.
fn add_actor(sim: &mut Sim<'_>, around: Surroundings, actor: Box<dyn Actor>) {
    sim.client(client_name(around.client), act(around, move |_: &Board| Some(actor)));
}

/// Adds all clients of a scenario and gives their number: the operator, producers, amnesiacs, a consumer, readers, those who change
/// this and that, the surveyor, the scout and, last, the auditor.
fn add_clients(sim: &mut Sim<'_>, scenario: &Scenario, around: impl Fn(u32) -> Surroundings) -> u32 {
    let load = &scenario.load;
    let nodes: Vec<NodeId> = scenario.node_ids().collect();
    let rng = |name: &str| stream(scenario.seed, name);
    let mut count = 0;
    let mut next = || {
        count += 1;
        around(count - 1)
    };
    let client = next();
    let cluster = client.cluster;
    sim.client(client_name(client.client), operate(client));
    for _ in 0..load.producers {
        let client = next();
        sim.client(client_name(client.client), produce(client));
    }
    for _ in 0..load.amnesiacs {
        let client = next();
        let (number, known) = (client.client, (cluster, nodes.clone()));
        let actor = Producer::without_session(number, known, load.clone(), rng("amnesiac"));
        add_actor(sim, client, Box::new(actor));
    }
    let client = next();
    sim.client(client_name(client.client), consume(client));
    for index in 0..load.readers {
        let actor = Wanderer::new(cluster, rng(&format!("reader {index}")));
        add_actor(sim, next(), Box::new(actor));
    }
    if load.tinkers {
        let actor = Tinkerer::new(cluster, nodes.clone(), scenario.replication_factor, rng("tinkerer"));
        add_actor(sim, next(), Box::new(actor));
    }
    if load.balances {
        let actor = Balancer::new(cluster, nodes.clone(), scenario.partitions, rng("balancer"));
        add_actor(sim, next(), Box::new(actor));
    }
    if load.moves {
        add_actor(sim, next(), Box::new(Mover::new(cluster, nodes.clone(), rng("mover"))));
    }
    if !scenario.rollouts.is_empty() {
        let actor = Raiser::new(cluster, nodes.clone(), scenario.is_upgraded(), rng("raiser"));
        add_actor(sim, next(), Box::new(actor));
    }
    let client = next();
    sim.client(client_name(client.client), survey(client));
    add_actor(sim, next(), Box::new(Scout::new(cluster, &nodes)));
    let client = next();
    sim.client(client_name(client.client), audit(client, nodes));
    count
}

/// Waits for the audit to begin, and reads everything.
async fn audit(around: Surroundings, nodes: Vec<NodeId>) -> turmoil::Result {
    while around.board.phase() != Phase::Audit {
        tokio::time::sleep(super::board::LOOK_EVERY).await;
    }
    let board = around.board.clone();
    board.set_waits(around.client, Some("nothing has been read".to_owned()));
    board.set_waits(u32::MAX, None);
    let cluster = around.cluster;
    let make = move |board: &Board| -> Option<Box<dyn Actor>> {
        let state = board.lock();
        let wanted = (state.placement.clone()?, state.streams.clone());
        Some(Box::new(Auditor::new(cluster, &nodes, wanted)))
    };
    act(around, make).await
}

#[cfg(test)]
mod tests;

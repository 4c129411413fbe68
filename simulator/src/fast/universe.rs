//! The fast world itself: takes the next event, lets it happen, and moves through the three phases.

mod clients;
mod event;
mod homecoming;
mod phases;
mod versions;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use varve_protocol::checksum::checksum;
use varve_protocol::id::{ClusterId, GroupId, NodeId};
use varve_protocol::mark;
use varve_protocol::version::{Version, Versions};

use super::blackout::Vigil;
use super::chronicle::Chronicle;
use super::heap::EventHeap;
use super::host::Host;
use super::machine::{Effect, Input, Machine, Setup};
use super::nemesis::Undo;
use super::rot::Atlas;
use super::watch::Watch;
use super::wire::{Delivery, Presence, Wire, WireEvent};
use crate::actor::{Happening, Placement};
use crate::oracle::{Oracle, Violation};
use crate::random::{duration_between, long_tail, stream};
use crate::report::{Report, Statistics, Verdict};
use crate::scenario::{Phase, Scenario};
use crate::trace::{ConnectionState, Endpoint, Event as Trail, Printing, Trace};

use clients::{Client, clients};
pub(crate) use event::Event;
use event::receiver;

/// How often the nodes are looked at.
const WATCH_EVERY: Duration = Duration::from_millis(5);

/// How often it is looked whether a disk still hangs.
const HUNG_LOOK_EVERY: Duration = Duration::from_millis(10);

/// The longest a process takes to start.
const START_MAX: Duration = Duration::from_millis(20);

/// Events of one nanosecond that are too many: something goes round in circles.
const EVENTS_PER_INSTANT_MAX: u64 = 1_000_000;

/// A fast world with nodes of some kind.
pub(crate) struct Universe<M: Machine> {
    pub(crate) scenario: Scenario,
    pub(crate) heap: EventHeap<Event>,
    pub(crate) hosts: BTreeMap<NodeId, Host<M>>,
    pub(crate) wire: Wire,
    pub(crate) clients: Vec<Client>,
    pub(crate) oracle: Oracle,
    pub(crate) statistics: Statistics,
    pub(crate) placement: Placement,
    pub(crate) undo: BTreeMap<usize, Undo>,
    /// What has come about that is no strike of the schedule, and has to be taken back.
    pub(crate) dooms: usize,
    /// What the disks have forgotten.
    pub(crate) atlas: Atlas,
    /// The word of how many counted in a group whose replicas are moved, as of the newest commit seen.
    members_seen: BTreeMap<GroupId, (u64, usize)>,
    /// What the nodes show, if anybody wants to know.
    pub(super) chronicle: Option<Chronicle>,
    rng: ChaCha8Rng,
    trace: Trace,
    watch: Watch,
    pub(super) vigil: Vigil,
    phase: Phase,
    auditor: Option<u32>,
    cluster: ClusterId,
    settled: Option<homecoming::Settled>,
    /// Somebody was left behind, and has not been watched for long enough since.
    pub(super) awaits_homecoming: bool,
    /// The node whose disk was lost last.
    pub(super) lost_disk: Option<NodeId>,
    /// The nodes whose disks were lost where more is lost than is promised to be survived.
    pub(super) emptied: BTreeSet<NodeId>,
    /// The newest version that any node has known its cluster to be at.
    pub(super) version: Version,
}

impl<M: Machine> Universe<M> {
    /// The universe of a scenario, at its beginning.
    pub(crate) fn new(scenario: Scenario, printing: Printing) -> Self {
        // What another universe on this thread has left.
        mark::take();
        let seed = scenario.seed;
        let cluster = ClusterId::new(u128::from(seed) << 64 | 0x5ed1_4e47);
        let members: Vec<NodeId> = scenario.node_ids().collect();
        let host = |node: NodeId| {
            let versions = Versions::OF_THIS_RELEASE;
            let setup = Setup { cluster, node, members: members.clone(), seed, versions };
            let rng = stream(seed, &format!("host {node}"));
            (node, Host::new(setup, scenario.disk.clone(), scenario.clock_drift_ppm_max, rng))
        };
        let hosts = members.iter().copied().map(host).collect();
        Self {
            heap: EventHeap::new(stream(seed, "heap")),
            hosts,
            wire: Wire::new(scenario.link.clone(), stream(seed, "wire")),
            clients: clients(&scenario, cluster),
            oracle: Oracle::with_retention(scenario.load.retention),
            statistics: Statistics { seeds: 1, ..Statistics::default() },
            placement: Vec::new(),
            undo: BTreeMap::new(),
            dooms: 0,
            atlas: Atlas::of(&scenario),
            members_seen: BTreeMap::new(),
            chronicle: None,
            rng: stream(seed, "universe"),
            trace: Trace::new(printing),
            watch: Watch::over(scenario.replication_factor, scenario.load.moves),
            vigil: Vigil::default(),
            phase: Phase::Safety,
            auditor: None,
            cluster,
            settled: None,
            lost_disk: None,
            emptied: BTreeSet::new(),
            version: Version::FIRST,
            awaits_homecoming: !scenario.left_behind.is_empty(),
            scenario,
        }
    }

    /// Lets everything happen.
    pub(crate) fn run(&mut self) -> Report {
        self.begin();
        let verdict = match self.play() {
            Ok(()) if self.oracle.tally().acked == 0 => Verdict::NothingHappened,
            Ok(()) => Verdict::Pass,
            Err(Stop::Violation(violation)) => Verdict::Violation(violation),
            Err(Stop::Fault(fault)) => Verdict::HarnessFault(fault),
        };
        let mut statistics = self.statistics;
        statistics.simulated = self.heap.now();
        statistics.events = self.trace.events();
        statistics.tally = self.oracle.tally();
        statistics.view_changes = self.watch.view_changes();
        statistics.connections_lost = self.wire.lost;
        statistics.damages = self.atlas.damages;
        statistics.damages_in_use = self.atlas.damages_in_use;
        statistics.holes_mended = self.atlas.holes_mended;
        statistics.ends_recovered = self.atlas.ends_recovered;
        statistics.doubts_resolved = self.watch.doubts_resolved();
        for host in self.hosts.values() {
            statistics.truncations += host.work().truncations;
            statistics.let_go += host.work().let_go;
            statistics.snapshots += host.work().snapshots;
            statistics.repairs += host.work().repairs;
        }
        let tally = format!("{:?} dropped={}", statistics.tally, self.wire.dropped);
        self.trace.note(self.heap.now(), format!("{verdict}; {tally}"));
        Report {
            seed: self.scenario.seed,
            world: self.scenario.world,
            profile: self.scenario.profile,
            verdict,
            statistics,
            trace: self.trace.digest(),
            marks: mark::take(),
            last: self.trace.last(),
        }
    }

    /// Writes a line into the trace.
    pub(crate) fn note(&mut self, text: String) {
        if let Some(chronicle) = &mut self.chronicle {
            chronicle.notes.push((self.heap.now(), text.clone()));
        }
        self.trace.note(self.heap.now(), text);
    }

    /// The host of a node.
    pub(crate) fn host(&mut self, node: NodeId) -> &mut Host<M> {
        self.hosts.get_mut(&node).expect("every node of the scenario has a host")
    }

    fn begin(&mut self) {
        for client in 0..self.clients.len() {
            let client = u32::try_from(client).expect("there are few clients");
            self.wire.set_presence(Endpoint::Client(client), Presence::Running, &mut self.heap);
            self.arm_client(client, Duration::ZERO);
        }
        for node in self.scenario.node_ids() {
            let wait = duration_between(&mut self.rng, Duration::ZERO, START_MAX);
            self.heap.push(wait, Event::Start(node, 0));
        }
        for (index, strike) in self.scenario.strikes.iter().enumerate() {
            self.heap.push(strike.at, Event::Strike(index));
        }
        self.heap.push(WATCH_EVERY, Event::Watch);
        self.heap.push(self.scenario.safety, Event::Heal);
        self.reset_later();
    }

    fn play(&mut self) -> Result<(), Stop> {
        let mut instant = (Duration::ZERO, 0_u64);
        while self.phase != Phase::Over {
            let Some(event) = self.heap.pop() else {
                return Err(Stop::Fault("the event heap ran empty".to_owned()));
            };
            if instant.0 == self.heap.now() {
                instant.1 += 1;
                if instant.1 > EVENTS_PER_INSTANT_MAX {
                    return Err(Stop::Fault(format!("time stands still at {event:?}")));
                }
            } else {
                instant = (self.heap.now(), 0);
            }
            self.happen(event)?;
        }
        Ok(())
    }

    fn happen(&mut self, event: Event) -> Result<(), Violation> {
        if let Some(node) = receiver(&event)
            && self.host(node).frozen > 0
        {
            self.host(node).stash.push(event);
            return Ok(());
        }
        match event {
            Event::Wire(event) => self.on_wire(event)?,
            Event::Tick(node, life, at) => self.on_tick(node, life, at)?,
            Event::DiskRound(node, life, jobs) => self.on_disk_round(node, life, jobs)?,
            Event::Start(node, life) => self.on_start(node, life)?,
            Event::Wake(client, at) => {
                if self.clients[client as usize].armed == Some(at) {
                    self.clients[client as usize].armed = None;
                    self.tell(client, Happening::Wake)?;
                }
            }
            Event::Strike(index) => self.strike(index)?,
            Event::Relief(index) => self.relieve(index),
            Event::Doom(node, life, doom) => self.on_doom(node, life, doom),
            Event::Reset => {
                if self.phase == Phase::Safety {
                    self.wire.reset_any(&mut self.heap);
                    self.reset_later();
                }
            }
            Event::Watch => self.on_watch()?,
            Event::Heal => self.on_heal()?,
            Event::Homecoming => self.on_homecoming(),
            Event::SettledIn => self.on_settled_in()?,
            Event::Deadline(phase) => self.on_deadline(phase)?,
        }
        Ok(())
    }

    fn on_wire(&mut self, event: WireEvent) -> Result<(), Violation> {
        let mut deliveries = Vec::new();
        self.wire.handle(event, &mut self.heap, &mut deliveries);
        for delivery in deliveries {
            self.deliver(delivery)?;
        }
        Ok(())
    }

    fn deliver(&mut self, delivery: Delivery) -> Result<(), Violation> {
        let now = self.heap.now();
        match delivery {
            Delivery::Up { at, with } => {
                self.trace.record(now, Trail::Connection { at, with, state: ConnectionState::Up });
                if let (Endpoint::Node(at), Endpoint::Node(node)) = (at, with) {
                    let incarnation = self.host(node).incarnation();
                    self.step(at, Input::PeerUp { node, incarnation })?;
                }
                Ok(())
            }
            Delivery::Down { at, with, session } => {
                self.trace.record(now, Trail::Connection { at, with, state: ConnectionState::Down });
                match (at, with) {
                    (Endpoint::Node(at), Endpoint::Node(node)) => self.step(at, Input::PeerDown { node }),
                    (Endpoint::Node(at), Endpoint::Client(_)) => self.step(at, Input::ClientGone { session }),
                    (Endpoint::Client(at), Endpoint::Node(node)) => self.tell(at, Happening::Lost(node)),
                    (Endpoint::Client(_), Endpoint::Client(_)) => Ok(()),
                }
            }
            Delivery::Frame { at, from, session, frame } => {
                let body = frame.body.to_bytes();
                let trail = Trail::Frame {
                    from,
                    to: at,
                    header: frame.header,
                    body_size: body.len(),
                    body_checksum: checksum(&body),
                };
                self.trace.record(now, trail);
                match (at, from) {
                    (Endpoint::Node(at), Endpoint::Node(node)) => {
                        self.watch.note_named(now, at, (frame.header.group, frame.header.view));
                        self.step(at, Input::PeerFrame { node, frame })
                    }
                    (Endpoint::Node(at), Endpoint::Client(_)) => {
                        self.step(at, Input::ClientFrame { session, frame })
                    }
                    (Endpoint::Client(at), Endpoint::Node(node)) => {
                        self.tell(at, Happening::Answer(node, frame))
                    }
                    (Endpoint::Client(_), Endpoint::Client(_)) => Ok(()),
                }
            }
        }
    }

    fn on_tick(&mut self, node: NodeId, life: u64, at: Duration) -> Result<(), Violation> {
        let host = self.hosts.get_mut(&node).expect("every node of the scenario has a host");
        if host.life != life || !host.is_armed_for(at) {
            return Ok(());
        }
        if let Some(effects) = host.tick(&mut self.heap)? {
            self.trace.record(self.heap.now(), Trail::Tick { node });
            self.perform(node, effects)?;
        }
        Ok(())
    }

    fn on_disk_round(&mut self, node: NodeId, life: u64, jobs: usize) -> Result<(), Violation> {
        let host = self.hosts.get_mut(&node).expect("every node of the scenario has a host");
        if host.life != life || !host.is_in_round() {
            return Ok(());
        }
        if host.hung > 0 {
            self.heap.push_after(HUNG_LOOK_EVERY, Event::DiskRound(node, life, jobs));
            return Ok(());
        }
        let effects = host.finish_round(&mut self.heap)?;
        self.trace.record(self.heap.now(), Trail::DiskRound { node, jobs });
        self.perform(node, effects)?;
        Ok(())
    }

    fn on_start(&mut self, node: NodeId, life: u64) -> Result<(), Violation> {
        let host = self.hosts.get_mut(&node).expect("every node of the scenario has a host");
        if host.life != life || host.down > 0 || host.is_up() {
            return Ok(());
        }
        let release = self.scenario.release_at(self.heap.now(), node);
        let effects = host.start(release.versions(), &mut self.heap)?;
        let life = host.life;
        self.note(format!("{node} starts its life {life}"));
        self.wire.set_presence(Endpoint::Node(node), Presence::Running, &mut self.heap);
        self.perform(node, effects)?;
        Ok(())
    }

    fn step(&mut self, node: NodeId, input: Input) -> Result<(), Violation> {
        let host = self.hosts.get_mut(&node).expect("every node of the scenario has a host");
        let effects = host.step(input, &mut self.heap)?;
        self.perform(node, effects)?;
        Ok(())
    }

    fn perform(&mut self, node: NodeId, effects: Vec<Effect>) -> Result<(), Violation> {
        let from = Endpoint::Node(node);
        self.look_at_version(node)?;
        for effect in effects {
            match effect {
                Effect::ToPeer { node: to, lane, frame } => {
                    self.look_at_frame(node, &frame)?;
                    let node = to;
                    self.wire.send((from, Endpoint::Node(node)), lane, frame, &mut self.heap);
                }
                Effect::ToClient { session, frame } => {
                    if let Some(client) = self.wire.client_of(session) {
                        let lane = frame.header.group.as_raw();
                        self.wire.send((from, client), lane, frame, &mut self.heap);
                    }
                }
            }
        }
        Ok(())
    }

    /// Moves on when all clients have what they wait for.
    pub(crate) fn advance(&mut self) -> Result<(), Violation> {
        if self.placement.is_empty() {
            let found = self.clients.iter().find_map(|client| client.actor.placement().cloned());
            if let Some(placement) = found {
                self.note(format!("the partitions are at {placement:?}"));
                self.placement.clone_from(&placement);
                self.tell_all(&Happening::Placed(self.places_to_look(placement)))?;
            }
        }
        let is_waiting = || self.clients.iter().any(|client| client.actor.waits_for().is_some());
        match self.phase {
            Phase::Liveness if !is_waiting() => self.begin_audit(),
            Phase::Audit
                if !is_waiting()
                    && !self.awaits_homecoming
                    && self.atlas.harmed().is_none()
                    && self.all_know_the_version() =>
            {
                self.finish_audit()
            }
            Phase::Safety | Phase::Liveness | Phase::Audit | Phase::Over => Ok(()),
        }
    }

    /// Where clients look for the partitions: everywhere, if they may be moved.
    fn places_to_look(&self, mut placement: Placement) -> Placement {
        if self.scenario.load.moves {
            let all: Vec<NodeId> = self.scenario.node_ids().collect();
            placement.iter_mut().for_each(|(_, replicas)| replicas.clone_from(&all));
        }
        placement
    }

    fn reset_later(&mut self) {
        if !self.scenario.link.reset_every.is_zero() {
            let wait = long_tail(&mut self.rng, self.scenario.link.reset_every);
            self.heap.push_after(wait, Event::Reset);
        }
    }
}

/// Why a universe stops before its end.
enum Stop {
    Violation(Violation),
    Fault(String),
}

impl From<Violation> for Stop {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

//! A computer of the QUIC world: the server as it ships, on a disk in memory and behind a network card that outlive its
//! processes.
//!
//! The disk works as in production, round by round, but on simulated time. When the process dies in the middle of a round,
//! the writes of that round get as far as the seed says.

use std::collections::BTreeMap;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use tokio::time::Instant;
use varve_protocol::id::{ClusterId, Incarnation, NodeId, Timestamp};
use varve_protocol::version::Versions;
use varve_replica::server::disk::{DiskWorker, link};
use varve_replica::server::{Clock, Parts, run};
use varve_replica::{Node, NodeConfig};
use varve_storage::{Identity, Job, MemoryDisk, Store};
use varve_transport::authority::Authority;
use varve_transport::{Resolve, Resolving, Transport, TransportConfig, TransportError, Tuning};

use super::board::Board;
use super::card::Card;
use super::process::Process;
use super::socket::{OnPacket, SharedWeather, SimulatedRuntime, SimulatedSocket};
use crate::fast::machine::{Ending, Work};
use crate::fast::real;
use crate::oracle::Violation;
use crate::random::{chance, duration_between, long_tail, nanos, seed_bytes, stream};
use crate::scenario::{Disk, Scenario, metadata_bytes_kept, timing};
use crate::trace::{Endpoint, Event};

/// The port of every node.
pub(crate) const PORT: u16 = 4400;

/// Microseconds since 1970 when a universe begins.
const EPOCH_US: u64 = 1_800_000_000_000_000;

/// How often it is looked whether a disk still hangs.
const HUNG_LOOK_EVERY: Duration = Duration::from_millis(10);

/// How much slower a disk is while that fault lasts.
const SLOWNESS: u32 = 20;

/// The host name of a node.
pub(crate) fn host_name(node: NodeId) -> String {
    format!("n{}", node.as_raw())
}

/// The address of a node.
pub(crate) fn address(node: NodeId) -> String {
    format!("{}:{PORT}", host_name(node))
}

/// Finds nodes by their names.
#[derive(Clone, Debug)]
pub(crate) struct SimulatedResolver(pub(crate) Arc<Ends>);

impl Resolve for SimulatedResolver {
    fn resolve<'a>(&'a self, address: &'a str) -> Resolving<'a> {
        Box::pin(async move {
            let unknown = || std::io::Error::new(std::io::ErrorKind::NotFound, "not `node:port`");
            let (name, port) = address.split_once(':').ok_or_else(unknown)?;
            let port = port.parse().map_err(|_| unknown())?;
            let address = self.0.address_of(name).ok_or_else(unknown)?;
            Ok(SocketAddr::new(address, port))
        })
    }
}

/// The settings of every endpoint of a universe.
pub(crate) fn tuning(scenario: &Scenario) -> Tuning {
    Tuning {
        path_mtu_max: 1452,
        idle_timeout: scenario.link.idle_timeout,
        keep_alive: scenario.link.idle_timeout / 3,
        lane_bytes_max: scenario.link.lane_bytes_max,
        ..Tuning::default()
    }
}

/// Writes every packet of an endpoint into the trace.
pub(crate) fn packet_observer(board: &Board, from: Endpoint, ends: &Arc<Ends>) -> OnPacket {
    let (board, ends) = (board.clone(), Arc::clone(ends));
    Arc::new(move |destination, size, fate| {
        let to = ends.find(destination).unwrap_or(from);
        board.record(Event::Packet { from, to, size, fate });
        board.lock().statistics.packets_harmed += u64::from(fate != crate::trace::Fate::Arrives);
    })
}

/// Who has which address.
#[derive(Debug, Default)]
pub(crate) struct Ends(Mutex<BTreeMap<std::net::IpAddr, Endpoint>>);

impl Ends {
    /// Notes an address.
    pub(crate) fn insert(&self, address: std::net::IpAddr, end: Endpoint) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(address, end);
    }

    fn address_of(&self, name: &str) -> Option<std::net::IpAddr> {
        let ends = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it = |end: &Endpoint| matches!(end, Endpoint::Node(node) if host_name(*node) == name);
        ends.iter().find(|(_, end)| is_it(end)).map(|(address, _)| *address)
    }

    fn find(&self, address: SocketAddr) -> Option<Endpoint> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&address.ip()).copied()
    }
}

/// The disk of a host and what runs on it.
struct Drive {
    disk: MemoryDisk,
    store: Option<Store<MemoryDisk>>,
    /// The round under way.
    round: Option<Vec<Job>>,
    rng: ChaCha8Rng,
    /// Disks that were lost.
    disks: u64,
    /// Faults that let it be full.
    full: u32,
    work: Work,
}

/// A computer.
pub(crate) struct Host {
    cluster: ClusterId,
    node: NodeId,
    scenario: Scenario,
    board: Board,
    ends: Arc<Ends>,
    weather: SharedWeather,
    card: Arc<Card>,
    drive: Mutex<Drive>,
    process: Mutex<Option<Process>>,
    lives: AtomicU64,
    wall_offset_us: AtomicI64,
    /// Faults that slow the disk at the moment.
    slow: AtomicU32,
    /// Faults that let it hang.
    hung: AtomicU32,
    is_calm: AtomicU32,
    /// Rounds until the process is to die in one; zero: it is to die now.
    doom: Mutex<Option<u32>>,
}

impl Host {
    /// A computer with an empty, formatted disk.
    pub(crate) fn new(
        (cluster, node): (ClusterId, NodeId),
        scenario: &Scenario,
        board: &Board,
        (ends, weather): (&Arc<Ends>, &SharedWeather),
    ) -> Arc<Self> {
        let disk = real::format(Identity { cluster, node }, 0);
        let rng = stream(scenario.seed, &format!("drive {node}"));
        let work = Work::default();
        Arc::new(Self {
            cluster,
            node,
            scenario: scenario.clone(),
            board: board.clone(),
            ends: Arc::clone(ends),
            weather: weather.clone(),
            card: Arc::default(),
            process: Mutex::new(None),
            drive: Mutex::new(Drive { disk, store: None, round: None, rng, disks: 0, full: 0, work }),
            lives: AtomicU64::new(0),
            wall_offset_us: AtomicI64::new(0),
            slow: AtomicU32::new(0),
            hung: AtomicU32::new(0),
            is_calm: AtomicU32::new(0),
            doom: Mutex::new(None),
        })
    }

    fn drive(&self) -> MutexGuard<'_, Drive> {
        self.drive.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the simulated network runs of a computer.
    pub(crate) async fn plug_in(self: Arc<Self>) -> turmoil::Result {
        let rng = stream(self.scenario.seed, &format!("socket {}", self.node));
        let observer = packet_observer(&self.board, Endpoint::Node(self.node), &self.ends);
        let socket = SimulatedSocket::bind(PORT, (self.weather.clone(), rng), observer).await?;
        match self.card.work(socket).await? {}
    }

    /// Starts a process.
    pub(crate) fn start(self: &Arc<Self>, now: Duration) {
        let life = self.lives.fetch_add(1, Ordering::Relaxed) + 1;
        self.board.lock().trace.note(now, format!("{} starts its life {life}", self.node));
        let host = Arc::clone(self);
        let software = async move {
            match host.live(now, life).await {
                Ok(()) => "it ended by itself".to_owned(),
                Err(error) => error.to_string(),
            }
        };
        let before = self.process().replace(Process::new(self.node, Box::pin(software)));
        assert!(before.is_none(), "one process at a time");
    }

    /// Ends the process, if there is one, at once.
    pub(crate) fn stop(&self) {
        *self.process() = None;
        self.card.unbind();
    }

    /// Lets the process, if there is one, run for a tick.
    ///
    /// # Errors
    /// When it ends or panics.
    pub(crate) fn tick(&self) -> Result<(), Violation> {
        self.process().as_mut().map_or(Ok(()), Process::tick)
    }

    /// One more fault freezes the process; false if there is none.
    pub(crate) fn freeze(&self) -> bool {
        self.process().as_mut().map(Process::freeze).is_some()
    }

    /// One fault less freezes the process. One that was started meanwhile was never frozen.
    pub(crate) fn thaw(&self) {
        self.process().as_mut().map(Process::thaw);
    }

    /// One life of the process.
    async fn live(self: Arc<Self>, began: Duration, life: u64) -> Result<(), Box<dyn Error + Send + Sync>> {
        let seed = |name: &str| seed_bytes(self.scenario.seed, &format!("{name} {} life {life}", self.node));
        let identity = Identity { cluster: self.cluster, node: self.node };
        let disk = self.drive().disk.clone();
        let (store, recovery) = real::open(&disk, identity, (self.scenario.seed, life))?;
        let meant = self.scenario.release_at(began, self.node).versions();
        let versions = real::release_for(&recovery, meant);
        self.drive().store = Some(store);
        let members: BTreeMap<NodeId, String> =
            self.scenario.node_ids().map(|node| (node, address(node))).collect();
        let clock = self.clock(began);
        let incarnation = Incarnation::new(u64::from(self.node.as_raw()) << 32 | life);
        let node_config = NodeConfig {
            cluster: self.cluster,
            node: self.node,
            incarnation,
            versions,
            members: members.clone(),
            timing: timing(self.scenario.seed),
            metadata_bytes_kept: metadata_bytes_kept(self.scenario.seed),
            seed: seed("node"),
        };
        let transport_config = self.transport_config((incarnation, versions), members, seed("transport"))?;
        let (transport, events) = Transport::start(
            transport_config,
            Arc::new(SimulatedRuntime),
            self.card.bind(),
            Arc::new(SimulatedResolver(Arc::clone(&self.ends))),
        )?;
        let (disk, worker) = link();
        tokio::spawn(Arc::clone(&self).work(worker));
        let node = Node::new(node_config, clock.now(), clock.wall(), recovery);
        let parts = Parts { node, transport, events, disk, clock };
        Ok(run(parts, std::future::pending()).await?)
    }

    fn transport_config(
        &self,
        (incarnation, versions): (Incarnation, Versions),
        mut peers: BTreeMap<NodeId, String>,
        seed: [u8; 32],
    ) -> Result<TransportConfig, TransportError> {
        let universe = self.scenario.seed;
        let authority = authority(universe, self.cluster)?;
        let issued = authority.issue(self.node, seed_bytes(universe, &format!("key {}", self.node)))?;
        let identity = varve_transport::Identity::from_pem(
            authority.certificate_pem()?.as_bytes(),
            issued.certificate_pem.as_bytes(),
            issued.key_pem.as_bytes(),
        )?;
        peers.remove(&self.node);
        let half = seed_bytes(universe, &format!("reset {}", self.node));
        let mut reset_key = [0; 64];
        reset_key[..32].copy_from_slice(&half);
        Ok(TransportConfig {
            cluster: self.cluster,
            node: self.node,
            incarnation,
            versions,
            identity,
            peers,
            tuning: tuning(&self.scenario),
            seed: Some(seed),
            reset_key,
        })
    }

    fn clock(self: &Arc<Self>, began: Duration) -> Clock {
        let start = Instant::now();
        let host = Arc::clone(self);
        Clock::new(Box::new(move || {
            let elapsed_us = i128::from(nanos(began + start.elapsed()) / 1000);
            let offset_us = i128::from(host.wall_offset_us.load(Ordering::Relaxed));
            let wall = i128::from(EPOCH_US) + elapsed_us + offset_us;
            Timestamp::new(u64::try_from(wall).unwrap_or_default())
        }))
    }

    /// The disk: takes a round, lets time pass, does it, reports.
    async fn work(self: Arc<Self>, mut worker: DiskWorker) {
        while let Some(jobs) = worker.next_round().await {
            {
                let drive = &mut *self.drive();
                jobs.iter().for_each(|job| real::count(&mut drive.work, job));
                drive.round = Some(jobs);
            }
            self.count_down();
            tokio::time::sleep(self.round_latency()).await;
            while self.hung.load(Ordering::Relaxed) > 0 {
                tokio::time::sleep(HUNG_LOOK_EVERY).await;
            }
            let completions = {
                let drive = &mut *self.drive();
                let (Some(store), Some(jobs)) = (&mut drive.store, drive.round.take()) else { return };
                store.execute(jobs)
            };
            if !worker.report(completions) {
                return;
            }
        }
    }

    fn round_latency(&self) -> Duration {
        let Disk { latency, spike_permille, spike_max } = self.scenario.disk;
        let is_slow = self.slow.load(Ordering::Relaxed) > 0;
        let is_calm = self.is_calm.load(Ordering::Relaxed) > 0;
        let rng = &mut self.drive().rng;
        let usual = latency / 2 + long_tail(rng, latency / 2);
        if is_calm {
            return usual.min(Duration::from_millis(2));
        }
        let slowed = if is_slow { usual * SLOWNESS } else { usual };
        if chance(rng, spike_permille) { slowed + duration_between(rng, latency, spike_max) } else { slowed }
    }

    /// The process stops at once, frozen or not, and something becomes of its disk. Returns whether a round of writes was broken off.
    pub(crate) fn lose_process(&self, ending: Ending) -> bool {
        self.stop();
        let drive = &mut *self.drive();
        let round = drive.round.take();
        let was_in_round = round.is_some();
        if let (Some(mut store), Some(jobs)) = (drive.store.take(), round) {
            // The round gets anywhere between its first call and its last; each job takes a few calls.
            let calls = drive.rng.random_range(0..=4 * jobs.len() as u64 + 4);
            drive.disk.power_off_after(drive.disk.calls() + calls);
            store.execute(jobs);
        }
        drive.disk = match ending {
            Ending::Process => drive.disk.restart(),
            Ending::Power => drive.disk.crash(&mut drive.rng),
        };
        was_in_round
    }

    /// The disk of a computer without a process is replaced by an empty one.
    pub(crate) fn lose_disk(&self) {
        let drive = &mut *self.drive();
        assert!(drive.store.is_none(), "a disk is lost while no process uses it");
        drive.disks += 1;
        drive.disk = real::format(Identity { cluster: self.cluster, node: self.node }, drive.disks);
    }

    /// Leaves only so much room on the disk.
    pub(crate) fn fill(&self, room: u64) {
        let drive = &mut *self.drive();
        drive.full += 1;
        real::fill(&drive.disk, Some(room));
    }

    /// One of the faults that filled the disk is over.
    pub(crate) fn make_room(&self) {
        let drive = &mut *self.drive();
        drive.full -= 1;
        if drive.full == 0 {
            real::fill(&drive.disk, None);
        }
    }

    /// The disk, as it is now.
    pub(crate) fn disk(&self) -> MemoryDisk {
        self.drive().disk.clone()
    }

    /// Packets for processes here that found no room.
    pub(crate) fn packets_dropped(&self) -> u64 {
        self.card.dropped()
    }

    /// What all processes here have done.
    pub(crate) fn work_done(&self) -> Work {
        self.drive().work
    }

    /// The process is to die in one of its next rounds of writes.
    pub(crate) fn doom(&self, rounds: u32) {
        *self.doom.lock().unwrap_or_else(PoisonError::into_inner) = Some(rounds + 1);
    }

    fn count_down(&self) {
        let mut doom = self.doom.lock().unwrap_or_else(PoisonError::into_inner);
        *doom = doom.map(|rounds| rounds.saturating_sub(1));
    }

    /// Whether the round under way is the one in which the process is to die. True once.
    pub(crate) fn is_due(&self) -> bool {
        let mut doom = self.doom.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = *doom == Some(0);
        if is_due {
            *doom = None;
        }
        is_due
    }

    /// Moves the wall clock.
    pub(crate) fn jump_clock(&self, by_ms: i64) {
        self.wall_offset_us.fetch_add(by_ms * 1000, Ordering::Relaxed);
    }

    /// One more fault slows the disk.
    pub(crate) fn slow_down(&self) {
        self.slow.fetch_add(1, Ordering::Relaxed);
    }

    /// One fault less slows the disk.
    pub(crate) fn speed_up(&self) {
        self.slow.fetch_sub(1, Ordering::Relaxed);
    }

    /// One more fault lets the disk hang.
    pub(crate) fn hang(&self) {
        self.hung.fetch_add(1, Ordering::Relaxed);
    }

    /// One fault less lets the disk hang.
    pub(crate) fn unhang(&self) {
        self.hung.fetch_sub(1, Ordering::Relaxed);
    }

    /// The disk is well from now on.
    pub(crate) fn calm(&self) {
        self.is_calm.store(1, Ordering::Relaxed);
    }
}

/// The authority that everybody in a universe believes.
pub(crate) fn authority(seed: u64, cluster: ClusterId) -> Result<Authority, TransportError> {
    Authority::from_seed(cluster, seed_bytes(seed, "authority"))
}

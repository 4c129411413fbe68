//! What a seed draws: the cluster, its weather, its load, and the schedule of its misfortunes.
//!
//! Swarm testing: each seed switches every kind of fault on or off and redraws its rates, zero included, because a rare
//! combination is found sooner by a run that has only that combination.
//!
//! A [`Strike`] names whom it hits in words that both worlds understand ("the primary of the second partition"); the
//! world finds out at that moment who that is.

use std::time::Duration;

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::random::{chance, duration_between, pick, stream};
use varve_protocol::durability::Durability;
use varve_protocol::id::NodeId;
use varve_protocol::retention::Retention;
use varve_replica::Timing;

/// Universes in which somebody changes the metadata all the time, in a thousand.
const TINKERERS_PERMILLE: u32 = 400;

/// Universes in which somebody has primaries moved all the time, in a thousand.
const BALANCERS_PERMILLE: u32 = 400;

/// Universes in which records are not kept for ever, in a thousand.
const BOUNDED_PERMILLE: u32 = 300;
/// Universes whose topic acknowledges from memory, in a thousand.
const FROM_MEMORY_PERMILLE: u32 = 300;

/// The clockwork of the nodes of a universe: primaries are restored sooner than in real clusters, or never.
#[must_use]
pub fn timing(seed: u64) -> Timing {
    let rng = &mut stream(seed, "timing");
    let restore_primaries_after = Duration::from_millis(pick(rng, &[0, 300, 1000, 3000]));
    let is_bounded = retention(seed).is_bounded();
    let retention_check = Duration::from_millis(if is_bounded { 200 } else { 10_000 });
    let mut timing = Timing { restore_primaries_after, retention_check, ..Timing::default() };
    let rng = &mut stream(seed, "memory timing");
    timing.consensus.memory_sync = Duration::from_millis(pick(rng, &[5, 30, 100, 1000]));
    timing.consensus.memory_rest = Duration::from_millis(pick(rng, &[20, 200, 2000]));
    timing
}

/// Drawn apart. A single replica has no minority that it could lose.
fn draw_durability(seed: u64, replication_factor: u8) -> Durability {
    let is_from_memory = chance(&mut stream(seed, "durability"), FROM_MEMORY_PERMILLE);
    if is_from_memory && replication_factor >= 3 { Durability::QuorumMemory } else { Durability::QuorumDisk }
}

/// How long the records of a universe of the fast world are kept. Drawn apart.
#[must_use]
pub fn retention(seed: u64) -> Retention {
    let rng = &mut stream(seed, "retention");
    if !chance(rng, BOUNDED_PERMILLE) {
        return Retention::FOREVER;
    }
    let bytes = pick(rng, &[0, 2_000, 20_000, 200_000]);
    let age_ms = pick(rng, &[0, 500, 3_000, 20_000]);
    match pick(rng, &[1, 2, 3]) {
        1 => Retention { bytes: Some(bytes), age_ms: None },
        2 => Retention { bytes: None, age_ms: Some(age_ms) },
        _ => Retention { bytes: Some(bytes), age_ms: Some(age_ms) },
    }
}

/// Which of the two worlds a seed runs in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum World {
    /// Deterministic nodes on an event heap, with messages for a wire.
    Fast,
    /// The server with real QUIC, in a simulated UDP network.
    Quic,
}

impl World {
    /// The name used on the command line and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Quic => "quic",
        }
    }
}

/// What the universe is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Faults strike.
    Safety,
    /// Everything must work again.
    Liveness,
    /// Everything is read.
    Audit,
    /// It is over.
    Over,
}

/// Everything that is decided before a universe starts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scenario {
    /// The seed that drew it.
    pub seed: u64,
    /// The world it was drawn for.
    pub world: World,
    /// Nodes: 1, 3 or 5.
    pub nodes: u8,
    /// Partitions of the one topic.
    pub partitions: u32,
    /// Replicas of each partition, at most `nodes`.
    pub replication_factor: u8,
    /// When an append to it counts as done. From memory: then no more than a minority of a group's replicas is stopped
    /// uncleanly at once.
    pub durability: Durability,
    /// What the clients do.
    pub load: Load,
    /// The network.
    pub link: Link,
    /// The disks.
    pub disk: Disk,
    /// Parts per million by which a clock may run fast or slow.
    pub clock_drift_ppm_max: u32,
    /// How long faults strike.
    pub safety: Duration,
    /// The faults, by time.
    pub strikes: Vec<Strike>,
    /// Nodes that are kept out, and how, while the others must already work again.
    pub left_behind: Vec<(NodeId, Fault)>,
}

/// What the clients do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Load {
    /// Producers with a session, which retry until they know the outcome.
    pub producers: u32,
    /// Producers without a session, which try once and live with not knowing.
    pub amnesiacs: u32,
    /// Consumers that read whatever replica they come across.
    pub readers: u32,
    /// Appends that a producer keeps in flight per partition.
    pub window: u32,
    /// Most records in a batch.
    pub batch_records_max: u32,
    /// Most bytes in a record's payload.
    pub payload_bytes_max: u32,
    /// Mean pause between two appends of a producer to a partition.
    pub think: Duration,
    /// How long a client waits for an answer before it asks elsewhere.
    pub patience: Duration,
    /// Whether somebody creates and deletes streams and topics all the time.
    pub tinkers: bool,
    /// Whether somebody has primaries moved all the time.
    pub balances: bool,
    /// How long records are kept.
    pub retention: Retention,
}

/// The network between any two.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// One-way delay that nothing gets below.
    pub latency: Duration,
    /// Mean of what comes on top.
    pub latency_tail: Duration,
    /// Bytes per second, each way.
    pub bandwidth: u64,
    /// Mean time between resets of connections without a visible cause; zero: never (fast world).
    pub reset_every: Duration,
    /// Silence after which an end gives a connection up.
    pub idle_timeout: Duration,
    /// Packets lost, in a thousand (QUIC world).
    pub loss_permille: u32,
    /// Packets that arrive twice, in a thousand (QUIC world).
    pub duplicate_permille: u32,
    /// Packets overtaken by later ones, in a thousand (QUIC world).
    pub reorder_permille: u32,
}

/// The disks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Disk {
    /// Time of one round of writes and syncs.
    pub latency: Duration,
    /// Rounds that take much longer, in a thousand.
    pub spike_permille: u32,
    /// The longest of those.
    pub spike_max: Duration,
}

/// One misfortune.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Strike {
    /// When, since the start.
    pub at: Duration,
    /// How long.
    pub lasts: Duration,
    /// What.
    pub fault: Fault,
}

/// Whom a fault hits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Victim {
    /// This node.
    Node(NodeId),
    /// Whoever leads the metadata group (0) or the partition with this number less one at that moment.
    Primary(u32),
}

/// What can go wrong. But for [`Fault::LoseDisk`] none of it harms data that a disk has synced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Cuts one node off from all others, and from the clients too if they are to notice.
    Isolate(Victim, Reach),
    /// Splits the nodes in two: those whose bit is set, and the rest.
    Halves {
        /// One bit per node, node 1 the lowest.
        mask: u32,
    },
    /// Cuts every node that is no neighbour on a ring, so that no node sees a quorum of five directly.
    Ring,
    /// Cuts all that one node says; what it hears still arrives.
    Mute(Victim),
    /// Cuts all that one node hears; what it says still arrives.
    Deafen(Victim),
    /// Cuts one direction between two nodes.
    OneWay {
        /// Whose words are lost.
        from: NodeId,
        /// Who does not hear them.
        to: NodeId,
    },
    /// Stops a process at once; the kernel keeps what it has written. It starts again when the fault ends.
    Kill(Victim),
    /// Stops a computer at once; what its disk has not synced may be lost. It starts again when the fault ends.
    Crash(Victim),
    /// Stops a computer at once, and its disk is lost. It starts again with an empty one when the fault ends. Nothing happens
    /// while another disk that was lost is not made good yet: with two of three gone, nothing could be promised.
    LoseDisk(Victim),
    /// Stops every computer at once.
    PowerFailure,
    /// Lets the victim get through some more rounds of writes and stops it, or everybody, in the middle of the next one.
    DieInWrites {
        /// Whose writes.
        victim: Victim,
        /// How many rounds it gets through.
        rounds: u32,
        /// Who dies.
        death: Death,
    },
    /// Freezes a process; its clock runs on.
    Pause(Victim),
    /// Resets every connection, without cutting anything.
    ResetConnections,
    /// Makes every disk round of one node slow.
    SlowDisk(Victim),
    /// Lets no disk round of one node come to an end.
    HangDisk(Victim),
    /// Moves the wall clock of one node.
    JumpClock {
        /// Whose.
        victim: Victim,
        /// How far, in milliseconds.
        by_ms: i64,
    },
}

/// Who dies in the middle of a round of writes, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Death {
    /// The process; the kernel keeps what it has written.
    Process,
    /// The computer.
    Computer,
    /// All computers.
    Everybody,
}

/// How far a network partition reaches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// Between nodes only.
    Nodes,
    /// Clients are cut off too.
    NodesAndClients,
}

/// Which kinds of faults a universe knows.
struct Weather {
    network: bool,
    one_way: bool,
    crash: bool,
    power: bool,
    pause: bool,
    small: bool,
}

impl Scenario {
    /// The scenario of `seed` in `world`.
    #[must_use]
    pub fn draw(seed: u64, world: World) -> Self {
        let rng = &mut stream(seed, "scenario");
        let nodes = pick(rng, &[1, 3, 3, 3, 3, 3, 5, 5]);
        let factors: &[u8] = match nodes {
            1 => &[1],
            3 => &[3, 3, 3, 1],
            _ => &[5, 5, 3, 3, 1],
        };
        let safety_s: u64 = match world {
            World::Fast => rng.random_range(5..=60),
            World::Quic => rng.random_range(4..=12),
        };
        let safety = Duration::from_secs(safety_s);
        let partitions = pick(rng, &[1, 1, 2, 3, 6]);
        let replication_factor = pick(rng, factors);
        Self {
            seed,
            world,
            nodes,
            partitions,
            replication_factor,
            durability: draw_durability(seed, replication_factor),
            load: Load {
                retention: if world == World::Fast { retention(seed) } else { Retention::FOREVER },
                tinkers: chance(&mut stream(seed, "tinkers"), TINKERERS_PERMILLE),
                balances: chance(&mut stream(seed, "balances"), BALANCERS_PERMILLE),
                ..Load::draw(rng, world, partitions)
            },
            link: Link::draw(rng),
            disk: Disk::draw(rng),
            clock_drift_ppm_max: pick(rng, &[0, 50, 500]),
            safety,
            strikes: draw_strikes(rng, nodes, partitions, safety),
            left_behind: Vec::new(),
        }
        .with_deaths_in_writes()
        .with_lost_disks()
        .with_some_left_behind()
    }

    /// Keeps a minority out of the liveness phase, in some universes. Drawn apart.
    fn with_some_left_behind(mut self) -> Self {
        let rng = &mut stream(self.seed, "left behind");
        let is_safe = self.replication_factor >= 3;
        if !is_safe || !chance(rng, 400) {
            return self;
        }
        // With fewer replicas than nodes, two absent nodes may be the majority of a partition.
        let count = if self.replication_factor == 5 { rng.random_range(1..=2) } else { 1 };
        let first = rng.random_range(0..self.nodes);
        for index in 0..count {
            let node = NodeId::new((first + index) % self.nodes + 1);
            let victim = Victim::Node(node);
            let isolated = Fault::Isolate(victim, Reach::NodesAndClients);
            let (mute, deaf) = (Fault::Mute(victim), Fault::Deafen(victim));
            let faults = [Fault::Crash(victim), isolated, mute, deaf, Fault::HangDisk(victim)];
            self.left_behind.push((node, pick(rng, &faults)));
        }
        self
    }

    /// Adds lost disks, in some universes of the fast world. Drawn apart.
    fn with_lost_disks(mut self) -> Self {
        let rng = &mut stream(self.seed, "lost disks");
        let is_possible = self.world == World::Fast && self.replication_factor >= 3;
        if !chance(rng, 300) || !is_possible {
            return self;
        }
        let pause_max = Duration::from_millis(pick(rng, &[3_000, 10_000]));
        let mut at = duration_between(rng, Duration::from_millis(500), pause_max);
        while at < self.safety {
            let victim = draw_victim(rng, self.nodes, self.partitions);
            let lasts = duration_between(rng, Duration::from_millis(5), Duration::from_millis(3_000));
            self.strikes.push(Strike { at, lasts, fault: Fault::LoseDisk(victim) });
            at += lasts + duration_between(rng, Duration::from_millis(20), pause_max);
        }
        self.strikes.sort_by_key(|strike| strike.at);
        self
    }

    /// Adds deaths in the middle of writes, in some universes. Drawn apart, like whether somebody tinkers.
    fn with_deaths_in_writes(mut self) -> Self {
        let rng = &mut stream(self.seed, "deaths in writes");
        if !chance(rng, 400) {
            return self;
        }
        let pause_max = Duration::from_millis(pick(rng, &[1_000, 5_000]));
        let rounds_max = pick(rng, &[3, 30]);
        let mut at = duration_between(rng, Duration::ZERO, pause_max);
        while at < self.safety {
            let victim = draw_victim(rng, self.nodes, self.partitions);
            let rounds = rng.random_range(0..=rounds_max);
            let death = pick(rng, &[Death::Process, Death::Computer, Death::Computer, Death::Everybody]);
            let lasts = duration_between(rng, Duration::from_millis(5), Duration::from_millis(1_000));
            self.strikes.push(Strike { at, lasts, fault: Fault::DieInWrites { victim, rounds, death } });
            at += lasts + duration_between(rng, Duration::from_millis(20), pause_max);
        }
        self.strikes.sort_by_key(|strike| strike.at);
        self
    }

    /// The longest the cluster may take, once the faults are over, until everything works again: connections have to
    /// time out and be made anew, and every group may need several view changes, each longer than the one before.
    #[must_use]
    pub fn recovery_max(&self) -> Duration {
        2 * self.link.idle_timeout + Duration::from_secs(20)
    }

    /// The scenario in a few words.
    #[must_use]
    pub fn summary(&self) -> String {
        let Self {
            nodes,
            partitions,
            replication_factor,
            durability,
            load,
            link,
            disk,
            safety,
            strikes,
            left_behind,
            ..
        } = self;
        format!(
            "{nodes} nodes, {partitions} partitions x {replication_factor}, {durability}, {} strikes in {safety:?}, then without \
             {left_behind:?}, {load:?}, {link:?}, {disk:?}",
            strikes.len()
        )
    }

    /// All nodes.
    pub fn node_ids(&self) -> impl Iterator<Item = NodeId> + use<> {
        (1..=self.nodes).map(NodeId::new)
    }
}

impl Load {
    fn draw(rng: &mut ChaCha8Rng, world: World, partitions: u32) -> Self {
        let think_us: u64 = match world {
            World::Fast => pick(rng, &[500, 2_000, 10_000, 50_000]),
            World::Quic => pick(rng, &[5_000, 20_000, 50_000]),
        };
        let mut load = Self {
            producers: rng.random_range(1..=3),
            amnesiacs: rng.random_range(0..=1),
            readers: rng.random_range(1..=2),
            window: pick(rng, &[1, 2, 8, 32]),
            batch_records_max: pick(rng, &[1, 4, 32]),
            payload_bytes_max: pick(rng, &[32, 256, 2048]),
            think: Duration::from_micros(think_us),
            patience: Duration::from_millis(pick(rng, &[200, 500, 1500])),
            tinkers: false,
            balances: false,
            retention: Retention::FOREVER,
        };
        load.think = load.think.max(load.think_min(partitions));
        load
    }

    /// The pause that keeps all producers together below a few hundred thousand bytes and a few hundred appends per
    /// second: more of the same finds nothing more, and takes long.
    fn think_min(&self, partitions: u32) -> Duration {
        let lanes = u64::from(self.producers + self.amnesiacs) * u64::from(partitions);
        let append_bytes = u64::from(self.batch_records_max) * u64::from(self.payload_bytes_max) / 4;
        Duration::from_micros(lanes * append_bytes * 2 + lanes * 1_000)
    }
}

impl Link {
    fn draw(rng: &mut ChaCha8Rng) -> Self {
        let permilles = |rng: &mut ChaCha8Rng, choices: &[u32]| pick(rng, choices);
        Self {
            latency: Duration::from_micros(pick(rng, &[50, 100, 500, 2_000, 10_000])),
            latency_tail: Duration::from_micros(pick(rng, &[0, 100, 1_000, 5_000])),
            bandwidth: pick(rng, &[5, 50, 500, 5_000]) * 1_000_000,
            reset_every: Duration::from_millis(pick(rng, &[0, 0, 1_000, 5_000])),
            idle_timeout: Duration::from_millis(pick(rng, &[1_000, 2_000, 3_000])),
            loss_permille: permilles(rng, &[0, 0, 2, 10, 50]),
            duplicate_permille: permilles(rng, &[0, 0, 10, 50]),
            reorder_permille: permilles(rng, &[0, 0, 20, 100]),
        }
    }
}

impl Disk {
    fn draw(rng: &mut ChaCha8Rng) -> Self {
        Self {
            latency: Duration::from_micros(pick(rng, &[20, 100, 500, 4_000])),
            spike_permille: pick(rng, &[0, 0, 1, 20]),
            spike_max: Duration::from_millis(pick(rng, &[10, 200, 2_000])),
        }
    }
}

impl Weather {
    fn draw(rng: &mut ChaCha8Rng) -> Self {
        Self {
            network: chance(rng, 600),
            one_way: chance(rng, 400),
            crash: chance(rng, 600),
            power: chance(rng, 200),
            pause: chance(rng, 300),
            small: chance(rng, 300),
        }
    }

    /// A fault of a kind that this weather knows; `None` if it knows none.
    fn draw_fault(&self, rng: &mut ChaCha8Rng, nodes: u8, partitions: u32) -> Option<Fault> {
        let victim = draw_victim(rng, nodes, partitions);
        let mut choices = Vec::new();
        if self.network && nodes > 1 {
            let reach = pick(rng, &[Reach::Nodes, Reach::NodesAndClients]);
            let mask = rng.random_range(1..(1_u32 << nodes) - 1);
            choices.extend([Fault::Isolate(victim, reach), Fault::Isolate(victim, reach)]);
            choices.push(Fault::Halves { mask });
            choices.extend((nodes > 3).then_some(Fault::Ring));
        }
        if self.one_way && nodes > 1 {
            let from = rng.random_range(1..=nodes);
            let to = (from + rng.random_range(1..nodes) - 1) % nodes + 1;
            choices.push(Fault::OneWay { from: NodeId::new(from), to: NodeId::new(to) });
            choices.extend([Fault::Mute(victim), Fault::Deafen(victim)]);
        }
        if self.crash {
            choices.extend([Fault::Kill(victim), Fault::Crash(victim)]);
        }
        if self.power {
            choices.push(Fault::PowerFailure);
        }
        if self.pause {
            choices.push(Fault::Pause(victim));
        }
        if self.small {
            let by_ms = rng.random_range(-60_000..=60_000);
            choices.extend([Fault::SlowDisk(victim), Fault::JumpClock { victim, by_ms }]);
            choices.extend((nodes > 1).then_some(Fault::ResetConnections));
        }
        (!choices.is_empty()).then(|| pick(rng, &choices))
    }
}

fn draw_victim(rng: &mut ChaCha8Rng, nodes: u8, partitions: u32) -> Victim {
    if chance(rng, 500) {
        Victim::Node(NodeId::new(rng.random_range(1..=nodes)))
    } else {
        Victim::Primary(rng.random_range(0..=partitions))
    }
}

fn draw_strikes(rng: &mut ChaCha8Rng, nodes: u8, partitions: u32, safety: Duration) -> Vec<Strike> {
    let weather = Weather::draw(rng);
    let pause_max = Duration::from_millis(pick(rng, &[300, 2_000, 10_000]));
    let lasts_max = Duration::from_millis(pick(rng, &[50, 500, 3_000, 10_000]));
    let may_overlap = chance(rng, 400);
    let mut strikes = Vec::new();
    let mut at = duration_between(rng, Duration::ZERO, Duration::from_secs(2));
    while at < safety {
        let Some(fault) = weather.draw_fault(rng, nodes, partitions) else { break };
        let lasts = duration_between(rng, Duration::from_millis(5), lasts_max).min(safety - at);
        strikes.push(Strike { at, lasts, fault });
        // Where faults overlap there is still some time on the whole in which the cluster can work.
        at += if may_overlap { lasts / 2 } else { lasts };
        at += duration_between(rng, Duration::from_millis(20), pause_max);
    }
    strikes
}

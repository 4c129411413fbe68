//! How a seed draws a scenario.

use std::time::Duration;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use varve_protocol::compression::Compression;
use varve_protocol::durability::Durability;
use varve_protocol::id::NodeId;
use varve_protocol::retention::Retention;
use varve_replica::{METADATA_BYTES_KEPT, Timing};

use super::fault::{Death, Fault, Reach, Strike, Victim};
use super::profile::{Kind, Profile};
use super::weather::{draw_strikes, draw_victim};
use super::{Disk, LeftBehind, Link, Load, Rot, Scenario, World, lane_bytes_default};
use crate::random::{chance, duration_between, pick, stream};

/// Universes in which somebody changes the metadata all the time, in a thousand.
const TINKERERS_PERMILLE: u32 = 400;

/// Universes in which somebody has primaries moved all the time, in a thousand.
const BALANCERS_PERMILLE: u32 = 400;

/// Universes in which somebody has replicas moved all the time, in a thousand of those in which that is possible.
const MOVERS_PERMILLE: u32 = 500;

/// Universes in which records are not kept for ever, in a thousand.
const BOUNDED_PERMILLE: u32 = 300;

/// Stops after which a disk has forgotten something, in a thousand; in most universes none.
const ROT_CRASHES_PERMILLE: [u32; 5] = [0, 0, 0, 300, 800];

/// Logs of a node that are harmed at once, in a thousand.
const ROT_GROUPS_PERMILLE: [u32; 3] = [150, 500, 1000];

/// Universes in which disks get full, in a thousand.
const FULL_PERMILLE: u32 = 300;

/// Universes in which disks forget while their nodes run, in a thousand of those in which that is possible.
const ROT_IN_USE_PERMILLE: u32 = 400;

/// Universes of the fast world that know blackouts, in a thousand: of those whose topic acknowledges from memory, and of the
/// others, which know power failures anyway.
const BLACKOUTS_PERMILLE: [u32; 2] = [500, 100];

/// Universes of the fast world with seven nodes, in a thousand.
const MANY_NODES_PERMILLE: u32 = 80;

/// Universes that leave somebody behind, in a thousand of those with a minority that can be.
const LEFT_BEHIND_PERMILLE: u32 = 400;

/// Universes in which disks are lost with all that is on them, in a thousand.
const LOST_DISKS_PERMILLE: u32 = 300;

/// Universes in which nodes die in the middle of writes, in a thousand.
const DEATHS_IN_WRITES_PERMILLE: u32 = 400;

/// Universes of the profile that goes beyond what is promised in which the metadata keep a majority, in a thousand.
const METADATA_SPARED_PERMILLE: u32 = 800;

/// Universes whose topic acknowledges from memory, in a thousand.
const FROM_MEMORY_PERMILLE: u32 = 300;

/// Bytes of the lanes of some universes of the QUIC world, of which most hold more than is ever on its way.
const LANE_BYTES_SMALL: usize = 16 << 10;

/// How topics are compressed; in most universes not at all.
const COMPRESSIONS: [Compression; 5] =
    [Compression::None, Compression::None, Compression::None, Compression::Lz4, Compression::Zstd];

/// The clockwork of the nodes of a universe: primaries are restored sooner than in real clusters, or never.
#[must_use]
pub fn timing(seed: u64) -> Timing {
    let rng = &mut stream(seed, "timing");
    let restore_primaries_after = Duration::from_millis(pick(rng, &[0, 300, 1000, 3000]));
    let is_bounded = retention(seed).is_bounded() || is_metadata_summed_up(seed);
    let retention_check = Duration::from_millis(if is_bounded { 200 } else { 10_000 });
    let mut timing = Timing { restore_primaries_after, retention_check, ..Timing::default() };
    let rng = &mut stream(seed, "memory timing");
    timing.consensus.memory_sync = Duration::from_millis(pick(rng, &[5, 30, 100, 1000]));
    timing.consensus.memory_rest = Duration::from_millis(pick(rng, &[20, 200, 2000]));
    let rng = &mut stream(seed, "scrub timing");
    timing.scrub_bytes_per_second = pick(rng, &[20_000_000, 100_000_000]);
    timing.scrub_pass_every = Duration::from_millis(pick(rng, &[200, 500, 2_000]));
    timing.catch_up_bytes_per_second = pick(&mut stream(seed, "catching up"), &[0, 0, 2_000_000, 10_000_000]);
    timing
}

/// Nodes and replicas: of the fast world sometimes more than usual. Drawn apart.
fn draw_many((seed, world): (u64, World), usual: (u8, u8)) -> (u8, u8) {
    let rng = &mut stream(seed, "many nodes");
    let are_many = chance(rng, MANY_NODES_PERMILLE) && world == World::Fast;
    if are_many { (7, pick(rng, &[7, 7, 5, 3])) } else { usual }
}

/// Drawn apart. A single replica has no minority that it could lose.
fn draw_durability((profile, seed): (Profile, u64), replication_factor: u8) -> Durability {
    let share = profile.permille(Kind::FromMemory, FROM_MEMORY_PERMILLE);
    let is_from_memory = chance(&mut stream(seed, "durability"), share);
    if is_from_memory && replication_factor >= 3 { Durability::QuorumMemory } else { Durability::QuorumDisk }
}

/// Drawn apart. A group of fewer than three replicas has no majority of others to learn from.
fn draw_rot((profile, seed): (Profile, u64), replication_factor: u8) -> Rot {
    let rot = Rot::draw(&mut stream(seed, "rot"));
    let crashes_permille = profile.crashes_with_rot_permille(rot.crashes_permille);
    if replication_factor >= 3 && crashes_permille > 0 { Rot { crashes_permille, ..rot } } else { Rot::NONE }
}

/// How much is kept of the log of the metadata: little, so that it is let go often. Drawn apart.
#[must_use]
pub fn metadata_bytes_kept(seed: u64) -> u64 {
    pick(&mut stream(seed, "metadata kept"), &[0, 0, 10_000, METADATA_BYTES_KEPT])
}

/// Whether so little of it is kept that something is let go in a universe's time.
#[must_use]
pub fn is_metadata_summed_up(seed: u64) -> bool {
    metadata_bytes_kept(seed) < METADATA_BYTES_KEPT
}

/// Whether the metadata keep a majority where more is harmed than is promised to be survived: else little works that could be
/// wrong. Drawn apart.
#[must_use]
pub fn is_metadata_spared(seed: u64) -> bool {
    chance(&mut stream(seed, "metadata spared"), METADATA_SPARED_PERMILLE)
}

/// In one universe of four a backup misses what it is too slow for. Drawn apart.
fn draw_lane_bytes(seed: u64) -> usize {
    let default = lane_bytes_default();
    pick(&mut stream(seed, "lanes"), &[default, default, default, LANE_BYTES_SMALL])
}

/// A path that corrupts packets, or gets narrower, in some universes. Drawn apart. The least that QUIC needs gets through.
fn draw_path(seed: u64, link: Link) -> Link {
    let rng = &mut stream(seed, "path");
    let corrupt_permille = pick(rng, &[0, 0, 0, 2, 20]);
    let narrows_to = pick(rng, &[None, None, None, Some(1_400), Some(1_200)]);
    Link { corrupt_permille, narrows_to, ..link }
}

/// How long the records of a universe are kept. Drawn apart.
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

impl Scenario {
    /// The scenario of `seed` in `world`.
    #[must_use]
    pub fn draw(seed: u64, world: World) -> Self {
        Self::draw_as(Profile::Swarm, seed, world)
    }

    /// The scenario of `seed` in `world`, as a profile bends it.
    #[must_use]
    pub fn draw_as(profile: Profile, seed: u64, world: World) -> Self {
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
        let safety = profile.safety(Duration::from_secs(safety_s));
        let partitions = pick(rng, &[1, 1, 2, 3, 6]);
        let size = draw_many((seed, world), (nodes, pick(rng, factors)));
        let (nodes, replication_factor) = profile.size(size);
        let share = |kind, permille| profile.permille(kind, permille);
        Self {
            seed,
            world,
            profile,
            nodes,
            partitions,
            replication_factor,
            durability: draw_durability((profile, seed), replication_factor),
            load: Load {
                retention: retention(seed),
                tinkers: chance(&mut stream(seed, "tinkers"), share(Kind::Tinkering, TINKERERS_PERMILLE)),
                compression: pick(&mut stream(seed, "compression"), &COMPRESSIONS),
                balances: chance(&mut stream(seed, "balances"), share(Kind::Balancing, BALANCERS_PERMILLE)),
                ..Load::draw(rng, world, partitions)
            },
            link: profile
                .link(draw_path(seed, Link { lane_bytes_max: draw_lane_bytes(seed), ..Link::draw(rng) })),
            disk: profile.disk(Disk::draw(rng)),
            clock_drift_ppm_max: pick(rng, &[0, 50, 500]),
            safety,
            strikes: draw_strikes(rng, profile, (nodes, partitions), safety),
            left_behind: Vec::new(),
            rot: draw_rot((profile, seed), replication_factor),
            rollouts: Vec::new(),
        }
        .with_deaths_in_writes()
        .with_lost_disks()
        .with_some_left_behind()
        .with_moves()
        .with_full_disks()
        .with_rot_in_use()
        .with_blackouts()
        .with_upgrades()
    }

    /// Lets everybody's power fail now and then, in some universes, whatever is acknowledged from memory. Drawn apart.
    fn with_blackouts(mut self) -> Self {
        let rng = &mut stream(self.seed, "blackouts");
        let share = BLACKOUTS_PERMILLE[usize::from(self.durability != Durability::QuorumMemory)];
        let share = self.profile.permille(Kind::Blackouts, share);
        if self.world != World::Fast || !chance(rng, share) {
            return self;
        }
        let pause_max = Duration::from_millis(pick(rng, &[1_000, 10_000, 30_000]));
        let lasts_max = Duration::from_millis(pick(rng, &[30, 500, 3_000]));
        let mut at = duration_between(rng, Duration::from_millis(500), pause_max);
        while at < self.safety {
            let lasts = duration_between(rng, Duration::from_millis(5), lasts_max);
            self.strikes.push(Strike { at, lasts, fault: Fault::Blackout });
            at += lasts + duration_between(rng, Duration::from_millis(20), pause_max);
        }
        self.strikes.sort_by_key(|strike| strike.at);
        self
    }

    /// Lets disks forget while their nodes run, in some universes. Drawn apart.
    fn with_rot_in_use(mut self) -> Self {
        let rng = &mut stream(self.seed, "rot in use");
        let is_possible = self.replication_factor >= 3 && !self.load.moves;
        if !is_possible || !chance(rng, self.profile.permille(Kind::RotInUse, ROT_IN_USE_PERMILLE)) {
            return self;
        }
        let pause_max = Duration::from_millis(pick(rng, &[500, 3_000]));
        let mut at = duration_between(rng, Duration::from_millis(500), Duration::from_millis(3_000));
        while at < self.safety {
            let fault = Fault::RotDisk(draw_victim(rng, self.nodes, self.partitions));
            self.strikes.push(Strike { at, lasts: Duration::ZERO, fault });
            at += duration_between(rng, Duration::from_millis(20), pause_max);
        }
        self.strikes.sort_by_key(|strike| strike.at);
        self
    }

    /// Fills disks now and then, of a minority at a time, in some universes; sometimes one of those that are left behind. Drawn
    /// apart.
    fn with_full_disks(mut self) -> Self {
        let rng = &mut stream(self.seed, "full disks");
        if !chance(rng, self.profile.permille(Kind::FullDisks, FULL_PERMILLE)) {
            return self;
        }
        let pause_max = Duration::from_millis(pick(rng, &[1_000, 5_000]));
        let lasts_max = Duration::from_millis(pick(rng, &[300, 3_000, 10_000]));
        let mut at = duration_between(rng, Duration::ZERO, pause_max);
        while at < self.safety {
            let victim = draw_victim(rng, self.nodes, self.partitions);
            let lasts = duration_between(rng, Duration::from_millis(5), lasts_max);
            self.strikes.push(Strike { at, lasts, fault: Fault::FillDisk { victim, room: draw_room(rng) } });
            at += lasts + duration_between(rng, Duration::from_millis(20), pause_max);
        }
        self.strikes.sort_by_key(|strike| strike.at);
        for LeftBehind { node, fault } in &mut self.left_behind {
            if rng.random_bool(0.5) {
                *fault = Fault::FillDisk { victim: Victim::Node(*node), room: draw_room(rng) };
            }
        }
        self
    }

    /// Has replicas moved, in some universes with nodes to spare. Drawn apart.
    fn with_moves(mut self) -> Self {
        let is_possible = self.replication_factor >= 3 && self.replication_factor < self.nodes;
        if is_possible
            && chance(&mut stream(self.seed, "moves"), self.profile.permille(Kind::Moves, MOVERS_PERMILLE))
        {
            self.load.moves = true;
            self.durability = Durability::QuorumDisk;
            self.left_behind.clear();
            self.rot = Rot::NONE;
            self.strikes.retain(|strike| !matches!(strike.fault, Fault::LoseDisk(_)));
        }
        self
    }

    /// Keeps a minority out of the liveness phase, in some universes. Drawn apart.
    fn with_some_left_behind(mut self) -> Self {
        let rng = &mut stream(self.seed, "left behind");
        let is_safe = self.replication_factor >= 3;
        if !is_safe || !chance(rng, self.profile.permille(Kind::LeftBehind, LEFT_BEHIND_PERMILLE)) {
            return self;
        }
        // With fewer replicas than nodes, two absent nodes may be the majority of a partition.
        let count = match self.replication_factor {
            7 => rng.random_range(1..=3),
            5 => rng.random_range(1..=2),
            _ => 1,
        };
        let first = rng.random_range(0..self.nodes);
        for index in 0..count {
            let node = NodeId::new((first + index) % self.nodes + 1);
            let victim = Victim::Node(node);
            let isolated = Fault::Isolate(victim, Reach::NodesAndClients);
            let (mute, deaf) = (Fault::Mute(victim), Fault::Deafen(victim));
            let faults = [Fault::Crash(victim), isolated, mute, deaf, Fault::HangDisk(victim)];
            self.left_behind.push(LeftBehind { node, fault: pick(rng, &faults) });
        }
        self
    }

    /// Adds lost disks, in some universes. Drawn apart.
    fn with_lost_disks(mut self) -> Self {
        let rng = &mut stream(self.seed, "lost disks");
        if !chance(rng, self.profile.permille(Kind::LostDisks, LOST_DISKS_PERMILLE))
            || self.replication_factor < 3
        {
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
        if !chance(rng, self.profile.permille(Kind::DeathsInWrites, DEATHS_IN_WRITES_PERMILLE)) {
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
}

fn draw_room(rng: &mut ChaCha8Rng) -> u64 {
    let most = pick(rng, &[0, 100, 5_000, 100_000]);
    rng.random_range(0..=most)
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
            moves: false,
            retention: Retention::FOREVER,
            compression: Compression::None,
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

impl Rot {
    /// The first that the stream `rot` of a seed brings.
    pub(crate) fn draw(rng: &mut ChaCha8Rng) -> Self {
        let crashes_permille = pick(rng, &ROT_CRASHES_PERMILLE);
        let groups_permille = pick(rng, &ROT_GROUPS_PERMILLE);
        Self { crashes_permille, groups_permille }
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
            corrupt_permille: 0,
            narrows_to: None,
            lane_bytes_max: lane_bytes_default(),
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

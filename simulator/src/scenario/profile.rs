//! Profiles: universes that are about one kind of misfortune.
//!
//! The swarm switches every kind on or off. A profile raises one kind to always, and leaves all others as the swarm draws them, so
//! that what needs much of the one kind is met often. Two are different: *calm* knows no misfortune, and *beyond* knows more
//! than a cluster is promised to survive. There nothing but this holds: what is served is right, and what is not served is told
//! to be ill.

use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::{Disk, Link, World, lane_bytes_default};

/// Stops after which a disk has forgotten something, in a thousand, in universes that are about that.
const ROT_CRASHES_PERMILLE_MIN: u32 = 300;

/// The least time that faults strike: a cluster has to be founded, and a topic made.
const SAFETY_MIN: Duration = Duration::from_secs(2);

/// What a universe is mostly about.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// Each kind of misfortune now and then, rare combinations included.
    #[default]
    Swarm,
    /// The same for a fifth of the time: more combinations, of what does not take long.
    Short,
    /// Nothing goes wrong.
    Calm,
    /// The network is cut in two, in one direction or around a node, again and again.
    Network,
    /// Processes and computers stop, all at once too, in the middle of writes too, and processes freeze.
    Crashes,
    /// Disks forget, are lost, get full, slow and stuck; what a minority remembers is enough.
    Disks,
    /// The topic acknowledges from memory, and everybody's power fails.
    Memory,
    /// Replicas are moved all the time, and so are primaries.
    Moves,
    /// Nodes of two releases work together, while one after the other is started with the newer one, or goes back.
    Upgrades,
    /// Disks of a majority are lost and forget: more than is promised to be survived. A group may be unavailable then, and says so;
    /// it is never wrong. Fast world only.
    Beyond,
}

/// What a seed switches on or off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Network,
    OneWay,
    Crashes,
    Power,
    Pauses,
    Small,
    DeathsInWrites,
    LostDisks,
    LeftBehind,
    FullDisks,
    Rot,
    RotInUse,
    Blackouts,
    FromMemory,
    Moves,
    Balancing,
    Tinkering,
    Upgrades,
}

impl Kind {
    /// Whether it is a misfortune, and not something that people do or want.
    fn is_misfortune(self) -> bool {
        !matches!(self, Self::FromMemory | Self::Moves | Self::Balancing | Self::Tinkering)
    }
}

impl Profile {
    /// The kinds that every universe knows.
    fn raised(self) -> &'static [Kind] {
        match self {
            Self::Swarm | Self::Short | Self::Calm => &[],
            Self::Network => &[Kind::Network, Kind::OneWay],
            Self::Crashes => &[Kind::Crashes, Kind::Power, Kind::Pauses, Kind::DeathsInWrites],
            Self::Disks => {
                &[Kind::Rot, Kind::RotInUse, Kind::LostDisks, Kind::FullDisks, Kind::Small, Kind::Crashes]
            }
            Self::Memory => &[Kind::FromMemory, Kind::Blackouts],
            Self::Moves => &[Kind::Moves, Kind::Balancing],
            Self::Upgrades => &[Kind::Upgrades, Kind::Tinkering],
            Self::Beyond => &[Kind::Rot, Kind::RotInUse, Kind::LostDisks, Kind::Crashes],
        }
    }

    /// The kinds that would take away what it is about, or that it promises nothing of.
    fn excluded(self) -> &'static [Kind] {
        match self {
            Self::Swarm
            | Self::Short
            | Self::Calm
            | Self::Network
            | Self::Crashes
            | Self::Moves
            | Self::Upgrades => &[],
            Self::Disks | Self::Memory => &[Kind::Moves],
            Self::Beyond => {
                &[Kind::Moves, Kind::FromMemory, Kind::Blackouts, Kind::LeftBehind, Kind::Upgrades]
            }
        }
    }

    /// Universes that know a kind, in a thousand, where the swarm has so many.
    pub(super) fn permille(self, kind: Kind, swarm: u32) -> u32 {
        if self.raised().contains(&kind) {
            return 1_000;
        }
        let is_none = self.excluded().contains(&kind) || (self == Self::Calm && kind.is_misfortune());
        if is_none { 0 } else { swarm }
    }

    /// Stops after which a disk has forgotten something, in a thousand, where the swarm has so many.
    pub(super) fn crashes_with_rot_permille(self, swarm: u32) -> u32 {
        match self.permille(Kind::Rot, swarm) {
            raised if raised > swarm => swarm.max(ROT_CRASHES_PERMILLE_MIN),
            kept => kept,
        }
    }

    /// Nodes and replicas, where the swarm has so many: enough of them for what it is about.
    pub(super) fn size(self, (nodes, replication_factor): (u8, u8)) -> (u8, u8) {
        match self {
            Self::Swarm | Self::Short | Self::Calm => (nodes, replication_factor),
            Self::Moves => (5, 3),
            Self::Network | Self::Crashes | Self::Disks | Self::Memory | Self::Upgrades | Self::Beyond => {
                (nodes.max(3), replication_factor.max(3))
            }
        }
    }

    /// How long faults strike, where they do for so long in the swarm.
    pub(super) fn safety(self, swarm: Duration) -> Duration {
        if self == Self::Short { (swarm / 5).max(SAFETY_MIN) } else { swarm }
    }

    /// The network between any two.
    pub(super) fn link(self, link: Link) -> Link {
        let still = Link {
            reset_every: Duration::ZERO,
            loss_permille: 0,
            duplicate_permille: 0,
            reorder_permille: 0,
            corrupt_permille: 0,
            narrows_to: None,
            lane_bytes_max: lane_bytes_default(),
            ..link.clone()
        };
        if self == Self::Calm { still } else { link }
    }

    /// The disks.
    pub(super) fn disk(self, disk: Disk) -> Disk {
        if self == Self::Calm { Disk { spike_permille: 0, ..disk } } else { disk }
    }

    /// Whether it can be played in a world.
    #[must_use]
    pub fn fits(self, world: World) -> bool {
        self != Self::Beyond || world == World::Fast
    }

    /// What the command line needs to draw the same; nothing for the default.
    #[must_use]
    pub fn argument(self) -> String {
        let value = self.to_possible_value();
        let name = value.as_ref().map_or("", |value| value.get_name());
        if self == Self::Swarm { String::new() } else { format!(" --profile {name}") }
    }
}

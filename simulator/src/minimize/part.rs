//! What can be taken from a scenario: whole kinds of faults, single faults, nodes, clients, work and time.
//!
//! A [`Part`] is there or not, and any set of parts can be taken away at once. A [`Shrink`] makes one number smaller, again and
//! again as long as it fails.

use std::collections::BTreeSet;
use std::time::Duration;

use varve_protocol::compression::Compression;
use varve_protocol::durability::Durability;
use varve_protocol::id::NodeId;
use varve_protocol::retention::Retention;

use crate::scenario::{Fault, Rot, Scenario, Strike};

/// The longest that a producer is made to think between two appends.
const THINK_MAX: Duration = Duration::from_secs(1);

/// Spans below this are not worth a try.
const INSTANT: Duration = Duration::from_millis(1);

/// Something that a scenario can do without.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// All faults of this kind.
    Strikes(&'static str),
    /// Keeping this node out after the faults.
    LeftBehind(NodeId),
    /// Disks that forget.
    Rot,
    /// A second release.
    Rollouts,
    /// Connections that break without a cause.
    Resets,
    /// Latency beyond the least there is.
    LatencyTail,
    /// Lost, doubled, overtaken, corrupted and too large packets.
    Packets,
    /// Clocks that run fast or slow.
    Drift,
    /// Rounds of writes that take much longer.
    DiskSpikes,
    /// Records that are not kept for ever.
    Retention,
    /// Records that are compressed, and have headers.
    Compression,
    /// Acknowledging from memory.
    Memory,
    /// Who changes the metadata all the time.
    Tinkerer,
    /// Who moves primaries all the time.
    Balancer,
    /// Who moves replicas all the time.
    Mover,
    /// Producers without a session.
    Amnesiacs,
    /// Consumers.
    Readers,
}

impl Part {
    /// All parts that a scenario has.
    #[must_use]
    pub fn all_of(scenario: &Scenario) -> Vec<Self> {
        let Scenario { load, link, disk, .. } = scenario;
        let kinds: BTreeSet<&str> = scenario.strikes.iter().map(|strike| strike.fault.name()).collect();
        let left_behind = scenario.left_behind.iter().map(|left| Self::LeftBehind(left.node));
        let packets =
            link.loss_permille + link.duplicate_permille + link.reorder_permille + link.corrupt_permille;
        let others = [
            (Self::Rot, scenario.rot != Rot::NONE),
            (Self::Rollouts, !scenario.rollouts.is_empty()),
            (Self::Resets, !link.reset_every.is_zero()),
            (Self::LatencyTail, !link.latency_tail.is_zero()),
            (Self::Packets, packets > 0 || link.narrows_to.is_some()),
            (Self::Drift, scenario.clock_drift_ppm_max > 0),
            (Self::DiskSpikes, disk.spike_permille > 0),
            (Self::Retention, load.retention.is_bounded()),
            (Self::Compression, load.compression != Compression::None),
            (Self::Memory, scenario.durability == Durability::QuorumMemory),
            (Self::Tinkerer, load.tinkers),
            (Self::Balancer, load.balances),
            (Self::Mover, load.moves),
            (Self::Amnesiacs, load.amnesiacs > 0),
            (Self::Readers, load.readers > 0),
        ];
        let others = others.into_iter().filter_map(|(part, is_there)| is_there.then_some(part));
        kinds.into_iter().map(Self::Strikes).chain(left_behind).chain(others).collect()
    }

    /// The scenario without this part.
    fn take_from(self, scenario: &mut Scenario) {
        let Scenario { load, link, disk, .. } = scenario;
        match self {
            Self::Strikes(kind) => scenario.strikes.retain(|strike| strike.fault.name() != kind),
            Self::LeftBehind(node) => scenario.left_behind.retain(|left| left.node != node),
            Self::Rot => scenario.rot = Rot::NONE,
            Self::Rollouts => scenario.rollouts.clear(),
            Self::Resets => link.reset_every = Duration::ZERO,
            Self::LatencyTail => link.latency_tail = Duration::ZERO,
            Self::Packets => {
                (link.loss_permille, link.duplicate_permille, link.reorder_permille) = (0, 0, 0);
                (link.corrupt_permille, link.narrows_to) = (0, None);
            }
            Self::Drift => scenario.clock_drift_ppm_max = 0,
            Self::DiskSpikes => disk.spike_permille = 0,
            Self::Retention => load.retention = Retention::FOREVER,
            Self::Compression => load.compression = Compression::None,
            Self::Memory => scenario.durability = Durability::QuorumDisk,
            Self::Tinkerer => load.tinkers = false,
            Self::Balancer => load.balances = false,
            Self::Mover => load.moves = false,
            Self::Amnesiacs => load.amnesiacs = 0,
            Self::Readers => load.readers = 0,
        }
    }

    /// A scenario with none of its parts but these.
    #[must_use]
    pub fn keep(scenario: &Scenario, kept: &[Self]) -> Scenario {
        let mut left = scenario.clone();
        for part in Self::all_of(scenario) {
            if !kept.contains(&part) {
                part.take_from(&mut left);
            }
        }
        left
    }
}

/// A scenario with none of its strikes but these, which are numbered from 0.
#[must_use]
pub fn keep_strikes(scenario: &Scenario, kept: &[usize]) -> Scenario {
    let strikes = kept.iter().filter_map(|index| scenario.strikes.get(*index).copied()).collect();
    Scenario { strikes, ..scenario.clone() }
}

/// A way to make a scenario a little smaller.
pub type Shrink = fn(&Scenario) -> Option<Scenario>;

/// All of them, those that take the most away first. Each gives `None` where there is nothing more to take.
pub const SHRINKS: &[Shrink] = &[
    |scenario| with_nodes(scenario, 1),
    |scenario| with_nodes(scenario, 3),
    |scenario| with_partitions(scenario, 1),
    |scenario| with_partitions(scenario, scenario.partitions / 2),
    |scenario| lesser(scenario, |scenario| &mut scenario.load.producers, 1),
    |scenario| lesser(scenario, |scenario| &mut scenario.load.readers, 1),
    |scenario| lesser(scenario, |scenario| &mut scenario.load.window, 1),
    |scenario| lesser(scenario, |scenario| &mut scenario.load.batch_records_max, 1),
    |scenario| lesser(scenario, |scenario| &mut scenario.load.payload_bytes_max, 0),
    with_more_thought,
    |scenario| with_end(scenario, scenario.safety / 2),
    |scenario| with_end(scenario, scenario.safety * 3 / 4),
    in_half_the_time,
    with_shorter_strikes,
];

/// Faults end at `end`, and none begins from then on.
#[must_use]
pub fn with_end(scenario: &Scenario, end: Duration) -> Option<Scenario> {
    let strikes: Vec<Strike> = scenario.strikes.iter().filter(|strike| strike.at < end).copied().collect();
    let is_less = end < scenario.safety && end >= INSTANT;
    is_less.then(|| Scenario { safety: end, strikes, ..scenario.clone() })
}

/// Nodes beyond the first `nodes`, and what is to happen to them, are gone.
#[must_use]
pub fn with_nodes(scenario: &Scenario, nodes: u8) -> Option<Scenario> {
    if nodes == 0 || nodes >= scenario.nodes {
        return None;
    }
    let mut left = scenario.clone();
    left.nodes = nodes;
    left.replication_factor = scenario.replication_factor.min(nodes);
    for strike in &mut left.strikes {
        if let Fault::Halves { mask } = &mut strike.fault {
            *mask &= (1 << nodes) - 1;
        }
    }
    let fits = |fault: Fault| fault.fits(nodes).is_ok();
    left.strikes.retain(|strike| fits(strike.fault));
    left.left_behind.retain(|behind| fits(behind.fault));
    left.rollouts.retain(|rollout| rollout.node.as_raw() <= nodes);
    // Fewer nodes may be too few for what befalls them.
    left.verify().is_ok().then_some(left)
}

fn with_partitions(scenario: &Scenario, partitions: u32) -> Option<Scenario> {
    let is_less = partitions >= 1 && partitions < scenario.partitions;
    is_less.then(|| Scenario { partitions, ..scenario.clone() })
}

fn lesser(scenario: &Scenario, number: fn(&mut Scenario) -> &mut u32, least: u32) -> Option<Scenario> {
    let mut left = scenario.clone();
    let number = number(&mut left);
    let is_less = *number > least;
    *number = least;
    is_less.then_some(left)
}

fn with_more_thought(scenario: &Scenario) -> Option<Scenario> {
    let mut left = scenario.clone();
    left.load.think = (4 * left.load.think).min(THINK_MAX);
    (left.load.think > scenario.load.think).then_some(left)
}

fn in_half_the_time(scenario: &Scenario) -> Option<Scenario> {
    let mut left = scenario.clone();
    left.safety /= 2;
    for strike in &mut left.strikes {
        strike.at /= 2;
    }
    (left.safety >= INSTANT).then_some(left)
}

fn with_shorter_strikes(scenario: &Scenario) -> Option<Scenario> {
    let mut left = scenario.clone();
    for strike in &mut left.strikes {
        strike.lasts = (strike.lasts / 2).max(INSTANT.min(strike.lasts));
    }
    (left != *scenario).then_some(left)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::World;

    fn scenarios() -> impl Iterator<Item = Scenario> {
        (0..500).map(|seed| Scenario::draw(seed, World::Fast))
    }

    #[test]
    fn every_part_can_be_taken_and_none_comes_back() {
        let mut seen = 0;
        for scenario in scenarios() {
            let parts = Part::all_of(&scenario);
            assert_eq!(Part::keep(&scenario, &parts), scenario);
            let bare = Part::keep(&scenario, &[]);
            assert_eq!((Part::all_of(&bare), bare.verify()), (Vec::new(), Ok(())));
            for part in parts {
                seen += 1;
                let alone = Part::keep(&scenario, &[part]);
                assert_eq!((Part::all_of(&alone), alone.verify()), (vec![part], Ok(())));
            }
        }
        assert!(seen > 2_000, "{seen} parts were tried");
    }

    #[test]
    fn every_shrink_ends_in_a_sound_scenario() {
        for scenario in scenarios() {
            for (index, shrink) in SHRINKS.iter().enumerate() {
                let mut left = scenario.clone();
                let mut steps = 0;
                while let Some(smaller) = shrink(&left) {
                    assert_eq!(smaller.verify(), Ok(()), "shrink {index} of seed {}", scenario.seed);
                    assert_ne!(smaller, left);
                    left = smaller;
                    steps += 1;
                    assert!(steps < 100, "shrink {index} of seed {} comes to an end", scenario.seed);
                }
            }
        }
    }

    #[test]
    fn a_strike_is_dropped_by_its_number() {
        let mut scenario = Scenario::draw(1, World::Fast);
        let strike = |second: u64| Strike {
            at: Duration::from_secs(second),
            lasts: INSTANT,
            fault: Fault::PowerFailure,
        };
        scenario.strikes = (0..5).map(strike).collect();
        scenario.safety = Duration::from_secs(5);
        assert_eq!(keep_strikes(&scenario, &[1, 4]).strikes, [strike(1), strike(4)]);
        let ended = with_end(&scenario, Duration::from_secs(2)).expect("it is shorter");
        assert_eq!((ended.strikes.len(), ended.safety), (2, Duration::from_secs(2)));
        assert_eq!(with_end(&scenario, Duration::from_secs(5)), None);
    }
}

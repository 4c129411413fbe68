//! How the misfortunes of a universe are drawn: which kinds it knows, and when they strike.

use std::time::Duration;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use varve_protocol::id::NodeId;

use super::fault::{Fault, Reach, Strike, Victim};
use super::profile::{Kind, Profile};
use crate::random::{chance, duration_between, pick};

/// Which kinds of faults a universe knows.
struct Weather {
    network: bool,
    one_way: bool,
    crash: bool,
    power: bool,
    pause: bool,
    small: bool,
}

impl Weather {
    fn draw(rng: &mut ChaCha8Rng, profile: Profile) -> Self {
        let mut is_known = |kind, permille| chance(rng, profile.permille(kind, permille));
        Self {
            network: is_known(Kind::Network, 600),
            one_way: is_known(Kind::OneWay, 400),
            crash: is_known(Kind::Crashes, 600),
            power: is_known(Kind::Power, 200),
            pause: is_known(Kind::Pauses, 300),
            small: is_known(Kind::Small, 300),
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
            choices.extend([Fault::SlowDisk(victim), Fault::HangDisk(victim)]);
            choices.push(Fault::JumpClock { victim, by_ms });
            choices.extend((nodes > 1).then_some(Fault::ResetConnections));
        }
        (!choices.is_empty()).then(|| pick(rng, &choices))
    }
}

pub(super) fn draw_victim(rng: &mut ChaCha8Rng, nodes: u8, partitions: u32) -> Victim {
    if chance(rng, 500) {
        Victim::Node(NodeId::new(rng.random_range(1..=nodes)))
    } else {
        Victim::Primary(rng.random_range(0..=partitions))
    }
}

pub(super) fn draw_strikes(
    rng: &mut ChaCha8Rng,
    profile: Profile,
    (nodes, partitions): (u8, u32),
    safety: Duration,
) -> Vec<Strike> {
    let weather = Weather::draw(rng, profile);
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

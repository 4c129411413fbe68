//! What the nodes say of the ways between them: how long a round trip takes, how their clocks go, how much goes through.
//!
//! The first two they know from the pulses that they exchange all the time. For the third each sends the others a little filler,
//! behind all else and at a bounded pace, one way after the other; so the answer is "as much as was sent", or less.

use std::collections::BTreeMap;
use std::time::Duration;

use varve_client::{Admin, ClientError};
use varve_protocol::client::{PeerDistance, PeerRate, Refusal};
use varve_protocol::id::NodeId;
use varve_protocol::metadata::NodeEntry;

use super::{Finding, TRIP_MS_MAX};

/// Clocks that differ by more than this are not set by NTP, or badly.
const CLOCKS_MS_MAX: f64 = 250.0;

/// Of what was sent, at least so much comes in the same time where the way carries it.
const SHARE_MIN: f64 = 0.7;

/// How long one waits for a node that measures already, and how often.
const BUSY: (Duration, u32) = (Duration::from_millis(300), 10);

/// What is said of each pair of nodes.
pub(super) async fn findings(admin: &Admin, nodes: &[NodeEntry]) -> Vec<Finding> {
    let mut told: BTreeMap<NodeId, Result<Vec<PeerDistance>, String>> = BTreeMap::new();
    for node in nodes {
        told.insert(node.node, admin.distances_of(node).await.map_err(|error| error.to_string()));
    }
    let mut findings = Vec::new();
    for (place, one) in nodes.iter().enumerate() {
        for other in &nodes[place + 1..] {
            findings.extend(judge_pair((one.node, other.node), &told));
        }
    }
    for from in nodes {
        for to in nodes.iter().filter(|to| to.node != from.node) {
            findings.push(judge_rate((from.node, to.node), measure(admin, from, to.node).await));
        }
    }
    findings
}

/// Asks again while somebody else has the node measure.
async fn measure(admin: &Admin, from: &NodeEntry, to: NodeId) -> Result<PeerRate, ClientError> {
    let (pause, tries) = BUSY;
    let mut rate = admin.measure_rate(from, to).await;
    for _ in 1..tries {
        if !matches!(rate, Err(ClientError::Refused(Refusal::Busy))) {
            break;
        }
        tokio::time::sleep(pause).await;
        rate = admin.measure_rate(from, to).await;
    }
    rate
}

/// A round trip and a pair of clocks, as the first of the two says, or the second if that one says nothing.
fn judge_pair(
    (one, other): (NodeId, NodeId),
    told: &BTreeMap<NodeId, Result<Vec<PeerDistance>, String>>,
) -> [Finding; 2] {
    let (trip, clocks) = (
        format!("round trip between nodes {} and {}", one.as_raw(), other.as_raw()),
        format!("clock of node {} beside that of node {}", other.as_raw(), one.as_raw()),
    );
    let said = |by: NodeId, of: NodeId| {
        told.get(&by)?.as_ref().ok()?.iter().find(|distance| distance.node == of).copied()
    };
    let reversed = |distance: PeerDistance| PeerDistance {
        clock_ahead_us: distance.clock_ahead_us.saturating_neg(),
        ..distance
    };
    match said(one, other).or_else(|| said(other, one).map(reversed)) {
        Some(distance) => [judge_trip(&trip, &distance), judge_clocks(&clocks, &distance)],
        None => {
            let why = match (told.get(&one), told.get(&other)) {
                (Some(Err(one_says)), Some(Err(other_says))) => format!("{one_says}; {other_says}"),
                _ => "they have not exchanged pulses: does one of them not run, or a firewall stop UDP?"
                    .to_owned(),
            };
            [Finding::not_known(&trip, &why), Finding::not_known(&clocks, &why)]
        }
    }
}

fn ms(us: u32) -> f64 {
    f64::from(us) / 1_000.0
}

fn judge_trip(what: &str, distance: &PeerDistance) -> Finding {
    let (p50, most) = (ms(distance.round_trip_us_p50), ms(distance.round_trip_us_max));
    let bad = (p50 > TRIP_MS_MAX).then(|| {
        format!(
            "every append of a partition that both hold may wait for that; raise `timing.suspicion_timeout_ms` to many times {p50:.0} ms, \
             or bring the nodes closer together. If the machines are busy, it is they that take the time"
        )
    });
    let least = ms(distance.round_trip_us_min);
    let value =
        format!("p50 {p50:.2} ms, least {least:.2} ms, most {most:.2} ms of {}", distance.round_trips);
    Finding::judge(what, value, bad)
}

fn judge_clocks(what: &str, distance: &PeerDistance) -> Finding {
    let ahead_ms = ahead_ms(distance.clock_ahead_us);
    let doubt_ms = ms(distance.round_trip_us_min) / 2.0;
    let bad = (ahead_ms.abs() - doubt_ms > CLOCKS_MS_MAX).then(|| {
        "the time of a record is that of the primary, and it never goes back in a partition: after another node takes over, \
         retention by age and `--from TIME` are wrong by as much; let NTP set the clocks of all nodes"
            .to_owned()
    });
    Finding::judge(what, format!("{ahead_ms:+.2} ms, give or take {doubt_ms:.2} ms"), bad)
}

fn ahead_ms(us: i64) -> f64 {
    let size = Duration::from_micros(us.unsigned_abs()).as_secs_f64() * 1_000.0;
    if us < 0 { -size } else { size }
}

fn judge_rate((from, to): (NodeId, NodeId), rate: Result<PeerRate, ClientError>) -> Finding {
    let what = format!("throughput from node {} to node {}", from.as_raw(), to.as_raw());
    let rate = match rate {
        Ok(rate) => rate,
        Err(error) => return Finding::not_known(&what, &error.to_string()),
    };
    let per_second = |bytes: u64, us: u64| -> f64 {
        let seconds = Duration::from_micros(us.max(1)).as_secs_f64();
        Duration::from_micros(bytes).as_secs_f64() / seconds
    };
    let (offered, came) = (per_second(rate.offered, 1_000_000), per_second(rate.bytes, rate.took_us));
    let advice = "what a primary stores travels to every other replica; see what else uses the way, and how fast it is said to be. If \
                  the machines are busy, it is they that take the time";
    if rate.bytes == 0 {
        return Finding::judge(&what, "little or nothing came".to_owned(), Some(advice.to_owned()));
    }
    let bad = (came < offered * SHARE_MIN).then(|| advice.to_owned());
    let value = match &bad {
        None => format!("{offered:.0} MB/s and perhaps more"),
        Some(_) => format!("{came:.1} of {offered:.0} MB/s"),
    };
    Finding::judge(&what, value, bad)
}

#[cfg(test)]
mod tests {
    use super::super::Verdict::{self, Fine, LookAtThis, NotKnown};
    use super::*;

    const ONE: NodeId = NodeId::new(1);
    const TWO: NodeId = NodeId::new(2);

    fn distance(node: NodeId, trip_us: u32, clock_ahead_us: i64) -> PeerDistance {
        PeerDistance {
            node,
            round_trips: 9,
            round_trip_us_min: trip_us,
            round_trip_us_p50: trip_us,
            round_trip_us_max: trip_us,
            clock_ahead_us,
        }
    }

    fn verdicts(trip_us: u32, clock_ahead_us: i64) -> [Verdict; 2] {
        let told = [(ONE, Ok(vec![distance(TWO, trip_us, clock_ahead_us)]))].into();
        judge_pair((ONE, TWO), &told).map(|finding| finding.verdict)
    }

    #[test]
    fn far_nodes_and_wrong_clocks_are_seen() {
        assert_eq!(verdicts(400, 3_000), [Fine, Fine]);
        assert_eq!(verdicts(80_000, -3_000), [LookAtThis, Fine]);
        assert_eq!(verdicts(400, 90_000_000), [Fine, LookAtThis]);
        assert_eq!(verdicts(400, -90_000_000), [Fine, LookAtThis]);
        assert_eq!(verdicts(600_000, 400_000), [LookAtThis, Fine], "so slow a way says little of the clocks");
    }

    #[test]
    fn either_of_two_may_tell() {
        let only_two = [(ONE, Err("down".to_owned())), (TWO, Ok(vec![distance(ONE, 400, 5_000)]))].into();
        let [trip, clocks] = judge_pair((ONE, TWO), &only_two);
        assert_eq!((trip.verdict, clocks.verdict), (Fine, Fine));
        assert!(clocks.value.starts_with("-5.00 ms"), "{}: the other is ahead", clocks.value);
        let nobody = [(ONE, Err("down".to_owned())), (TWO, Ok(Vec::new()))].into();
        assert_eq!(judge_pair((ONE, TWO), &nobody).map(|finding| finding.verdict), [NotKnown, NotKnown]);
    }

    #[test]
    fn ways_that_carry_less_than_was_sent_are_seen() {
        let rate = |bytes, took_us| {
            let rate = PeerRate { node: TWO, offered: 16_000_000, bytes, took_us };
            judge_rate((ONE, TWO), Ok(rate))
        };
        let good = rate(2_000_000, 125_000);
        assert_eq!((good.verdict, good.value.as_str()), (Fine, "16 MB/s and perhaps more"));
        let bad = rate(2_000_000, 1_000_000);
        assert_eq!((bad.verdict, bad.value.as_str()), (LookAtThis, "2.0 of 16 MB/s"));
        assert_eq!(rate(0, 0).verdict, LookAtThis);
    }
}

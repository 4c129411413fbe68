//! What nodes know of the ways between them.

use std::time::Duration;

use varve_protocol::client::{PeerDistance, PeerRate, Refusal, Request, Response};
use varve_protocol::frame::Command;
use varve_protocol::id::{GroupId, NodeId};
use varve_protocol::limits::{PROBE_BYTES, PROBE_BYTES_PER_SECOND_MAX, PROBES_PER_ROW};

use crate::cluster::{Cluster, n, refusal, request, response};

const SECOND: Duration = Duration::from_secs(1);

fn distances(cluster: &mut Cluster, id: NodeId) -> Vec<PeerDistance> {
    let answer = response(&cluster.call(id, request(GroupId::METADATA, &Request::GetDistances)));
    let Response::Distances(distances) = answer else { panic!("distances were asked for: {answer:?}") };
    distances
}

/// The node, the slowest round trip, and how far its clock is ahead, all in microseconds.
fn told(cluster: &mut Cluster, id: NodeId) -> Vec<(NodeId, u32, i64)> {
    let told = |peer: PeerDistance| (peer.node, peer.round_trip_us_max, peer.clock_ahead_us);
    distances(cluster, id).into_iter().map(told).collect()
}

#[test]
fn nodes_know_how_far_the_others_are_and_how_their_clocks_go() {
    let mut cluster = Cluster::start(3);
    cluster.set_clock(n(2), 90 * SECOND);
    cluster.run_for(4 * SECOND);
    // Nothing takes time here but waiting, and what a pulse waits for in a node is not the way.
    assert_eq!(told(&mut cluster, n(1)), [(n(2), 0, 90_000_000), (n(3), 0, 0)]);
    assert_eq!(told(&mut cluster, n(2)), [(n(1), 0, -90_000_000), (n(3), 0, -90_000_000)]);
    assert!(distances(&mut cluster, n(1))[0].round_trips > 100);
}

#[test]
fn nothing_is_told_of_who_is_not_heard() {
    let mut cluster = Cluster::start(3);
    cluster.cut(n(3), n(1));
    cluster.run_for(SECOND);
    assert_eq!(told(&mut cluster, n(1)).len(), 1);
    assert_eq!(told(&mut cluster, n(2)).len(), 2);
    // A new life begins with nothing known.
    cluster.heal();
    cluster.kill(n(3));
    cluster.boot(n(3));
    cluster.run_until("it is heard again", |cluster| cluster.status(n(1)).hears.contains(&n(3)));
    assert!(distances(&mut cluster, n(1))[1].round_trips < 3);
}

#[test]
fn a_row_of_filler_tells_how_much_goes_through() {
    let mut cluster = Cluster::start(3);
    let (first, second) = (cluster.session(), cluster.session());
    let measure = |to| request(GroupId::METADATA, &Request::MeasureRate { to });
    cluster.ask(n(1), first, measure(n(2)));
    cluster.ask(n(1), second, measure(n(3)));
    assert_eq!(refusal(&cluster.answer(second)), Refusal::Busy, "one row at a time");
    let Response::Rate(rate) = response(&cluster.answer(first)) else { panic!("a rate was asked for") };
    let bytes = (PROBES_PER_ROW - 1) * PROBE_BYTES as u64;
    assert_eq!((rate.node, rate.offered, rate.bytes), (n(2), PROBE_BYTES_PER_SECOND_MAX, bytes));
    // Here the way takes no time: what came is what was sent, at its pace.
    let took_us = bytes * 1_000_000 / PROBE_BYTES_PER_SECOND_MAX;
    assert!(rate.took_us.abs_diff(took_us) < took_us / 50, "{rate:?} and {took_us} us");
    assert_eq!((cluster.sent[&Command::Probe], cluster.sent[&Command::Probed]), (PROBES_PER_ROW, 1));
    let Response::Rate(rate) = response(&cluster.call(n(1), measure(n(3)))) else { panic!("another one") };
    assert_eq!((rate.node, rate.bytes), (n(3), bytes), "the next row is one of its own");
}

#[test]
fn a_row_that_does_not_arrive_is_given_up() {
    let mut cluster = Cluster::start(3);
    let session = cluster.session();
    cluster.ask(n(1), session, request(GroupId::METADATA, &Request::MeasureRate { to: n(2) }));
    cluster.cut(n(1), n(2));
    let answer = response(&cluster.answer(session));
    let offered = PROBE_BYTES_PER_SECOND_MAX;
    assert_eq!(answer, Response::Rate(PeerRate { node: n(2), offered, bytes: 0, took_us: 0 }));
    // Who is not heard is not sent anything, and nobody measures the way to himself or to nowhere.
    for (to, busy) in [(n(2), true), (n(1), false), (n(9), false)] {
        let refused = refusal(&cluster.call(n(1), request(GroupId::METADATA, &Request::MeasureRate { to })));
        assert_eq!(refused == Refusal::Busy, busy, "{refused:?}");
    }
    cluster.heal();
}

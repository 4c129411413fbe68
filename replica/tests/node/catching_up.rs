//! Replicas that catch up, at the pace that they are allowed.

use std::time::Duration;

use varve_protocol::id::{GroupId, NodeId, ProducerId};
use varve_replica::Timing;

use crate::cluster::{Cluster, n};

const RECORDS: u64 = 3_000;

/// A group of three, one of which misses three thousand records of a hundred bytes and more.
fn start(catch_up_bytes_per_second: u64) -> (Cluster, GroupId) {
    let mut cluster = Cluster::start_timed(3, Timing { catch_up_bytes_per_second, ..Timing::default() });
    let group = cluster.create_topic(1, 3)[0];
    cluster.kill(n(3));
    for number in 0..RECORDS / 100 {
        let records: Vec<String> = (0..100).map(|of| format!("{number} {of} {}", "x".repeat(100))).collect();
        let records: Vec<&str> = records.iter().map(String::as_str).collect();
        // One prepare each, so that they leave the memory of those who are to send them.
        for record in records {
            cluster.append(group, ProducerId::ZERO, 0, &[record]);
        }
    }
    (cluster, group)
}

fn high_watermark(cluster: &Cluster, node: NodeId, group: GroupId) -> u64 {
    let status = cluster.status(node);
    let found = status.groups.iter().find(|one| one.group == group);
    found.map_or(0, |one| one.high_watermark.as_raw())
}

#[test]
fn a_replica_catches_up_as_fast_as_it_may_and_the_group_goes_on() {
    let (mut cluster, group) = start(100_000);
    cluster.boot(n(3));
    cluster.run_for(Duration::from_secs(2));
    let reached = high_watermark(&cluster, n(3), group);
    // 228 bytes and more each, of which some that are in memory are not counted.
    assert!((100..1_500).contains(&reached), "100,000 bytes in each of two seconds: {reached} records");
    cluster.append(group, ProducerId::ZERO, 0, &["meanwhile"]);
    cluster.run_until("it has all", |cluster| high_watermark(cluster, n(3), group) == RECORDS + 1);
}

#[test]
fn without_a_limit_a_replica_catches_up_at_once() {
    let (mut cluster, group) = start(0);
    cluster.boot(n(3));
    cluster.run_for(Duration::from_secs(2));
    assert_eq!(high_watermark(&cluster, n(3), group), RECORDS);
}

//! What survives the end of a process.

use std::path::Path;

use bytes::Bytes;
use varve_protocol::client::Role;
use varve_protocol::id::{GroupId, NodeId, Offset, ProducerId};
use varve_storage::{Disk, DiskFile, OpenMode, Options};

use crate::cluster::{Cluster, n};

const ALL: [NodeId; 3] = [n(1), n(2), n(3)];

#[test]
fn the_whole_cluster_stops_and_comes_back_with_everything() {
    let mut cluster = Cluster::start(3);
    let group = cluster.create_topic(1, 3)[0];
    let producer = cluster.register_producer();
    for number in 1..=100 {
        cluster.append(group, producer, number, &[&format!("record {number}")]);
    }
    ALL.into_iter().for_each(|id| cluster.kill(id));
    ALL.into_iter().for_each(|id| cluster.boot(id));
    cluster.append(group, producer, 101, &["after the restart"]);
    let records = cluster.read_everywhere(group, 101);
    assert_eq!((records[0].as_str(), records[99].as_str()), ("record 1", "record 100"));
    assert_eq!(cluster.node(n(1)).metadata().map().streams.len(), 1);
}

#[test]
fn a_retry_after_a_restart_of_the_whole_cluster_appends_nothing() {
    let mut cluster = Cluster::start(3);
    let group = cluster.create_topic(1, 3)[0];
    let producer = cluster.register_producer();
    let mut offsets = Vec::new();
    for number in 1..=100 {
        offsets.push(cluster.append(group, producer, number, &["x"]));
    }
    ALL.into_iter().for_each(|id| cluster.kill(id));
    ALL.into_iter().for_each(|id| cluster.boot(id));
    assert_eq!(cluster.append(group, producer, 100, &["x"]), offsets[99]);
    assert_eq!(cluster.append(group, producer, 90, &["x"]), offsets[89]);
    cluster.read_everywhere(group, 100);
}

#[test]
fn who_goes_on_from_a_resume_point_knows_the_sessions_and_serves_what_it_has_not_read() {
    let small_segments = Options { segment_size_bytes_max: 8 << 10, reserve_bytes: 0, ..Options::DEFAULT };
    let mut cluster = Cluster::start_with(3, small_segments);
    let group = cluster.create_topic(1, 3)[0];
    let (producer, other) = (cluster.register_producer(), cluster.register_producer());
    cluster.append(group, other, 1, &["long ago"]);
    let offsets: Vec<_> =
        (1..=200).map(|number| cluster.append(group, producer, number, &["a record"])).collect();
    for id in ALL {
        let dir = Path::new("groups").join(format!("{:010}", group.as_raw()));
        let names = cluster.disk(id).list(&dir).expect("the group has files");
        assert_eq!(names.iter().filter(|name| name.ends_with(".resume")).count(), 1, "{names:?}");
        // Only who does not read it does not miss it.
        let oldest = names.iter().find(|name| name.ends_with(".log")).expect("there are segments");
        let file = cluster.disk(id).open(&dir.join(oldest), OpenMode::Existing).expect("it is there");
        file.write_at(&[Bytes::from_static(b"rot")], 4096 + 300).expect("a disk in memory works");
    }
    ALL.into_iter().for_each(|id| cluster.kill(id));
    ALL.into_iter().for_each(|id| cluster.boot(id));
    assert_eq!(cluster.append(group, other, 1, &["long ago"]), Offset::ZERO);
    assert_eq!(cluster.append(group, producer, 190, &["a record"]), offsets[189]);
    assert_eq!(cluster.append(group, producer, 201, &["the next"]), offsets[199].next());
    let primary = cluster.primary(group);
    assert_eq!(cluster.read_from(primary, group, 100).len(), 102);
}

#[test]
fn a_backup_that_was_away_catches_up_from_the_disk_of_another() {
    let mut cluster = Cluster::start(3);
    let group = cluster.create_topic(1, 3)[0];
    let leader = cluster.primary(group);
    let away = ALL.into_iter().find(|id| *id != leader).expect("there are three");
    cluster.kill(away);
    let large = "x".repeat(400_000);
    for _ in 0..40 {
        cluster.append(group, ProducerId::ZERO, 0, &[&large]);
    }
    cluster.boot(away);
    let count = |cluster: &Cluster| {
        let status = cluster.status(away);
        status.groups.iter().find(|one| one.group == group).map_or(0, |one| one.commit)
    };
    cluster.run_until("it has caught up", |cluster| count(cluster) == 40);
    assert_eq!(cluster.read_all(away, group).len(), 40);
}

#[test]
fn producer_ids_are_not_given_out_again_after_a_restart() {
    let mut cluster = Cluster::start(3);
    let before: Vec<ProducerId> = (0..70).map(|_| cluster.register_producer()).collect();
    ALL.into_iter().for_each(|id| cluster.kill(id));
    ALL.into_iter().for_each(|id| cluster.boot(id));
    assert!(!before.contains(&cluster.register_producer()));
}

#[test]
fn a_restarted_primary_does_not_lead_its_old_view() {
    let mut cluster = Cluster::start(3);
    let group = cluster.create_topic(1, 3)[0];
    let leader = cluster.primary(group);
    cluster.kill(leader);
    cluster.boot(leader);
    let view = |cluster: &Cluster, id: NodeId| {
        let status = cluster.status(id);
        status.groups.iter().find(|one| one.group == group).map_or(0, |one| one.view.as_raw())
    };
    cluster.run_until("all are in a later view", |cluster| ALL.iter().all(|id| view(cluster, *id) > 0));
    cluster.primary(group);
    cluster.primary(GroupId::METADATA);
}

#[test]
fn a_replica_that_opens_after_all_is_said_still_catches_up() {
    let mut cluster = Cluster::start(3);
    let away = n(3);
    for other in [n(1), n(2)] {
        cluster.cut(away, other);
        cluster.cut(other, away);
    }
    let group = cluster.create_topic(1, 3)[0];
    let producer = cluster.register_producer();
    cluster.append(group, producer, 1, &["said while it was away"]);
    cluster.run_for(std::time::Duration::from_secs(1));
    cluster.heal();
    let has_it = |cluster: &Cluster| {
        let status = cluster.status(away);
        status.groups.iter().any(|one| one.group == group && one.commit == 1)
    };
    cluster.run_until("it has the record, though nobody appends any more", has_it);
}

#[test]
fn a_first_primary_that_opens_after_others_have_led_follows_them() {
    let mut cluster = Cluster::start(3);
    let away = n(3);
    for other in [n(1), n(2)] {
        cluster.cut(away, other);
        cluster.cut(other, away);
    }
    let groups = cluster.create_topic(3, 3);
    cluster.run_for(std::time::Duration::from_secs(1));
    cluster.heal();
    // Sooner than it is given back what it is preferred for.
    cluster.run_for(std::time::Duration::from_secs(3));
    for group in groups {
        let roles = ALL.map(|id| cluster.role(id, group));
        let count = |role| roles.iter().filter(|one| **one == Some(role)).count();
        assert_eq!((count(Role::Primary), count(Role::Backup)), (1, 2), "{group}, though nobody appends");
    }
}

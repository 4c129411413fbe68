//! The log of the metadata is let go like any other: what it has brought about stays.

use std::path::Path;
use std::time::Duration;

use varve_protocol::client::{Request, Response, Role};
use varve_protocol::id::{GroupId, NodeId, Op, ProducerId};
use varve_protocol::metadata::{MetadataError, MetadataOp, MetadataOutcome};
use varve_replica::Timing;
use varve_storage::{Disk, Options};

use crate::cluster::{Cluster, n, request, response};
use crate::scrub::{damages, eager, problem, rot, segments};

const ALL: [NodeId; 3] = [n(1), n(2), n(3)];

/// Segments with room for so many bytes of prepares.
fn sized(bytes: u64) -> Options {
    Options { segment_size_bytes_max: 4096 + bytes, reserve_bytes: 0, ..Options::DEFAULT }
}

fn often(timing: Timing) -> Timing {
    Timing { retention_check: Duration::from_millis(100), ..timing }
}

fn start() -> Cluster {
    Cluster::start_summing_up(3, often(Timing::default()), sized(2_000))
}

/// Changes that fill some segments; the newest producer is told.
fn change_much(cluster: &mut Cluster) -> ProducerId {
    let mut newest = ProducerId::ZERO;
    for _ in 0..40 {
        newest = cluster.register_producer();
    }
    cluster.run_for(Duration::from_secs(1));
    newest
}

fn snapshots(cluster: &Cluster, id: NodeId) -> usize {
    let dir = Path::new("groups").join("0000000000");
    let names = cluster.disk(id).list(&dir).expect("the metadata have files");
    names.iter().filter(|name| name.ends_with(".snapshot")).count()
}

fn stream(name: &str) -> MetadataOp {
    MetadataOp::CreateStream { stream: name.to_owned() }
}

#[test]
fn what_was_summed_up_is_there_after_a_restart_of_all() {
    let mut cluster = start();
    let group = cluster.create_topic(1, 3)[0];
    let producer = cluster.register_producer();
    cluster.append(group, producer, 1, &["before"]);
    assert_eq!(cluster.change(stream("other")), MetadataOutcome::Done);
    let newest = change_much(&mut cluster);
    assert_eq!(ALL.map(|id| snapshots(&cluster, id)), [1; 3], "all have let go of something");
    let first = segments(&cluster, n(1), GroupId::METADATA)[0].clone();
    for id in ALL {
        assert_eq!(segments(&cluster, id, GroupId::METADATA)[0], first, "and of the same");
    }
    let before = cluster.node(n(1)).metadata().map();
    ALL.into_iter().for_each(|id| cluster.kill(id));
    ALL.into_iter().for_each(|id| cluster.boot(id));
    for id in ALL {
        assert_eq!(cluster.node(id).metadata().map().streams, before.streams);
    }
    assert_eq!(cluster.register_producer(), newest.next(), "no id is given out twice");
    let exists = MetadataError::StreamExists("other".to_owned());
    assert_eq!(cluster.change(stream("other")), MetadataOutcome::Refused(exists));
    cluster.append(group, producer, 2, &["behind"]);
    assert_eq!(cluster.read_everywhere(group, 2), ["before", "behind"]);
    // What was summed up is summed up with what comes.
    let newest = change_much(&mut cluster);
    assert_ne!(segments(&cluster, n(1), GroupId::METADATA)[0], first);
    ALL.into_iter().for_each(|id| cluster.kill(id));
    ALL.into_iter().for_each(|id| cluster.boot(id));
    assert_eq!(cluster.register_producer(), newest.next());
}

#[test]
fn a_retry_is_answered_from_what_was_summed_up() {
    let mut cluster = start();
    let producer = cluster.register_producer();
    let create = |cluster: &mut Cluster| {
        let mut frame = request(GroupId::METADATA, &Request::Change(stream("once")));
        (frame.header.op, frame.header.commit) = (Op::new(1), producer.as_raw());
        let primary = cluster.primary(GroupId::METADATA);
        response(&cluster.call(primary, frame))
    };
    let done = Response::Changed(MetadataOutcome::Done);
    assert_eq!(create(&mut cluster), done);
    change_much(&mut cluster);
    assert_eq!(create(&mut cluster), done);
    ALL.into_iter().for_each(|id| cluster.kill(id));
    ALL.into_iter().for_each(|id| cluster.boot(id));
    assert_eq!(
        create(&mut cluster),
        done,
        "it is the same request, and is not refused because the stream exists"
    );
}

#[test]
fn a_node_that_was_away_takes_what_the_others_have_summed_up() {
    let mut cluster = start();
    let gone = cluster.create_topic(1, 3)[0];
    let producer = cluster.register_producer();
    cluster.append(gone, producer, 1, &["gone soon"]);
    cluster.kill(n(3));
    let delete = MetadataOp::DeleteTopic { stream: "s".to_owned(), topic: "t".to_owned() };
    assert_eq!(cluster.change(delete), MetadataOutcome::Done);
    let delete = MetadataOp::DeleteStream { stream: "s".to_owned() };
    assert_eq!(cluster.change(delete), MetadataOutcome::Done);
    let new = cluster.create_topic(1, 3)[0];
    cluster.append(new, producer, 1, &["while it was away"]);
    change_much(&mut cluster);
    cluster.boot(n(3));
    cluster.run_until("it knows what the others know", |cluster| {
        cluster.node(n(3)).metadata().applied() == cluster.node(n(1)).metadata().applied()
    });
    assert!(cluster.node(n(3)).metadata().encode() == cluster.node(n(1)).metadata().encode());
    assert_eq!(snapshots(&cluster, n(3)), 1);
    cluster.run_until("the files of what was deleted are gone", |cluster| {
        let dirs = cluster.group_dirs(n(3));
        !dirs.contains(&format!("{:010}", gone.as_raw()))
    });
    assert_eq!(cluster.read_everywhere(new, 1), ["while it was away"]);
    // It counts.
    cluster.kill(n(2));
    assert_eq!(cluster.change(stream("with-the-third")), MetadataOutcome::Done);
    cluster.append(new, producer, 2, &["too"]);
    assert_eq!(cluster.read_from(n(3), new, 0), ["while it was away", "too"]);
}

#[test]
fn a_node_that_has_lost_its_disk_takes_it_too() {
    let mut cluster = start();
    let group = cluster.create_topic(1, 3)[0];
    cluster.append(group, ProducerId::ZERO, 0, &["kept by the others"]);
    change_much(&mut cluster);
    cluster.kill(n(2));
    cluster.lose_disk(n(2));
    cluster.boot(n(2));
    assert_eq!(cluster.read_everywhere(group, 1), ["kept by the others"]);
    assert_eq!(snapshots(&cluster, n(2)), 1);
    cluster.kill(n(3));
    assert_eq!(cluster.change(stream("with-the-second")), MetadataOutcome::Done);
}

#[test]
fn metadata_that_have_rotted_where_others_have_summed_up_are_taken_anew() {
    let mut cluster = Cluster::start_summing_up(3, often(eager()), sized(2_000));
    // Segments end with other prepares on the third node.
    cluster.kill(n(3));
    cluster.options = sized(1 << 20);
    cluster.boot(n(3));
    let group = cluster.create_topic(1, 3)[0];
    cluster.lead(GroupId::METADATA, n(1));
    change_much(&mut cluster);
    assert_eq!((snapshots(&cluster, n(1)), snapshots(&cluster, n(3))), (1, 0));
    rot(&cluster, n(3), GroupId::METADATA, &[5]);
    cluster.run_until("it is found", |cluster| damages(cluster, n(3)).0 > 0);
    cluster.run_until("it is whole again", |cluster| {
        let (found, mended) = damages(cluster, n(3));
        found == mended && cluster.role(n(3), GroupId::METADATA) == Some(Role::Backup)
    });
    assert_eq!(problem(&cluster, n(3), GroupId::METADATA), None);
    assert_eq!(snapshots(&cluster, n(3)), 1);
    cluster.kill(n(2));
    let producer = cluster.register_producer();
    cluster.append(group, producer, 1, &["with the third"]);
    cluster.run_for(Duration::from_secs(1));
    assert!(cluster.node(n(3)).metadata().encode() == cluster.node(n(1)).metadata().encode());
    cluster.kill(n(3));
    cluster.boot(n(3));
    assert_eq!(cluster.register_producer(), producer.next());
}

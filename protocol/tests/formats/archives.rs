//! The cold bodies: rkyv archives survive the trip at any alignment, and damage never panics.

use bytes::Bytes;
use varve_protocol::client::{Refusal, Request, Response, decode_archive, encode_archive};
use varve_protocol::compression::Compression;
use varve_protocol::durability::Durability;
use varve_protocol::frame::Command;
use varve_protocol::id::{DirectoryId, GroupId, NodeId, Op, ReplicaIndex, View};
use varve_protocol::metadata::{
    ClusterMap, MetadataOp, Move, NodeEntry, PartitionEntry, StreamEntry, TopicEntry,
};
use varve_protocol::retention::Retention;
use varve_protocol::version::{Version, Versions};

use crate::single_bit_flips;

pub(crate) fn sample_map() -> ClusterMap {
    let partition = PartitionEntry {
        group: GroupId::new(3),
        places: vec![NodeId::new(1), NodeId::new(2)],
        founders: 2,
        directories: vec![DirectoryId::new(71), DirectoryId::new(72)],
        arrived: vec![Op::ZERO, Op::new(6)],
        moving: Some(Move {
            place: ReplicaIndex::new(1),
            from: NodeId::new(1),
            to: NodeId::new(3),
            since: Op::new(8),
            arrived: Op::new(8),
        }),
        durability: Durability::QuorumMemory,
    };
    let retention = Retention { bytes: Some(5), age_ms: None };
    let topic = TopicEntry {
        name: "topic".to_owned(),
        replication_factor: 3,
        partitions: vec![partition],
        retention,
        compression: Compression::Zstd,
    };
    ClusterMap {
        version: Version::FIRST,
        op: Op::new(9),
        nodes: vec![NodeEntry {
            node: NodeId::new(1),
            address: "127.0.0.1:7101".to_owned(),
            versions: Some(Versions { oldest: Version::FIRST, newest: Version::new(4) }),
        }],
        streams: vec![StreamEntry { name: "stream".to_owned(), topics: vec![topic] }],
        primaries: vec![(GroupId::new(3), View::new(4), NodeId::new(2))],
    }
}

#[test]
fn archives_survive_the_trip_at_any_alignment() {
    let response = Response::Map(sample_map());
    let bytes = encode_archive(&response);
    for shift in 0..9 {
        let shifted: Bytes = [vec![0; shift], bytes.to_vec()].concat().into();
        let read = decode_archive::<Response>(Command::Response, &shifted.slice(shift..));
        assert_eq!(read.as_ref(), Ok(&response));
    }
}

#[test]
fn damage_never_panics() {
    let operation = MetadataOp::CreateTopic {
        stream: "stream".to_owned(),
        topic: "a topic with a name that is not inlined".to_owned(),
        partitions: 6,
        replication_factor: Some(3),
        durability: Durability::QuorumMemory,
        retention: Retention { bytes: Some(1 << 30), age_ms: Some(5) },
        compression: Compression::Lz4,
    };
    let request = encode_archive(&Request::Change(operation));
    let response = encode_archive(&Response::Map(sample_map()));
    let refusal = encode_archive(&Refusal::BadBatch { reason: "a reason that is not inlined".to_owned() });
    for flipped in single_bit_flips(&request) {
        drop(decode_archive::<Request>(Command::Request, &flipped));
    }
    for flipped in single_bit_flips(&response) {
        drop(decode_archive::<Response>(Command::Response, &flipped));
    }
    for flipped in single_bit_flips(&refusal) {
        drop(decode_archive::<Refusal>(Command::Refused, &flipped));
    }
    for length in 0..response.len() {
        drop(decode_archive::<Response>(Command::Response, &response[..length]));
    }
}

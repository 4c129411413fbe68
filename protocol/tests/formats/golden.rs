//! Golden bytes. If one of these changes, old data and other releases can no longer be read: raise the version.

use std::time::Duration;

use bytes::BytesMut;
use varve_protocol::client::{PeerDistance, PeerRate, Request, Response, decode_archive, encode_archive};
use varve_protocol::compression::Compression;
use varve_protocol::frame::{Command, Voice};
use varve_protocol::id::{
    ClusterId, DirectoryId, GroupId, Incarnation, NodeId, Op, ProducerId, ReplicaIndex, Timestamp, View,
};
use varve_protocol::message::Message;
use varve_protocol::metadata::{ClusterMap, MetadataError, MetadataOutcome, MetadataState, NodeDirectories};
use varve_protocol::prepare::PrepareId;
use varve_protocol::pulse::{Pulse, PulseEntry, PulseMoving, Stage};
use varve_protocol::record::{BATCH_HEADER_SIZE, Batch, BatchBuilder, HeaderValue, Headers, Record};
use varve_protocol::version::{Version, Versions};

use crate::archives::sample_map;
use crate::{hex, sample_prepare, unhex};

#[test]
fn a_prepare_is_these_bytes() {
    let mut bytes = BytesMut::new();
    sample_prepare(b"body").encode(&mut bytes);
    assert_golden(&hex(&bytes), include_str!("golden/prepare.hex"));
}

#[test]
fn a_frame_is_these_bytes() {
    let id = PrepareId { op: Op::new(42), view: View::new(3), checksum: 0xdead_beef };
    let message = Message::PrepareOk { view: View::new(4), id };
    let voice = Voice { replica: ReplicaIndex::new(2), generation: Op::new(0x0105) };
    let frame = message.to_frame(ClusterId::new(0x1234), GroupId::new(7), voice);
    assert_golden(&hex(&frame.encode().concat()), include_str!("golden/frame.hex"));
}

#[test]
fn a_pulse_is_these_bytes() {
    let founders = [(NodeId::new(2), DirectoryId::new(0x72))].into();
    let since = Op::new(8);
    let moving =
        PulseMoving { group: GroupId::new(7), since, reached: Op::new(0x0300), stage: Stage::Seated };
    let commit = PrepareId { op: Op::new(42), view: View::new(3), checksum: 0xdead_beef };
    let pulse = Pulse {
        sequence: 5,
        echo: 4,
        sent_at: Timestamp::new(0x0102_0304_0506_0708),
        held: Duration::from_micros(0x0a0b_0c0d),
        incarnation: Incarnation::new(99),
        directory: DirectoryId::new(0x71),
        versions: Versions { oldest: Version::new(3), newest: Version::new(4) },
        is_fresh: true,
        founders,
        moving: vec![moving],
        entries: vec![PulseEntry { group: GroupId::new(7), view: View::new(4), commit }],
    };
    let frame = pulse.to_frame(ClusterId::new(0x1234));
    assert_golden(&hex(&frame.encode().concat()), include_str!("golden/pulse.hex"));
}

#[test]
fn what_is_told_of_peers_is_these_bytes() {
    let distance = PeerDistance {
        node: NodeId::new(2),
        round_trips: 0x0102,
        round_trip_us_min: 0x0304,
        round_trip_us_p50: 0x0506,
        round_trip_us_max: 0x0708,
        clock_ahead_us: -2,
    };
    let rate = PeerRate { node: NodeId::new(3), offered: 0x0102, bytes: 0x0304, took_us: 0x0506 };
    let archives = [
        encode_archive(&Request::GetDistances),
        encode_archive(&Request::MeasureRate { to: NodeId::new(3) }),
        encode_archive(&Response::Distances(vec![distance])),
        encode_archive(&Response::Rate(rate)),
    ];
    let lines: Vec<String> = archives.iter().map(|archive| hex(archive)).collect();
    assert_golden(&lines.join("\n"), include_str!("golden/peers.hex"));
}

#[test]
fn all_of_the_metadata_are_these_bytes() {
    let directories = NodeDirectories {
        directory: DirectoryId::new(0x72),
        known_at: Op::new(5),
        former: vec![DirectoryId::new(0x71)],
    };
    let refused = MetadataOutcome::Refused(MetadataError::BadPartitions(0x0304));
    let state = MetadataState {
        map: ClusterMap { primaries: Vec::new(), ..sample_map() },
        directories: vec![directories],
        next_producer: ProducerId::new(0x0102),
        next_group: GroupId::new(4),
        placement_version: 6,
        directories_version: 2,
        placement_cursor: 1,
        outcomes: vec![
            (Op::new(7), MetadataOutcome::Producer(ProducerId::new(0x0101))),
            (Op::new(9), refused),
        ],
    };
    let bytes = encode_archive(&state);
    assert_golden(&hex(&bytes), include_str!("golden/metadata.hex"));
    assert_eq!(decode_archive(Command::Snapshot, &bytes), Ok(state));
}

#[test]
fn a_batch_is_these_bytes() {
    let mut builder = BatchBuilder::new(1024);
    let (timestamp, key) = (Timestamp::new(77), Some("key".into()));
    let keyed = Record { timestamp, key, payload: "payload".into(), ..Record::default() };
    builder.push(&keyed).expect("the record fits");
    builder.push(&Record { payload: "second".into(), ..Record::default() }).expect("the record fits");
    assert_golden(&hex(&builder.finish()), include_str!("golden/batch.hex"));
}

#[test]
fn headers_of_all_kinds_are_these_bytes() {
    let values: [(&str, HeaderValue<'_>); 15] = [
        ("o float64", (-2.5_f64).into()),
        ("a raw", HeaderValue::Raw(&[0x00, 0xff])),
        ("b string", "\u{e4}".into()),
        ("c bool", true.into()),
        ("d int8", (-2_i8).into()),
        ("e int16", (-2_i16).into()),
        ("f int32", (-2_i32).into()),
        ("g int64", (-2_i64).into()),
        ("h int128", (-2_i128).into()),
        ("i uint8", 0xfe_u8.into()),
        ("j uint16", 0xfedc_u16.into()),
        ("k uint32", 0xfedc_ba98_u32.into()),
        ("l uint64", 0xfedc_ba98_7654_3210_u64.into()),
        ("m uint128", 0xfedc_ba98_7654_3210_0123_4567_89ab_cdef_u128.into()),
        ("n float32", 1.5_f32.into()),
    ];
    let mut headers = Headers::new();
    for (key, value) in values {
        headers.insert(key, value).expect("the header fits");
    }
    let record = Record { headers, payload: "payload".into(), ..Record::default() };
    let mut builder = BatchBuilder::new(1024);
    builder.push(&record).expect("the record fits");
    let bytes = builder.finish();
    assert_golden(&hex(&bytes), include_str!("golden/headers.hex"));
    let batch = Batch::decode(bytes).expect("the batch is sound");
    assert_eq!(batch.records().next(), Some(record));
}

/// Written by hand after the formats' descriptions, as another encoder might have: literals and one match; a raw block and
/// one of a repeated byte.
#[test]
fn compressed_batches_are_framed_like_these() {
    let record = Record { payload: [b'a'; 100].to_vec().into(), ..Record::default() };
    for (compression, golden) in [
        (Compression::Lz4, include_str!("golden/batch_lz4.hex")),
        (Compression::Zstd, include_str!("golden/batch_zstd.hex")),
    ] {
        let golden = unhex(golden);
        let batch = Batch::decode(golden.clone()).expect("the batch is sound");
        assert_eq!((batch.compression(), batch.records_size()), (compression, 124));
        assert_eq!(batch.records().collect::<Vec<_>>(), std::slice::from_ref(&record));
        let mut builder = BatchBuilder::new(1024);
        builder.push(&record).expect("the record fits");
        let ours = builder.finish_compressed(compression);
        assert_eq!(ours[..BATCH_HEADER_SIZE], golden[..BATCH_HEADER_SIZE], "{compression}");
        assert_eq!(Batch::decode(ours), Ok(batch), "{compression}");
    }
}

fn assert_golden(found: &str, golden: &str) {
    assert_eq!(found, golden.trim_end(), "the format has changed; found:\n{found}");
}

//! Prepares, frames and messages survive the trip, and nothing damaged passes for whole.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use varve_protocol::frame::{Command, Frame, FrameError, FrameHeader, Voice};
use varve_protocol::id::{
    ClusterId, DirectoryId, Epoch, GroupId, Incarnation, NodeId, Op, ReplicaIndex, Round, Timestamp, View,
};
use varve_protocol::limits::{FRAME_BODY_BYTES_MAX, HEADERS_PER_MESSAGE_MAX};
use varve_protocol::message::{Message, SuffixSlot};
use varve_protocol::prepare::{Prepare, PrepareFields, PrepareHeader, PrepareId, PrepareKind};
use varve_protocol::pulse::{Pulse, PulseEntry, PulseMoving, Stage};
use varve_protocol::replacement::{Generations, Known};
use varve_protocol::snapshot::Snapshot;
use varve_protocol::version::{Version, Versions};

use crate::{sample_prepare, single_bit_flips};

const CLUSTER: ClusterId = ClusterId::new(0xc1);
const GROUP: GroupId = GroupId::new(7);

/// A chain of headers above op 41.
fn chain(length: usize) -> Vec<PrepareHeader> {
    let first = *sample_prepare(b"body").header();
    let mut headers = vec![first];
    while headers.len() < length {
        let last = headers.last().expect("the chain has a first header");
        let fields = PrepareFields {
            version: Version::FIRST,
            cluster: CLUSTER,
            group: GROUP,
            view: View::new(3),
            parent: last.id(),
            epoch: Epoch::ZERO,
            kind: PrepareKind::Noop,
            base_offset: last.next_offset(),
            record_count: 0,
            timestamp: last.timestamp().next(),
            producer: last.producer(),
            request: last.request().next(),
        };
        headers.push(PrepareHeader::seal(fields, b""));
    }
    headers
}

fn every_message() -> Vec<Message> {
    let prepare = sample_prepare(b"body");
    let id = prepare.id();
    let view = View::new(9);
    let headers = chain(3);
    let mut slots: Vec<_> = headers.iter().map(|header| SuffixSlot::Has(*header)).collect();
    slots.push(SuffixSlot::CannotTell(slots[2].op().next()));
    let (generation, counts_since) = (Op::new(7), Op::new(9));
    let known = Known { replica: ReplicaIndex::new(2), generation, counts: true, counts_since };
    vec![
        Message::Prepare { view, commit: id, prepare: prepare.clone() },
        Message::PrepareOk { view, id },
        Message::Commit { view, commit: id },
        Message::StartViewChange { view, current: View::new(3) },
        Message::DoViewChange {
            view,
            log_view: View::new(8),
            commit: id,
            head: Op::new(45),
            generations: Generations { own: Op::new(7), known: vec![known] },
            suffix: slots,
        },
        Message::StartView { view, commit: id, head: Op::new(44), suffix: headers.clone(), nonce: 77 },
        Message::GetStartView { view, nonce: 78 },
        Message::GetHeaders { view, first: Op::new(2), last: Op::new(6) },
        Message::Headers { view, headers },
        Message::GetPrepares { view, ids: vec![id, PrepareId::ROOT] },
        Message::RepairPrepare { view, prepare },
        Message::RepairMissing { view, id },
        Message::ConfirmView { view, round: Round::new(77) },
        Message::ViewConfirmed { view, round: Round::new(77) },
        Message::Snapshot {
            view,
            snapshot: Box::new(Snapshot {
                header: *sample_prepare(b"body").header(),
                state: Bytes::from_static(b"state"),
            }),
        },
    ]
}

#[test]
fn every_message_survives_the_trip() {
    let voice = Voice { replica: ReplicaIndex::new(2), generation: Op::new(300) };
    for message in every_message() {
        let bytes = message.to_frame(CLUSTER, GROUP, voice).encode().concat();
        let frame = Frame::decode(&bytes.into()).expect("the frame is sound");
        assert_eq!((frame.header.group, frame.header.voice), (GROUP, voice));
        assert_eq!(Message::from_frame(&frame), Some(Ok(message)));
    }
}

#[test]
fn a_pulse_survives_the_trip() {
    let entry = PulseEntry { group: GROUP, view: View::new(3), commit: sample_prepare(b"").id() };
    let founder = |node: u8| (NodeId::new(node), DirectoryId::new(u64::from(node) + 70));
    let moving = PulseMoving { group: GROUP, since: Op::new(8), reached: Op::new(300), stage: Stage::Done };
    let pulse = Pulse {
        sequence: 5,
        echo: 4,
        sent_at: Timestamp::new(0x0102_0304_0506_0708),
        held: Duration::from_micros(0x0a0b_0c0d),
        incarnation: Incarnation::new(99),
        directory: DirectoryId::new(71),
        versions: Versions { oldest: Version::new(3), newest: Version::new(4) },
        is_fresh: true,
        founders: [1, 2, 3].map(founder).into(),
        moving: vec![moving, PulseMoving { stage: Stage::Listening, ..moving }],
        entries: vec![entry, entry, entry],
    };
    let frame = Frame::decode(&pulse.to_frame(CLUSTER).encode().concat().into()).expect("the frame is sound");
    assert_eq!(Pulse::from_frame(&frame), Ok(pulse));
    for cut in [0, 9, 10, 21, 23, 24, 50, 51, 52, 86, 101, 104, 137] {
        let body = frame.body.to_bytes().slice(..cut);
        assert!(
            Pulse::from_frame(&Frame { body: body.into(), ..frame.clone() }).is_err(),
            "cut to {cut} bytes"
        );
    }
}

#[test]
fn every_flip_and_every_cut_of_a_prepare_is_refused() {
    let mut bytes = BytesMut::new();
    sample_prepare(b"some records").encode(&mut bytes);
    let bytes = bytes.freeze();
    assert_eq!(Prepare::decode(&bytes).expect("the original is sound"), sample_prepare(b"some records"));
    for length in 0..bytes.len() {
        assert!(Prepare::decode(&bytes.slice(..length)).is_err(), "cut to {length} bytes");
    }
    for flipped in single_bit_flips(&bytes) {
        assert!(Prepare::decode(&flipped).is_err());
    }
}

#[test]
fn every_flip_and_every_cut_of_a_frame_is_refused() {
    for message in every_message() {
        let bytes: Bytes = message.to_frame(CLUSTER, GROUP, Voice::default()).encode().concat().into();
        for length in 0..bytes.len() {
            assert!(Frame::decode(&bytes.slice(..length)).is_err(), "{message:?} cut to {length} bytes");
        }
        for flipped in single_bit_flips(&bytes) {
            assert!(Frame::decode(&flipped).is_err(), "{message:?}");
        }
    }
}

#[test]
fn a_sound_frame_with_a_senseless_body_is_refused() {
    let unchained =
        [chain(3)[0], chain(3)[2]].map(|header| Bytes::copy_from_slice(header.as_bytes())).concat();
    let too_many = chain(HEADERS_PER_MESSAGE_MAX + 1);
    let too_many: Vec<u8> = too_many.iter().flat_map(|header| header.as_bytes().to_vec()).collect();
    let unknown_slot = vec![3; 129];
    let bodies = [
        (Command::Headers, unchained.clone()),
        (Command::StartView, unchained),
        (Command::Headers, too_many),
        (Command::Headers, vec![0; 128]),
        (Command::Headers, vec![0; 127]),
        (Command::DoViewChange, unknown_slot),
        (Command::GetPrepares, vec![0; 21]),
        (Command::Prepare, vec![0; 500]),
        (Command::Prepare, Vec::new()),
    ];
    for (command, body) in bodies {
        let frame = Frame { header: FrameHeader::new(command, CLUSTER), body: Bytes::from(body).into() };
        let read = Message::from_frame(&frame);
        assert!(matches!(read, Some(Err(FrameError::Body { .. }))), "{command:?}: {read:?}");
    }
    let frame =
        Frame { header: FrameHeader::new(Command::Pulse, CLUSTER), body: Bytes::from(vec![0; 35]).into() };
    assert!(Pulse::from_frame(&frame).is_err());
}

#[test]
fn an_announced_size_over_the_limit_is_refused_before_a_byte_of_it_is_read() {
    let mut bytes = Frame::bare(FrameHeader::new(Command::Append, CLUSTER)).encode().concat();
    let size = u32::try_from(FRAME_BODY_BYTES_MAX + 1).expect("the limit fits 32 bits");
    bytes[76..80].copy_from_slice(&size.to_le_bytes());
    let checksum = varve_protocol::checksum::checksum(&bytes[4..96]);
    bytes[0..4].copy_from_slice(&checksum.to_le_bytes());
    assert_eq!(Frame::decode(&bytes.into()), Err(FrameError::TooLarge { size: FRAME_BODY_BYTES_MAX + 1 }));
}

#[test]
fn a_frame_of_another_version_says_so() {
    let mut bytes = Frame::bare(FrameHeader::new(Command::Append, CLUSTER)).encode().concat();
    bytes[12] = 9;
    let checksum = varve_protocol::checksum::checksum(&bytes[4..96]);
    bytes[0..4].copy_from_slice(&checksum.to_le_bytes());
    assert_eq!(Frame::decode(&bytes.into()), Err(FrameError::Version { format: 9 }));
}

//! Whatever bytes come from a network or a disk: nothing panics, nothing is allocated that was only announced, and what is taken is
//! written again as it was read.
//!
//! Checksums would keep a fuzzer from everything behind them. So they are made right here first: what is looked for is what
//! somebody could do who seals nonsense, or a bug that did.
//!
//! ```sh
//! cargo fuzz run --features libfuzzer --sanitizer none message        # or batch, stored, data_dir; in this folder's parent
//! cargo test -p fuzz                                                  # plays the corpus, and copies of it with mistakes
//! ```

mod directory;

use bytes::Bytes;
use varve_consensus::{RecoveredLog, snapshot::SnapshotBuilder};
use varve_protocol::checksum::checksum;
use varve_protocol::client::{FetchOptions, Refusal, Request, Response, decode_archive};
use varve_protocol::frame::{Body, Command, FRAME_HEADER_SIZE, Frame};
use varve_protocol::log_start::LogStart;
use varve_protocol::message::Message;
use varve_protocol::metadata::MetadataOp;
use varve_protocol::prepare::{PREPARE_HEADER_SIZE, Prepare, PrepareHeader};
use varve_protocol::pulse::Pulse;
use varve_protocol::record::Batch;
use varve_protocol::replacement::Replacement;
use varve_protocol::resume_point::ResumePoint;
use varve_protocol::snapshot::Snapshot;
use varve_protocol::version::Version;

pub use directory::data_dir;

/// Puts a number into bytes.
fn put(bytes: &mut [u8], at: usize, number: u32) {
    bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
}

/// A frame from another node or a client, whose magic, version, size and checksums are right.
pub fn message(bytes: &[u8]) {
    if bytes.len() < FRAME_HEADER_SIZE {
        return;
    }
    let mut frame = bytes.to_vec();
    let body = checksum(&frame[FRAME_HEADER_SIZE..]);
    let Ok(size) = u32::try_from(frame.len() - FRAME_HEADER_SIZE) else { return };
    put(&mut frame, 4, body);
    frame[8..12].copy_from_slice(b"VRVF");
    frame[12] = Version::FIRST.in_frame();
    put(&mut frame, 76, size);
    let sum = checksum(&frame[4..FRAME_HEADER_SIZE]);
    put(&mut frame, 0, sum);
    let Ok(frame) = Frame::decode(&frame.into()) else { return };
    if let Some(Ok(message)) = Message::from_frame(&frame) {
        let header = frame.header;
        let again = message.to_frame(header.cluster, header.group, header.voice);
        let read = Message::from_frame(&again).expect("a message is written as a message");
        assert_eq!(read.as_ref(), Ok(&message), "what is written is read alike");
    }
    if frame.header.command == Command::Pulse {
        let _ = Pulse::from_frame(&frame);
    }
    archives(&frame.body);
}

/// What clients and nodes say to each other in archives.
fn archives(body: &Body) {
    let bytes = body.to_bytes();
    let _ = decode_archive::<Request>(Command::Request, &bytes);
    let _ = decode_archive::<Response>(Command::Response, &bytes);
    let _ = decode_archive::<Refusal>(Command::Refused, &bytes);
    let _ = decode_archive::<FetchOptions>(Command::Fetch, &bytes);
    let _ = decode_archive::<MetadataOp>(Command::Request, &bytes);
}

/// A batch of records from a producer.
pub fn batch(bytes: &[u8]) {
    if let Ok(batch) = Batch::decode(Bytes::copy_from_slice(bytes)) {
        assert_eq!(batch.records().count(), batch.record_count() as usize, "a batch has the records it says");
    }
}

/// What is kept on a disk, with its checksums made right: a prepare, a snapshot, a resume point, and the bodies of entries.
pub fn stored(bytes: &[u8]) {
    let mut sealed = bytes.to_vec();
    if bytes.len() >= PREPARE_HEADER_SIZE {
        let body = checksum(&sealed[PREPARE_HEADER_SIZE..]);
        put(&mut sealed, 4, body);
        sealed[8..13].copy_from_slice(b"VRVP\x01");
        let sum = checksum(&sealed[4..PREPARE_HEADER_SIZE]);
        put(&mut sealed, 0, sum);
        let _ = PrepareHeader::decode(&sealed);
        let bytes = Bytes::from(sealed.clone());
        if let Ok(prepare) = Prepare::decode(&bytes) {
            assert_eq!(
                prepare.chunks().concat(),
                bytes[..prepare.header().total_size()],
                "it is kept as it was"
            );
        }
    }
    let _ = (Replacement::decode(bytes), LogStart::decode(bytes));
    state(bytes);
}

/// A snapshot, and a resume point around it.
fn state(bytes: &[u8]) {
    if bytes.len() < PREPARE_HEADER_SIZE {
        return;
    }
    let (header, state) = bytes.split_at(PREPARE_HEADER_SIZE);
    let mut header = header.to_vec();
    header[8..13].copy_from_slice(b"VRVP\x01");
    let sum = checksum(&header[4..]);
    put(&mut header, 0, sum);
    let Ok(header) = PrepareHeader::decode(&header) else { return };
    let snapshot = Snapshot { header, state: Bytes::copy_from_slice(state) };
    assert_eq!(Snapshot::decode(&snapshot.encode()), Some(snapshot.clone()));
    let point = ResumePoint { log_start: LogStart::FIRST, snapshot: snapshot.clone() };
    if let Some(read) = ResumePoint::decode(&point.encode()) {
        assert_eq!(read, point);
        let _ = RecoveredLog::from_resume_point(&point);
    }
    let _ = RecoveredLog::from_snapshot(&snapshot);
    if let Some(builder) = SnapshotBuilder::new(Some(&snapshot)) {
        let again = builder
            .finish(varve_consensus::snapshot::beside(&snapshot).expect("it was read"))
            .expect("it has the state it began with");
        assert!(SnapshotBuilder::new(Some(&again)).is_some(), "a state that was read is written readably");
    }
}

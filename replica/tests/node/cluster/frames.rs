//! What clients send, and what they make of the answers.

use bytes::Bytes;
use varve_protocol::client::{FetchOptions, Refusal, Request, Response, decode_archive, encode_archive};
use varve_protocol::frame::{Command, Frame, FrameHeader};
use varve_protocol::id::{GroupId, Op, ProducerId, RequestNumber};
use varve_protocol::prepare::Prepare;
use varve_protocol::record::{Batch, BatchBuilder, Record};

use super::CLUSTER;

fn header(command: Command, group: GroupId) -> FrameHeader {
    let mut header = FrameHeader::new(command, CLUSTER);
    header.group = group;
    header.correlation = 42;
    header
}

pub(crate) fn request(group: GroupId, request: &Request) -> Frame {
    Frame { header: header(Command::Request, group), body: encode_archive(request).into() }
}

pub(crate) fn append(group: GroupId, producer: ProducerId, number: u64, payloads: &[&str]) -> Frame {
    let mut builder = BatchBuilder::new(1 << 20);
    for payload in payloads {
        let payload = Bytes::copy_from_slice(payload.as_bytes());
        builder.push(&Record { payload, ..Record::default() }).expect("the records fit");
    }
    append_batch(group, producer, number, builder.finish())
}

pub(crate) fn append_batch(group: GroupId, producer: ProducerId, number: u64, batch: Bytes) -> Frame {
    let mut header = header(Command::Append, group);
    header.op = Op::new(RequestNumber::new(number).as_raw());
    header.commit = producer.as_raw();
    Frame { header, body: batch.into() }
}

pub(crate) fn fetch(group: GroupId, offset: u64, wait_ms: u32) -> Frame {
    let mut header = header(Command::Fetch, group);
    header.op = Op::new(offset);
    Frame { header, body: encode_archive(&FetchOptions { bytes_max: 200, wait_ms }).into() }
}

pub(crate) fn response(frame: &Frame) -> Response {
    assert_eq!(frame.header.command, Command::Response, "{:?}", refusal_if_any(frame));
    decode_archive(Command::Response, &frame.body.to_bytes()).expect("the response is sound")
}

pub(crate) fn refusal(frame: &Frame) -> Refusal {
    refusal_if_any(frame).expect("the answer is a refusal")
}

pub(super) fn refusal_if_any(frame: &Frame) -> Option<Refusal> {
    let is_refusal = frame.header.command == Command::Refused;
    is_refusal
        .then(|| decode_archive(Command::Refused, &frame.body.to_bytes()).expect("the refusal is sound"))
}

/// The records in the answer to a fetch, with their offsets.
pub(crate) fn payloads(frame: &Frame) -> Vec<(u64, String)> {
    let mut bytes = frame.body.to_bytes();
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let prepare = Prepare::decode(&bytes).expect("a fetched prepare is sound");
        bytes = bytes.slice(prepare.header().total_size()..);
        let batch = Batch::decode(prepare.body().clone()).expect("a fetched batch is sound");
        for (place, record) in batch.records().enumerate() {
            let text = String::from_utf8(record.payload.to_vec()).expect("the tests store text");
            found.push((prepare.header().base_offset().as_raw() + place as u64, text));
        }
    }
    found
}

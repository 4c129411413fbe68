//! The formats: golden bytes, round trips, and every truncation and every single-bit flip refused.

mod archives;
mod compressed;
mod frames;
mod golden;
mod records;

use bytes::Bytes;
use varve_protocol::id::{ClusterId, Epoch, GroupId, Offset, ProducerId, RequestNumber, Timestamp, View};
use varve_protocol::prepare::{Prepare, PrepareFields, PrepareId, PrepareKind};
use varve_protocol::version::Version;

/// A prepare whose every field differs from every other.
fn sample_prepare(body: &'static [u8]) -> Prepare {
    let parent = PrepareId { op: varve_protocol::id::Op::new(41), view: View::new(2), checksum: 0x0a0b_0c0d };
    let fields = PrepareFields {
        version: Version::FIRST,
        cluster: ClusterId::new(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff),
        group: GroupId::new(7),
        view: View::new(3),
        parent,
        epoch: Epoch::new(5),
        kind: PrepareKind::Records,
        base_offset: Offset::new(1000),
        record_count: 6,
        timestamp: Timestamp::new(1_790_000_000_000_000),
        producer: ProducerId::new(8),
        request: RequestNumber::new(9),
    };
    Prepare::seal(fields, Bytes::from_static(body))
}

/// Every way to flip one bit of `bytes`.
fn single_bit_flips(bytes: &Bytes) -> impl Iterator<Item = Bytes> + '_ {
    (0..bytes.len() * 8).map(|bit| {
        let mut flipped = bytes.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        flipped.into()
    })
}

fn hex(bytes: &[u8]) -> String {
    let line = |chunk: &[u8]| chunk.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    bytes.chunks(16).map(line).collect::<Vec<_>>().join("\n")
}

/// The bytes that lines of hexadecimal digits say.
fn unhex(lines: &str) -> Bytes {
    let digits: Vec<u8> = lines.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("digits are text"), 16);
    digits.chunks(2).map(|pair| byte(pair).expect("there are two digits to a byte")).collect()
}

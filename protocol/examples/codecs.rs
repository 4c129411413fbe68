//! What compression costs and saves: `cargo run --release -p varve-protocol --example codecs`.
//!
//! For records whose payloads do not compress at all, in part, and well, in batches of the default size and of a few records:
//! the size that is left, and the time that a producer takes to finish a batch and a node or a consumer to verify it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use varve_protocol::compression::Compression;
use varve_protocol::record::{Batch, BatchBuilder, Record};

/// How long each number is measured.
const SPAN: Duration = Duration::from_millis(500);

/// Bytes of a payload.
const PAYLOAD_SIZE: usize = 1024;

fn main() {
    println!("payloads     batch    codec   stored  finish us  decode us  decode MB/s");
    for (what, random_in_64) in [("random", 64), ("half", 32), ("text-like", 8)] {
        for records in [4, 990] {
            for compression in Compression::ALL {
                measure((what, random_in_64), records, *compression);
            }
        }
    }
}

fn measure((what, random_in_64): (&str, usize), records: u64, compression: Compression) {
    let records: Vec<Record> = (0..records).map(|number| record(number, random_in_64)).collect();
    let builder = || {
        let mut builder = BatchBuilder::new(1 << 20);
        for record in &records {
            builder.push(record).expect("the records fit");
        }
        builder
    };
    let (plain_size, bytes) = (builder().size(), builder().finish_compressed(compression));
    let mut spent = Duration::ZERO;
    let mut finished = 0;
    while spent < SPAN {
        let builder = builder();
        let began = Instant::now();
        std::hint::black_box(builder.finish_compressed(compression));
        spent += began.elapsed();
        finished += 1;
    }
    let finish_us = spent.as_secs_f64() * 1e6 / f64::from(finished);
    let began = Instant::now();
    let mut decoded = 0;
    while began.elapsed() < SPAN {
        std::hint::black_box(Batch::decode(Bytes::clone(&bytes)).expect("the batch is sound"));
        decoded += 1;
    }
    let decode_us = began.elapsed().as_secs_f64() * 1e6 / f64::from(decoded);
    let stored = bytes.len() as f64 * 100.0 / plain_size as f64;
    println!(
        "{what:<10} {plain_size:>7}  {:<5}  {stored:>6.1} %  {finish_us:>9.1}  {decode_us:>9.1}  {:>11.0}",
        compression.name(),
        plain_size as f64 / decode_us
    );
}

/// A record of whose payload so many bytes in 64 are random, and the rest the same everywhere.
fn record(number: u64, random_in_64: usize) -> Record {
    let mut payload = Vec::with_capacity(PAYLOAD_SIZE);
    while payload.len() < PAYLOAD_SIZE {
        let mixed = mix(number << 32 | payload.len() as u64).to_le_bytes();
        payload.push(if payload.len() % 64 < random_in_64 { mixed[0] } else { b'.' });
    }
    Record { payload: payload.into(), ..Record::default() }
}

/// What SplitMix64 makes of its state.
fn mix(state: u64) -> u64 {
    let mut word = state.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

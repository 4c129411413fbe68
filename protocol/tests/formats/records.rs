//! Record batches: what goes in comes out, and a batch that lies about itself is refused without a panic.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use varve_protocol::id::Timestamp;
use varve_protocol::limits::RECORD_BYTES_MAX;
use varve_protocol::record::{
    BATCH_HEADER_SIZE, Batch, BatchBuilder, BatchError, HeaderKind, HeaderValue, Headers, RECORD_HEADER_SIZE,
    Record,
};

use crate::single_bit_flips;

/// A header of any kind; its number, as often as it is one.
fn any_header() -> impl Strategy<Value = (String, HeaderKind, String)> {
    let kind = proptest::sample::select(HeaderKind::ALL);
    (".{1,8}", kind, any::<i8>()).prop_map(|(key, kind, number)| {
        let text = if kind == HeaderKind::Bool { (number > 0).to_string() } else { number.to_string() };
        (key, kind, text)
    })
}

fn any_headers() -> impl Strategy<Value = Headers> {
    proptest::collection::vec(any_header(), 0..6).prop_map(|drawn| {
        let mut headers = Headers::new();
        let mut model = BTreeMap::new();
        for (key, kind, text) in &drawn {
            let value = kind.parse(text).unwrap_or(HeaderValue::String(text));
            headers.insert(key, value).expect("a small header fits");
            model.insert(key.as_str(), value);
        }
        assert!(headers.iter().eq(model.iter().map(|(key, value)| (*key, *value))), "headers are a map");
        assert!(model.iter().all(|(key, value)| headers.get(key) == Some(*value)));
        headers
    })
}

pub(crate) fn any_record() -> impl Strategy<Value = Record> {
    let bytes = |max| proptest::collection::vec(any::<u8>(), 0..max).prop_map(Bytes::from);
    (any::<u64>(), proptest::option::of(bytes(20)), any_headers(), bytes(200)).prop_map(
        |(time, key, headers, payload)| Record { timestamp: Timestamp::new(time), key, headers, payload },
    )
}

pub(crate) fn builder_of(records: &[Record]) -> BatchBuilder {
    let mut builder = BatchBuilder::new(1 << 20);
    for record in records {
        builder.push(record).expect("the records fit");
    }
    builder
}

fn batch_of(records: &[Record]) -> Bytes {
    builder_of(records).finish()
}

/// Reads all there is to read.
pub(crate) fn read_all(batch: &Batch) -> usize {
    batch.records().map(|record| record.headers.iter().count()).sum()
}

proptest! {
    #[test]
    fn what_goes_in_comes_out(records in proptest::collection::vec(any_record(), 1..50)) {
        let batch = Batch::decode(batch_of(&records)).expect("a built batch is sound");
        prop_assert_eq!(batch.records().collect::<Vec<_>>(), records);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(batch) = Batch::decode(bytes.into()) {
            read_all(&batch);
        }
    }

    #[test]
    fn no_damage_makes_it_panic(
        records in proptest::collection::vec(any_record(), 1..5),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = batch_of(&records).to_vec();
        for (place, byte) in damage {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if let Ok(batch) = Batch::decode(bytes.into()) {
            prop_assert_eq!(batch.records().count(), batch.record_count() as usize);
            read_all(&batch);
        }
    }
}

fn samples() -> [Record; 2] {
    let mut headers = Headers::new();
    headers.insert("trace", "a1b2").expect("the header fits");
    headers.insert("hops", 3_u16).expect("the header fits");
    headers.insert("is_replay", false).expect("the header fits");
    [
        Record { key: Some("key".into()), headers, payload: "one".into(), ..Record::default() },
        Record::default(),
    ]
}

#[test]
fn every_cut_is_refused() {
    let bytes = batch_of(&samples());
    for length in 0..bytes.len() {
        assert!(Batch::decode(bytes.slice(..length)).is_err(), "cut to {length} bytes");
    }
}

#[test]
fn a_flipped_bit_is_refused_or_leaves_something_sound() {
    let bytes = batch_of(&samples());
    let mut refused = 0;
    for flipped in single_bit_flips(&bytes) {
        match Batch::decode(flipped.clone()) {
            Ok(batch) => {
                read_all(&batch);
                let again = batch_of(&batch.records().collect::<Vec<_>>());
                assert_eq!(again, flipped, "what is sound is written as it was read");
            }
            Err(_) => refused += 1,
        }
    }
    // The rest are bits of keys, values, payloads and timestamps.
    assert!(refused > bytes.len() * 4, "{refused} of {}", bytes.len() * 8);
}

#[test]
fn an_empty_batch_is_refused() {
    assert!(Batch::decode(BatchBuilder::new(1024).finish()).is_err());
}

#[test]
fn a_record_goes_in_up_to_its_limit_and_not_beyond() {
    let largest = RECORD_BYTES_MAX - RECORD_HEADER_SIZE;
    let record = |size: usize| Record { payload: vec![7; size].into(), ..Record::default() };
    let mut builder = BatchBuilder::new(2 << 20);
    builder.push(&record(largest)).expect("a record at the limit fits");
    let refused = builder.push(&record(largest + 1));
    assert_eq!(refused, Err(BatchError::RecordTooLarge { size: RECORD_BYTES_MAX + 1 }));
    assert_eq!(Batch::decode(builder.finish()).expect("the batch is sound").record_count(), 1);
}

#[test]
fn a_full_batch_says_so_and_stays_whole() {
    let record = Record { payload: vec![7; 100].into(), ..Record::default() };
    let mut builder = BatchBuilder::new(BATCH_HEADER_SIZE + 2 * record.encoded_size());
    assert_eq!([0; 3].map(|_| builder.push(&record)), [Ok(()), Ok(()), Err(BatchError::Full)]);
    assert_eq!(Batch::decode(builder.finish()).expect("the batch is sound").record_count(), 2);
}

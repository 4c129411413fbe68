//! Record batches: what goes in comes out, and a batch that lies about itself is refused without a panic.

use bytes::Bytes;
use proptest::prelude::*;
use varve_protocol::id::Timestamp;
use varve_protocol::limits::RECORD_BYTES_MAX;
use varve_protocol::record::{
    BATCH_HEADER_SIZE, Batch, BatchBuilder, BatchError, RECORD_HEADER_SIZE, Record,
};

fn any_record() -> impl Strategy<Value = Record> {
    let bytes = |max| proptest::collection::vec(any::<u8>(), 0..max).prop_map(Bytes::from);
    (any::<u64>(), proptest::option::of(bytes(20)), bytes(200)).prop_map(|(time, key, payload)| Record {
        timestamp: Timestamp::new(time),
        key,
        payload,
    })
}

fn batch_of(records: &[Record]) -> Bytes {
    let mut builder = BatchBuilder::new(1 << 20);
    for record in records {
        builder.push(record).expect("the records fit");
    }
    builder.finish()
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
            batch.records().for_each(drop);
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
        }
    }
}

#[test]
fn every_cut_is_refused() {
    let bytes = batch_of(&[Record { payload: "one".into(), ..Record::default() }, Record::default()]);
    for length in 0..bytes.len() {
        assert!(Batch::decode(bytes.slice(..length)).is_err(), "cut to {length} bytes");
    }
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

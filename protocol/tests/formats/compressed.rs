//! Compressed batches: what goes in comes out, and damage, bombs and lies about sizes are refused without a panic.

use bytes::{BufMut as _, Bytes, BytesMut};
use proptest::prelude::*;
use varve_protocol::compression::Compression;
use varve_protocol::limits::{BATCH_BYTES_MAX, RECORD_BYTES_MAX};
use varve_protocol::record::{
    BATCH_HEADER_SIZE, Batch, BatchBuilder, BatchError, RECORD_HEADER_SIZE, Record,
};

use crate::records::{any_record, builder_of, read_all};
use crate::single_bit_flips;

const CODECS: [Compression; 2] = [Compression::Lz4, Compression::Zstd];

fn any_codec() -> impl Strategy<Value = Compression> {
    proptest::sample::select(Compression::ALL)
}

/// Bytes of the sample records.
const SIZE: u32 = 8 * 64;

/// Records that compress in part.
fn samples() -> Vec<Record> {
    let payload = |number: u8| Bytes::from(vec![number.wrapping_mul(77); 64 - RECORD_HEADER_SIZE]);
    (0..8).map(|number| Record { payload: payload(number), ..Record::default() }).collect()
}

fn repeated(records: &[Record], times: usize) -> Vec<Record> {
    records.iter().cycle().take(records.len() * times).cloned().collect()
}

/// A batch that says this of its records, over these bytes.
fn forged(compression: u8, (record_count, records_size): (u32, u32), stored: &[u8]) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u32_le(record_count);
    bytes.put_u32_le(records_size);
    bytes.put_slice(&[1, compression, 0, 0, 0, 0, 0, 0]);
    bytes.put_slice(stored);
    bytes.freeze()
}

/// The compressed part of a sound batch of these records, in either codec.
fn stored(records: &[Record], compression: Compression) -> Bytes {
    let bytes = builder_of(records).finish_compressed(compression);
    assert_ne!(bytes[9], 0, "it was compressed");
    bytes.slice(BATCH_HEADER_SIZE..)
}

proptest! {
    #[test]
    fn what_goes_in_comes_out(
        records in proptest::collection::vec(any_record(), 1..50),
        compression in any_codec(),
        repeats in 1_usize..4,
    ) {
        let records = repeated(&records, repeats);
        let plain = builder_of(&records).finish();
        let bytes = builder_of(&records).finish_compressed(compression);
        prop_assert!(bytes.len() <= plain.len());
        let batch = Batch::decode(bytes.clone()).expect("a built batch is sound");
        prop_assert_eq!(batch.records().collect::<Vec<_>>(), records);
        prop_assert_eq!(batch.records_size(), plain.len() - BATCH_HEADER_SIZE);
        let stored = if bytes.len() < plain.len() { compression } else { Compression::None };
        prop_assert_eq!(batch.compression(), stored);
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(
        compression in 1_u8..=2,
        sizes in (1_u32..10, 24_u32..5_000),
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        is_framed in any::<bool>(),
    ) {
        let magic: &[u8] = if is_framed { &[0x28, 0xb5, 0x2f, 0xfd, 0x20] } else { &[] };
        let forged = forged(compression, sizes, &[magic, &bytes].concat());
        if let Ok(batch) = Batch::decode(forged) {
            read_all(&batch);
        }
    }

    #[test]
    fn no_damage_makes_a_decoder_panic(
        records in proptest::collection::vec(any_record(), 1..8),
        compression in any_codec(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = builder_of(&repeated(&records, 3)).finish_compressed(compression).to_vec();
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

#[test]
fn every_cut_is_refused_and_no_flipped_bit_makes_a_batch_that_cannot_be_read() {
    for compression in CODECS {
        let bytes = builder_of(&samples()).finish_compressed(compression);
        for length in 0..bytes.len() {
            assert!(Batch::decode(bytes.slice(..length)).is_err(), "{compression}: cut to {length} bytes");
        }
        let mut refused = 0;
        for flipped in single_bit_flips(&bytes) {
            match Batch::decode(flipped) {
                Ok(batch) => drop(read_all(&batch)),
                Err(_) => refused += 1,
            }
        }
        assert!(refused > bytes.len() * 4, "{compression}: {refused} of {}", bytes.len() * 8);
    }
}

#[test]
fn damaged_data_are_refused_by_the_name_of_their_codec() {
    for compression in CODECS {
        let stored = stored(&samples(), compression);
        let number = if compression == Compression::Lz4 { 1 } else { 2 };
        let error = BatchError::Compressed { compression, size: SIZE as usize };
        let refused = Err(error);
        let cut = &stored[..stored.len() - 1];
        assert_eq!(Batch::decode(forged(number, (8, SIZE), cut)), refused, "cut");
        assert_eq!(Batch::decode(forged(number, (8, SIZE), &[])), refused, "nothing");
        let other = forged(3 - number, (8, SIZE), &stored);
        let other_codec = CODECS[usize::from(number == 1)];
        assert_eq!(
            Batch::decode(other),
            Err(BatchError::Compressed { compression: other_codec, size: SIZE as usize })
        );
        let text = error.to_string();
        assert!(text.contains(compression.name()), "{text}");
    }
}

#[test]
fn what_does_not_hold_what_it_announces_is_refused() {
    for compression in CODECS {
        let stored = stored(&samples(), compression);
        let number = if compression == Compression::Lz4 { 1 } else { 2 };
        assert!(Batch::decode(forged(number, (8, SIZE), &stored)).is_ok(), "as it is, it is sound");
        for announced in [SIZE - 1, SIZE + 1, SIZE / 2, SIZE * 2] {
            let refused = Err(BatchError::Compressed { compression, size: announced as usize });
            assert_eq!(Batch::decode(forged(number, (8, announced), &stored)), refused);
        }
        for count in [1, 7, 9, 21] {
            assert!(Batch::decode(forged(number, (count, SIZE), &stored)).is_err(), "{count} records");
        }
        // There is no room for so many, whatever the data hold.
        for count in [0, 22, u32::MAX] {
            let refused = Err(BatchError::Field { field: "record_count", record: 0 });
            assert_eq!(Batch::decode(forged(number, (count, SIZE), &[0; 40])), refused, "{count} records");
        }
    }
}

#[test]
fn what_compression_has_not_made_smaller_is_refused() {
    let records = builder_of(&[Record::default()]).finish().slice(BATCH_HEADER_SIZE..);
    let lz4 = [&[0xf0, 24 - 15], records.as_ref()].concat();
    let zstd = [&[0x28, 0xb5, 0x2f, 0xfd, 0x20, 24, 24 << 3 | 1, 0, 0], records.as_ref()].concat();
    for (compression, stored) in CODECS.into_iter().zip([lz4, zstd]) {
        let number = if compression == Compression::Lz4 { 1 } else { 2 };
        let refused = Err(BatchError::Compressed { compression, size: records.len() });
        assert_eq!(Batch::decode(forged(number, (1, 24), &stored)), refused);
    }
}

#[test]
fn records_that_are_unsound_once_they_are_decompressed_are_refused() {
    let mut inside = vec![0; 600];
    inside[0] = 5;
    let lz4 = lz4_flex::block::compress(&inside);
    let zstd = zstd::bulk::compress(&inside, 1).expect("it compresses");
    for (number, stored) in [(1, lz4), (2, zstd)] {
        let refused = Batch::decode(forged(number, (1, 600), &stored));
        assert_eq!(refused, Err(BatchError::Field { field: "size", record: 0 }));
    }
}

#[test]
fn a_bomb_is_refused_before_anything_is_allocated_for_it() {
    for number in [1, 2] {
        let largest = u32::try_from(BATCH_BYTES_MAX - BATCH_HEADER_SIZE).expect("the limit fits");
        for size in [largest + 1, u32::MAX] {
            let refused = Batch::decode(forged(number, (1, size), &[0; 40]));
            assert_eq!(refused, Err(BatchError::TooLarge { size: size as usize }));
        }
        let tried = Batch::decode(forged(number, (1, largest), &[0; 40]));
        assert!(matches!(tried, Err(BatchError::Compressed { .. })), "{tried:?}");
    }
    // Sound in all but its size.
    let record =
        Record { payload: vec![0; RECORD_BYTES_MAX - RECORD_HEADER_SIZE].into(), ..Record::default() };
    let mut builder = BatchBuilder::new(2 << 20);
    builder.push(&record).expect("a record at the limit fits");
    let records = builder.finish().slice(BATCH_HEADER_SIZE..).repeat(17);
    let size = u32::try_from(records.len()).expect("that fits");
    let bomb = forged(1, (17, size), &lz4_flex::block::compress(&records));
    assert!(bomb.len() < 100_000);
    assert_eq!(Batch::decode(bomb), Err(BatchError::TooLarge { size: size as usize }));
}

#[test]
fn the_largest_batch_is_compressed_and_comes_back() {
    let record =
        Record { payload: vec![0; RECORD_BYTES_MAX - RECORD_HEADER_SIZE].into(), ..Record::default() };
    for compression in CODECS {
        let mut builder = BatchBuilder::new(BATCH_BYTES_MAX);
        while builder.push(&record).is_ok() {}
        assert!(builder.size() > BATCH_BYTES_MAX - RECORD_BYTES_MAX);
        let (size, count) = (builder.size(), builder.record_count());
        let batch = Batch::decode(builder.finish_compressed(compression)).expect("it is sound");
        assert_eq!((batch.records_size(), batch.record_count()), (size - BATCH_HEADER_SIZE, count));
        assert!(batch.records().all(|found| found == record));
    }
}

#[test]
fn a_compression_of_another_build_is_named() {
    let refused = Batch::decode(forged(3, (1, 24), &[0; 24])).expect_err("nobody knows it");
    assert_eq!(refused, BatchError::Compression { number: 3 });
    assert_eq!(refused.to_string(), "batch compression 3 is unknown to this build");
}

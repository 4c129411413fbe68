//! What stands in a record: its value, and a filling and headers that follow from the value, so that a garbled record is
//! noticed. The filling compresses in part.

use rand::{Rng as _, RngCore as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use varve_client::{Headers, Record};

/// Bytes of the value in front.
const VALUE_SIZE: usize = 8;

/// Bytes of filling at most; few records are that large.
const FILLING_MAX: usize = 8_000;

/// Bytes of which the second half is zero.
const STRIPE_SIZE: usize = 64;

/// What a garbled record is taken for: nobody sends that.
pub(super) const GARBLED: u64 = u64::MAX;

/// The payload of a value.
pub(super) fn payload(value: u64) -> Vec<u8> {
    let mut rng = ChaCha8Rng::seed_from_u64(value);
    let largest = if rng.random_ratio(1, 10) { FILLING_MAX } else { FILLING_MAX / 10 };
    let mut bytes = vec![0; VALUE_SIZE + rng.random_range(0..largest)];
    let (front, filling) = bytes.split_at_mut(VALUE_SIZE);
    front.copy_from_slice(&value.to_le_bytes());
    for stripe in filling.chunks_mut(STRIPE_SIZE) {
        let half = stripe.len().min(STRIPE_SIZE / 2);
        rng.fill_bytes(&mut stripe[..half]);
    }
    bytes
}

/// The headers of a value: each second one has some.
pub(super) fn headers(value: u64) -> Headers {
    let mut headers = Headers::new();
    if value % 2 == 1 {
        headers.insert("value", value).expect("a short header fits a record");
        headers.insert("words", value.to_string().as_str()).expect("a short header fits a record");
    }
    headers
}

/// The value of a record, or [`GARBLED`].
pub(super) fn value(record: &Record) -> u64 {
    let value = record.payload.first_chunk().map(|front| u64::from_le_bytes(*front));
    let is_sound = |value: &u64| payload(*value) == record.payload && headers(*value) == record.headers;
    value.filter(is_sound).unwrap_or(GARBLED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbled_payloads_are_noticed() {
        for original in [0, 1, 77, 1 << 40] {
            let bytes = payload(original);
            let record = |payload: &[u8]| Record {
                headers: headers(original),
                payload: payload.to_vec().into(),
                ..Record::default()
            };
            assert_eq!(value(&record(&bytes)), original);
            for place in [0, VALUE_SIZE, bytes.len() - 1] {
                let mut garbled = bytes.clone();
                garbled[place] ^= 4;
                assert_eq!(value(&record(&garbled)), GARBLED);
            }
            assert_eq!(value(&record(&bytes[..bytes.len() - 1])), GARBLED);
            let mut other = record(&bytes);
            other.headers.insert("value", original + 1).unwrap();
            assert_eq!(value(&other), GARBLED);
        }
        assert_eq!(value(&Record::default()), GARBLED);
    }
}

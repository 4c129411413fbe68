//! A fixed rate: record `k` of a load is due `k / rate` after its start, whatever became of those before it.

use std::time::Duration;

/// Reads a number of records per second.
pub(crate) fn parse(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.001..=1e9).contains(&rate) => Ok(rate),
        Ok(_) => Err("a rate is at least 0.001; leave it out to go as fast as possible".to_owned()),
        Err(_) => Err("a rate is a number of records per second, such as `20000`".to_owned()),
    }
}

/// When a record of a load is due, from its start.
pub(crate) fn due(rate: f64, record: u64) -> Duration {
    Duration::from_secs_f64(record as f64 / rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_numbers_above_zero() {
        assert_eq!(parse("20000"), Ok(20_000.0));
        assert_eq!(parse("0.5"), Ok(0.5));
        for wrong in ["0", "-1", "NaN", "inf", "1k", ""] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}

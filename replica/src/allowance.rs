//! How much a node may send of old prepares to replicas that catch up: so many bytes a second, a tenth of a second's worth ahead.
//!
//! Who asks for more than that is not answered, and asks again by itself. What is in flight in a group is none of this: a replica
//! that is only a little behind, or a primary that installs its view, is never kept waiting.

use std::time::Duration;

use varve_protocol::time::Moment;

/// The longest time that is saved up for.
const SAVED_UP: Duration = Duration::from_millis(100);

/// Bytes that may be sent, growing with time. What is answered is answered whole, so it may be overdrawn, and is paid off before
/// anything else is sent.
#[derive(Debug)]
pub(crate) struct Allowance {
    /// Zero: no limit.
    bytes_per_second: u64,
    /// What may be sent; below zero if it is overdrawn.
    bytes: i128,
    /// As of when.
    at: Moment,
}

impl Allowance {
    pub(crate) fn new(bytes_per_second: u64, now: Moment) -> Self {
        let mut allowance = Self { bytes_per_second, bytes: 0, at: now };
        allowance.bytes = allowance.bytes_in(SAVED_UP);
        allowance
    }

    fn bytes_in(&self, time: Duration) -> i128 {
        let nanos =
            i128::from(self.bytes_per_second) * i128::try_from(time.as_nanos()).unwrap_or(i128::MAX >> 64);
        nanos / 1_000_000_000
    }

    /// Whether anything may be sent now.
    pub(crate) fn is_left(&mut self, now: Moment) -> bool {
        if self.bytes_per_second == 0 {
            return true;
        }
        let earned = self.bytes_in(now.since(self.at.min(now)));
        // Too short a time to earn a byte is not forgotten.
        if earned > 0 {
            self.at = now;
            self.bytes = (self.bytes + earned).min(self.bytes_in(SAVED_UP));
        }
        self.bytes > 0
    }

    /// So much is sent.
    pub(crate) fn spend(&mut self, bytes: usize) {
        if self.bytes_per_second > 0 {
            self.bytes -= bytes as i128;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::ZERO.plus(Duration::from_millis(millis))
    }

    #[test]
    fn what_is_overdrawn_is_paid_off_first() {
        let mut allowance = Allowance::new(1_000, at(0));
        assert!(allowance.is_left(at(0)), "a hundred bytes are there from the start");
        allowance.spend(600);
        assert!(!allowance.is_left(at(499)));
        assert!(!allowance.is_left(at(500)), "nothing is owed, and nothing is left");
        assert!(allowance.is_left(at(501)));
    }

    #[test]
    fn no_more_is_saved_up_than_a_tenth_of_a_second_earns() {
        let mut allowance = Allowance::new(1_000, at(0));
        assert!(allowance.is_left(at(60_000)));
        allowance.spend(100);
        assert!(!allowance.is_left(at(60_000)));
    }

    #[test]
    fn whoever_asks_often_earns_as_much() {
        let mut allowance = Allowance::new(1_000, at(0));
        allowance.spend(200);
        let micros = |micros| Moment::ZERO.plus(Duration::from_micros(micros));
        let first = (0..1_000_000).step_by(10).find(|time| allowance.is_left(micros(*time)));
        assert_eq!(first, Some(101_000), "a hundred bytes were owed");
    }

    #[test]
    fn zero_is_no_limit() {
        let mut allowance = Allowance::new(0, at(0));
        allowance.spend(usize::MAX);
        assert!(allowance.is_left(at(0)));
    }
}

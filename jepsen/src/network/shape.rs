//! How what a node sends is bad: in the words of the kernel's netem, or carried out by the harness itself.

use std::fmt;
use std::time::Duration;

use rand::Rng as _;
use rand_chacha::ChaCha8Rng;

/// How packets fare; all zero is a good network.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Shape {
    pub(crate) delay_ms: u32,
    /// More or less delay, each packet by itself, so that they overtake each other.
    pub(crate) jitter_ms: u32,
    pub(crate) loss_percent: u32,
    pub(crate) duplicate_percent: u32,
    pub(crate) corrupt_percent: u32,
    /// So many of them are not delayed.
    pub(crate) reorder_percent: u32,
    /// Kilobits per second; zero: as fast as it goes.
    pub(crate) rate_kbit: u32,
}

impl fmt::Display for Shape {
    /// As netem takes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Vec::new();
        match (self.delay_ms, self.jitter_ms) {
            (0, _) => {}
            (delay, 0) => words.push(format!("delay {delay}ms")),
            (delay, jitter) => words.push(format!("delay {delay}ms {jitter}ms")),
        }
        let percents = [
            ("loss", self.loss_percent),
            ("duplicate", self.duplicate_percent),
            ("corrupt", self.corrupt_percent),
            ("reorder", self.reorder_percent),
        ];
        words
            .extend(percents.into_iter().filter(|(_, of)| *of > 0).map(|(word, of)| format!("{word} {of}%")));
        if self.rate_kbit > 0 {
            words.push(format!("rate {}kbit", self.rate_kbit));
        }
        f.write_str(&words.join(" "))
    }
}

/// What becomes of one packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Fate {
    /// When each copy arrives, from now on; none if it is lost.
    pub(super) copies: Vec<Duration>,
    /// A bit of it is flipped.
    pub(super) is_corrupt: bool,
}

impl Shape {
    /// Draws what becomes of a packet that has to wait so long for those before it.
    pub(super) fn fate(&self, queue: Duration, rng: &mut ChaCha8Rng) -> Fate {
        let mut hits = |percent: u32| rng.random_range(0..100) < percent;
        let (is_lost, is_doubled) = (hits(self.loss_percent), hits(self.duplicate_percent));
        let (is_corrupt, is_early) = (hits(self.corrupt_percent), hits(self.reorder_percent));
        let mut copy = || {
            let jitter = self.jitter_ms.min(self.delay_ms);
            let delay = self.delay_ms - jitter + rng.random_range(0..=2 * jitter);
            queue + Duration::from_millis(if is_early { 0 } else { delay.into() })
        };
        let copies = match (is_lost, is_doubled) {
            (true, _) => Vec::new(),
            (false, false) => vec![copy()],
            (false, true) => vec![copy(), copy()],
        };
        Fate { copies, is_corrupt }
    }

    /// How long sending so many bytes takes.
    pub(super) fn takes(&self, bytes: usize) -> Duration {
        match self.rate_kbit {
            0 => Duration::ZERO,
            rate => Duration::from_secs_f64(bytes as f64 * 8.0 / (f64::from(rate) * 1_000.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn shapes_are_what_netem_takes() {
        let shape = Shape { delay_ms: 20, jitter_ms: 5, loss_percent: 3, ..Shape::default() };
        assert_eq!(shape.to_string(), "delay 20ms 5ms loss 3%");
        assert_eq!(Shape { rate_kbit: 500, ..Shape::default() }.to_string(), "rate 500kbit");
    }

    #[test]
    fn packets_fare_as_the_shape_says() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut fates =
            |shape: Shape| (0..1_000).map(|_| shape.fate(Duration::ZERO, &mut rng)).collect::<Vec<_>>();
        assert!(
            fates(Shape::default()).iter().all(|fate| fate.copies == [Duration::ZERO] && !fate.is_corrupt)
        );
        let lossy = fates(Shape { loss_percent: 20, ..Shape::default() });
        let lost = lossy.iter().filter(|fate| fate.copies.is_empty()).count();
        assert!((100..300).contains(&lost), "{lost} of 1000 are lost");
        let late = fates(Shape { delay_ms: 20, jitter_ms: 5, reorder_percent: 50, ..Shape::default() });
        let delays = late.iter().flat_map(|fate| fate.copies.clone()).collect::<Vec<_>>();
        assert!(delays.iter().all(|delay| delay.is_zero() || (15..=25).contains(&delay.as_millis())));
        assert!(delays.iter().any(Duration::is_zero) && delays.iter().any(|delay| !delay.is_zero()));
        let doubled = fates(Shape { duplicate_percent: 100, ..Shape::default() });
        assert!(doubled.iter().all(|fate| fate.copies.len() == 2));
    }

    #[test]
    fn a_rate_takes_its_time() {
        let slow = Shape { rate_kbit: 1_000, ..Shape::default() };
        assert_eq!(slow.takes(1_250), Duration::from_millis(10));
        assert_eq!(Shape::default().takes(1_250), Duration::ZERO);
    }
}

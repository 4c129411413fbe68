//! Wrong clocks: the wall clocks of some nodes jump, go to and fro, or go too fast or too slow.

use std::time::Duration;

use rand::Rng as _;
use rand::seq::IteratorRandom as _;
use rand_chacha::ChaCha8Rng;
use tokio::time::Instant;

use super::kind::Clock;
use super::{BUSY, Fault, Needs, Struck};
use crate::cluster::Ahead;
use crate::recorder::Phase;

/// How long a clock that goes to and fro is as it is.
const STROBE_MS: std::ops::Range<u64> = 5..300;

/// Between two corrections of a clock that drifts.
const DRIFT_STEP: Duration = Duration::from_millis(20);

/// How wrong a clock is: from a millisecond to five minutes, each power of ten as often.
const WRONG_EXPONENT: std::ops::Range<f64> = 0.0..5.48;

/// How much faster or slower a clock goes that drifts: far more than any does, for a run is short.
const DRIFT_PER_MILLE: std::ops::RangeInclusive<i64> = 1..=900;

/// A wrong clock: which node has it, and how it is wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Wrong {
    node: u8,
    /// Milliseconds; for one that drifts, per thousand seconds.
    by: i64,
}

impl Fault {
    pub(super) async fn clock(&mut self, clock: Clock) -> Struck {
        let needs = Needs { clocks: true, ..Needs::default() };
        let Some(_hold) = self.nemesis.take(needs) else { return Ok(Err(BUSY.to_owned())) };
        let count = self.rng.random_range(1..=self.cluster().ids().count());
        let nodes = self.cluster().ids().choose_multiple(&mut self.rng, count);
        let wrong: Vec<Wrong> =
            nodes.into_iter().map(|node| Wrong { node, by: draw(clock, &mut self.rng) }).collect();
        let list: Vec<String> = wrong.iter().map(|wrong| words(clock, *wrong)).collect();
        self.note(Phase::Begin, list.join(", "));
        match clock {
            Clock::Jump => {
                self.set(&wrong, |wrong| wrong.by)?;
                self.last().await;
            }
            Clock::Strobe => self.strobe(&wrong).await?,
            Clock::Drift => self.drift(&wrong).await?,
        }
        self.set(&wrong, |_| 0)?;
        self.note(Phase::End, "all clocks are right");
        Ok(Ok(()))
    }

    async fn strobe(&mut self, wrong: &[Wrong]) -> anyhow::Result<()> {
        let end = self.ends_at();
        while self.goes_on_until(end) {
            self.set(wrong, |wrong| wrong.by)?;
            self.nemesis.wait(Duration::from_millis(self.rng.random_range(STROBE_MS))).await;
            self.set(wrong, |_| 0)?;
            self.nemesis.wait(Duration::from_millis(self.rng.random_range(STROBE_MS))).await;
        }
        Ok(())
    }

    async fn drift(&self, wrong: &[Wrong]) -> anyhow::Result<()> {
        let (start, end) = (Instant::now(), self.ends_at());
        while self.goes_on_until(end) {
            let elapsed = i64::try_from(start.elapsed().as_millis()).unwrap_or(i64::MAX);
            self.set(wrong, |wrong| elapsed.saturating_mul(wrong.by) / 1_000)?;
            self.nemesis.wait(DRIFT_STEP).await;
        }
        Ok(())
    }

    fn ends_at(&self) -> Instant {
        Instant::now() + Duration::from_millis(self.planned.lasts_ms)
    }

    fn goes_on_until(&self, end: Instant) -> bool {
        Instant::now() < end && !*self.nemesis.over.borrow()
    }

    fn set(&self, wrong: &[Wrong], ahead_ms: impl Fn(Wrong) -> i64) -> anyhow::Result<()> {
        wrong.iter().try_for_each(|wrong| self.cluster().set_clock(wrong.node, Ahead(ahead_ms(*wrong))))
    }
}

fn draw(clock: Clock, rng: &mut ChaCha8Rng) -> i64 {
    let size = match clock {
        Clock::Drift => rng.random_range(DRIFT_PER_MILLE),
        Clock::Jump | Clock::Strobe => {
            let ms = Duration::from_secs_f64(10_f64.powf(rng.random_range(WRONG_EXPONENT)) / 1_000.0);
            i64::try_from(ms.as_millis()).unwrap_or(i64::MAX).max(1)
        }
    };
    if rng.random() { size } else { -size }
}

fn words(clock: Clock, Wrong { node, by }: Wrong) -> String {
    match clock {
        Clock::Jump => format!("the clock of node {node} jumps by {by} ms"),
        Clock::Strobe => format!("the clock of node {node} jumps to and fro by {by} ms"),
        Clock::Drift => format!("the clock of node {node} gains {by} ms each second"),
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn clocks_are_wrong_by_much_and_by_little_and_both_ways() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let drawn: Vec<i64> = (0..400).map(|_| draw(Clock::Jump, &mut rng)).collect();
        assert!(drawn.iter().all(|by| (1..=302_000).contains(&by.abs())));
        let share = |is_one: fn(i64) -> bool| drawn.iter().filter(|by| is_one(**by)).count();
        assert!(share(|by| by.abs() < 10) > 20 && share(|by| by.abs() > 60_000) > 20);
        assert!(share(|by| by < 0) > 100 && share(|by| by > 0) > 100);
    }
}

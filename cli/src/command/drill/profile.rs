//! Latencies around the event, all rounds on top of each other: the shape of a failover, for the page.

use std::time::Duration;

use super::report::Profile;
use super::timeline::{Sample, ms};

/// How wide a step is.
const STEP: Duration = Duration::from_millis(50);

/// How far it reaches before the event.
const BEFORE: Duration = Duration::from_secs(1);

/// How far it reaches after it.
const AFTER: Duration = Duration::from_secs(4);

/// Sums by step.
#[derive(Clone, Debug)]
pub(super) struct Profiler {
    steps: Vec<Step>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Step {
    count: u32,
    sum: Duration,
    max: Duration,
}

impl Profiler {
    pub(super) fn new() -> Self {
        let count = (BEFORE + AFTER).as_millis() / STEP.as_millis();
        Self { steps: vec![Step::default(); usize::try_from(count).expect("a few seconds have few steps")] }
    }

    /// Counts the samples of one round.
    pub(super) fn count(&mut self, samples: &[Sample], event: Duration) {
        for Sample { due, done } in samples {
            let Some(since) = (*due + BEFORE).checked_sub(event) else { continue };
            let place = usize::try_from(since.as_millis() / STEP.as_millis()).unwrap_or(usize::MAX);
            if let Some(step) = self.steps.get_mut(place) {
                let latency = done.saturating_sub(*due);
                step.count += 1;
                step.sum += latency;
                step.max = step.max.max(latency);
            }
        }
    }

    /// In numbers.
    pub(super) fn told(&self) -> Profile {
        let seen = |number: &dyn Fn(&Step) -> f64| {
            self.steps.iter().map(|step| (step.count > 0).then(|| number(step))).collect()
        };
        Profile {
            from_ms: -ms(BEFORE),
            step_ms: ms(STEP),
            mean_ms: seen(&|step| ms(step.sum) / f64::from(step.count)),
            max_ms: seen(&|step| ms(step.max)),
        }
    }
}

/// Where the event lies within it, as a part of the whole.
pub(super) fn place_of_event() -> f64 {
    BEFORE.as_secs_f64() / (BEFORE + AFTER).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_lie_on_top_of_each_other() {
        let ms = Duration::from_millis;
        let mut profiler = Profiler::new();
        for (event, latency) in [(5_000, 10), (9_000, 30)] {
            let at = |due: u64| Sample { due: ms(due), done: ms(due + latency) };
            profiler.count(&[at(event - 2_000), at(event - 1_000), at(event), at(event + 3_999)], ms(event));
            profiler.count(&[at(event + 4_000)], ms(event));
        }
        let told = profiler.told();
        assert_eq!((told.mean_ms.len(), told.mean_ms[0], told.max_ms[0]), (100, Some(20.0), Some(30.0)));
        assert_eq!((told.mean_ms[20], told.mean_ms[99], told.mean_ms[50]), (Some(20.0), Some(20.0), None));
        assert_eq!(told.mean_ms.iter().flatten().count(), 3, "what lies outside is left out");
        assert_eq!(place_of_event(), 20.0 / 100.0);
    }
}

//! Takes from a scenario whatever it fails without, until nothing more can be taken.
//!
//! ```text
//!   ┌─▶ end the faults sooner ──▶ ddmin over parts ──▶ smaller numbers ──▶ ddmin over strikes ─┐
//!   └──────────────────────────── as long as a round took something away ◀─────────────────────┘
//! ```
//!
//! Numbers come before single strikes: with few nodes and clients a universe is played sooner, and there are many to play.
//!
//! A scenario that has lost something is another universe: clients draw other things, frames meet other faults. So it counts
//! only if it breaks the same promise, and a panic only if it is at the same place. And what fails by a coincidence passes
//! without things that have nothing to do with it, because the coincidence is gone. So when nothing more can be taken, each
//! try is repeated with a few other seeds behind the same scenario: shaken.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use super::ddmin::ddmin;
use super::part::{Part, SHRINKS, keep_strikes, with_end};
use crate::report::{Report, Verdict};
use crate::scenario::Scenario;

/// What a universe failed by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// The broken promise, in a few stable words.
    pub property: &'static str,
    /// Where the code stopped, if it did: file, line and column.
    pub place: Option<String>,
    /// When, since the start.
    pub at: Duration,
}

impl Failure {
    /// What a report says; `None` if no promise was broken. That nothing happened counts for none: the smallest universe in
    /// which nothing happens is an empty one.
    #[must_use]
    pub fn of(report: &Report) -> Option<Self> {
        match &report.verdict {
            Verdict::Violation(violation) => {
                let after = violation.detail.split("panicked at ").nth(1);
                let place = after.and_then(|text| text.split_whitespace().next());
                let place = place.map(|place| place.trim_end_matches(':').to_owned());
                Some(Self { property: violation.property, place, at: report.statistics.simulated })
            }
            Verdict::Pass | Verdict::NothingHappened | Verdict::HarnessFault(_) => None,
        }
    }

    /// Whether it is the same failure, whenever it came.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        (self.property, &self.place) == (other.property, &other.place)
    }
}

/// How long to look for a smaller scenario.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Most universes played.
    pub tries: u64,
    /// Other seeds with which a try that passes is repeated.
    pub shakes: u64,
    /// When no further one is begun.
    pub deadline: Option<Instant>,
}

/// What a search came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Smallest {
    /// What is left.
    pub scenario: Scenario,
    /// What it fails by.
    pub failure: Failure,
    /// Universes played.
    pub tries: u64,
    /// Whether nothing more can be taken away, as far as was tried.
    pub end: End,
}

/// Why a search ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Without any single part, or with any number smaller, it does not fail like this any more.
    Minimal,
    /// The bounds were met before.
    Bounds,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Minimal => "nothing more can be taken away",
            Self::Bounds => "there may be more to take away: the bounds were met",
        })
    }
}

/// Looks for a small scenario that fails like `scenario`, which fails by `failure`. `judge` plays one.
pub fn minimize(
    scenario: Scenario,
    failure: Failure,
    bounds: Bounds,
    judge: impl FnMut(&Scenario) -> Option<Failure>,
) -> Smallest {
    let mut search = Search {
        best: scenario,
        failure,
        bounds,
        shakes: 0,
        tries: 0,
        end: End::Minimal,
        known: BTreeMap::new(),
        judge,
    };
    loop {
        let before = search.best.clone();
        search.end_sooner();
        search.take_parts();
        search.take_numbers();
        search.take_strikes();
        if search.end == End::Bounds || search.best == before && search.shakes == bounds.shakes {
            break;
        }
        if search.best == before {
            search.shakes = bounds.shakes;
        }
    }
    Smallest { scenario: search.best, failure: search.failure, tries: search.tries, end: search.end }
}

struct Search<J> {
    best: Scenario,
    failure: Failure,
    bounds: Bounds,
    /// How many other seeds a try has at the moment.
    shakes: u64,
    tries: u64,
    end: End,
    /// What scenarios that were tried came to.
    known: BTreeMap<String, bool>,
    judge: J,
}

impl<J: FnMut(&Scenario) -> Option<Failure>> Search<J> {
    /// Whether a scenario fails in the same way, shaken or not. If it does it is the best so far.
    fn fails(&mut self, scenario: Scenario) -> bool {
        let shaken = |shake: u64| Scenario { seed: scenario.seed.wrapping_add(shake), ..scenario.clone() };
        (0..=self.shakes).any(|shake| self.fails_unshaken(shaken(shake)))
    }

    fn fails_unshaken(&mut self, scenario: Scenario) -> bool {
        let name = serde_json::to_string(&scenario).expect("a scenario has no maps with odd keys");
        if let Some(fails) = self.known.get(&name) {
            return *fails && scenario == self.best;
        }
        let is_late = self.bounds.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if self.tries >= self.bounds.tries || is_late {
            self.end = End::Bounds;
            return false;
        }
        self.tries += 1;
        let failure = (self.judge)(&scenario).filter(|failure| failure.is_like(&self.failure));
        self.known.insert(name, failure.is_some());
        let Some(failure) = failure else { return false };
        self.failure = failure;
        self.best = scenario;
        true
    }

    /// What comes after the failure is idle. A failure after the faults needs none of those that come late, perhaps.
    fn end_sooner(&mut self) {
        let at = self.failure.at;
        let last = self.best.strikes.iter().map(|strike| strike.at + strike.lasts).max().unwrap_or_default();
        for end in [at, at * 5 / 4, at * 2, last] {
            let millis = u64::try_from(end.as_millis()).unwrap_or(u64::MAX - 1);
            let end = Duration::from_millis(millis + 1);
            if with_end(&self.best, end).is_some_and(|shorter| self.fails(shorter)) {
                break;
            }
        }
    }

    fn take_parts(&mut self) {
        let whole = self.best.clone();
        ddmin(&Part::all_of(&whole), |kept| self.fails(Part::keep(&whole, kept)));
    }

    fn take_strikes(&mut self) {
        let whole = self.best.clone();
        let all: Vec<usize> = (0..whole.strikes.len()).collect();
        ddmin(&all, |kept| self.fails(keep_strikes(&whole, kept)));
    }

    fn take_numbers(&mut self) {
        for shrink in SHRINKS {
            while shrink(&self.best).is_some_and(|smaller| self.fails(smaller)) {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Fault, Strike, World};

    /// A failure that takes a power failure and a coincidence, which one of four seeds brings for each number of strikes.
    #[test]
    fn a_coincidence_is_found_again_by_shaking() {
        let strike = |second: u64| Strike {
            at: Duration::from_secs(second),
            lasts: Duration::from_secs(1),
            fault: Fault::PowerFailure,
        };
        let mut drawn = Scenario::draw(6, World::Fast);
        drawn.strikes = (0..14).map(strike).collect();
        drawn.safety = Duration::from_secs(14);
        let failure = Failure { property: "a coincidence", place: None, at: Duration::from_secs(9) };
        let judge = |scenario: &Scenario| {
            let is_there = scenario.strikes.iter().any(|strike| strike.fault == Fault::PowerFailure);
            let is_met = (scenario.seed + scenario.strikes.len() as u64).is_multiple_of(4);
            (is_there && is_met).then(|| failure.clone())
        };
        assert!(judge(&drawn).is_some(), "what is drawn fails");
        let left = |shakes: u64| {
            let bounds = Bounds { tries: 1000, shakes, deadline: None };
            minimize(drawn.clone(), failure.clone(), bounds, judge)
        };
        let (still, shaken) = (left(0), left(3));
        assert_eq!((still.end, shaken.end), (End::Minimal, End::Minimal));
        assert!(still.scenario.strikes.len() > 1, "one strike alone passes with the seed that was drawn");
        assert_eq!(shaken.scenario.strikes.len(), 1, "and fails with another");
        assert!(judge(&shaken.scenario).is_some());
    }

    /// What is at another place or breaks another promise is not the failure that is looked for.
    #[test]
    fn another_failure_does_not_count() {
        let drawn = Scenario::draw(1, World::Fast);
        let stopped = |place: &str| Failure {
            property: "a node stopped",
            place: Some(place.to_owned()),
            at: Duration::from_secs(1),
        };
        let failure = stopped("here.rs:1:1");
        let bounds = Bounds { tries: 200, shakes: 0, deadline: None };
        let is_drawn = |scenario: &Scenario| *scenario == drawn;
        let elsewhere = |scenario: &Scenario| {
            Some(if is_drawn(scenario) { failure.clone() } else { stopped("there.rs:1:1") })
        };
        let smallest = minimize(drawn.clone(), failure.clone(), bounds, elsewhere);
        assert_eq!((smallest.scenario, smallest.end), (drawn.clone(), End::Minimal));
        let anything = |_: &Scenario| Some(failure.clone());
        let smallest = minimize(drawn.clone(), failure.clone(), bounds, anything);
        assert!(smallest.scenario.strikes.is_empty() && Part::all_of(&smallest.scenario).is_empty());
    }
}

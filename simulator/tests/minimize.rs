//! A failing scenario is made smaller, and what is left fails in the same way. The nodes are toys with planted bugs.

use simulator::fast::run_with;
use simulator::minimize::part::Part;
use simulator::minimize::search::{Bounds, End, Failure, Smallest, minimize};
use simulator::scenario::Scenario;
use simulator::trace::Printing;

use super::toy::{ACK_BEFORE_SYNC, PANIC, RESUME_VIEW, Toy, crashes};

const BOUNDS: Bounds = Bounds { tries: 300, shakes: 0, deadline: None };

fn judge<const BUG: u8>(scenario: &Scenario) -> Option<Failure> {
    Failure::of(&run_with::<Toy<BUG>>(scenario.clone(), Printing::Off))
}

/// The first few seeds that fail, with what is left of them.
fn made_smaller<const BUG: u8>(bounds: Bounds) -> Vec<(Scenario, Failure, Smallest)> {
    let failing =
        (0..10).map(crashes).filter_map(|drawn| judge::<BUG>(&drawn).map(|failure| (drawn, failure)));
    let smaller = |(drawn, failure): (Scenario, Failure)| {
        let smallest = minimize(drawn.clone(), failure.clone(), bounds, judge::<BUG>);
        (drawn, failure, smallest)
    };
    let told: Vec<_> = failing.take(3).map(smaller).collect();
    assert_eq!(told.len(), 3, "enough seeds fail");
    for (drawn, failure, smallest) in &told {
        assert!(smallest.failure.is_like(failure), "{failure:?} became {:?}", smallest.failure);
        let again = judge::<BUG>(&smallest.scenario);
        assert_eq!(again.as_ref(), Some(&smallest.failure), "what is left fails as it is said to");
        assert!(smallest.tries <= bounds.tries);
        assert_eq!((drawn.verify(), smallest.scenario.verify()), (Ok(()), Ok(())));
        assert!(smallest.scenario.strikes.len() <= drawn.strikes.len());
    }
    told
}

#[test]
fn a_bug_that_takes_one_restart_is_told_with_one_restart() {
    for (drawn, _, Smallest { scenario, end, .. }) in made_smaller::<RESUME_VIEW>(BOUNDS) {
        assert_eq!((end, scenario.strikes.len()), (End::Minimal, 1), "{}", scenario.summary());
        assert!(scenario.safety < drawn.safety / 2, "{}", scenario.summary());
        assert_eq!((scenario.partitions, scenario.load.producers), (1, 1), "{}", scenario.summary());
        assert_eq!(Part::all_of(&scenario).len(), 1, "{}", scenario.summary());
    }
}

#[test]
fn a_bug_that_takes_no_fault_is_told_without_any() {
    for (_, failure, Smallest { scenario, .. }) in made_smaller::<PANIC>(BOUNDS) {
        assert!(failure.place.is_some_and(|place| place.contains("toy.rs:")), "a panic has a place");
        assert!(scenario.strikes.is_empty(), "{}", scenario.summary());
    }
}

#[test]
fn nothing_that_is_left_can_be_taken_away() {
    for (_, _, Smallest { scenario, failure, end, .. }) in made_smaller::<ACK_BEFORE_SYNC>(BOUNDS) {
        assert_eq!(end, End::Minimal, "{}", scenario.summary());
        let fails = |smaller: &Scenario| {
            judge::<ACK_BEFORE_SYNC>(smaller).is_some_and(|other| other.is_like(&failure))
        };
        let parts = Part::all_of(&scenario);
        for part in &parts {
            let others: Vec<Part> = parts.iter().copied().filter(|other| other != part).collect();
            assert!(!fails(&Part::keep(&scenario, &others)), "{part:?} of {}", scenario.summary());
        }
        for index in 0..scenario.strikes.len() {
            let mut fewer = scenario.clone();
            fewer.strikes.remove(index);
            assert!(!fails(&fewer), "strike {index} of {}", scenario.summary());
        }
    }
}

#[test]
fn bounds_are_kept_and_what_was_found_by_then_is_told() {
    for (_, _, smallest) in made_smaller::<RESUME_VIEW>(Bounds { tries: 2, shakes: 0, deadline: None }) {
        assert_eq!((smallest.end, smallest.tries), (End::Bounds, 2));
    }
}

//! The exhaustive search: small scopes are exhausted without a finding, and mistakes of the harness are found.

use simulator::explore::{Bound, Ending, Finding, Plan, Plant, search};

fn run(plan: Plan) -> Finding {
    search(plan, |_| {})
}

fn exhaust(plan: Plan) -> Finding {
    let finding = run(plan);
    assert!(matches!(finding.ending, Ending::Exhausted), "{finding}");
    finding
}

#[test]
fn one_view_is_exhausted_with_crashes_and_time_outs() {
    let plan = Plan {
        requests: 1,
        views: 0,
        crashes: 1,
        duplicates: Bound::Any,
        timeouts: Bound::Any,
        ..Plan::default()
    };
    let finding = exhaust(plan);
    assert!(finding.progress.states > 1000, "{finding}");
}

#[test]
fn a_view_change_is_exhausted_whatever_arrives_and_how_often() {
    let plan = Plan { requests: 1, views: 1, duplicates: Bound::Any, ..Plan::default() };
    let finding = exhaust(plan);
    assert!(finding.progress.states > 10_000, "{finding}");
    assert!(finding.progress.elections > 100, "{finding}");
}

#[test]
fn reads_are_exhausted_in_one_view_whatever_arrives_and_how_often() {
    let finding =
        exhaust(Plan { requests: 1, reads: 2, views: 0, duplicates: Bound::Any, ..Plan::default() });
    assert!(finding.progress.states > 1000, "{finding}");
}

#[test]
fn two_requests_are_exhausted_where_each_message_arrives_once() {
    let finding = exhaust(Plan { views: 0, ..Plan::default() });
    assert!(finding.progress.states > 1000, "{finding}");
}

#[test]
fn the_jitter_of_timers_does_not_matter() {
    let states = |jitter| {
        let plan = Plan {
            requests: 1,
            views: 0,
            crashes: 1,
            duplicates: Bound::Any,
            timeouts: Bound::Any,
            jitter,
            ..Plan::default()
        };
        let progress = exhaust(plan).progress;
        (progress.states, progress.transitions, progress.locals, progress.reactions)
    };
    assert_eq!(states(1), states(2));
}

#[test]
fn a_limit_ends_the_search_and_is_told() {
    let finding = run(Plan { states: Some(1000), ..Plan::default() });
    assert!(matches!(finding.ending, Ending::Limited(_)), "{finding}");
    assert_eq!(finding.exit_code(), 0);
}

/// The story by which a planted mistake was found.
fn find(plant: Plant, duplicates: Bound) -> String {
    let plan = Plan {
        requests: 1,
        reads: u8::from(plant == Plant::ViewConfirmedBlindly),
        views: 1,
        crashes: u8::from(plant != Plant::ViewConfirmedBlindly),
        duplicates,
        plant: Some(plant),
        ..Plan::default()
    };
    let finding = run(plan);
    assert_eq!(finding.exit_code(), 1, "{plant:?}: {finding}");
    finding.to_string()
}

#[test]
fn a_disk_that_reports_too_early_is_found() {
    let story = find(Plant::DurableTooEarly, Bound::AtMost(0));
    assert!(story.contains("VIOLATION a committed prepare is durable on too few: op1@v0 on 1"), "{story}");
    assert!(story.contains("after 6 steps"), "{story}");
}

#[test]
fn a_forgotten_view_is_found() {
    let story = find(Plant::ViewForgotten, Bound::Any);
    assert!(story.contains("VIOLATION a later view forgets what was committed: op1@v0"), "{story}");
}

#[test]
fn a_log_view_that_moves_too_early_is_found() {
    let story = find(Plant::LogViewAhead, Bound::AtMost(0));
    assert!(story.contains("VIOLATION a later view forgets what was committed: op1@v0"), "{story}");
}

#[test]
fn a_forged_vote_is_found_and_told_as_a_diagram() {
    let story = find(Plant::VoteForged, Bound::AtMost(0));
    let diagram = "\
after 4 steps:
    r0        r1        r2
     ●         │         │        request 1
     ●         │         │        append op1@v0
     ├─────────▶         │        v0 prepare op1@v0 commit=op0
     │         ●         │        append op1@v0
     │         ●         │        durable op1@v0
     ◀─────────┤         │        v0 prepare_ok op1@v0
     ●         │         │        commit op1@v0
     ●         │         │        reply 1 Committed { op: op1, base_offset: offset 0 }
";
    assert!(story.ends_with(diagram), "{story}");
}

#[test]
fn a_log_that_is_hidden_in_a_view_change_is_found() {
    let story = find(Plant::LogHidden, Bound::Any);
    assert!(story.contains("VIOLATION a later view forgets what was committed: op1@v0"), "{story}");
}

#[test]
fn a_view_that_is_confirmed_blindly_makes_a_read_late() {
    let story = find(Plant::ViewConfirmedBlindly, Bound::Any);
    assert!(story.contains("a read sees what was committed before it was asked"), "{story}");
    assert!(story.contains("read, when op1 was committed"), "{story}");
}

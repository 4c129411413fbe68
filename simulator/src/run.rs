//! Plays many seeds: on several threads, each seed on one of them from start to end, reported in the order of seeds.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Instant;

use crate::marks::Coverage;
use crate::report::{Report, Statistics, Verdict};
use crate::scenario::{Profile, Scenario, World};
use crate::trace::Printing;

/// What is to be played.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The worlds, each with every seed.
    pub worlds: Vec<World>,
    /// What the universes are about.
    pub profile: Profile,
    /// The first seed.
    pub start: u64,
    /// How many seeds; `None`: until the deadline.
    pub seeds: Option<u64>,
    /// When no further seed is begun.
    pub deadline: Option<Instant>,
    /// Threads.
    pub jobs: usize,
    /// Whether a failure ends it.
    pub after_failure: AfterFailure,
    /// Whether every event is printed.
    pub printing: Printing,
}

/// What to do after a failure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AfterFailure {
    /// Begin no further seed.
    Stop,
    /// Play all seeds.
    GoOn,
}

/// What a plan came to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The sum of all numbers, by world.
    pub sums: BTreeMap<World, Statistics>,
    /// The marks that were hit.
    pub coverage: Coverage,
    /// Every failure.
    pub failures: Vec<(World, u64, Verdict)>,
}

impl Plan {
    fn universe(&self, index: u64) -> Option<(World, u64)> {
        let worlds = self.worlds.len() as u64;
        let seed = index / worlds;
        if self.seeds.is_some_and(|seeds| seed >= seeds) {
            return None;
        }
        let world = usize::try_from(index % worlds).ok().and_then(|world| self.worlds.get(world).copied())?;
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return None;
        }
        Some((world, self.start + seed))
    }
}

/// Plays one seed of the swarm.
#[must_use]
pub fn play(world: World, seed: u64, printing: Printing) -> Report {
    play_scenario(Scenario::draw(seed, world), printing)
}

/// Plays a scenario in its world, wherever it comes from.
#[must_use]
pub fn play_scenario(scenario: Scenario, printing: Printing) -> Report {
    match scenario.world {
        World::Fast => crate::fast::run(scenario, printing),
        World::Quic => crate::entropy::with_seed(scenario.seed, || crate::quic::run(scenario, printing)),
    }
}

/// Plays a plan; `on_report` gets every report, in order.
pub fn play_all(plan: &Plan, mut on_report: impl FnMut(&Report)) -> Outcome {
    let next = Mutex::new(0_u64);
    let stop = AtomicBool::new(false);
    let (sender, receiver) = mpsc::channel::<(u64, Report)>();
    let mut outcome = Outcome::default();
    std::thread::scope(|scope| {
        for _ in 0..plan.jobs.max(1) {
            let (sender, next, stop) = (sender.clone(), &next, &stop);
            scope.spawn(move || work(plan, &sender, next, stop));
        }
        drop(sender);
        let mut early = BTreeMap::new();
        let mut expected = 0;
        for (index, report) in receiver {
            early.insert(index, report);
            while let Some(report) = early.remove(&expected) {
                expected += 1;
                if stop.load(Ordering::Relaxed) {
                    continue;
                }
                on_report(&report);
                outcome.coverage.add(report.world, &report.marks);
                *outcome.sums.entry(report.world).or_default() += report.statistics;
                if report.verdict != Verdict::Pass {
                    outcome.failures.push((report.world, report.seed, report.verdict));
                    stop.store(plan.after_failure == AfterFailure::Stop, Ordering::Relaxed);
                }
            }
        }
    });
    outcome
}

fn work(plan: &Plan, reports: &mpsc::Sender<(u64, Report)>, next: &Mutex<u64>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let mut next = next.lock().unwrap_or_else(PoisonError::into_inner);
        let index = *next;
        let Some((world, seed)) = plan.universe(index) else { break };
        *next += 1;
        drop(next);
        let scenario = Scenario::draw_as(plan.profile, seed, world);
        if reports.send((index, play_scenario(scenario, plan.printing))).is_err() {
            break;
        }
    }
}

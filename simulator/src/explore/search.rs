//! Breadth first through all states, so that the first violation found is one with the fewest steps.

use std::time::Instant;

use super::catalog::{Catalog, Reaction};
use super::election::Elections;
use super::finding::{Ending, Finding, Progress};
use super::law;
use super::plan::Plan;
use super::state::{Act, State, Step, advance, answer};
use super::story::Story;
use super::visited::Visited;
use super::way::Way;
use crate::oracle::Violation;

/// States that wait to be expanded, one row of words behind the other.
#[derive(Default, Debug)]
struct Rows {
    words: Vec<u32>,
    ends: Vec<usize>,
}

impl Rows {
    fn push(&mut self, row: &[u32]) {
        self.words.extend_from_slice(row);
        self.ends.push(self.words.len());
    }

    fn count(&self) -> usize {
        self.ends.len()
    }

    fn row(&self, index: usize) -> &[u32] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.words[start..self.ends[index]]
    }

    fn clear(&mut self) {
        self.words.clear();
        self.ends.clear();
    }
}

/// A search under way.
#[derive(Debug)]
pub(super) struct Search {
    catalog: Catalog,
    elections: Elections,
    visited: Visited,
    /// States at the present depth, and those one deeper.
    rows: Rows,
    deeper: Rows,
    /// Number of the first state at the present depth.
    first: usize,
    depth: u32,
    transitions: u64,
    began: Instant,
}

/// Why a search stops early.
#[derive(Debug)]
enum Stop {
    Limit(&'static str),
    /// What was broken by which step from which state.
    Broken {
        violation: Violation,
        from: usize,
        step: Step,
    },
}

/// Visits all states within the plan's bounds, or as many as its limits allow.
pub fn search(plan: Plan, mut progress: impl FnMut(&Progress)) -> Finding {
    let mut catalog = Catalog::new(plan);
    let first = State::first(&mut catalog);
    let mut rows = Rows::default();
    rows.push(&first);
    let mut visited = Visited::default();
    visited.insert(State::new(&first, catalog.plan.replicas).key(), 0);
    let mut search = Search {
        elections: Elections::new(&catalog.plan),
        catalog,
        visited,
        rows,
        deeper: Rows::default(),
        first: 0,
        depth: 0,
        transitions: 0,
        began: Instant::now(),
    };
    let ending = loop {
        progress(&search.progress());
        match search.deepen() {
            Ok(()) if search.rows.count() == 0 => break Ending::Exhausted,
            Ok(()) => {}
            Err(Stop::Limit(limit)) => break Ending::Limited(limit),
            Err(Stop::Broken { violation, from, step }) => {
                let story = search.tell(from, step);
                break Ending::Broken { violation, story };
            }
        }
    };
    Finding { ending, progress: search.progress() }
}

impl Search {
    fn progress(&self) -> Progress {
        let [locals, envelopes, reactions] = self.catalog.sizes();
        Progress {
            states: self.visited.count(),
            groups: self.visited.groups(),
            transitions: self.transitions,
            depth: self.depth,
            waiting: self.rows.count(),
            elapsed: self.began.elapsed(),
            locals,
            envelopes,
            reactions,
            elections: self.elections.held(),
        }
    }

    fn is_time_up(&self) -> bool {
        self.catalog.plan.seconds.is_some_and(|limit| self.began.elapsed().as_secs() >= limit)
    }

    /// Expands all states of the present depth.
    fn deepen(&mut self) -> Result<(), Stop> {
        let rows = std::mem::take(&mut self.rows);
        let mut steps = Vec::new();
        let mut words = Vec::new();
        for index in 0..rows.count() {
            if index % 1024 == 0 && self.is_time_up() {
                return Err(Stop::Limit("the time is up"));
            }
            let state = State::new(rows.row(index), self.catalog.plan.replicas);
            if self.visited.is_outdone(state.key(), self.first + rows.count()) {
                continue;
            }
            state.steps(&self.catalog, &mut steps);
            for &step in &steps {
                self.take(state, self.first + index, step, &mut words).map_err(|violation| Stop::Broken {
                    violation,
                    from: self.first + index,
                    step,
                })?;
            }
            if self.catalog.plan.states.is_some_and(|limit| self.visited.count() as u64 >= limit) {
                return Err(Stop::Limit("so many states were asked for"));
            }
        }
        self.first += rows.count();
        self.rows = std::mem::replace(&mut self.deeper, rows);
        self.deeper.clear();
        self.depth += u32::from(self.rows.count() > 0);
        Ok(())
    }

    /// Takes a step, judges it, and remembers where it leads if nobody was there before.
    fn take(
        &mut self,
        from: State<'_>,
        number: usize,
        step: Step,
        words: &mut Vec<u32>,
    ) -> Result<(), Violation> {
        let reaction = react(&mut self.catalog, from, step)?;
        if !advance(from, step, reaction, &self.catalog, words) {
            return Ok(());
        }
        self.transitions += 1;
        if let Some(reaction) = reaction {
            let state = State::new(words, self.catalog.plan.replicas);
            law::judge(from, state, reaction, &self.catalog, &mut self.elections)?;
            let sent = self.catalog.summary(reaction).sends.clone();
            answer(words, step.replica, &sent, &mut self.catalog, None);
        }
        let state = State::new(words, self.catalog.plan.replicas);
        let parent = u32::try_from(number).expect("the states of a search can be numbered");
        if self.visited.insert(state.key(), parent) {
            self.deeper.push(words);
        }
        Ok(())
    }

    /// Goes the way again that led to a violation, and tells it.
    fn tell(&mut self, from: usize, last: Step) -> Story {
        let from = u32::try_from(from).expect("the states of a search can be numbered");
        let mut words = State::first(&mut self.catalog);
        let mut way = Way::default();
        for fingerprint in self.visited.way_to(from) {
            words = self.find_step(words, fingerprint, &mut way);
        }
        way.necessary(words, last);
        way.tell(&mut self.catalog)
    }

    /// Takes the step that leads to the state with this fingerprint. Returns that state.
    fn find_step(&mut self, words: Vec<u32>, fingerprint: u64, way: &mut Way) -> Vec<u32> {
        let replicas = self.catalog.plan.replicas;
        let mut steps = Vec::new();
        State::new(&words, replicas).steps(&self.catalog, &mut steps);
        for step in steps {
            let state = State::new(&words, replicas);
            let Ok(reaction) = react(&mut self.catalog, state, step) else { continue };
            let mut next = Vec::new();
            advance(state, step, reaction, &self.catalog, &mut next);
            let stepped = next.clone();
            let sent =
                reaction.map(|reaction| self.catalog.summary(reaction).sends.clone()).unwrap_or_default();
            let mut answers = Vec::new();
            answer(&mut next, step.replica, &sent, &mut self.catalog, Some(&mut answers));
            if State::new(&next, replicas).key().whole == fingerprint {
                way.necessary(words, step);
                answers.into_iter().for_each(|answer| way.free(stepped.clone(), answer));
                return next;
            }
        }
        unreachable!("a state was reached by one of the steps that lead out of the one before")
    }
}

/// What the replica that takes part in a step makes of it; `None` if none does.
pub(super) fn react(
    catalog: &mut Catalog,
    state: State<'_>,
    step: Step,
) -> Result<Option<Reaction>, Violation> {
    let local = state.locals()[usize::from(step.replica)];
    match step.act {
        Act::Happens(happening) => catalog.react(local, happening).map(Some),
        Act::DeliversCopy(envelope) => {
            catalog.react(local, super::catalog::Happening::Deliver(envelope)).map(Some)
        }
        Act::Loses(_) => Ok(None),
    }
}

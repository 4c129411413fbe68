//! The steps that led to a state, without those that turned out to be of no use.

use std::collections::BTreeSet;

use super::catalog::{Catalog, Happening};
use super::search::react;
use super::state::{Act, State, Step};
use super::story::Story;

/// A step, and the state that it was taken in.
#[derive(Debug)]
struct Taken {
    words: Vec<u32>,
    step: Step,
    is_free: bool,
}

/// See the module's text.
#[derive(Default, Debug)]
pub(super) struct Way(Vec<Taken>);

impl Way {
    /// Adds a step of the search.
    pub(super) fn necessary(&mut self, words: Vec<u32>, step: Step) {
        self.0.push(Taken { words, step, is_free: false });
    }

    /// Adds an answer that was given because it cost nothing.
    pub(super) fn free(&mut self, words: Vec<u32>, step: Step) {
        self.0.push(Taken { words, step, is_free: true });
    }

    /// The story of these steps. An answer is told only if somebody heard it.
    pub(super) fn tell(&self, catalog: &mut Catalog) -> Story {
        let mut heard = BTreeSet::new();
        let mut told = Vec::new();
        for taken in self.0.iter().rev() {
            let state = State::new(&taken.words, catalog.plan.replicas);
            let reaction = react(catalog, state, taken.step).ok().flatten();
            let sends =
                reaction.map(|reaction| catalog.summary(reaction).sends.as_slice()).unwrap_or_default();
            if taken.is_free && !sends.iter().any(|envelope| heard.contains(envelope)) {
                continue;
            }
            if let Act::Happens(Happening::Deliver(envelope)) | Act::DeliversCopy(envelope) = taken.step.act {
                heard.insert(envelope);
            }
            told.push(taken);
        }
        let mut story = Story::new(catalog.plan.replicas);
        for taken in told.into_iter().rev() {
            story.tell(State::new(&taken.words, catalog.plan.replicas), taken.step, catalog);
        }
        story
    }
}

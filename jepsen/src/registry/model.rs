//! One stream with its topics as a state that changes, and what answers fit which state.

use std::collections::BTreeSet;

use super::history::{Change, Refusal, Verb};
use crate::linear::{Model, Operation};

/// A stream: whether it is there, and which of its topics, a bit for each name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Stream {
    there: bool,
    topics: u64,
}

impl Stream {
    pub(super) fn absent() -> Self {
        Self { there: false, topics: 0 }
    }
}

/// What became of a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    Done,
    Refused(Refusal),
    /// Surely not done, for whatever reason: it says nothing about the state.
    NotDone,
    Unknown,
}

/// What was asked of a stream, and what was told.
#[derive(Clone, Copy, Debug)]
pub(super) enum Call {
    /// A change; the topic as a bit, none for the stream itself.
    Change { verb: Verb, topic: u64, answer: Answer },
    /// It was told to be so.
    Told(Stream),
}

/// All that can happen to one stream.
pub(super) struct Streams {
    topics: Vec<String>,
}

impl Streams {
    /// A model in which these topics occur. More than fit are not told apart; nobody uses so many.
    pub(super) fn new(topics: BTreeSet<&str>) -> Self {
        Self { topics: topics.into_iter().map(str::to_owned).collect() }
    }

    fn bit(&self, topic: &str) -> u64 {
        let place = self.topics.iter().position(|known| known == topic).unwrap_or_default();
        1 << place.min(63)
    }

    /// The state that a list tells.
    pub(super) fn state(&self, topics: Option<&BTreeSet<String>>) -> Stream {
        let bits = topics.into_iter().flatten().map(|topic| self.bit(topic));
        Stream { there: topics.is_some(), topics: bits.fold(0, |all, bit| all | bit) }
    }

    pub(super) fn operation(&self, change: &Change) -> Operation<Call> {
        let topic = change.topic.as_deref().map_or(0, |topic| self.bit(topic));
        Operation {
            call: Call::Change { verb: change.verb, topic, answer: change.answer },
            start: change.invoked as u64,
            end: (change.answer != Answer::Unknown).then_some(change.line as u64),
            after: None,
        }
    }
}

/// What the cluster does with a change: the state after it, or why it refuses.
fn apply(state: Stream, verb: Verb, topic: u64) -> Result<Stream, Refusal> {
    let Stream { there, topics } = state;
    match verb {
        Verb::CreateStream if there => Err(Refusal::StreamExists),
        Verb::CreateStream => Ok(Stream { there: true, topics: 0 }),
        _ if !there => Err(Refusal::StreamUnknown),
        Verb::DeleteStream if topics != 0 => Err(Refusal::StreamNotEmpty),
        Verb::DeleteStream => Ok(Stream::absent()),
        Verb::CreateTopic if topics & topic != 0 => Err(Refusal::TopicExists),
        Verb::CreateTopic => Ok(Stream { there, topics: topics | topic }),
        Verb::DeleteTopic if topics & topic == 0 => Err(Refusal::TopicUnknown),
        Verb::DeleteTopic => Ok(Stream { there, topics: topics & !topic }),
    }
}

impl Model for Streams {
    type State = Stream;
    type Call = Call;

    fn step(&self, state: &Stream, call: &Call) -> Option<Stream> {
        match *call {
            Call::Told(told) => (told == *state).then_some(*state),
            Call::Change { verb, topic, answer } => {
                let applied = apply(*state, verb, topic);
                match answer {
                    Answer::Done => applied.ok(),
                    Answer::Refused(refusal) => (applied == Err(refusal)).then_some(*state),
                    Answer::NotDone => Some(*state),
                    Answer::Unknown => Some(applied.unwrap_or(*state)),
                }
            }
        }
    }
}

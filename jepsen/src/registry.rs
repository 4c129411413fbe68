//! Streams and topics as a set of names: what was created is there, what was deleted is not, and all answers fit one order.
//!
//! ```text
//!   {"time_ns":5,"process":1,"type":"invoke","f":"create_topic","value":{"stream":"s","topic":"t"}}
//!   {"time_ns":9,"process":1,"type":"fail","f":"create_topic","value":{"stream":"s","topic":"t","refused":"StreamUnknown"}}
//! ```
//!
//! | `f`                                              | `value`              | added when it is over                              |
//! |--------------------------------------------------|----------------------|----------------------------------------------------|
//! | `create_stream`, `delete_stream`                 | `stream`             | `refused`: why, if the cluster looked and refused  |
//! | `create_topic`, `delete_topic`                   | `stream`, `topic`    | the same                                           |
//! | `list`                                           | perhaps `latest`     | `op` and `streams`: each with its topics           |
//!
//! A change without an answer may be done at any later time, once, or never. A refusal is an answer about the state; a failure
//! without `refused` was surely not done, and tells nothing. A list may be old, because any node may answer it: it shows the state
//! as of some op, lists of one op show the same, and later ops later states. Only one that is marked as `latest`, because the
//! cluster had been found to be well before, must not be old.
//!
//! Each stream is judged by itself, with its topics: no operation concerns two of them.

mod history;
mod model;

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

pub(crate) use self::history::{RegistryHistory, is_of_registry};

use self::history::{Change, Entry, List};
use self::model::{Answer, Call, Stream, Streams};
use crate::linear::{Bound, Operation, Outcome, search};
use crate::minimise::minimise;

/// What a search may do for one stream.
const BOUND: Bound = Bound { states: 400_000, time: Duration::from_secs(20) };

/// What can be wrong.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(tag = "anomaly", rename_all = "snake_case")]
pub(crate) enum RegistryAnomaly {
    /// No order of the operations on a stream explains the answers in these lines.
    NotLinearizable { stream: String, lines: Vec<usize> },
    /// Two lists of one op of the metadata differ in a stream.
    ListsDiffer { stream: String, op: u64, lines: Vec<usize> },
}

impl RegistryAnomaly {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::NotLinearizable { .. } => "not_linearizable",
            Self::ListsDiffer { .. } => "lists_differ",
        }
    }

    pub(crate) fn stream(&self) -> &str {
        match self {
            Self::NotLinearizable { stream, .. } | Self::ListsDiffer { stream, .. } => stream,
        }
    }
}

impl fmt::Display for RegistryAnomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLinearizable { stream, lines } => {
                write!(
                    f,
                    "not_linearizable: stream {stream}: nothing explains the answer in one of lines {lines:?}"
                )
            }
            Self::ListsDiffer { stream, op, lines } => {
                write!(
                    f,
                    "lists_differ: stream {stream}: lines {lines:?} tell different things as of op {op}"
                )
            }
        }
    }
}

/// What a check found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct RegistryReport {
    pub(crate) changes_done: usize,
    pub(crate) changes_refused: usize,
    pub(crate) changes_not_done: usize,
    pub(crate) changes_unknown: usize,
    pub(crate) lists: usize,
    pub(crate) streams: usize,
    /// Streams whose searches ran into their bound.
    pub(crate) undecided: Vec<String>,
    pub(crate) anomalies: Vec<RegistryAnomaly>,
}

impl RegistryReport {
    /// What scripts go by: 0 nothing is wrong, 1 something is, 2 it proves nothing.
    pub(crate) fn exit_code(&self) -> u8 {
        match (self.anomalies.is_empty(), self.proves_nothing()) {
            (false, _) => 1,
            (true, true) => 2,
            (true, false) => 0,
        }
    }

    /// Whether nothing was changed, or nothing was decided.
    pub(crate) fn proves_nothing(&self) -> bool {
        self.changes_done == 0 || self.undecided.len() == self.streams
    }
}

impl fmt::Display for RegistryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for anomaly in &self.anomalies {
            writeln!(f, "{anomaly}")?;
        }
        writeln!(
            f,
            "changes: {} done, {} refused, {} not done, {} unknown; lists: {}; streams: {}, {} undecided",
            self.changes_done,
            self.changes_refused,
            self.changes_not_done,
            self.changes_unknown,
            self.lists,
            self.streams,
            self.undecided.len()
        )?;
        match self.exit_code() {
            0 => writeln!(f, "pass"),
            1 => writeln!(f, "violation: {} anomalies", self.anomalies.len()),
            _ => writeln!(f, "nothing was changed, or nothing could be decided: this history proves nothing"),
        }
    }
}

/// Judges a history.
pub(crate) fn check(history: &RegistryHistory) -> RegistryReport {
    let mut report = RegistryReport {
        changes_done: 0,
        changes_refused: 0,
        changes_not_done: 0,
        changes_unknown: 0,
        lists: 0,
        streams: 0,
        undecided: Vec::new(),
        anomalies: Vec::new(),
    };
    let mut names = BTreeSet::new();
    for entry in &history.entries {
        match entry {
            Entry::Change(change) => {
                names.insert(change.stream.clone());
                match change.answer {
                    Answer::Done => report.changes_done += 1,
                    Answer::Refused(_) => report.changes_refused += 1,
                    Answer::NotDone => report.changes_not_done += 1,
                    Answer::Unknown => report.changes_unknown += 1,
                }
            }
            Entry::List(list) => {
                names.extend(list.streams.keys().cloned());
                report.lists += 1;
            }
        }
    }
    report.streams = names.len();
    for stream in names {
        match check_stream(history, &stream) {
            Ok(None) => {}
            Ok(Some(anomaly)) => report.anomalies.push(anomaly),
            Err(Undecided) => report.undecided.push(stream),
        }
    }
    report
}

struct Undecided;

/// Judges one stream.
fn check_stream(history: &RegistryHistory, stream: &str) -> Result<Option<RegistryAnomaly>, Undecided> {
    let mut topics: BTreeSet<&str> = BTreeSet::new();
    let mut changes: Vec<&Change> = Vec::new();
    let mut lists: Vec<&List> = Vec::new();
    for entry in &history.entries {
        match entry {
            Entry::Change(change) if change.stream == stream && change.answer != Answer::NotDone => {
                topics.extend(change.topic.as_deref());
                changes.push(change);
            }
            Entry::Change(_) => {}
            Entry::List(list) => {
                topics.extend(list.streams.get(stream).into_iter().flatten().map(String::as_str));
                lists.push(list);
            }
        }
    }
    let model = Streams::new(topics);
    let told = |list: &List| model.state(list.streams.get(stream));
    lists.sort_by_key(|list| (list.op, list.line));
    for pair in lists.windows(2) {
        if pair[0].op == pair[1].op && told(pair[0]) != told(pair[1]) {
            let lines = vec![pair[0].line, pair[1].line];
            let op = pair[0].op;
            return Ok(Some(RegistryAnomaly::ListsDiffer { stream: stream.to_owned(), op, lines }));
        }
    }
    let mut operations: Vec<Operation<Call>> = changes.iter().map(|change| model.operation(change)).collect();
    let mut lines: Vec<usize> = changes.iter().map(|change| change.line).collect();
    // Whatever a list shows had happened before a list of a later op was over, too.
    let mut end = u64::MAX;
    let mut ends: Vec<u64> = Vec::new();
    for list in lists.iter().rev() {
        end = end.min(list.line as u64);
        ends.push(end);
    }
    ends.reverse();
    let mut previous = None;
    for (list, end) in lists.iter().zip(ends) {
        let start = if list.latest { list.invoked as u64 } else { 0 };
        let call = Call::Told(told(list));
        previous = {
            operations.push(Operation { call, start, end: Some(end), after: previous });
            Some(operations.len() - 1)
        };
        lines.push(list.line);
    }
    match search(&model, Stream::absent(), &operations, BOUND) {
        Outcome::Linearizable => Ok(None),
        Outcome::Unknown => Err(Undecided),
        Outcome::Impossible { stuck } => {
            let mut lines: Vec<usize> = stuck.iter().map(|place| lines[*place]).collect();
            lines.sort_unstable();
            Ok(Some(RegistryAnomaly::NotLinearizable { stream: stream.to_owned(), lines }))
        }
    }
}

/// The lines of what was done to the stream of an anomaly until it shows. Answers that only tell are left out where nothing is
/// lost by it; changes all stay, for without one of them the others mean something else.
pub(crate) fn explain(history: &RegistryHistory, anomaly: &RegistryAnomaly) -> Vec<usize> {
    let stream = anomaly.stream();
    let shows = |entries: &[Entry]| {
        let part = RegistryHistory { entries: entries.to_vec() };
        matches!(check_stream(&part, stream), Ok(Some(found)) if found.name() == anomaly.name())
    };
    // What began behind the answer that nothing explains has nothing to do with it.
    let last = match anomaly {
        RegistryAnomaly::NotLinearizable { lines, .. } | RegistryAnomaly::ListsDiffer { lines, .. } => {
            lines.iter().copied().max().unwrap_or(usize::MAX)
        }
    };
    let concerns = |entry: &&Entry| match entry {
        Entry::Change(change) => change.stream == stream && change.invoked <= last,
        Entry::List(list) => list.invoked <= last,
    };
    let whole: Vec<Entry> = history.entries.iter().filter(concerns).cloned().collect();
    let is_change = |entry: &Entry| matches!(entry, Entry::Change(change) if !matches!(change.answer, Answer::Refused(_)));
    let (changes, tellings): (Vec<Entry>, Vec<Entry>) = whole.into_iter().partition(is_change);
    let with = |tellings: &[Entry]| [&changes[..], tellings].concat();
    let tellings = minimise(tellings, |part| shows(&with(part)));
    let mut lines: Vec<usize> = with(&tellings)
        .iter()
        .flat_map(|entry| match entry {
            Entry::Change(change) => [change.invoked, change.line],
            Entry::List(list) => [list.invoked, list.line],
        })
        .collect();
    lines.sort_unstable();
    lines.dedup();
    lines
}

#[cfg(test)]
mod tests;

//! The lines of a history of streams and topics, paired up.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;

use serde::Deserialize;

use super::model::Answer;
use crate::history::{HistoryError, Kind};

/// One line. What the nemesis did is passed over.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct Line {
    time_ns: u64,
    process: u64,
    #[serde(rename = "type")]
    kind: Kind,
    f: Function,
    #[serde(default)]
    value: serde_json::Value,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "snake_case")]
enum Function {
    CreateStream,
    DeleteStream,
    CreateTopic,
    DeleteTopic,
    List,
    Nemesis,
}

/// What a change does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verb {
    CreateStream,
    DeleteStream,
    CreateTopic,
    DeleteTopic,
}

/// Why the cluster refused a change after it had looked.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    StreamExists,
    StreamUnknown,
    StreamNotEmpty,
    TopicExists,
    TopicUnknown,
}

#[derive(Deserialize, Debug, Default)]
#[serde(deny_unknown_fields)]
struct Value {
    stream: Option<String>,
    topic: Option<String>,
    refused: Option<Refusal>,
    #[serde(default)]
    latest: bool,
    op: Option<u64>,
    #[serde(default)]
    streams: BTreeMap<String, BTreeSet<String>>,
    #[serde(default, rename = "error")]
    _error: Option<String>,
}

/// A change of a stream or a topic. Line numbers serve as times.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) invoked: usize,
    pub(super) line: usize,
    pub(super) verb: Verb,
    pub(super) stream: String,
    pub(super) topic: Option<String>,
    pub(super) answer: Answer,
}

/// What was told to be there.
#[derive(Clone, Debug)]
pub(super) struct List {
    pub(super) invoked: usize,
    pub(super) line: usize,
    pub(super) latest: bool,
    pub(super) op: u64,
    pub(super) streams: BTreeMap<String, BTreeSet<String>>,
}

#[derive(Clone, Debug)]
pub(super) enum Entry {
    Change(Change),
    List(List),
}

/// All that was done, or was asked for and not done.
#[derive(Clone, Debug, Default)]
pub(crate) struct RegistryHistory {
    pub(super) entries: Vec<Entry>,
}

/// Whether a line is one of such a history, and not of sends and polls.
pub(crate) fn is_of_registry(line: &str) -> bool {
    serde_json::from_str::<Line>(line).is_ok_and(|line| line.f != Function::Nemesis)
}

/// An operation under way: the line that began it, what it is, and of what.
type Open = (usize, Function, Value);

impl RegistryHistory {
    /// Reads and pairs up all lines.
    pub(crate) fn read(input: impl BufRead) -> Result<Self, HistoryError> {
        let mut history = Self::default();
        let mut open: BTreeMap<u64, Open> = BTreeMap::new();
        let mut time_ns = 0;
        for (number, text) in (1..).zip(input.lines()) {
            let told = |problem: String| HistoryError::new(number, problem);
            let text = text.map_err(|error| told(error.to_string()))?;
            if text.trim().is_empty() {
                continue;
            }
            let line: Line = serde_json::from_str(&text).map_err(|error| told(error.to_string()))?;
            if line.time_ns < time_ns {
                return Err(told(format!("time_ns {} lies before that of the line above", line.time_ns)));
            }
            time_ns = line.time_ns;
            if line.f == Function::Nemesis {
                continue;
            }
            let value: Value =
                serde_json::from_value(line.value).map_err(|error| told(format!("value: {error}")))?;
            if line.kind == Kind::Invoke {
                if let Some((busy, ..)) = open.insert(line.process, (number, line.f, value)) {
                    return Err(told(format!("process {} is still busy with line {busy}", line.process)));
                }
                continue;
            }
            match open.remove(&line.process).filter(|(_, function, _)| *function == line.f) {
                Some(begun) => history.complete(number, line.kind, begun, value).map_err(told)?,
                None => return Err(told(format!("process {} has invoked no such operation", line.process))),
            }
        }
        for (line, function, value) in open.into_values() {
            let begun = (line, function, value);
            history
                .complete(line, Kind::Info, begun, Value::default())
                .map_err(|problem| HistoryError::new(line, problem))?;
        }
        Ok(history)
    }

    fn complete(&mut self, line: usize, kind: Kind, begun: Open, value: Value) -> Result<(), String> {
        let (invoked, function, asked) = begun;
        let verb = match function {
            Function::CreateStream => Verb::CreateStream,
            Function::DeleteStream => Verb::DeleteStream,
            Function::CreateTopic => Verb::CreateTopic,
            Function::DeleteTopic => Verb::DeleteTopic,
            Function::List | Function::Nemesis => {
                if kind == Kind::Ok {
                    let op = value.op.ok_or("value: `op` is missing")?;
                    let list = List { invoked, line, latest: asked.latest, op, streams: value.streams };
                    self.entries.push(Entry::List(list));
                }
                return Ok(());
            }
        };
        let answer = match (kind, value.refused) {
            (Kind::Ok, _) => Answer::Done,
            (Kind::Fail, Some(refusal)) => Answer::Refused(refusal),
            (Kind::Fail, None) => Answer::NotDone,
            (Kind::Info | Kind::Invoke, _) => Answer::Unknown,
        };
        let of_topic = matches!(verb, Verb::CreateTopic | Verb::DeleteTopic);
        if asked.topic.is_some() != of_topic {
            return Err("value: `topic` is missing, or too much".to_owned());
        }
        let stream = asked.stream.ok_or("value: `stream` is missing")?;
        let change = Change { invoked, line, verb, stream, topic: asked.topic, answer };
        self.entries.push(Entry::Change(change));
        Ok(())
    }
}

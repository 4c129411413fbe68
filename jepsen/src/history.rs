//! What clients did and what they were told: JSON lines, in the order of their times.
//!
//! ```text
//!   {"time_ns":5,"process":1,"type":"invoke","f":"send","value":{"partition":0,"values":[7,8]}}
//!   {"time_ns":9,"process":1,"type":"ok","f":"send","value":{"partition":0,"values":[7,8],"offset":41}}
//! ```
//!
//! | `f`       | `value` of the invocation          | added to `value` when it is `ok`                                         |
//! |-----------|------------------------------------|----------------------------------------------------------------------------|
//! | `send`    | `partition`, `values`; perhaps `producer`, `sequence` | `offset` of the first value; the others follow without gaps |
//! | `assign`  | `partition`, `offset`              | -; the process polls from there on                                         |
//! | `poll`    | `partition`                        | `records`: pairs of offset and value; `high_watermark`, if it was told     |
//! | `drain`   | `partition`                        | as `poll`: everything from offset 0 to the end, after all faults are healed |
//! | `end`     | `partition`                        | `offset`: the end of the partition, confirmed by a quorum after it was asked |
//! | `nemesis` | anything                           | anything; not judged                                                       |
//!
//! A process has one operation at a time: an `invoke`, then `ok` (done), `fail` (surely not done) or `info` (nobody knows). No
//! completion at all means `info`. Every value is sent once in a history: that is how it is recognised. A producer that sends
//! ahead of its acknowledgements is many processes, one for each send under way; `producer` and `sequence` (growing) say then
//! in which order it sent. `error` may say anywhere why something was not done.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead};

use serde::Deserialize;

/// One line.
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

/// What a line says of an operation.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Invoke,
    Ok,
    Fail,
    Info,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
enum Function {
    Send,
    Assign,
    Poll,
    Drain,
    End,
    Nemesis,
}

/// The value of any function; each uses its part of it.
#[derive(Deserialize, Clone, PartialEq, Eq, Debug, Default)]
#[serde(deny_unknown_fields)]
struct Value {
    partition: u32,
    #[serde(default)]
    values: Vec<u64>,
    offset: Option<u64>,
    #[serde(default)]
    records: Vec<(u64, u64)>,
    high_watermark: Option<u64>,
    producer: Option<u64>,
    #[serde(default)]
    sequence: u64,
    #[serde(default, rename = "error")]
    _error: Option<String>,
}

/// How a send ended, as far as its client knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SendOutcome {
    /// The values are in the log from this offset on.
    Acknowledged(u64),
    /// They are not.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// What a process did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    /// Appended values.
    Send { values: Vec<u64>, outcome: SendOutcome, turn: Option<Turn> },
    /// Goes on reading at an offset.
    Assign { offset: u64 },
    /// Read what comes next.
    Poll(Read),
    /// Read everything.
    Drain(Read),
    /// Was told where the partition ends.
    End { end: u64 },
}

/// Which producer sent something, and as its how-manieth.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Turn {
    pub(crate) producer: u64,
    pub(crate) sequence: u64,
}

/// What was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Read {
    /// Offsets with their values, in the order they came.
    pub(crate) records: Vec<(u64, u64)>,
    /// The high watermark told with them.
    pub(crate) high_watermark: Option<u64>,
}

/// One operation, in the order of completion; sends without one come last.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Operation {
    /// The line that invokes it.
    pub(crate) invoked: usize,
    /// The line that completes it, or else that invokes it.
    pub(crate) line: usize,
    pub(crate) process: u64,
    pub(crate) partition: u32,
    pub(crate) action: Action,
}

/// All operations.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct History {
    pub(crate) operations: Vec<Operation>,
}

/// Why a history cannot be judged.
#[derive(Debug)]
pub(crate) struct HistoryError {
    line: usize,
    problem: String,
}

impl HistoryError {
    pub(crate) fn new(line: usize, problem: String) -> Self {
        Self { line, problem }
    }
}

impl std::fmt::Display for HistoryError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}: {}", self.line, self.problem)
    }
}

impl std::error::Error for HistoryError {}

/// An operation that was invoked and has not completed yet.
struct Open {
    line: usize,
    function: Function,
    value: Value,
}

/// Reads a history line by line.
#[derive(Default)]
struct Reader {
    operations: Vec<Operation>,
    open: BTreeMap<u64, Open>,
    sent: BTreeSet<u64>,
    time_ns: u64,
}

impl History {
    /// Reads and pairs up all lines.
    pub(crate) fn read(input: impl BufRead) -> Result<Self, HistoryError> {
        let mut reader = Reader::default();
        for (number, text) in (1..).zip(input.lines()) {
            let told = |problem: String| HistoryError { line: number, problem };
            let text = text.map_err(|error: io::Error| told(error.to_string()))?;
            if !text.trim().is_empty() {
                let line: Line = serde_json::from_str(&text).map_err(|error| told(error.to_string()))?;
                reader.take(number, line).map_err(told)?;
            }
        }
        for (process, open) in std::mem::take(&mut reader.open) {
            let line = open.line;
            reader.complete(line, process, Kind::Info, open)?;
        }
        Ok(Self { operations: reader.operations })
    }
}

impl Reader {
    fn take(&mut self, number: usize, line: Line) -> Result<(), String> {
        if line.time_ns < self.time_ns {
            return Err(format!("time_ns {} lies before that of the line above", line.time_ns));
        }
        self.time_ns = line.time_ns;
        if line.f == Function::Nemesis {
            return Ok(());
        }
        let value: Value = serde_json::from_value(line.value).map_err(|error| format!("value: {error}"))?;
        if line.kind == Kind::Invoke {
            return self.invoke(number, line.process, line.f, value);
        }
        match self.open.remove(&line.process) {
            Some(open) if open.function == line.f && open.value.partition == value.partition => {
                // What was sent is what was invoked; what came back is what completed.
                let Value { values, producer, sequence, .. } = open.value;
                let value = Value { values, producer, sequence, ..value };
                let open = Open { value, ..open };
                self.complete(number, line.process, line.kind, open).map_err(|error| error.problem)
            }
            Some(_) | None => Err(format!("process {} has invoked no such operation", line.process)),
        }
    }

    fn invoke(
        &mut self,
        number: usize,
        process: u64,
        function: Function,
        value: Value,
    ) -> Result<(), String> {
        if let Some(value) = value.values.iter().find(|value| !self.sent.insert(**value)) {
            return Err(format!("value {value} is sent twice; values must be unique"));
        }
        match self.open.insert(process, Open { line: number, function, value }) {
            Some(open) => Err(format!("process {process} is still busy with line {}", open.line)),
            None => Ok(()),
        }
    }

    fn complete(&mut self, line: usize, process: u64, kind: Kind, open: Open) -> Result<(), HistoryError> {
        let Open { line: invoked, function, value } = open;
        let missing = |what: &str| HistoryError { line, problem: format!("value: `{what}` is missing") };
        let partition = value.partition;
        let read = Read { records: value.records, high_watermark: value.high_watermark };
        let turn = value.producer.map(|producer| Turn { producer, sequence: value.sequence });
        let action = match (function, kind) {
            (Function::Send, _) => Action::Send {
                turn,
                values: value.values,
                outcome: match kind {
                    Kind::Ok => SendOutcome::Acknowledged(value.offset.ok_or_else(|| missing("offset"))?),
                    Kind::Fail => SendOutcome::Refused,
                    Kind::Invoke | Kind::Info => SendOutcome::Unknown,
                },
            },
            (Function::Assign, Kind::Ok) => {
                Action::Assign { offset: value.offset.ok_or_else(|| missing("offset"))? }
            }
            (Function::End, Kind::Ok) => Action::End { end: value.offset.ok_or_else(|| missing("offset"))? },
            (Function::Poll, Kind::Ok) => Action::Poll(read),
            (Function::Drain, Kind::Ok) => Action::Drain(read),
            // A read that failed saw nothing, and proves nothing.
            (Function::Assign | Function::Poll | Function::Drain | Function::End | Function::Nemesis, _) => {
                return Ok(());
            }
        };
        self.operations.push(Operation { invoked, line, process, partition, action });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(process: u64, kind: &str, f: &str, value: &str) -> String {
        format!(
            "{{\"time_ns\":1,\"process\":{process},\"type\":\"{kind}\",\"f\":\"{f}\",\"value\":{value}}}\n"
        )
    }

    fn read(lines: &[String]) -> Result<History, String> {
        History::read(lines.concat().as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn invocations_and_completions_become_operations() {
        let history = read(&[
            line(1, "invoke", "send", r#"{"partition":0,"values":[7]}"#),
            line(2, "invoke", "send", r#"{"partition":0,"values":[8],"producer":3,"sequence":1}"#),
            line(3, "info", "nemesis", r#""kill node 2""#),
            line(1, "ok", "send", r#"{"partition":0,"offset":4}"#),
        ])
        .unwrap();
        let outcomes: Vec<_> = history.operations.iter().map(|operation| operation.action.clone()).collect();
        assert_eq!(
            outcomes,
            [
                Action::Send { values: vec![7], outcome: SendOutcome::Acknowledged(4), turn: None },
                Action::Send {
                    values: vec![8],
                    outcome: SendOutcome::Unknown,
                    turn: Some(Turn { producer: 3, sequence: 1 })
                },
            ]
        );
    }

    #[test]
    fn histories_that_mean_nothing_are_refused_by_line() {
        let invoke = line(1, "invoke", "send", r#"{"partition":0,"values":[7]}"#);
        let again = line(2, "invoke", "send", r#"{"partition":1,"values":[7]}"#);
        let ok = line(1, "ok", "send", r#"{"partition":0,"offset":1}"#);
        let elsewhere = line(1, "ok", "send", r#"{"partition":1,"offset":1}"#);
        let nowhere = line(1, "ok", "send", r#"{"partition":0}"#);
        let table = [
            (vec![ok.clone()], "line 1: process 1 has invoked no such operation"),
            (vec![invoke.clone(), elsewhere], "line 2: process 1 has invoked no such operation"),
            (vec![invoke.clone(), nowhere], "line 2: value: `offset` is missing"),
            (vec![invoke.clone(), again], "line 2: value 7 is sent twice; values must be unique"),
            (
                vec![invoke.clone(), invoke.replace("[7]", "[8]")],
                "line 2: process 1 is still busy with line 1",
            ),
            (vec![ok.replace(":1,", ":1,\"x\":2,")], "line 1: unknown field `x`"),
            (vec![invoke, ok.replace("\"time_ns\":1", "\"time_ns\":0")], "line 2: time_ns 0 lies before"),
        ];
        for (lines, says) in table {
            let error = read(&lines).unwrap_err();
            assert!(error.starts_with(says), "{error}");
        }
    }
}

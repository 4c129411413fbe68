//! Writes the history of a run while it happens, and keeps what the report draws.
//!
//! Lines are stamped and written under one lock, so the file is in the order of its times. Of each operation the times and the
//! outcome stay in memory; of the nemesis everything does.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Value, json};

/// How an operation ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Ended {
    /// Done.
    Ok,
    /// Surely not done.
    Fail,
    /// Nobody knows.
    Info,
}

/// An operation as the report draws it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Sample {
    pub(crate) f: &'static str,
    pub(crate) start: Duration,
    pub(crate) end: Duration,
    pub(crate) ended: Ended,
}

/// Something that the nemesis did, or that happened to the cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Event {
    pub(crate) at_ms: u64,
    /// Which of the planned faults; none for what just happened.
    pub(crate) fault: Option<usize>,
    /// What kind: `kill`, `partition`, ...
    pub(crate) kind: String,
    pub(crate) phase: Phase,
    pub(crate) detail: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    /// A fault has begun.
    Begin,
    /// It is over.
    End,
    /// It could not be done; the detail says why.
    Skipped,
    /// Something that is over at once.
    Note,
}

/// What is kept in memory.
#[derive(Default, Debug)]
pub(crate) struct Kept {
    pub(crate) samples: Vec<Sample>,
    pub(crate) events: Vec<Event>,
}

struct Inner {
    file: BufWriter<File>,
    open: BTreeMap<u64, Duration>,
    kept: Kept,
    failure: Option<io::Error>,
}

/// The history being written.
pub(crate) struct Recorder {
    start: Instant,
    processes: AtomicU64,
    inner: Mutex<Inner>,
}

/// A process of the history: it has one operation at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process(pub(crate) u64);

/// The nemesis is a process, too; its lines are not judged.
const NEMESIS: u64 = 0;

impl Recorder {
    /// Begins a history in a file that must not exist yet.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let file = BufWriter::new(File::create_new(path)?);
        let inner = Inner { file, open: BTreeMap::new(), kept: Kept::default(), failure: None };
        Ok(Self { start: Instant::now(), processes: AtomicU64::new(NEMESIS + 1), inner: Mutex::new(inner) })
    }

    /// A process that has not been there before.
    pub(crate) fn process(&self) -> Process {
        Process(self.processes.fetch_add(1, Ordering::Relaxed))
    }

    /// Since the beginning of the run.
    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    pub(crate) fn invoke(&self, process: Process, f: &'static str, value: Value) {
        let mut inner = self.lock();
        let now = self.start.elapsed();
        inner.open.insert(process.0, now);
        inner.write(now, process.0, "invoke", f, value);
    }

    pub(crate) fn complete(&self, process: Process, ended: Ended, f: &'static str, value: Value) {
        let mut inner = self.lock();
        let now = self.start.elapsed();
        if let Some(start) = inner.open.remove(&process.0) {
            inner.kept.samples.push(Sample { f, start, end: now, ended });
        }
        let kind = match ended {
            Ended::Ok => "ok",
            Ended::Fail => "fail",
            Ended::Info => "info",
        };
        inner.write(now, process.0, kind, f, value);
    }

    pub(crate) fn event(&self, fault: Option<usize>, kind: &str, phase: Phase, detail: impl Into<String>) {
        let mut inner = self.lock();
        let now = self.start.elapsed();
        let at_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let event = Event { at_ms, fault, kind: kind.to_owned(), phase, detail: detail.into() };
        inner.write(now, NEMESIS, "info", "nemesis", json!(event));
        inner.kept.events.push(event);
    }

    /// Writes out what is buffered and takes what was kept.
    pub(crate) fn finish(&self) -> io::Result<Kept> {
        let mut inner = self.lock();
        inner.file.flush()?;
        match inner.failure.take() {
            Some(failure) => Err(failure),
            None => Ok(std::mem::take(&mut inner.kept)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn write(&mut self, now: Duration, process: u64, kind: &str, f: &str, value: Value) {
        let time_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let line = json!({"time_ns": time_ns, "process": process, "type": kind, "f": f, "value": value});
        if let Err(error) = writeln!(self.file, "{line}") {
            self.failure.get_or_insert(error);
        }
    }
}

//! The nodes of `varve dev` as processes: one task each that starts it, waits for its end, and stops it when told.
//!
//! A child is told to stop by the end of its stdin. That works without signals, and also when this process is killed: the
//! system closes the pipe. Children have a process group of their own, so that Ctrl-C in a terminal reaches only us.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use varve_protocol::id::NodeId;

/// How long a child may take to stop before it is killed.
const GRACE: Duration = Duration::from_secs(10);

/// The pause before the first restart of a child that died; it doubles with every further one.
const BACKOFF_MIN: Duration = Duration::from_millis(500);

/// The longest pause.
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// A child that lived this long is healthy: the next pause is the shortest again.
const HEALTHY: Duration = Duration::from_secs(30);

/// Lines of a log that are shown when its child died.
const TAIL_LINES: usize = 8;

/// Bytes of a log that are read for that at most.
const TAIL_BYTES: u64 = 4096;

/// What becomes of a child that ended by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AfterDeath {
    /// It stays dead.
    Stay,
    /// It is started again after a pause.
    Restart,
}

/// What the tasks are told.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Order {
    Run,
    Stop,
    Kill,
}

/// What happens to a child.
#[derive(Debug)]
pub(crate) enum Event {
    /// It runs.
    Started { node: NodeId, pid: u32 },
    /// It ended, or did not start, although nobody told it to.
    Died { node: NodeId, how: String, log_tail: String },
}

/// How a child is started.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    pub(crate) node: NodeId,
    pub(crate) config: PathBuf,
    pub(crate) log_file: PathBuf,
    pub(crate) log_filter: Option<String>,
    pub(crate) after_death: AfterDeath,
}

/// All children.
#[derive(Debug)]
pub(crate) struct Children {
    tasks: JoinSet<()>,
    order: watch::Sender<Order>,
    events: mpsc::Receiver<Event>,
}

impl Children {
    /// Starts them all.
    pub(crate) fn start(recipes: impl IntoIterator<Item = Recipe>) -> Self {
        let (order, orders) = watch::channel(Order::Run);
        let (report, events) = mpsc::channel(16);
        let mut tasks = JoinSet::new();
        for recipe in recipes {
            tasks.spawn(supervise(recipe, orders.clone(), report.clone()));
        }
        Self { tasks, order, events }
    }

    /// The next thing that happens; none when no child can be expected to run any more.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// Tells all of them to stop, or to die at once.
    pub(crate) fn tell(&self, order: Order) {
        self.order.send_if_modified(|current| {
            let later = *current < order;
            *current = order.max(*current);
            later
        });
    }

    /// Waits until all are gone.
    pub(crate) async fn gone(&mut self) {
        while let Some(event) = self.events.recv().await {
            tracing::debug!(?event, "while stopping");
        }
        while self.tasks.join_next().await.is_some() {}
    }
}

async fn supervise(recipe: Recipe, mut orders: watch::Receiver<Order>, report: mpsc::Sender<Event>) {
    let node = recipe.node;
    let mut backoff = BACKOFF_MIN;
    loop {
        let log_start = std::fs::metadata(&recipe.log_file).map_or(0, |file| file.len());
        let since = Instant::now();
        let how = match spawn(&recipe) {
            Ok(mut child) => {
                let pid = child.id().unwrap_or_default();
                let _ = report.send(Event::Started { node, pid }).await;
                match live(&mut child, &mut orders).await {
                    Some(status) => words(status),
                    None => return,
                }
            }
            Err(error) => format!("could not be started: {error}"),
        };
        let log_tail = tail(&recipe.log_file, log_start).unwrap_or_default();
        let _ = report.send(Event::Died { node, how, log_tail }).await;
        if recipe.after_death == AfterDeath::Stay {
            return;
        }
        backoff = if since.elapsed() > HEALTHY { BACKOFF_MIN } else { backoff };
        // The pause is over when the time is up, and supervision when there is another order.
        if timeout(backoff, orders.wait_for(|order| *order > Order::Run)).await.is_ok() {
            return;
        }
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

fn spawn(recipe: &Recipe) -> io::Result<Child> {
    let log = OpenOptions::new().create(true).append(true).open(&recipe.log_file)?;
    let mut command = Command::new(std::env::current_exe()?);
    if let Some(filter) = &recipe.log_filter {
        command.args(["--log", filter]);
    }
    command
        .arg("node")
        .arg("--config")
        .arg(&recipe.config)
        .args(["--id", &recipe.node.as_raw().to_string(), "--exit-with-parent"])
        .stdin(Stdio::piped())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

/// Waits for the end of a child; none if it was told to end.
async fn live(child: &mut Child, orders: &mut watch::Receiver<Order>) -> Option<ExitStatus> {
    // Waiting for a child closes what we have of its stdin, so that is held here.
    let stdin = child.stdin.take();
    tokio::select! {
        biased;
        status = child.wait() => return status.ok(),
        _ = orders.wait_for(|order| *order > Order::Run) => {}
    }
    drop(stdin);
    tokio::select! {
        biased;
        _ = child.wait() => return None,
        _ = timeout(GRACE, orders.wait_for(|order| *order > Order::Stop)) => {}
    }
    if let Err(error) = child.kill().await {
        tracing::warn!(%error, "a node could not be killed");
    }
    None
}

/// `exited with code 1`, `was ended by signal 9`.
fn words(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

/// The last lines that were written to a log since it had `start` bytes.
fn tail(path: &Path, start: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    let end = file.seek(SeekFrom::End(0))?;
    let from = start.max(end.saturating_sub(TAIL_BYTES));
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    // If it starts in the middle of a line, that line is left out.
    let text = if from > start { text.split_once('\n').map_or("", |(_, rest)| rest) } else { &text };
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_of_a_log_is_of_this_run_and_short() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node-1.log");
        std::fs::write(&path, "old\nnew\nnewer\n").unwrap();
        assert_eq!(tail(&path, 4).unwrap(), "new\nnewer");
        assert_eq!(tail(&path, 14).unwrap(), "");
        let long: String = (0..1_000).map(|number| format!("line {number}\n")).collect();
        std::fs::write(&path, &long).unwrap();
        let tail = tail(&path, 0).unwrap();
        assert_eq!((tail.lines().next(), tail.lines().count()), (Some("line 992"), TAIL_LINES));
    }
}

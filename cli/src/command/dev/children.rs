//! The nodes of `varve dev` as processes: one task each that starts it, waits for its end, and stops it when told. A single one is
//! stopped and started again when somebody asks for it.
//!
//! A child is told to stop by the end of its stdin. That works without signals, and also when this process is killed: the
//! system closes the pipe. Children have a process group of their own, so that Ctrl-C in a terminal reaches only us.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use varve_protocol::id::NodeId;

use super::orders::{self, Answer, Asked};

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
    /// It was stopped because somebody asked for it.
    Stopped { node: NodeId },
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
    asks: BTreeMap<u8, mpsc::Sender<Asked>>,
    events: mpsc::Receiver<Event>,
}

impl Children {
    /// Starts them all.
    pub(crate) fn start(recipes: impl IntoIterator<Item = Recipe>) -> Self {
        let (order, orders) = watch::channel(Order::Run);
        let (report, events) = mpsc::channel(16);
        let (mut tasks, mut asks) = (JoinSet::new(), BTreeMap::new());
        for recipe in recipes {
            let (ask, asked) = mpsc::channel(4);
            asks.insert(recipe.node.as_raw(), ask);
            let child = Supervisor { recipe, orders: orders.clone(), asked, report: report.clone() };
            tasks.spawn(child.run());
        }
        Self { tasks, order, asks, events }
    }

    /// Has one of them stopped or started; whoever asked gets the answer when it is done.
    pub(crate) fn ask(&self, asked: Asked) {
        let node = asked.order.node();
        let refused = match self.asks.get(&node) {
            Some(ask) => {
                ask.try_send(asked).err().map(|error| (error.into_inner(), "it has enough to do".to_owned()))
            }
            None => Some((asked, format!("there is no node {node}"))),
        };
        if let Some((asked, why)) = refused {
            let _ = asked.answer.send(Answer::Refused(why));
        }
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

/// The task of one child.
struct Supervisor {
    recipe: Recipe,
    orders: watch::Receiver<Order>,
    asked: mpsc::Receiver<Asked>,
    report: mpsc::Sender<Event>,
}

/// Whoever waits for an answer.
type Reply = oneshot::Sender<Answer>;

/// How a child came to its end.
enum End {
    /// All were told to end.
    Told,
    /// It was asked for.
    Asked(Reply),
    /// By itself.
    Died(String),
}

impl Supervisor {
    async fn run(mut self) {
        let node = self.recipe.node;
        let mut backoff = BACKOFF_MIN;
        // Who has asked for it to be started.
        let mut starter: Option<Reply> = None;
        loop {
            let log_start = std::fs::metadata(&self.recipe.log_file).map_or(0, |file| file.len());
            let since = Instant::now();
            let end = match spawn(&self.recipe) {
                Ok(mut child) => {
                    let pid = child.id().unwrap_or_default();
                    let _ = self.report.send(Event::Started { node, pid }).await;
                    answer(starter.take(), Answer::Running(pid));
                    self.live(&mut child, pid).await
                }
                Err(error) => {
                    let how = format!("could not be started: {error}");
                    answer(starter.take(), Answer::Refused(how.clone()));
                    End::Died(how)
                }
            };
            backoff = if since.elapsed() > HEALTHY { BACKOFF_MIN } else { backoff };
            let pause = match end {
                End::Told => return,
                End::Asked(reply) => {
                    let _ = self.report.send(Event::Stopped { node }).await;
                    answer(Some(reply), Answer::Stopped);
                    None
                }
                End::Died(how) => {
                    let log_tail = tail(&self.recipe.log_file, log_start).unwrap_or_default();
                    let _ = self.report.send(Event::Died { node, how, log_tail }).await;
                    (self.recipe.after_death == AfterDeath::Restart).then_some(backoff)
                }
            };
            let Some(next) = self.rest(pause).await else { return };
            starter = next;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Waits for the end of a child.
    async fn live(&mut self, child: &mut Child, pid: u32) -> End {
        // Waiting for a child closes what we have of its stdin, so that is held here.
        let stdin = child.stdin.take();
        let reply = loop {
            tokio::select! {
                biased;
                status = child.wait() => return status.map_or(End::Told, |status| End::Died(words(status))),
                _ = self.orders.wait_for(|order| *order > Order::Run) => break None,
                Some(Asked { order, answer: reply }) = self.asked.recv() => match order {
                    orders::Order::Start(_) => answer(Some(reply), Answer::Running(pid)),
                    orders::Order::Stop(_) => break Some(reply),
                },
            }
        };
        drop(stdin);
        tokio::select! {
            biased;
            _ = child.wait() => return reply.map_or(End::Told, End::Asked),
            _ = timeout(GRACE, self.orders.wait_for(|order| *order > Order::Stop)) => {}
        }
        if let Err(error) = child.kill().await {
            tracing::warn!(%error, "a node could not be killed");
        }
        reply.map_or(End::Told, End::Asked)
    }

    /// Waits until the child is to be started again: when the pause is over, if there is one, or when somebody asks, who is
    /// returned. None when all are told to end.
    async fn rest(&mut self, mut pause: Option<Duration>) -> Option<Option<Reply>> {
        loop {
            let is_over = async {
                match pause {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                _ = self.orders.wait_for(|order| *order > Order::Run) => return None,
                Some(Asked { order, answer: reply }) = self.asked.recv() => match order {
                    orders::Order::Start(_) => return Some(Some(reply)),
                    orders::Order::Stop(_) => {
                        // It is stopped until somebody wants it, whatever was to be before.
                        pause = None;
                        answer(Some(reply), Answer::Stopped);
                    }
                },
                () = is_over => return Some(None),
            }
        }
    }
}

/// If whoever asked is gone, nobody is left to tell.
fn answer(reply: Option<Reply>, answer: Answer) {
    if let Some(reply) = reply {
        let _ = reply.send(answer);
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

//! What other commands may ask of a `varve dev` that runs: to stop a node, and to start one. So its nodes stay its children,
//! whoever had them stopped, and Ctrl-C stops all of them.
//!
//! The way there is the socket `dev.sock` in the data directory: one line of JSON there, one back, when it is done. Who may write
//! to the directory may ask.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::failure::{Failure, Outcome};

const FILE: &str = "dev.sock";

/// Bytes of a line at most.
const LINE_BYTES_MAX: u64 = 4_096;

/// How long a line may take to come.
const LINE_WAIT: Duration = Duration::from_secs(5);

/// How long an order may take to be carried out: as long as a node may take to stop, and then some.
const DONE_WAIT: Duration = Duration::from_secs(30);

/// What a `varve dev` is asked to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    /// Start a node, unless it runs.
    Start(u8),
    /// Stop a node in good order, and leave it stopped until it is to be started.
    Stop(u8),
}

impl Order {
    /// Which node is meant.
    pub(crate) fn node(self) -> u8 {
        match self {
            Self::Start(node) | Self::Stop(node) => node,
        }
    }
}

/// What it answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// The node runs, as this process.
    Running(u32),
    /// The node does not run.
    Stopped,
    /// It was not done, and why.
    Refused(String),
}

/// An order, and where to answer.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) order: Order,
    pub(crate) answer: oneshot::Sender<Answer>,
}

/// Orders as they come; the socket goes when this does.
#[derive(Debug)]
pub(crate) struct Orders {
    asked: mpsc::Receiver<Asked>,
    /// None if there is no socket: nobody asks then.
    listening: Option<(PathBuf, tokio::task::JoinHandle<()>)>,
    /// Held so that the channel stays open.
    _open: mpsc::Sender<Asked>,
}

impl Orders {
    /// Listens in a data directory. One whose path is too long for a socket gets none, and nobody can ask.
    pub(crate) fn listen(data_dir: &Path) -> Self {
        let (give, asked) = mpsc::channel(16);
        let path = data_dir.join(FILE);
        // Whoever left it behind does not run: the directory is ours.
        let _ = std::fs::remove_file(&path);
        let listening = match UnixListener::bind(&path) {
            Ok(listener) => Some((path, tokio::spawn(accept(listener, give.clone())))),
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "no orders can be taken");
                None
            }
        };
        Self { asked, listening, _open: give }
    }

    /// The next one.
    pub(crate) async fn next(&mut self) -> Option<Asked> {
        self.asked.recv().await
    }
}

impl Drop for Orders {
    fn drop(&mut self) {
        if let Some((path, task)) = &self.listening {
            task.abort();
            let _ = std::fs::remove_file(path);
        }
    }
}

async fn accept(listener: UnixListener, give: mpsc::Sender<Asked>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let give = give.clone();
                tokio::spawn(async move {
                    if let Err(error) = serve(stream, give).await {
                        tracing::debug!(%error, "an order was not answered");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "no orders can be taken any more");
                return;
            }
        }
    }
}

async fn serve(mut stream: UnixStream, give: mpsc::Sender<Asked>) -> io::Result<()> {
    let order = serde_json::from_str::<Order>(&line(&mut stream, LINE_WAIT).await?);
    let answer = match order {
        Ok(order) => {
            let (answer, answered) = oneshot::channel();
            let _ = give.send(Asked { order, answer }).await;
            answered.await.unwrap_or_else(|_| Answer::Refused("`varve dev` is about to stop".to_owned()))
        }
        Err(error) => Answer::Refused(format!("no order: {error}")),
    };
    write(&mut stream, &answer).await
}

/// Asks the `varve dev` of a data directory, and waits until it is done.
pub(crate) async fn ask(data_dir: &Path, order: Order) -> Outcome<Answer> {
    let path = data_dir.join(FILE);
    let answered = async {
        let mut stream = UnixStream::connect(&path).await?;
        write(&mut stream, &order).await?;
        let answer = line(&mut stream, DONE_WAIT).await?;
        Ok::<Answer, io::Error>(serde_json::from_str(&answer)?)
    };
    let answer = answered
        .await
        .with_context(|| format!("the `varve dev` in {} takes no orders", data_dir.display()))
        .map_err(Failure::refused)?;
    match answer {
        Answer::Refused(why) => {
            Err(Failure::refused(anyhow!("`varve dev` does not do it for node {}: {why}", order.node())))
        }
        Answer::Running(_) | Answer::Stopped => Ok(answer),
    }
}

async fn line(stream: &mut UnixStream, limit: Duration) -> io::Result<String> {
    let mut line = String::new();
    let mut bounded = BufReader::new(stream.take(LINE_BYTES_MAX));
    let read = timeout(limit, bounded.read_line(&mut line)).await;
    read.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {limit:?}")))??;
    Ok(line)
}

async fn write<T: Serialize>(stream: &mut UnixStream, value: &T) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    stream.write_all(&line).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_order_is_answered_when_it_is_done() {
        let dir = tempfile::tempdir().unwrap();
        let mut orders = Orders::listen(dir.path());
        let (answer, asked) = tokio::join!(ask(dir.path(), Order::Start(2)), async {
            let asked = orders.next().await.unwrap();
            let order = asked.order;
            asked.answer.send(Answer::Running(7)).unwrap();
            order
        });
        assert_eq!((answer.unwrap(), asked), (Answer::Running(7), Order::Start(2)));
        let (answer, ()) = tokio::join!(ask(dir.path(), Order::Stop(9)), async {
            let asked = orders.next().await.unwrap();
            asked.answer.send(Answer::Refused("there is no node 9".to_owned())).unwrap();
        });
        let line = answer.unwrap_err().line();
        assert!(line.ends_with("node 9: there is no node 9"), "{line}");
    }

    #[tokio::test]
    async fn what_is_no_order_is_refused_and_what_does_not_run_takes_none() {
        let dir = tempfile::tempdir().unwrap();
        {
            let _orders = Orders::listen(dir.path());
            let mut stream = UnixStream::connect(dir.path().join(FILE)).await.unwrap();
            stream.write_all(b"{\"burn\":2}\n").await.unwrap();
            let answer = line(&mut stream, LINE_WAIT).await.unwrap();
            assert!(answer.contains("no order"), "{answer}");
        }
        assert!(!dir.path().join(FILE).exists());
        let line = ask(dir.path(), Order::Stop(1)).await.unwrap_err().line();
        assert!(line.contains("takes no orders"), "{line}");
    }
}

//! Questions to one node, each with its answer: a task owns a session and matches answers by correlation.

use std::collections::BTreeMap;

use tokio::sync::{mpsc, oneshot};
use varve_protocol::frame::Frame;

use crate::link::Link;

/// Questions that may wait for the session.
const QUEUE_MAX: usize = 64;

struct Call {
    frame: Frame,
    answer: oneshot::Sender<Frame>,
}

/// Asks one node. Cheap to clone; the session ends with the last clone.
#[derive(Clone)]
pub(crate) struct Caller {
    calls: mpsc::Sender<Call>,
}

impl Caller {
    pub(crate) fn new(link: Link) -> Self {
        let (calls, queue) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(serve(link, queue));
        Self { calls }
    }

    /// Asks and waits for the answer; `None` if the session breaks before it comes.
    pub(crate) async fn call(&self, frame: Frame) -> Option<Frame> {
        let (answer, answered) = oneshot::channel();
        self.calls.send(Call { frame, answer }).await.ok()?;
        answered.await.ok()
    }

    /// Whether the session has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.calls.is_closed()
    }
}

async fn serve(mut link: Link, mut calls: mpsc::Receiver<Call>) {
    let mut waiting: BTreeMap<u64, oneshot::Sender<Frame>> = BTreeMap::new();
    let mut next_correlation = 1;
    loop {
        tokio::select! {
            biased;
            frame = link.incoming.recv() => {
                let Some(frame) = frame else { return };
                if let Some(answer) = waiting.remove(&frame.header.correlation) {
                    // Whoever asked may have given up; then nobody needs the answer.
                    let _ = answer.send(frame);
                }
            }
            call = calls.recv() => {
                let Some(Call { mut frame, answer }) = call else { return };
                frame.header.cluster = link.cluster();
                frame.header.correlation = next_correlation;
                waiting.insert(next_correlation, answer);
                waiting.retain(|_, answer| !answer.is_closed());
                next_correlation += 1;
                if link.outgoing.send(frame).await.is_err() {
                    return;
                }
            }
        }
    }
}

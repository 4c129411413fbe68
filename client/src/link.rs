//! A session with a task for each direction, so that waiting for an answer can be given up without losing half a frame.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use varve_protocol::frame::Frame;
use varve_protocol::id::ClusterId;
use varve_transport::{ClientConnection, SessionReceiver, SessionSender, TransportError};

/// Frames that may wait in each direction; QUIC's windows hold the rest.
const QUEUE_MAX: usize = 4;

/// When a node was last heard, on any session.
#[derive(Debug, Default)]
pub(crate) struct Heard(Mutex<Option<Instant>>);

impl Heard {
    fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Whether it was heard within `limit`.
    pub(crate) fn is_within(&self, limit: Duration) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|at| at.elapsed() < limit)
    }
}

/// A session with a node. Ends when it is dropped.
pub(crate) struct Link {
    cluster: ClusterId,
    pub(crate) outgoing: mpsc::Sender<Frame>,
    /// Ends when the session does.
    pub(crate) incoming: mpsc::Receiver<Frame>,
    tasks: [JoinHandle<()>; 2],
}

impl Link {
    /// Opens a session whose every frame is noted in `heard`.
    pub(crate) async fn open(
        connection: &ClientConnection,
        heard: Arc<Heard>,
    ) -> Result<Self, TransportError> {
        let (sender, receiver) = connection.open_session().await?;
        let cluster = sender.cluster();
        let (outgoing, to_send) = mpsc::channel(QUEUE_MAX);
        let (received, incoming) = mpsc::channel(QUEUE_MAX);
        let tasks = [tokio::spawn(write(sender, to_send)), tokio::spawn(read(receiver, received, heard))];
        Ok(Self { cluster, outgoing, incoming, tasks })
    }

    /// The cluster, to be put into every frame.
    pub(crate) fn cluster(&self) -> ClusterId {
        self.cluster
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn write(mut sender: SessionSender, mut frames: mpsc::Receiver<Frame>) {
    while let Some(frame) = frames.recv().await {
        if let Err(error) = sender.send(frame).await {
            return tracing::debug!(%error, "session broke while sending");
        }
    }
}

async fn read(mut receiver: SessionReceiver, frames: mpsc::Sender<Frame>, heard: Arc<Heard>) {
    loop {
        match receiver.recv().await {
            Ok(Some(frame)) => {
                heard.note();
                if frames.send(frame).await.is_err() {
                    return;
                }
            }
            Ok(None) => return,
            Err(error) => return tracing::debug!(%error, "session broke while receiving"),
        }
    }
}

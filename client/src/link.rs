//! A session with a task for each direction, so that waiting for an answer can be given up without losing half a frame.

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use varve_protocol::frame::Frame;
use varve_protocol::id::ClusterId;
use varve_transport::{ClientConnection, SessionReceiver, SessionSender, TransportError};

/// Frames that may wait in each direction; QUIC's windows hold the rest.
const QUEUE_MAX: usize = 4;

/// A session with a node. Ends when it is dropped.
pub(crate) struct Link {
    cluster: ClusterId,
    pub(crate) outgoing: mpsc::Sender<Frame>,
    /// Ends when the session does.
    pub(crate) incoming: mpsc::Receiver<Frame>,
    tasks: [JoinHandle<()>; 2],
}

impl Link {
    pub(crate) async fn open(connection: &ClientConnection) -> Result<Self, TransportError> {
        let (sender, receiver) = connection.open_session().await?;
        let cluster = sender.cluster();
        let (outgoing, to_send) = mpsc::channel(QUEUE_MAX);
        let (received, incoming) = mpsc::channel(QUEUE_MAX);
        let tasks = [tokio::spawn(write(sender, to_send)), tokio::spawn(read(receiver, received))];
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
        if let Err(error) = sender.send(&frame).await {
            return tracing::debug!(%error, "session broke while sending");
        }
    }
}

async fn read(mut receiver: SessionReceiver, frames: mpsc::Sender<Frame>) {
    loop {
        match receiver.recv().await {
            Ok(Some(frame)) => {
                if frames.send(frame).await.is_err() {
                    return;
                }
            }
            Ok(None) => return,
            Err(error) => return tracing::debug!(%error, "session broke while receiving"),
        }
    }
}

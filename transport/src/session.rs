//! The streams of clients: requests in, answers out, each stream a session of its own.
//!
//! The first frame of a client is `Hello`; the endpoint answers it with its own, which names the cluster, the node and the version that
//! is spoken.

use std::sync::Arc;

use quinn::{Connection, RecvStream, SendStream};
use varve_protocol::frame::{Command, FrameError};
use varve_protocol::version::{Version, Versions};

use crate::error::TransportError;
use crate::event::{Event, SessionId};
use crate::framing::{read_frame, write_frame, write_queue};
use crate::queue::{QueueReceiver, queue};
use crate::shared::Shared;
use crate::tasks::Tasks;

/// Serves a client's connection until it ends.
pub(crate) async fn run(shared: Arc<Shared>, tasks: Tasks, connection: Connection) {
    while let Ok((send, recv)) = connection.accept_bi().await {
        tasks.spawn(serve(shared.clone(), connection.clone(), tasks.clone(), (send, recv)));
    }
}

async fn serve(
    shared: Arc<Shared>,
    connection: Connection,
    tasks: Tasks,
    (mut send, mut recv): (SendStream, RecvStream),
) {
    let version = match greet(&shared, &mut send, &mut recv).await {
        Ok(version) => version,
        Err(error @ TransportError::Release { .. }) => {
            tracing::warn!(remote = %connection.remote_address(), %error, "client refused");
            // It has been told the version, and knows by that why nothing follows.
            let _ = send.finish();
            return;
        }
        Err(error) => return shared.drop_unreadable(&connection, &error),
    };
    let session = SessionId::new(shared.new_number());
    let (sender, queue) = queue(shared.tuning.session_frames_max, shared.tuning.session_bytes_max);
    shared.sessions().insert(session, sender);
    tasks.spawn(write_answers(connection.clone(), send, (queue, version)));
    if let Err(error) = read_requests(&shared, session, &mut recv).await {
        shared.drop_unreadable(&connection, &error);
    }
    shared.sessions().remove(&session);
    // At shutdown nobody listens any more, and nobody needs to know.
    let _ = shared.events.clients.send(Event::ClientGone { session }).await;
}

/// Exchanges hellos; returns the version that is spoken from then on.
async fn greet(
    shared: &Shared,
    send: &mut SendStream,
    recv: &mut RecvStream,
) -> Result<Version, TransportError> {
    match read_frame(recv).await? {
        Some(hello) if hello.header.command == Command::Hello => {
            let version = shared.version();
            let newest = Version::new(u8::try_from(hello.header.commit).unwrap_or(u8::MAX));
            let client = Versions { oldest: hello.header.version, newest };
            write_frame(send, &shared.hello_in(version)).await?;
            let is_known = client.contains(version);
            is_known.then_some(version).ok_or(TransportError::Release { cluster: version, client })
        }
        Some(frame) => {
            let reason = "the first frame of a client is a hello";
            Err(FrameError::Body { command: frame.header.command, reason }.into())
        }
        None => Err(TransportError::Broken("the client said nothing".to_owned())),
    }
}

async fn read_requests(
    shared: &Shared,
    session: SessionId,
    recv: &mut RecvStream,
) -> Result<(), TransportError> {
    while let Some(frame) = read_frame(recv).await? {
        if shared.events.clients.send(Event::ClientFrame { session, frame }).await.is_err() {
            break;
        }
    }
    Ok(())
}

async fn write_answers(
    connection: Connection,
    mut send: SendStream,
    (mut queue, version): (QueueReceiver, Version),
) {
    let written = tokio::select! {
        biased;
        written = write_queue(&mut send, &mut queue, Some(version)) => written,
        error = connection.closed() => Err(TransportError::Broken(error.to_string())),
    };
    if let Err(error) = written {
        tracing::debug!(remote = %connection.remote_address(), %error, "session ended");
    }
}

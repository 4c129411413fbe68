//! A connection between two nodes: who is there, the lanes out and the streams in.
//!
//! Each side opens a stream per lane. A stream begins with one byte, the lane's tag; the control stream goes on with a
//! `Hello`. The connection counts only when the other side's has come and its certificate bears it out; what arrives on
//! other lanes before that waits.

use std::sync::Arc;

use quinn::{Connection, RecvStream};
use tokio::sync::watch;
use varve_protocol::frame::{Command, Frame};
use varve_protocol::id::{Incarnation, NodeId};

use crate::error::TransportError;
use crate::event::Event;
use crate::framing::{read_frame, write_frame, write_queue};
use crate::identity::is_shown_by;
use crate::lane::{CONTROL_TAG, Lane, PULSE_TAG};
use crate::queue::{self, QueueReceiver, QueueSender};
use crate::shared::{Link, Shared, close, code};
use crate::tasks::Tasks;

/// One connection to a peer, as its tasks share it.
struct Peer {
    shared: Arc<Shared>,
    connection: Connection,
    number: u64,
    /// Whom this node has dialled; nobody if it was dialled.
    expected: Option<NodeId>,
    /// Who it is, once it has said so and that was borne out.
    introduced: watch::Sender<Option<NodeId>>,
}

/// Serves a connection to a peer until it ends.
pub(crate) async fn run(shared: Arc<Shared>, tasks: Tasks, connection: Connection, expected: Option<NodeId>) {
    let number = shared.new_number();
    let introduced = watch::Sender::new(None);
    let lanes = Lane::all().map(|lane| open_lane(&shared, &tasks, &connection, lane)).collect();
    let link = Link { number, lanes, connection: connection.clone() };
    let peer = Arc::new(Peer { shared, connection, number, expected, introduced });
    while let Ok(stream) = peer.connection.accept_uni().await {
        tasks.spawn(peer.clone().read_stream(stream, link.clone()));
    }
    drop(link);
    peer.part().await;
}

/// Starts the writer of a lane, which opens its stream.
fn open_lane(shared: &Arc<Shared>, tasks: &Tasks, connection: &Connection, lane: Lane) -> QueueSender {
    let tuning = &shared.tuning;
    let (sender, queue) = queue::queue(tuning.frames_max(lane), tuning.bytes_max(lane));
    let (shared, connection) = (shared.clone(), connection.clone());
    tasks.spawn(async move {
        if let Err(error) = write_lane(&shared, &connection, lane, queue).await {
            tracing::debug!(remote = %connection.remote_address(), ?lane, %error, "lane ended");
        }
    });
    sender
}

async fn write_lane(
    shared: &Shared,
    connection: &Connection,
    lane: Lane,
    mut queue: QueueReceiver,
) -> Result<(), TransportError> {
    let mut stream =
        connection.open_uni().await.map_err(|error| TransportError::Broken(error.to_string()))?;
    // Fails only on a stream that has ended, which the first write tells as well.
    let _ = stream.set_priority(lane.priority());
    let tag = stream.write_all(&[lane.tag()]).await;
    tag.map_err(|error| TransportError::Broken(error.to_string()))?;
    if lane == Lane::Control {
        write_frame(&mut stream, &shared.hello()).await?;
    }
    tokio::select! {
        biased;
        written = write_queue(&mut stream, &mut queue, None) => written,
        // A lane may be idle when the connection ends; nothing would wake it.
        error = connection.closed() => Err(TransportError::Broken(error.to_string())),
    }
}

impl Peer {
    async fn read_stream(self: Arc<Self>, stream: RecvStream, link: Link) {
        if let Err(error) = self.try_read_stream(stream, link).await {
            tracing::debug!(remote = %self.connection.remote_address(), %error, "stream ended");
            self.shared.drop_unreadable(&self.connection, &error);
        }
    }

    async fn try_read_stream(&self, mut stream: RecvStream, link: Link) -> Result<(), TransportError> {
        let mut tag = [0];
        stream.read_exact(&mut tag).await.map_err(|error| TransportError::Broken(error.to_string()))?;
        let (node, events) = if tag[0] == CONTROL_TAG {
            let hello = read_frame(&mut stream).await?;
            let hello = hello.ok_or_else(|| TransportError::Broken("the peer said nothing".to_owned()))?;
            let Some(node) = self.introduce(&hello, link).await else { return Ok(()) };
            (node, &self.shared.events.control)
        } else {
            drop(link);
            let mut introduced = self.introduced.subscribe();
            let node = introduced.wait_for(Option::is_some).await;
            let node = node.ok().and_then(|node| *node);
            let node =
                node.ok_or_else(|| TransportError::Broken("the peer never said who it is".to_owned()))?;
            let is_pulse = tag[0] == PULSE_TAG;
            (node, if is_pulse { &self.shared.events.pulses } else { &self.shared.events.data })
        };
        while let Some(frame) = read_frame(&mut stream).await? {
            if events.send(Event::PeerFrame { node, frame }).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Takes the peer's word for who it is, if its certificate says the same.
    async fn introduce(&self, hello: &Frame, link: Link) -> Option<NodeId> {
        let node = NodeId::new(u8::try_from(hello.header.op.as_raw()).unwrap_or(0));
        if let Some(reason) = self.why_stranger(hello, node) {
            tracing::warn!(remote = %self.connection.remote_address(), %node, reason, "peer refused");
            close(&self.connection, code::STRANGER, &reason);
            return None;
        }
        let older = self.shared.links().insert(node, link);
        if let Some(older) = older {
            close(&older.connection, code::REPLACED, "a newer connection took its place");
        }
        let incarnation = Incarnation::new(hello.header.correlation);
        let told = self.shared.events.control.send(Event::PeerUp { node, incarnation }).await;
        self.introduced.send_replace(Some(node));
        told.is_ok().then_some(node)
    }

    fn why_stranger(&self, hello: &Frame, node: NodeId) -> Option<String> {
        let own = self.shared.who.cluster;
        if hello.header.command != Command::Hello {
            Some("its first word is no hello".to_owned())
        } else if hello.header.cluster != own {
            Some(format!(
                "it is of cluster {}, this is cluster {own}: check `cluster_id`",
                hello.header.cluster
            ))
        } else if self.expected.is_some_and(|expected| expected != node) {
            Some("another node than the one dialled answers: check the addresses".to_owned())
        } else if !self.shared.who.peers.contains(&node) {
            Some(format!("{node} is not in this node's configuration: give all nodes the same"))
        } else if !is_shown_by(&self.connection, own, node) {
            Some(format!("its certificate is not that of {node} of this cluster: check `tls`"))
        } else {
            None
        }
    }

    /// The connection has ended.
    async fn part(&self) {
        let node = *self.introduced.borrow();
        let Some(node) = node else { return };
        let was_current = {
            let mut links = self.shared.links();
            let is_current = links.get(&node).is_some_and(|link| link.number == self.number);
            if is_current {
                links.remove(&node);
            }
            is_current
        };
        if was_current {
            // At shutdown nobody listens any more, and nobody needs to know.
            let _ = self.shared.events.control.send(Event::PeerDown { node }).await;
        }
    }
}

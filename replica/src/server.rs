//! The shell around a [`Node`]: sockets, the disk thread, the clock. The only asynchronous code of this package.
//!
//! ```text
//!   transport ──events──▶ ┌──────┐ ──frames──▶ transport
//!   disk ──completions──▶ │ Node │ ──jobs────▶ disk
//!   clock ───────ticks──▶ └──────┘
//! ```
//!
//! One task owns the node. It takes what is ready, steps the node with it, and hands on all effects before it waits again.
//! The disk sits behind two queues ([`disk`]), so that a slow sync never holds up a pulse. Production gives it a thread;
//! the simulator gives it a task on simulated time, and its own sockets to the transport.

pub mod disk;
mod start;

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;
use varve_protocol::id::Timestamp;
use varve_protocol::time::Moment;
use varve_storage::Job;
use varve_transport::{Event, EventReceiver, SessionId, Transport};

use crate::error::ServerError;
use crate::event::{Effect, NodeInput, Session};
use crate::node::Node;
use crate::server::disk::DiskLink;

pub use crate::server::start::{format_node, run_node};

/// Inputs taken before effects are performed again: enough to share a sync, few enough to keep answers prompt.
const INPUTS_PER_TURN_MAX: usize = 256;

/// How long a node may take to leave no doubt about what its replicas hold when it is told to stop: as long as a slow disk needs
/// for some syncs.
const STOP_MAX: Duration = Duration::from_secs(10);

/// Tells the time to a node.
pub struct Clock {
    start: Instant,
    wall: Box<dyn Fn() -> Timestamp + Send>,
}

impl Clock {
    /// A clock that starts now, with a source for wall-clock time.
    #[must_use]
    pub fn new(wall: Box<dyn Fn() -> Timestamp + Send>) -> Self {
        Self { start: Instant::now(), wall }
    }

    /// The monotonic time.
    #[must_use]
    pub fn now(&self) -> Moment {
        Moment::ZERO.plus(self.start.elapsed())
    }

    /// The wall-clock time.
    #[must_use]
    pub fn wall(&self) -> Timestamp {
        (self.wall)()
    }

    fn instant(&self, moment: Moment) -> Instant {
        self.start + moment.since(Moment::ZERO)
    }
}

/// What a running node is made of.
pub struct Parts {
    /// The node; its first effects are still in it.
    pub node: Node,
    /// The sockets.
    pub transport: Transport,
    /// What comes in through them.
    pub events: EventReceiver,
    /// The disk.
    pub disk: DiskLink,
    /// The clock the node was started with.
    pub clock: Clock,
}

/// Runs a node until `shutdown` completes and what it acknowledged from memory is synced, or its disk fails.
///
/// # Errors
/// When the disk fails, or the disk thread or the transport ends by itself.
pub async fn run(mut parts: Parts, shutdown: impl Future<Output = ()>) -> Result<(), ServerError> {
    tokio::pin!(shutdown);
    let mut stop_until: Option<Instant> = None;
    let ended = loop {
        if let Err(error) = parts.perform_effects() {
            break Err(error);
        }
        if stop_until.is_some() && parts.node.may_stop() {
            break Ok(());
        }
        let due = parts.node.next_timeout().map(|moment| parts.clock.instant(moment));
        tokio::select! {
            biased;
            () = &mut shutdown, if stop_until.is_none() => {
                stop_until = Some(Instant::now() + STOP_MAX);
                parts.step(NodeInput::Stop);
            }
            () = sleep_until(stop_until) => {
                tracing::warn!("stopping although not all is synced that was acknowledged from memory: the disk hangs");
                break Ok(());
            }
            completion = parts.disk.completion() => match completion {
                Some(completion) => parts.step(NodeInput::Disk(completion)),
                None => break Err(ServerError::DiskEnded),
            },
            event = parts.events.recv() => match event {
                Some(event) => parts.step(input_of(event)),
                None => break Err(ServerError::TransportEnded),
            },
            () = sleep_until(due) => parts.step(NodeInput::Tick),
        }
        parts.take_ready();
    };
    let Parts { transport, events, .. } = parts;
    // Whoever has something to tell must not wait for room in a queue that nobody empties any more.
    drop(events);
    transport.shutdown().await;
    ended
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

impl Parts {
    fn step(&mut self, input: NodeInput) {
        self.node.step(self.clock.now(), self.clock.wall(), input);
    }

    /// Takes what else is ready, so that the effects of many inputs go out together. Pulses are first in line, also before the
    /// thousands of completions that one round of the disk may have.
    fn take_ready(&mut self) {
        for _ in 0..INPUTS_PER_TURN_MAX {
            if let Some(pulse) = self.events.try_recv_pulse() {
                self.step(input_of(pulse));
            } else if let Some(completion) = self.disk.try_completion() {
                self.step(NodeInput::Disk(completion));
            } else if let Some(event) = self.events.try_recv() {
                self.step(input_of(event));
            } else {
                break;
            }
        }
    }

    fn perform_effects(&mut self) -> Result<(), ServerError> {
        self.node.set_frames_unreadable(self.transport.frames_dropped());
        self.transport.set_version(self.node.version());
        let mut jobs: Vec<Job> = Vec::new();
        while let Some(effect) = self.node.poll_effect() {
            match effect {
                Effect::Disk(job) => jobs.push(job),
                Effect::ToPeer { node, lane, frame } => {
                    if let Err(error) = self.transport.send_to_peer(node, lane, frame) {
                        tracing::debug!(peer = %node, ?lane, %error, "frame not sent");
                    }
                }
                Effect::ToClient { session, frame } => {
                    if let Err(error) = self.transport.send_to_client(SessionId::new(session.0), frame) {
                        tracing::debug!(session = session.0, %error, "answer not sent");
                    }
                }
                Effect::Halt { reason } => return Err(ServerError::Halted { node: self.node.id(), reason }),
            }
        }
        if jobs.is_empty() || self.disk.submit(jobs) { Ok(()) } else { Err(ServerError::DiskEnded) }
    }
}

fn input_of(event: Event) -> NodeInput {
    let session_of = |session: SessionId| Session(session.as_raw());
    match event {
        Event::PeerUp { node, incarnation } => NodeInput::PeerUp { node, incarnation },
        Event::PeerDown { node } => NodeInput::PeerDown { node },
        Event::PeerFrame { node, frame } => NodeInput::PeerFrame { node, frame },
        Event::ClientFrame { session, frame } => {
            NodeInput::ClientFrame { session: session_of(session), frame }
        }
        Event::ClientGone { session } => NodeInput::ClientGone { session: session_of(session) },
    }
}

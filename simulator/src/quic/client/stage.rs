//! Actors over bare sessions, for what the client does not let its users do.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::Instant;
use varve_protocol::frame::Frame;
use varve_protocol::id::NodeId;
use varve_protocol::version::Versions;
use varve_transport::ClientEndpoint;

use super::Surroundings;
use crate::actor::{Actor, Happening, Orders};
use crate::quic::board::{Board, LOOK_EVERY};
use crate::quic::host::{SimulatedResolver, address, authority, tuning};
use crate::quic::socket::SimulatedRuntime;
use crate::scenario::Phase;

/// A happening, and the life of the link it came from.
type Mail = (u64, Happening);

/// Lets an actor speak frames over sessions of its own, one per node, until the universe ends.
pub(crate) async fn act(
    around: Surroundings,
    make: impl FnOnce(&Board) -> Option<Box<dyn Actor>>,
) -> turmoil::Result {
    let config = varve_transport::ClientConfig {
        ca_pem: authority(around.scenario.seed, around.cluster)?.certificate_pem()?.into_bytes(),
        tuning: tuning(&around.scenario),
        versions: Versions::OF_THE_NEXT_RELEASE,
        seed: Some(around.seed()),
    };
    let socket = around.socket().await?;
    let endpoint = ClientEndpoint::new(
        &config,
        Arc::new(SimulatedRuntime),
        socket,
        Arc::new(SimulatedResolver(Arc::clone(&around.ends))),
    )?;
    let mut placement = around.board.placement().await;
    if around.scenario.load.moves {
        // Replicas may be anywhere.
        let all: Vec<NodeId> = around.scenario.node_ids().collect();
        placement.iter_mut().for_each(|(_, replicas)| replicas.clone_from(&all));
    }
    let Some(actor) = make(&around.board) else { return Ok(()) };
    let (mail, inbox) = mpsc::unbounded_channel();
    let stage = Stage {
        around,
        actor,
        endpoint: Arc::new(endpoint),
        links: BTreeMap::new(),
        lives: 0,
        mail,
        wake_at: None,
        is_healed: false,
    };
    stage.play(inbox, Happening::Placed(placement)).await;
    Ok(())
}

struct Stage {
    around: Surroundings,
    actor: Box<dyn Actor>,
    endpoint: Arc<ClientEndpoint>,
    links: BTreeMap<NodeId, (u64, mpsc::UnboundedSender<Frame>)>,
    lives: u64,
    mail: mpsc::UnboundedSender<Mail>,
    wake_at: Option<Instant>,
    is_healed: bool,
}

impl Stage {
    async fn play(mut self, mut inbox: mpsc::UnboundedReceiver<Mail>, first: Happening) {
        self.handle(first);
        loop {
            let look_at = Instant::now() + LOOK_EVERY;
            let wake_at = self.wake_at.unwrap_or(look_at).min(look_at);
            tokio::select! {
                biased;
                mail = inbox.recv() => self.receive(mail),
                () = tokio::time::sleep_until(wake_at) => {}
            }
            match self.around.board.phase() {
                Phase::Over => return,
                Phase::Liveness | Phase::Audit if !self.is_healed => {
                    self.is_healed = true;
                    self.handle(Happening::Healed);
                }
                Phase::Safety | Phase::Liveness | Phase::Audit => {}
            }
            if self.wake_at.is_some_and(|at| at <= Instant::now()) {
                self.wake_at = None;
                self.handle(Happening::Wake);
            }
        }
    }

    fn receive(&mut self, mail: Option<Mail>) {
        let Some((life, happening)) = mail else { return };
        let node = match &happening {
            Happening::Answer(node, _) | Happening::Lost(node) => *node,
            Happening::Wake | Happening::Placed(_) | Happening::Healed => return,
        };
        if self.links.get(&node).is_none_or(|(present, _)| *present != life) {
            return;
        }
        if matches!(happening, Happening::Lost(_)) {
            self.links.remove(&node);
            self.around.board.lock().oracle.disconnected(self.around.client, node);
        }
        self.handle(happening);
    }

    fn handle(&mut self, happening: Happening) {
        let client = self.around.client;
        let now = turmoil::sim_elapsed().unwrap_or_default();
        let board = self.around.board.clone();
        let state = &mut *board.lock();
        let mut orders = Orders::new(now, client, &mut state.oracle);
        let result = self.actor.handle(happening, &mut orders);
        state.statistics.add_orders(&orders);
        let Orders { frames, wake_at, statuses, .. } = orders;
        if let Some(streams) = self.actor.streams() {
            state.streams.clone_from(streams);
        }
        if let Some(moved) = self.actor.moved() {
            state.moved = Some(moved.clone());
        }
        for status in statuses {
            state.note_status(now, status);
        }
        if let Err(violation) = result {
            state.violation.get_or_insert(violation);
        }
        match self.actor.waits_for() {
            Some(what) => state.waits.insert(client, what),
            None => state.waits.remove(&client),
        };
        for (group, _) in state.placement.iter().flatten() {
            let ends = self.actor.ends(*group);
            if !ends.is_empty() {
                state.ends.insert(*group, ends);
            }
        }
        self.wake_at = wake_at.map(|at| Instant::now() + at.saturating_sub(now));
        for (node, frame) in frames {
            self.send(node, frame);
        }
    }

    fn send(&mut self, node: NodeId, frame: Frame) {
        let link = self.links.entry(node).or_insert_with(|| {
            self.lives += 1;
            let (sender, queue) = mpsc::unbounded_channel();
            let link = Link { node, life: self.lives, mail: self.mail.clone() };
            tokio::spawn(link.run(Arc::clone(&self.endpoint), queue));
            (self.lives, sender)
        });
        // A link that has ended has said so, or is about to.
        let _ = link.1.send(frame);
    }
}

/// One session with a node.
struct Link {
    node: NodeId,
    life: u64,
    mail: mpsc::UnboundedSender<Mail>,
}

impl Link {
    async fn run(self, endpoint: Arc<ClientEndpoint>, queue: mpsc::UnboundedReceiver<Frame>) {
        let outcome = self.serve(&endpoint, queue).await;
        if let Err(error) = outcome {
            tracing::debug!(node = %self.node, %error, "session lost");
        }
        let _ = self.mail.send((self.life, Happening::Lost(self.node)));
    }

    async fn serve(
        &self,
        endpoint: &ClientEndpoint,
        mut queue: mpsc::UnboundedReceiver<Frame>,
    ) -> Result<(), varve_transport::TransportError> {
        let connection = endpoint.connect(&address(self.node)).await?;
        let (mut sender, mut receiver) = connection.open_session().await?;
        let write = async {
            while let Some(frame) = queue.recv().await {
                sender.send(frame).await?;
            }
            Ok(())
        };
        let read = async {
            while let Some(frame) = receiver.recv().await? {
                let _ = self.mail.send((self.life, Happening::Answer(self.node, frame)));
            }
            Ok(())
        };
        tokio::select! {
            biased;
            read = read => read,
            written = write => written,
        }
    }
}

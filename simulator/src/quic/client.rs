//! The clients of the QUIC world: the client that users use, appending and reading; and actors over bare sessions, for what
//! it does not let its users do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use tokio::sync::mpsc;
use tokio::time::Instant;
use varve_client::{Client, ClientConfig, ClientError, From, Outcome, ProducerConfig, Record, Seams, Target};
use varve_protocol::client::Refusal;
use varve_protocol::frame::Frame;
use varve_protocol::id::{ClusterId, GroupId, NodeId, ProducerId};
use varve_protocol::metadata::MetadataError;
use varve_transport::ClientEndpoint;

use super::board::{Board, LOOK_EVERY};
use super::host::{Ends, SimulatedResolver, address, authority, packet_observer, tuning};
use super::socket::{SharedWeather, SimulatedRuntime, SimulatedSocket};
use crate::actor::operator::{NAME, placement};
use crate::actor::{Actor, Happening, Orders};
use crate::oracle::{AppendId, Invocation, Violation};
use crate::random::{long_tail, seed_bytes, stream};
use crate::scenario::{Phase, Scenario};
use crate::trace::Endpoint;
use crate::workload::Value;

/// Records that each partition must take after the faults are over.
const GOAL: u64 = 3;

/// The pause before a failed call is tried again.
const RETRY: Duration = Duration::from_millis(50);

/// Records on their way to a partition at once.
const PENDING_MAX: usize = 64;

/// What a client knows of the universe around it.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) scenario: Scenario,
    pub(crate) cluster: ClusterId,
    pub(crate) client: u32,
    pub(crate) board: Board,
    pub(crate) ends: Arc<Ends>,
    pub(crate) weather: SharedWeather,
}

impl Surroundings {
    fn rng(&self, what: &str) -> ChaCha8Rng {
        stream(self.scenario.seed, &format!("{what} of client {}", self.client))
    }

    async fn socket(&self) -> std::io::Result<Arc<SimulatedSocket>> {
        let observer = packet_observer(&self.board, Endpoint::Client(self.client), &self.ends);
        SimulatedSocket::bind(0, (self.weather.clone(), self.rng("socket")), observer).await
    }

    fn seed(&self) -> [u8; 32] {
        seed_bytes(self.scenario.seed, &format!("client {}", self.client))
    }

    /// Connects the client that users use, however long it takes.
    async fn connect(&self) -> turmoil::Result<Client> {
        let seams = Seams {
            runtime: Arc::new(SimulatedRuntime),
            socket: self.socket().await?,
            resolver: Arc::new(SimulatedResolver),
        };
        let config = ClientConfig {
            servers: self.scenario.node_ids().map(address).collect(),
            ca_pem: authority(self.scenario.seed, self.cluster)?.certificate_pem()?.into_bytes(),
            tuning: tuning(&self.scenario),
            seed: Some(self.seed()),
            seams,
        };
        loop {
            match Client::with_config(config.clone()).await {
                Ok(client) => return Ok(client),
                Err(error) => self.pause_after("connect", &error).await,
            }
        }
    }

    async fn pause_after(&self, what: &str, error: &ClientError) {
        tracing::debug!(client = self.client, what, %error, "tried again");
        tokio::time::sleep(RETRY).await;
    }
}

/// Creates the stream and the topic, and tells where the partitions are.
pub(crate) async fn operate(around: Surroundings) -> turmoil::Result {
    around.board.set_waits(around.client, Some("the topic does not exist".to_owned()));
    let client = around.connect().await?;
    let admin = client.admin();
    let is_there = |result: &Result<(), ClientError>| {
        let taken = |error: &ClientError| {
            matches!(
                error,
                ClientError::Metadata(MetadataError::StreamExists(_) | MetadataError::TopicExists(_))
            )
        };
        result.as_ref().err().is_none_or(taken)
    };
    let (partitions, factor) = (around.scenario.partitions, around.scenario.replication_factor);
    loop {
        let made = admin.create_stream(NAME).await;
        if is_there(&made) {
            break;
        }
        if let Err(error) = made {
            around.pause_after("create the stream", &error).await;
        }
    }
    loop {
        let made = admin.create_topic(NAME, NAME, partitions, Some(factor)).await;
        match (&made, admin.map().await) {
            (_, Ok(map)) if is_there(&made) && placement(&map).is_some() => {
                around.board.lock().placement = placement(&map);
                break;
            }
            _ => tokio::time::sleep(RETRY).await,
        }
    }
    around.board.set_waits(around.client, None);
    Ok(())
}

/// Appends with the client's producer until each partition has taken some more after the faults.
pub(crate) async fn produce(around: Surroundings) -> turmoil::Result {
    around.board.set_waits(around.client, Some("it has not connected".to_owned()));
    let client = around.connect().await?;
    let placement = around.board.placement().await;
    let mut lanes: Vec<ProducerLane> =
        (0..).zip(&placement).map(|(partition, (group, _))| ProducerLane::new(partition, *group)).collect();
    let mut rng = around.rng("appends");
    let mut counter = 0;
    let mut session = 0;
    while lanes.iter().any(|lane| !lane.is_done()) {
        let load = &around.scenario.load;
        let config = ProducerConfig {
            window: load.window as usize,
            linger: Duration::from_millis(rng.random_range(0..10)),
            timeout: around.scenario.recovery_max(),
            ..ProducerConfig::default()
        };
        let producer = match client.producer(&format!("{NAME}/{NAME}"), config).await {
            Ok(producer) => producer,
            Err(error) => {
                around.pause_after("start a producer", &error).await;
                continue;
            }
        };
        // Not the id that the cluster gave, which the client keeps to itself; only distinct ones matter.
        session += 1;
        let producer_id = ProducerId::new(u64::from(around.client) << 32 | session);
        for lane in &mut lanes {
            lane.begin_session(producer_id);
        }
        while lanes.iter().any(|lane| !lane.is_done()) && lanes.iter().all(|lane| !lane.has_failed) {
            let waits = lanes.iter().find(|lane| !lane.is_done()).map(ProducerLane::describe);
            around.board.set_waits(around.client, waits);
            for lane in &mut lanes {
                lane.collect(&around.board).await;
                lane.append(&producer, (&around, &mut rng), &mut counter).await;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        for lane in &mut lanes {
            lane.finish(&around.board).await;
        }
    }
    around.board.set_waits(around.client, None);
    Ok(())
}

/// A record on its way.
struct Pending {
    append: AppendId,
    ack: tokio::task::JoinHandle<Result<varve_client::Offset, ClientError>>,
    after_heal: bool,
}

/// The appends of one producer to one partition.
struct ProducerLane {
    partition: u32,
    group: GroupId,
    session: ProducerId,
    next_request: u64,
    append_at: Instant,
    pending: Vec<Pending>,
    acked_after_heal: u64,
    has_failed: bool,
    is_healed: bool,
}

impl ProducerLane {
    fn new(partition: u32, group: GroupId) -> Self {
        Self {
            partition,
            group,
            session: ProducerId::ZERO,
            next_request: 1,
            append_at: Instant::now(),
            pending: Vec::new(),
            acked_after_heal: 0,
            has_failed: false,
            is_healed: false,
        }
    }

    fn begin_session(&mut self, session: ProducerId) {
        self.session = session;
        self.next_request = 1;
        self.has_failed = false;
    }

    fn is_done(&self) -> bool {
        self.is_healed && self.acked_after_heal >= GOAL && self.pending.is_empty()
    }

    fn describe(&self) -> String {
        let Self { group, acked_after_heal, pending, .. } = self;
        format!("{acked_after_heal} of {GOAL} new appends to {group}, {} still open", pending.len())
    }

    async fn append(
        &mut self,
        producer: &varve_client::Producer,
        (around, rng): (&Surroundings, &mut ChaCha8Rng),
        counter: &mut u64,
    ) {
        self.is_healed = around.board.phase() != Phase::Safety;
        let has_enough = self.is_healed && self.acked_after_heal >= GOAL;
        if self.has_failed
            || has_enough
            || Instant::now() < self.append_at
            || self.pending.len() >= PENDING_MAX
        {
            return;
        }
        let load = &around.scenario.load;
        self.append_at = Instant::now() + long_tail(rng, load.think);
        for _ in 0..rng.random_range(1..=load.batch_records_max) {
            let first = Value { producer: around.client, counter: *counter };
            *counter += 1;
            let size = rng.random_range(0..=load.payload_bytes_max) as usize;
            let session = Some((self.session, self.next_request));
            self.next_request += 1;
            let invocation = Invocation { group: self.group, session, first, count: 1 };
            let append = around.board.lock().oracle.invoked(invocation);
            let record = Record { payload: first.to_payload(size), ..Record::default() };
            let sent = producer.send(Target::Partition(self.partition), record);
            let after_heal = self.is_healed;
            match sent.await {
                Ok(ack) => {
                    let ack = tokio::spawn(ack.wait());
                    self.pending.push(Pending { append, ack, after_heal });
                }
                Err(error) => {
                    self.judge(&around.board, append, (Err(error), after_heal));
                    return;
                }
            }
        }
    }

    /// Takes the acknowledgements that have come.
    async fn collect(&mut self, board: &Board) {
        while self.pending.first().is_some_and(|pending| pending.ack.is_finished()) {
            let Pending { append, ack, after_heal } = self.pending.remove(0);
            let result = ack.await.unwrap_or(Err(ClientError::Dropped));
            self.judge(board, append, (result, after_heal));
        }
    }

    /// Waits for all acknowledgements.
    async fn finish(&mut self, board: &Board) {
        for Pending { append, ack, after_heal } in std::mem::take(&mut self.pending) {
            let result = ack.await.unwrap_or(Err(ClientError::Dropped));
            self.judge(board, append, (result, after_heal));
        }
    }

    fn judge(
        &mut self,
        board: &Board,
        append: AppendId,
        (result, after_heal): (Result<varve_client::Offset, ClientError>, bool),
    ) {
        let state = &mut *board.lock();
        let oracle = &mut state.oracle;
        let judged = match result {
            Ok(offset) => {
                self.acked_after_heal += u64::from(after_heal);
                oracle.acked(append, offset.as_raw())
            }
            Err(error) => {
                self.has_failed = true;
                let is_forgotten = error == ClientError::Refused(Refusal::UnknownOutcome);
                state.statistics.sessions_forgotten += u64::from(is_forgotten);
                match error.outcome() {
                    Outcome::NotDone => oracle.refused(append),
                    Outcome::Unknown => {
                        oracle.unknown(append);
                        Ok(())
                    }
                }
            }
        };
        if let Err(violation) = judged {
            state.violation.get_or_insert(violation);
        }
    }
}

/// Reads one partition after the other with the client's consumer, in order, while faults strike.
pub(crate) async fn consume(around: Surroundings) -> turmoil::Result {
    let client = around.connect().await?;
    let placement = around.board.placement().await;
    let mut tasks = Vec::new();
    for (partition, (group, _)) in (0..).zip(placement) {
        let (client, board) = (client.clone(), around.board.clone());
        tasks.push(tokio::spawn(consume_partition(client, board, (partition, group))));
    }
    for task in tasks {
        task.await?;
    }
    Ok(())
}

async fn consume_partition(client: Client, board: Board, (partition, group): (u32, GroupId)) {
    let mut next = 0;
    while board.phase() != Phase::Over {
        let from = From::Offset(varve_client::Offset::new(next));
        let Ok(mut consumer) = client.consumer(&format!("{NAME}/{NAME}"), partition, from).await else {
            tokio::time::sleep(RETRY).await;
            continue;
        };
        // A consumer that waits at the end would outlast the universe: it is asked anew from time to time.
        while let Ok(Ok(fetched)) = tokio::time::timeout(Duration::from_secs(2), consumer.next_batch()).await
        {
            let state = &mut *board.lock();
            for (offset, record) in fetched.records {
                let offset = offset.as_raw();
                let read = if offset == next {
                    let replica = (group, NodeId::ZERO);
                    match Value::from_payload(&record.payload) {
                        Some(value) => state.oracle.observed(replica, offset, value),
                        None => Err(state.oracle.unreadable(replica, offset)),
                    }
                } else {
                    let detail = format!("the consumer of {group} was at {next} and was given {offset}");
                    Err(Violation::new("fetch skipped records", detail))
                };
                state.statistics.records_read += 1;
                next = offset + 1;
                if let Err(violation) = read {
                    state.violation.get_or_insert(violation);
                }
            }
            if state.phase == Phase::Over {
                return;
            }
        }
    }
}

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
        seed: Some(around.seed()),
    };
    let socket = around.socket().await?;
    let endpoint =
        ClientEndpoint::new(&config, Arc::new(SimulatedRuntime), socket, Arc::new(SimulatedResolver))?;
    let placement = around.board.placement().await;
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
        let Orders { frames, wake_at, records_read, sessions_forgotten, changes_made, statuses, .. } = orders;
        state.statistics.records_read += records_read;
        state.statistics.sessions_forgotten += sessions_forgotten;
        state.statistics.changes_made += changes_made;
        if let Some(streams) = self.actor.streams() {
            state.streams.clone_from(streams);
        }
        for status in statuses {
            state.note_status(status);
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
                sender.send(&frame).await?;
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

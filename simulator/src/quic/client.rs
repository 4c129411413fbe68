//! The clients of the QUIC world: the client that users use, appending and reading; and actors over bare sessions, for what
//! it does not let its users do.

mod lane;
mod stage;

use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use varve_client::{Client, ClientConfig, ClientError, From, ProducerConfig, Seams, TopicOptions};
use varve_protocol::client::Refusal;
use varve_protocol::id::{ClusterId, GroupId, NodeId, ProducerId};
use varve_protocol::metadata::MetadataError;
use varve_protocol::version::Versions;

use lane::ProducerLane;
pub(crate) use stage::act;

use super::board::Board;
use super::host::{Ends, SimulatedResolver, address, authority, packet_observer, tuning};
use super::socket::{SharedWeather, SimulatedRuntime, SimulatedSocket};
use crate::actor::operator::{NAME, placement};
use crate::oracle::Violation;
use crate::random::{long_tail, seed_bytes, stream};
use crate::scenario::{Phase, Scenario};
use crate::trace::Endpoint;
use crate::workload::Value;

/// The pause before a failed call is tried again.
const RETRY: Duration = Duration::from_millis(50);

/// The mean pause between two questions for an end.
const SURVEY_PAUSE: Duration = Duration::from_millis(50);

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
            resolver: Arc::new(SimulatedResolver(Arc::clone(&self.ends))),
            versions: Versions::OF_THE_NEXT_RELEASE,
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
    let options = TopicOptions {
        partitions: around.scenario.partitions,
        replication_factor: Some(around.scenario.replication_factor),
        durability: around.scenario.durability,
        retention: around.scenario.load.retention,
        compression: around.scenario.load.compression,
    };
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
        let made = admin.create_topic(NAME, NAME, options).await;
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

/// Asks with the client where one partition after the other ends now, until each has been told after the faults.
pub(crate) async fn survey(around: Surroundings) -> turmoil::Result {
    around.board.set_waits(around.client, Some("it has not connected".to_owned()));
    let client = around.connect().await?;
    let placement = around.board.placement().await;
    let admin = client.admin();
    let mut rng = around.rng("survey");
    let mut recovered = 0;
    while recovered < placement.len() {
        let is_healed = around.board.phase() != Phase::Safety;
        let place = if is_healed { recovered } else { rng.random_range(0..placement.len()) };
        let group = placement[place].0;
        around.board.set_waits(around.client, Some(format!("nobody says where {group} ends")));
        let question = around.board.lock().oracle.end_asked(group);
        match admin.offsets(group).await {
            Ok(offsets) => {
                let state = &mut *around.board.lock();
                state.statistics.ends_confirmed += 1;
                let told = state.oracle.end_told(question, offsets.primary, offsets.high_watermark.as_raw());
                if let Err(violation) = told {
                    state.violation.get_or_insert(violation);
                }
                recovered += usize::from(is_healed);
            }
            Err(error) => around.pause_after("ask for an end", &error).await,
        }
        tokio::time::sleep(long_tail(&mut rng, SURVEY_PAUSE)).await;
    }
    around.board.set_waits(around.client, None);
    Ok(())
}

/// Where a consumer goes on after an error: at the start of the log, if what it wanted was let go.
fn skip_what_is_gone(board: &Board, group: GroupId, next: u64, error: &ClientError) -> u64 {
    let ClientError::Refused(Refusal::OffsetOutOfRange { earliest, next: end }) = error else { return next };
    let (earliest, end) = (earliest.as_raw(), end.as_raw());
    if next >= earliest {
        return next;
    }
    let state = &mut *board.lock();
    // The client does not say which replica that was.
    if let Err(violation) = state.oracle.log_start_told((group, NodeId::ZERO), earliest, end) {
        state.violation.get_or_insert(violation);
    }
    earliest
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
        while let Ok(result) = tokio::time::timeout(Duration::from_secs(2), consumer.next_batch()).await {
            let fetched = match result {
                Ok(fetched) => fetched,
                Err(error) => {
                    next = skip_what_is_gone(&board, group, next, &error);
                    break;
                }
            };
            let state = &mut *board.lock();
            for (offset, record) in fetched.records {
                let offset = offset.as_raw();
                let read = if offset == next {
                    let replica = (group, NodeId::ZERO);
                    match Value::from_record(&record) {
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

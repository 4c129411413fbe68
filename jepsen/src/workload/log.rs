//! Producers: those that wait for each acknowledgement, and those that send ahead.
//!
//! A producer of the client library fails for good when one of its batches does. Then a new one takes its place, which is a
//! new producer to the cluster, too. Values count up over the whole run, so each is sent once, whoever sends it.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use anyhow::Context as _;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use varve_client::{Ack, ClientError, Compression, Producer, ProducerConfig, Record, Target, TopicOptions};

use super::{PAUSE_AFTER_ERROR, Scene, ended, payload};
use crate::recorder::{Ended, Process};

const STREAM: &str = "jepsen";
const TOPIC: &str = "log";
pub(super) const FULL_NAME: &str = "jepsen/log";

/// Producers: of each partition if they wait, and of all partitions if they send ahead.
const PRODUCERS: u32 = 3;

/// Those that wait: tasks of each producer, so that batches have several records.
const TASKS: u32 = 2;

/// Those that send ahead: records on their way per producer.
const AHEAD: usize = 64;

/// Records that are sent ahead without a pause, on average.
const BURST: u32 = 20;

/// How long the library may retry. With the short one, outcomes stay unknown; with the long one, failovers are survived.
const TIMEOUTS: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(30)];

/// The values of a run.
#[derive(Clone, Default)]
struct Values(Arc<AtomicU64>);

impl Values {
    fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

pub(super) async fn prepare(scene: &Scene) -> anyhow::Result<()> {
    let client = scene.client_when_well().await?;
    client.admin().create_stream(STREAM).await.context("cannot create a stream")?;
    let compression = compression(scene.seed);
    let options = TopicOptions { partitions: scene.partitions, compression, ..TopicOptions::default() };
    client.admin().create_topic(STREAM, TOPIC, options).await.context("cannot create a topic")?;
    client.shutdown().await;
    Ok(())
}

/// Records are small, and batches are, so that there are many.
fn config(number: u32) -> ProducerConfig {
    let timeout = if number.is_multiple_of(2) { TIMEOUTS[0] } else { TIMEOUTS[1] };
    ProducerConfig { batch_bytes_max: 64 << 10, timeout, ..ProducerConfig::default() }
}

/// A new producer on a connection of its own; none when the time is over.
async fn producer(scene: &Scene, number: u32) -> Option<Producer> {
    while !scene.is_over() {
        let client = scene.client().await?;
        match client.producer(FULL_NAME, config(number)).await {
            Ok(producer) => return Some(producer),
            Err(_) => scene.wait(PAUSE_AFTER_ERROR).await,
        }
    }
    None
}

fn record(value: u64) -> Record {
    Record { headers: payload::headers(value), payload: payload::payload(value).into(), ..Record::default() }
}

/// The seed decides how the topic is compressed.
fn compression(seed: u64) -> Compression {
    let all = Compression::ALL;
    all[usize::try_from(seed % all.len() as u64).unwrap_or_default()]
}

/// Waits for an acknowledgement and writes down what came of it; says whether it came.
async fn conclude(
    scene: &Scene,
    process: Process,
    partition: u32,
    sent: Result<Ack, ClientError>,
) -> Result<(), ClientError> {
    let acknowledged = match sent {
        Ok(ack) => ack.wait().await,
        Err(error) => Err(error),
    };
    let (kind, value) = told(partition, &acknowledged.as_ref().map(|offset| offset.as_raw()));
    scene.recorder.complete(process, kind, "send", value);
    acknowledged.map(drop)
}

fn told(partition: u32, acknowledged: &Result<u64, &ClientError>) -> (Ended, Value) {
    match acknowledged {
        Ok(offset) => (Ended::Ok, json!({"partition": partition, "offset": offset})),
        Err(error) => (ended(error), json!({"partition": partition, "error": error.to_string()})),
    }
}

/// Producers whose tasks each wait for an acknowledgement before they go on.
pub(super) fn append(scene: &Scene, clients: &mut JoinSet<()>) {
    let values = Values::default();
    let tasks = PRODUCERS * scene.partitions * TASKS;
    let pause = Duration::from_secs(1) * tasks / scene.rate.max(1);
    for (number, partition) in (0..PRODUCERS * scene.partitions).map(|one| (one, one % scene.partitions)) {
        let (scene, values) = (scene.clone(), values.clone());
        clients.spawn(async move {
            while let Some(producer) = producer(&scene, number).await {
                let tasks =
                    (0..TASKS).map(|_| append_until_error(&scene, &producer, partition, &values, pause));
                join_all(tasks).await;
            }
        });
    }
}

/// Waits for all of them, which run at once.
async fn join_all(tasks: impl Iterator<Item = impl Future<Output = ()>>) {
    let mut tasks: Vec<_> = tasks.map(Box::pin).collect();
    std::future::poll_fn(|context| {
        tasks.retain_mut(|task| task.as_mut().poll(context).is_pending());
        if tasks.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

async fn append_until_error(
    scene: &Scene,
    producer: &Producer,
    partition: u32,
    values: &Values,
    pause: Duration,
) {
    let process = scene.recorder.process();
    let mut rng = ChaCha8Rng::seed_from_u64(scene.seed ^ process.0);
    loop {
        scene.wait(pause.mul_f64(rng.random_range(0.5..1.5))).await;
        if scene.is_over() {
            return;
        }
        let value = values.next();
        scene.recorder.invoke(process, "send", json!({"partition": partition, "values": [value]}));
        let sent = producer.send(Target::Partition(partition), record(value)).await;
        if conclude(scene, process, partition, sent).await.is_err() {
            return;
        }
    }
}

/// Producers that send ahead of their acknowledgements.
pub(super) fn exactly_once(scene: &Scene, clients: &mut JoinSet<()>) {
    let values = Values::default();
    let pause = Duration::from_secs(1) * PRODUCERS / scene.rate.max(1);
    for number in 0..PRODUCERS {
        let (scene, values) = (scene.clone(), values.clone());
        clients.spawn(async move {
            while let Some(producer) = producer(&scene, number).await {
                send_ahead_until_error(&scene, &producer, &values, pause).await;
            }
        });
    }
}

async fn send_ahead_until_error(scene: &Scene, producer: &Producer, values: &Values, pause: Duration) {
    let id = scene.recorder.process().0;
    let mut rng = ChaCha8Rng::seed_from_u64(scene.seed ^ id);
    let under_way = Arc::new(Semaphore::new(AHEAD));
    let mut acks = JoinSet::new();
    let mut has_failed = false;
    for sequence in 0_u64.. {
        // Bursts, so that much is on its way at once.
        if rng.random_ratio(1, BURST) {
            scene.wait(pause * BURST).await;
        }
        let Ok(permit) = under_way.clone().acquire_owned().await else { break };
        while let Some(Ok(failed)) = acks.try_join_next() {
            has_failed |= failed;
        }
        if has_failed || scene.is_over() {
            break;
        }
        let (process, value) = (scene.recorder.process(), values.next());
        let partition = rng.random_range(0..scene.partitions);
        let sent = json!({"partition": partition, "values": [value], "producer": id, "sequence": sequence});
        scene.recorder.invoke(process, "send", sent);
        let ack = producer.send(Target::Partition(partition), record(value)).await;
        let scene = scene.clone();
        acks.spawn(async move {
            let failed = conclude(&scene, process, partition, ack).await.is_err();
            drop(permit);
            failed
        });
    }
    // Whatever is still on its way may take as long as the library retries.
    while acks.join_next().await.is_some() {}
}

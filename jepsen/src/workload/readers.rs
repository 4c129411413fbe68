//! Consumers that poll, clients that ask where a partition ends, and the last reading of everything.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use tokio::task::JoinSet;
use varve_client::{Client, Consumer, Fetched, From, Offset};

use super::log::FULL_NAME;
use super::{PAUSE_AFTER_ERROR, Scene, payload};
use crate::recorder::{Ended, Process};

/// Consumers of each partition.
const CONSUMERS: u32 = 2;

/// A poll in so many is followed by a jump back.
const POLLS_PER_JUMP: u32 = 200;

/// Between two questions for the end of a partition.
const ASK_EVERY: Duration = Duration::from_millis(400);

/// How long reading one partition back may take.
const DRAINED_WITHIN: Duration = Duration::from_secs(120);

/// Starts consumers and those who ask for ends.
pub(super) fn read(scene: &Scene, clients: &mut JoinSet<()>) {
    for partition in 0..scene.partitions {
        for _ in 0..CONSUMERS {
            let scene = scene.clone();
            clients.spawn(async move { consume(&scene, partition).await });
        }
        let scene = scene.clone();
        clients.spawn(async move { ask_for_ends(&scene, partition).await });
    }
}

async fn consume(scene: &Scene, partition: u32) {
    let process = scene.recorder.process();
    let mut rng = ChaCha8Rng::seed_from_u64(scene.seed ^ process.0);
    let mut from = Offset::ZERO;
    while let Some(client) = scene.client().await {
        while let Some(mut consumer) = assign(scene, &client, process, partition, from).await {
            poll_until_error(scene, &mut consumer, process, partition, &mut rng).await;
            let position = consumer.position();
            // Where it was, or somewhere before.
            let jump = rng.random_ratio(1, 2) && position > Offset::ZERO;
            from = if jump { Offset::new(rng.random_range(0..position.as_raw())) } else { position };
            if scene.is_over() {
                return;
            }
        }
        scene.wait(PAUSE_AFTER_ERROR).await;
    }
}

async fn assign(
    scene: &Scene,
    client: &Client,
    process: Process,
    partition: u32,
    from: Offset,
) -> Option<Consumer> {
    scene.recorder.invoke(process, "assign", json!({"partition": partition, "offset": from.as_raw()}));
    match client.consumer(FULL_NAME, partition, From::Offset(from)).await {
        Ok(consumer) => {
            let value = json!({"partition": partition, "offset": from.as_raw()});
            scene.recorder.complete(process, Ended::Ok, "assign", value);
            Some(consumer)
        }
        Err(error) => {
            let value = json!({"partition": partition, "error": error.to_string()});
            scene.recorder.complete(process, Ended::Fail, "assign", value);
            None
        }
    }
}

/// Polls until something goes wrong, the time is over, or a jump is due.
async fn poll_until_error(
    scene: &Scene,
    consumer: &mut Consumer,
    process: Process,
    partition: u32,
    rng: &mut ChaCha8Rng,
) {
    let mut over = scene.over.clone();
    while !rng.random_ratio(1, POLLS_PER_JUMP) {
        scene.recorder.invoke(process, "poll", json!({"partition": partition}));
        let fetched = tokio::select! {
            biased;
            fetched = consumer.next_batch() => fetched,
            _ = over.wait_for(|over| *over) => {
                let value = json!({"partition": partition, "error": "the time is over"});
                return scene.recorder.complete(process, Ended::Fail, "poll", value);
            }
        };
        match fetched {
            Ok(fetched) => {
                let records = read_values(&fetched);
                let end = fetched.high_watermark.as_raw();
                let value = json!({"partition": partition, "records": records, "high_watermark": end});
                scene.recorder.complete(process, Ended::Ok, "poll", value);
            }
            Err(error) => {
                let value = json!({"partition": partition, "error": error.to_string()});
                return scene.recorder.complete(process, Ended::Fail, "poll", value);
            }
        }
    }
}

fn read_values(fetched: &Fetched) -> Vec<(u64, u64)> {
    let read = |(offset, record): &(Offset, varve_client::Record)| (offset.as_raw(), payload::value(record));
    fetched.records.iter().map(read).collect()
}

/// Asks where a partition ends, which a quorum must confirm.
async fn ask_for_ends(scene: &Scene, partition: u32) {
    let process = scene.recorder.process();
    let mut rng = ChaCha8Rng::seed_from_u64(scene.seed ^ process.0);
    while let Some(client) = scene.client().await {
        loop {
            scene.wait(ASK_EVERY.mul_f64(rng.random_range(0.5..1.5))).await;
            if scene.is_over() {
                return;
            }
            scene.recorder.invoke(process, "end", json!({"partition": partition}));
            match client.consumer(FULL_NAME, partition, From::Last).await {
                Ok(consumer) => {
                    let value = json!({"partition": partition, "offset": consumer.position().as_raw()});
                    scene.recorder.complete(process, Ended::Ok, "end", value);
                }
                Err(error) => {
                    let value = json!({"partition": partition, "error": error.to_string()});
                    scene.recorder.complete(process, Ended::Fail, "end", value);
                    break;
                }
            }
        }
    }
}

/// Reads each partition from its start to its end.
pub(super) async fn drain(scene: &Scene) -> anyhow::Result<()> {
    let client = scene.client_when_well().await?;
    for partition in 0..scene.partitions {
        let drained = drain_partition(scene, &client, partition);
        tokio::time::timeout(DRAINED_WITHIN, drained)
            .await
            .map_err(|_| anyhow!("reading took longer than {DRAINED_WITHIN:?}"))
            .flatten()
            .with_context(|| format!("cannot read back partition {partition}"))?;
    }
    client.shutdown().await;
    Ok(())
}

async fn drain_partition(scene: &Scene, client: &Client, partition: u32) -> anyhow::Result<()> {
    let process = scene.recorder.process();
    scene.recorder.invoke(process, "end", json!({"partition": partition}));
    let end = client.consumer(FULL_NAME, partition, From::Last).await?.position();
    let value = json!({"partition": partition, "offset": end.as_raw()});
    scene.recorder.complete(process, Ended::Ok, "end", value);
    scene.recorder.invoke(process, "drain", json!({"partition": partition}));
    let mut consumer = client.consumer(FULL_NAME, partition, From::Offset(Offset::ZERO)).await?;
    let mut records = Vec::new();
    let mut high_watermark = 0;
    while consumer.position() < end {
        let fetched = consumer.next_batch().await?;
        high_watermark = fetched.high_watermark.as_raw();
        records.extend(read_values(&fetched));
    }
    let value = json!({"partition": partition, "records": records, "high_watermark": high_watermark});
    scene.recorder.complete(process, Ended::Ok, "drain", value);
    Ok(())
}

//! Clients that create, delete and list streams and topics, under few names that all of them use.
//!
//! Every few seconds the names are new ones. So the history of each name stays short, however long the run, and so few of its
//! changes stay unknown that the checker gets to the end of it.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;
use varve_client::{Client, ClientError, MetadataError, TopicOptions};

use super::{Scene, ended};
use crate::recorder::{Ended, Process};

/// Clients that change names at once.
const CLIENTS: u32 = 5;

/// How long names are used.
const ERA: Duration = Duration::from_secs(5);

/// Streams of an era, and topics of each.
const STREAMS: u32 = 2;
const TOPICS: u32 = 3;

/// Starts the clients.
pub(super) fn change(scene: &Scene, clients: &mut JoinSet<()>) {
    for _ in 0..CLIENTS {
        let scene = scene.clone();
        clients.spawn(async move { change_until_over(&scene).await });
    }
}

async fn change_until_over(scene: &Scene) {
    let process = scene.recorder.process();
    let mut rng = ChaCha8Rng::seed_from_u64(scene.seed ^ process.0);
    let pause = Duration::from_secs(1) * CLIENTS / scene.rate.clamp(1, 200);
    while let Some(client) = scene.client().await {
        for _ in 0..100 {
            scene.wait(pause.mul_f64(rng.random_range(0.5..1.5))).await;
            if scene.is_over() {
                return;
            }
            if rng.random_ratio(1, 4) {
                list(scene, &client, process, json!({})).await;
            } else {
                change_something(scene, &client, process, &mut rng).await;
            }
        }
        client.shutdown().await;
    }
}

async fn change_something(scene: &Scene, client: &Client, process: Process, rng: &mut ChaCha8Rng) {
    let era = scene.recorder.elapsed().as_secs() / ERA.as_secs();
    let stream = format!("s{era}-{}", rng.random_range(0..STREAMS));
    let topic = format!("t{}", rng.random_range(0..TOPICS));
    let of_stream = json!({"stream": stream});
    let of_topic = json!({"stream": stream, "topic": topic});
    let admin = client.admin();
    let (f, value) = match rng.random_range(0..10) {
        0..2 => ("create_stream", of_stream),
        2..4 => ("delete_stream", of_stream),
        4..7 => ("create_topic", of_topic),
        _ => ("delete_topic", of_topic),
    };
    scene.recorder.invoke(process, f, value.clone());
    let done = match f {
        "create_stream" => admin.create_stream(&stream).await,
        "delete_stream" => admin.delete_stream(&stream).await,
        "create_topic" => admin.create_topic(&stream, &topic, TopicOptions::default()).await,
        _ => admin.delete_topic(&stream, &topic).await,
    };
    let (kind, value) = told(value, done);
    scene.recorder.complete(process, kind, f, value);
}

fn told(mut value: Value, done: Result<(), ClientError>) -> (Ended, Value) {
    let Err(error) = done else { return (Ended::Ok, value) };
    if let Some(refused) = refusal(&error) {
        value["refused"] = refused.into();
        return (Ended::Fail, value);
    }
    value["error"] = error.to_string().into();
    (ended(&error), value)
}

/// Why the cluster refused, if it looked and did.
fn refusal(error: &ClientError) -> Option<&'static str> {
    let ClientError::Metadata(error) = error else { return None };
    let known = [
        (matches!(error, MetadataError::StreamExists(_)), "StreamExists"),
        (matches!(error, MetadataError::StreamUnknown(_)), "StreamUnknown"),
        (matches!(error, MetadataError::StreamNotEmpty(_)), "StreamNotEmpty"),
        (matches!(error, MetadataError::TopicExists(_)), "TopicExists"),
        (matches!(error, MetadataError::TopicUnknown(_)), "TopicUnknown"),
    ];
    known.into_iter().find(|(is_it, _)| *is_it).map(|(_, name)| name)
}

async fn list(scene: &Scene, client: &Client, process: Process, value: Value) {
    scene.recorder.invoke(process, "list", value);
    match client.admin().map().await {
        Ok(map) => {
            let streams: BTreeMap<&str, Vec<&str>> = map
                .streams
                .iter()
                .map(|stream| (&*stream.name, stream.topics.iter().map(|topic| &*topic.name).collect()))
                .collect();
            let value = json!({"op": map.op.as_raw(), "streams": streams});
            scene.recorder.complete(process, Ended::Ok, "list", value);
        }
        Err(error) => {
            let mut value = Map::new();
            value.insert("error".to_owned(), error.to_string().into());
            scene.recorder.complete(process, Ended::Fail, "list", value.into());
        }
    }
}

/// Lists what is there when the cluster is well, and so knows the latest.
pub(super) async fn list_latest(scene: &Scene) -> anyhow::Result<()> {
    let process = scene.recorder.process();
    for _ in 0..3 {
        let client = scene.client_when_well().await?;
        list(scene, &client, process, json!({"latest": true})).await;
        client.shutdown().await;
    }
    Ok(())
}

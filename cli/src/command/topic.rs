//! `varve topic`: topics and their partitions.

use clap::Subcommand;
use serde::Serialize;
use varve_client::{Client, Durability, TopicSettings};
use varve_protocol::id::GroupId;
use varve_protocol::limits::PARTITIONS_PER_TOPIC_MAX;
use varve_protocol::metadata::{ClusterMap, MetadataError, TopicEntry};

use crate::command::stream::{Consent, print_done};
use crate::connection::connect;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::{self, table};
use crate::topic_name::{TopicName, stream_name};

/// What `varve topic` takes.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Create a topic in a stream that exists
    Create {
        /// STREAM/TOPIC
        topic: TopicName,
        /// How many partitions it has; records of one partition stay in order, several share the work
        #[arg(long, value_name = "N", default_value_t = 1,
            value_parser = clap::value_parser!(u32).range(1..=i64::from(PARTITIONS_PER_TOPIC_MAX)))]
        partitions: u32,
        /// How many nodes hold each partition: 1, 3, 5 or 7 [default: 3, or 1 if there are fewer nodes]
        #[arg(long, value_name = "R")]
        replication_factor: Option<u8>,
        /// When an append is acknowledged: `quorum-disk`, when most replicas have it on disk, synced; or `quorum-memory`, already
        /// when they have it in memory, so that a power failure of most of them at once may lose the last of it
        #[arg(long, value_name = "D", default_value_t = Durability::QuorumDisk)]
        durability: Durability,
    },
    /// List all topics, or those of one stream
    List {
        /// Its name
        #[arg(value_parser = stream_name)]
        stream: Option<String>,
    },
    /// Print a topic with its partitions
    Describe {
        /// STREAM/TOPIC
        topic: TopicName,
    },
    /// Delete a topic with all its records
    Delete {
        /// STREAM/TOPIC
        topic: TopicName,
        #[command(flatten)]
        consent: Consent,
    },
}

#[derive(Serialize)]
struct TopicLine {
    stream: String,
    topic: String,
    partitions: usize,
    replication_factor: u8,
    durability: &'static str,
}

#[derive(Serialize)]
struct TopicDescription {
    stream: String,
    topic: String,
    replication_factor: u8,
    durability: &'static str,
    partitions: Vec<PartitionLine>,
}

#[derive(Serialize)]
struct PartitionLine {
    partition: usize,
    group: u64,
    replicas: Vec<u8>,
    /// As far as the node that was asked knows.
    primary: Option<u8>,
    log_start: Option<u64>,
    high_watermark: Option<u64>,
    /// Why its offsets are not known, if so.
    problem: Option<String>,
}

/// Does what was asked with topics.
pub(crate) async fn run(context: &Context, arguments: Arguments) -> Outcome {
    match arguments.verb {
        Verb::Create { topic, partitions, replication_factor, durability } => {
            let admin = connect(context).await?.admin();
            let settings = TopicSettings { partitions, replication_factor, durability };
            admin.create_topic(&topic.stream, &topic.topic, settings).await?;
            print_done(context, "created topic", &topic.to_string())
        }
        Verb::List { stream } => list(context, &connect(context).await?, stream.as_deref()).await,
        Verb::Describe { topic } => describe(context, &connect(context).await?, &topic).await,
        Verb::Delete { topic, consent } => {
            consent.check(&format!("topic `{topic}` with all its records"))?;
            connect(context).await?.admin().delete_topic(&topic.stream, &topic.topic).await?;
            print_done(context, "deleted topic", &topic.to_string())
        }
    }
}

/// The topic of this name.
pub(crate) fn find<'a>(map: &'a ClusterMap, name: &TopicName) -> Outcome<&'a TopicEntry> {
    let stream = map.streams.iter().find(|stream| stream.name == name.stream);
    let stream = stream.ok_or_else(|| Failure::refused(MetadataError::StreamUnknown(name.stream.clone())))?;
    let topic = stream.topics.iter().find(|topic| topic.name == name.topic);
    topic.ok_or_else(|| Failure::refused(MetadataError::TopicUnknown(name.to_string())))
}

async fn list(context: &Context, client: &Client, only: Option<&str>) -> Outcome {
    let map = client.admin().map().await?;
    if let Some(only) = only.filter(|only| map.streams.iter().all(|stream| stream.name != *only)) {
        return Err(Failure::refused(MetadataError::StreamUnknown(only.to_owned())));
    }
    let streams = map.streams.iter().filter(|stream| only.is_none_or(|only| stream.name == only));
    let lines: Vec<TopicLine> = streams
        .flat_map(|stream| stream.topics.iter().map(move |topic| (stream, topic)))
        .map(|(stream, topic)| TopicLine {
            stream: stream.name.clone(),
            topic: topic.name.clone(),
            partitions: topic.partitions.len(),
            replication_factor: topic.replication_factor,
            durability: topic.durability().name(),
        })
        .collect();
    output::print(context.output, &lines, |lines| {
        let rows = lines.iter().map(|line| {
            let name = format!("{}/{}", line.stream, line.topic);
            let (partitions, replicas) = (line.partitions.to_string(), line.replication_factor.to_string());
            vec![name, partitions, replicas, line.durability.to_owned()]
        });
        table(&["TOPIC", "PARTITIONS", "REPLICAS", "DURABILITY"], &[1, 2], rows)
    })
}

async fn describe(context: &Context, client: &Client, name: &TopicName) -> Outcome {
    let map = client.admin().map().await?;
    let topic = find(&map, name)?;
    let mut partitions = Vec::with_capacity(topic.partitions.len());
    for (number, entry) in topic.partitions.iter().enumerate() {
        let offsets = client.admin().offsets(entry.group).await;
        partitions.push(PartitionLine {
            partition: number,
            group: entry.group.as_raw(),
            replicas: entry.replicas.iter().map(|node| node.as_raw()).collect(),
            primary: primary_of(&map, entry.group),
            log_start: offsets.as_ref().ok().map(|offsets| offsets.log_start.as_raw()),
            high_watermark: offsets.as_ref().ok().map(|offsets| offsets.high_watermark.as_raw()),
            problem: offsets.err().map(|error| error.to_string()),
        });
    }
    let description = TopicDescription {
        stream: name.stream.clone(),
        topic: name.topic.clone(),
        replication_factor: topic.replication_factor,
        durability: topic.durability().name(),
        partitions,
    };
    output::print(context.output, &description, |description| {
        let head = ["PARTITION", "GROUP", "PRIMARY", "REPLICAS", "FIRST OFFSET", "NEXT OFFSET", "PROBLEM"];
        let rows = table(&head, &[0, 1, 2, 4, 5], description.partitions.iter().map(PartitionLine::row));
        let TopicDescription { replication_factor, durability, .. } = description;
        format!("topic {name}, {replication_factor} replicas, {durability}\n\n{rows}")
    })
}

/// Who leads a group, as far as the map knows.
fn primary_of(map: &ClusterMap, group: GroupId) -> Option<u8> {
    map.primaries
        .iter()
        .find(|(of, _, _)| *of == group)
        .map(|(_, _, node)| node.as_raw())
        .filter(|node| *node > 0)
}

impl PartitionLine {
    fn row(&self) -> Vec<String> {
        let replicas: Vec<String> = self.replicas.iter().map(u8::to_string).collect();
        let or_dash =
            |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        vec![
            self.partition.to_string(),
            self.group.to_string(),
            or_dash(self.primary.map(u64::from)),
            replicas.join(", "),
            or_dash(self.log_start),
            or_dash(self.high_watermark),
            self.problem.clone().unwrap_or_default(),
        ]
    }
}

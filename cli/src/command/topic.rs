//! `varve topic`: topics and their partitions.

use std::time::Duration;

use clap::Subcommand;
use serde::Serialize;
use varve_client::{Client, Compression, Durability, Retention, TopicOptions};
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
        /// Keep at least so many bytes of each partition's newest records, like `500MiB` or `20GiB` [default: all]
        #[arg(long, value_name = "SIZE", value_parser = size)]
        retention_bytes: Option<u64>,
        /// Keep records for at least so long, like `12h` or `7days` [default: for ever]
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        retention_age: Option<Duration>,
        /// When an append is acknowledged: `quorum-disk`, when most replicas have it on disk, synced; or `quorum-memory`, already
        /// when they have it in memory, so that a power failure of most of them at once may lose the last of it
        #[arg(long, value_name = "D", default_value_t = Durability::QuorumDisk)]
        durability: Durability,
        /// How producers compress what they append: `none`, `lz4`, which is fast, or `zstd`, which is smaller
        #[arg(long, value_name = "C", default_value_t = Compression::None)]
        compression: Compression,
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
    compression: &'static str,
}

#[derive(Serialize)]
struct TopicDescription {
    stream: String,
    topic: String,
    replication_factor: u8,
    /// None: all are kept.
    retention_bytes: Option<u64>,
    /// None: for ever.
    retention_age_ms: Option<u64>,
    durability: &'static str,
    compression: &'static str,
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
        Verb::Create {
            topic,
            partitions,
            replication_factor,
            durability,
            compression,
            retention_bytes,
            retention_age,
        } => {
            let age_ms = retention_age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
            let retention = Retention { bytes: retention_bytes, age_ms };
            let options = TopicOptions { partitions, replication_factor, durability, retention, compression };
            let admin = connect(context).await?.admin();
            admin.create_topic(&topic.stream, &topic.topic, options).await?;
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
            compression: topic.compression.name(),
        })
        .collect();
    output::print(context.output, &lines, |lines| {
        let rows = lines.iter().map(|line| {
            let name = format!("{}/{}", line.stream, line.topic);
            let (partitions, replicas) = (line.partitions.to_string(), line.replication_factor.to_string());
            vec![name, partitions, replicas, line.durability.to_owned(), line.compression.to_owned()]
        });
        table(&["TOPIC", "PARTITIONS", "REPLICAS", "DURABILITY", "COMPRESSION"], &[1, 2], rows)
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
            replicas: entry.replicas().iter().map(|node| node.as_raw()).collect(),
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
        retention_bytes: topic.retention.bytes,
        retention_age_ms: topic.retention.age_ms,
        durability: topic.durability().name(),
        compression: topic.compression.name(),
        partitions,
    };
    output::print(context.output, &description, |description| {
        let head = ["PARTITION", "GROUP", "PRIMARY", "REPLICAS", "FIRST OFFSET", "NEXT OFFSET", "PROBLEM"];
        let rows = table(&head, &[0, 1, 2, 4, 5], description.partitions.iter().map(PartitionLine::row));
        let kept = retention_in_words(topic.retention);
        let TopicDescription { replication_factor, durability, .. } = description;
        let compressed = compression_in_words(topic.compression);
        format!("topic {name}, {replication_factor} replicas, {durability}, {compressed}, {kept}\n\n{rows}")
    })
}

/// Reads a number of bytes, perhaps with a unit.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err(format!("`{unit}` is no unit of bytes: B, kB, MB, GB, TB, KiB, MiB, GiB or TiB")),
    };
    let number: u64 =
        number.parse().map_err(|_| "a size is a whole number and a unit, like `20GiB`".to_owned())?;
    number.checked_mul(factor).ok_or_else(|| "more bytes than there are".to_owned())
}

fn retention_in_words(retention: Retention) -> String {
    let age = |age_ms| humantime::format_duration(Duration::from_millis(age_ms)).to_string();
    match (retention.bytes, retention.age_ms.map(age)) {
        (None, None) => "all records kept".to_owned(),
        (Some(bytes), None) => format!("the newest {bytes} bytes of each partition kept"),
        (None, Some(age)) => format!("records kept for {age}"),
        (Some(bytes), Some(age)) => {
            format!("the newest {bytes} bytes of each partition kept, and those only for {age}")
        }
    }
}

fn compression_in_words(compression: Compression) -> String {
    match compression {
        Compression::None => "not compressed".to_owned(),
        Compression::Lz4 | Compression::Zstd => format!("compressed with {compression}"),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        let sizes = ["0", "17", "5B", "3kB", "2 MiB", "1GiB", "4TB"].map(size);
        assert_eq!(sizes, [0, 17, 5, 3_000, 2 << 20, 1 << 30, 4_000_000_000_000].map(Ok));
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "GiB", "1.5GiB", "-1", "3 parsecs", "99999999999TiB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}

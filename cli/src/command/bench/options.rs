//! What the benchmarks take, and what of it does not go together.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::anyhow;
use varve_client::{Compression, Durability, ProducerConfig, TopicOptions};
use varve_protocol::limits::{
    BATCH_BYTES_DEFAULT, BATCH_BYTES_MAX, CLIENT_TABLE_REQUESTS_MAX, PARTITIONS_PER_TOPIC_MAX,
    RECORD_BYTES_MAX,
};
use varve_protocol::record::{BATCH_HEADER_SIZE, Record};

use crate::failure::{Failure, Outcome};
use crate::measure::payload::STAMP_SIZE;
use crate::measure::rate;
use crate::measure::setting::{Setting, setting};
use crate::topic_name::TopicName;

/// Producers or consumers of one process. Each has a connection of its own.
const WORKERS_MAX: i64 = 256;

/// Records that one producer may be told to have on their way: more than any window holds.
const IN_FLIGHT_MAX: u32 = 1 << 20;

/// What every benchmark takes.
#[derive(clap::Args, Debug)]
pub(super) struct Common {
    /// STREAM/TOPIC
    pub(super) topic: TopicName,
    /// Keep the report in this file, for `varve bench compare`
    #[arg(long, value_name = "FILE.json")]
    pub(super) save: Option<PathBuf>,
    /// Draw the report as one page that a browser shows, into this file
    #[arg(long, value_name = "FILE.html")]
    pub(super) html: Option<PathBuf>,
    /// Measure first what this machine can do without a cluster: synced writes in this directory, copies in memory, loopback
    #[arg(long, value_name = "DIR")]
    pub(super) raw: Option<PathBuf>,
}

/// What a benchmark takes that appends.
#[derive(clap::Args, Debug)]
pub(super) struct Load {
    #[command(flatten)]
    pub(super) common: Common,
    /// How long to measure
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    pub(super) duration: Duration,
    /// How long the load runs before that
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = humantime::parse_duration)]
    pub(super) warm_up: Duration,
    /// Records per second of all producers together
    #[arg(long, value_name = "N", value_parser = rate::parse)]
    pub(super) rate: Option<f64>,
    /// Bytes of a record's payload
    #[arg(long, value_name = "BYTES", default_value_t = 1024,
        value_parser = clap::value_parser!(u64).range(1..=RECORD_BYTES_MAX as u64))]
    pub(super) record_size: u64,
    /// How much of each payload compresses to next to nothing, in percent; the rest does not compress
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(super) compressible: u8,
    /// How large a batch may get, before it is compressed
    #[arg(long, value_name = "BYTES", default_value_t = BATCH_BYTES_DEFAULT as u64,
        value_parser = clap::value_parser!(u64).range(1024..=BATCH_BYTES_MAX as u64))]
    pub(super) batch_bytes: u64,
    /// How long a batch that is not full waits for more while others are on their way
    #[arg(long, value_name = "TIME", default_value = "5ms", value_parser = humantime::parse_duration)]
    pub(super) linger: Duration,
    /// Batches of a producer on their way at once, per partition
    #[arg(long, value_name = "N", default_value_t = 4,
        value_parser = clap::value_parser!(u64).range(1..=CLIENT_TABLE_REQUESTS_MAX as u64))]
    pub(super) window: u64,
    /// Records of a producer that wait for their acknowledgement at once, at most; 1 measures one at a time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(IN_FLIGHT_MAX)))]
    pub(super) in_flight: Option<u32>,
    /// How many producers, each with a connection of its own; they share the rate
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=WORKERS_MAX))]
    pub(super) producers: u32,
    /// What the payloads are drawn from: the same seed gives the same ones
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) seed: u64,
    /// How long the cluster may take for a batch, failovers included
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    pub(super) timeout: Duration,
    #[command(flatten)]
    pub(super) created: Created,
}

/// The topic, if the benchmark makes it.
#[derive(clap::Args, Debug)]
pub(super) struct Created {
    /// Create the topic, and its stream if need be, and delete it at the end
    #[arg(long)]
    pub(super) create: bool,
    /// How many partitions the topic gets
    #[arg(long, value_name = "N", default_value_t = 1, requires = "create",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(PARTITIONS_PER_TOPIC_MAX)))]
    partitions: u32,
    /// How many nodes hold each partition: 1, 3, 5 or 7 [default: 3, or 1 if there are fewer nodes]
    #[arg(long, value_name = "R", requires = "create")]
    replication_factor: Option<u8>,
    /// When an append is acknowledged: `quorum-disk` or `quorum-memory`
    #[arg(long, value_name = "D", default_value_t = Durability::QuorumDisk, requires = "create")]
    durability: Durability,
    /// How producers compress batches: `none`, `lz4` or `zstd`; see --compressible
    #[arg(long, value_name = "C", default_value_t = Compression::None, requires = "create")]
    compression: Compression,
}

impl Created {
    pub(super) fn options(&self) -> TopicOptions {
        let Self { partitions, replication_factor, durability, compression, .. } = *self;
        TopicOptions { partitions, replication_factor, durability, compression, ..TopicOptions::default() }
    }
}

/// How many read.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(super) struct Readers {
    /// How many consumers, each with a connection of its own; every one reads the whole topic
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=WORKERS_MAX))]
    pub(super) consumers: u32,
}

impl Load {
    /// Says what does not go together, before anything is asked of the cluster. Stamped records have a least size.
    pub(super) fn check(&self, is_stamped: bool) -> Outcome {
        let wrong = |text: String| Err(Failure::usage(anyhow!(text)));
        let record_size = self.record_size;
        let record = Record { payload: vec![0; self.record_size()].into(), ..Record::default() };
        let encoded = record.encoded_size();
        if encoded > RECORD_BYTES_MAX {
            return wrong(format!(
                "--record-size {record_size} is too large: a record holds at most {RECORD_BYTES_MAX} bytes with its framing"
            ));
        }
        if (encoded + BATCH_HEADER_SIZE) as u64 > self.batch_bytes {
            let batch_bytes = self.batch_bytes;
            return wrong(format!(
                "a record of {record_size} bytes does not fit a batch of {batch_bytes} bytes; raise --batch-bytes"
            ));
        }
        if is_stamped && record_size < STAMP_SIZE as u64 {
            return wrong(format!(
                "--record-size is at least {STAMP_SIZE} here: each record tells when it was due"
            ));
        }
        if self.duration.is_zero() {
            return wrong("--duration is how long to measure, and cannot be 0".to_owned());
        }
        Ok(())
    }

    pub(super) fn record_size(&self) -> usize {
        usize::try_from(self.record_size).unwrap_or(RECORD_BYTES_MAX)
    }

    /// How its producers work.
    pub(super) fn producer_config(&self) -> ProducerConfig {
        ProducerConfig {
            batch_bytes_max: usize::try_from(self.batch_bytes).unwrap_or(BATCH_BYTES_MAX),
            linger: self.linger,
            window: usize::try_from(self.window).unwrap_or(CLIENT_TABLE_REQUESTS_MAX),
            timeout: self.timeout,
        }
    }

    /// What was asked for, in words.
    pub(super) fn settings(&self, rate: Option<f64>) -> Vec<Setting> {
        let time = |time: Duration| humantime::format_duration(time).to_string();
        vec![
            setting("rate", rate.map_or_else(|| "unlimited".to_owned(), |rate| format!("{rate}/s"))),
            setting("record-size", self.record_size),
            setting("compressible", format!("{} %", self.compressible)),
            setting("batch-bytes", self.batch_bytes),
            setting("linger", time(self.linger)),
            setting("window", self.window),
            setting(
                "in-flight",
                self.in_flight.map_or_else(|| "unlimited".to_owned(), |count| count.to_string()),
            ),
            setting("producers", self.producers),
            setting("duration", time(self.duration)),
            setting("warm-up", time(self.warm_up)),
            setting("seed", self.seed),
        ]
    }
}

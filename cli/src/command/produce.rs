//! `varve produce`: the lines of stdin or a file become records.
//!
//! ```text
//!   thread: blocks of lines ──▶ task: records, handed to the producer ──▶ task: waits for acknowledgements, counts
//! ```
//!
//! Both queues are bounded, so the input is read no faster than the cluster takes it. The command ends when every line was
//! acknowledged, or says how many were.

mod lines;
mod spread;
mod tally;

use std::fs::File;
use std::io::{self, IsTerminal as _, Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use tokio::sync::mpsc;
use varve_client::{Ack, ClientError, Headers, Producer, ProducerConfig, Record, Target};
use varve_protocol::limits::{BATCH_BYTES_DEFAULT, BATCH_BYTES_MAX, RECORD_BYTES_MAX};
use varve_protocol::record::BATCH_HEADER_SIZE;

use crate::command::topic::find;
use crate::connection::connect;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::headers::{self, Typed};
use crate::output;
use crate::topic_name::TopicName;

use self::lines::{Block, Blocks, LinesError};
use self::spread::{Place, Spread};
use self::tally::{Sums, Tally};

/// Blocks that are read ahead.
const BLOCKS_AHEAD: usize = 4;

/// Records whose acknowledgements are awaited at most.
const RECORDS_AWAITED_MAX: usize = 1 << 18;

/// What `varve produce` takes.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// STREAM/TOPIC
    topic: TopicName,
    /// Append all lines to this partition; without it, and without keys, each partition gets a batch in turn
    #[arg(long, value_name = "N", conflicts_with = "key_separator")]
    partition: Option<u32>,
    /// What stands in front of this character is the key of a line, and decides its partition
    #[arg(long, value_name = "C", value_parser = separator)]
    key_separator: Option<u8>,
    /// Give each record this header, a string; or with a kind, as in `hops:uint8=3`, a raw (hexadecimal digits), bool, int8 to
    /// int128, uint8 to uint128, float32 or float64
    #[arg(long = "header", value_name = "KEY[:KIND]=VALUE", value_parser = headers::parse)]
    headers: Vec<Typed>,
    /// How large a batch may get, before it is compressed
    #[arg(long, value_name = "BYTES", default_value_t = BATCH_BYTES_DEFAULT as u64,
        value_parser = clap::value_parser!(u64).range(1024..=BATCH_BYTES_MAX as u64))]
    batch_bytes: u64,
    /// Read this file instead of stdin
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// How long the cluster may take for a batch, failovers included
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// A character that separates keys: one byte, or `\t`.
pub(crate) fn separator(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        b"\\t" => Ok(b'\t'),
        [byte] => Ok(*byte),
        _ => Err("a separator is one ASCII character, or \\t".to_owned()),
    }
}

/// Appends lines.
pub(crate) async fn run(context: &Context, arguments: &Arguments) -> Outcome {
    let headers = headers::together(&arguments.headers).map_err(|error| Failure::usage(anyhow!(error)))?;
    let (input, size) = open(arguments.file.as_deref())?;
    let client = connect(context).await?;
    let partitions = partition_count(&find(&client.admin().map().await?, &arguments.topic)?.partitions);
    let spread = spread(arguments, (partitions, &headers))?;
    let config = ProducerConfig {
        batch_bytes_max: usize::try_from(arguments.batch_bytes).unwrap_or(BATCH_BYTES_MAX),
        timeout: arguments.timeout,
        ..ProducerConfig::default()
    };
    let producer = client.producer(&arguments.topic.to_string(), config).await;
    let producer = producer.map_err(|error| Failure::from(error).context("nothing was sent"))?;

    let (await_ack, awaited) = mpsc::channel(RECORDS_AWAITED_MAX);
    let stop = Arc::new(AtomicBool::new(false));
    let count = tokio::spawn(count(awaited, Tally::start(size), Arc::clone(&stop)));
    let sent =
        Sender { producer, spread, headers, arguments, await_ack, stop }.send_all(read_ahead(input)).await;
    let counted = count.await.context("the task that counts has ended").map_err(Failure::refused)?;
    let sums = conclude(sent, counted)?;
    output::print(context.output, &sums, Sums::text)
}

/// Partitions of a topic.
pub(crate) fn partition_count<T>(partitions: &[T]) -> u32 {
    u32::try_from(partitions.len()).expect("a topic has at most as many partitions as the limit says")
}

/// A usage error if a topic has no such partition.
pub(crate) fn check_partition(topic: &TopicName, partition: u32, partitions: u32) -> Outcome {
    match partitions {
        _ if partition < partitions => Ok(()),
        1 => Err(Failure::usage(anyhow!(
            "topic `{topic}` has no partition {partition}; it has partition 0 only"
        ))),
        _ => Err(Failure::usage(anyhow!(
            "topic `{topic}` has no partition {partition}; it has partition 0 to {}",
            partitions - 1
        ))),
    }
}

fn spread(arguments: &Arguments, (partitions, headers): (u32, &Headers)) -> Outcome<Spread> {
    match (arguments.partition, arguments.key_separator) {
        (Some(partition), _) => {
            check_partition(&arguments.topic, partition, partitions)?;
            Ok(Spread::One(partition))
        }
        (None, Some(separator)) => Ok(Spread::Keys(separator)),
        (None, None) => {
            let batch_bytes = usize::try_from(arguments.batch_bytes).unwrap_or(BATCH_BYTES_MAX);
            let framing = Record { headers: headers.clone(), ..Record::default() }.encoded_size();
            Ok(Spread::turns(partitions, (batch_bytes, framing)))
        }
    }
}

/// The input, and its size if that is known.
fn open(file: Option<&Path>) -> Outcome<(Box<dyn Read + Send>, Option<u64>)> {
    match file {
        None => {
            if io::stdin().is_terminal() {
                // If stderr is gone, nobody is left to tell.
                let _ = writeln!(io::stderr(), "each line you type becomes a record; Ctrl-D ends");
            }
            Ok((Box::new(io::stdin()), None))
        }
        Some(path) => {
            let failed = || format!("cannot read {}", path.display());
            let file = File::open(path).with_context(failed).map_err(Failure::usage)?;
            let metadata = file.metadata().with_context(failed).map_err(Failure::usage)?;
            Ok((Box::new(file), metadata.is_file().then_some(metadata.len())))
        }
    }
}

/// Reads blocks on a thread of its own. It is not joined: if the command fails, it may wait for stdin until the process ends.
fn read_ahead(input: Box<dyn Read + Send>) -> mpsc::Receiver<Result<Block, LinesError>> {
    let (give, blocks) = mpsc::channel(BLOCKS_AHEAD);
    std::thread::spawn(move || {
        let mut input = Blocks::new(input);
        while let Some(block) = input.next().transpose() {
            let failed = block.is_err();
            if give.blocking_send(block).is_err() || failed {
                break;
            }
        }
    });
    blocks
}

/// A record on its way.
struct Awaited {
    ack: Ack,
    bytes: usize,
    since: Instant,
}

struct Sender<'a> {
    producer: Producer,
    spread: Spread,
    /// Of each record.
    headers: Headers,
    arguments: &'a Arguments,
    await_ack: mpsc::Sender<Awaited>,
    /// Set when a record was not acknowledged: what comes after it had better not be sent.
    stop: Arc<AtomicBool>,
}

impl Sender<'_> {
    /// Hands over every line; ends when the producer has sent them all.
    async fn send_all(mut self, mut blocks: mpsc::Receiver<Result<Block, LinesError>>) -> Outcome {
        let mut result = Ok(());
        while let Some(block) = blocks.recv().await {
            result = match block {
                Ok(block) => self.send_block(&block).await,
                Err(error) => Err(Failure::refused(error)),
            };
            if result.is_err() || self.stop.load(Ordering::Relaxed) {
                break;
            }
        }
        let flushed = self.producer.flush().await;
        result.and(flushed.map_err(Failure::from))
    }

    async fn send_block(&mut self, block: &Block) -> Outcome {
        for (line, bytes) in block.lines() {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let (place, record) = self.spread.place(bytes).ok_or_else(|| self.no_key(line))?;
            let record = Record { headers: self.headers.clone(), ..record };
            if record.encoded_size() > RECORD_BYTES_MAX {
                return Err(Failure::refused(LinesError::TooLong { line }));
            }
            let batch_bytes = self.arguments.batch_bytes;
            if (record.encoded_size() + BATCH_HEADER_SIZE) as u64 > batch_bytes {
                return Err(Failure::usage(anyhow!(
                    "line {line} does not fit a batch of {batch_bytes} bytes; raise --batch-bytes"
                )));
            }
            let bytes = record.payload.len() + record.key.as_ref().map_or(0, bytes::Bytes::len);
            let target = match place {
                Place::Partition(partition) => Target::Partition(partition),
                Place::Key => Target::Key,
            };
            let since = Instant::now();
            let ack = self.producer.send(target, record).await?;
            if self.await_ack.send(Awaited { ack, bytes, since }).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    fn no_key(&self, line: u64) -> Failure {
        let separator = char::from(self.arguments.key_separator.unwrap_or_default());
        Failure::refused(anyhow!("line {line} has no `{}`, so it has no key", separator.escape_default()))
    }
}

/// What came of all records.
struct Counted {
    tally: Tally,
    not_acknowledged: u64,
    first_error: Option<ClientError>,
}

async fn count(mut awaited: mpsc::Receiver<Awaited>, mut tally: Tally, stop: Arc<AtomicBool>) -> Counted {
    let mut not_acknowledged = 0;
    let mut first_error = None;
    while let Some(Awaited { ack, bytes, since }) = awaited.recv().await {
        match ack.wait().await {
            Ok(_) => tally.acknowledged(bytes, since.elapsed()),
            Err(error) => {
                stop.store(true, Ordering::Relaxed);
                not_acknowledged += 1;
                first_error.get_or_insert(error);
            }
        }
    }
    Counted { tally, not_acknowledged, first_error }
}

/// The sums, or why there is more to say than that.
fn conclude(sent: Outcome, counted: Counted) -> Outcome<Sums> {
    let sums = counted.tally.finish();
    let records = sums.records;
    match (counted.first_error, sent) {
        (None, Ok(())) => Ok(sums),
        (None, Err(failure)) => {
            Err(failure.context(format!("stopped after {records} records were acknowledged")))
        }
        (Some(error), _) => {
            let total = records + counted.not_acknowledged;
            Err(Failure::from(error).context(format!("{records} of {total} records were acknowledged")))
        }
    }
}

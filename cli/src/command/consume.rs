//! `varve consume`: prints records, from one partition or from all of them.
//!
//! Records of one partition come in order; between partitions there is no order. Output is buffered while there is more to
//! read, and flushed when there is not.

mod print;

use std::io::{self, BufWriter, ErrorKind, Write};
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::anyhow;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use varve_client::{Client, ClientError, Consumer, Fetched};
use varve_protocol::client::{PartitionOffsets, Refusal};
use varve_protocol::id::{GroupId, Offset, Timestamp};
use varve_protocol::metadata::TopicEntry;

use crate::command::produce::{check_partition, partition_count, separator};
use crate::command::topic::find;
use crate::connection::connect;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::{Format, quiet};
use crate::topic_name::TopicName;

use self::print::{Placed, Style};

/// Bytes that are gathered before they are written.
const BUFFER_SIZE: usize = 1 << 20;

/// Answers of the cluster that wait to be printed.
const FETCHES_AHEAD: usize = 4;

/// What `varve consume` takes.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// STREAM/TOPIC
    topic: TopicName,
    /// Read this partition only
    #[arg(long, value_name = "N")]
    partition: Option<u32>,
    /// Where to begin: `first`, `last` (what comes from now on), an offset, how long ago (`90s`, `2h`), or a time
    /// (`2026-05-04T12:00:00Z`); what was appended at that time or later is read
    #[arg(long, value_name = "WHERE", default_value = "first")]
    from: Start,
    /// End after so many records
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// End where the log ends at the start of this command
    #[arg(long)]
    until_end: bool,
    /// Print the key of a record and this character in front of it
    #[arg(long, value_name = "C", value_parser = separator)]
    key_separator: Option<u8>,
    /// Print the headers of a record and a tab in front of it, as in `hops:uint8=3 trace="a1b2"`
    #[arg(long)]
    headers: bool,
}

/// Where to begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Start {
    First,
    Last,
    Offset(u64),
    /// So long ago.
    Ago(Duration),
    At(Timestamp),
}

impl FromStr for Start {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "first" => Ok(Self::First),
            "last" => Ok(Self::Last),
            _ => {
                let offset = || text.parse().ok().map(Self::Offset);
                let ago = || humantime::parse_duration(text).ok().map(Self::Ago);
                let time = || humantime::parse_rfc3339_weak(text).ok().map(timestamp_of).map(Self::At);
                offset().or_else(ago).or_else(time).ok_or_else(|| {
                    "`first`, `last`, an offset, how long ago (`90s`) or a time (`2026-05-04T12:00:00Z`) is needed"
                        .to_owned()
                })
            }
        }
    }
}

/// In whole microseconds; zero for what was before 1970.
fn timestamp_of(time: SystemTime) -> Timestamp {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::new(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

/// The part of a partition that is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Range {
    partition: u32,
    start: Offset,
    /// Exclusive; none: no end.
    end: Option<Offset>,
}

/// Prints records.
pub(crate) async fn run(context: &Context, arguments: &Arguments) -> Outcome {
    let client = connect(context).await?;
    let map = client.admin().map().await?;
    let topic = find(&map, &arguments.topic)?;
    let ranges = ranges(&client, arguments, topic).await?;

    let (give, fetched) = mpsc::channel(FETCHES_AHEAD);
    let mut readers = JoinSet::new();
    for range in ranges {
        if range.end.is_none_or(|end| range.start < end) {
            let consumer = client
                .consumer(
                    &arguments.topic.to_string(),
                    range.partition,
                    varve_client::From::Offset(range.start),
                )
                .await?;
            readers.spawn(read(consumer, range, give.clone()));
        }
    }
    drop(give);
    let style = match context.output {
        Format::Json => Style::Json,
        Format::Text => Style::Text { separator: arguments.key_separator, has_headers: arguments.headers },
    };
    print_all(fetched, style, arguments.count.unwrap_or(u64::MAX)).await
}

/// Finds out where each partition that is wanted begins and ends.
async fn ranges(client: &Client, arguments: &Arguments, topic: &TopicEntry) -> Outcome<Vec<Range>> {
    let groups: Vec<GroupId> = topic.partitions.iter().map(|partition| partition.group).collect();
    match (arguments.partition, arguments.from) {
        (Some(partition), _) => check_partition(&arguments.topic, partition, partition_count(&groups))?,
        (None, Start::Offset(_)) if groups.len() > 1 => {
            let count = groups.len();
            return Err(Failure::usage(anyhow!(
                "topic `{}` has {count} partitions, each with offsets of its own; say which with --partition",
                arguments.topic
            )));
        }
        (None, _) => {}
    }
    let mut ranges = Vec::new();
    let now = SystemTime::now();
    for (partition, group) in (0..).zip(groups) {
        if arguments.partition.is_none_or(|only| only == partition) {
            let offsets = client.admin().offsets(group).await?;
            let start = match arguments.from {
                Start::At(time) => client.admin().offset_at(group, time).await?,
                Start::Ago(ago) => {
                    let time = now.checked_sub(ago).map_or(Timestamp::ZERO, timestamp_of);
                    client.admin().offset_at(group, time).await?
                }
                Start::First => offsets.log_start,
                Start::Last => offsets.high_watermark,
                Start::Offset(offset) => check_offset(offset, offsets)?,
            };
            ranges.push(Range {
                partition,
                start,
                end: arguments.until_end.then_some(offsets.high_watermark),
            });
        }
    }
    Ok(ranges)
}

fn check_offset(offset: u64, offsets: PartitionOffsets) -> Outcome<Offset> {
    let PartitionOffsets { log_start: earliest, high_watermark: next, .. } = offsets;
    let offset = Offset::new(offset);
    if (earliest..=next).contains(&offset) {
        Ok(offset)
    } else {
        Err(Failure::refused(Refusal::OffsetOutOfRange { earliest, next }))
    }
}

/// What a reader hands to the printer.
type Piece = Result<(Range, Fetched), ClientError>;

/// Reads a range until its end, or until nobody wants more.
async fn read(mut consumer: Consumer, range: Range, give: mpsc::Sender<Piece>) {
    loop {
        let fetched = consumer.next_batch().await;
        let last =
            fetched.as_ref().ok().and_then(|fetched| fetched.records.last()).map(|(offset, _)| *offset);
        let ended =
            fetched.is_err() || range.end.is_some_and(|end| last.is_some_and(|last| last.next() >= end));
        if give.send(fetched.map(|fetched| (range, fetched))).await.is_err() || ended {
            return;
        }
    }
}

async fn print_all(mut fetched: mpsc::Receiver<Piece>, style: Style, mut left: u64) -> Outcome {
    let mut out = BufWriter::with_capacity(BUFFER_SIZE, io::stdout().lock());
    while left > 0 {
        let piece = match fetched.try_recv() {
            Ok(piece) => piece,
            Err(_) => {
                if is_gone(out.flush())? {
                    return Ok(());
                }
                match fetched.recv().await {
                    Some(piece) => piece,
                    None => return Ok(()),
                }
            }
        };
        let written = match piece {
            Ok((range, fetched)) => print_piece(&mut out, style, range, &fetched, &mut left),
            Err(error) => {
                let _ = is_gone(out.flush())?;
                return Err(error.into());
            }
        };
        if is_gone(written)? {
            return Ok(());
        }
    }
    is_gone(out.flush()).map(|_| ())
}

fn print_piece(
    out: &mut impl Write,
    style: Style,
    range: Range,
    fetched: &Fetched,
    left: &mut u64,
) -> io::Result<()> {
    for (offset, record) in &fetched.records {
        if *left == 0 || range.end.is_some_and(|end| *offset >= end) {
            break;
        }
        style.write(out, &Placed { partition: range.partition, offset: *offset, record })?;
        *left -= 1;
    }
    Ok(())
}

/// Whether whoever read our output has gone; any other trouble with it is a failure.
fn is_gone(written: io::Result<()>) -> Outcome<bool> {
    let gone = written.as_ref().is_err_and(|error| error.kind() == ErrorKind::BrokenPipe);
    quiet(written).map(|()| gone)
}

//! `varve dump`: the prepares, and the records, of one group in a data directory.

use std::io::Write;
use std::path::PathBuf;

use serde::Serialize;
use varve_protocol::compression::Compression;
use varve_protocol::id::GroupId;
use varve_protocol::prepare::{Prepare, PrepareKind};
use varve_protocol::record::{Batch, Headers};

use crate::command::verify::look;
use crate::context::Context;
use crate::failure::Outcome;
use crate::headers;
use crate::output::{Format, quiet};

/// Bytes of a payload that are printed for people.
const PAYLOAD_CHARS_MAX: usize = 80;

/// What `varve dump` takes.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// The data directory of a node; the node may run
    dir: PathBuf,
    /// The key file of the node, if what it stores is sealed
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// The group, as `varve verify` numbers them; 0 is the metadata
    #[arg(long, value_name = "N", default_value_t = 0)]
    group: u64,
    /// The first op to print
    #[arg(long, value_name = "OP", default_value_t = 1)]
    from: u64,
    /// The last op to print [default: all]
    #[arg(long, value_name = "OP")]
    to: Option<u64>,
    /// Print the records of each prepare, too
    #[arg(long)]
    records: bool,
}

#[derive(Serialize)]
struct PrepareLine {
    op: u64,
    view: u64,
    kind: &'static str,
    checksum: String,
    timestamp_us: u64,
    base_offset: u64,
    record_count: u32,
    producer: u64,
    request: u64,
    body_bytes: usize,
    /// Of its records, if it has any that can be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    compression: Option<&'static str>,
    /// Bytes of its records, uncompressed.
    #[serde(skip_serializing_if = "Option::is_none")]
    records_bytes: Option<usize>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    records: Vec<RecordLine>,
}

#[derive(Serialize)]
struct RecordLine {
    offset: u64,
    timestamp_us: u64,
    key: Option<String>,
    #[serde(skip_serializing_if = "Headers::is_empty", serialize_with = "json")]
    headers: Headers,
    payload: String,
}

fn json<S: serde::Serializer>(headers: &Headers, to: S) -> Result<S::Ok, S::Error> {
    headers::Json(headers).serialize(to)
}

/// Prints the prepares of a group.
pub(crate) fn run(context: &Context, arguments: &Arguments) -> Outcome {
    let mut result = Ok(());
    let wanted = arguments.from..=arguments.to.unwrap_or(u64::MAX);
    look(&arguments.dir, arguments.key_file.as_deref(), &mut |prepare| {
        let header = prepare.header();
        let is_wanted =
            header.group() == GroupId::new(arguments.group) && wanted.contains(&header.op().as_raw());
        if is_wanted && result.is_ok() {
            result = print(context.output, &line_of(prepare, arguments.records));
        }
    })?;
    quiet(result)
}

fn line_of(prepare: &Prepare, has_records: bool) -> PrepareLine {
    let header = prepare.header();
    let base_offset = header.base_offset().as_raw();
    let is_batch = header.kind() == PrepareKind::Records;
    let batch = is_batch.then(|| Batch::decode(prepare.body().clone()).ok()).flatten();
    let record_line = |(offset, record): (u64, varve_protocol::record::Record)| RecordLine {
        offset,
        timestamp_us: record.timestamp.as_raw(),
        key: record.key.map(|key| String::from_utf8_lossy(&key).into_owned()),
        headers: record.headers,
        payload: String::from_utf8_lossy(&record.payload).into_owned(),
    };
    PrepareLine {
        op: header.op().as_raw(),
        view: header.view().as_raw(),
        kind: match header.kind() {
            PrepareKind::Noop => "noop",
            PrepareKind::Records => "records",
            PrepareKind::Metadata => "metadata",
            PrepareKind::Replacement => "replacement",
            PrepareKind::LogStart => "log_start",
        },
        checksum: format!("{:08x}", header.id().checksum),
        timestamp_us: header.timestamp().as_raw(),
        base_offset,
        record_count: header.record_count(),
        producer: header.producer().as_raw(),
        request: header.request().as_raw(),
        body_bytes: prepare.body().len(),
        compression: batch.as_ref().map(|batch| batch.compression().name()),
        records_bytes: batch.as_ref().map(Batch::records_size),
        records: batch
            .iter()
            .filter(|_| has_records)
            .flat_map(|batch| (base_offset..).zip(batch.records()))
            .map(record_line)
            .collect(),
    }
}

fn print(format: Format, line: &PrepareLine) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match format {
        Format::Json => {
            serde_json::to_writer(&mut stdout, line)?;
            writeln!(stdout)
        }
        Format::Text => {
            let PrepareLine { op, view, kind, checksum, base_offset, record_count, body_bytes, .. } = line;
            let compressed = match (line.compression, line.records_bytes) {
                (Some(codec), Some(size)) if codec != Compression::None.name() => {
                    format!(" {codec} of {size}")
                }
                _ => String::new(),
            };
            writeln!(
                stdout,
                "op {op} view {view} {kind} checksum {checksum} offset {base_offset} records {record_count} \
                 bytes {body_bytes}{compressed} producer {} request {} at {} us",
                line.producer, line.request, line.timestamp_us
            )?;
            for record in &line.records {
                let payload: String = record.payload.chars().take(PAYLOAD_CHARS_MAX).collect();
                let more = if payload.len() < record.payload.len() { "..." } else { "" };
                let key = record.key.as_ref().map(|key| format!(" key {key:?}")).unwrap_or_default();
                let space = if record.headers.is_empty() { "" } else { " " };
                let headers = headers::Text(&record.headers);
                writeln!(stdout, "    {}{key}{space}{headers} {payload:?}{more}", record.offset)?;
            }
            Ok(())
        }
    }
}

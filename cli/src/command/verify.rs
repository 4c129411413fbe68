//! `varve verify`: is everything in a data directory as it should be?

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use varve_protocol::id::GroupId;
use varve_protocol::metadata::ClusterMap;
use varve_protocol::prepare::Prepare;
use varve_replica::inspect::{self, Inspection, StorageError};
use varve_replica::key_file::{self, Keys};

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::{self, counted, table};

/// What `varve verify` takes.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// The data directory of a node; the node may run
    dir: PathBuf,
    /// The key file of the node, if what it stores is sealed; without it, checksums alone are looked at
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

#[derive(Serialize)]
struct Verdict {
    cluster: String,
    node: u8,
    groups: Vec<GroupLine>,
}

#[derive(Serialize)]
struct GroupLine {
    group: u64,
    name: String,
    first_op: u64,
    last_op: u64,
    first_offset: u64,
    next_offset: u64,
    prepares: u64,
    records: u64,
    bytes: u64,
    view: u64,
    log_view: u64,
    findings: Vec<String>,
}

/// Looks at a data directory.
pub(crate) fn run(context: &Context, arguments: &Arguments) -> Outcome {
    let found = open(&arguments.dir, arguments.key_file.as_deref(), |dir, keys| inspect::verify(dir, &keys))?;
    let names = names_of(&found.map);
    let lines: Vec<GroupLine> = found
        .groups
        .iter()
        .map(|group| GroupLine {
            group: group.group.as_raw(),
            name: name_of(&names, group.group),
            first_op: group.first.as_raw(),
            last_op: group.last.as_raw(),
            first_offset: group.first_offset.as_raw(),
            next_offset: group.next_offset.as_raw(),
            prepares: group.prepares,
            records: group.records,
            bytes: group.bytes,
            view: group.view.as_raw(),
            log_view: group.log_view.as_raw(),
            findings: group.findings.clone(),
        })
        .collect();
    let findings: usize = lines.iter().map(|line| line.findings.len()).sum();
    let verdict = Verdict { cluster: found.cluster.to_string(), node: found.node.as_raw(), groups: lines };
    output::print(context.output, &verdict, text)?;
    if findings == 0 {
        return Ok(());
    }
    let damage = counted(findings, "finding");
    Err(Failure::refused(anyhow::anyhow!("{damage} in {}", arguments.dir.display())))
}

/// Opens a data directory to look at all that it holds.
pub(crate) fn look(
    dir: &Path,
    key_file: Option<&Path>,
    visit: &mut dyn FnMut(&Prepare),
) -> Outcome<Inspection> {
    open(dir, key_file, |dir, keys| inspect::inspect(dir, keys, visit))
}

fn open(
    dir: &Path,
    key_file: Option<&Path>,
    look: impl FnOnce(&Path, Keys) -> Result<Inspection, StorageError>,
) -> Outcome<Inspection> {
    let keys = key_file.map_or(Ok(Keys::NONE), key_file::load).map_err(Failure::usage)?;
    if !dir.is_dir() {
        let there = if dir.exists() { "is no directory" } else { "does not exist" };
        let wanted = "name the data directory of a node, such as varve-data/node-1";
        return Err(Failure::usage(anyhow::anyhow!("{} {there}; {wanted}", dir.display())));
    }
    let what = format!("{} is no data directory that can be read", dir.display());
    look(dir, keys).map_err(|error| Failure::usage(anyhow::Error::new(error).context(what)))
}

/// The partitions of all topics, by group: `stream/topic/partition`.
pub(crate) fn names_of(map: &ClusterMap) -> BTreeMap<GroupId, String> {
    let topics = map.streams.iter().flat_map(|stream| stream.topics.iter().map(move |topic| (stream, topic)));
    let partitions = topics.flat_map(|(stream, topic)| {
        let numbered = topic.partitions.iter().enumerate();
        numbered.map(move |(number, entry)| (entry.group, format!("{}/{}/{number}", stream.name, topic.name)))
    });
    partitions.collect()
}

fn name_of(names: &BTreeMap<GroupId, String>, group: GroupId) -> String {
    match names.get(&group) {
        _ if group == GroupId::METADATA => "metadata".to_owned(),
        Some(name) => name.clone(),
        None => "(deleted, or not known here)".to_owned(),
    }
}

fn text(verdict: &Verdict) -> String {
    let rows = verdict.groups.iter().map(|line| {
        let numbers = [line.first_op, line.last_op, line.first_offset, line.next_offset, line.bytes];
        let mut row = vec![line.group.to_string(), line.name.clone()];
        row.extend(numbers.iter().map(u64::to_string));
        row.push(if line.findings.is_empty() { "fine".to_owned() } else { line.findings.join("; ") });
        row
    });
    let head = ["GROUP", "NAME", "FIRST OP", "LAST OP", "FIRST OFFSET", "NEXT OFFSET", "BYTES", "FINDINGS"];
    let rows = table(&head, &[0, 2, 3, 4, 5, 6], rows);
    format!("node {} of cluster {}\n\n{rows}", verdict.node, verdict.cluster)
}

//! `cluster.toml` as written: its tables and keys, and the checks that turn it into what is meant.
//!
//! serde refuses unknown keys and wrong types, and says at which byte; what it cannot know (bounds, what two nodes may not
//! share) is checked here, with the byte of the value at fault.

use std::cmp::Reverse;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use toml::Spanned;
use varve_protocol::id::{ClusterId, NodeId};
use varve_protocol::limits::NODES_MAX;

use super::{
    CATCH_UP_BYTES_PER_SECOND_MAX, CLUSTER_NODES_MAX, ClusterConfig, MEMORY_SYNC_MS, NodeSettings, NumberKey,
    PATH_MTU_MAX, PULSE_INTERVAL_MS, PULSES_PER_SUSPICION_MIN, Problem, RESTORE_PRIMARIES_AFTER_MS,
    SCRUB_BYTES_PER_SECOND_MAX, SEGMENT_AGE_MS_MAX, SEGMENT_SIZE_BYTES_MAX, SUSPICION_TIMEOUT_MS,
    StorageSettings, THREADS, TimingSettings, TransportSettings, VIEW_CHANGE_TIMEOUT_MS,
};

/// A problem and the byte of the file where it is.
pub(super) struct Located {
    pub(super) at: usize,
    pub(super) problem: Problem,
}

impl Located {
    fn new(span: &Range<usize>, problem: Problem) -> Self {
        Self { at: span.start, problem }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) cluster_id: Spanned<String>,
    pub(super) node: Spanned<Vec<NodeTable>>,
    pub(super) tls: TlsTable,
    #[serde(default)]
    pub(super) timing: TimingTable,
    #[serde(default)]
    pub(super) storage: StorageTable,
    #[serde(default)]
    pub(super) transport: TransportTable,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NodeTable {
    pub(super) id: Spanned<u64>,
    pub(super) address: Spanned<String>,
    pub(super) data_dir: Spanned<String>,
    pub(super) cert: Option<String>,
    pub(super) key: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TlsTable {
    pub(super) ca: String,
    pub(super) cert_dir: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TimingTable {
    pub(super) pulse_interval_ms: Spanned<u64>,
    pub(super) suspicion_timeout_ms: Spanned<u64>,
    pub(super) view_change_timeout_ms: Spanned<u64>,
    pub(super) restore_primaries_after_ms: Spanned<u64>,
}

impl Default for TimingTable {
    fn default() -> Self {
        Self {
            pulse_interval_ms: unwritten(PULSE_INTERVAL_MS),
            suspicion_timeout_ms: unwritten(SUSPICION_TIMEOUT_MS),
            view_change_timeout_ms: unwritten(VIEW_CHANGE_TIMEOUT_MS),
            restore_primaries_after_ms: unwritten(RESTORE_PRIMARIES_AFTER_MS),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct StorageTable {
    pub(super) segment_size_bytes_max: Spanned<u64>,
    pub(super) segment_age_ms_max: Spanned<u64>,
    pub(super) memory_sync_ms: Spanned<u64>,
    pub(super) scrub_bytes_per_second_max: Spanned<u64>,
    pub(super) key_file: Option<String>,
}

impl Default for StorageTable {
    fn default() -> Self {
        Self {
            segment_size_bytes_max: unwritten(SEGMENT_SIZE_BYTES_MAX),
            segment_age_ms_max: unwritten(SEGMENT_AGE_MS_MAX),
            memory_sync_ms: unwritten(MEMORY_SYNC_MS),
            scrub_bytes_per_second_max: unwritten(SCRUB_BYTES_PER_SECOND_MAX),
            key_file: None,
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TransportTable {
    pub(super) path_mtu_max: Spanned<u64>,
    pub(super) catch_up_bytes_per_second_max: Spanned<u64>,
    pub(super) threads: Spanned<u64>,
}

impl Default for TransportTable {
    fn default() -> Self {
        Self {
            path_mtu_max: unwritten(PATH_MTU_MAX),
            catch_up_bytes_per_second_max: unwritten(CATCH_UP_BYTES_PER_SECOND_MAX),
            threads: unwritten(THREADS),
        }
    }
}

/// The value of a key that the file leaves out.
fn unwritten(key: NumberKey) -> Spanned<u64> {
    Spanned::new(0..0, key.default)
}

/// Reads the text of a file whose relative paths start at `base`.
pub(super) fn parse(text: &str, base: &Path) -> Result<ClusterConfig, Located> {
    let file: File = toml::from_str(text).map_err(|error| refusal(&error))?;
    let cluster_id: ClusterId = file
        .cluster_id
        .get_ref()
        .parse()
        .map_err(|error| Located::new(&file.cluster_id.span(), Problem::ClusterId(error)))?;
    Ok(ClusterConfig {
        cluster_id,
        nodes: nodes(&file, base)?,
        ca: base.join(&file.tls.ca),
        timing: timing(&file.timing)?,
        storage: StorageSettings {
            segment_size_bytes_max: bounded(&file.storage.segment_size_bytes_max, SEGMENT_SIZE_BYTES_MAX)?,
            segment_age_ms_max: bounded(&file.storage.segment_age_ms_max, SEGMENT_AGE_MS_MAX)?,
            memory_sync: Duration::from_millis(bounded(&file.storage.memory_sync_ms, MEMORY_SYNC_MS)?),
            scrub_bytes_per_second_max: bounded(
                &file.storage.scrub_bytes_per_second_max,
                SCRUB_BYTES_PER_SECOND_MAX,
            )?,
            key_file: file.storage.key_file.as_ref().map(|path| base.join(path)),
        },
        transport: TransportSettings {
            path_mtu_max: u16::try_from(bounded(&file.transport.path_mtu_max, PATH_MTU_MAX)?)
                .expect("the bounds of this key fit 16 bits"),
            catch_up_bytes_per_second_max: bounded(
                &file.transport.catch_up_bytes_per_second_max,
                CATCH_UP_BYTES_PER_SECOND_MAX,
            )?,
            threads: usize::try_from(bounded(&file.transport.threads, THREADS)?)
                .expect("the bounds of this key fit any machine"),
        },
    })
}

fn bounded(value: &Spanned<u64>, key: NumberKey) -> Result<u64, Located> {
    let number = *value.get_ref();
    if (key.min..=key.max).contains(&number) {
        Ok(number)
    } else {
        Err(Located::new(&value.span(), Problem::OutOfBounds { key, value: number }))
    }
}

fn timing(table: &TimingTable) -> Result<TimingSettings, Located> {
    let pulse_ms = bounded(&table.pulse_interval_ms, PULSE_INTERVAL_MS)?;
    let suspicion_ms = bounded(&table.suspicion_timeout_ms, SUSPICION_TIMEOUT_MS)?;
    if suspicion_ms < pulse_ms * PULSES_PER_SUSPICION_MIN {
        let written = [&table.suspicion_timeout_ms, &table.pulse_interval_ms];
        let at = written.into_iter().map(Spanned::span).find(|span| span.end > 0).unwrap_or(0..0);
        return Err(Located::new(&at, Problem::SuspicionTooSoon { suspicion_ms, pulse_ms }));
    }
    let view_change_ms = bounded(&table.view_change_timeout_ms, VIEW_CHANGE_TIMEOUT_MS)?;
    let restore_ms = bounded(&table.restore_primaries_after_ms, RESTORE_PRIMARIES_AFTER_MS)?;
    Ok(TimingSettings {
        pulse_interval: Duration::from_millis(pulse_ms),
        suspicion_timeout: Duration::from_millis(suspicion_ms),
        view_change_timeout: Duration::from_millis(view_change_ms),
        restore_primaries_after: Duration::from_millis(restore_ms),
    })
}

fn nodes(file: &File, base: &Path) -> Result<Vec<NodeSettings>, Located> {
    let tables = file.node.get_ref();
    if !(1..=CLUSTER_NODES_MAX).contains(&tables.len()) {
        return Err(Located::new(&file.node.span(), Problem::NodeCount { count: tables.len() }));
    }
    let mut nodes: Vec<NodeSettings> = Vec::with_capacity(tables.len());
    for table in tables {
        let node = node(table, base, &base.join(&file.tls.cert_dir))?;
        for other in &nodes {
            check_apart(other, &node, table)?;
        }
        nodes.push(node);
    }
    nodes.sort_by_key(|node| node.id);
    Ok(nodes)
}

fn node(table: &NodeTable, base: &Path, cert_dir: &Path) -> Result<NodeSettings, Located> {
    let id = *table.id.get_ref();
    let id = u8::try_from(id)
        .ok()
        .filter(|id| (1..=NODES_MAX).contains(&usize::from(*id)))
        .ok_or_else(|| Located::new(&table.id.span(), Problem::NodeId { id }))?;
    let address = table.address.get_ref();
    if !is_address(address) {
        let problem = Problem::Address { address: address.clone() };
        return Err(Located::new(&table.address.span(), problem));
    }
    let tls_file = |written: &Option<String>, ending: &str| match written {
        Some(path) => base.join(path),
        None => cert_dir.join(format!("node-{id}.{ending}")),
    };
    Ok(NodeSettings {
        id: NodeId::new(id),
        address: address.clone(),
        data_dir: base.join(table.data_dir.get_ref()),
        cert: tls_file(&table.cert, "crt"),
        key: tls_file(&table.key, "key"),
    })
}

/// Whether this is `host:port`; whether the host exists is found out when it is used.
fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        let host_sound = host.starts_with('[') && host.ends_with(']') || !host.contains([':', '/', ' ']);
        !host.is_empty() && host_sound && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

fn check_apart(first: &NodeSettings, second: &NodeSettings, table: &NodeTable) -> Result<(), Located> {
    let shared = |key, value, span: Range<usize>| {
        Err(Located::new(&span, Problem::Shared { key, value, first: first.id, second: second.id }))
    };
    if first.id == second.id {
        return shared("id", second.id.as_raw().to_string(), table.id.span());
    }
    if first.address == second.address {
        return shared("address", second.address.clone(), table.address.span());
    }
    if first.data_dir == second.data_dir {
        return shared("data_dir", second.data_dir.display().to_string(), table.data_dir.span());
    }
    Ok(())
}

/// What the parser refuses, in our words where we have better ones.
fn refusal(error: &toml::de::Error) -> Located {
    let message = error.message();
    let problem = match message.strip_prefix("unknown field ") {
        Some(rest) => unknown_key(rest),
        None => {
            Problem::Syntax { message: message.replace("missing field", "missing key").replace('\n', "; ") }
        }
    };
    Located { at: error.span().map_or(0, |span| span.start), problem }
}

/// Reads what serde says of an unknown key: the key and the known ones, each between back quotes.
fn unknown_key(text: &str) -> Problem {
    let mut quoted = text.split('`').skip(1).step_by(2);
    let key = quoted.next().unwrap_or_default().to_owned();
    let same_start =
        |known: &str| key.chars().zip(known.chars()).take_while(|(one, other)| one == other).count();
    let nearest = quoted.min_by_key(|known| (edits(&key, known), Reverse(same_start(known))));
    let nearest =
        nearest.filter(|known| edits(&key, known) * 2 <= key.len().max(known.len())).map(str::to_owned);
    Problem::UnknownKey { key, nearest }
}

/// The Levenshtein distance of two words.
fn edits(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (above, left) in one.chars().enumerate() {
        let mut diagonal = above;
        row[0] = above + 1;
        for (column, right) in other.iter().enumerate() {
            let changed = diagonal + usize::from(left != *right);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

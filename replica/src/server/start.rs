//! How a node comes up: its data directory, its certificates, its socket, and then the loop.

use std::collections::BTreeMap;
use std::fs;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rand::TryRngCore;
use rand::rngs::OsRng;
use varve_protocol::id::{DirectoryId, Incarnation, NodeId, Timestamp};
use varve_protocol::version::Versions;
use varve_storage::{FileDisk, Identity, Keys, Options, Store, raise_open_files_max};
use varve_transport::{Resolve, SystemResolver, Transport, TransportConfig, Tuning, bind_udp};

use crate::config::{ClusterConfig, NodeSettings};
use crate::error::ServerError;
use crate::key_file;
use crate::node::{METADATA_BYTES_KEPT, Node, NodeConfig};
use crate::recovery::Recovery;
use crate::server::{Clock, Parts, disk, run};
use crate::timing::Timing;

/// The file with the key that lets peers notice a restart at once; see [`TransportConfig::reset_key`].
const RESET_KEY_FILE: &str = "reset.key";

/// Makes the data directory of a node ready for its first start.
///
/// # Errors
/// When the node is unknown, or the directory holds data already.
pub fn format_node(config: &ClusterConfig, node: NodeId) -> Result<(), ServerError> {
    let settings = settings_of(config, node)?;
    let disk = open_disk(&settings.data_dir)?;
    let directory = DirectoryId::new(u64::from_le_bytes(draw()?).max(1));
    Ok(Store::format(&disk, identity_of(config, node), directory)?)
}

/// Runs a node until `shutdown` completes.
///
/// # Errors
/// When the node cannot start, or its disk fails; the error says what to do.
pub async fn run_node(
    config: &ClusterConfig,
    node: NodeId,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServerError> {
    let settings = settings_of(config, node)?;
    let tuning = Tuning::for_path_mtu(config.transport.path_mtu_max);
    let address = resolve(settings).await?;
    let socket = bind_udp(address, &tuning)?;
    let identity = tls_identity(config, settings)?;

    if let Err(error) = raise_open_files_max() {
        tracing::warn!(%error, "the limit of open files cannot be raised; each group with records needs one");
    }
    let disk = open_disk(&settings.data_dir)?;
    let options = Options {
        segment_size_bytes_max: config.storage.segment_size_bytes_max,
        segment_age_ms_max: config.storage.segment_age_ms_max,
        keys: config.storage.key_file.as_deref().map_or(Ok(Keys::NONE), key_file::load)?,
        ..Options::DEFAULT
    };
    let (store, recovery) = Recovery::open(disk, identity_of(config, node), options)?;
    let versions = Versions::OF_THIS_RELEASE;
    recovery.check_release(versions).map_err(|reason| ServerError::Release { reason })?;
    let reset_key = reset_key(&settings.data_dir.join(RESET_KEY_FILE))?;

    let members: BTreeMap<NodeId, String> =
        config.nodes.iter().map(|other| (other.id, other.address.clone())).collect();
    let incarnation = Incarnation::new(u64::from_le_bytes(draw()?));
    let clock = Clock::new(Box::new(system_time));
    let transport_config = TransportConfig {
        cluster: config.cluster_id,
        node,
        incarnation,
        versions,
        identity,
        peers: members
            .iter()
            .filter(|(other, _)| **other != node)
            .map(|(id, at)| (*id, at.clone()))
            .collect(),
        tuning,
        seed: None,
        reset_key,
    };
    let node_config = NodeConfig {
        cluster: config.cluster_id,
        node,
        incarnation,
        versions,
        members,
        timing: timing_of(config),
        metadata_bytes_kept: METADATA_BYTES_KEPT,
        seed: draw()?,
    };
    let (disk, disk_thread) = disk::spawn(store).map_err(ServerError::DiskThread)?;
    let (transport, events) =
        Transport::start(transport_config, Arc::new(quinn::TokioRuntime), socket, Arc::new(SystemResolver))?;
    tracing::info!(%node, %address, "node started");
    let node = Node::new(node_config, clock.now(), clock.wall(), recovery);
    let ended = run(Parts { node, transport, events, disk, clock }, shutdown).await;
    // The loop has dropped its end of the queues, so the thread ends when it has done what it was given.
    if disk_thread.join().is_err() {
        return ended.and(Err(ServerError::DiskEnded));
    }
    ended
}

fn settings_of(config: &ClusterConfig, node: NodeId) -> Result<&NodeSettings, ServerError> {
    config.node(node).ok_or_else(|| ServerError::UnknownNode { node, known: config.node_list() })
}

fn identity_of(config: &ClusterConfig, node: NodeId) -> Identity {
    Identity { cluster: config.cluster_id, node }
}

fn timing_of(config: &ClusterConfig) -> Timing {
    let mut timing = Timing {
        pulse_interval: config.timing.pulse_interval,
        suspicion_timeout: config.timing.suspicion_timeout,
        restore_primaries_after: config.timing.restore_primaries_after,
        scrub_bytes_per_second: config.storage.scrub_bytes_per_second_max,
        catch_up_bytes_per_second: config.transport.catch_up_bytes_per_second_max,
        ..Timing::default()
    };
    timing.consensus.view_change = config.timing.view_change_timeout;
    timing.consensus.memory_sync = config.storage.memory_sync;
    timing
}

fn open_disk(data_dir: &Path) -> Result<FileDisk, ServerError> {
    Ok(FileDisk::open(data_dir.to_owned())?)
}

async fn resolve(settings: &NodeSettings) -> Result<SocketAddr, ServerError> {
    SystemResolver.resolve(&settings.address).await.map_err(|source| ServerError::Address {
        node: settings.id,
        address: settings.address.clone(),
        source,
    })
}

fn tls_identity(
    config: &ClusterConfig,
    settings: &NodeSettings,
) -> Result<varve_transport::Identity, ServerError> {
    let [ca, cert, key] = [&config.ca, &settings.cert, &settings.key].map(|path| read(path));
    Ok(varve_transport::Identity::from_pem(&ca?, &cert?, &key?)?)
}

fn read(path: &Path) -> Result<Vec<u8>, ServerError> {
    fs::read(path).map_err(|source| ServerError::File { act: "read", path: path.to_owned(), source })
}

/// The key of a node, made at its first start.
fn reset_key(path: &Path) -> Result<[u8; 64], ServerError> {
    match fs::read(path) {
        Ok(bytes) => bytes.try_into().map_err(|_| ServerError::File {
            act: "use",
            path: path.to_owned(),
            source: io::Error::new(
                io::ErrorKind::InvalidData,
                "it should have 64 bytes; delete it to get a new one",
            ),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key: [u8; 64] = draw()?;
            let failed = |source| ServerError::File { act: "write", path: path.to_owned(), source };
            fs::write(path, key).map(|()| key).map_err(failed)
        }
        Err(source) => Err(ServerError::File { act: "read", path: path.to_owned(), source }),
    }
}

fn draw<const N: usize>() -> Result<[u8; N], ServerError> {
    let mut bytes = [0; N];
    OsRng.try_fill_bytes(&mut bytes).map_err(|error| ServerError::Entropy(error.to_string()))?;
    Ok(bytes)
}

fn system_time() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::new(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

//! The data directory of `varve dev`, and how it comes to be.
//!
//! ```text
//!   cluster.toml      written last at the first start: where it is, everything below it is complete
//!   tls/              the authority and the nodes' certificates
//!   node-1/ ...       the nodes' data
//!   node-1.log ...    what the nodes log
//!   dev.json          while the cluster runs: how to connect
//!   dev.sock          while the cluster runs: where it takes orders
//!   dev.lock          held by the `varve dev` that runs here
//! ```

use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use varve_protocol::id::{ClusterId, NodeId};
use varve_replica::config::{ClusterConfig, NodeSettings};
use varve_replica::key_file;
use varve_replica::server::format_node;

use crate::command::cert;
use crate::entropy::draw;
use crate::failure::{Failure, Outcome};
use crate::running::Running;

/// Nodes unless told otherwise.
const NODES_DEFAULT: u8 = 3;

/// The port of the first node unless told otherwise.
const BASE_PORT_DEFAULT: u16 = 7101;

/// How long the nodes of a `varve dev` that was killed may take to let go of their ports.
const PORT_WAIT: Duration = Duration::from_secs(3);

/// What a cluster should be like; what is not said is as the directory has it, or else the default.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) nodes: Option<u8>,
    pub(crate) base_port: Option<u16>,
    pub(crate) key_file: Option<PathBuf>,
}

impl Wish {
    /// The same, with the whole path of a key file that is there and has keys.
    fn checked(self) -> Outcome<Self> {
        let Some(path) = &self.key_file else { return Ok(self) };
        let whole = path.canonicalize().with_context(|| {
            format!("there is no key file {0}; make one with `varve key {0}`", path.display())
        });
        let whole = whole.map_err(Failure::usage)?;
        key_file::load(&whole).map_err(Failure::usage)?;
        Ok(Self { key_file: Some(whole), ..self })
    }
}

/// A data directory that is ready, and ours while this lives.
#[derive(Debug)]
pub(crate) struct Layout {
    /// Absolute.
    dir: PathBuf,
    pub(crate) config: ClusterConfig,
    _lock: File,
}

impl Layout {
    /// Takes a data directory, and makes a new cluster in it if it has none.
    pub(crate) fn open(dir: &Path, wish: Wish) -> Outcome<Self> {
        let dir = fs::create_dir_all(dir)
            .and_then(|()| dir.canonicalize())
            .with_context(|| format!("cannot use the data directory {}", dir.display()))
            .map_err(Failure::usage)?;
        let lock = lock(&dir)?;
        let file = config_file(&dir);
        let wish = wish.checked()?;
        if file.exists() {
            adapt(&file, &wish)?;
        } else {
            make(&dir, &wish)?;
        }
        let config = ClusterConfig::load(&file)?;
        Ok(Self { dir, config, _lock: lock })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn config_file(&self) -> PathBuf {
        config_file(&self.dir)
    }

    pub(crate) fn log_file(&self, node: NodeId) -> PathBuf {
        self.dir.join(format!("node-{}.log", node.as_raw()))
    }

    /// How clients connect: the nodes that they had better ask last stand last.
    pub(crate) fn servers(&self, is_last: impl Fn(&NodeSettings) -> bool) -> String {
        let (last, first): (Vec<&NodeSettings>, Vec<&NodeSettings>) =
            self.config.nodes.iter().partition(|node| is_last(node));
        let addresses: Vec<&str> = first.iter().chain(&last).map(|node| node.address.as_str()).collect();
        format!("varve://{}/?ca={}", addresses.join(","), self.config.ca.display())
    }

    /// Makes sure that every node can have its port.
    pub(crate) fn check_ports(&self) -> Outcome {
        let deadline = Instant::now() + PORT_WAIT;
        for node in &self.config.nodes {
            while let Err(error) = UdpSocket::bind(&node.address) {
                if Instant::now() > deadline {
                    return Err(Failure::usage(anyhow!(
                        "node {} cannot have {} ({error}); choose other ports with --base-port",
                        node.id.as_raw(),
                        node.address
                    )));
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        Ok(())
    }
}

fn config_file(dir: &Path) -> PathBuf {
    dir.join("cluster.toml")
}

fn lock(dir: &Path) -> Outcome<File> {
    let lock = Running::lock(dir)
        .with_context(|| format!("cannot write to the data directory {}", dir.display()))
        .map_err(Failure::usage)?;
    lock.ok_or_else(|| {
        let running = Running::read(dir).ok().flatten();
        let whose = running.map_or_else(String::new, |running| format!(" (process {})", running.pid));
        Failure::usage(anyhow!(
            "another `varve dev`{whose} runs on {}; stop it, or choose another --data-dir and --base-port",
            dir.display()
        ))
    })
}

/// Makes a cluster where there is none.
fn make(dir: &Path, wish: &Wish) -> Outcome {
    let leftover = fs::read_dir(dir).into_iter().flatten().flatten().find(|entry| {
        let is_mine = entry.file_name().to_string_lossy().starts_with("dev.");
        !is_mine && wish.key_file.as_ref() != Some(&entry.path())
    });
    if let Some(leftover) = leftover {
        return Err(Failure::usage(anyhow!(
            "{} has no cluster.toml, but {}: choose another --data-dir, or empty this one",
            dir.display(),
            leftover.file_name().display()
        )));
    }
    let cluster_id = ClusterId::new(u128::from_le_bytes(draw()?));
    let count = wish.nodes.unwrap_or(NODES_DEFAULT);
    let base_port = wish.base_port.unwrap_or(BASE_PORT_DEFAULT);
    let text = config_text(cluster_id, (count, base_port), wish.key_file.as_deref())?;
    let file = config_file(dir);
    let config = ClusterConfig::parse(&text, &file)?;
    cert::make_missing(&config)?;
    for node in &config.nodes {
        format_node(&config, node.id)?;
    }
    write_config(&file, &text)
}

/// Moves a cluster to other ports, or has it use another key file, if that is wished. Its number of nodes stays.
fn adapt(file: &Path, wish: &Wish) -> Outcome {
    let config = ClusterConfig::load(file)?;
    let count = u8::try_from(config.nodes.len()).expect("a cluster has few nodes");
    if wish.nodes.is_some_and(|wished| wished != count) {
        return Err(Failure::usage(anyhow!(
            "the cluster in {} has {count} nodes and keeps them; leave out --nodes, or choose another --data-dir",
            file.parent().unwrap_or(file).display()
        )));
    }
    let port_of =
        |node: &NodeSettings| node.address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    let before = (config.nodes.first().and_then(port_of), config.storage.key_file);
    let after = (wish.base_port.or(before.0), wish.key_file.as_ref().or(before.1.as_ref()).cloned());
    match after {
        (Some(base_port), ref key_file) if after != before => {
            write_config(file, &config_text(config.cluster_id, (count, base_port), key_file.as_deref())?)
        }
        _ => Ok(()),
    }
}

fn write_config(file: &Path, text: &str) -> Outcome {
    let new = file.with_extension("toml.new");
    fs::write(&new, text)
        .and_then(|()| fs::rename(&new, file))
        .with_context(|| format!("cannot write {}", file.display()))
        .map_err(Failure::usage)
}

/// The configuration of a cluster on loopback, with paths that start at its data directory.
fn config_text(
    cluster_id: ClusterId,
    (count, base_port): (u8, u16),
    key_file: Option<&Path>,
) -> Outcome<String> {
    if base_port.checked_add(u16::from(count)).is_none() {
        return Err(Failure::usage(anyhow!(
            "{count} ports from {base_port} on do not exist; choose a lower --base-port"
        )));
    }
    let mut text = format!(
        "# Made by `varve dev`, which rewrites it when it is started with other ports or another key file.\n\
         # The keys that are not here have their defaults.\n\n\
         cluster_id = \"{cluster_id}\"\n\n\
         [tls]\nca = \"tls/ca.crt\"\ncert_dir = \"tls\"\n\n\
         [transport]\n# Loopback carries the largest payload that UDP knows.\npath_mtu_max = 65527\n"
    );
    if let Some(path) = key_file {
        let path = toml::Value::String(path.display().to_string());
        writeln!(text, "\n[storage]\nkey_file = {path}").expect("a string takes everything");
    }
    for (id, port) in (1..=count).zip(base_port..) {
        let node =
            format!("\n[[node]]\nid = {id}\naddress = \"127.0.0.1:{port}\"\ndata_dir = \"node-{id}\"\n");
        text.write_str(&node).expect("a string takes everything");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_it_writes_is_sound() {
        for count in [1, 3, 7] {
            let text = config_text(ClusterId::new(7), (count, 7_101), None).unwrap();
            let config = ClusterConfig::parse(&text, Path::new("/data/cluster.toml")).unwrap();
            assert_eq!(config.nodes.len(), usize::from(count));
            assert_eq!(config.nodes[0].address, "127.0.0.1:7101");
            assert_eq!(config.nodes[0].data_dir, Path::new("/data/node-1"));
            assert_eq!(config.nodes[0].key, Path::new("/data/tls/node-1.key"));
        }
    }

    #[test]
    fn a_cluster_keeps_its_key_file_until_another_one_is_wished() {
        let folder = tempfile::tempdir().unwrap();
        let keys = ["a \"key\"", "another"].map(|name| folder.path().canonicalize().unwrap().join(name));
        for key in &keys {
            fs::write(key, "5a".repeat(32)).unwrap();
        }
        let dir = folder.path().join("data");
        let open = |base_port, key_file: Option<&PathBuf>| {
            let wish = Wish { nodes: None, base_port, key_file: key_file.cloned() };
            Layout::open(&dir, wish).map(|layout| layout.config.storage.key_file.clone())
        };
        assert_eq!(open(None, Some(&keys[0])).unwrap(), Some(keys[0].clone()));
        assert_eq!(open(Some(7_201), None).unwrap(), Some(keys[0].clone()), "at other ports, too");
        assert_eq!(open(None, Some(&keys[1])).unwrap(), Some(keys[1].clone()));
        let text = fs::read_to_string(dir.join("cluster.toml")).unwrap();
        assert!(text.contains("127.0.0.1:7203"), "the ports stay: {text}");
        let missing = open(None, Some(&folder.path().join("missing"))).unwrap_err();
        assert!(missing.line().contains("make one with `varve key"), "{}", missing.line());
    }

    #[test]
    fn ports_that_do_not_exist_are_refused() {
        let failure = config_text(ClusterId::new(7), (3, 65_534), None).unwrap_err();
        assert!(failure.line().ends_with("choose a lower --base-port"), "{}", failure.line());
    }
}

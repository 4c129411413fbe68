//! The network between the nodes: a namespace for each on a bridge of this run, or just loopback.
//!
//! ```text
//!   namespace vj0-1          namespace vj0-2              the harness and its clients
//!   eth0 10.213.0.1          eth0 10.213.0.2              10.213.0.254
//!        └─────────────────────── bridge vj0 ─────────────────────┘
//! ```
//!
//! Every station knows the hardware address of every other one beforehand, for good. The way from A to B is cut by giving A a
//! wrong one for B: its packets go to nobody and nobody tells it so, while those from B to A arrive. That cuts each direction by
//! itself, needs nothing but `ip`, and works on any kernel.
//!
//! Delay, loss and the like are the kernel's `netem`, on what a node sends. Where the kernel has none, the bridge is replaced by
//! a switch in the harness itself, if a run wants them.

mod shape;
mod switch;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;

use anyhow::{Context as _, bail};

pub(crate) use self::shape::Shape;
use self::switch::{Switch, tap};
use crate::command_line::must;
use crate::leftovers::Slot;

/// Where nodes listen in their namespaces.
const PORT: u16 = 7101;

/// The harness on the bridge.
pub(crate) const HARNESS: u8 = 254;

/// Ports that the system gives to nobody by itself, so that a node finds its own again after it was down.
const LOOPBACK_PORTS: std::ops::Range<u16> = 20_000..32_000;

/// UDP payloads that fit the path.
const MTU_LOOPBACK: u32 = 65_527;
const MTU_BRIDGE: u32 = 1_452;

/// One direction between two stations.
pub(crate) type Way = (u8, u8);

/// The network of a run.
pub(crate) enum Network {
    Loopback { ports: Vec<u16> },
    Namespaces(Namespaces),
}

pub(crate) struct Namespaces {
    slot: u8,
    nodes: u8,
    cut: Mutex<BTreeSet<Way>>,
    /// None where the bridge connects the nodes.
    switch: Option<Switch>,
}

/// Whether a run wants to shape what nodes send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Links {
    Plain,
    Shaped,
}

/// Whether this process may make namespaces; or why not.
pub(crate) fn namespaces_are_possible() -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!(
            "network namespaces need root: run it as root, or with `--network loopback` and no faults of the network"
        );
    }
    let version = std::process::Command::new("ip").arg("-V").output();
    version.context("`ip` is missing: install iproute2, or use `--network loopback`")?;
    Ok(())
}

impl Network {
    /// Finds free ports on loopback.
    pub(crate) fn loopback(nodes: u8, slot: &Slot) -> anyhow::Result<Self> {
        let mut ports = Vec::new();
        let mut held = Vec::new();
        // Runs at the same time begin at different places.
        let start = LOOPBACK_PORTS.start + u16::from(slot.number) * 50;
        for port in (start..LOOPBACK_PORTS.end).chain(LOOPBACK_PORTS.start..start) {
            if ports.len() == usize::from(nodes) {
                break;
            }
            if let Ok(socket) = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)) {
                held.push(socket);
                ports.push(port);
            }
        }
        if ports.len() < usize::from(nodes) {
            bail!("there are no {nodes} free UDP ports on loopback");
        }
        Ok(Self::Loopback { ports })
    }

    /// Makes the bridge and a namespace for each node.
    pub(crate) async fn namespaces(nodes: u8, slot: &Slot, links: Links) -> anyhow::Result<Self> {
        namespaces_are_possible()?;
        let mut network = Namespaces { slot: slot.number, nodes, cut: Mutex::default(), switch: None };
        network.build(slot, links).await.context("cannot build the network")?;
        Ok(Self::Namespaces(network))
    }

    pub(crate) fn address(&self, node: u8) -> SocketAddrV4 {
        match self {
            Self::Loopback { ports } => SocketAddrV4::new(Ipv4Addr::LOCALHOST, ports[usize::from(node) - 1]),
            Self::Namespaces(namespaces) => SocketAddrV4::new(namespaces.ip(node), PORT),
        }
    }

    pub(crate) fn mtu(&self) -> u32 {
        match self {
            Self::Loopback { .. } => MTU_LOOPBACK,
            Self::Namespaces(_) => MTU_BRIDGE,
        }
    }

    /// The program and its first arguments that run another one on a node's network.
    pub(crate) fn command(&self, node: u8, varve: &Path) -> (std::path::PathBuf, Vec<std::ffi::OsString>) {
        match self {
            Self::Loopback { .. } => (varve.to_owned(), Vec::new()),
            Self::Namespaces(namespaces) => {
                let name = namespaces.name(node);
                let arguments = ["netns".into(), "exec".into(), name.into(), varve.as_os_str().to_owned()];
                ("ip".into(), arguments.into())
            }
        }
    }

    pub(crate) fn faulty(&self) -> Option<&Namespaces> {
        match self {
            Self::Loopback { .. } => None,
            Self::Namespaces(namespaces) => Some(namespaces),
        }
    }
}

impl Namespaces {
    fn bridge(&self) -> String {
        format!("vj{}", self.slot)
    }

    fn name(&self, node: u8) -> String {
        format!("vj{}-{node}", self.slot)
    }

    fn ip(&self, station: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 213, self.slot, station)
    }

    fn hardware(&self, station: u8) -> String {
        format!("02:76:6a:{:02x}:00:{station:02x}", self.slot)
    }

    /// An address that nobody has.
    fn nowhere(&self) -> String {
        format!("02:76:6a:{:02x}:ff:ff", self.slot)
    }

    async fn build(&mut self, slot: &Slot, links: Links) -> anyhow::Result<()> {
        let bridge = self.bridge();
        slot.bridge(&bridge)?;
        must(&format!("ip link add {bridge} type bridge")).await?;
        let mut taps = BTreeMap::new();
        if links == Links::Shaped
            && must(&format!("tc qdisc replace dev {bridge} root netem delay 1ms")).await.is_err()
        {
            must(&format!("ip link del {bridge}")).await?;
            taps.insert(HARNESS, tap(&bridge)?);
        }
        must(&format!("ip link set {bridge} address {}", self.hardware(HARNESS))).await?;
        must(&format!("ip addr add {}/24 dev {bridge}", self.ip(HARNESS))).await?;
        must(&format!("ip link set {bridge} up")).await?;
        for node in 1..=self.nodes {
            let (name, outside) = (self.name(node), format!("vj{}v{node}", self.slot));
            slot.namespace(&name)?;
            must(&format!("ip netns add {name}")).await?;
            if taps.is_empty() {
                must(&format!("ip link add {outside} type veth peer name eth0 netns {name}")).await?;
                must(&format!("ip link set {outside} master {bridge} up")).await?;
            } else {
                taps.insert(node, tap(&outside)?);
                must(&format!("ip link set {outside} netns {name} name eth0")).await?;
            }
            must(&format!("ip -n {name} link set eth0 address {}", self.hardware(node))).await?;
            must(&format!("ip -n {name} addr add {}/24 dev eth0", self.ip(node))).await?;
            must(&format!("ip -n {name} link set eth0 up")).await?;
            must(&format!("ip -n {name} link set lo up")).await?;
        }
        for way in self.ways() {
            self.point(way, &self.hardware(way.1)).await?;
        }
        if taps.is_empty() {
            // It was only to see whether the kernel can; there is nothing on a network without.
            let _ = must(&format!("tc qdisc del dev {bridge} root")).await;
        } else {
            self.switch = Some(Switch::new(taps));
        }
        Ok(())
    }

    fn stations(&self) -> impl Iterator<Item = u8> {
        (1..=self.nodes).chain([HARNESS])
    }

    fn ways(&self) -> impl Iterator<Item = Way> {
        self.stations()
            .flat_map(|from| self.stations().map(move |to| (from, to)))
            .filter(|(from, to)| from != to)
    }

    /// Tells one station which hardware address another has.
    async fn point(&self, (from, to): Way, hardware: &str) -> anyhow::Result<()> {
        let (ip, bridge) = (self.ip(to), self.bridge());
        let line = if from == HARNESS {
            format!("ip neigh replace {ip} lladdr {hardware} nud permanent dev {bridge}")
        } else {
            format!("ip -n {} neigh replace {ip} lladdr {hardware} nud permanent dev eth0", self.name(from))
        };
        must(&line).await
    }

    /// Cuts exactly these ways; all others are open.
    pub(crate) async fn cut(&self, wanted: &BTreeSet<Way>) -> anyhow::Result<()> {
        let before = self.cut.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for way in wanted.difference(&before) {
            self.point(*way, &self.nowhere()).await?;
        }
        for way in before.difference(wanted) {
            self.point(*way, &self.hardware(way.1)).await?;
        }
        self.cut.lock().unwrap_or_else(PoisonError::into_inner).clone_from(wanted);
        Ok(())
    }

    /// Shapes what a node sends.
    pub(crate) async fn shape(&self, node: u8, shape: Shape) -> anyhow::Result<()> {
        match &self.switch {
            Some(switch) => {
                switch.shape(node, shape);
                Ok(())
            }
            None => {
                must(&format!("tc -n {} qdisc replace dev eth0 root netem {shape}", self.name(node))).await
            }
        }
    }

    pub(crate) async fn unshape(&self, node: u8) -> anyhow::Result<()> {
        match &self.switch {
            Some(_) => self.shape(node, Shape::default()).await,
            None => must(&format!("tc -n {} qdisc del dev eth0 root", self.name(node))).await,
        }
    }

    /// What shapes the links, if anything does.
    pub(crate) fn shaper(&self) -> &'static str {
        if self.switch.is_some() { "the harness, for this kernel has no netem" } else { "netem" }
    }
}

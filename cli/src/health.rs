//! How a cluster is, put together from what each of its nodes says.
//!
//! A group is *available* when a node says that it leads the newest view anybody has heard of, and a majority of the group's
//! replicas works in that view. Whoever answers is believed about himself only.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use varve_protocol::client::{GroupStatus, NodeStatus, NodeVitals, Role, ScrubStatus};
use varve_protocol::id::{GroupId, NodeId, Op};
use varve_protocol::metadata::{ClusterMap, Move, NodeEntry, PartitionEntry};

/// How all of it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Health {
    /// Every node is up and every replica works.
    Healthy,
    /// Everything can be written and read, but not everything is up.
    Degraded,
    /// Some group has no primary with a majority behind it.
    Unavailable,
}

/// How a cluster is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) health: Health,
    /// The version of the cluster.
    pub(crate) version: u8,
    pub(crate) nodes: Vec<NodeHealth>,
    pub(crate) groups: Vec<GroupHealth>,
    /// The op of the cluster map that it was made with.
    #[serde(skip)]
    pub(crate) map_op: Op,
}

/// How one node is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct NodeHealth {
    pub(crate) id: u8,
    pub(crate) address: String,
    /// Its process, where a `varve dev` on this machine runs it.
    pub(crate) pid: Option<u32>,
    /// Why it does not answer, if so; all the numbers are zero then.
    pub(crate) unreachable: Option<String>,
    pub(crate) uptime_ms: u64,
    /// The nodes it hears.
    pub(crate) hears: Vec<u8>,
    pub(crate) primary_of: u32,
    pub(crate) backup_of: u32,
    /// Replicas that change views or find their way back.
    pub(crate) changing: u32,
    pub(crate) faulty: u32,
    pub(crate) frames_dropped: u64,
    pub(crate) scrub: ScrubHealth,
}

/// What has come of a node's looking at its logs again, since its process started.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize)]
pub(crate) struct ScrubHealth {
    /// Passes over all of its logs.
    pub(crate) passes: u64,
    /// When the last one ended, in milliseconds since 1970; none if none has.
    pub(crate) last_pass_ended_ms: Option<u64>,
    pub(crate) bytes: u64,
    pub(crate) damages_found: u64,
    pub(crate) damages_mended: u64,
}

impl ScrubHealth {
    fn new(status: &ScrubStatus) -> Self {
        let ended = status.last_pass_ended.as_raw();
        Self {
            passes: status.passes,
            last_pass_ended_ms: (ended > 0).then_some(ended / 1_000),
            bytes: status.bytes,
            damages_found: status.damages_found,
            damages_mended: status.damages_mended,
        }
    }
}

/// How one group is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct GroupHealth {
    pub(crate) group: u64,
    /// `metadata`, or `STREAM/TOPIC/PARTITION`.
    pub(crate) name: String,
    pub(crate) available: bool,
    /// Who leads it, as it says itself.
    pub(crate) primary: Option<u8>,
    /// Its process, where a `varve dev` on this machine runs it.
    pub(crate) primary_pid: Option<u32>,
    pub(crate) view: u64,
    pub(crate) replicas: Vec<u8>,
    /// The replicas that work in that view.
    pub(crate) working: Vec<u8>,
    /// The replica that is being moved, comes or leaves, if one does.
    pub(crate) moving: Option<Moving>,
    /// What a replica says that keeps it from working: the node and its words.
    pub(crate) problems: Vec<(u8, String)>,
}

/// A replica on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Moving {
    /// Who holds it; nobody does of one that comes.
    pub(crate) from: Option<u8>,
    /// Who shall hold it; nobody shall of one that leaves.
    pub(crate) to: Option<u8>,
}

impl Moving {
    fn new(moving: &Move) -> Self {
        let somebody = |node: NodeId| (node != NodeId::ZERO).then_some(node.as_raw());
        Self { from: somebody(moving.from), to: somebody(moving.to) }
    }
}

impl fmt::Display for Moving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.from, self.to) {
            (Some(from), Some(to)) => write!(f, "a replica moves from node {from} to node {to}"),
            (None, Some(to)) => write!(f, "a replica comes to node {to}"),
            (Some(from), None) => write!(f, "the replica on node {from} leaves"),
            (None, None) => f.write_str("a replica moves"),
        }
    }
}

/// What one node answered, or why it did not.
pub(crate) type Answer = (NodeEntry, Result<NodeStatus, String>);

impl Summary {
    /// Puts together what the nodes of a cluster with this map answered.
    pub(crate) fn new(map: &ClusterMap, answers: &[Answer]) -> Self {
        let vitals = |answer: &Result<NodeStatus, String>| {
            answer.as_ref().map(NodeStatus::vitals).map_err(Clone::clone)
        };
        let nodes: Vec<NodeHealth> =
            answers.iter().map(|(entry, answer)| NodeHealth::new(entry, &vitals(answer))).collect();
        let mut said: BTreeMap<GroupId, Vec<(NodeId, &GroupStatus)>> = BTreeMap::new();
        for status in answers.iter().filter_map(|(_, answer)| answer.as_ref().ok()) {
            for group in &status.groups {
                said.entry(group.group).or_default().push((status.node, group));
            }
        }
        let everybody: Vec<NodeId> = answers.iter().map(|(entry, _)| entry.node).collect();
        let mut groups = vec![GroupHealth::new(GroupId::METADATA, "metadata".to_owned(), &everybody, &said)];
        for (name, partition) in partitions(map) {
            let health = GroupHealth::new(partition.group, name, &partition.replicas(), &said);
            let moving = partition.moving.as_ref().map(Moving::new);
            groups.push(GroupHealth { moving, ..health });
        }
        let all_well = nodes.iter().all(NodeHealth::is_well);
        let health = match groups.iter().all(|group| group.available) {
            false => Health::Unavailable,
            true if all_well => Health::Healthy,
            true => Health::Degraded,
        };
        Self { health, version: map.version.as_raw(), nodes, groups, map_op: map.op }
    }

    /// Adds which processes the nodes are.
    pub(crate) fn add_pids(&mut self, pid_of: impl Fn(u8) -> Option<u32>) {
        for node in &mut self.nodes {
            node.pid = pid_of(node.id);
        }
        for group in &mut self.groups {
            group.primary_pid = group.primary.and_then(&pid_of);
        }
    }

    /// The groups that cannot take writes.
    pub(crate) fn unavailable(&self) -> impl Iterator<Item = &GroupHealth> {
        self.groups.iter().filter(|group| !group.available)
    }
}

/// Every partition of a map, and its full name.
fn partitions(map: &ClusterMap) -> impl Iterator<Item = (String, &PartitionEntry)> {
    map.streams.iter().flat_map(|stream| {
        stream.topics.iter().flat_map(move |topic| {
            topic.partitions.iter().enumerate().map(move |(number, partition)| {
                let name = format!("{}/{}/{number}", stream.name, topic.name);
                (name, partition)
            })
        })
    })
}

impl NodeHealth {
    pub(crate) fn new(entry: &NodeEntry, answer: &Result<NodeVitals, String>) -> Self {
        let counts = answer.as_ref().map(|vitals| vitals.counts).unwrap_or_default();
        Self {
            id: entry.node.as_raw(),
            address: entry.address.clone(),
            pid: None,
            unreachable: answer.as_ref().err().cloned(),
            uptime_ms: answer.as_ref().map_or(0, |vitals| vitals.uptime_ms),
            hears: answer.as_ref().map_or_else(|_| Vec::new(), |vitals| raw(&vitals.hears)),
            primary_of: counts.primary,
            backup_of: counts.backup,
            changing: counts.changing,
            faulty: counts.faulty,
            frames_dropped: answer.as_ref().map_or(0, |vitals| vitals.frames_dropped),
            scrub: answer.as_ref().map(|vitals| ScrubHealth::new(&vitals.scrub)).unwrap_or_default(),
        }
    }

    /// Whether it is as it was, but older, and has looked at more of its logs.
    pub(crate) fn is_as(&self, before: &Self) -> bool {
        let ScrubHealth { damages_found, damages_mended, .. } = before.scrub;
        let scrub = ScrubHealth { damages_found, damages_mended, ..self.scrub };
        *self == Self { uptime_ms: self.uptime_ms, scrub, ..before.clone() }
    }

    /// Whether it answers, and all its replicas work.
    pub(crate) fn is_well(&self) -> bool {
        self.unreachable.is_none() && self.changing == 0 && self.faulty == 0
    }
}

impl GroupHealth {
    fn new(
        group: GroupId,
        name: String,
        replicas: &[NodeId],
        said: &BTreeMap<GroupId, Vec<(NodeId, &GroupStatus)>>,
    ) -> Self {
        let said = said.get(&group).map_or(&[][..], Vec::as_slice);
        let said = || said.iter().filter(|(node, _)| replicas.contains(node));
        let view = said().map(|(_, status)| status.view).max().unwrap_or_default();
        let in_view = |role| said().filter(move |(_, status)| status.view == view && status.role == role);
        let primary = in_view(Role::Primary).map(|(node, _)| *node).next();
        let working: Vec<NodeId> =
            in_view(Role::Primary).chain(in_view(Role::Backup)).map(|(node, _)| *node).collect();
        let problem =
            |(node, status): &(NodeId, &GroupStatus)| Some((node.as_raw(), status.problem.clone()?));
        Self {
            group: group.as_raw(),
            name,
            available: primary.is_some() && working.len() > replicas.len() / 2,
            primary: primary.map(NodeId::as_raw),
            primary_pid: None,
            view: view.as_raw(),
            replicas: raw(replicas),
            working: raw(&working),
            moving: None,
            problems: said().filter_map(problem).collect(),
        }
    }

    /// Whether all of its replicas work.
    pub(crate) fn is_well(&self) -> bool {
        self.available && self.working.len() == self.replicas.len()
    }
}

fn raw(nodes: &[NodeId]) -> Vec<u8> {
    nodes.iter().map(|node| node.as_raw()).collect()
}

#[cfg(test)]
mod tests {
    use varve_protocol::compression::Compression;
    use varve_protocol::durability::Durability;
    use varve_protocol::id::{Offset, Timestamp, View};
    use varve_protocol::metadata::{StreamEntry, TopicEntry};

    use super::*;

    fn map() -> ClusterMap {
        let replicas = [2, 3, 1].map(NodeId::new).to_vec();
        let partitions = vec![PartitionEntry {
            directories: Vec::new(),
            arrived: Vec::new(),
            moving: None,
            group: GroupId::new(1),
            places: replicas,
            founders: 3,
            durability: Durability::QuorumDisk,
        }];
        let retention = Default::default();
        let topic = TopicEntry {
            name: "orders".to_owned(),
            replication_factor: 3,
            partitions,
            retention,
            compression: Compression::None,
        };
        ClusterMap {
            op: Op::new(1),
            version: Default::default(),
            nodes: Vec::new(),
            streams: vec![StreamEntry { name: "shop".to_owned(), topics: vec![topic] }],
            primaries: Vec::new(),
        }
    }

    /// A node and, for the metadata and then for `shop/orders/0`, role and view.
    fn answer(node: u8, roles: Option<[(Role, u64); 2]>) -> Answer {
        let entry = NodeEntry { node: NodeId::new(node), address: format!("h{node}:1"), versions: None };
        let group = |(group, (role, view)): (u64, (Role, u64))| GroupStatus {
            group: GroupId::new(group),
            role,
            view: View::new(view),
            primary: NodeId::ZERO,
            head: 0,
            durable: 0,
            commit: 0,
            high_watermark: Offset::ZERO,
            problem: (role == Role::Faulty).then(|| "a bad page".to_owned()),
        };
        let status = roles.map(|roles| NodeStatus {
            node: NodeId::new(node),
            uptime_ms: 9,
            hears: Vec::new(),
            groups: (0..).zip(roles).map(group).collect(),
            frames_dropped: 0,
            scrub: ScrubStatus::default(),
        });
        (entry, status.ok_or_else(|| "timed out".to_owned()))
    }

    use Role::{Backup, Faulty, Primary, ViewChange};

    #[test]
    fn all_up_is_healthy() {
        let answers = [
            answer(1, Some([(Primary, 0), (Backup, 4)])),
            answer(2, Some([(Backup, 0), (Primary, 4)])),
            answer(3, Some([(Backup, 0), (Backup, 4)])),
        ];
        let summary = Summary::new(&map(), &answers);
        assert_eq!(summary.health, Health::Healthy);
        assert_eq!(summary.groups[1].name, "shop/orders/0");
        assert_eq!((summary.groups[1].primary, summary.groups[1].view), (Some(2), 4));
        assert_eq!((summary.nodes[0].primary_of, summary.nodes[0].backup_of), (1, 1));
    }

    #[test]
    fn what_was_looked_at_is_no_news_and_what_was_found_is() {
        let (entry, status) = answer(1, Some([(Primary, 0), (Backup, 4)]));
        let status = status.expect("it answers");
        let health = |bytes, damages_found| {
            let last_pass_ended = Timestamp::new(bytes * 1_000);
            let scrub =
                ScrubStatus { passes: bytes, last_pass_ended, bytes, damages_found, damages_mended: 0 };
            NodeHealth::new(&entry, &Ok(NodeStatus { scrub, ..status.clone() }.vitals()))
        };
        assert!(health(7, 1).is_as(&health(3, 1)));
        assert!(!health(7, 1).is_as(&health(7, 0)));
        assert_eq!(health(0, 0).scrub.last_pass_ended_ms, None);
        assert_eq!(health(7, 0).scrub.last_pass_ended_ms, Some(7));
    }

    #[test]
    fn a_minority_down_is_degraded() {
        let answers = [
            answer(1, None),
            answer(2, Some([(Primary, 1), (Primary, 4)])),
            answer(3, Some([(Backup, 1), (Backup, 4)])),
        ];
        let summary = Summary::new(&map(), &answers);
        assert_eq!(summary.health, Health::Degraded);
        assert_eq!(summary.nodes[0].unreachable.as_deref(), Some("timed out"));
    }

    #[test]
    fn a_primary_without_majority_does_not_count() {
        let answers = [
            answer(1, None),
            answer(2, Some([(Primary, 1), (Primary, 4)])),
            answer(3, Some([(Backup, 1), (Faulty, 4)])),
        ];
        let summary = Summary::new(&map(), &answers);
        assert_eq!(summary.health, Health::Unavailable);
        assert_eq!(summary.unavailable().map(|group| group.group).collect::<Vec<_>>(), [1]);
        assert_eq!(summary.groups[1].problems, [(3, "a bad page".to_owned())]);
    }

    #[test]
    fn a_deposed_primary_does_not_count() {
        let answers = [
            answer(1, Some([(Primary, 0), (Backup, 4)])),
            answer(2, Some([(ViewChange, 1), (Primary, 4)])),
            answer(3, Some([(ViewChange, 1), (Backup, 4)])),
        ];
        let summary = Summary::new(&map(), &answers);
        assert!(!summary.groups[0].available, "the newest view has no primary yet");
        assert_eq!(summary.groups[0].view, 1);
        assert_eq!(summary.health, Health::Unavailable);
    }
}

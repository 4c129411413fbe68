//! What `varve cluster status --output json` tells, as far as it matters here.

use std::fmt::Write as _;

use serde::Deserialize;

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Status {
    pub(crate) nodes: Vec<NodeStatus>,
    pub(crate) groups: Vec<GroupStatus>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct NodeStatus {
    pub(crate) id: u8,
    unreachable: Option<String>,
    changing: u32,
    faulty: u32,
    scrub: Scrub,
}

/// How sound its logs are, as far as its process has looked.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Scrub {
    passes: u64,
    damages_found: u64,
    damages_mended: u64,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct GroupStatus {
    pub(crate) group: u64,
    pub(crate) name: String,
    available: bool,
    pub(crate) primary: Option<u8>,
    pub(crate) view: u64,
    pub(crate) replicas: Vec<u8>,
    pub(crate) working: Vec<u8>,
    moving: Option<serde_json::Value>,
    problems: Vec<(u8, String)>,
}

impl Status {
    /// Whether everything is up and works, and nothing is on its way.
    pub(crate) fn is_well(&self) -> bool {
        self.nodes.iter().all(NodeStatus::is_well) && self.groups.iter().all(GroupStatus::is_well)
    }

    /// Whether a node is up, and each of its replicas works.
    pub(crate) fn is_node_well(&self, id: u8) -> bool {
        let mut own = self.groups.iter().filter(|group| group.replicas.contains(&id));
        self.nodes.iter().any(|node| node.id == id && node.is_well())
            && own.all(|group| group.working.contains(&id))
    }

    /// Whether each node has looked through its logs since it was started, and has given back what had rotted.
    pub(crate) fn is_looked_through(&self) -> bool {
        let is_sound = |scrub: Scrub| scrub.passes > 0 && scrub.damages_found == scrub.damages_mended;
        self.nodes.iter().all(|node| is_sound(node.scrub))
    }

    /// What is not well, in words.
    pub(crate) fn complaints(&self) -> String {
        let mut text = String::new();
        for node in self.nodes.iter().filter(|node| !node.is_well()) {
            let NodeStatus { id, unreachable, changing, faulty, .. } = node;
            let _ = match unreachable {
                Some(why) => write!(text, "node {id} cannot be reached: {why}; "),
                None => write!(text, "node {id} has {changing} replicas changing and {faulty} faulty; "),
            };
        }
        for group in self.groups.iter().filter(|group| !group.is_well()) {
            let GroupStatus { name, view, working, replicas, problems, .. } = group;
            let _ = write!(text, "{name} in view {view}: {working:?} of {replicas:?} work");
            for (node, problem) in problems {
                let _ = write!(text, ", node {node} says {problem}");
            }
            text.push_str(if group.moving.is_some() { ", a replica is on its way; " } else { "; " });
        }
        text
    }
}

impl NodeStatus {
    fn is_well(&self) -> bool {
        self.unreachable.is_none() && self.changing == 0 && self.faulty == 0
    }
}

impl GroupStatus {
    fn is_well(&self) -> bool {
        self.available && self.working.len() == self.replicas.len() && self.moving.is_none()
    }
}

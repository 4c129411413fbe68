//! What the nodes of a universe showed over time, for those who want to see it drawn.
//!
//! It is looked at as often as the watch looks, every 5 ms of simulated time, and only what has changed is kept. To look changes
//! nothing: a universe with a chronicle has the same trace as one without.

use std::collections::BTreeMap;
use std::time::Duration;

use varve_protocol::client::{NodeStatus, Role};
use varve_protocol::id::{GroupId, NodeId, View};

/// The commits of a replica are kept no more often than this.
const COMMIT_EVERY: Duration = Duration::from_millis(50);

/// What a computer does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Process {
    /// Its process runs.
    Running,
    /// It is frozen.
    Frozen,
    /// There is none.
    Down,
}

/// What changed, and when: the newest last. Times are since the start.
pub type Changes<T> = Vec<(Duration, T)>;

/// What a replica was; `None` while there was none to be seen.
pub type Shown = Option<(Role, View)>;

/// What the nodes showed.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Chronicle {
    /// What each computer did.
    pub processes: BTreeMap<NodeId, Changes<Process>>,
    /// What each replica of the metadata and of the topic was.
    pub replicas: BTreeMap<(NodeId, GroupId), Changes<Shown>>,
    /// What each replica knew to be committed.
    pub commits: BTreeMap<(NodeId, GroupId), Changes<u64>>,
    /// What was said about the universe.
    pub notes: Changes<String>,
}

impl Chronicle {
    /// The nodes are like this now; `groups` are those that are looked at.
    pub(crate) fn look(
        &mut self,
        now: Duration,
        groups: &[GroupId],
        nodes: impl Iterator<Item = (NodeId, Process)>,
        statuses: &BTreeMap<NodeId, NodeStatus>,
    ) {
        for (node, process) in nodes {
            change(self.processes.entry(node).or_default(), now, process);
            for group in groups {
                let replicas = statuses.get(&node).map(|status| status.groups.iter());
                let replica = replicas.and_then(|mut replicas| replicas.find(|other| other.group == *group));
                let lane = self.replicas.entry((node, *group)).or_default();
                change(lane, now, replica.map(|replica| (replica.role, replica.view)));
                let Some(replica) = replica else { continue };
                let commits = self.commits.entry((node, *group)).or_default();
                if commits.last().is_none_or(|(at, _)| now >= *at + COMMIT_EVERY) {
                    change(commits, now, replica.commit);
                }
            }
        }
    }
}

fn change<T: PartialEq>(changes: &mut Changes<T>, now: Duration, to: T) {
    if changes.last().is_none_or(|(_, last)| *last != to) {
        changes.push((now, to));
    }
}

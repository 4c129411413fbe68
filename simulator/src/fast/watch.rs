//! Looks at the nodes from outside, again and again: what no replica may ever show, whatever the clients see.
//!
//! * One view of a group has one primary, and only one life of it: a node that restarts never resumes a view that it led.
//! * Within one life a replica's view and commit do not go back.
//! * What is durable is written.

use std::collections::BTreeMap;

use varve_protocol::client::{GroupStatus, NodeStatus, Role};
use varve_protocol::id::{GroupId, NodeId, View};

use crate::oracle::Violation;

/// What was seen so far.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    primaries: BTreeMap<(GroupId, View), (NodeId, u64)>,
    seen: BTreeMap<(NodeId, GroupId), (u64, View, u64)>,
    newest_view: BTreeMap<GroupId, View>,
}

impl Watch {
    /// Looks at a node in one of its lives; gives the groups that are in a view not seen there before.
    pub(crate) fn look(
        &mut self,
        node: NodeId,
        life: u64,
        status: &NodeStatus,
    ) -> Result<Vec<(GroupId, View)>, Violation> {
        let mut news = Vec::new();
        for replica in &status.groups {
            self.look_at_replica((node, life), replica)?;
            let key = (node, replica.group);
            let seen = self.seen.insert(key, (life, replica.view, replica.commit));
            if seen.map(|(_, view, _)| view) != Some(replica.view) {
                news.push((replica.group, replica.view));
            }
            let newest = self.newest_view.entry(replica.group).or_default();
            *newest = replica.view.max(*newest);
        }
        Ok(news)
    }

    fn look_at_replica(&self, (node, life): (NodeId, u64), replica: &GroupStatus) -> Result<(), Violation> {
        let GroupStatus { group, view, head, durable, commit, .. } = replica;
        if durable > head {
            let detail = format!("{node}: {group} is durable up to op{durable} and ends at op{head}");
            return Err(Violation::new("durable beyond the log", detail));
        }
        if let Some((before_life, before_view, before_commit)) = self.seen.get(&(node, *group))
            && *before_life == life
        {
            if view < before_view {
                let detail = format!("{node}: {group} went from {before_view} to {view}");
                return Err(Violation::new("view went back", detail));
            }
            if commit < before_commit {
                let detail = format!("{node}: {group} went from op{before_commit} to op{commit}");
                return Err(Violation::new("commit went back", detail));
            }
        }
        Ok(())
    }

    /// Notes who leads which view.
    pub(crate) fn look_at_primaries(
        &mut self,
        node: NodeId,
        life: u64,
        status: &NodeStatus,
    ) -> Result<(), Violation> {
        for replica in status.groups.iter().filter(|replica| replica.role == Role::Primary) {
            let key = (replica.group, replica.view);
            let (other, other_life) = *self.primaries.entry(key).or_insert((node, life));
            let (group, view) = key;
            if other != node {
                let detail = format!("{group} in {view}: {other} and {node}");
                return Err(Violation::new("two primaries in one view", detail));
            }
            if other_life != life {
                let detail = format!("{group} in {view}: {node} leads it again after a restart");
                return Err(Violation::new("a restarted primary resumed its view", detail));
            }
        }
        Ok(())
    }

    /// Views entered beyond the first, over all groups.
    pub(crate) fn view_changes(&self) -> u64 {
        self.newest_view.values().map(|view| view.as_raw()).sum()
    }
}

//! Who was left behind comes back to a cluster that works, and must not disturb it (rule V1).
//!
//! Before the audit the cluster has some peace without them, until even the frames that wait for them are given up. Then they
//! are let in, and what was settled stays settled: a group with a primary, whose view a majority works in, keeps both. But
//! for the groups whose preferred primary is another: they may be handed over to it, now that somebody has returned. And
//! where somebody has primaries moved, nothing counts as settled: such a wish may arrive late. And one who left in a later view
//! than the others work in cannot go back to theirs: they have to follow.

use std::collections::BTreeMap;
use std::time::Duration;

use varve_protocol::client::Role;
use varve_protocol::id::{GroupId, NodeId, View};

use super::{Event, Universe};
use crate::fast::machine::Machine;
use crate::fast::watch::Watch;
use crate::oracle::Violation;
use crate::scenario::timing;

/// How long the cluster works in peace, beyond the idle time-out of connections, before the others come back.
pub(super) const PEACE: Duration = Duration::from_secs(1);

/// How long those who are back are watched.
const WATCHED: Duration = Duration::from_secs(2);

/// The groups that were settled when the others came back: primary and view.
#[derive(Debug)]
pub(super) struct Settled(BTreeMap<GroupId, (NodeId, View)>);

impl Settled {
    /// The groups that are settled without the nodes that were left behind.
    fn note<M: Machine>(universe: &Universe<M>) -> Self {
        let left_behind: Vec<NodeId> = universe.scenario.left_behind.iter().map(|left| left.node).collect();
        if universe.scenario.load.balances {
            return Self(BTreeMap::new());
        }
        let stays = timing(universe.scenario.seed).restore_primaries_after.is_zero();
        let statuses = universe.statuses();
        let settled = universe.watched_groups().into_iter().filter_map(|(group, members)| {
            let present: Vec<NodeId> =
                members.iter().copied().filter(|member| !left_behind.contains(member)).collect();
            let is_in_touch = |node: &NodeId| {
                statuses
                    .get(node)
                    .is_some_and(|status| present.iter().all(|other| status.hears.contains(other)))
            };
            if 2 * present.len() <= members.len() || !present.iter().all(is_in_touch) {
                return None;
            }
            let view = universe.watch.newest_view(group);
            let role = |node: &NodeId| {
                let replica = statuses[node].groups.iter().find(|replica| replica.group == group);
                replica.filter(|replica| replica.view == view).map(|replica| replica.role)
            };
            let works = |node: &NodeId| matches!(role(node), Some(Role::Primary | Role::Backup));
            let primary = present.iter().find(|node| role(node) == Some(Role::Primary))?;
            let is_settled = present.iter().all(works) && (stays || members.first() == Some(primary));
            is_settled.then_some((group, (*primary, view)))
        });
        Self(settled.collect())
    }

    /// Whether they still are.
    ///
    /// # Errors
    /// When one has gone on to another view.
    fn verify(&self, watch: &Watch, returned: &[NodeId]) -> Result<(), Violation> {
        for (group, (primary, view)) in &self.0 {
            let newest = watch.newest_view(*group);
            let is_ahead = |node: &NodeId| watch.first_view(*node, *group) > *view;
            if newest != *view && !returned.iter().any(is_ahead) {
                let detail =
                    format!("{primary} led {group} in {view}; when others came back, it went to {newest}");
                return Err(Violation::new("a healthy primary was unseated", detail));
            }
        }
        Ok(())
    }
}

impl<M: Machine> Universe<M> {
    /// Those who were left behind come back.
    pub(super) fn on_homecoming(&mut self) {
        let settled = Settled::note(self);
        self.note(format!("those who were left behind come back: {settled:?}"));
        self.settled = Some(settled);
        self.bring_back();
        self.heap.push_after(WATCHED, Event::SettledIn);
    }

    /// They have been back for long enough.
    pub(super) fn on_settled_in(&mut self) -> Result<(), Violation> {
        self.awaits_homecoming = false;
        let returned: Vec<NodeId> = self.scenario.left_behind.iter().map(|left| left.node).collect();
        self.settled.as_ref().map_or(Ok(()), |settled| settled.verify(&self.watch, &returned))?;
        self.advance()
    }
}

//! What ends the phases of a universe: the end of all faults, the audit, and deadlines; and the watch over all of them.

use std::collections::BTreeMap;

use varve_protocol::client::NodeStatus;
use varve_protocol::durability::Durability;
use varve_protocol::id::{GroupId, NodeId};

use super::homecoming::PEACE;
use super::{Client, Event, Universe, WATCH_EVERY};
use crate::actor::reader::Auditor;
use crate::actor::{Happening, Placement};
use crate::fast::host::Host;
use crate::fast::machine::Machine;
use crate::fast::watch::Watch;
use crate::fast::wire::Presence;
use crate::oracle::Violation;
use crate::scenario::Phase;
use crate::trace::{Endpoint, Event as Trail};

impl<M: Machine> Universe<M> {
    pub(super) fn on_heal(&mut self) -> Result<(), Violation> {
        self.note("all faults end".to_owned());
        self.heal();
        self.leave_behind();
        self.phase = Phase::Liveness;
        self.statistics.acked_under_faults = self.oracle.tally().acked;
        self.heap.push_after(self.scenario.recovery_max(), Event::Deadline(Phase::Liveness));
        self.tell_all(&Happening::Healed)
    }

    pub(in crate::fast) fn begin_audit(&mut self) -> Result<(), Violation> {
        self.phase = Phase::Audit;
        let peace = PEACE + self.scenario.link.idle_timeout;
        if self.awaits_homecoming {
            self.heap.push_after(peace, Event::Homecoming);
        }
        self.note("everything is read".to_owned());
        self.heap.push_after(peace + self.scenario.recovery_max(), Event::Deadline(Phase::Audit));
        let nodes: Vec<NodeId> = self.scenario.node_ids().collect();
        if let Some(moved) = self.clients.iter().find_map(|client| client.actor.moved()) {
            self.placement.clone_from(moved);
        }
        let streams = self.clients.iter().find_map(|client| client.actor.streams());
        let wanted = (self.placement.clone(), streams.cloned().unwrap_or_default());
        let auditor = Auditor::new(self.cluster, &nodes, wanted);
        let client = u32::try_from(self.clients.len()).expect("there are few clients");
        self.clients.push(Client { actor: Box::new(auditor), armed: None });
        self.auditor = Some(client);
        self.wire.set_presence(Endpoint::Client(client), Presence::Running, &mut self.heap);
        self.arm_client(client, self.heap.now());
        Ok(())
    }

    pub(in crate::fast) fn finish_audit(&mut self) -> Result<(), Violation> {
        let Some(auditor) = self.auditor else { return Ok(()) };
        for group in self.groups_to_judge() {
            let mut ends = self.clients[auditor as usize].actor.ends(group);
            self.forget_the_ill(group, &mut ends);
            if !ends.is_empty() {
                self.oracle.verify_end(group, &ends)?;
            }
        }
        if !self.scenario.is_beyond() {
            self.compare_disks()?;
        }
        self.phase = Phase::Over;
        Ok(())
    }

    pub(super) fn on_watch(&mut self) -> Result<(), Violation> {
        let now = self.heap.now();
        let mut statuses = self.statuses();
        self.atlas.look(&statuses);
        self.look_at_wounds(&statuses);
        for (node, status) in &statuses {
            let host = &self.hosts[node];
            let alone = |group| host.machine().is_some_and(|machine| machine.decides_alone(group));
            if host.frozen > 0 {
                self.watch.note_frozen(now, *node);
            }
            for (group, view) in self.watch.look(now, (*node, host.life), status, alone)? {
                self.trace.record(now, Trail::View { node: *node, group, view: view.as_raw() });
            }
            self.watch.look_at_primaries(*node, host.life, status)?;
        }
        self.keep_vigil(&statuses)?;
        let groups = self.watched_groups();
        if let Some(chronicle) = &mut self.chronicle {
            let nodes = self.hosts.iter().map(|(node, host)| (*node, host.process()));
            let watched: Vec<GroupId> = groups.iter().map(|(group, _)| *group).collect();
            chronicle.look(now, &watched, nodes, &statuses);
        }
        if self.lost_disk.is_some() && self.all_disks_are_good() {
            self.lost_disk = None;
        }
        let emptied = self.lost_disk;
        let emptied = emptied.and_then(|node| Some((node, statuses.remove(&node)?)));
        for (group, members) in &groups {
            let durability = match *group {
                GroupId::METADATA => Durability::QuorumDisk,
                _ => self.scenario.durability,
            };
            let is_moved = self.scenario.load.moves && *group != GroupId::METADATA;
            let all: Vec<NodeId> = self.scenario.node_ids().collect();
            let (count, may_hold) = if is_moved {
                let members = self.members_of(*group, &statuses, members.len());
                // Who has just joined need not hold what was committed before.
                (members - usize::from(members.is_multiple_of(2)), &all)
            } else {
                (members.len(), members)
            };
            // What is harmed beyond that is on fewer disks, rightly.
            if !self.scenario.is_beyond() {
                Watch::look_at_disks((*group, durability), (count, may_hold), &statuses)?;
            }
        }
        statuses.extend(emptied);
        statuses.retain(|node, _| self.hosts[node].frozen == 0);
        // Who is a member while replicas are moved only the nodes know.
        let is_settled = |group: &GroupId| !self.scenario.load.moves || *group == GroupId::METADATA;
        for (group, members) in groups.iter().filter(|(group, _)| is_settled(group)) {
            self.watch.look_for_lonely_primaries(now, (*group, members), &statuses)?;
        }
        self.heap.push_after(WATCH_EVERY, Event::Watch);
        let is_watched = self.atlas.damages > 0 || !self.scenario.rollouts.is_empty();
        if is_watched { self.advance() } else { Ok(()) }
    }

    /// The word of how many counts in a group whose replicas are moved, as the node knows, or knew, that has committed most; `made_with`
    /// so many.
    fn members_of(
        &mut self,
        group: GroupId,
        statuses: &BTreeMap<NodeId, NodeStatus>,
        made_with: usize,
    ) -> usize {
        let committed = |(node, status): (&NodeId, &NodeStatus)| {
            let replica = status.groups.iter().find(|replica| replica.group == group)?;
            let members = self.hosts.get(node)?.machine()?.members(group)?;
            Some((replica.commit, members))
        };
        let known = statuses.iter().filter_map(committed).max_by_key(|(commit, _)| *commit);
        let seen = self.members_seen.entry(group).or_insert((0, made_with));
        *seen = known.filter(|known| known.0 >= seen.0).unwrap_or(*seen);
        seen.1
    }

    /// The groups that are looked at as a whole: the metadata and the partitions of the topic, with their members.
    pub(crate) fn watched_groups(&self) -> Placement {
        let metadata = (GroupId::METADATA, self.scenario.node_ids().collect());
        std::iter::once(metadata).chain(self.placement.iter().cloned()).collect()
    }

    /// How the running nodes are.
    pub(in crate::fast) fn statuses(&self) -> BTreeMap<NodeId, NodeStatus> {
        let status = |(node, host): (&NodeId, &Host<M>)| Some((*node, host.machine()?.status()));
        self.hosts.iter().filter_map(status).collect()
    }

    pub(super) fn on_deadline(&mut self, phase: Phase) -> Result<(), Violation> {
        if self.phase != phase {
            return Ok(());
        }
        if self.scenario.is_beyond() {
            return self.on_deadline_beyond(phase);
        }
        let waits: Vec<String> = self.clients.iter().filter_map(|client| client.actor.waits_for()).collect();
        let groups = self.describe_groups();
        let detail = format!(
            "{:?} after all faults ended: {}; {groups}",
            self.scenario.recovery_max(),
            waits.join("; ")
        );
        Err(Violation::new("did not recover in time", detail))
    }

    pub(in crate::fast) fn describe_groups(&self) -> String {
        let mut lines = Vec::new();
        for (node, host) in &self.hosts {
            let Some(machine) = host.machine() else { continue };
            for replica in machine.status().groups {
                lines.push(format!(
                    "{node} {} {:?} {} head=op{} durable=op{} commit=op{}{}",
                    replica.group,
                    replica.role,
                    replica.view,
                    replica.head,
                    replica.durable,
                    replica.commit,
                    replica.problem.map(|problem| format!(" ({problem})")).unwrap_or_default(),
                ));
            }
        }
        lines.join(", ")
    }
}

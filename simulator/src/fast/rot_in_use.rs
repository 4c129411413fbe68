//! Disks that forget while their node runs, and what must come of it: the node finds it, and has it mended by the others.
//!
//! The same bounds hold as for disks of nodes that are down: one node's disk is harmed at a time, before the newest round of writes,
//! and no other one until all harmed logs are whole again. Whether they are is asked of the disk: a copy of it is opened, and
//! has to hold all that the replica says is durable.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use varve_protocol::client::{GroupStatus, NodeStatus, Role};
use varve_protocol::durability::Durability;
use varve_protocol::id::{GroupId, NodeId, Op};
use varve_protocol::prepare::PrepareId;
use varve_storage::{Disk, DiskFile, MemoryDisk, OpenMode};

use super::machine::Machine;
use super::rot::{BLOCK, Harm, SEGMENT_SLOT, flip, protected};
use super::universe::Universe;
use super::watch::takes_part;
use crate::actor::Placement;
use crate::oracle::Violation;
use crate::random::{chance, pick};

/// Harms to disks in use that harm a copy of the superblocks as well, in a thousand.
const SUPERBLOCKS_PERMILLE: u32 = 300;
/// Harms to logs that build on a snapshot that harm the snapshot, in a thousand.
const SNAPSHOTS_PERMILLE: u32 = 150;

/// What a disk holds of a log: its prepares by op.
pub type Held = BTreeMap<Op, PrepareId>;

impl<M: Machine> Universe<M> {
    /// The disk of a node forgets something, if the node runs.
    pub(super) fn rot_in_use(&mut self, node: NodeId) {
        let is_spared = self.lost_disk.is_some() || self.atlas.harmed().is_some_and(|harmed| harmed != node);
        let is_too_many =
            self.scenario.durability == Durability::QuorumMemory && self.spared(vec![node]).is_empty();
        if is_spared || is_too_many || self.placement.is_empty() {
            return self.note("no disk forgets anything now: too few would remember".to_owned());
        }
        let host = self.hosts.get(&node).expect("every node of the scenario has a host");
        let Some((machine, disk)) = host.machine().and_then(|machine| Some((machine, machine.disk()?)))
        else {
            return;
        };
        // A log that is being read from its start is not in use yet.
        let replicas = machine.status().groups;
        let is_in_use = |group: &GroupId| replicas.iter().any(|one| one.group == *group && works(one));
        let groups: Vec<GroupId> = self.groups_to_harm().into_iter().filter(is_in_use).collect();
        if groups.is_empty() || !self.may_be_harmed() {
            return;
        }
        let done = self.atlas.harm_in_use(node, |rng| M::rot_in_use(disk, &groups, rng));
        for Harm { group, what } in done {
            self.note(format!("the disk of {node} forgets of {group}, which is in use: {what}"));
        }
    }

    /// Looks whether the logs that were harmed while they were in use are whole again.
    pub(super) fn look_at_wounds(&mut self, statuses: &BTreeMap<NodeId, NodeStatus>) {
        let now = self.heap.now();
        let Some((node, groups)) = self.atlas.wounded(now) else { return };
        let Some(status) = statuses.get(&node) else { return };
        let Some(disk) = self.hosts[&node].machine().and_then(Machine::disk) else { return };
        for group in groups {
            let replica = status.groups.iter().find(|replica| replica.group == group);
            // One that is not there is not opened yet, or again.
            let is_whole = replica.is_some_and(|replica| {
                let durable = Op::new(replica.durable);
                works(replica) && M::held(disk, group).is_ok_and(|held| held_up_to(&held) >= durable)
            });
            if is_whole {
                self.atlas.close_wound(group);
            }
        }
    }

    /// At the end every replica holds what the others hold, on a disk that can be read, and nothing that was found is left.
    pub(super) fn compare_disks(&self) -> Result<(), Violation> {
        let held = |node: NodeId, group| {
            let disk = self.hosts[&node].machine().and_then(Machine::disk)?;
            Some(M::held(disk, group))
        };
        compare_disks(&self.watched_groups(), &self.statuses(), held)
    }
}

/// Compares what is `held` of these groups on nodes of these statuses.
pub(crate) fn compare_disks(
    groups: &Placement,
    statuses: &BTreeMap<NodeId, NodeStatus>,
    held: impl Fn(NodeId, GroupId) -> Option<Result<Held, String>>,
) -> Result<(), Violation> {
    let rotten = |detail: String| Violation::new("a log has rotted and is not mended", detail);
    for (group, members) in groups {
        let mut all: BTreeMap<Op, (PrepareId, NodeId)> = BTreeMap::new();
        for node in members {
            let replica =
                statuses.get(node).and_then(|status| status.groups.iter().find(|one| one.group == *group));
            let Some(replica) = replica.filter(|replica| works(replica)) else { continue };
            let Some(held) = held(*node, *group) else { continue };
            let held = held.map_err(|why| rotten(format!("{node}: {group}: {why}")))?;
            if held_up_to(&held) < Op::new(replica.durable) {
                let durable = replica.durable;
                return Err(rotten(format!("{node}: {group} is durable up to op{durable}, and holds less")));
            }
            for (op, id) in held.range(..=Op::new(replica.commit)) {
                let (other, by) = *all.entry(*op).or_insert((*id, *node));
                if other != *id {
                    let detail = format!("{group} {op}: {by} has {other}, {node} has {id}");
                    return Err(Violation::new("two disks hold different prepares", detail));
                }
            }
        }
    }
    let left = statuses.iter().find(|(_, status)| status.scrub.damages_found != status.scrub.damages_mended);
    left.map_or(Ok(()), |(node, status)| {
        Err(Violation::new("damage was found and is not mended", format!("{node}: {:?}", status.scrub)))
    })
}

pub(crate) fn works(replica: &GroupStatus) -> bool {
    takes_part(replica) && matches!(replica.role, Role::Primary | Role::Backup)
}

pub(crate) fn held_up_to(held: &Held) -> Op {
    held.last_key_value().map_or(Op::ZERO, |(op, _)| *op)
}

/// Harms one copy of the superblocks on a disk that is in use, if both are sound: a crash finds the other one.
fn harm_superblocks(disk: &MemoryDisk, rng: &mut ChaCha8Rng) -> Option<String> {
    let copies = ["superblocks-a", "superblocks-b"];
    let [a, b] = copies.map(|copy| bytes_of(disk, Path::new(copy)));
    let size = a.as_ref()?.len() as u64;
    if a != b { None } else { flip(disk, PathBuf::from(pick(rng, &copies)), (0, size), rng) }
}

fn bytes_of(disk: &MemoryDisk, path: &Path) -> Option<Vec<u8>> {
    let file = disk.open(path, OpenMode::Existing).ok()?;
    let mut bytes = vec![0; usize::try_from(file.size().ok()?).ok()?];
    let read = file.read_at(&mut bytes, 0).ok()?;
    bytes.truncate(read);
    Some(bytes)
}

/// Harms a log on a disk that is in use; or the superblocks, which are mended without the others.
pub(crate) fn rot_in_use(disk: &MemoryDisk, groups: &[GroupId], rng: &mut ChaCha8Rng) -> Vec<Harm> {
    // Drawn aside: what becomes of logs is as it was before superblocks were harmed.
    let mut aside = rng.clone();
    aside.set_stream(1);
    if chance(&mut aside, SUPERBLOCKS_PERMILLE) {
        harm_superblocks(disk, &mut aside);
    }
    let group = groups[rng.random_range(0..groups.len())];
    let dir = Path::new("groups").join(format!("{:010}", group.as_raw()));
    let mut files = disk.list(&dir).unwrap_or_default();
    let snapshot = files.iter().find(|file| file.ends_with(".snapshot")).map(|file| dir.join(file));
    files.retain(|file| file.ends_with(".log"));
    if files.is_empty() {
        return Vec::new();
    }
    let what = match snapshot {
        Some(path) if chance(&mut aside, SNAPSHOTS_PERMILLE) => harm_snapshot(disk, path, &mut aside),
        Some(_) | None => harm(disk, &dir, &files, rng),
    };
    what.map(|what| Harm { group, what }).into_iter().collect()
}

fn harm_snapshot(disk: &MemoryDisk, path: PathBuf, rng: &mut ChaCha8Rng) -> Option<String> {
    let size = bytes_of(disk, &path)?.len() as u64;
    if !chance(rng, 200) {
        return flip(disk, path, (0, size), rng);
    }
    disk.remove(&path).ok()?;
    disk.sync_dir(path.parent()?).ok()?;
    Some(format!("{} is gone", path.display()))
}

fn harm(disk: &MemoryDisk, dir: &Path, files: &[String], rng: &mut ChaCha8Rng) -> Option<String> {
    let index = rng.random_range(0..files.len());
    let is_newest = index == files.len() - 1;
    let path = dir.join(&files[index]);
    let file = disk.open(&path, OpenMode::Existing).ok()?;
    let limit = if is_newest { protected(&file, SEGMENT_SLOT)? } else { file.size().ok()? };
    match rng.random_range(0..10) {
        0 => {
            disk.remove(&path).ok()?;
            disk.sync_dir(dir).ok()?;
            Some(format!("{} is gone", path.display()))
        }
        1 if !is_newest => {
            let size = rng.random_range(0..limit);
            file.set_size(size).ok()?;
            file.sync().ok()?;
            Some(format!("{} is cut to {size}", path.display()))
        }
        2 => flip(disk, path, (0, BLOCK), rng),
        _ => {
            let count = pick(rng, &[1, 1, 2, 5]);
            let mut what = None;
            for _ in 0..count {
                what = flip(disk, path.clone(), (BLOCK, limit), rng).or(what);
            }
            what
        }
    }
}

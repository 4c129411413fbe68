//! Disks that forget what they had synced: at a crash, bits of a node's logs flip, files are cut short, or are gone.
//!
//! Only what a replica must notice is harmed: what lies before the newest round of writes (a slot in the segment says where
//! that began), snapshots, and whole files. Rot behind it looks like a torn write, and nobody can tell the difference. The same goes
//! for the journal of a node, which is of all its logs.
//!
//! A group lives by a majority of replicas whose disks remember. So one node's disk is harmed at a time, and no other one until
//! all harmed groups of that node take part again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use varve_protocol::client::{GroupStatus, NodeStatus, Role};
use varve_protocol::id::{GroupId, NodeId};
use varve_protocol::prepare::PREPARE_HEADER_SIZE;
use varve_storage::{Disk, DiskFile, MemoryDisk, OpenMode};

use super::machine::Machine;
use super::universe::Universe;
use super::watch::takes_part;
use crate::random::{chance, pick, stream};
use crate::scenario::{Rot, Scenario};

/// Bytes of the local block of a segment file.
pub(super) const BLOCK: u64 = 4096;
const SECTOR: usize = 512;
/// What a slot in a segment file has behind its checksum.
pub(super) const SEGMENT_SLOT: &[u8; 4] = b"VRVR";

/// Harmed disks whose journal is harmed, and not some of their logs, in a thousand.
const JOURNALS_PERMILLE: u32 = 60;

/// How often it is looked whether logs that were harmed while they were in use are whole again.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The disks that forget.
#[derive(Debug)]
pub(crate) struct Atlas {
    rng: ChaCha8Rng,
    rot: Rot,
    /// Any disk forgets any time, whatever the others remember; who is harmed is not kept.
    is_beyond: bool,
    harmed: Option<NodeId>,
    /// The harmed groups of that node that do not take part yet, and what they said is the matter.
    ill: BTreeMap<GroupId, Option<String>>,
    /// Logs of that node that were harmed, and are not whole again.
    wounded: BTreeSet<GroupId>,
    /// When to look at them.
    look_at: Duration,
    pub(crate) damages: u64,
    pub(crate) damages_in_use: u64,
    pub(crate) holes_mended: u64,
    pub(crate) ends_recovered: u64,
}

impl Atlas {
    /// The disks of a universe.
    pub(crate) fn of(scenario: &Scenario) -> Self {
        let mut rng = stream(scenario.seed, "rot");
        // What a seed draws first from this stream is how much its disks forget; what they forget comes after it.
        let _ = Rot::draw(&mut rng);
        Self {
            rng,
            rot: scenario.rot,
            is_beyond: scenario.is_beyond(),
            harmed: None,
            ill: BTreeMap::new(),
            wounded: BTreeSet::new(),
            look_at: Duration::ZERO,
            damages: 0,
            damages_in_use: 0,
            holes_mended: 0,
            ends_recovered: 0,
        }
    }

    /// The node of which not everything works that was harmed.
    pub(crate) fn harmed(&self) -> Option<NodeId> {
        self.harmed.filter(|_| !self.ill.is_empty() || !self.wounded.is_empty())
    }

    /// Looks whether the harmed node is well again.
    pub(crate) fn look(&mut self, statuses: &BTreeMap<NodeId, NodeStatus>) {
        let Some(node) = self.harmed else { return };
        let Some(status) = statuses.get(&node) else { return };
        let replica_of = |status: &NodeStatus, group: GroupId| -> Option<GroupStatus> {
            status.groups.iter().find(|replica| replica.group == group).cloned()
        };
        let mut well = Vec::new();
        for (group, problem) in &mut self.ill {
            match replica_of(status, *group) {
                Some(replica) if !takes_part(&replica) => *problem = replica.problem,
                Some(replica) if matches!(replica.role, Role::Primary | Role::Backup) => well.push(*group),
                Some(_) | None => {}
            }
        }
        for group in well {
            let problem = self.ill.remove(&group).flatten().unwrap_or_default();
            self.holes_mended += u64::from(problem.contains("hole") || problem.contains("was mended"));
            self.ends_recovered += u64::from(problem.contains("lost its end"));
        }
        self.forget_if_well();
    }

    fn forget_if_well(&mut self) {
        if self.ill.is_empty() && self.wounded.is_empty() {
            self.harmed = None;
        }
    }

    /// Harms the disk of a node that runs; says what it did.
    pub(crate) fn harm_in_use(
        &mut self,
        node: NodeId,
        harm: impl FnOnce(&mut ChaCha8Rng) -> Vec<Harm>,
    ) -> Vec<Harm> {
        let done = harm(&mut self.rng);
        self.damages += done.len() as u64;
        self.damages_in_use += done.len() as u64;
        for Harm { group, .. } in done.iter().filter(|_| !self.is_beyond) {
            self.harmed = Some(node);
            self.wounded.insert(*group);
        }
        done
    }

    /// The logs that were harmed, and are not whole again, if it is time to look at them.
    pub(crate) fn wounded(&mut self, now: Duration) -> Option<(NodeId, BTreeSet<GroupId>)> {
        let node = self.harmed.filter(|_| !self.wounded.is_empty() && now >= self.look_at)?;
        self.look_at = now + LOOK_EVERY;
        Some((node, self.wounded.clone()))
    }

    /// One of them is.
    pub(crate) fn close_wound(&mut self, group: GroupId) {
        self.wounded.remove(&group);
        self.forget_if_well();
    }

    /// Perhaps harms the disk of a node that has just stopped; says what it did.
    pub(crate) fn harm(
        &mut self,
        node: NodeId,
        harm: impl FnOnce(&mut ChaCha8Rng, u32) -> Vec<Harm>,
    ) -> Vec<Harm> {
        let is_spared = self.harmed.is_some_and(|harmed| harmed != node);
        if is_spared || self.rot.crashes_permille == 0 || !chance(&mut self.rng, self.rot.crashes_permille) {
            return Vec::new();
        }
        let done = harm(&mut self.rng, self.rot.groups_permille);
        self.damages += done.len() as u64;
        for Harm { group, .. } in done.iter().filter(|_| !self.is_beyond) {
            self.harmed = Some(node);
            self.ill.insert(*group, None);
            // A start does not read all of a log: it may work before that is found.
            self.wounded.insert(*group);
        }
        done
    }
}

/// What was done to a log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Harm {
    /// Whose.
    pub group: GroupId,
    /// What, in words.
    pub what: String,
}

impl<M: Machine> Universe<M> {
    /// The disk of a node that has just stopped may forget something.
    pub(super) fn let_rot(&mut self, node: NodeId) {
        let host = self.hosts.get(&node).expect("every node of the scenario has a host");
        let Some(platter) = host.platter() else { return };
        if self.lost_disk.is_some() || !self.may_be_harmed() {
            // A group may have to do without that one already.
            return;
        }
        // Others may be deleted any time, and nobody appends to them.
        let groups = self.groups_to_harm();
        let done = self.atlas.harm(node, |rng, permille| M::rot(platter, (&groups, permille), rng));
        for Harm { group, what } in done {
            self.note(format!("the disk of {node} forgets of {group}: {what}"));
        }
    }
}

/// Harms logs on a disk that nobody uses.
pub(crate) fn rot(
    disk: &MemoryDisk,
    (groups, permille): (&[GroupId], u32),
    rng: &mut ChaCha8Rng,
) -> Vec<Harm> {
    let mut logs = Vec::new();
    for name in disk.list(Path::new("groups")).unwrap_or_default() {
        let Ok(group) = name.parse().map(GroupId::new) else { continue };
        let dir = Path::new("groups").join(&name);
        let mut files = disk.list(&dir).unwrap_or_default();
        files.retain(|file| file.ends_with(".log"));
        if !files.is_empty() && groups.contains(&group) {
            logs.push((group, dir, files));
        }
    }
    if chance(rng, JOURNALS_PERMILLE)
        && let Some(what) = harm_journal(disk, rng)
    {
        return logs.into_iter().map(|(group, ..)| Harm { group, what: what.clone() }).collect();
    }
    let mut done = Vec::new();
    for (group, dir, files) in logs {
        if chance(rng, permille) {
            let what = harm_log(disk, &dir, &files, rng);
            done.extend(what.map(|what| Harm { group, what }));
        }
    }
    done
}

/// Harms what nobody can tell whose it was: then all logs of the node may have lost their ends.
fn harm_journal(disk: &MemoryDisk, rng: &mut ChaCha8Rng) -> Option<String> {
    let path = PathBuf::from("journal");
    let file = disk.open(&path, OpenMode::Existing).ok()?;
    let newest = protected(&file, b"VRVJ")?;
    match rng.random_range(0..8) {
        0 => {
            disk.remove(&path).ok()?;
            disk.sync_dir(Path::new("")).ok()?;
            Some("the journal is gone".to_owned())
        }
        1 => {
            let size = rng.random_range(0..newest);
            file.set_size(size).ok()?;
            file.sync().ok()?;
            Some(format!("the journal is cut to {size}"))
        }
        2 => flip(disk, path, (0, BLOCK), rng),
        _ => flip(disk, path, (BLOCK, newest), rng),
    }
}

fn harm_log(disk: &MemoryDisk, dir: &Path, files: &[String], rng: &mut ChaCha8Rng) -> Option<String> {
    let newest = files.len() - 1;
    match rng.random_range(0..14) {
        0 => {
            let path = dir.join(&files[rng.random_range(0..files.len())]);
            disk.remove(&path).ok()?;
            disk.sync_dir(dir).ok()?;
            Some(format!("{} is gone", path.display()))
        }
        1..3 => {
            let index = rng.random_range(0..files.len());
            let path = dir.join(&files[index]);
            let file = disk.open(&path, OpenMode::Existing).ok()?;
            let limit = if index == newest { protected(&file, SEGMENT_SLOT)? } else { file.size().ok()? };
            let size = rng.random_range(0..limit);
            file.set_size(size).ok()?;
            file.sync().ok()?;
            Some(format!("{} is cut to {size}", path.display()))
        }
        3 => flip(disk, dir.join(&files[rng.random_range(0..files.len())]), (0, BLOCK), rng),
        4 => flip_snapshot(disk, dir, rng),
        5 => remove_log(disk, dir),
        6 if newest > 0 => append(disk, &dir.join(&files[rng.random_range(0..newest)]), rng),
        7 if newest > 1 => {
            let index = rng.random_range(1..newest);
            blank_between(disk, [&files[index - 1], &files[index]].map(|file| dir.join(file)), rng)
        }
        _ => {
            let index = rng.random_range(0..files.len());
            let path = dir.join(&files[index]);
            let file = disk.open(&path, OpenMode::Existing).ok()?;
            let limit = if index == newest { protected(&file, SEGMENT_SLOT)? } else { file.size().ok()? };
            let count = pick(rng, &[1, 1, 2, 5]);
            let mut what = None;
            for _ in 0..count {
                what = flip(disk, path.clone(), (BLOCK, limit), rng).or(what);
            }
            what
        }
    }
}

/// Harms the snapshot that a log builds on, if there is one.
fn flip_snapshot(disk: &MemoryDisk, dir: &Path, rng: &mut ChaCha8Rng) -> Option<String> {
    let files = disk.list(dir).ok()?;
    let path = dir.join(files.iter().filter(|file| file.ends_with(".snapshot")).max()?);
    let size = disk.open(&path, OpenMode::Existing).ok()?.size().ok()?;
    flip(disk, path, (0, size), rng)
}

/// Removes all that there is of a log.
fn remove_log(disk: &MemoryDisk, dir: &Path) -> Option<String> {
    for file in disk.list(dir).ok()? {
        disk.remove(&dir.join(file)).ok()?;
    }
    disk.remove_dir(dir).ok()?;
    disk.sync_dir(dir.parent()?).ok()?;
    Some(format!("{} is gone", dir.display()))
}

/// Puts something behind the end of a file.
fn append(disk: &MemoryDisk, path: &Path, rng: &mut ChaCha8Rng) -> Option<String> {
    let file = disk.open(path, OpenMode::Existing).ok()?;
    let bytes: Vec<u8> = (0..rng.random_range(1..=SECTOR)).map(|_| rng.random()).collect();
    let count = bytes.len();
    file.write_at(&[Bytes::from(bytes)], file.size().ok()?).ok()?;
    file.sync().ok()?;
    Some(format!("{count} bytes are behind the end of {}", path.display()))
}

/// Takes from one file its end, and from the next one all that says what it goes on from.
fn blank_between(disk: &MemoryDisk, [one, next]: [PathBuf; 2], rng: &mut ChaCha8Rng) -> Option<String> {
    let file = disk.open(&one, OpenMode::Existing).ok()?;
    let size = file.size().ok()?.saturating_sub(rng.random_range(1..=SECTOR as u64));
    file.set_size(size).ok()?;
    file.sync().ok()?;
    let file = disk.open(&next, OpenMode::Existing).ok()?;
    let blank = usize::try_from(file.size().ok()?.min(BLOCK + PREPARE_HEADER_SIZE as u64)).ok()?;
    file.write_at(&[Bytes::from(vec![0; blank])], 0).ok()?;
    file.sync().ok()?;
    Some(format!("{} is cut to {size}, and {} begins with {blank} zeros", one.display(), next.display()))
}

/// Flips a bit between two positions, or makes a whole stretch zero.
pub(super) fn flip(
    disk: &MemoryDisk,
    path: PathBuf,
    (from, to): (u64, u64),
    rng: &mut ChaCha8Rng,
) -> Option<String> {
    if from >= to {
        return None;
    }
    let file = disk.open(&path, OpenMode::Existing).ok()?;
    let position = rng.random_range(from..to);
    let mut bytes = [0; SECTOR];
    let stretch = usize::try_from((to - position).min(SECTOR as u64)).ok()?;
    let read = file.read_at(&mut bytes[..stretch], position).ok()?;
    let is_flip = from < BLOCK || rng.random_bool(0.7);
    let harmed = if is_flip {
        bytes[0] ^= 1 << rng.random_range(0..8);
        Bytes::copy_from_slice(&bytes[..1.min(read)])
    } else {
        Bytes::from(vec![0; read])
    };
    let count = harmed.len();
    file.write_at(&[harmed], position).ok()?;
    file.sync().ok()?;
    Some(format!("{} bytes of {} at {position}", count, path.display()))
}

/// Where the newest round of writes began in a newest segment file, or in a journal, by its newest slot.
pub(super) fn protected(file: &impl DiskFile, slot_magic: &[u8; 4]) -> Option<u64> {
    let mut block = vec![0; usize::try_from(BLOCK).ok()?];
    file.read_at(&mut block, 0).ok()?;
    let number = |sector: usize, at: usize| {
        let start = sector * SECTOR + at;
        u64::from_le_bytes(block[start..start + 8].try_into().expect("eight bytes make a u64"))
    };
    let is_slot = |sector: &usize| block[sector * SECTOR + 4..].starts_with(slot_magic);
    let newest = [1, 2].into_iter().filter(is_slot).max_by_key(|sector| number(*sector, 8))?;
    Some(number(newest, 24))
}

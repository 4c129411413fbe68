//! The logs and superblocks of all groups of a node, over one data directory:
//!
//! | path                                               | what it is                               |
//! |----------------------------------------------------|------------------------------------------|
//! | `identity`                                         | whose directory this is                  |
//! | `superblocks-a`, `superblocks-b`                   | two copies of the promises of all groups |
//! | `groups/<group>/<base offset>-<first op>.log`      | segments of a group's log                |
//!
//! A group exists when it has a superblock: its directory and first segment are durable before the superblock is, and go
//! after the entry that deletes it is durable. A directory without a superblock is what a crash left between.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use varve_protocol::id::{GroupId, Op};
use varve_protocol::prepare::{Prepare, PrepareId};
use varve_protocol::superblock::Superblock;

use crate::disk::Disk;
use crate::error::{IoContext, StorageError};
use crate::file;
use crate::identity::{IDENTITY_NAME, Identity};
use crate::job::{Completion, Job, ReadFrom};
use crate::log::{GROUPS_DIR, Log, ReadLimit, group_dir};
use crate::recovery::{Recovered, recover};
use crate::superblocks::{COPY_NAMES, Change, Superblocks};

/// What an operator may choose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Bytes after which a segment is sealed and the next one is made; a larger prepare gets one for itself.
    pub segment_size_bytes_max: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_size_bytes_max: 256 << 20 }
    }
}

/// A group as it was found at open.
#[derive(Clone, PartialEq, Debug)]
pub struct RecoveredGroup {
    /// The newest durable one.
    pub superblock: Superblock,
    /// The newest sound prepare; with a problem, the last one before it.
    pub head: PrepareId,
    /// Why the group takes no part: it is closed, and its files are left as they are.
    pub problem: Option<StorageError>,
}

/// A group of this store.
enum Hosted<F> {
    Open(Box<Log<F>>),
    Closed(StorageError),
}

/// What a round has done so far, and what is left to do when all jobs are written.
#[derive(Default)]
struct Round {
    completions: Vec<Completion>,
    /// Groups whose logs wait for a sync.
    written: BTreeSet<GroupId>,
    created: BTreeSet<GroupId>,
    deleted: BTreeSet<GroupId>,
    /// All superblocks to answer; the newest one of a group is saved.
    saves: Vec<Superblock>,
    failed: BTreeMap<GroupId, StorageError>,
}

impl Round {
    /// Whether the job writes to a log whose group has a superblock that is not saved yet.
    fn must_end_before(&self, job: &Job) -> bool {
        match job {
            Job::Append { group, .. } | Job::Truncate { group, .. } => {
                self.saves.iter().any(|save| save.group == *group)
            }
            Job::SaveSuperblock(_) | Job::Read { .. } | Job::DeleteGroup { .. } => false,
        }
    }
}

/// All groups of a node on one disk.
pub struct Store<D: Disk> {
    disk: D,
    identity: Identity,
    options: Options,
    superblocks: Superblocks<D::File>,
    groups: BTreeMap<GroupId, Hosted<D::File>>,
}

impl<D: Disk> Store<D> {
    /// Makes an empty data directory a node's.
    ///
    /// # Errors
    /// [`StorageError::AlreadyFormatted`] if anything of a store is there; `Io` as the system reports.
    pub fn format(disk: &D, identity: Identity) -> Result<(), StorageError> {
        let root = Path::new("");
        let names = file::list_whole(disk, root)?;
        let ours = [IDENTITY_NAME, COPY_NAMES[0], COPY_NAMES[1], GROUPS_DIR];
        if let Some(found) = ours.into_iter().find(|name| names.iter().any(|there| there == name)) {
            return Err(StorageError::AlreadyFormatted { found: found.into() });
        }
        let groups_dir = Path::new(GROUPS_DIR);
        disk.create_dir(groups_dir).or_failed_to("create directory", groups_dir)?;
        disk.sync_dir(root).or_failed_to("sync directory", root)?;
        Superblocks::<D::File>::format(disk, identity)?;
        identity.write(disk)
    }

    /// Opens a data directory, and shows every sound prepare of every group to `on_prepare`: group by group, in order.
    /// Everything shown or returned is durable when this returns, also if an earlier process died before its sync.
    /// A group whose log cannot be opened is returned with a problem, and the others work.
    ///
    /// # Errors
    /// When the directory is not this node's, or its superblocks are lost, or the system refuses.
    pub fn open(
        disk: D,
        identity: Identity,
        options: Options,
        on_prepare: &mut dyn FnMut(GroupId, &Prepare),
    ) -> Result<(Self, Vec<RecoveredGroup>), StorageError> {
        identity.check(&disk)?;
        file::list_whole(&disk, Path::new(""))?;
        let superblocks = Superblocks::open(&disk, identity)?;
        remove_strangers(&disk, superblocks.live())?;
        sync_all(&disk)?;
        let mut groups = BTreeMap::new();
        let mut recovered = Vec::with_capacity(superblocks.live().len());
        for (group, superblock) in superblocks.live() {
            let Recovered { head, log } = recover(&disk, identity, *group, on_prepare);
            let problem = log.as_ref().err().cloned();
            recovered.push(RecoveredGroup { superblock: *superblock, head, problem });
            groups.insert(*group, log.map_or_else(Hosted::Closed, |log| Hosted::Open(Box::new(log))));
        }
        sync_sealed(&disk, &mut groups)?;
        Ok((Self { disk, identity, options, superblocks, groups }, recovered))
    }

    /// Does all jobs: writes in the order of the jobs, then one sync for each log and one save for all superblocks,
    /// then the completions. See [`crate::job`] for who is answered how.
    ///
    /// What is written to a log after a superblock of its group was handed in waits until that superblock is durable: a
    /// prepare must not be found on disk whose view is not.
    ///
    /// # Panics
    /// If a job breaks its contract: an append that does not continue the log, a truncation behind the head, a superblock
    /// with an older view than the one before.
    pub fn execute(&mut self, jobs: Vec<Job>) -> Vec<Completion> {
        let mut completions = Vec::new();
        let mut round = Round::default();
        for job in jobs {
            if round.must_end_before(&job) {
                completions.extend(self.end(std::mem::take(&mut round)));
            }
            self.perform(job, &mut round);
        }
        completions.extend(self.end(round));
        completions
    }

    fn end(&mut self, mut round: Round) -> Vec<Completion> {
        self.sync_logs(&mut round);
        self.save_superblocks(&mut round);
        self.remove_deleted(&mut round);
        self.answer(round)
    }

    fn perform(&mut self, job: Job, round: &mut Round) {
        let group = job.group();
        assert!(!round.deleted.contains(&group), "nothing follows the deletion of a group");
        let result = match job {
            Job::Append { group, prepares } => self.append(group, &prepares, round),
            Job::Truncate { group, keep } => self.truncate(group, keep, round),
            Job::SaveSuperblock(superblock) => self.note_superblock(superblock, round),
            Job::Read { group, token, from, bytes_max, last } => {
                let result = self.read(group, from, ReadLimit { bytes_max, last });
                round.completions.push(Completion::Read { group, token, result });
                Ok(())
            }
            Job::DeleteGroup { group } => {
                self.groups.remove(&group);
                round.failed.remove(&group);
                round.deleted.insert(group);
                Ok(())
            }
        };
        if let Err(error) = result {
            self.fail(group, error, round);
        }
    }

    fn append(
        &mut self,
        group: GroupId,
        prepares: &[Prepare],
        round: &mut Round,
    ) -> Result<(), StorageError> {
        let log = open_log(&mut self.groups, group)?;
        round.written.insert(group);
        log.append(&self.disk, self.options.segment_size_bytes_max, prepares)
    }

    fn truncate(&mut self, group: GroupId, keep: Op, round: &mut Round) -> Result<(), StorageError> {
        let log = open_log(&mut self.groups, group)?;
        round.written.insert(group);
        log.truncate(&self.disk, keep)
    }

    fn read(
        &mut self,
        group: GroupId,
        from: ReadFrom,
        limit: ReadLimit,
    ) -> Result<Vec<Prepare>, StorageError> {
        open_log(&mut self.groups, group)?.read(&self.disk, from, limit)
    }

    fn note_superblock(&mut self, superblock: Superblock, round: &mut Round) -> Result<(), StorageError> {
        let group = superblock.group;
        if self.groups.contains_key(&group) {
            open_log(&mut self.groups, group)?;
        } else {
            let log = Log::create(&self.disk, self.identity, group)?;
            self.groups.insert(group, Hosted::Open(Box::new(log)));
            round.created.insert(group);
        }
        let in_round = round.saves.iter().rev().find(|save| save.group == group);
        if let Some(before) = in_round.or_else(|| self.superblocks.live().get(&group)) {
            assert!(before.view <= superblock.view, "the view of a superblock never goes back");
            assert!(before.log_view <= superblock.log_view, "the log view of a superblock never goes back");
        }
        round.saves.push(superblock);
        Ok(())
    }

    fn fail(&mut self, group: GroupId, error: StorageError, round: &mut Round) {
        let is_unknown = matches!(error, StorageError::GroupUnknown { .. });
        if !is_unknown {
            tracing::error!(%group, %error, "group closed");
            self.groups.insert(group, Hosted::Closed(error.clone()));
        }
        round.failed.entry(group).or_insert(error);
    }

    fn sync_logs(&mut self, round: &mut Round) {
        if !round.created.is_empty() {
            let dir = Path::new(GROUPS_DIR);
            if let Err(error) = self.disk.sync_dir(dir).or_failed_to("sync directory", dir) {
                for group in std::mem::take(&mut round.created) {
                    self.fail(group, error.clone(), round);
                }
            }
        }
        for group in round.written.clone() {
            if let Some(Hosted::Open(log)) = self.groups.get_mut(&group)
                && let Err(error) = log.sync()
            {
                self.fail(group, error, round);
            }
        }
    }

    fn save_superblocks(&mut self, round: &mut Round) {
        let mut newest: BTreeMap<GroupId, Change> = BTreeMap::new();
        for save in round.saves.iter().filter(|save| !round.failed.contains_key(&save.group)) {
            newest.insert(save.group, Change::Save(*save));
        }
        // A deletion in the round of a save needs no trace of the save.
        newest.extend(round.deleted.iter().map(|group| (*group, Change::Delete(*group))));
        if newest.is_empty() {
            return;
        }
        let changes: Vec<Change> = newest.values().copied().collect();
        if let Err(error) = self.superblocks.save(&self.disk, &changes) {
            for group in newest.into_keys() {
                round.deleted.remove(&group);
                self.fail(group, error.clone(), round);
            }
        }
    }

    fn remove_deleted(&mut self, round: &mut Round) {
        for group in std::mem::take(&mut round.deleted) {
            match remove_group(&self.disk, &group_dir(group)) {
                Ok(()) => round.completions.push(Completion::Deleted { group }),
                Err(error) => self.fail(group, error, round),
            }
        }
    }

    fn answer(&self, round: Round) -> Vec<Completion> {
        let mut completions = round.completions;
        for group in round.written {
            if let Some(Hosted::Open(log)) = self.groups.get(&group) {
                completions.push(Completion::Durable { group, id: log.head() });
            }
        }
        let saved = round
            .saves
            .into_iter()
            .filter(|save| matches!(self.groups.get(&save.group), Some(Hosted::Open(_))));
        completions.extend(saved.map(Completion::SuperblockDurable));
        completions
            .extend(round.failed.into_iter().map(|(group, error)| Completion::Failed { group, error }));
        completions
    }
}

fn sync_all<D: Disk>(disk: &D) -> Result<(), StorageError> {
    disk.sync_all().or_failed_to("sync the file system of", Path::new(""))
}

/// Makes durable what opening the logs has written to them, all with one sync.
fn sync_sealed<D: Disk>(
    disk: &D,
    groups: &mut BTreeMap<GroupId, Hosted<D::File>>,
) -> Result<(), StorageError> {
    let mut dirty = groups.values_mut().filter_map(|hosted| match hosted {
        Hosted::Open(log) if log.is_dirty() => Some(log),
        Hosted::Open(_) | Hosted::Closed(_) => None,
    });
    let Some(first) = dirty.next() else { return Ok(()) };
    sync_all(disk)?;
    first.note_synced();
    dirty.for_each(|log| log.note_synced());
    Ok(())
}

fn open_log<F>(
    groups: &mut BTreeMap<GroupId, Hosted<F>>,
    group: GroupId,
) -> Result<&mut Log<F>, StorageError> {
    match groups.get_mut(&group) {
        Some(Hosted::Open(log)) => Ok(log),
        Some(Hosted::Closed(error)) => Err(error.clone()),
        None => Err(StorageError::GroupUnknown { group }),
    }
}

/// Removes the directories of groups that were never finished or not wholly deleted.
fn remove_strangers<D: Disk>(disk: &D, live: &BTreeMap<GroupId, Superblock>) -> Result<(), StorageError> {
    let groups_dir = Path::new(GROUPS_DIR);
    for name in disk.list(groups_dir).or_failed_to("list", groups_dir)? {
        let Ok(number) = name.parse().map(GroupId::new) else { continue };
        let dir = group_dir(number);
        if dir == groups_dir.join(&name) && !live.contains_key(&number) {
            tracing::info!(group = %number, "removing what is left of a group");
            remove_group(disk, &dir)?;
        }
    }
    Ok(())
}

/// Removes the files of a group, durably; nothing may be there any more.
fn remove_group<D: Disk>(disk: &D, dir: &Path) -> Result<(), StorageError> {
    let names = match disk.list(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        listed => listed.or_failed_to("list", dir)?,
    };
    for name in names {
        let path = dir.join(name);
        disk.remove(&path).or_failed_to("remove", &path)?;
    }
    disk.remove_dir(dir).or_failed_to("remove directory", dir)?;
    let groups_dir = Path::new(GROUPS_DIR);
    disk.sync_dir(groups_dir).or_failed_to("sync directory", groups_dir)
}

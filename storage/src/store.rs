//! The logs and superblocks of all groups of a node, over one data directory:
//!
//! | path                                               | what it is                               |
//! |----------------------------------------------------|------------------------------------------|
//! | `identity`                                         | whose directory this is                  |
//! | `founders`                                         | who founded the cluster                  |
//! | `superblocks-a`, `superblocks-b`                   | two copies of the promises of all groups |
//! | `journal`                                          | what rounds have appended to many logs   |
//! | `reserve`                                          | nothing, until the disk is full          |
//! | `groups/<group>/<base offset>-<first op>.log`      | segments of a group's log                |
//! | `groups/<group>/<base offset>-<first op>.index`    | what is known of a sealed segment        |
//! | `groups/<group>/<op>.snapshot`                     | what the log builds on                   |
//! | `groups/<group>/<op>.resume`                       | where a start goes on reading the log    |
//!
//! A group exists when it has a superblock. Its directory and first segment are made with its first append, and are durable
//! before its superblock says that they are there; nobody is told of the append before that. So an idle group that was never
//! appended to costs nothing but its superblocks, and a log that is lost is missed. The files go after the entry that deletes
//! the group is durable. A directory whose group has no superblock is what a crash left between.

mod full;
mod mend;
mod open;
mod scrub;
mod sync;

use std::collections::BTreeMap;
use std::path::Path;

use varve_protocol::id::{DirectoryId, GroupId, NodeId, Op, View};
use varve_protocol::mark::Mark;
use varve_protocol::mutant::Mutant;
use varve_protocol::prepare::{Prepare, PrepareId};
use varve_protocol::snapshot::Snapshot;
use varve_protocol::superblock::Superblock;

use crate::disk::Disk;
use crate::error::{IoContext, StorageError};
use crate::file;
use crate::founders::FOUNDERS_NAME;
use crate::gap::Hole;
use crate::identity::{IDENTITY_NAME, Identity, Owner};
use crate::job::{Completion, Job, ReadFrom};
use crate::journal::{self, JOURNAL_BYTES_MAX, JOURNAL_NAME, Journal};
use crate::keys::Keys;
use crate::log::{GROUPS_DIR, Log, ReadLimit, group_dir};
use crate::opening::remove_group;
use crate::reader::Chain;
use crate::recovery::Extent;
use crate::reserve::{RESERVE_BYTES, Reserved, ReservedFile};
use crate::round::Round;
use crate::shelf::Shelf;
use crate::superblocks::{COPY_NAMES, Change, Kept, Superblocks};
use full::Waiting;

/// What an operator may choose.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes after which a segment is sealed and the next one is made; a larger prepare gets one for itself.
    pub segment_size_bytes_max: u64,
    /// The same for the metadata's log, if that is less: nothing of it is let go before, and all of it is read at a start.
    pub metadata_segment_bytes_max: u64,
    /// Milliseconds between the first and the last prepare of a segment; a later one begins the next segment.
    pub segment_age_ms_max: u64,
    /// Bytes of the journal; the larger, the rarer a checkpoint, and the longer one takes. Zero: none is used.
    pub journal_bytes_max: u64,
    /// Bytes that are put aside for what must be written when the disk is full; zero: none.
    pub reserve_bytes: u64,
    /// How much of the logs is read when they are opened.
    pub extent: Extent,
    /// What is stored is sealed with.
    pub keys: Keys,
}

impl Options {
    /// What an operator gets who chooses nothing.
    pub const DEFAULT: Self = Self {
        segment_size_bytes_max: 256 << 20,
        metadata_segment_bytes_max: 4 << 20,
        segment_age_ms_max: 7 * 24 * 60 * 60 * 1000,
        journal_bytes_max: JOURNAL_BYTES_MAX,
        reserve_bytes: RESERVE_BYTES,
        extent: Extent::Tail,
        keys: Keys::NONE,
    };
}

impl Default for Options {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A group as it was found at open.
#[derive(Clone, PartialEq, Debug)]
pub struct RecoveredGroup {
    /// The newest durable one.
    pub superblock: Superblock,
    /// The newest sound prepare; with a problem, the last one before it.
    pub head: PrepareId,
    /// What the log builds on, if it does not begin with op 1.
    pub snapshot: Option<Snapshot>,
    /// Why the group takes no part: it is closed, and its files are left as they are.
    pub problem: Option<StorageError>,
    /// The first hole in the log. Only what is before it was shown.
    pub hole: Option<Hole>,
    /// The next start has to read sealed segments again, unless there is a resume point at this op or a later one.
    pub unmarked: Option<Op>,
}

/// A group of this store.
pub(crate) enum Hosted<F> {
    /// Nothing was ever appended: there are no files.
    Empty,
    Open(Box<Log<F>>),
    Closed(StorageError),
}

/// All groups of a node on one disk.
pub struct Store<D: Disk> {
    disk: Reserved<D>,
    owner: Owner,
    options: Options,
    superblocks: Superblocks<ReservedFile<D>>,
    journal: Journal<ReservedFile<D>>,
    groups: BTreeMap<GroupId, Hosted<ReservedFile<D>>>,
    directory: DirectoryId,
    founders: Option<BTreeMap<NodeId, DirectoryId>>,
    /// What finds no room.
    waiting: Waiting,
    /// What is read.
    shelf: Shelf<ReservedFile<D>>,
}

impl<D: Disk> Store<D> {
    /// Makes an empty data directory a node's; `directory` is drawn at random, never zero.
    ///
    /// # Errors
    /// [`StorageError::AlreadyFormatted`] if anything of a store is there; `Io` as the system reports.
    pub fn format(disk: &D, identity: Identity, directory: DirectoryId) -> Result<(), StorageError> {
        let root = Path::new("");
        let names = file::list_whole(disk, root)?;
        let ours = [IDENTITY_NAME, FOUNDERS_NAME, COPY_NAMES[0], COPY_NAMES[1], JOURNAL_NAME, GROUPS_DIR];
        if let Some(found) = ours.into_iter().find(|name| names.iter().any(|there| there == name)) {
            return Err(StorageError::AlreadyFormatted { found: found.into() });
        }
        let groups_dir = Path::new(GROUPS_DIR);
        disk.create_dir(groups_dir).or_failed_to("create directory", groups_dir)?;
        disk.sync_dir(root).or_failed_to("sync directory", root)?;
        Superblocks::<D::File>::format(disk, identity)?;
        journal::format(disk, identity)?;
        identity.write(disk, directory)
    }

    /// Which data directory this is.
    pub fn directory(&self) -> DirectoryId {
        self.directory
    }

    /// Who founded the cluster, if it was founded when the store was opened.
    pub fn founders(&self) -> Option<&BTreeMap<NodeId, DirectoryId>> {
        self.founders.as_ref()
    }

    /// Does all jobs: writes in the order of the jobs, then one sync for each log or one for many (`store::sync`), and one save for all
    /// superblocks, then the completions. See [`crate::job`] for who is answered how.
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
            if matches!(job, Job::Resume) {
                round.resumes = true;
                completions.extend(self.end(std::mem::take(&mut round)));
            }
            self.perform(job, &mut round);
        }
        completions.extend(self.end(round));
        self.tell_who_waits(&mut completions);
        completions
    }

    fn end(&mut self, mut round: Round) -> Vec<Completion> {
        if round.resumes || round.has_saves() {
            round.take_up(std::mem::take(&mut self.waiting.saves));
        }
        self.sync_logs(&mut round);
        self.save_superblocks(&mut round);
        self.remove_deleted(&mut round);
        self.answer(round)
    }

    fn perform(&mut self, job: Job, round: &mut Round) {
        let group = job.group();
        assert!(!round.deleted.contains(&group), "nothing follows the deletion of a group");
        if !job.leaves_sealed_files() {
            self.shelf.forget(group);
        }
        if let Err(error) = self.prepare_journal(&job, round) {
            return self.fail(group, error, round);
        }
        let result = match job {
            Job::Append { group, prepares } => {
                round.written.insert(group);
                self.write(group, prepares, round)
            }
            Job::Write { group, prepares } => self.write(group, prepares, round),
            Job::Sync { group } => {
                round.written.insert(group);
                let is_open = open_log(&mut self.groups, group).map(|_| ());
                if self.waiting.has(group) { Ok(()) } else { is_open }
            }
            Job::Truncate { group, keep } => self.truncate(group, keep, round),
            Job::SaveSuperblock(superblock) => self.note_superblock(superblock, round),
            Job::Read { group, token, from, bytes_max, last } => {
                let result = self.read(group, from, ReadLimit { bytes_max, last });
                round.completions.push(Completion::Read { group, token, result });
                Ok(())
            }
            Job::SaveFounders(founders) => self.save_founders(founders, round),
            Job::Mend { group, prepares } => self.mend(group, &prepares, round),
            Job::Resume => self.resume(round),
            Job::GiveUpHoles { group } => self.give_up_holes(group, round),
            Job::GiveUpLog { group } => self.give_up_log(group, round),
            Job::LetGo { group, first, summarize } => self.let_go(group, (None, first), summarize, round),
            Job::LetGoWith { group, first, snapshot, summarize } => {
                self.let_go(group, (Some(&snapshot), first), summarize, round)
            }
            Job::TakeSnapshot { group, snapshot } => self.take_snapshot(group, snapshot, round),
            Job::ReadSnapshot { group, token } => {
                let log = open_log(&mut self.groups, group);
                let result = log.and_then(|log| log.snapshot(&self.disk));
                round.completions.push(Completion::Snapshot { group, token, result });
                Ok(())
            }
            Job::SaveResumePoint { group, point } => self.save_resume_point(group, &point),
            Job::Scrub { group, from, bytes_max, last } => {
                self.scrub(group, from, ReadLimit { bytes_max, last }, round)
            }
            Job::ScrubShared => self.scrub_shared(round),
            Job::Patch { group, damage, prepares } => self.patch(group, damage, &prepares, round),
            Job::Survey { group } => {
                if let Some(Hosted::Open(log)) = self.groups.get(&group) {
                    let (sealed, active) = log.survey();
                    round.completions.push(Completion::Surveyed { group, sealed, active });
                }
                Ok(())
            }
            Job::DeleteGroup { group } => {
                self.groups.remove(&group);
                self.forget_parked(group);
                round.failed.remove(&group);
                round.deleted.insert(group);
                Ok(())
            }
        };
        if let Err(error) = result {
            self.fail(group, error, round);
        }
    }

    /// Gives a group that has no files its first segment.
    fn make_log(&mut self, group: GroupId, round: &mut Round) -> Result<(), StorageError> {
        if matches!(self.groups.get(&group), Some(Hosted::Empty)) {
            let log = Log::create(&self.disk, &self.owner, Chain::root(self.owner.identity.cluster, group))?;
            self.groups.insert(group, Hosted::Open(Box::new(log)));
            round.created.insert(group);
        }
        Ok(())
    }

    fn read(
        &mut self,
        group: GroupId,
        from: ReadFrom,
        limit: ReadLimit,
    ) -> Result<Vec<Prepare>, StorageError> {
        let found = match self.groups.get(&group) {
            Some(Hosted::Open(log)) => log.read(&self.disk, &mut self.shelf, from, limit)?,
            Some(Hosted::Empty) => Vec::new(),
            Some(Hosted::Closed(error)) => return Err(error.clone()),
            None => return Err(StorageError::GroupUnknown { group }),
        };
        Ok(if found.is_empty() { self.read_parked(group, from, limit) } else { found })
    }

    fn note_superblock(&mut self, superblock: Superblock, round: &mut Round) -> Result<(), StorageError> {
        let group = superblock.group;
        if let Hosted::Closed(error) = self.groups.entry(group).or_insert(Hosted::Empty) {
            return Err(error.clone());
        }
        let saved = self.superblocks.live().get(&group).map(|kept| &kept.superblock);
        if let Some(before) = round.newest_saves.get(&group).or(saved) {
            assert!(before.view <= superblock.view, "the view of a superblock never goes back");
            assert!(before.log_view <= superblock.log_view, "the log view of a superblock never goes back");
        }
        round.saves.push(superblock);
        round.newest_saves.insert(group, superblock);
        Ok(())
    }

    fn fail(&mut self, group: GroupId, error: StorageError, round: &mut Round) {
        let is_unknown = matches!(error, StorageError::GroupUnknown { .. });
        if !is_unknown {
            tracing::error!(%group, %error, "group closed");
            self.waiting.forget(group);
            self.shelf.forget(group);
            self.groups.insert(group, Hosted::Closed(error.clone()));
        }
        round.failed.entry(group).or_insert(error);
    }

    fn save_superblocks(&mut self, round: &mut Round) {
        let mut newest: BTreeMap<GroupId, Change> = BTreeMap::new();
        let saved = self.superblocks.live();
        let of_created =
            round.created.iter().filter_map(|group| Some((*group, saved.get(group)?.superblock)));
        let newest_saves = std::mem::take(&mut round.newest_saves);
        for (group, superblock) in of_created.chain(newest_saves.clone()) {
            if !round.failed.contains_key(&group) && !self.is_forgotten(&superblock) {
                let has_log = matches!(self.groups.get(&group), Some(Hosted::Open(_)));
                newest.insert(group, Change::Save(Kept { superblock, has_log }));
            }
        }
        // A deletion in the round of a save needs no trace of the save.
        newest.extend(round.deleted.iter().map(|group| (*group, Change::Delete(*group))));
        if newest.is_empty() {
            return;
        }
        let changes: Vec<Change> = newest.values().copied().collect();
        if let Err(error) = self.superblocks.save(&self.disk, &changes) {
            if error.is_disk_full() {
                Mark::SuperblocksWait.hit();
                tracing::error!(%error, "the disk is full, and so is the reserve; superblocks wait");
                self.waiting.saves = round.take_saves(newest_saves);
                return;
            }
            for group in newest.into_keys() {
                round.deleted.remove(&group);
                self.fail(group, error.clone(), round);
            }
        }
    }

    /// Whether a mutant lets this superblock be answered and not written.
    fn is_forgotten(&self, save: &Superblock) -> bool {
        let is_same = |same: fn(&Superblock) -> View| {
            self.superblocks
                .live()
                .get(&save.group)
                .is_some_and(|before| same(&before.superblock) == same(save))
        };
        (Mutant::ViewNotSaved.is_on() && is_same(|superblock| superblock.log_view))
            || (Mutant::LogViewNotSaved.is_on() && is_same(|superblock| superblock.view))
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
        for group in round.written.into_iter().filter(|group| !self.is_log_replaced_later(*group)) {
            if let Some(Hosted::Open(log)) = self.groups.get(&group) {
                completions.push(Completion::Durable { group, id: log.head() });
            }
        }
        let saved = round
            .saves
            .into_iter()
            .filter(|save| matches!(self.groups.get(&save.group), Some(Hosted::Empty | Hosted::Open(_))));
        completions.extend(saved.map(Completion::SuperblockDurable));
        completions
            .extend(round.failed.into_iter().map(|(group, error)| Completion::Failed { group, error }));
        completions
    }
}

fn open_log<F>(
    groups: &mut BTreeMap<GroupId, Hosted<F>>,
    group: GroupId,
) -> Result<&mut Log<F>, StorageError> {
    match groups.get_mut(&group) {
        Some(Hosted::Open(log)) => Ok(log),
        Some(Hosted::Closed(error)) => Err(error.clone()),
        Some(Hosted::Empty) | None => Err(StorageError::GroupUnknown { group }),
    }
}

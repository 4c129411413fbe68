//! What becomes of jobs when the disk is full: they wait here until there is room, and nobody is told that they are done.
//!
//! | what finds no room                     | what becomes of it                                                     |
//! |----------------------------------------|------------------------------------------------------------------------|
//! | an append to a group's log             | what was written of it is cut off; it waits, and what follows behind it |
//! | the same, of the metadata's log        | is written out of the reserve; if that is used up, the same            |
//! | a superblock, a deletion, the founders | the same                                                               |
//! | a snapshot in the place of a log       | the same                                                               |
//! | what fills a hole, or gives one up     | the same                                                               |
//! | the snapshot of what is let go         | nothing is let go; the next entry that moves the log's start tries again |
//! | anything when a store is opened        | is written out of the reserve; if that is used up, the store does not open |
//!
//! For whoever handed it in, such a log is one whose disk hangs: it is durable up to where it was, and what is read of it is
//! what is there, and then what waits. An append is tried only while the reserve is whole, so that records never use it up.
//! [`Job::Resume`] puts the reserve aside again if there is room for it, and then does what waits, in the order it came.
//! A log that is cut meanwhile loses what waits behind the cut.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use varve_protocol::id::{DirectoryId, GroupId, NodeId, Op};
use varve_protocol::mark::Mark;
use varve_protocol::mutant::Mutant;
use varve_protocol::prepare::Prepare;
use varve_protocol::snapshot::Snapshot;

use super::{Hosted, Store, open_log};
use crate::disk::Disk;
use crate::error::StorageError;
use crate::founders;
use crate::job::{Completion, Job, ReadFrom};
use crate::log::{Log, ReadLimit};
use crate::round::Round;
use crate::writer::Room;

/// What waits.
#[derive(Default)]
pub(super) struct Waiting {
    /// To be written to logs.
    parked: BTreeMap<GroupId, Parked>,
    /// To be written to the superblocks.
    pub(super) saves: Round,
    founders: Option<BTreeMap<NodeId, DirectoryId>>,
    /// The groups that were told.
    told: BTreeSet<GroupId>,
}

impl Waiting {
    /// Whether something is to be written to the log of a group.
    pub(super) fn has(&self, group: GroupId) -> bool {
        self.parked.contains_key(&group)
    }

    /// Forgets what is to be written to the log of a group.
    pub(super) fn forget(&mut self, group: GroupId) {
        self.parked.remove(&group);
    }
}

/// What waits of one group.
#[derive(Default)]
struct Parked {
    /// Comes before the prepares: a job on the log as a whole.
    first: Option<Job>,
    /// Continue the log, or what comes first.
    prepares: VecDeque<Prepare>,
}

impl<D: Disk> Store<D> {
    /// Whether what is handed in for a log has to wait, for what was handed in before it does or there is no room to spare.
    fn must_wait(&self, group: GroupId) -> bool {
        self.waiting.parked.contains_key(&group)
            || self.waiting.saves.newest_saves.contains_key(&group)
            || self.waiting.saves.created.contains(&group)
            || (group != GroupId::METADATA && !self.disk.is_whole())
    }

    /// Whether something of a group has to be done before its log is what its owner thinks it is.
    pub(super) fn is_log_replaced_later(&self, group: GroupId) -> bool {
        self.waiting.parked.get(&group).is_some_and(|parked| parked.first.is_some())
    }

    /// Appends to a log what there is room for; the rest waits.
    pub(super) fn write(
        &mut self,
        group: GroupId,
        prepares: Vec<Prepare>,
        round: &mut Round,
    ) -> Result<(), StorageError> {
        if self.must_wait(group) {
            open_log(&mut self.groups, group).map(|_| ()).or_else(|error| self.unless_empty(group, error))?;
            self.waiting.parked.entry(group).or_default().prepares.extend(prepares);
            return Ok(());
        }
        let disk = self.disk.clone();
        match disk.sparing(group != GroupId::METADATA, || self.try_write(group, &prepares, round))? {
            Room::Enough => {}
            Room::Lacking(error) => {
                Mark::LogWaits.hit();
                tracing::debug!(%group, %error, "the disk is full; what is appended here waits");
                let head = open_log(&mut self.groups, group).map_or(Op::ZERO, |log| log.head().op);
                let rest = prepares.into_iter().filter(|prepare| prepare.op() > head);
                self.waiting.parked.entry(group).or_default().prepares.extend(rest);
            }
        }
        Ok(())
    }

    /// A group without files is as good as one with an empty log.
    fn unless_empty(&self, group: GroupId, error: StorageError) -> Result<(), StorageError> {
        if matches!(self.groups.get(&group), Some(Hosted::Empty)) { Ok(()) } else { Err(error) }
    }

    fn try_write(
        &mut self,
        group: GroupId,
        prepares: &[Prepare],
        round: &mut Round,
    ) -> Result<Room, StorageError> {
        match Room::after(self.make_log(group, round))? {
            Room::Enough => {}
            lacking @ Room::Lacking(_) => return Ok(lacking),
        }
        let log = open_log(&mut self.groups, group)?;
        let sealed = log.sealed.len();
        let room = log.append(&self.disk, &self.options, prepares);
        if log.sealed.len() > sealed {
            round.completions.push(Completion::Sealed { group, last: log.active.header.parent.op });
        }
        room
    }

    /// Cuts a log, and what waits to be appended to it.
    pub(super) fn truncate(
        &mut self,
        group: GroupId,
        keep: Op,
        round: &mut Round,
    ) -> Result<(), StorageError> {
        let is_replaced_later = self.is_log_replaced_later(group);
        if let Some(parked) = self.waiting.parked.get_mut(&group) {
            parked.prepares.retain(|prepare| prepare.op() <= keep);
            if parked.first.is_none() && parked.prepares.is_empty() {
                self.waiting.parked.remove(&group);
            }
        }
        if is_replaced_later {
            return Ok(());
        }
        match Room::after(self.make_log(group, round))? {
            Room::Enough => {}
            // There is nothing to be cut either.
            Room::Lacking(_) => return Ok(()),
        }
        round.written.insert(group);
        let log = open_log(&mut self.groups, group)?;
        if keep <= log.head().op { log.truncate(&self.disk, keep) } else { Ok(()) }
    }

    /// Saves who founded the cluster; nothing else is handed in before that is durable.
    pub(super) fn save_founders(
        &mut self,
        founders: BTreeMap<NodeId, DirectoryId>,
        round: &mut Round,
    ) -> Result<(), StorageError> {
        match Room::after(founders::write(&self.disk, &founders))? {
            Room::Enough => round.completions.push(Completion::FoundersDurable),
            Room::Lacking(_) => {
                Mark::FoundersWait.hit();
                self.waiting.founders = Some(founders);
            }
        }
        Ok(())
    }

    /// Puts a snapshot in the place of a log, durably when this returns, and answered like an append.
    pub(super) fn take_snapshot(
        &mut self,
        group: GroupId,
        snapshot: Snapshot,
        round: &mut Round,
    ) -> Result<(), StorageError> {
        // What waits was to stand behind what goes now.
        self.waiting.parked.remove(&group);
        let has_room = !self.waiting.saves.newest_saves.contains_key(&group)
            && match Room::after(self.try_take_snapshot(group, &snapshot, round))? {
                Room::Enough => true,
                Room::Lacking(_) => false,
            };
        if has_room {
            round.written.insert(group);
        } else {
            self.park_first(Job::TakeSnapshot { group, snapshot }, round);
        }
        Ok(())
    }

    fn try_take_snapshot(
        &mut self,
        group: GroupId,
        snapshot: &Snapshot,
        round: &mut Round,
    ) -> Result<(), StorageError> {
        self.make_log(group, round)?;
        open_log(&mut self.groups, group)?;
        let log = Log::take(&self.disk, &self.owner, snapshot)?;
        self.groups.insert(group, Hosted::Open(Box::new(log)));
        Ok(())
    }

    /// Has a job on a whole log wait. Nothing is said of that log until it is done.
    pub(super) fn park_first(&mut self, job: Job, round: &mut Round) {
        let group = job.group();
        round.written.remove(&group);
        Mark::JobWaits.hit();
        tracing::warn!(%group, "the disk is full; a job on this log waits");
        self.waiting.parked.entry(group).or_default().first = Some(job);
    }

    /// Forgets what waits of a group that is deleted.
    pub(super) fn forget_parked(&mut self, group: GroupId) {
        self.waiting.parked.remove(&group);
        self.waiting.saves.saves.retain(|save| save.group != group);
        self.waiting.saves.newest_saves.remove(&group);
        self.waiting.saves.created.remove(&group);
    }

    /// Prepares that wait, where a read has come to the end of what is on the disk.
    pub(super) fn read_parked(&self, group: GroupId, from: ReadFrom, limit: ReadLimit) -> Vec<Prepare> {
        let parked = self.waiting.parked.get(&group).into_iter().flat_map(|parked| &parked.prepares);
        let is_wanted = |prepare: &&Prepare| match from {
            ReadFrom::Op(op) => prepare.op() >= op,
            ReadFrom::Offset(offset) => prepare.header().next_offset() > offset,
            ReadFrom::Time(time) => prepare.header().timestamp() >= time,
        };
        let mut bytes = 0;
        let fits = |prepare: &&Prepare| {
            let is_first = bytes == 0;
            bytes += prepare.header().total_size();
            prepare.op() <= limit.last && (is_first || bytes <= limit.bytes_max)
        };
        parked.filter(is_wanted).take_while(fits).cloned().collect()
    }

    /// Does what waits, as far as there is room.
    pub(super) fn resume(&mut self, round: &mut Round) -> Result<(), StorageError> {
        if let Some(founders) = self.waiting.founders.take() {
            self.save_founders(founders, round)?;
        }
        if !self.disk.restore()? {
            return Ok(());
        }
        let waiting: Vec<GroupId> = self.waiting.parked.keys().copied().collect();
        for group in waiting {
            let is_unsaved = self.waiting.saves.newest_saves.contains_key(&group);
            let Some(parked) = (!is_unsaved).then(|| self.waiting.parked.remove(&group)).flatten() else {
                continue;
            };
            if let Some(job) = parked.first {
                self.perform(job, round);
            }
            if self.waiting.parked.contains_key(&group) {
                self.waiting.parked.entry(group).or_default().prepares.extend(parked.prepares);
                continue;
            }
            if parked.prepares.is_empty() {
                // A log may have more holes than the one that was filled now.
                continue;
            }
            round.written.insert(group);
            if let Err(error) = self.write(group, parked.prepares.into(), round) {
                self.fail(group, error, round);
            }
        }
        Ok(())
    }

    /// Tells which groups have begun to wait since this was told last, and which have ended.
    pub(super) fn tell_who_waits(&mut self, completions: &mut Vec<Completion>) {
        let unsaved = self
            .waiting
            .saves
            .newest_saves
            .keys()
            .chain(&self.waiting.saves.created)
            .chain(&self.waiting.saves.deleted);
        let founding = self.waiting.founders.as_ref().map(|_| &GroupId::METADATA);
        let waits: BTreeSet<GroupId> =
            self.waiting.parked.keys().chain(unsaved).chain(founding).copied().collect();
        for group in waits.difference(&self.waiting.told) {
            if Mutant::FullDiskAcknowledges.is_on()
                && let Some(last) = self.waiting.parked.get(group).and_then(|parked| parked.prepares.back())
            {
                completions.push(Completion::Durable { group: *group, id: last.id() });
            }
            completions.push(Completion::DiskFull { group: *group });
        }
        for group in self.waiting.told.difference(&waits) {
            completions.push(Completion::DiskHasRoom { group: *group });
        }
        self.waiting.told = waits;
    }
}

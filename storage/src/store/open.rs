//! How a store is opened: what the disk holds becomes durable, then the logs are read, then what the journal holds beyond them is
//! appended, and at last the journal begins anew.

use std::collections::BTreeMap;
use std::path::Path;

use varve_protocol::id::GroupId;
use varve_protocol::mark::Mark;
use varve_protocol::mutant::Mutant;
use varve_protocol::prepare::{Prepare, PrepareId};
use varve_protocol::superblock::Superblock;

use super::{Hosted, Options, RecoveredGroup, Store, Waiting};
use crate::disk::Disk;
use crate::error::StorageError;
use crate::file;
use crate::founders;
use crate::identity::{Identity, Owner};
use crate::journal::{self, Held, Journal};
use crate::log::Log;
use crate::opening::{remove_strangers, sync_all, sync_sealed};
use crate::recovery::{Found, Piece, Recovered, recover};
use crate::reserve::{Reserved, ReservedFile};
use crate::shelf::Shelf;
use crate::superblocks::{Change, Kept, Superblocks};
use crate::torn::Torn;

/// The groups that were opened so far.
struct Opening<'a, D: Disk> {
    disk: &'a Reserved<D>,
    owner: &'a Owner,
    options: &'a Options,
    journal: &'a Held,
    groups: BTreeMap<GroupId, Hosted<ReservedFile<D>>>,
    recovered: Vec<RecoveredGroup>,
    /// What the superblocks do not say yet.
    changes: Vec<Change>,
    /// To be cut when the superblocks say it.
    torn: Vec<Torn>,
    /// Why the journal has to stay as it is: when the key is there, a log will need what it holds.
    locked: Option<StorageError>,
}

impl<D: Disk> Store<D> {
    /// Opens a data directory, and shows what every group's log builds on and every sound prepare of it to `visit`: group by
    /// group, in order.
    /// Everything shown or returned is durable when this returns, also if an earlier process died before its sync.
    /// A group whose log cannot be opened is returned with a problem, and the others work.
    ///
    /// # Errors
    /// When the directory is not this node's, or its superblocks are lost, or the system refuses.
    pub fn open(
        disk: D,
        identity: Identity,
        options: Options,
        visit: &mut dyn FnMut(GroupId, Piece<'_>),
    ) -> Result<(Self, Vec<RecoveredGroup>), StorageError> {
        let disk = Reserved::new(disk, options.reserve_bytes);
        let owner = Owner { identity, keys: options.keys.clone() };
        let directory = identity.check(&disk)?;
        file::list_whole(&disk, Path::new(""))?;
        let founders = founders::read(&disk)?;
        let mut superblocks = Superblocks::open(&disk, identity)?;
        let found = remove_strangers(&disk, superblocks.live())?;
        sync_all(&disk)?;
        let held = journal::read(&disk, &owner)?;
        let mut opening = Opening {
            disk: &disk,
            owner: &owner,
            options: &options,
            journal: &held,
            groups: BTreeMap::new(),
            recovered: Vec::with_capacity(superblocks.live().len()),
            changes: Vec::new(),
            torn: Vec::new(),
            locked: held.locked.clone(),
        };
        for (group, kept) in superblocks.live() {
            if kept.has_log || found.contains(group) {
                opening.open_log(*group, *kept, visit)?;
            } else {
                opening.note_empty(*group, kept.superblock);
            }
        }
        let Opening { mut groups, recovered, changes, torn, locked, .. } = opening;
        sync_sealed(&disk, &mut groups)?;
        if !changes.is_empty() {
            superblocks.save(&disk, &changes)?;
        }
        for left in torn {
            groups.insert(left.chain.group, Hosted::Open(Box::new(left.cut(&disk)?)));
        }
        let journal = Journal::begin(&disk, &owner, &held, (options.journal_bytes_max, locked))?;
        if !disk.restore()? {
            tracing::warn!("the disk is full: no records are taken until some space is freed");
        }
        let (waiting, shelf) = (Waiting::default(), Shelf::new());
        let store =
            Self { disk, owner, options, superblocks, journal, groups, directory, founders, waiting, shelf };
        Ok((store, recovered))
    }
}

impl<D: Disk> Opening<'_, D> {
    /// Nothing was ever appended to the log of this group.
    fn note_empty(&mut self, group: GroupId, superblock: Superblock) {
        let (head, snapshot, problem, hole, unmarked) = (PrepareId::ROOT, None, None, None, None);
        self.recovered.push(RecoveredGroup { superblock, head, snapshot, problem, hole, unmarked });
        self.groups.insert(group, Hosted::Empty);
    }

    fn open_log(
        &mut self,
        group: GroupId,
        Kept { superblock, has_log }: Kept,
        visit: &mut dyn FnMut(GroupId, Piece<'_>),
    ) -> Result<(), StorageError> {
        let Recovered { head, snapshot, unmarked, found } =
            recover(self.disk, self.owner, (group, self.options.extent), visit);
        let mut recovery = RecoveredGroup { superblock, head, snapshot, problem: None, hole: None, unmarked };
        match self.journal.locked.clone().map_or(found, Err) {
            Ok(Found::Log(mut log)) => {
                let is_whole = self.replay(&mut log, visit)? && self.journal.is_sound();
                recovery.superblock.is_torn |= !is_whole;
                if !has_log || !is_whole {
                    self.announce(recovery.superblock);
                }
                (recovery.head, recovery.hole) = (log.head(), log.hole());
                self.groups.insert(group, Hosted::Open(log));
            }
            Ok(Found::Torn(left)) => {
                recovery.superblock.is_torn = true;
                self.announce(recovery.superblock);
                recovery.hole = left.hole();
                self.torn.push(*left);
            }
            Err(error) => {
                let is_locked = matches!(error, StorageError::KeyMissing { .. });
                let is_in_journal = !self.journal.of(group).is_empty();
                if !self.journal.is_sound() || (is_in_journal && !is_locked) {
                    // When it can be opened again, it may lack what the journal held.
                    self.announce(Superblock { is_torn: true, ..superblock });
                } else if is_in_journal {
                    self.locked.get_or_insert(error.clone());
                }
                recovery.problem = Some(error.clone());
                self.groups.insert(group, Hosted::Closed(error));
            }
        }
        self.recovered.push(recovery);
        Ok(())
    }

    fn announce(&mut self, superblock: Superblock) {
        self.changes.push(Change::Save(Kept { superblock, has_log: true }));
    }

    /// Appends to a log what the journal holds beyond it, and shows it unless a hole is before it; says whether that continues the log.
    fn replay(
        &self,
        log: &mut Log<ReservedFile<D>>,
        visit: &mut dyn FnMut(GroupId, Piece<'_>),
    ) -> Result<bool, StorageError> {
        if Mutant::JournalNotReplayed.is_on() {
            return Ok(true);
        }
        let (group, before) = (log.chain.group, log.head());
        let held = self.journal.of(group);
        let is_whole = log.replay(self.disk, self.options, held)?;
        let is_new = |prepare: &&Prepare| prepare.op() > before.op && prepare.op() <= log.head().op;
        for prepare in held.iter().filter(is_new) {
            Mark::JournalReplayed.hit();
            if log.gaps.is_empty() {
                visit(group, Piece::Prepare(prepare));
            }
        }
        Ok(is_whole)
    }
}

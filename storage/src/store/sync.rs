//! How a round becomes durable.

use std::path::Path;

use varve_protocol::id::GroupId;
use varve_protocol::mutant::Mutant;

use crate::disk::Disk;
use crate::error::IoContext;
use crate::log::GROUPS_DIR;
use crate::opening::sync_all;
use crate::round::Round;
use crate::store::{Hosted, Store};

/// So many files of a round are made durable by one sync of the file system. Syncs of single files, one after the other, cost a round
/// over 100 files 138 ms where one for all costs 9, and from 16 threads 12; from four files on it wins by a factor of two
/// (`benches/syncs.rs`). Below that the file system's other users are not waited for.
const SYNC_ALL_FILES_MIN: usize = 4;

impl<D: Disk> Store<D> {
    /// Makes durable what the round has written to logs.
    pub(super) fn sync_logs(&mut self, round: &mut Round) {
        if !round.created.is_empty() {
            let dir = Path::new(GROUPS_DIR);
            if let Err(error) = self.disk.sync_dir(dir).or_failed_to("sync directory", dir) {
                for group in std::mem::take(&mut round.created) {
                    self.fail(group, error.clone(), round);
                }
            }
        }
        let dirty: Vec<GroupId> =
            round.written.iter().copied().filter(|group| self.is_dirty(*group)).collect();
        if dirty.len() < SYNC_ALL_FILES_MIN || Mutant::LogNotSynced.is_on() {
            for group in dirty {
                if let Some(Hosted::Open(log)) = self.groups.get_mut(&group)
                    && let Err(error) = log.sync()
                {
                    self.fail(group, error, round);
                }
            }
            return;
        }
        let synced = sync_all(&self.disk);
        for group in dirty {
            match (&synced, self.groups.get_mut(&group)) {
                (Ok(()), Some(Hosted::Open(log))) => log.note_synced(),
                (Ok(()), _) => {}
                (Err(error), _) => self.fail(group, error.clone(), round),
            }
        }
    }

    fn is_dirty(&self, group: GroupId) -> bool {
        matches!(self.groups.get(&group), Some(Hosted::Open(log)) if log.is_dirty())
    }
}

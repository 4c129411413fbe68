//! Jobs that look at logs that are in use, and give them back what has rotted.

use varve_protocol::id::GroupId;
use varve_protocol::prepare::Prepare;

use super::{Hosted, Store};
use crate::disk::Disk;
use crate::error::StorageError;
use crate::job::Completion;
use crate::log::{Log, ReadLimit};
use crate::round::Round;
use crate::scrub::{Damage, ScrubFrom, Scrubbed};

impl<D: Disk> Store<D> {
    /// A log that is what its replica takes it for, and whole.
    fn sound_log(&mut self, group: GroupId) -> Option<&mut Log<crate::reserve::ReservedFile<D>>> {
        if self.is_log_replaced_later(group) {
            return None;
        }
        match self.groups.get_mut(&group) {
            Some(Hosted::Open(log)) if log.hole().is_none() => Some(log),
            Some(Hosted::Open(_) | Hosted::Empty | Hosted::Closed(_)) | None => None,
        }
    }

    pub(super) fn scrub(
        &mut self,
        group: GroupId,
        from: ScrubFrom,
        limit: ReadLimit,
        round: &mut Round,
    ) -> Result<(), StorageError> {
        let disk = self.disk.clone();
        let looked = self.sound_log(group).map(|log| log.scrub(&disk, from, limit));
        let piece = match looked {
            // What finds no room now is found again.
            Some(Err(error)) if !error.is_disk_full() => return Err(error),
            Some(Ok(piece)) => piece,
            Some(Err(_)) | None => Scrubbed::default(),
        };
        round.completions.push(Completion::Scrubbed { group, piece });
        Ok(())
    }

    /// What is in the journal is in the logs as well; there it is looked at as all that is in them.
    pub(super) fn scrub_shared(&mut self, round: &mut Round) -> Result<(), StorageError> {
        let disk = self.disk.clone();
        let was_sound = self.superblocks.look(&disk)?;
        if !self.journal.groups().is_empty() {
            self.checkpoint(round)?;
        }
        round.completions.push(Completion::SharedScrubbed { was_sound });
        Ok(())
    }

    pub(super) fn patch(
        &mut self,
        group: GroupId,
        damage: Damage,
        prepares: &[Prepare],
        round: &mut Round,
    ) -> Result<(), StorageError> {
        let disk = self.disk.clone();
        let patched = self.sound_log(group).map(|log| log.patch(&disk, damage, prepares));
        let left = match patched {
            Some(Err(error)) if error.is_disk_full() => Some(damage),
            Some(patched) => patched?,
            None => None,
        };
        round.completions.push(Completion::Patched { group, left });
        Ok(())
    }
}

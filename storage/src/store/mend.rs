//! Jobs on a log as a whole: holes are filled or given up, and what is old is let go.

use varve_protocol::id::{GroupId, Op};
use varve_protocol::log_start::LogStart;
use varve_protocol::mark::Mark;
use varve_protocol::prepare::Prepare;
use varve_protocol::resume_point::ResumePoint;
use varve_protocol::snapshot::Snapshot;
use varve_protocol::superblock::Superblock;

use super::{Hosted, Store, open_log};
use crate::base::Summarize;
use crate::disk::Disk;
use crate::error::StorageError;
use crate::job::{Completion, Job};
use crate::resume;
use crate::round::Round;
use crate::scrub::Help;
use crate::superblocks::{Change, Kept};
use crate::writer::Room;

impl<D: Disk> Store<D> {
    pub(super) fn mend(
        &mut self,
        group: GroupId,
        prepares: &[Prepare],
        round: &mut Round,
    ) -> Result<(), StorageError> {
        let log = open_log(&mut self.groups, group)?;
        let rest = log.mend(&self.disk, prepares)?;
        if rest.is_empty() {
            Mark::HoleFilled.hit();
            round.completions.push(Completion::Mended { group, hole: log.hole() });
        } else {
            self.park_first(Job::Mend { group, prepares: rest.to_vec() }, round);
        }
        Ok(())
    }

    /// Keeps a resume point, if there is room for it and the log is what its owner thinks it is.
    pub(super) fn save_resume_point(
        &mut self,
        group: GroupId,
        point: &ResumePoint,
    ) -> Result<(), StorageError> {
        let is_replaced_later = self.is_log_replaced_later(group);
        let log = open_log(&mut self.groups, group)?;
        if is_replaced_later || point.op() <= log.base.head.op {
            return Ok(());
        }
        assert!(point.op() <= log.head().op, "a resume point is in the log");
        Mark::ResumePointSaved.hit();
        Room::after(resume::save(&self.disk, &self.owner, group, point)).map(|_| ())
    }

    pub(super) fn give_up_holes(&mut self, group: GroupId, round: &mut Round) -> Result<(), StorageError> {
        if open_log(&mut self.groups, group)?.hole().is_none() {
            round.completions.push(Completion::Mended { group, hole: None });
            return Ok(());
        }
        if matches!(self.save_as_torn(group)?, Room::Lacking(_)) {
            self.park_first(Job::GiveUpHoles { group }, round);
            return Ok(());
        }
        if let Some(Hosted::Open(log)) = self.groups.remove(&group)
            && let Some(left) = log.give_up_holes()
        {
            Mark::HolesGivenUp.hit();
            self.groups.insert(group, Hosted::Open(Box::new(left.cut(&self.disk)?)));
        }
        round.completions.push(Completion::Mended { group, hole: None });
        Ok(())
    }

    /// Gives up all of a log that is in use. That nothing is said of it before is durable first.
    pub(super) fn give_up_log(&mut self, group: GroupId, round: &mut Round) -> Result<(), StorageError> {
        open_log(&mut self.groups, group)?;
        // What waits was to stand behind what goes now.
        self.waiting.forget(group);
        round.written.remove(&group);
        let is_unsaved = self.waiting.saves.newest_saves.contains_key(&group);
        if is_unsaved || matches!(self.save_as_torn(group)?, Room::Lacking(_)) {
            self.park_first(Job::GiveUpLog { group }, round);
            return Ok(());
        }
        if let Some(Hosted::Open(log)) = self.groups.remove(&group) {
            Mark::LogGivenUp.hit();
            let log = log.give_up(&self.disk)?.cut(&self.disk)?;
            self.groups.insert(group, Hosted::Open(Box::new(log)));
        }
        round.completions.push(Completion::Mended { group, hole: None });
        Ok(())
    }

    /// Has the superblock of a group say that its log has lost its end.
    fn save_as_torn(&mut self, group: GroupId) -> Result<Room, StorageError> {
        let kept =
            self.superblocks.live().get(&group).copied().ok_or(StorageError::GroupUnknown { group })?;
        let superblock = Superblock { is_torn: true, ..kept.superblock };
        let saved = self.superblocks.save(&self.disk, &[Change::Save(Kept { superblock, has_log: true })]);
        Room::after(saved)
    }

    pub(super) fn let_go(
        &mut self,
        group: GroupId,
        (snapshot, first): (Option<&Snapshot>, Op),
        summarize: Summarize,
        round: &mut Round,
    ) -> Result<(), StorageError> {
        let is_replaced_later = self.is_log_replaced_later(group);
        let Ok(log) = open_log(&mut self.groups, group) else { return Ok(()) };
        let result = match snapshot {
            _ if is_replaced_later => Ok(Help::Nothing),
            Some(snapshot) => log.let_go_with(&self.disk, (snapshot, first), summarize),
            None => log.let_go(&self.disk, first, summarize).map(|_| Help::Nothing),
        };
        match result {
            Ok(Help::NoneFits) => round.completions.push(Completion::NoneFits { group }),
            Ok(Help::Restored) => round.completions.push(Completion::SnapshotRestored { group }),
            Ok(Help::Went | Help::Nothing) => {}
            // What cannot be read now stays until it is mended, and what cannot be summed up until there is room.
            Err(error) if error.is_repairable() || error.is_disk_full() => {
                Mark::LetGoPutOff.hit();
                tracing::error!(%group, %error, "cannot let go of old segments");
                if let StorageError::Damaged { op, .. } = error {
                    round.completions.push(Completion::CannotLetGo { group, op });
                }
            }
            Err(error) => return Err(error),
        }
        let start = LogStart { op: log.base.head.op.next(), offset: log.base.next_offset };
        round.completions.push(Completion::LetGo { group, start });
        Ok(())
    }
}

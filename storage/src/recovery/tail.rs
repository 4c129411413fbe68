//! Opening a log without reading all of it: the sealed segments before its resume point are taken from their indexes.
//!
//! What is passed over is looked at this much: each local block says whose it is and that it is sealed, each index fits the size of
//! its file, and each segment ends with the prepare that the next one names as its parent. Where anything does not fit, and also
//! where what is read behind the resume point is not wholly sound, all of that is forgotten and the log is read from its
//! beginning. So damage is judged in one way only, whatever the start looked at first.

use varve_protocol::id::Op;
use varve_protocol::mark::Mark;
use varve_protocol::mutant::Mutant;
use varve_protocol::prepare::{Prepare, PrepareId};

use super::{Found, Opened, Piece, Place, Recovery};
use crate::disk::{Disk, DiskFile};
use crate::error::{IoContext, StorageError};
use crate::index_file;
use crate::resume;
use crate::segment::Segment;

/// A start that goes on from a resume point.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resumed {
    /// The prepare up to which nothing is shown.
    at: PrepareId,
    /// That very prepare was found in the log.
    is_met: bool,
}

impl<D: Disk> Recovery<'_, D> {
    /// Opens a log behind its resume point; `None` if there is none, or the log must be read from its beginning.
    pub(super) fn read_tail(
        &mut self,
        names: &[String],
        places: &[Place],
    ) -> Result<Option<Found<D::File>>, StorageError> {
        let group = self.chain.group;
        let point = resume::newest(self.disk, self.owner, group, names)?;
        let Some(mut point) = point.filter(|point| point.op() > self.base.head.op) else { return Ok(None) };
        if let Some(snapshot) = &self.snapshot {
            // The entry that let go of what is gone may be behind the resume point, and not known to be committed yet.
            point.log_start = point.log_start.max(snapshot.log_start());
        }
        let before = places.partition_point(|(_, first_op)| *first_op <= point.op());
        let Some(before) = before.checked_sub(1) else { return Ok(None) };
        if self.pass_over(&places[..=before])? {
            self.resumed = Some(Resumed { at: point.snapshot.id(), is_met: false });
            (self.visit)(group, Piece::ResumePoint(&point));
            let found = self.read(&places[before..]);
            let is_sound = matches!(&found, Ok(Found::Log(log)) if log.gaps.is_empty());
            if is_sound && self.resumed.is_some_and(|resumed| resumed.is_met) {
                Mark::ResumePointMet.hit();
                return found.map(Some);
            }
        }
        Mark::ResumePointVoid.hit();
        tracing::info!(%group, resume_point = %point.op(), "the log is read from its beginning");
        self.resumed = None;
        self.chain = self.base;
        self.segments.clear();
        self.gaps.clear();
        Ok(None)
    }

    /// Takes all of these sealed segments but the last from their indexes; says whether that was possible.
    fn pass_over(&mut self, places: &[Place]) -> Result<bool, StorageError> {
        for (place, next) in places.iter().zip(&places[1..]) {
            let Some(Opened { mut segment, file, slots, is_named }) = self.open(*place)? else {
                return Ok(false);
            };
            let header = &segment.header;
            let is_linked = header.parent == self.chain.head && header.base_offset == self.chain.next_offset;
            let is_sealed = slots.newest.is_some_and(|slot| slot.is_sealed && slot.op == next.1);
            let size = file.size().or_failed_to("read the size of", &segment.path)?;
            // That it ends where the next one begins is seen when that one is linked to it.
            let end = index_file::read(self.disk, self.owner, &mut segment, size, self.chain)?;
            let (Some(end), true) = (end, is_named && is_linked && is_sealed) else { return Ok(false) };
            Mark::SegmentPassedOver.hit();
            self.chain = end;
            self.segments.push(segment);
        }
        Ok(true)
    }

    /// Shows the next sound prepare, unless a hole is before it, or it is not behind the resume point.
    pub(super) fn show(&mut self, prepare: &Prepare) {
        if let Some(resumed) = &mut self.resumed
            && prepare.op() <= resumed.at.op
        {
            resumed.is_met |= prepare.id() == resumed.at || Mutant::ResumePointUnmet.is_on();
            return;
        }
        if self.gaps.is_empty() {
            (self.visit)(self.chain.group, Piece::Prepare(prepare));
        }
    }

    /// Sees to it that a sealed segment that was read has its index.
    pub(super) fn keep_index(&self, segment: &Segment, next: Place) -> Result<(), StorageError> {
        if !self.gaps.is_empty() || self.chain.head.op.next() != next.1 {
            return Ok(());
        }
        let mut kept = Segment::new(&self.dir, segment.header, &self.owner.keys)?;
        let end = index_file::read(self.disk, self.owner, &mut kept, segment.end, self.chain)?;
        if end != Some(self.chain) || kept.index != segment.index {
            Mark::IndexRebuilt.hit();
            index_file::write(self.disk, self.owner, segment, &self.chain);
        }
        Ok(())
    }

    /// The op up to which sealed segments would have to be read again at the next start.
    pub(super) fn unmarked(&self, found: &Result<Found<D::File>, StorageError>) -> Option<Op> {
        let Ok(Found::Log(log)) = found else { return None };
        let end = log.active.header.parent.op;
        let read_from = self.resumed.map_or(self.base.head.op, |resumed| resumed.at.op);
        (!log.sealed.is_empty() && read_from < end).then_some(end)
    }
}

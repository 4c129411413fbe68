//! Letting go of what cannot be read any more: with a snapshot of another replica in the place of one that would have to be made of
//! it.
//!
//! ```text
//!   segments here    | 1 ... rotten ... 40 | 41 ......... 80 | 81 ......... 120 | 121 ...
//!   first to keep                                                    ^ 100
//!   a snapshot of 55                             : summed up from here, to 80
//!   one of 90                                                   : none fits
//! ```
//! Replicas need not end their segments with the same prepares: sizes that are configured anew reach one after the other, and so
//! do keys. So a snapshot may end anywhere in a segment here. It fits if a segment ends with its prepare or behind it that
//! goes as a whole. What lies between is summed up from here; the prepare behind the snapshot proves that it is of this log, for it
//! names the snapshot's as its parent. What stands before that one is not read: it may be what has rotted.

use varve_protocol::id::Op;
use varve_protocol::mark::Mark;
use varve_protocol::mutant::Mutant;
use varve_protocol::prepare::{PrepareHeader, PrepareId};
use varve_protocol::snapshot::Snapshot;

use crate::base::{Summarize, remove_all, snapshot_path};
use crate::disk::{Disk, DiskFile};
use crate::error::{IoContext, StorageError};
use crate::index_file;
use crate::job::ReadFrom;
use crate::log::{Log, WALK_BYTES, open_segment};
use crate::reader::{Chain, Cursor};
use crate::resume;
use crate::segment::{FIRST_POSITION, Segment};

/// What a snapshot of another replica was good for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Help {
    /// Segments were let go with it.
    Went,
    /// It is not of this log, or is older than what this log builds on, or is of what is to be kept here as yet.
    Nothing,
    /// It ends behind the last segment that goes as a whole, and before what is to be kept.
    NoneFits,
    /// It is what this log builds on, and took the place of the one here, which could not be read.
    Restored,
}

impl<F: DiskFile> Log<F> {
    /// Lets go of the segments that lie wholly before `first`, as far as the snapshot helps to.
    ///
    /// # Errors
    /// `Damaged` if what lies behind the snapshot cannot be read either: nothing is let go then.
    pub(crate) fn let_go_with<D: Disk<File = F>>(
        &mut self,
        disk: &D,
        (snapshot, first): (&Snapshot, Op),
        summarize: Summarize,
    ) -> Result<Help, StorageError> {
        assert!(self.gaps.is_empty(), "a log with holes lets go of nothing");
        let count = (0..self.sealed.len()).take_while(|place| self.last_of(*place).op < first).count();
        let end = count.checked_sub(1).map_or(self.base.head, |newest| self.last_of(newest));
        if snapshot.op() < self.base.head.op || snapshot.op() >= first {
            return Ok(Help::Nothing);
        }
        if count == 0 && snapshot.id() == self.base.head && self.snapshot(disk).is_err() {
            self.write_base(disk, snapshot)?;
            Mark::SnapshotRestored.hit();
            return Ok(Help::Restored);
        }
        if snapshot.op() > end.op {
            return Ok(Help::NoneFits);
        }
        let Some(base) = self.sum_up_behind(disk, (snapshot, count), summarize)? else {
            return Ok(Help::Nothing);
        };
        let is_within = (0..count).all(|place| self.last_of(place).op != snapshot.op());
        let group = self.chain.group;
        self.write_base(disk, &base)?;
        let gone: Vec<_> = self.sealed.drain(..count).map(|segment| segment.path).collect();
        remove_all(disk, group, &gone)?;
        index_file::remove(disk, gone.iter());
        let before = std::mem::replace(&mut self.base, Chain::behind(&base)).head.op;
        if before > Op::ZERO {
            remove_all(disk, group, &[snapshot_path(group, before)])?;
        }
        Mark::LetGoWithPeers.hit();
        if is_within {
            Mark::LetGoInSegment.hit();
        }
        resume::remove_before(disk, group, self.base.head.op.next())?;
        Ok(Help::Went)
    }

    /// What the first `count` segments have brought about, from the end of a snapshot on; none if it is not of this log.
    fn sum_up_behind<D: Disk<File = F>>(
        &self,
        disk: &D,
        (snapshot, count): (&Snapshot, usize),
        summarize: Summarize,
    ) -> Result<Option<Snapshot>, StorageError> {
        let behind = snapshot.id();
        let Some(entered) = (0..count).find(|place| self.last_of(*place).op > behind.op) else {
            let end = count.checked_sub(1).map(|newest| self.last_of(newest));
            return Ok(end.filter(|end| *end == behind).map(|_| snapshot.clone()));
        };
        let Some(start) = self.find_behind(disk, &self.sealed[entered], behind)? else { return Ok(None) };
        let unreadable = || self.sealed[entered].damaged(start, behind.op);
        let mut summary = summarize(Some(snapshot)).ok_or_else(unreadable)?;
        self.walk(disk, &self.sealed[entered], (behind.op.next(), start), &mut *summary)?;
        for segment in &self.sealed[entered + 1..count] {
            self.walk(disk, segment, segment.start(), &mut *summary)?;
        }
        summary.finish().ok_or_else(unreadable).map(Some)
    }

    /// Where the prepare begins that follows this one, in the segment that it is in; none if another one does.
    fn find_behind<D: Disk<File = F>>(
        &self,
        disk: &D,
        segment: &Segment,
        behind: PrepareId,
    ) -> Result<Option<u64>, StorageError> {
        let follows = |parent: PrepareId| parent == behind || Mutant::SnapshotUnlinked.is_on();
        if segment.header.first_op() == behind.op.next() {
            return Ok(follows(segment.header.parent).then_some(FIRST_POSITION));
        }
        let wanted = behind.op.next();
        let (mut op, position) = segment
            .index
            .find(ReadFrom::Op(wanted))
            .map_or(segment.start(), |entry| (entry.op, entry.position));
        let file = open_segment(disk, segment)?;
        let mut cursor = Cursor::new(&file, &segment.seal, position, segment.end, WALK_BYTES);
        while op < wanted {
            match self.expect_header(segment, &mut cursor, op) {
                Ok(header) => cursor.skip(&header),
                Err(error) if error.is_repairable() => break,
                Err(error) => return Err(error),
            }
            op = op.next();
        }
        let is_wanted = |header: &PrepareHeader| header.op() == wanted && self.chain.is_mine(header);
        let found = if op == wanted {
            cursor.header().or_failed_to("read", &segment.path)?.filter(is_wanted)
        } else {
            // What stands before it cannot be read, and need not be.
            let is_it = |header: &PrepareHeader, _| is_wanted(header) && follows(header.parent());
            cursor.find(is_it).or_failed_to("read", &segment.path)?
        };
        let header = found.ok_or_else(|| segment.damaged(cursor.position(), wanted))?;
        Ok(follows(header.parent()).then_some(cursor.position()))
    }
}

//! What is local in a segment, and its file: compared with what is known, and written anew where it differs. The snapshot is only
//! looked at.
//!
//! Of a local block only what is read of it matters: the header, and the two slots. A sealed segment has one slot that says so;
//! the one that is appended to has the slot of its newest round, which the log knows, and an older one that nobody needs. Each is
//! in a sector of its own: a crash while they are written leaves no less than was there.

use std::io;

use bytes::Bytes;
use varve_protocol::id::Op;
use varve_protocol::mark::Mark;

use super::Finding;
use super::tolerant::{Tolerant, read_around};
use crate::base::snapshot_path;
use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{IoContext, StorageError};
use crate::file;
use crate::log::Log;
use crate::segment::{BLOCK_SIZE, RoundSlot, Segment, SegmentHeader, Slots};

const SECTOR: usize = 512;

impl<F: DiskFile> Log<F> {
    /// Looks at what the log builds on, before its first segment.
    pub(super) fn look_at_snapshot<D: Disk<File = F>>(
        &self,
        disk: &D,
        place: usize,
    ) -> Result<Option<Finding>, StorageError> {
        if place > 0 || self.base.head.op == Op::ZERO {
            return Ok(None);
        }
        let path = snapshot_path(self.chain.group, self.base.head.op);
        let is_rotten = self.snapshot(disk).is_err();
        if is_rotten {
            Mark::SnapshotRotten.hit();
        }
        Ok(is_rotten.then_some(Finding::Snapshot { path, id: self.base.head }))
    }

    /// Looks at the local block of a segment.
    pub(crate) fn look_at_block<D: Disk<File = F>>(
        &mut self,
        disk: &D,
        place: usize,
    ) -> Result<Option<Finding>, StorageError> {
        let segment = self.segment_at(place);
        let path = segment.path.clone();
        let is_sealed = place < self.sealed.len();
        if !is_sealed && self.is_dirty() {
            // Its newest slot may be on its way to the disk.
            return Ok(None);
        }
        let file = match disk.open(&path, OpenMode::Existing) {
            Ok(file) => Tolerant(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound && is_sealed => {
                let block = segment.header.encode_with(self.seal_of(place, None));
                Mark::FileMended.hit();
                file::create_whole(disk, &path, Bytes::from(block))?;
                return Ok(Some(Finding::Block { path }));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Mark::FileRewritten.hit();
                self.rewrite_active(disk)?;
                return Ok(Some(Finding::Block { path }));
            }
            Err(error) => return Err(StorageError::io("open", &path, error)),
        };
        let mut block = vec![0; BLOCK_SIZE];
        let read = file.read_at(&mut block, 0).or_failed_to("read", &path)?;
        let is_cut = read < BLOCK_SIZE;
        let slots = Slots::decode(&block, &segment.header);
        let slot = if is_sealed { self.seal_of(place, slots.newest) } else { self.writer.slot() };
        let is_named = SegmentHeader::decode(&block, &path).is_ok_and(|header| header == segment.header);
        if is_named && slots.are_sound && slots.newest == Some(slot) && !is_cut {
            return Ok(None);
        }
        Mark::BlockMended.hit();
        write_rotten_sectors(&file, segment, &block, slot)?;
        Ok(Some(Finding::Block { path }))
    }

    /// Gives the file that is appended to its name again, which somebody has removed: what can be read of the file that is still open
    /// is written anew.
    fn rewrite_active<D: Disk<File = F>>(&mut self, disk: &D) -> Result<(), StorageError> {
        let path = self.active.path.clone();
        let read = |buffer: &mut [u8], position| read_around(&self.writer.file, buffer, position);
        let copy = file::create_copy(disk, &path, (read, self.active.end))?;
        self.writer.go_on_in(copy, self.active.end);
        self.note_synced();
        Ok(())
    }

    /// The slot of a sealed segment: the one that is there if it says so, else one behind it.
    fn seal_of(&self, place: usize, newest: Option<RoundSlot>) -> RoundSlot {
        let segment = self.segment_at(place);
        let op = self.segment_at(place + 1).header.first_op();
        match newest {
            Some(slot) if slot.is_sealed && slot.op == op => slot,
            Some(RoundSlot { round, .. }) => {
                RoundSlot { round: round + 1, op, position: segment.end, is_sealed: true }
            }
            None => RoundSlot { round: 1, op, position: segment.end, is_sealed: true },
        }
    }
}

/// Makes the block say what it has to; `slot` is its newest, and is there before anything else is overwritten.
fn write_rotten_sectors<F: DiskFile>(
    file: &F,
    segment: &Segment,
    block: &[u8],
    slot: RoundSlot,
) -> Result<(), StorageError> {
    let path = &segment.path;
    let wanted = Bytes::from(segment.header.encode_with(slot));
    let newest = slot.position_in_block();
    let others = (0..BLOCK_SIZE).step_by(SECTOR).filter(|at| *at != newest);
    for at in std::iter::once(newest).chain(others) {
        let sector = wanted.slice(at..at + SECTOR);
        if block[at..at + SECTOR] != sector {
            file.write_at(&[sector], at as u64).or_failed_to("write to", path)?;
        }
    }
    file.sync().or_failed_to("sync", path)
}

//! The file that a log is appended to: its room, its round slot, and whether it waits for a sync.
//!
//! Overwriting blocks that were written before costs a sync no metadata, about half the time for small appends. So when a small
//! write would pass the room of the file, the next piece is filled with zeros first: 4 KiB, doubling up to that of 16 such writes,
//! 256 KiB at most. So an idle group stays small, and the sync that carries the zeros is not much longer than others: for writes of
//! 4 KiB, pieces of 256 KiB save no more time than those of 64, and one in a hundred writes waits half as long again. Writing zeros
//! ahead of large writes would cost more than it saves; they extend the file themselves; but what is made of a segment that was let go
//! of (`spare`) is as long as that was. Blocks that are only allocated ahead save nothing: what was never written is metadata, too
//! (`benches/preallocation.rs`). But they do where the journal makes small writes durable, and many files are synced at once later: a
//! checkpoint of 1,000 files takes 50 ms instead of 72.
//!
//! Each write goes on with zeros to the end of its page, if the file is as long. Of a page that is written over in part only, the
//! system has to read the rest first if it is not in memory; a page of a segment that was let go of seldom is. That was a third of the
//! time of a durable write of 4 KiB there, and a tenth of one of 1 MiB.
//!
//! When the disk is full the file is cut where the segment ends, so that the log is as before ([`Room`]). Only what may extend a
//! file counts as that: a failed write to a round slot, which overwrites, is a failure like any other.

use std::path::Path;

use bytes::Bytes;
use varve_protocol::id::Op;
use varve_protocol::mark::Mark;

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{IoContext, StorageError};
use crate::file;
use crate::segment::{BLOCK_SIZE, FIRST_POSITION, RoundSlot, Segment, Slots};

/// The largest write that zeros are filled ahead for.
const SMALL_WRITE_BYTES_MAX: u64 = 64 << 10;
/// What the system reads and writes at once.
const PAGE_BYTES: u64 = 4096;
/// So many writes the zeros that are filled ahead are for, at most.
const ROOM_WRITES_MAX: u64 = 16;
const ROOM_BYTES_MIN: u64 = 4 << 10;
const ROOM_BYTES_MAX: u64 = 256 << 10;
const ZEROS: &[u8] = &[0; 64 << 10];

/// Whether there was room for what was to be written; if not, all is as before.
#[derive(Debug)]
pub(crate) enum Room {
    Enough,
    /// The disk is full; says what failed.
    Lacking(StorageError),
}

impl Room {
    /// What a write shows that leaves nothing behind if the disk is full. Any other failure is one.
    pub(crate) fn after<T>(written: Result<T, StorageError>) -> Result<Self, StorageError> {
        match written {
            Ok(_) => Ok(Self::Enough),
            Err(error) if error.is_disk_full() => Ok(Self::Lacking(error)),
            Err(error) => Err(error),
        }
    }
}

/// How a file gets longer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Growth {
    /// By a piece of zeros at a time, for the syncs that follow.
    Ahead,
    /// By what is written: nobody syncs this file soon. Room is set aside.
    AsWritten,
}

/// The open end of a log.
pub(crate) struct Writer<F> {
    pub(crate) file: F,
    /// Bytes of the file that are written, with zeros at least.
    allocated: u64,
    /// Where the room ends that is set aside; what is written may reach further.
    set_aside: u64,
    /// The newest slot on the disk or on its way there.
    slot: RoundSlot,
    /// Something was written since the last sync.
    is_dirty: bool,
}

impl<F: DiskFile> Writer<F> {
    /// Makes the file of an empty segment, durably.
    pub(crate) fn create<D: Disk<File = F>>(
        disk: &D,
        segment: &Segment,
        round: u64,
    ) -> Result<Self, StorageError> {
        let block = Bytes::from(segment.header.encode(round));
        let slot = segment.header.first_slot(round);
        let path = &segment.path;
        // One that is gone has gone with a log that another one has taken the place of.
        if let Some(spare) = path.parent().and_then(|dir| disk.take_spare(dir))
            && file::is_there(disk, &spare)?
        {
            Mark::SpareUsed.hit();
            let file = file::create_over(disk, path, &spare, block)?;
            let allocated = file.size().or_failed_to("read the size of", path)?;
            return Ok(Self { file, allocated, set_aside: 0, slot, is_dirty: false });
        }
        let file = file::create_whole(disk, path, block)?;
        Ok(Self { file, allocated: FIRST_POSITION, set_aside: 0, slot, is_dirty: false })
    }

    /// Opens the file of a segment that is appended to again.
    pub(crate) fn open<D: Disk<File = F>>(disk: &D, segment: &Segment) -> Result<Self, StorageError> {
        let path = &segment.path;
        let file = disk.open(path, OpenMode::Existing).or_failed_to("open", path)?;
        let allocated = file.size().or_failed_to("read the size of", path)?;
        let mut block = vec![0; BLOCK_SIZE];
        file.read_at(&mut block, 0).or_failed_to("read", path)?;
        let slot = Slots::decode(&block, &segment.header).newest;
        let slot = slot.ok_or_else(|| segment.damaged(0, segment.header.first_op()))?;
        Ok(Self { file, allocated, set_aside: 0, slot, is_dirty: false })
    }

    /// Goes on in a copy of the file that is written and durable up to here.
    pub(crate) fn go_on_in(&mut self, copy: F, allocated: u64) {
        *self = Self { file: copy, allocated, set_aside: 0, slot: self.slot, is_dirty: false };
    }

    pub(crate) fn slot(&self) -> RoundSlot {
        self.slot
    }

    /// Writes chunks behind the end of the segment; the first write after a sync begins a round.
    /// When there is no room for them, the file ends where the segment does.
    pub(crate) fn append(
        &mut self,
        segment: &Segment,
        op: Op,
        (mut chunks, growth): (Vec<Bytes>, Growth),
    ) -> Result<Room, StorageError> {
        if !self.is_dirty {
            self.write_slot(segment, op, segment.end)?;
        }
        self.is_dirty = true;
        let size: u64 = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        match growth {
            Growth::Ahead => self.make_room(segment, size)?,
            Growth::AsWritten => self.set_room_aside(segment.end + size, size),
        }
        let end = segment.end + size;
        let padding = end.next_multiple_of(PAGE_BYTES).min(self.allocated).saturating_sub(end);
        chunks.push(Bytes::from_static(&ZEROS[..usize::try_from(padding).expect("it is less than a page")]));
        let written = self.file.write_at(&chunks, segment.end).or_failed_to("append to", &segment.path);
        let room = Room::after(written)?;
        match &room {
            Room::Enough => self.allocated = self.allocated.max(end),
            Room::Lacking(_) => self.cut(segment, segment.end)?,
        }
        Ok(room)
    }

    /// Sets aside room for a small write that ends here, and some more; without that it is found when it is needed.
    fn set_room_aside(&mut self, end: u64, size: u64) {
        let from = self.allocated.max(self.set_aside);
        if end <= from || size > SMALL_WRITE_BYTES_MAX {
            return;
        }
        let room = (from - FIRST_POSITION).clamp(ROOM_BYTES_MIN, ROOM_BYTES_MAX);
        let room = room.max((end - from).next_multiple_of(PAGE_BYTES));
        if self.file.set_aside(from, room).is_ok() {
            self.set_aside = from + room;
        }
    }

    fn make_room(&mut self, segment: &Segment, size: u64) -> Result<(), StorageError> {
        let need = segment.end + size;
        let room_max = size.next_multiple_of(PAGE_BYTES) * ROOM_WRITES_MAX;
        let room_max = room_max.clamp(ROOM_BYTES_MIN, ROOM_BYTES_MAX);
        let room = (self.allocated - FIRST_POSITION).clamp(ROOM_BYTES_MIN, room_max);
        if need <= self.allocated || size > room.min(SMALL_WRITE_BYTES_MAX) {
            return Ok(());
        }
        let room_bytes = usize::try_from(room).expect("the room is 256 KiB at most");
        let mut zeros = vec![Bytes::from_static(ZEROS); room_bytes / ZEROS.len()];
        zeros.push(Bytes::from_static(&ZEROS[..room_bytes % ZEROS.len()]));
        let written = self.file.write_at(&zeros, self.allocated).or_failed_to("extend", &segment.path);
        match Room::after(written)? {
            Room::Enough => self.allocated += room,
            // What is to be written may still fit.
            Room::Lacking(_) => self.cut(segment, self.allocated)?,
        }
        Ok(())
    }

    /// Notes that everything from `op` on is not durable yet, unless the newest slot says that very thing.
    /// Everything before `op` must be durable: a slot that overtook it would make a torn write look like rot.
    pub(crate) fn write_slot(
        &mut self,
        segment: &Segment,
        op: Op,
        position: u64,
    ) -> Result<(), StorageError> {
        assert!(!self.is_dirty, "a slot is written when all before it is durable");
        if self.slot.op == op {
            assert!(self.slot.position == position, "an op has one position in a segment");
            return Ok(());
        }
        self.force_slot(segment, op, position)
    }

    /// As [`Self::write_slot`], also if the newest slot says it already: to overwrite a rotten one.
    pub(crate) fn force_slot(
        &mut self,
        segment: &Segment,
        op: Op,
        position: u64,
    ) -> Result<(), StorageError> {
        self.put_slot(segment, RoundSlot { round: self.slot.round + 1, op, position, is_sealed: false })
    }

    /// Notes, durably, that the next file is there, which begins with `next`.
    pub(crate) fn seal(&mut self, segment: &Segment, next: Op) -> Result<(), StorageError> {
        let round = self.slot.round + 1;
        self.put_slot(segment, RoundSlot { round, op: next, position: segment.end, is_sealed: true })?;
        self.sync(&segment.path)
    }

    /// Takes that back, before the next file is removed.
    pub(crate) fn unseal(&mut self, segment: &Segment, next: Op) -> Result<(), StorageError> {
        self.force_slot(segment, next, segment.end)?;
        self.sync(&segment.path)
    }

    fn put_slot(&mut self, segment: &Segment, slot: RoundSlot) -> Result<(), StorageError> {
        let bytes = Bytes::copy_from_slice(&slot.encode(&segment.header));
        let at = slot.position_in_block() as u64;
        self.is_dirty = true;
        self.file.write_at(&[bytes], at).or_failed_to("write a round slot to", &segment.path)?;
        self.slot = slot;
        Ok(())
    }

    /// Ends the file at `position`: nothing behind it is ever read again.
    pub(crate) fn cut(&mut self, segment: &Segment, position: u64) -> Result<(), StorageError> {
        self.is_dirty = true;
        self.file.set_size(position).or_failed_to("cut", &segment.path)?;
        (self.allocated, self.set_aside) = (position, 0);
        Ok(())
    }

    /// Makes everything written durable.
    pub(crate) fn sync(&mut self, path: &Path) -> Result<(), StorageError> {
        if self.is_dirty {
            self.file.sync().or_failed_to("sync", path)?;
            self.is_dirty = false;
        }
        Ok(())
    }

    pub(crate) fn is_dirty(&self) -> bool {
        self.is_dirty
    }

    /// Notes that everything written is durable, because the whole disk is.
    pub(crate) fn note_synced(&mut self) {
        self.is_dirty = false;
    }
}

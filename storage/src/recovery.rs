//! Opening a log: what of it is sound, and whether the rest may be cut or has to be mourned.
//!
//! Rounds follow each other: one begins only when the sync of the one before returned. So whatever lies before the
//! newest round was durable, and was perhaps acknowledged; whatever belongs to it may be torn. The newest readable slot
//! of a segment says where a round began: the newest round itself, or the one before if the slot was torn away with its
//! round. The scan goes from prepare to prepare while headers, bodies and the hash chain are sound, and is judged so:
//!
//! | segment  | slots                  | the scan ended             | behind it          | verdict                            |
//! |----------|------------------------|----------------------------|--------------------|------------------------------------|
//! | sealed   | not asked              | at the end of the file     | nothing            | sound, if the next one follows it  |
//! | sealed   | not asked              | elsewhere                  | anything           | damaged: it was synced             |
//! | newest   | none readable          | anywhere                   | anything           | damaged: one was synced at birth   |
//! | newest   | readable               | before the slot's op       | anything           | damaged: it was synced             |
//! | newest   | readable               | at the slot's op, elsewhere than the slot says | anything | damaged          |
//! | newest   | readable               | at or behind the slot's op | nothing, or zeros  | sound: this is the end             |
//! | newest   | both sound             | at or behind the slot's op | anything else      | torn, never acknowledged: cut      |
//! | newest   | one readable, one rotten | at or behind the slot's op | anything else    | damaged: the rotten one may have been the newer |
//!
//! The cases of a crash in round r, all covered by these: slot r there or not, times any subset of the round's sectors.
//! Slot there, data partial: cut at the first gap. Slot not there, data partial: the scan passes the end of round r-1
//! and is cut at the first gap too. Prepares that survived whole in front of the first gap stay: they were not
//! acknowledged, and to hold them harms nobody. Prepares behind it, or of an older and cut branch (they do not fit the
//! hash chain), go with the cut: the file is shortened, so they are never parsed again.
//!
//! What this cannot tell: rot in the newest round, after it was acknowledged, looks like a tear. To keep that window
//! small, opening a log seals it: a slot says that the next round begins behind what is found sound. From there on damage to
//! it is called damage. Whoever opens logs syncs the whole disk twice, however many there are: before, because the process
//! before may have died before its sync and a slot vouches for what is durable; and after, for the slots.
//!
//! The files of a damaged log are left as they are.

use std::path::Path;

use varve_protocol::id::{GroupId, Op};
use varve_protocol::mutant::Mutant;
use varve_protocol::prepare::{Prepare, PrepareId};

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{IoContext, StorageError};
use crate::file;
use crate::identity::Identity;
use crate::log::{Log, group_dir};
use crate::reader::{Chain, Cursor};
use crate::segment::{self, BLOCK_SIZE, FIRST_POSITION, RoundSlot, Segment, SegmentHeader, Slots};
use crate::writer::Writer;

const READ_BYTES: usize = 1 << 20;

/// What became of a log: its end as far as it is sound, and the log or why there is none.
pub(crate) struct Recovered<F> {
    pub(crate) head: PrepareId,
    pub(crate) log: Result<Log<F>, StorageError>,
}

/// Opens the log of a group, and shows every sound prepare to `visit`, in order. What the disk holds must be durable before;
/// the log says whether it waits for a sync afterwards.
pub(crate) fn recover<D: Disk>(
    disk: &D,
    identity: Identity,
    group: GroupId,
    visit: &mut dyn FnMut(GroupId, &Prepare),
) -> Recovered<D::File> {
    let chain = Chain::root(identity.cluster, group);
    let mut recovery = Recovery { disk, identity, chain, segments: Vec::new(), visit };
    let log = recovery.run();
    Recovered { head: recovery.chain.head, log }
}

struct Recovery<'a, D: Disk> {
    disk: &'a D,
    identity: Identity,
    /// The end of what was found sound so far.
    chain: Chain,
    segments: Vec<Segment>,
    visit: &'a mut dyn FnMut(GroupId, &Prepare),
}

impl<D: Disk> Recovery<'_, D> {
    fn run(&mut self) -> Result<Log<D::File>, StorageError> {
        let dir = group_dir(self.chain.group);
        let mut names = file::list_whole(self.disk, &dir)?;
        names.retain(|name| segment::parse_file_name(name).is_some());
        let Some((newest, sealed)) = names.split_last() else { return Err(self.missing(&dir)) };
        for name in sealed {
            self.scan_sealed(&dir, name)?;
        }
        let (active, writer) = self.open_newest(&dir, newest)?;
        let sealed = std::mem::take(&mut self.segments);
        Ok(Log { identity: self.identity, chain: self.chain, sealed, active, writer })
    }

    /// The segment that should begin behind the sound ones is not there.
    fn missing(&self, dir: &Path) -> StorageError {
        let name = segment::file_name(self.chain.next_offset, self.chain.head.op.next());
        StorageError::Damaged { path: dir.join(name), position: 0, op: self.chain.head.op.next() }
    }

    fn scan_sealed(&mut self, dir: &Path, name: &str) -> Result<(), StorageError> {
        let (mut segment, file, _) = self.open_segment(dir, name)?;
        let scan = self.scan(&mut segment, &file, None)?;
        if scan.position != scan.size {
            return Err(segment.damaged(scan.position, self.chain.head.op.next()));
        }
        self.segments.push(segment);
        Ok(())
    }

    fn open_newest(&mut self, dir: &Path, name: &str) -> Result<(Segment, Writer<D::File>), StorageError> {
        let (mut segment, file, slots) = self.open_segment(dir, name)?;
        let scan = self.scan(&mut segment, &file, slots.newest)?;
        let next_op = self.chain.head.op.next();
        let mut writer = Writer::open(self.disk, &segment)?;
        match judge(slots, &scan, next_op) {
            Verdict::Damaged => return Err(segment.damaged(scan.position, next_op)),
            Verdict::Sound => {}
            Verdict::Torn => {
                tracing::info!(group = %self.chain.group, op = %next_op, position = scan.position, "cut a torn round");
                if !Mutant::TornTailKept.is_on() {
                    writer.cut(&segment, scan.position)?;
                }
                // First what the slot will vouch for, then the slot.
                writer.sync(&segment.path)?;
            }
        }
        if slots.are_sound {
            writer.write_slot(&segment, next_op, scan.position)?;
        } else {
            writer.force_slot(&segment, next_op, scan.position)?;
        }
        Ok((segment, writer))
    }

    /// Opens a segment file, whose header must continue the chain.
    fn open_segment(&self, dir: &Path, name: &str) -> Result<(Segment, D::File, Slots), StorageError> {
        let path = dir.join(name);
        let file = self.disk.open(&path, OpenMode::Existing).or_failed_to("open", &path)?;
        let mut block = vec![0; BLOCK_SIZE];
        let read = file.read_at(&mut block, 0).or_failed_to("read", &path)?;
        let header = SegmentHeader::decode(&block[..read], &path)?;
        let segment = Segment::new(dir, header);
        if header.identity != self.identity || header.group != self.chain.group || read < BLOCK_SIZE {
            return Err(segment.damaged(0, header.first_op()));
        }
        if header.parent != self.chain.head || header.base_offset != self.chain.next_offset {
            return Err(self.missing(dir));
        }
        Ok((segment, file, Slots::decode(&block, &header)))
    }

    /// Goes from prepare to prepare while they are sound and continue the chain.
    fn scan(
        &mut self,
        segment: &mut Segment,
        file: &D::File,
        slot: Option<RoundSlot>,
    ) -> Result<Scan, StorageError> {
        let path = segment.path.clone();
        let size = file.size().or_failed_to("read the size of", &path)?;
        let mut cursor = Cursor::new(file, FIRST_POSITION, size, READ_BYTES);
        let mut slot_fits = true;
        loop {
            let position = cursor.position();
            if let Some(slot) = slot.filter(|slot| slot.op == self.chain.head.op.next()) {
                slot_fits = slot.position == position;
            }
            let header = cursor.header().or_failed_to("read", &path)?;
            let Some(header) = header.filter(|header| self.chain.accepts(header)) else { break };
            if Mutant::TornTailTooLong.is_on() && slot.is_some_and(|slot| slot.op == header.op()) {
                break;
            }
            let Some(prepare) = cursor.prepare(&header).or_failed_to("read", &path)? else { break };
            self.chain.push(&header);
            segment.index.push(&header, position);
            (self.visit)(self.chain.group, &prepare);
        }
        segment.end = cursor.position();
        let tail_is_zero = cursor.is_zero_to_end().or_failed_to("read", &path)?;
        Ok(Scan { position: segment.end, size, tail_is_zero, slot_fits })
    }
}

/// Where the sound prepares of a segment end.
#[derive(Clone, Copy, Debug)]
struct Scan {
    position: u64,
    size: u64,
    /// There is nothing behind, or only zeros.
    tail_is_zero: bool,
    /// The op of the slot was met where the slot says, or not met.
    slot_fits: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    Sound,
    Torn,
    Damaged,
}

/// The decision table for the newest segment.
fn judge(slots: Slots, scan: &Scan, next_op: Op) -> Verdict {
    let Some(newest) = slots.newest else { return Verdict::Damaged };
    if next_op < newest.op || !scan.slot_fits {
        return Verdict::Damaged;
    }
    match (scan.tail_is_zero, slots.are_sound) {
        (true, _) => Verdict::Sound,
        (false, true) => Verdict::Torn,
        (false, false) if !Mutant::RotTakenForTear.is_on() => Verdict::Damaged,
        (false, false) => Verdict::Torn,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: RoundSlot = RoundSlot { round: 4, op: Op::new(10), position: 5000 };

    #[test]
    fn the_newest_segment_is_judged_by_the_table() {
        use Verdict::{Damaged, Sound, Torn};
        let sound = Slots { newest: Some(OLD), are_sound: true };
        let one_rotten = Slots { newest: Some(OLD), are_sound: false };
        let none = Slots { newest: None, are_sound: false };
        let at_slot = |tail_is_zero| Scan { position: 5000, size: 9000, tail_is_zero, slot_fits: true };
        let elsewhere = |tail_is_zero| Scan { slot_fits: false, ..at_slot(tail_is_zero) };
        let cases = [
            (none, at_slot(true), 10, Damaged),
            (none, at_slot(false), 10, Damaged),
            (sound, at_slot(true), 9, Damaged),
            (sound, at_slot(false), 9, Damaged),
            (sound, elsewhere(true), 10, Damaged),
            (sound, elsewhere(false), 10, Damaged),
            (sound, at_slot(true), 10, Sound),
            (sound, at_slot(true), 12, Sound),
            (sound, at_slot(false), 10, Torn),
            (sound, at_slot(false), 12, Torn),
            (one_rotten, at_slot(true), 9, Damaged),
            (one_rotten, at_slot(true), 12, Sound),
            (one_rotten, at_slot(false), 12, Damaged),
        ];
        for (slots, scan, next_op, verdict) in cases {
            assert_eq!(judge(slots, &scan, Op::new(next_op)), verdict, "{slots:?} {scan:?} {next_op}");
        }
    }
}

//! Opening a log: what of it is sound, what is missing, and whether its end is to be believed.
//!
//! Rounds follow each other: one begins only when the sync of the one before returned. So whatever lies before the
//! newest round was durable, and was perhaps acknowledged; whatever belongs to it may be torn. The newest readable slot
//! of a segment says where a round began: the newest round itself, or the one before if the slot was torn away with its
//! round. The scan goes from prepare to prepare while headers, bodies and the hash chain are sound.
//!
//! **Holes.** Where it cannot go on although more was durable, it looks for the next sound prepare of this log: behind the
//! damage in the same file, and in the next one. That one names its parent, so what is missing in between is known by name,
//! and peers can give it back (`gap`). A file that is gone is a hole in the one before it. A rotten local block is written
//! anew from the name of the file and the chain.
//!
//! **The end.** Behind the last sound prepare the newest segment is judged so:
//!
//! | slots                    | the scan ended             | behind it       | verdict                                         |
//! |--------------------------|----------------------------|-----------------|-------------------------------------------------|
//! | none readable            | anywhere                   | anything        | end lost: one was synced at birth               |
//! | newest says sealed       | anywhere                   | anything        | end lost: there was a newer file                |
//! | readable                 | before the slot's op       | anything        | end lost: it was synced                         |
//! | readable                 | at the slot's op, elsewhere than the slot says | anything | refused: the two contradict each other |
//! | readable                 | at or behind the slot's op | nothing, or zeros | sound: this is the end                        |
//! | both sound               | at or behind the slot's op | anything else   | torn, never acknowledged, or of an older segment: cut |
//! | one readable, one rotten | at or behind the slot's op | anything else   | end lost: the rotten one may have been the newer |
//!
//! The cases of a crash in round r, all covered by these: slot r there or not, times any subset of the round's sectors.
//! Slot there, data partial: cut at the first gap. Slot not there, data partial: the scan passes the end of round r-1
//! and is cut at the first gap too. Prepares that survived whole in front of the first gap stay: they were not
//! acknowledged, and to hold them harms nobody. Prepares behind it, or of an older and cut branch (they do not fit the
//! hash chain), go with the cut: the file is shortened, so they are never parsed again.
//!
//! A lost end is not a hole, for nothing names what stood there. Its superblock says so before the log is cut to what is left
//! (`torn`), and the replica makes up for it in its own way (`varve_consensus`).
//!
//! What this cannot tell: rot in the newest round, after it was acknowledged, looks like a tear. To keep that window
//! small, opening a log seals it: a slot says that the next round begins behind what is found sound. From there on damage to
//! it is called damage. Whoever opens logs syncs the whole disk twice, however many there are: before, because the process
//! before may have died before its sync and a slot vouches for what is durable; and after, for the slots.

use std::collections::VecDeque;
use std::path::PathBuf;

use bytes::Bytes;
use varve_protocol::id::{GroupId, Offset, Op};
use varve_protocol::mark::Mark;
use varve_protocol::mutant::Mutant;
use varve_protocol::prepare::{Prepare, PrepareHeader, PrepareId};
use varve_protocol::resume_point::ResumePoint;
use varve_protocol::snapshot::Snapshot;

use crate::base::{self, Base};
use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{IoContext, StorageError};
use crate::file;
use crate::fresh::Fresh;
use crate::gap::Gap;
use crate::identity::Owner;
use crate::log::{Log, group_dir};
use crate::reader::{Chain, Cursor};
use crate::recent::Recent;
use crate::segment::{self, BLOCK_SIZE, FIRST_POSITION, RoundSlot, Segment, SegmentHeader, Slots};
use crate::torn::Torn;
use crate::writer::Writer;

mod derive;
mod tail;
mod verdict;

use tail::Resumed;
use verdict::{Scan, Verdict, judge};

const READ_BYTES: usize = 1 << 20;

/// What is found of a log when it is opened. Whichever of the first three comes begins it; should another one come, what was shown
/// of this log before is void.
#[derive(Clone, Copy, Debug)]
pub enum Piece<'a> {
    /// The log is shown from op 1 on.
    Root,
    /// It begins behind a snapshot.
    Snapshot(&'a Snapshot),
    /// It is shown from behind a resume point on.
    ResumePoint(&'a ResumePoint),
    /// The next prepare.
    Prepare(&'a Prepare),
}

/// How much of a log is read when it is opened.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Extent {
    /// What is behind its resume point.
    #[default]
    Tail,
    /// All of it.
    Whole,
}

/// What became of a log, and its end as far as it is sound.
pub(crate) struct Recovered<F> {
    pub(crate) head: PrepareId,
    /// What it builds on.
    pub(crate) snapshot: Option<Snapshot>,
    /// The end of the sealed segments, if there are any that have to be read again at the next start.
    pub(crate) unmarked: Option<Op>,
    pub(crate) found: Result<Found<F>, StorageError>,
}

/// What is left of a log.
pub(crate) enum Found<F> {
    /// All of it, or all but holes.
    Log(Box<Log<F>>),
    /// Not its end.
    Torn(Box<Torn>),
}

/// Opens the log of a group, and shows every sound prepare before the first hole to `visit`, in order, or those that are behind the
/// resume point. What the disk holds must be durable before; the log says whether it waits for a sync afterwards.
pub(crate) fn recover<D: Disk>(
    disk: &D,
    owner: &Owner,
    (group, extent): (GroupId, Extent),
    visit: &mut dyn FnMut(GroupId, Piece<'_>),
) -> Recovered<D::File> {
    let chain = Chain::root(owner.identity.cluster, group);
    let mut recovery = Recovery {
        disk,
        owner,
        dir: group_dir(group),
        base: chain,
        chain,
        snapshot: None,
        resumed: None,
        segments: Vec::new(),
        recent: Recent::default(),
        gaps: VecDeque::new(),
        visit,
    };
    let found = recovery.run(extent);
    let unmarked = recovery.unmarked(&found);
    Recovered { head: recovery.chain.head, snapshot: recovery.snapshot, unmarked, found }
}

struct Recovery<'a, D: Disk> {
    disk: &'a D,
    owner: &'a Owner,
    dir: PathBuf,
    /// What the log builds on.
    base: Chain,
    snapshot: Option<Snapshot>,
    /// The resume point that is gone on from.
    resumed: Option<Resumed>,
    /// The end of what was found so far.
    chain: Chain,
    segments: Vec<Segment>,
    /// Of the segment that is read.
    recent: Recent,
    gaps: VecDeque<Gap>,
    visit: &'a mut dyn FnMut(GroupId, Piece<'_>),
}

/// A segment file, and what its local block says.
struct Opened<F> {
    segment: Segment,
    file: F,
    slots: Slots,
    /// The block says whose file it is.
    is_named: bool,
}

type Place = (Offset, Op);

impl<D: Disk> Recovery<'_, D> {
    fn run(&mut self, extent: Extent) -> Result<Found<D::File>, StorageError> {
        if !self.has_directory()? {
            Mark::DirectoryLost.hit();
            return Ok(self.torn(Vec::new()));
        }
        match base::open(self.disk, self.owner, self.chain.group)? {
            Base::Root => {}
            Base::Snapshot(snapshot) => {
                self.base = Chain::behind(&snapshot);
                self.chain = self.base;
                self.snapshot = Some(snapshot);
            }
            Base::Lost => {
                Mark::SnapshotLost.hit();
                let names = self.disk.list(&self.dir).or_failed_to("list", &self.dir)?;
                let later = names.iter().map(|name| self.dir.join(name)).collect();
                return Ok(self.torn(later));
            }
        }
        let names = file::list_whole(self.disk, &self.dir)?;
        let places = places_of(&names);
        let shortcut = if extent == Extent::Tail { self.read_tail(&names, &places)? } else { None };
        if let Some(log) = shortcut {
            return Ok(log);
        }
        // What the shortcut could make nothing of is put aside.
        let places = places_of(&file::list_whole(self.disk, &self.dir)?);
        match &self.snapshot {
            None => (self.visit)(self.chain.group, Piece::Root),
            Some(snapshot) => (self.visit)(self.chain.group, Piece::Snapshot(snapshot)),
        }
        self.read(&places)
    }

    /// Reads the segments that begin at these places, in order, of which the last is the newest.
    fn read(&mut self, places: &[Place]) -> Result<Found<D::File>, StorageError> {
        let Some((newest, sealed)) = places.split_last() else { return Ok(self.torn(Vec::new())) };
        for (place, next) in sealed.iter().zip(&places[1..]) {
            self.read_sealed(*place, *next)?;
        }
        self.read_newest(*newest)
    }

    fn has_directory(&self) -> Result<bool, StorageError> {
        match self.disk.list(&self.dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            listed => listed.or_failed_to("list", &self.dir).map(|_| true),
        }
    }

    fn path(&self, (base_offset, first_op): Place) -> PathBuf {
        self.dir.join(segment::file_name(base_offset, first_op))
    }

    /// The file that should begin where the sound prepares end is not there, or says that it begins elsewhere.
    fn missing(&self) -> StorageError {
        let place = (self.chain.next_offset, self.chain.head.op.next());
        StorageError::Damaged { path: self.path(place), position: 0, op: place.1 }
    }

    fn read_sealed(&mut self, place: Place, next: Place) -> Result<(), StorageError> {
        let Some(opened) = self.open(place)? else {
            // Nothing says what it goes on from, for there is a hole before it. It is a part of that.
            Mark::FilePutAside.hit();
            return file::put_aside(self.disk, &self.path(place));
        };
        self.link(&opened.segment.header)?;
        let Opened { mut segment, file, slots, is_named } = opened;
        let scan = self.scan(&mut segment, &file, &|header, _| header.op() < next.1, None)?;
        if self.chain.head.op.next() == next.1 && scan.position < scan.size {
            Mark::TailBehindSealCut.hit();
            tracing::warn!(path = %segment.path.display(), "cut what is behind the end of a sealed segment");
            file.set_size(scan.position).or_failed_to("cut", &segment.path)?;
            file.sync().or_failed_to("sync", &segment.path)?;
        }
        let round = slots.newest.map_or(0, |slot| slot.round) + 1;
        let slot = RoundSlot { round, op: next.1, position: segment.end, is_sealed: true };
        if !is_named || slots.newest.is_none() {
            write_block(&file, &segment, slot)?;
        } else if !slots.newest.is_some_and(|slot| slot.is_sealed) {
            Writer::open(self.disk, &segment)?.seal(&segment, next.1)?;
        }
        self.keep_index(&segment, next)?;
        self.segments.push(segment);
        Ok(())
    }

    fn read_newest(&mut self, place: Place) -> Result<Found<D::File>, StorageError> {
        let Some(opened) = self.open(place)? else {
            let lost = self.path(place);
            return Ok(self.torn(vec![lost]));
        };
        self.link(&opened.segment.header)?;
        let Opened { mut segment, file, slots, is_named } = opened;
        // What the slot does not vouch for may be of a torn round, or of an older branch.
        let is_durable = |header: &PrepareHeader, position: u64| {
            slots.newest.is_some_and(|slot| {
                (header.op() < slot.op && (position < slot.position || slot.is_sealed))
                    || (header.op() == slot.op && position == slot.position)
            })
        };
        let scan = self.scan(&mut segment, &file, &is_durable, slots.newest)?;
        let next_op = self.chain.head.op.next();
        let verdict = judge(slots, &scan, next_op);
        match verdict {
            Verdict::Contradicted => {
                Mark::SlotContradicted.hit();
                return Err(segment.damaged(scan.position, next_op));
            }
            Verdict::EndLost => {
                Mark::EndLost.hit();
                self.segments.push(segment);
                return Ok(self.torn(Vec::new()));
            }
            Verdict::Sound | Verdict::Torn => {}
        }
        if !is_named {
            let block = segment.header.encode(0);
            let header = Bytes::from(block).slice(..SegmentHeader::SIZE);
            file.write_at(&[header], 0).or_failed_to("write to", &segment.path)?;
            file.sync().or_failed_to("sync", &segment.path)?;
        }
        let writer = self.end_at(&segment, &scan, slots, verdict)?;
        Ok(Found::Log(Box::new(Log {
            owner: self.owner.clone(),
            base: self.base,
            chain: self.chain,
            sealed: std::mem::take(&mut self.segments),
            active: segment,
            writer,
            recent: std::mem::take(&mut self.recent),
            fresh: Fresh::default(),
            gaps: std::mem::take(&mut self.gaps),
        })))
    }

    /// Makes the newest segment end where the scan did, and seals what was found.
    fn end_at(
        &self,
        segment: &Segment,
        scan: &Scan,
        slots: Slots,
        verdict: Verdict,
    ) -> Result<Writer<D::File>, StorageError> {
        let next_op = self.chain.head.op.next();
        let mut writer = Writer::open(self.disk, segment)?;
        if verdict == Verdict::Torn {
            Mark::TornRoundCut.hit();
            tracing::info!(group = %self.chain.group, op = %next_op, position = scan.position, "cut what is behind the last sound prepare");
            if !Mutant::TornTailKept.is_on() {
                writer.cut(segment, scan.position)?;
            }
            // First what the slot will vouch for, then the slot.
            writer.sync(&segment.path)?;
        }
        if slots.are_sound {
            writer.write_slot(segment, next_op, scan.position)?;
        } else {
            writer.force_slot(segment, next_op, scan.position)?;
        }
        Ok(writer)
    }

    /// What is left of a log whose end is lost; the files `later` hold nothing of it.
    fn torn(&mut self, later: Vec<PathBuf>) -> Found<D::File> {
        Found::Torn(Box::new(Torn {
            owner: self.owner.clone(),
            base: self.base,
            chain: self.chain,
            segments: std::mem::take(&mut self.segments),
            gaps: std::mem::take(&mut self.gaps),
            later,
        }))
    }

    /// Opens a segment file; none if neither its block nor what is around it says what it is.
    fn open(&self, place: Place) -> Result<Option<Opened<D::File>>, StorageError> {
        let path = self.path(place);
        let file = self.disk.open(&path, OpenMode::Existing).or_failed_to("open", &path)?;
        let mut block = vec![0; BLOCK_SIZE];
        let read = file.read_at(&mut block, 0).or_failed_to("read", &path)?;
        let named = match SegmentHeader::decode(&block[..read], &path) {
            Err(error) if !error.is_repairable() => return Err(error),
            decoded => decoded.ok(),
        };
        let derived = if named.is_none() { self.derive_header(&file, &path, place)? } else { None };
        let Some(header) = named.or(derived) else { return Ok(None) };
        let segment = Segment::new(&self.dir, header, &self.owner.keys)?;
        if header.identity != self.owner.identity || header.group != self.chain.group {
            return Err(segment.damaged(0, header.first_op()));
        }
        // A file is made whole with its block. What is cut off of it is not blank but lost.
        let lost = Slots { newest: None, are_sound: false };
        let slots = if read < BLOCK_SIZE { lost } else { Slots::decode(&block, &header) };
        Ok(Some(Opened { segment, file, slots, is_named: named.is_some() }))
    }

    /// Goes on to the next file, which may begin behind a hole.
    fn link(&mut self, header: &SegmentHeader) -> Result<(), StorageError> {
        if header.parent == self.chain.head && header.base_offset == self.chain.next_offset {
            return Ok(());
        }
        if header.parent.op <= self.chain.head.op || header.base_offset < self.chain.next_offset {
            return Err(self.missing());
        }
        if self.segments.is_empty() {
            let (parent, base_offset) = (self.chain.head, self.chain.next_offset);
            let first = SegmentHeader { parent, base_offset, ..*header };
            let segment = Segment::new(&self.dir, first, &self.owner.keys)?;
            Writer::create(self.disk, &segment, 0)?.seal(&segment, header.first_op())?;
            self.segments.push(segment);
        }
        Mark::HoleBetweenFiles.hit();
        let segment = self.segments.len() - 1;
        let position = self.segments[segment].end;
        self.gaps.push_back(Gap { chain: self.chain, last: header.parent, segment, position, end: None });
        self.chain.head = header.parent;
        self.chain.next_offset = header.base_offset;
        Ok(())
    }

    /// Goes from prepare to prepare while they are sound and continue the chain, and over holes to those that are accepted.
    fn scan(
        &mut self,
        segment: &mut Segment,
        file: &D::File,
        accepts: &dyn Fn(&PrepareHeader, u64) -> bool,
        slot: Option<RoundSlot>,
    ) -> Result<Scan, StorageError> {
        let path = segment.path.clone();
        let size = file.size().or_failed_to("read the size of", &path)?;
        let seal = segment.seal.clone();
        let mut cursor = Cursor::new(file, &seal, FIRST_POSITION, size, READ_BYTES);
        let mut slot_fits = true;
        self.recent = Recent::default();
        loop {
            self.scan_run(segment, &mut cursor, slot, &mut slot_fits)?;
            let (chain, position) = (self.chain, cursor.position());
            let is_behind = |header: &PrepareHeader, at: u64| {
                chain.may_lead_to(header) && header.op() > chain.head.op.next() && accepts(header, at)
            };
            let is_short = slot.is_none_or(|slot| slot.op > chain.head.op.next());
            let found = if is_short { cursor.find(is_behind).or_failed_to("read", &path)? } else { None };
            let Some(header) = found else { break };
            let (segment_index, end) = (self.segments.len(), Some(cursor.position()));
            let last = header.parent();
            Mark::HoleInFile.hit();
            self.gaps.push_back(Gap { chain, last, segment: segment_index, position, end });
            self.chain.head = last;
            self.chain.next_offset = header.base_offset();
            segment.index.mark(&header, cursor.position());
        }
        segment.end = cursor.position();
        let tail_is_zero = cursor.is_zero_to_end().or_failed_to("read", &path)?;
        Ok(Scan { position: segment.end, size, tail_is_zero, slot_fits })
    }

    fn scan_run(
        &mut self,
        segment: &mut Segment,
        cursor: &mut Cursor<'_, D::File>,
        slot: Option<RoundSlot>,
        slot_fits: &mut bool,
    ) -> Result<(), StorageError> {
        loop {
            let position = cursor.position();
            if let Some(slot) = slot.filter(|slot| slot.op == self.chain.head.op.next()) {
                *slot_fits = slot.position == position;
            }
            let header = cursor.header().or_failed_to("read", &segment.path)?;
            let Some(header) = header.filter(|header| self.chain.accepts(header)) else { return Ok(()) };
            if Mutant::TornTailTooLong.is_on() && slot.is_some_and(|slot| slot.op == header.op()) {
                return Ok(());
            }
            let prepare = cursor.prepare(&header).or_failed_to("read", &segment.path)?;
            let Some(prepare) = prepare else { return Ok(()) };
            self.chain.push(&header);
            segment.note(&header, position);
            self.recent.note(cursor.position(), &self.chain);
            self.show(&prepare);
        }
    }
}

/// Where the segment files with these names begin, in order.
fn places_of(names: &[String]) -> Vec<Place> {
    let mut places: Vec<_> = names.iter().filter_map(|name| segment::parse_file_name(name)).collect();
    places.sort_by_key(|(_, op)| *op);
    places
}

/// Writes the local block of a segment anew.
pub(crate) fn write_block<F: DiskFile>(
    file: &F,
    segment: &Segment,
    slot: RoundSlot,
) -> Result<(), StorageError> {
    tracing::warn!(path = %segment.path.display(), "the local block of a segment is written anew");
    let block = Bytes::from(segment.header.encode_with(slot));
    file.write_at(&[block], 0).or_failed_to("write to", &segment.path)?;
    file.sync().or_failed_to("sync", &segment.path)
}

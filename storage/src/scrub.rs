//! Looking at a log again while it is in use: one piece after the other, from prepare to prepare, and what has rotted since it
//! was written is told by name.
//!
//! Whoever has a log open knows more of it than its files say: where each segment begins and ends, which prepare stands before
//! it and which is its last. So damage is told from a torn write without a doubt, also in the newest round, and there is
//! nothing to be guessed: what cannot be read is a stretch between two positions, behind one prepare and up to another.
//!
//! | what is found                                            | what becomes of it                                            |
//! |----------------------------------------------------------|---------------------------------------------------------------|
//! | prepares that are rotten, cut off, or not those of this log | [`Damage`]: given back by peers (`patch`)                  |
//! | a sealed segment whose file is gone                      | the file is made anew, and all of it is such damage           |
//! | the file that is appended to is gone                     | is written anew, for it is still open (`block`)               |
//! | a local block or a slot in it                            | is written anew, from what is known (`block`)                 |
//! | a rotten snapshot                                        | is given back by a peer that has the same, or goes (`let_go`) |
//!
//! Nothing is looked at above the op that the caller names: what is committed and durable here stays where it is for good, so
//! a [`Mark`] and a [`Damage`] stay true, whatever happens to the log between two jobs; or their segment is gone, and they are
//! void. A place in a segment is a function of its first op and of what is committed behind it.
//!
//! What the disk cannot read counts like what has rotted: writing it again is what makes a disk put it elsewhere.

mod block;
mod let_go;
mod patch;
mod tolerant;

use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use varve_protocol::id::{Offset, Op};
use varve_protocol::mark;
use varve_protocol::mutant::Mutant;
use varve_protocol::prepare::{PrepareHeader, PrepareId};

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{IoContext, StorageError};
use crate::index::IndexEntry;
use crate::job::ReadFrom;
use crate::log::{Log, ReadLimit};
use crate::reader::{Chain, Cursor};
use crate::seal::MAGIC_AT;
use crate::segment::{FIRST_POSITION, Segment, SegmentHeader};
pub(crate) use let_go::Help;
use tolerant::Tolerant;

/// Where a look at a log begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ScrubFrom {
    /// At the nearest known place at or before where a read would start.
    Read(ReadFrom),
    /// Where the piece before ended.
    Mark(Mark),
}

/// Where a piece ends that was looked at, and the next one begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    /// The first op of the segment that it is in.
    segment: Op,
    position: u64,
    /// The prepare before it.
    after: PrepareId,
    next_offset: Offset,
    /// If there is damage here: up to where the next sound prepare was looked for.
    searched: Option<u64>,
}

impl Mark {
    /// The next op to be looked at.
    #[must_use]
    pub fn op(&self) -> Op {
        self.after.op.next()
    }

    fn start_of(segment: &Segment) -> Self {
        Self {
            segment: segment.header.first_op(),
            position: FIRST_POSITION,
            after: segment.header.parent,
            next_offset: segment.header.base_offset,
            searched: None,
        }
    }
}

/// A stretch of a segment that cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Damage {
    /// The prepare before the first missing one.
    pub after: PrepareId,
    /// The last missing one.
    pub last: PrepareId,
    next_offset: Offset,
    /// The first op of the segment that it is in.
    segment: Op,
    position: u64,
    end: u64,
    /// How far the segment reaches: what is before it, and its last prepare, if that is committed.
    widest: Widest,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Widest {
    after: PrepareId,
    next_offset: Offset,
    last: Option<(PrepareId, u64)>,
}

impl Damage {
    /// As much of the segment as can be named; none if it is that already. To be fetched instead if what is around the damage
    /// does not belong together: then what was taken for sound is of another branch of the log.
    #[must_use]
    pub fn widened(self) -> Option<Self> {
        let Widest { after, next_offset, last } = self.widest;
        let (last, end) = last.unwrap_or((self.last, self.end));
        let wide = Self { after, next_offset, position: FIRST_POSITION, last, end, ..self };
        (wide != self).then_some(wide)
    }
}

/// Something that was found in a log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Finding {
    /// Prepares cannot be read; peers can give them back.
    Prepares {
        /// In which file.
        path: PathBuf,
        /// Which ones.
        damage: Damage,
    },
    /// What is local in this file was damaged, and is written anew.
    Block {
        /// Which file.
        path: PathBuf,
    },
    /// The snapshot that the log builds on cannot be read; peers can give it back.
    Snapshot {
        /// In which file.
        path: PathBuf,
        /// The last prepare that it sums up.
        id: PrepareId,
    },
}

/// A piece of a log that was looked at.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Scrubbed {
    /// Bytes that were read.
    pub bytes: u64,
    /// Where to go on; none if all was looked at that can be.
    pub next: Option<Mark>,
    /// What is damaged.
    pub findings: Vec<Finding>,
}

/// One piece, as far as it is looked at.
struct Look<'a, F> {
    segment: &'a Segment,
    file: &'a Tolerant<F>,
    /// The last prepare of the segment.
    last: PrepareId,
    limit: ReadLimit,
}

/// How a look at a segment ended.
enum Ended {
    /// So much was enough for once.
    Enough(Mark),
    /// At the end of the segment.
    AtEnd,
    /// At the newest op that is to be looked at, or where too little is known of what is behind it.
    AtLimit,
    /// At damage, behind which it goes on; none: in the next segment.
    AtDamage(Damage, Option<Mark>),
}

impl<F: DiskFile> Log<F> {
    fn place_of(&self, first_op: Op) -> Option<usize> {
        let mut segments = self.sealed.iter().chain([&self.active]);
        segments.position(|segment| segment.header.first_op() == first_op)
    }

    fn segment_at(&self, place: usize) -> &Segment {
        self.sealed.get(place).unwrap_or(&self.active)
    }

    /// The last prepare of a segment.
    fn last_of(&self, place: usize) -> PrepareId {
        if place < self.sealed.len() { self.segment_at(place + 1).header.parent } else { self.chain.head }
    }

    /// Looks at about `bytes_max` bytes of the log, up to op `last`, and at one prepare at least.
    ///
    /// # Errors
    /// When a local block cannot be written anew.
    pub(crate) fn scrub<D: Disk<File = F>>(
        &mut self,
        disk: &D,
        from: ScrubFrom,
        limit: ReadLimit,
    ) -> Result<Scrubbed, StorageError> {
        let place_of = |mark: Mark| Some((self.place_of(mark.segment)?, mark));
        let known = match from {
            ScrubFrom::Read(_) => None,
            ScrubFrom::Mark(mark) => place_of(mark),
        };
        let (place, mark) = match (known, from) {
            (Some(known), _) => known,
            (None, ScrubFrom::Read(from)) => self.mark_before(disk, from)?,
            (None, ScrubFrom::Mark(mark)) => self.mark_before(disk, ReadFrom::Op(mark.op()))?,
        };
        let mut done = Scrubbed::default();
        if mark.position > self.segment_at(place).end || mark.op() > limit.last {
            return Ok(done);
        }
        if mark.position == FIRST_POSITION && mark.searched.is_none() {
            done.findings.extend(self.look_at_snapshot(disk, place)?);
            done.findings.extend(self.look_at_block(disk, place)?);
        }
        self.look(disk, (place, mark), limit, &mut done)?;
        if let (Some(Finding::Prepares { .. }), Some(behind)) = (done.findings.last(), done.next) {
            // What is behind the damage can be read without going through it.
            self.note_place(behind);
        }
        Ok(done)
    }

    fn note_place(&mut self, mark: Mark) {
        let (op, base_offset, position) = (mark.op(), mark.next_offset, mark.position);
        let place = self.place_of(mark.segment);
        let segment = place.map(|place| self.sealed.get_mut(place).unwrap_or(&mut self.active));
        if let Some(segment) = segment.filter(|_| position > FIRST_POSITION) {
            // Not earlier than it is, so that a read that begins at a time does not begin too late.
            let later = segment.index.entries().iter().find(|later| later.op > op);
            let timestamp = later.map_or(segment.newest, |later| later.timestamp);
            segment.index.note(IndexEntry { op, base_offset, position, timestamp });
        }
    }

    /// Looks at prepares.
    fn look<D: Disk<File = F>>(
        &self,
        disk: &D,
        (place, mark): (usize, Mark),
        limit: ReadLimit,
        done: &mut Scrubbed,
    ) -> Result<(), StorageError> {
        let segment = self.segment_at(place);
        let path = &segment.path;
        let file = match disk.open(path, OpenMode::Existing) {
            // Gone since its block was looked at.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => Tolerant(opened.or_failed_to("open", path)?),
        };
        let is_sealed = place < self.sealed.len();
        let ahead = limit.bytes_max as u64;
        if is_sealed {
            // What is in memory says nothing about the disk.
            file.drop_cached(mark.position, ahead);
        }
        let look = Look { segment, file: &file, last: self.last_of(place), limit };
        let chain = Chain { head: mark.after, next_offset: mark.next_offset, ..self.chain };
        let (ended, bytes) = look.go_on(chain, mark).or_failed_to("read", path)?;
        done.bytes += bytes;
        if is_sealed {
            file.drop_cached(mark.position, bytes.max(ahead));
        }
        let next = || is_sealed.then(|| Mark::start_of(self.segment_at(place + 1)));
        done.next = match ended {
            Ended::Enough(mark) => Some(mark),
            Ended::AtEnd => next(),
            Ended::AtLimit => None,
            Ended::AtDamage(damage, behind) => {
                mark::Mark::DamageFound.hit();
                done.findings.push(Finding::Prepares { path: path.clone(), damage });
                behind.or_else(next)
            }
        };
        Ok(())
    }

    /// The nearest place at or before the start of a read that is known without reading what is before it.
    fn mark_before<D: Disk<File = F>>(
        &self,
        disk: &D,
        from: ReadFrom,
    ) -> Result<(usize, Mark), StorageError> {
        let is_before = |segment: &&Segment| match from {
            ReadFrom::Op(op) => segment.header.parent.op < op,
            ReadFrom::Offset(offset) => segment.header.base_offset <= offset,
            ReadFrom::Time(time) => segment.oldest().is_some_and(|oldest| oldest < time),
        };
        let place = self.sealed.iter().chain([&self.active]).take_while(is_before).count().saturating_sub(1);
        let segment = self.segment_at(place);
        let start = Mark::start_of(segment);
        let Ok(file) = disk.open(&segment.path, OpenMode::Existing) else { return Ok((place, start)) };
        let file = Tolerant(file);
        let mut from = from;
        while let Some(entry) = segment.index.find(from).filter(|entry| entry.op > start.segment) {
            let mut cursor =
                Cursor::new(&file, &segment.seal, entry.position, segment.end, segment.seal.head_size());
            let header = cursor.header().or_failed_to("read", &segment.path)?;
            if let Some(header) =
                header.filter(|header| self.chain.is_mine(header) && header.op() == entry.op)
            {
                let (after, next_offset) = (header.parent(), header.base_offset());
                return Ok((place, Mark { position: entry.position, after, next_offset, ..start }));
            }
            from = ReadFrom::Op(entry.op.previous());
        }
        Ok((place, start))
    }
}

impl<F: DiskFile> Look<'_, F> {
    /// Goes from prepare to prepare; also says how many bytes were read.
    fn go_on(&self, mut chain: Chain, mark: Mark) -> io::Result<(Ended, u64)> {
        let enough = mark.position + self.limit.bytes_max as u64;
        let mut cursor =
            Cursor::new(self.file, &self.segment.seal, mark.position, self.segment.end, self.limit.bytes_max);
        let mut searched = mark.searched;
        while searched.is_none() && chain.head.op < self.limit.last && cursor.position() < self.segment.end {
            let position = cursor.position();
            if position >= enough {
                return Ok((Ended::Enough(self.mark_at(position, &chain)), position - mark.position));
            }
            match self.sound(&mut cursor, &chain)? {
                Some(header) => chain.push(&header),
                None => searched = Some(position),
            }
        }
        let position = cursor.position();
        let read = position - mark.position;
        let ended = match searched {
            Some(from) => {
                let (ended, searched) = self.search(chain, position, from.max(position))?;
                return Ok((ended, read + searched));
            }
            None if position < self.segment.end => Ended::AtLimit,
            None if chain.head != self.last && self.last.op <= self.limit.last => {
                // It continues the log, and is not what the log goes on from: another branch, from before a write was lost.
                self.damage_of_all(&chain)
            }
            None => Ended::AtEnd,
        };
        Ok((ended, read))
    }

    /// The next prepare, if it is what has to be there.
    fn sound(
        &self,
        cursor: &mut Cursor<'_, Tolerant<F>>,
        chain: &Chain,
    ) -> io::Result<Option<PrepareHeader>> {
        let header = cursor.header()?.filter(|header| chain.accepts(header));
        let Some(header) = header else { return Ok(None) };
        if Mutant::ScrubTrustsHeaders.is_on() {
            cursor.skip(&header);
            return Ok(Some(header));
        }
        Ok(cursor.prepare(&header)?.map(|_| header))
    }

    fn mark_at(&self, position: u64, chain: &Chain) -> Mark {
        let segment = self.segment.header.first_op();
        Mark { segment, position, after: chain.head, next_offset: chain.next_offset, searched: None }
    }

    fn damage(&self, chain: &Chain, position: u64, (last, end): (PrepareId, u64)) -> Damage {
        let header = &self.segment.header;
        let is_committed = self.last.op <= self.limit.last;
        let widest = Widest {
            after: header.parent,
            next_offset: header.base_offset,
            last: is_committed.then_some((self.last, self.segment.end)),
        };
        let (segment, next_offset) = (header.first_op(), chain.next_offset);
        Damage { after: chain.head, last, next_offset, segment, position, end, widest }
    }

    /// All of the segment is to be given back.
    fn damage_of_all(&self, chain: &Chain) -> Ended {
        mark::Mark::BranchFound.hit();
        let SegmentHeader { parent, base_offset, .. } = self.segment.header;
        let start = Chain { head: parent, next_offset: base_offset, ..*chain };
        let damage = self.damage(&start, FIRST_POSITION, (self.last, self.segment.end));
        Ended::AtDamage(damage, None)
    }

    /// Looks for the next sound prepare behind damage at `position`, from `from` on; also says how many bytes it looked at.
    fn search(&self, chain: Chain, position: u64, from: u64) -> io::Result<(Ended, u64)> {
        let may_follow = |header: &PrepareHeader| {
            chain.may_lead_to(header) && header.op() > chain.head.op.next() && header.op() <= self.last.op
        };
        let (seal, end) = (&self.segment.seal, self.segment.end);
        let to = end.min(from + self.limit.bytes_max as u64);
        let bytes = self.bytes(from, end.min(to + seal.head_size() as u64))?;
        let count = usize::try_from(to - from).unwrap_or(usize::MAX);
        for at in (0..count)
            .filter(|at| bytes.get(at + MAGIC_AT..).is_some_and(|rest| rest.starts_with(&seal.magic())))
        {
            let found = from + at as u64;
            let header = seal.header(&bytes[at..]).ok().flatten().filter(may_follow);
            let Some(header) = header else { continue };
            let mut cursor = Cursor::new(self.file, seal, found, end, seal.stored_size(&header));
            if cursor.prepare(&header)?.is_none() {
                continue;
            }
            let last = header.parent();
            if last.op > self.limit.last {
                return Ok((Ended::AtLimit, found - from));
            }
            let behind = Chain { head: last, next_offset: header.base_offset(), ..chain };
            let damage = self.damage(&chain, position, (last, found));
            return Ok((Ended::AtDamage(damage, Some(self.mark_at(found, &behind))), found - from));
        }
        let mark = Mark { searched: Some(to), ..self.mark_at(position, &chain) };
        let ended = if to < end {
            mark::Mark::SearchPutOff.hit();
            Ended::Enough(mark)
        } else if self.last.op > self.limit.last {
            Ended::AtLimit
        } else if chain.head.op < self.last.op {
            Ended::AtDamage(self.damage(&chain, position, (self.last, end)), None)
        } else {
            self.damage_of_all(&chain)
        };
        Ok((ended, to - from))
    }

    fn bytes(&self, from: u64, to: u64) -> io::Result<Bytes> {
        let mut bytes = vec![0; usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX)];
        let read = self.file.read_at(&mut bytes, from)?;
        bytes.truncate(read);
        Ok(bytes.into())
    }
}

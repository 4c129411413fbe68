//! One group's log: sealed segments, which never change, and an active one, which is appended to.
//!
//! * A segment is sealed before the next one is made: cut to its size and synced. So only the newest can be torn.
//! * Names are made at the newer end only, and removed one after the other, so that a crash never leaves a hole. At the older
//!   end they go behind a snapshot (`base`).
//! * A failed write or sync leaves this value behind the disk: whoever owns it must drop it (the store closes the group). Only a
//!   disk that is full leaves it as it was.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use varve_protocol::id::{GroupId, Op, Timestamp};
use varve_protocol::log_start::LogStart;
use varve_protocol::mark::Mark;
use varve_protocol::mutant::Mutant;
use varve_protocol::prepare::{Prepare, PrepareHeader, PrepareId, PrepareKind};

use crate::base::Summary;
use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{IoContext, StorageError};
use crate::fresh::Fresh;
use crate::gap::Gap;
use crate::identity::Owner;
use crate::index_file;
use crate::job::{ActiveSegment, ReadFrom, SealedSegment};
use crate::reader::{Chain, Cursor};
use crate::recent::Recent;
use crate::segment::{FIRST_POSITION, Segment, SegmentHeader};
use crate::shelf::Shelf;
use crate::store::Options;
use crate::writer::{Growth, Room, Writer};

/// The directory of all groups.
pub(crate) const GROUPS_DIR: &str = "groups";

/// Bytes read at once when only headers are looked at.
pub(crate) const WALK_BYTES: usize = 64 << 10;
const READ_BYTES_MAX: usize = 1 << 20;

/// The directory of one group.
pub(crate) fn group_dir(group: GroupId) -> PathBuf {
    Path::new(GROUPS_DIR).join(format!("{:010}", group.as_raw()))
}

/// A group's log.
pub(crate) struct Log<F> {
    pub(crate) owner: Owner,
    /// What it builds on: the end of what was let go.
    pub(crate) base: Chain,
    pub(crate) chain: Chain,
    pub(crate) sealed: Vec<Segment>,
    pub(crate) active: Segment,
    pub(crate) writer: Writer<F>,
    pub(crate) recent: Recent,
    /// What is not durable yet.
    pub(crate) fresh: Fresh,
    /// What is missing, in order; nothing is appended or cut while there is anything.
    pub(crate) gaps: VecDeque<Gap>,
}

impl<F: DiskFile> Log<F> {
    /// Makes an empty log behind `base`; if its directory is new, that name is not durable yet.
    pub(crate) fn create<D: Disk<File = F>>(
        disk: &D,
        owner: &Owner,
        base: Chain,
    ) -> Result<Self, StorageError> {
        let dir = group_dir(base.group);
        disk.create_dir(&dir).or_failed_to("create directory", &dir)?;
        let active = next_segment(owner, &base)?;
        let writer = Writer::create(disk, &active, 0)?;
        let (sealed, recent, fresh, gaps) = Default::default();
        Ok(Self { owner: owner.clone(), base, chain: base, sealed, active, writer, recent, fresh, gaps })
    }

    pub(crate) fn head(&self) -> PrepareId {
        self.chain.head
    }

    /// Writes prepares behind the end; they are durable after the next [`Self::sync`]. When there is no room for all of them,
    /// [`Self::head`] says how many are there.
    pub(crate) fn append<D: Disk<File = F>>(
        &mut self,
        disk: &D,
        options: &Options,
        prepares: &[Prepare],
    ) -> Result<Room, StorageError> {
        assert!(self.gaps.is_empty(), "nothing is appended to a log with holes");
        self.extend(disk, options, prepares)
    }

    /// The same, also behind holes, of what a journal held: those that the log does not hold. Says whether they continue it.
    ///
    /// # Errors
    /// As the system reports, also if there is no room.
    pub(crate) fn replay<D: Disk<File = F>>(
        &mut self,
        disk: &D,
        options: &Options,
        held: &[Prepare],
    ) -> Result<bool, StorageError> {
        let is_new = |prepare: &&Prepare| prepare.op() > self.chain.head.op;
        let new: Vec<Prepare> = held.iter().filter(is_new).cloned().collect();
        let mut chain = self.chain;
        let fitting = new.iter().take_while(|prepare| {
            let fits = chain.accepts(prepare.header());
            chain.push(prepare.header());
            fits
        });
        let count = fitting.count();
        match self.extend(disk, options, &new[..count])? {
            Room::Enough => Ok(count == new.len()),
            Room::Lacking(error) => Err(error),
        }
    }

    fn extend<D: Disk<File = F>>(
        &mut self,
        disk: &D,
        options: &Options,
        prepares: &[Prepare],
    ) -> Result<Room, StorageError> {
        if self.active.is_empty()
            && self.active.header.key != self.owner.keys.newest()
            && let Room::Lacking(error) = self.remake_active(disk)?
        {
            return Ok(Room::Lacking(error));
        }
        let mut rest = prepares;
        while !rest.is_empty() {
            let count = self.count_fitting(options, rest);
            let room = if count == 0 { self.roll(disk)? } else { self.append_run(&rest[..count])? };
            if matches!(room, Room::Lacking(_)) {
                return Ok(room);
            }
            rest = &rest[count..];
        }
        Ok(Room::Enough)
    }

    /// How many of these the active segment still takes; an empty one takes the first, whatever its size. An entry that lets go
    /// of all that is before it begins a segment, so that all of it can go. What is sealed with an older key takes no more.
    fn count_fitting(&self, options: &Options, prepares: &[Prepare]) -> usize {
        if self.active.header.key != self.owner.keys.newest() && !Mutant::OldKeyWritten.is_on() {
            return 0;
        }
        // As if nothing were sealed: where sizes are the same, segments end with the same prepares on all replicas, and one that
        // needs another's snapshot has less to sum up.
        let count = self.chain.head.op.as_raw() - self.active.header.parent.op.as_raw();
        let mut end = self.active.end - count * self.active.seal.overhead();
        let first = prepares.first().map_or(Timestamp::ZERO, |first| first.header().timestamp());
        let oldest = self.active.oldest().unwrap_or(first);
        let is_too_late = |prepare: &Prepare| {
            let age_us = prepare.header().timestamp().as_raw().saturating_sub(oldest.as_raw());
            age_us / 1000 > options.segment_age_ms_max
        };
        let size_max = match self.chain.group {
            GroupId::METADATA => options.segment_size_bytes_max.min(options.metadata_segment_bytes_max),
            _ => options.segment_size_bytes_max,
        };
        let fitting = prepares.iter().take_while(|prepare| {
            let is_first = end == FIRST_POSITION;
            end += prepare.header().total_size() as u64;
            let fits = end <= size_max && !is_too_late(prepare);
            is_first || (fits && !lets_go_of_all_before(prepare))
        });
        fitting.count()
    }

    fn append_run(&mut self, prepares: &[Prepare]) -> Result<Room, StorageError> {
        let mut chunks: Vec<Bytes> = Vec::with_capacity(prepares.len() * 2);
        let mut chain = self.chain;
        for prepare in prepares {
            assert!(
                chain.accepts(prepare.header()),
                "an appended prepare continues the log: {prepare:?} after {chain:?}"
            );
            chain.push(prepare.header());
            chunks.extend(self.active.seal.store(prepare));
        }
        let growth = if self.fresh.is_journal_used() { Growth::AsWritten } else { Growth::Ahead };
        let op = self.chain.head.op.next();
        let room = self.writer.append(&self.active, op, (chunks, growth))?;
        if matches!(room, Room::Lacking(_)) {
            return Ok(room);
        }
        for prepare in prepares {
            self.active.note(prepare.header(), self.active.end);
            self.active.end += self.active.seal.stored_size(prepare.header()) as u64;
            self.chain.push(prepare.header());
            self.recent.note(self.active.end, &self.chain);
            self.fresh.note(prepare);
        }
        Ok(room)
    }

    /// Seals the active segment and makes the next one.
    fn roll<D: Disk<File = F>>(&mut self, disk: &D) -> Result<Room, StorageError> {
        assert!(!self.active.is_empty(), "a segment that is sealed holds something");
        if self.active.header.key != self.owner.keys.newest() {
            Mark::KeyRolled.hit();
        }
        self.writer.cut(&self.active, self.active.end)?;
        self.sync_active()?;
        let next = next_segment(&self.owner, &self.chain)?;
        let writer = match Writer::create(disk, &next, self.writer.slot().round + 1) {
            Err(error) if error.is_disk_full() => return Ok(Room::Lacking(error)),
            created => created?,
        };
        let mut sealed = std::mem::replace(&mut self.writer, writer);
        Mark::SegmentSealed.hit();
        sealed.seal(&self.active, next.header.first_op())?;
        index_file::write(disk, &self.owner, &self.active, &self.chain);
        self.sealed.push(std::mem::replace(&mut self.active, next));
        Ok(Room::Enough)
    }

    /// Makes the file of the active segment anew, in which nothing is yet: for the newest key.
    fn remake_active<D: Disk<File = F>>(&mut self, disk: &D) -> Result<Room, StorageError> {
        Mark::KeyRemade.hit();
        let newest = self.active.newest;
        let next = Segment { newest, ..next_segment(&self.owner, &self.chain)? };
        self.writer = match Writer::create(disk, &next, self.writer.slot().round + 1) {
            Err(error) if error.is_disk_full() => return Ok(Room::Lacking(error)),
            created => created?,
        };
        self.active = next;
        Ok(Room::Enough)
    }

    /// Whether something was written that is not durable.
    pub(crate) fn is_dirty(&self) -> bool {
        self.writer.is_dirty() && !self.fresh.is_in_journal()
    }

    /// Notes that everything written is durable where it is, because the whole disk is.
    pub(crate) fn note_synced(&mut self) {
        self.writer.note_synced();
        self.fresh = Fresh::default();
    }

    /// Notes that everything written is durable in the journal.
    pub(crate) fn note_in_journal(&mut self) {
        self.fresh.note_in_journal();
    }

    /// Makes everything appended durable.
    pub(crate) fn sync(&mut self) -> Result<(), StorageError> {
        if Mutant::LogNotSynced.is_on() {
            return Ok(());
        }
        self.sync_active()
    }

    fn sync_active(&mut self) -> Result<(), StorageError> {
        self.writer.sync(&self.active.path)?;
        self.fresh = Fresh::default();
        Ok(())
    }

    /// Reads whole prepares from `from` up to `last`: as many as stay within `bytes_max`, and one in any case.
    pub(crate) fn read<D: Disk<File = F>>(
        &self,
        disk: &D,
        shelf: &mut Shelf<F>,
        from: ReadFrom,
        limit: ReadLimit,
    ) -> Result<Vec<Prepare>, StorageError> {
        let mut found = Found { from, limit, prepares: Vec::new(), bytes: 0, is_full: false };
        match self.read_into(disk, shelf, &mut found) {
            // What is before the damage is sound. Who reads on meets it.
            Err(error) if error.is_repairable() && !found.prepares.is_empty() => {}
            read => read?,
        }
        Ok(found.prepares)
    }

    fn read_into<D: Disk<File = F>>(
        &self,
        disk: &D,
        shelf: &mut Shelf<F>,
        found: &mut Found,
    ) -> Result<(), StorageError> {
        let start = match found.from {
            ReadFrom::Op(op) => self.sealed.partition_point(|segment| segment.header.parent.op < op),
            ReadFrom::Offset(offset) => {
                self.sealed.partition_point(|segment| segment.header.base_offset <= offset)
            }
            ReadFrom::Time(time) => {
                self.sealed.partition_point(|segment| segment.oldest().is_some_and(|oldest| oldest < time))
            }
        };
        for segment in &self.sealed[start.saturating_sub(1)..] {
            if found.is_full || segment.header.first_op() > found.limit.last {
                return Ok(());
            }
            self.read_segment(segment, shelf.file(disk, segment)?, found)?;
        }
        if !found.is_full {
            self.read_segment(&self.active, &self.writer.file, found)?;
        }
        Ok(())
    }

    /// Shows the prepares of a segment from one on that begins at a position.
    pub(crate) fn walk<D: Disk<File = F>>(
        &self,
        disk: &D,
        segment: &Segment,
        (mut op, start): (Op, u64),
        summary: &mut dyn Summary,
    ) -> Result<(), StorageError> {
        let file = open_segment(disk, segment)?;
        let mut cursor = Cursor::new(&file, &segment.seal, start, segment.end, WALK_BYTES);
        while cursor.position() < segment.end {
            let position = cursor.position();
            let header = self.expect_header(segment, &mut cursor, op)?;
            if header.kind() == PrepareKind::Records {
                cursor.skip(&header);
                summary.push(&header, None);
            } else {
                let prepare = cursor.prepare(&header).or_failed_to("read", &segment.path)?;
                summary.push(&header, Some(&prepare.ok_or_else(|| segment.damaged(position, op))?));
            }
            op = op.next();
        }
        Ok(())
    }

    /// The segments that are full, and the one that is not.
    pub(crate) fn survey(&self) -> (Vec<SealedSegment>, ActiveSegment) {
        let next = self.sealed.iter().skip(1).chain([&self.active]).map(|segment| &segment.header);
        let sealed = self.sealed.iter().zip(next).map(|(segment, next)| SealedSegment {
            next: LogStart { op: next.first_op(), offset: next.base_offset },
            bytes: segment.end - FIRST_POSITION,
            newest: segment.newest,
        });
        let active = ActiveSegment {
            head: self.chain.head.op,
            bytes: self.active.end - FIRST_POSITION,
            newest: self.active.newest,
            has_records: self.chain.next_offset > self.active.header.base_offset,
        };
        (sealed.collect(), active)
    }

    fn read_segment(&self, segment: &Segment, file: &F, found: &mut Found) -> Result<(), StorageError> {
        let first = ReadFrom::Op(segment.header.first_op());
        let Some(entry) = segment.index.find(found.from).or_else(|| segment.index.find(first)) else {
            return Ok(());
        };
        let mut cursor = Cursor::new(file, &segment.seal, entry.position, segment.end, WALK_BYTES);
        let mut op = entry.op;
        while op <= found.limit.last && cursor.position() < segment.end {
            // What is in the buffer may not be all, for it began before what was asked for; the rest is not worth a whole one.
            cursor.read_about(found.room().clamp(WALK_BYTES, READ_BYTES_MAX));
            let header = self.expect_header(segment, &mut cursor, op)?;
            if found.is_before(&header) {
                cursor.skip(&header);
            } else if found.has_room(&header) {
                let position = cursor.position();
                let prepare = cursor.prepare(&header).or_failed_to("read", &segment.path)?;
                found.push(prepare.ok_or_else(|| segment.damaged(position, op))?);
            } else {
                return Ok(());
            }
            op = op.next();
        }
        Ok(())
    }

    /// The header at the cursor, which must be that of `op`.
    pub(crate) fn expect_header(
        &self,
        segment: &Segment,
        cursor: &mut Cursor<'_, F>,
        op: Op,
    ) -> Result<PrepareHeader, StorageError> {
        let header = cursor.header().or_failed_to("read", &segment.path)?;
        header
            .filter(|header| header.op() == op && header.group() == self.chain.group)
            .ok_or_else(|| segment.damaged(cursor.position(), op))
    }
}

/// Opens a sealed segment. One whose file is gone is damaged like one that cannot be read.
pub(crate) fn open_segment<D: Disk>(disk: &D, segment: &Segment) -> Result<D::File, StorageError> {
    match disk.open(&segment.path, OpenMode::Existing) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(segment.damaged(0, segment.header.first_op()))
        }
        opened => opened.or_failed_to("open", &segment.path),
    }
}

/// Where a read stops.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadLimit {
    pub(crate) bytes_max: usize,
    pub(crate) last: Op,
}

/// What a read has gathered.
struct Found {
    from: ReadFrom,
    limit: ReadLimit,
    prepares: Vec<Prepare>,
    bytes: usize,
    is_full: bool,
}

impl Found {
    fn is_before(&self, header: &PrepareHeader) -> bool {
        match self.from {
            ReadFrom::Op(op) => header.op() < op,
            ReadFrom::Offset(offset) => header.next_offset() <= offset,
            ReadFrom::Time(time) => header.timestamp() < time,
        }
    }

    /// Bytes that may still be found.
    fn room(&self) -> usize {
        self.limit.bytes_max.saturating_sub(self.bytes)
    }

    fn has_room(&mut self, header: &PrepareHeader) -> bool {
        let bytes = self.bytes + header.total_size();
        self.is_full = !self.prepares.is_empty() && bytes > self.limit.bytes_max;
        !self.is_full
    }

    fn push(&mut self, prepare: Prepare) {
        self.bytes += prepare.header().total_size();
        self.prepares.push(prepare);
    }
}

fn lets_go_of_all_before(prepare: &Prepare) -> bool {
    prepare.header().kind() == PrepareKind::LogStart
        && LogStart::decode(prepare.body()).is_some_and(|start| start.op == prepare.op())
}

/// The segment that begins behind `chain`, without prepares.
fn next_segment(owner: &Owner, chain: &Chain) -> Result<Segment, StorageError> {
    let Owner { identity, keys } = owner;
    let header = SegmentHeader {
        identity: *identity,
        group: chain.group,
        parent: chain.head,
        base_offset: chain.next_offset,
        key: keys.newest(),
    };
    Segment::new(&group_dir(chain.group), header, keys)
}

//! The journal of a node: what a round has appended to many logs, once more and in one file, so that one write and one sync make all
//! of it durable.
//!
//! ```text
//!   round ──▶ segments: written, not synced      g1 ..|..   g2 .|...   g3 ....|.
//!        └──▶ journal:  written, synced          | g1 g2 g3 | g2 g3 | g1 g2 | ──▶
//!   checkpoint: the file system is synced, and the journal begins anew, in the same place
//! ```
//! * A log that has something in the journal begins no other round in its segment: the slot there says from where on nothing is known
//!   to be synced. So what a crash leaves of it is a torn round, cut like any other (`recovery`), and what the journal holds beyond
//!   that is appended again before anybody sees the log.
//! * What a log is to lose must not come back: before a log is cut or replaced that has something in the journal, there is a
//!   checkpoint.
//! * What is large, or appended to a few logs only, is synced where it is. The journal is for what costs a seek for little.
//!
//! The file begins with a block of 4096 bytes with two slots, behind it are frames in a row. Little-endian; what is not named is zero:
//!
//! | offset | size | name       | meaning                                                     |
//! |-------:|-----:|------------|-------------------------------------------------------------|
//! |    512 |   64 | slot       | where an even round began, see below                        |
//! |   1024 |   64 | slot       | where an odd round began                                    |
//!
//! A slot is written with each frame, and saved by the same sync; and alone, when the journal begins anew:
//!
//! | offset | size | name       | meaning                                                     |
//! |-------:|-----:|------------|-------------------------------------------------------------|
//! |      0 |    4 | checksum   | CRC-32 of bytes 4..64                                       |
//! |      4 |    4 | magic      | `VRVJ`                                                      |
//! |      8 |    8 | round      | its number, growing                                         |
//! |     16 |    8 | generation | counts how often the journal began anew                     |
//! |     24 |    8 | position   | where its frame begins; all frames before that were durable |
//! |     32 |   16 | cluster    | identity of the cluster                                     |
//! |     48 |    1 | node       | whose file this is                                          |
//! |     56 |    8 | key        | name of the key that frames are sealed with; zero: none     |
//!
//! A frame:
//!
//! | offset | size | name       | meaning                                                              |
//! |-------:|-----:|------------|----------------------------------------------------------------------|
//! |      0 |    4 | checksum   | CRC-32 of all that follows                                           |
//! |      4 |    4 | magic      | `VRVF`                                                               |
//! |      8 |    8 | generation | that of the slot; one of another generation is what the file held before |
//! |     16 |    8 | position   | where it begins                                                      |
//! |     24 |    8 | size       | bytes that follow                                                    |
//! |     32 |    n | prepares   | in a row, as they are sent; sealed as a whole if there are keys ([`crate::sealed_file`]) |
//!
//! **What is found at a start.** The newest readable slot says up to where frames must be sound; one more may be. What is behind them is
//! a torn round, or old. Where that does not hold, or a slot has rotted, or the file is gone, nobody can tell which logs have lost
//! something that was acknowledged: all of them count as logs that have lost their ends.

mod frame;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bytes::Bytes;
use varve_protocol::id::GroupId;
use varve_protocol::mark::Mark;
use varve_protocol::mutant::Mutant;
use varve_protocol::prepare::Prepare;

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{IoContext, StorageError};
use crate::file;
use crate::identity::{Identity, Owner};
use crate::sealed_file;
use crate::writer::Room;
use frame::{BLOCK_SIZE, FRAME_HEADER_SIZE, Slot};

/// The name of the file.
pub(crate) const JOURNAL_NAME: &str = "journal";

/// Bytes of all frames together, unless an operator chooses. The larger, the rarer a checkpoint; and the more there is to be synced
/// then, and to be read at a start.
pub(crate) const JOURNAL_BYTES_MAX: u64 = 32 << 20;
/// A log with so many bytes in the journal is synced where it is, so that a checkpoint has little to do.
const BYTES_OF_A_LOG_MAX: u64 = 1 << 20;
/// The same, in parts of the journal.
const PART_OF_A_LOG_MAX: u64 = 4;
/// Bytes of prepares in a frame: what takes longer to write than to sync is better written once.
const FRAME_BYTES_MAX: usize = 4 << 20;
/// Overwriting what was written costs a sync less than extending a file: so much is filled with zeros ahead, doubling.
const ROOM_BYTES_MIN: u64 = 64 << 10;
const ROOM_BYTES_MAX: u64 = 1 << 20;
const ZEROS: &[u8] = &[0; 64 << 10];

const FIRST_POSITION: u64 = BLOCK_SIZE as u64;

/// A slot that changes while the file is read is read again so often: somebody may look at the directory of a node that runs.
const READS_MAX: u32 = 5;

/// What a journal holds at a start.
#[derive(Debug)]
pub(crate) struct Held {
    /// What was appended to each log, in order.
    pub(crate) prepares: BTreeMap<GroupId, Vec<Prepare>>,
    /// The newest slot; none if what the journal held cannot be told.
    slot: Option<Slot>,
    /// It is sealed with a key that is not there.
    pub(crate) locked: Option<StorageError>,
}

impl Held {
    /// Whether this is all that the journal has to hold.
    pub(crate) fn is_sound(&self) -> bool {
        self.slot.is_some()
    }

    /// What was appended to a log.
    pub(crate) fn of(&self, group: GroupId) -> &[Prepare] {
        self.prepares.get(&group).map_or(&[], Vec::as_slice)
    }
}

/// An open journal.
pub(crate) struct Journal<F> {
    owner: Owner,
    file: F,
    /// The newest one.
    slot: Slot,
    /// Of all frames together.
    bytes_max: u64,
    /// Behind the last frame.
    end: u64,
    /// Bytes of the file that are written, with zeros at least.
    allocated: u64,
    /// The groups that something in it is of.
    groups: BTreeSet<GroupId>,
    /// Nothing can be written any more.
    failure: Option<StorageError>,
}

fn path() -> &'static Path {
    Path::new(JOURNAL_NAME)
}

/// The most bytes that a frame with so many bytes of prepares takes.
fn frame_size_max(prepares: usize) -> u64 {
    (FRAME_HEADER_SIZE + prepares + sealed_file::OVERHEAD) as u64
}

/// Makes the file of a journal that holds nothing, durably.
pub(crate) fn format<D: Disk>(disk: &D, identity: Identity) -> Result<(), StorageError> {
    create(disk, identity, Slot::first(1, None)).map(|_| ())
}

fn create<D: Disk>(disk: &D, identity: Identity, first: Slot) -> Result<D::File, StorageError> {
    file::create_whole(disk, path(), Bytes::from(first.encode_block(identity)))
}

/// Reads what the journal holds; what is read must be durable before.
///
/// # Errors
/// As the system reports.
pub(crate) fn read<D: Disk>(disk: &D, owner: &Owner) -> Result<Held, StorageError> {
    let file = match disk.open(path(), OpenMode::Existing) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Held { prepares: BTreeMap::new(), slot: None, locked: None });
        }
        opened => opened.or_failed_to("open", path())?,
    };
    let mut held = frame::read(&file, owner)?;
    for _ in 1..READS_MAX {
        if held.is_sound() {
            break;
        }
        let before = frame::newest_slot(&file, owner)?;
        held = frame::read(&file, owner)?;
        if frame::newest_slot(&file, owner)? == before {
            break;
        }
    }
    Ok(held)
}

impl<F: DiskFile> Journal<F> {
    /// Begins the journal anew, durably. What was read of it must be in the logs, durably, before; unless there is a reason to keep it as it
    /// is: then nothing is written to it.
    pub(crate) fn begin<D: Disk<File = F>>(
        disk: &D,
        owner: &Owner,
        held: &Held,
        (bytes_max, failure): (u64, Option<StorageError>),
    ) -> Result<Self, StorageError> {
        let key = owner.keys.newest();
        let (file, slot) = match held.slot {
            Some(slot) if slot.key == key || failure.is_some() => {
                (disk.open(path(), OpenMode::Existing).or_failed_to("open", path())?, slot)
            }
            // What another key was to hide, or none, does not stay behind the end.
            before => {
                let first = Slot::first(before.map_or(1, |slot| slot.generation + 1), key);
                (create(disk, owner.identity, first)?, first)
            }
        };
        let allocated = file.size().or_failed_to("read the size of", path())?;
        let (owner, end, groups) = (owner.clone(), FIRST_POSITION, BTreeSet::new());
        let mut journal = Self { owner, file, slot, bytes_max, end, allocated, groups, failure };
        if journal.failure.is_none() {
            // Also if nothing was found: what a torn round has left is of an earlier generation then.
            journal.renew()?;
        }
        Ok(journal)
    }

    /// Whether a log has something in it.
    pub(crate) fn holds(&self, group: GroupId) -> bool {
        self.groups.contains(&group)
    }

    /// The groups whose logs have something in it.
    pub(crate) fn groups(&self) -> &BTreeSet<GroupId> {
        &self.groups
    }

    /// Whether it takes a frame with so many bytes of prepares, as it is or when it has begun anew.
    pub(crate) fn may_take(&self, bytes: usize) -> bool {
        bytes <= FRAME_BYTES_MAX && frame_size_max(bytes) <= self.bytes_max && self.failure.is_none()
    }

    /// Whether so much of a log is in it that the log's file is better synced before there is more.
    pub(crate) fn is_much(&self, bytes: usize) -> bool {
        bytes as u64 >= BYTES_OF_A_LOG_MAX.min(self.bytes_max / PART_OF_A_LOG_MAX)
    }

    /// Whether it takes that as it is.
    pub(crate) fn has_room_for(&self, bytes: usize) -> bool {
        self.end + frame_size_max(bytes) <= FIRST_POSITION + self.bytes_max
    }

    /// Makes what was appended to several logs durable: for each group in the order of its log.
    ///
    /// # Errors
    /// As the system reports; then nothing is written any more, and what is in it stays until the store is opened again.
    pub(crate) fn append(&mut self, prepares: &[Prepare]) -> Result<Room, StorageError> {
        self.attempt(|journal| journal.try_append(prepares))
    }

    fn try_append(&mut self, prepares: &[Prepare]) -> Result<(), StorageError> {
        let frame = frame::encode(&self.owner, (self.slot.generation, self.end), prepares);
        let end = self.end + frame.len() as u64;
        self.make_room(end)?;
        // From here on it may be there, whatever comes.
        self.groups.extend(prepares.iter().map(|prepare| prepare.header().group()));
        self.put_slot(Slot { position: self.end, ..self.slot.next() })?;
        self.file.write_at(&[frame], self.end).or_failed_to("append to", path())?;
        if !Mutant::JournalNotSynced.is_on() {
            self.file.sync().or_failed_to("sync", path())?;
        }
        Mark::JournalRound.hit();
        self.end = end;
        Ok(())
    }

    /// Forgets all that it holds, durably.
    ///
    /// # Errors
    /// As the system reports; then nothing is written any more.
    pub(crate) fn renew(&mut self) -> Result<(), StorageError> {
        let renewed = self.attempt(|journal| {
            let next = journal.slot.next();
            journal.put_slot(Slot { generation: next.generation + 1, position: FIRST_POSITION, ..next })?;
            journal.file.sync().or_failed_to("sync", path())
        })?;
        if let Room::Lacking(error) = renewed {
            return Err(error);
        }
        self.end = FIRST_POSITION;
        self.groups.clear();
        Ok(())
    }

    /// Notes that what is in it must be kept until the store is opened again.
    pub(crate) fn note_failure(&mut self, error: StorageError) {
        self.failure.get_or_insert(error);
    }

    /// Whether something can be written to it.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn check(&self) -> Result<(), StorageError> {
        self.failure.clone().map_or(Ok(()), Err)
    }

    fn attempt(
        &mut self,
        act: impl FnOnce(&mut Self) -> Result<(), StorageError>,
    ) -> Result<Room, StorageError> {
        self.check()?;
        let room = Room::after(act(self));
        self.failure = room.as_ref().err().cloned();
        room
    }

    fn make_room(&mut self, end: u64) -> Result<(), StorageError> {
        while end > self.allocated {
            let room = (self.allocated - FIRST_POSITION).clamp(ROOM_BYTES_MIN, ROOM_BYTES_MAX);
            let pieces = usize::try_from(room).expect("the room is small").div_ceil(ZEROS.len());
            let zeros = vec![Bytes::from_static(ZEROS); pieces];
            self.file.write_at(&zeros, self.allocated).or_failed_to("extend", path())?;
            self.allocated += (pieces * ZEROS.len()) as u64;
        }
        Ok(())
    }

    fn put_slot(&mut self, slot: Slot) -> Result<(), StorageError> {
        let bytes = Bytes::copy_from_slice(&slot.encode(self.owner.identity));
        self.file.write_at(&[bytes], slot.position_in_block()).or_failed_to("write a slot to", path())?;
        self.slot = slot;
        Ok(())
    }
}

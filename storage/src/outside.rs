//! What can be told of a group's files without the keys that they are sealed with: whether the disk has kept what was written.
//!
//! Checksums are over what is sealed, so every byte is looked at; what is not looked at is whether the prepares belong together.
//! Behind where the newest round began nothing is said of what is not sound: it may be torn, or of the segment that this one is
//! written over.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use varve_protocol::id::{GroupId, Op};
use varve_protocol::prepare::{PREPARE_HEADER_SIZE, Prepare, PrepareHeader};

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{IoContext, StorageError};
use crate::log::group_dir;
use crate::seal::Label;
use crate::sealed_file;
use crate::segment::{BLOCK_SIZE, FIRST_POSITION, SegmentHeader, Slots, parse_file_name};

/// What was seen of a group from outside.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Outside {
    /// Prepares whose checksums are right.
    pub prepares: u64,
    /// Bytes that they take on the disk.
    pub bytes: u64,
    /// Where something is not as it was written.
    pub damaged: Vec<OutsideDamage>,
}

/// A place in a file from which on it is not as it was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OutsideDamage {
    /// The file, relative to the data directory.
    pub path: PathBuf,
    /// Where the first byte is that belongs to nothing sound.
    pub position: u64,
}

/// Looks at all files of a group.
///
/// # Errors
/// As the system reports.
pub fn look_from_outside<D: Disk>(disk: &D, group: GroupId) -> Result<Outside, StorageError> {
    let dir = group_dir(group);
    let names = disk.list(&dir).or_failed_to("list", &dir)?;
    let mut seen = Outside::default();
    let mut places: Vec<(Op, PathBuf)> =
        names.iter().filter_map(|name| Some((parse_file_name(name)?.1, dir.join(name)))).collect();
    places.sort();
    let newest = places.last().map(|(op, _)| *op);
    for (first_op, path) in &places {
        let is_newest = Some(*first_op) == newest;
        let position = look_at_segment(disk, path, (*first_op, is_newest), &mut seen)?;
        seen.damaged.extend(position.map(|position| OutsideDamage { path: path.clone(), position }));
    }
    let is_beside = |name: &&String| {
        [".snapshot", ".transfer", ".resume", ".index"].iter().any(|end| name.ends_with(end))
    };
    for path in names.iter().filter(is_beside).map(|name| dir.join(name)) {
        let file = disk.open(&path, OpenMode::Existing).or_failed_to("open", &path)?;
        let size = file.size().or_failed_to("read the size of", &path)?;
        let bytes = read(&file, &path, 0, size)?;
        if sealed_file::has_label(&bytes) && sealed_file::key_of(&bytes).is_none() {
            seen.damaged.push(OutsideDamage { path, position: 0 });
        }
    }
    Ok(seen)
}

/// Goes from prepare to prepare; says where it cannot go on, if there should be more.
fn look_at_segment<D: Disk>(
    disk: &D,
    path: &Path,
    (first_op, is_newest): (Op, bool),
    seen: &mut Outside,
) -> Result<Option<u64>, StorageError> {
    let file = disk.open(path, OpenMode::Existing).or_failed_to("open", path)?;
    let size = file.size().or_failed_to("read the size of", path)?;
    let block = read(&file, path, 0, BLOCK_SIZE as u64)?;
    let Ok(header) = SegmentHeader::decode(&block, path) else { return Ok(Some(0)) };
    let (mut op, mut position) = (first_op, FIRST_POSITION);
    while position < size {
        let stored = match header.key {
            Some(_) => sealed_prepare(&file, path, position, op)?,
            None => plain_prepare(&file, path, position, op)?,
        };
        let Some(stored) = stored else { break };
        seen.prepares += 1;
        seen.bytes += stored;
        position += stored;
        op = op.next();
    }
    let slots = Slots::decode(&block, &header);
    if is_newest && let Some(slot) = slots.newest {
        let is_before = slot.is_sealed || op < slot.op || (op == slot.op && position != slot.position);
        return Ok(is_before.then_some(position));
    }
    let rest = read(&file, path, position, size.saturating_sub(position))?;
    Ok(rest.iter().any(|byte| *byte != 0).then_some(position))
}

fn sealed_prepare<F: DiskFile>(file: &F, path: &Path, at: u64, op: Op) -> Result<Option<u64>, StorageError> {
    let head = read(file, path, at, Label::SIZE as u64)?;
    let Some(label) = Label::decode(&head).filter(|label| label.op() == op) else { return Ok(None) };
    let size = label.stored_size() as u64;
    Ok(label.matches(&read(file, path, at, size)?).then_some(size))
}

fn plain_prepare<F: DiskFile>(file: &F, path: &Path, at: u64, op: Op) -> Result<Option<u64>, StorageError> {
    let head = read(file, path, at, PREPARE_HEADER_SIZE as u64)?;
    let header = PrepareHeader::decode(&head).ok().filter(|header| header.op() == op);
    let Some(size) = header.map(|header| header.total_size() as u64) else { return Ok(None) };
    Ok(Prepare::decode(&read(file, path, at, size)?).is_ok().then_some(size))
}

fn read<F: DiskFile>(file: &F, path: &Path, position: u64, size: u64) -> Result<Bytes, StorageError> {
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
    let read = file.read_at(&mut bytes, position).or_failed_to("read", path)?;
    bytes.truncate(read);
    Ok(bytes.into())
}

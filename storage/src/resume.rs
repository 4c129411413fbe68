//! The resume point of a log: a file beside the segments, `<op, 20 digits>.resume`, whole or not there. The newest counts.
//!
//! It says what all prepares up to a committed op have brought about ([`ResumePoint`]). With it, and with the indexes of the sealed
//! segments ([`crate::index_file`]), a start reads the segment that holds that op and those behind it, and of the segments
//! before no more than their local blocks. What rots there meanwhile is not seen at the start but by whoever reads it.
//!
//! Nothing depends on it. A log whose resume point or indexes are missing or do not fit, or in which anything is the matter behind
//! the resume point, is read from its beginning.

use std::path::PathBuf;

use varve_protocol::id::{GroupId, Op};
use varve_protocol::limits::FRAME_BODY_BYTES_MAX;
use varve_protocol::resume_point::ResumePoint;

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{IoContext, StorageError};
use crate::file;
use crate::identity::Owner;
use crate::log::group_dir;
use crate::sealed_file;

const SUFFIX: &str = ".resume";

fn path(group: GroupId, op: Op) -> PathBuf {
    group_dir(group).join(format!("{:020}{SUFFIX}", op.as_raw()))
}

fn op_of(name: &str) -> Option<Op> {
    name.strip_suffix(SUFFIX)?.parse().ok().map(Op::new)
}

/// Whether this is the name of a resume point.
pub(crate) fn is_name(name: &str) -> bool {
    op_of(name).is_some()
}

/// The newest of the resume points with these names; `None` if there is none, or it is not sound, or not of this group.
pub(crate) fn newest<D: Disk>(
    disk: &D,
    owner: &Owner,
    group: GroupId,
    names: &[String],
) -> Result<Option<ResumePoint>, StorageError> {
    let Some(op) = names.iter().filter_map(|name| op_of(name)).max() else { return Ok(None) };
    let path = path(group, op);
    let file = disk.open(&path, OpenMode::Existing).or_failed_to("open", &path)?;
    let size = usize::try_from(file.size().or_failed_to("read the size of", &path)?).unwrap_or(usize::MAX);
    let mut bytes = vec![0; size.min(FRAME_BODY_BYTES_MAX + sealed_file::OVERHEAD)];
    let read = file.read_at(&mut bytes, 0).or_failed_to("read", &path)?;
    bytes.truncate(read);
    let point = ResumePoint::decode(&sealed_file::open(owner, group, &path, bytes)?);
    Ok(point.filter(|point| point.op() == op && point.snapshot.header.group() == group))
}

/// Keeps a resume point, durably, in place of the ones before.
pub(crate) fn save<D: Disk>(
    disk: &D,
    owner: &Owner,
    group: GroupId,
    point: &ResumePoint,
) -> Result<(), StorageError> {
    let path = path(group, point.op());
    file::create_whole(disk, &path, sealed_file::seal(owner, group, &path, point.encode()))?;
    remove_before(disk, group, point.op())
}

/// Removes the resume points before an op.
pub(crate) fn remove_before<D: Disk>(disk: &D, group: GroupId, op: Op) -> Result<(), StorageError> {
    let dir = group_dir(group);
    let names = disk.list(&dir).or_failed_to("list", &dir)?;
    for older in names.iter().filter_map(|name| op_of(name)).filter(|older| *older < op) {
        let path = path(group, older);
        disk.remove(&path).or_failed_to("remove", &path)?;
    }
    Ok(())
}

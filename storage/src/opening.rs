//! What is done to a data directory as a whole when it is opened: strangers go, and everything that is found becomes durable.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use varve_protocol::id::GroupId;
use varve_protocol::mark::Mark;

use crate::disk::Disk;
use crate::error::{IoContext, StorageError};
use crate::log::{GROUPS_DIR, group_dir};
use crate::segment::parse_file_name;
use crate::store::Hosted;
use crate::superblocks::Kept;

pub(crate) fn sync_all<D: Disk>(disk: &D) -> Result<(), StorageError> {
    disk.sync_all().or_failed_to("sync the file system of", Path::new(""))
}

/// Makes durable what opening the logs has written to them, all with one sync.
pub(crate) fn sync_sealed<D: Disk>(
    disk: &D,
    groups: &mut BTreeMap<GroupId, Hosted<D::File>>,
) -> Result<(), StorageError> {
    let mut dirty = groups.values_mut().filter_map(|hosted| match hosted {
        Hosted::Open(log) if log.is_dirty() => Some(log),
        Hosted::Open(_) | Hosted::Empty | Hosted::Closed(_) => None,
    });
    let Some(first) = dirty.next() else { return Ok(()) };
    sync_all(disk)?;
    first.note_synced();
    dirty.for_each(|log| log.note_synced());
    Ok(())
}

/// Removes the directories of groups that were not wholly deleted, and of those whose first segment was never finished;
/// names the groups that have one.
pub(crate) fn remove_strangers<D: Disk>(
    disk: &D,
    live: &BTreeMap<GroupId, Kept>,
) -> Result<BTreeSet<GroupId>, StorageError> {
    let groups_dir = Path::new(GROUPS_DIR);
    let mut found = BTreeSet::new();
    for name in disk.list(groups_dir).or_failed_to("list", groups_dir)? {
        let Ok(group) = name.parse().map(GroupId::new) else { continue };
        let dir = group_dir(group);
        if dir != groups_dir.join(&name) {
            continue;
        }
        let is_left = match live.get(&group) {
            Some(kept) => !kept.has_log && !has_segment(disk, &dir)?,
            None => true,
        };
        if is_left {
            Mark::RemainsRemoved.hit();
            tracing::info!(%group, "removing what is left of a group's files");
            remove_group(disk, &dir)?;
        } else {
            found.insert(group);
        }
    }
    Ok(found)
}

fn has_segment<D: Disk>(disk: &D, dir: &Path) -> Result<bool, StorageError> {
    let names = disk.list(dir).or_failed_to("list", dir)?;
    Ok(names.iter().any(|name| parse_file_name(name).is_some()))
}

/// Removes the files of a group, durably; nothing may be there any more.
pub(crate) fn remove_group<D: Disk>(disk: &D, dir: &Path) -> Result<(), StorageError> {
    let names = match disk.list(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        listed => listed.or_failed_to("list", dir)?,
    };
    for name in names {
        let path = dir.join(name);
        disk.discard(&path).or_failed_to("remove", &path)?;
    }
    disk.remove_dir(dir).or_failed_to("remove directory", dir)?;
    let groups_dir = Path::new(GROUPS_DIR);
    disk.sync_dir(groups_dir).or_failed_to("sync directory", groups_dir)
}

//! Files of sealed segments that somebody reads: they are kept open between reads.
//!
//! Who opens a file anew for each piece of it has the system begin to read ahead anew each time; reading 512 MiB from the disk
//! that way took three times as long. A sealed segment never changes, but its file goes, or is made anew: whoever does something to the
//! files of a group has them forgotten here.

use std::path::PathBuf;

use varve_protocol::id::GroupId;

use crate::disk::Disk;
use crate::error::StorageError;
use crate::log::open_segment;
use crate::segment::Segment;

/// Files that are kept open at most, of all groups together.
const FILES_MAX: usize = 16;

struct Shelved<F> {
    group: GroupId,
    path: PathBuf,
    file: F,
}

/// The files that were read last, the newest at the end.
pub(crate) struct Shelf<F>(Vec<Shelved<F>>);

impl<F> Shelf<F> {
    pub(crate) fn new() -> Self {
        Self(Vec::with_capacity(FILES_MAX))
    }

    /// The open file of a segment.
    pub(crate) fn file<D: Disk<File = F>>(
        &mut self,
        disk: &D,
        segment: &Segment,
    ) -> Result<&F, StorageError> {
        let place = self.0.iter().position(|shelved| shelved.path == segment.path);
        let shelved = match place {
            Some(place) => self.0.remove(place),
            None => {
                let (group, path) = (segment.header.group, segment.path.clone());
                Shelved { group, path, file: open_segment(disk, segment)? }
            }
        };
        if self.0.len() == FILES_MAX {
            self.0.remove(0);
        }
        self.0.push(shelved);
        Ok(&self.0[self.0.len() - 1].file)
    }

    /// Closes what is open of a group.
    pub(crate) fn forget(&mut self, group: GroupId) {
        self.0.retain(|shelved| shelved.group != group);
    }
}

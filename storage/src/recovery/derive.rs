//! What a rotten local block must have said: from the name of its file, and from the prepares that are left.

use std::path::Path;

use varve_protocol::mark::Mark;
use varve_protocol::prepare::{PREPARE_HEADER_SIZE, PREPARE_MAGIC, PrepareHeader, PrepareId};

use super::{Place, READ_BYTES, Recovery};
use crate::disk::{Disk, DiskFile};
use crate::error::{IoContext, StorageError};
use crate::keys::KeyId;
use crate::reader::Cursor;
use crate::seal::{LABEL_MAGIC, Label, MAGIC_AT, Seal};
use crate::segment::{FIRST_POSITION, SegmentHeader};

impl<D: Disk> Recovery<'_, D> {
    /// What a rotten local block must have said: its first prepare names the one before, or that one is the end of the chain.
    pub(super) fn derive_header(
        &self,
        file: &D::File,
        path: &Path,
        (base_offset, first_op): Place,
    ) -> Result<Option<SegmentHeader>, StorageError> {
        let size = file.size().or_failed_to("read the size of", path)?;
        let (identity, group) = (self.owner.identity, self.chain.group);
        let key = self.derive_key(file, path, size)?;
        let parent = PrepareId { op: first_op.previous(), ..PrepareId::ROOT };
        let unnamed = SegmentHeader { identity, group, parent, base_offset, key };
        let seal = Seal::of(&unnamed, &self.owner.keys, path)?;
        let mut cursor = Cursor::new(file, &seal, FIRST_POSITION, size, READ_BYTES);
        let first = cursor.header().or_failed_to("read", path)?.filter(|header| {
            self.chain.is_mine(header) && header.op() == first_op && header.base_offset() == base_offset
        });
        let is_next = self.chain.head.op.next() == first_op && self.chain.next_offset == base_offset;
        let parent = first.map(|header| header.parent()).or(is_next.then_some(self.chain.head));
        if parent.is_some() {
            Mark::BlockDerived.hit();
        }
        Ok(parent.map(|parent| SegmentHeader { parent, ..unnamed }))
    }

    /// What the prepares of a file with a rotten local block are sealed with: the first one that is left says it.
    fn derive_key(&self, file: &D::File, path: &Path, size: u64) -> Result<Option<KeyId>, StorageError> {
        let mut position = FIRST_POSITION;
        let mut bytes = vec![0; READ_BYTES];
        while position < size {
            let read = file.read_at(&mut bytes, position).or_failed_to("read", path)?;
            for at in 0..read {
                let rest = &bytes[at..read];
                let Some(magic) = rest.get(MAGIC_AT..) else { break };
                if magic.starts_with(&PREPARE_MAGIC)
                    && PrepareHeader::decode(rest).is_ok_and(|header| self.chain.is_mine(&header))
                {
                    return Ok(None);
                }
                if let Some(label) = magic.starts_with(&LABEL_MAGIC).then(|| Label::decode(rest)).flatten() {
                    Mark::KeyDerived.hit();
                    return Ok(label.key());
                }
            }
            // One that the buffer cuts is whole in the next.
            position += read.saturating_sub(PREPARE_HEADER_SIZE).max(1) as u64;
        }
        Ok(None)
    }
}

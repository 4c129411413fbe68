//! What has rotted is given back: prepares that were fetched by name are written where they were, synced, and read again.
//!
//! A prepare is the same bytes on every replica, so there is one way to fill a stretch between two sound prepares. What is sound
//! after all is not written again: a crash in the midst of that would tear it, for what is sealed is other bytes each time. Nothing
//! else waits for it: the log is read and appended to meanwhile.

use varve_protocol::mark::Mark;
use varve_protocol::mutant::Mutant;
use varve_protocol::prepare::{Prepare, PrepareHeader};

use super::Damage;
use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{IoContext, StorageError};
use crate::log::Log;
use crate::reader::{Chain, Cursor};
use crate::segment::Segment;

impl<F: DiskFile> Log<F> {
    /// Gives back the first prepares of what is damaged, durably; returns what is left. If nothing could be given back that is
    /// all of it. Damage in a segment that is not there any more is none.
    ///
    /// # Errors
    /// As the system reports when it is written or synced.
    pub(crate) fn patch<D: Disk<File = F>>(
        &self,
        disk: &D,
        damage: Damage,
        prepares: &[Prepare],
    ) -> Result<Option<Damage>, StorageError> {
        let place = self.place_of(damage.segment).map(|place| self.segment_at(place));
        let Some(segment) = place.filter(|segment| damage.end <= segment.end) else { return Ok(None) };
        let path = &segment.path;
        let file = match disk.open(path, OpenMode::Existing) {
            // It has gone since, and is made anew when that is found.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Some(damage)),
            opened => opened.or_failed_to("open", path)?,
        };
        let mut chain = Chain { head: damage.after, next_offset: damage.next_offset, ..self.chain };
        let mut position = damage.position;
        let mut written: Vec<(u64, PrepareHeader)> = Vec::with_capacity(prepares.len());
        for prepare in prepares {
            let header = prepare.header();
            let end = position + segment.seal.stored_size(header) as u64;
            let is_last = header.op() == damage.last.op;
            let fits = if is_last { end == damage.end } else { end < damage.end };
            let is_named = !is_last || prepare.id() == damage.last;
            if !(chain.accepts(header) && fits && is_named) {
                Mark::PatchRefused.hit();
                tracing::error!(id = %prepare.id(), position, "this does not belong where something is missing");
                return Ok(Some(damage));
            }
            if !is_there(&file, segment, position, header) && !Mutant::PatchNotWritten.is_on() {
                file.write_at(&segment.seal.store(prepare), position).or_failed_to("write to", path)?;
            }
            written.push((position, *header));
            chain.push(header);
            position = end;
        }
        file.sync().or_failed_to("sync", path)?;
        file.drop_cached(damage.position, position - damage.position);
        for (position, header) in &written {
            if !is_there(&file, segment, *position, header) && !Mutant::PatchNotWritten.is_on() {
                tracing::error!(path = %path.display(), position, "the disk does not keep what is written there");
                return Ok(Some(damage));
            }
        }
        Mark::DamagePatched.hit();
        let left = Damage { after: chain.head, next_offset: chain.next_offset, position, ..damage };
        Ok((left.after.op < left.last.op).then_some(left))
    }
}

/// Whether the prepare of this header can be read at a position.
fn is_there<F: DiskFile>(file: &F, segment: &Segment, position: u64, header: &PrepareHeader) -> bool {
    let size = segment.seal.stored_size(header);
    let mut cursor = Cursor::new(file, &segment.seal, position, position + size as u64, size);
    cursor.prepare(header).ok().flatten().is_some_and(|read| read.id() == header.id())
}

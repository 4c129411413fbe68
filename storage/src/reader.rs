//! Walks the prepares of a segment file from a position on, through a buffer that bodies share.
//!
//! The same cursor serves recovery, which trusts nothing and asks where the sound prepares end, and reads, which know
//! what must be there and report damage if it is not.

use std::io;

use bytes::Bytes;
use varve_protocol::id::{ClusterId, GroupId, Offset};
use varve_protocol::prepare::{Prepare, PrepareError, PrepareHeader, PrepareId};
use varve_protocol::snapshot::Snapshot;

use crate::disk::DiskFile;
use crate::seal::{MAGIC_AT, Seal};

/// The end of a log, as the next prepare has to continue it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Chain {
    pub(crate) cluster: ClusterId,
    pub(crate) group: GroupId,
    pub(crate) head: PrepareId,
    pub(crate) next_offset: Offset,
}

impl Chain {
    /// The end of the empty log.
    pub(crate) fn root(cluster: ClusterId, group: GroupId) -> Self {
        Self { cluster, group, head: PrepareId::ROOT, next_offset: Offset::ZERO }
    }

    /// The end of an empty log that builds on a snapshot.
    pub(crate) fn behind(snapshot: &Snapshot) -> Self {
        let header = &snapshot.header;
        let (cluster, group) = (header.cluster(), header.group());
        Self { cluster, group, head: header.id(), next_offset: header.next_offset() }
    }

    /// Whether this prepare is of this log's group.
    pub(crate) fn is_mine(&self, header: &PrepareHeader) -> bool {
        header.cluster() == self.cluster && header.group() == self.group
    }

    /// Whether this prepare can stand somewhere behind the end.
    pub(crate) fn may_lead_to(&self, header: &PrepareHeader) -> bool {
        self.is_mine(header)
            && header.op() > self.head.op
            && header.view() >= self.head.view
            && header.base_offset() >= self.next_offset
    }

    /// Whether this prepare is the next one of this log.
    pub(crate) fn accepts(&self, header: &PrepareHeader) -> bool {
        self.is_mine(header)
            && header.op() == self.head.op.next()
            && header.parent() == self.head
            && header.base_offset() == self.next_offset
    }

    pub(crate) fn push(&mut self, header: &PrepareHeader) {
        self.head = header.id();
        self.next_offset = header.next_offset();
    }
}

/// What another release has written is no damage: nothing is cut, mended or looked for behind it.
fn of_another_release(error: PrepareError) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, error)
}

/// A place in a segment file.
pub(crate) struct Cursor<'a, F> {
    file: &'a F,
    seal: &'a Seal,
    position: u64,
    /// Nothing is read from here on.
    end: u64,
    buffer: Bytes,
    buffer_position: u64,
    read_bytes: usize,
}

impl<'a, F: DiskFile> Cursor<'a, F> {
    /// A cursor at `position` that reads about `read_bytes` at once.
    pub(crate) fn new(file: &'a F, seal: &'a Seal, position: u64, end: u64, read_bytes: usize) -> Self {
        Self { file, seal, position, end, buffer: Bytes::new(), buffer_position: position, read_bytes }
    }

    /// Reads about so many bytes at once from now on.
    pub(crate) fn read_about(&mut self, bytes: usize) {
        self.read_bytes = bytes;
    }

    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The header here; none if there is no sound one.
    pub(crate) fn header(&mut self) -> io::Result<Option<PrepareHeader>> {
        let bytes = self.peek(self.seal.head_size())?;
        self.seal.header(&bytes).map_err(of_another_release)
    }

    /// Goes on to the next sound prepare whose header and position are accepted; stays here if there is none.
    pub(crate) fn find(
        &mut self,
        accepts: impl Fn(&PrepareHeader, u64) -> bool,
    ) -> io::Result<Option<PrepareHeader>> {
        let start = self.position;
        loop {
            let bytes = self.peek(self.read_bytes)?;
            let here = self.position;
            let Some(last) = bytes.len().checked_sub(self.seal.head_size()) else { break };
            let magic = self.seal.magic();
            let has_magic = |at: &usize| bytes[at + MAGIC_AT..].starts_with(&magic);
            for at in (0..=last).filter(has_magic) {
                self.position = here + at as u64;
                let header = self.seal.header(&bytes[at..]).map_err(of_another_release)?;
                let Some(header) = header.filter(|header| accepts(header, self.position)) else { continue };
                if self.prepare(&header)?.is_some() {
                    self.position = here + at as u64;
                    return Ok(Some(header));
                }
            }
            self.position = here + last as u64 + 1;
        }
        self.position = start;
        Ok(None)
    }

    /// Steps over the prepare of this header.
    pub(crate) fn skip(&mut self, header: &PrepareHeader) {
        self.position += self.seal.stored_size(header) as u64;
    }

    /// The prepare here, whose header was just read, and steps over it; none if its body is cut short or rotten.
    pub(crate) fn prepare(&mut self, header: &PrepareHeader) -> io::Result<Option<Prepare>> {
        let bytes = self.peek(self.seal.stored_size(header))?;
        let prepare = self.seal.prepare(&bytes);
        if prepare.is_some() {
            self.skip(header);
        }
        Ok(prepare)
    }

    /// Whether there are only zeros from here to the end.
    pub(crate) fn is_zero_to_end(&mut self) -> io::Result<bool> {
        let start = self.position;
        let mut is_zero = true;
        while is_zero && self.position < self.end {
            let bytes = self.peek(self.read_bytes)?;
            is_zero = bytes.iter().all(|byte| *byte == 0);
            self.position += bytes.len().max(1) as u64;
        }
        self.position = start;
        Ok(is_zero)
    }

    /// The next bytes, fewer only at the end.
    fn peek(&mut self, count: usize) -> io::Result<Bytes> {
        let left = usize::try_from(self.end.saturating_sub(self.position)).unwrap_or(usize::MAX);
        let count = count.min(left);
        let buffer_end = self.buffer_position + self.buffer.len() as u64;
        if self.position < self.buffer_position || self.position + count as u64 > buffer_end {
            let mut buffer = vec![0; count.max(self.read_bytes).min(left)];
            let read = self.file.read_at(&mut buffer, self.position)?;
            buffer.truncate(read);
            self.buffer = Bytes::from(buffer);
            self.buffer_position = self.position;
        }
        let start =
            usize::try_from(self.position - self.buffer_position).expect("the buffer fits the memory");
        Ok(self.buffer.slice(start..(start + count).min(self.buffer.len())))
    }
}

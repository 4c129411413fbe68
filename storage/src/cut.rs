//! Cutting a log: what is behind an op goes, durably.

use varve_protocol::id::Op;
use varve_protocol::mutant::Mutant;
use varve_protocol::prepare::PrepareHeader;

use crate::disk::{Disk, DiskFile};
use crate::error::{IoContext, StorageError};
use crate::file;
use crate::job::ReadFrom;
use crate::log::{Log, WALK_BYTES, group_dir};
use crate::reader::{Chain, Cursor};
use crate::segment::FIRST_POSITION;
use crate::writer::Writer;

impl<F: DiskFile> Log<F> {
    /// Cuts the log behind `keep`, durably. A crash in it leaves the old log, or one cut further back towards `keep`.
    pub(crate) fn truncate<D: Disk<File = F>>(&mut self, disk: &D, keep: Op) -> Result<(), StorageError> {
        assert!(keep <= self.head().op, "a log is cut at an op that it holds");
        assert!(self.gaps.is_empty(), "a log with holes is not cut but given up from there on");
        // What stays must be durable before a slot says that nothing from there on is.
        self.sync()?;
        if keep == self.head().op {
            return Ok(());
        }
        let mut is_open = true;
        while keep < self.active.header.parent.op || !is_open {
            is_open = self.remove_active(disk, keep)?;
        }
        let (position, chain) = self.locate_end(keep)?;
        if self.writer.slot().op > keep.next() {
            self.writer.write_slot(&self.active, keep.next(), position)?;
            self.sync()?;
        }
        if !Mutant::CutNotOnDisk.is_on() {
            self.writer.cut(&self.active, position)?;
        }
        self.sync()?;
        self.active.index.truncate(position);
        self.recent.truncate(keep);
        self.active.end = position;
        self.chain = chain;
        Ok(())
    }

    /// Goes back to the segment before; says whether its file is open. One of which nothing stays may be gone meanwhile, and then
    /// the one before that has to be gone back to; a crash between finds that the log has lost its end.
    fn remove_active<D: Disk<File = F>>(&mut self, disk: &D, keep: Op) -> Result<bool, StorageError> {
        let place = self.sealed.len().checked_sub(1).expect("an op that is held is in some segment");
        let is_needed = keep > self.sealed[place].header.parent.op || place == 0;
        let is_open = is_needed || file::is_there(disk, &self.sealed[place].path)?;
        if is_open {
            // What has rotted of it while it was sealed must not keep the log from being cut.
            self.look_at_block(disk, place)?;
        }
        let before = self.sealed.remove(place);
        if is_open {
            self.writer = Writer::open(disk, &before)?;
            self.writer.unseal(&before, self.active.header.first_op())?;
        }
        let removed = std::mem::replace(&mut self.active, before);
        file::remove_if_there(disk, &removed.path)?;
        let dir = group_dir(self.chain.group);
        disk.sync_dir(&dir).or_failed_to("sync directory", &dir)?;
        Ok(is_open)
    }

    /// Where the prepare `keep` ends in the active segment, and the chain that ends with it.
    fn locate_end(&self, keep: Op) -> Result<(u64, Chain), StorageError> {
        let header = &self.active.header;
        let recent = self.recent.find(keep).filter(|_| keep > header.parent.op);
        if let Some((position, head, next_offset)) = recent {
            return Ok((position, Chain { head, next_offset, ..self.chain }));
        }
        let mut chain = Chain { head: header.parent, next_offset: header.base_offset, ..self.chain };
        let Some(entry) = self.active.index.find(ReadFrom::Op(keep)) else {
            return Ok((FIRST_POSITION, chain));
        };
        let mut cursor =
            Cursor::new(&self.writer.file, &self.active.seal, entry.position, self.active.end, WALK_BYTES);
        let mut op = entry.op;
        while op <= keep {
            match self.expect_header(&self.active, &mut cursor, op) {
                Ok(header) => {
                    cursor.skip(&header);
                    chain.push(&header);
                    op = op.next();
                }
                Err(error) if error.is_repairable() => {
                    // What stands behind the damage names what is before it.
                    let is_next = |header: &PrepareHeader, _| {
                        chain.may_lead_to(header) && header.op() > op && header.op() <= keep.next()
                    };
                    let found = cursor.find(is_next).or_failed_to("read", &self.active.path)?;
                    let header = found.ok_or(error)?;
                    (chain.head, chain.next_offset) = (header.parent(), header.base_offset());
                    op = header.op();
                }
                Err(error) => return Err(error),
            }
        }
        Ok((cursor.position(), chain))
    }
}

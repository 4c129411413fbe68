//! Letting go of what cannot be read any more: with a snapshot of another replica in the place of one that would have to be made of
//! it.
//!
//! It fits if it ends with the same prepare as one of the segments here. What lies between that and the first op to keep is summed
//! up from here.

use varve_protocol::id::Op;
use varve_protocol::mark::Mark;
use varve_protocol::snapshot::Snapshot;

use crate::base::{Summarize, remove_all, snapshot_path};
use crate::disk::{Disk, DiskFile};
use crate::error::StorageError;
use crate::file;
use crate::index_file;
use crate::log::Log;
use crate::reader::Chain;
use crate::resume;
use crate::sealed_file;

impl<F: DiskFile> Log<F> {
    /// Lets go of the segments that lie wholly before `first`, as far as the snapshot helps to; says whether there were any.
    ///
    /// # Errors
    /// `Damaged` if what lies behind the snapshot cannot be read either: nothing is let go then.
    pub(crate) fn let_go_with<D: Disk<File = F>>(
        &mut self,
        disk: &D,
        (snapshot, first): (&Snapshot, Op),
        summarize: Summarize,
    ) -> Result<bool, StorageError> {
        assert!(self.gaps.is_empty(), "a log with holes lets go of nothing");
        let count = (0..self.sealed.len()).take_while(|place| self.last_of(*place).op < first).count();
        let replaced = (0..count).find(|place| self.last_of(*place) == snapshot.id());
        let Some(replaced) = replaced else { return Ok(false) };
        let path = self.sealed[replaced].path.clone();
        let unreadable = || StorageError::Damaged { path: path.clone(), position: 0, op: snapshot.op() };
        let mut summary = summarize(Some(snapshot)).ok_or_else(unreadable)?;
        for segment in &self.sealed[replaced + 1..count] {
            self.walk(disk, segment, &mut *summary)?;
        }
        let base = summary.finish().ok_or_else(unreadable)?;
        let group = self.chain.group;
        let path = snapshot_path(group, base.op());
        file::create_whole(disk, &path, sealed_file::seal(&self.owner, group, &path, base.encode()))?;
        let gone: Vec<_> = self.sealed.drain(..count).map(|segment| segment.path).collect();
        remove_all(disk, group, &gone)?;
        index_file::remove(disk, gone.iter());
        if self.base.head.op > Op::ZERO {
            remove_all(disk, group, &[snapshot_path(group, self.base.head.op)])?;
        }
        Mark::LetGoWithPeers.hit();
        self.base = Chain::behind(&base);
        resume::remove_before(disk, group, self.base.head.op.next())?;
        Ok(true)
    }
}

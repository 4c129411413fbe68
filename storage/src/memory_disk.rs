//! A data directory in memory that keeps what a kernel promises, and breaks what it does not, at a crash.
//!
//! * Bytes written since the last successful sync of a file survive by sector, any subset of them; a sector that was
//!   written several times may come back as any of its versions. Sectors are 512 bytes or 4096, drawn per crash.
//! * The size of a file may come back as any of its sizes since that sync.
//! * Names made, renamed or removed since the last sync of their directory survive one by one, any subset of them.
//! * After a failed sync the bytes it was to save are still read back, and no later sync saves them.
//!
//! Everything is drawn from the caller's generator and kept in ordered maps, so that one seed gives one outcome.
//! [`MemoryDisk`] is a handle: clones share one disk. [`MemoryDisk::crash`] begins the next life of the disk; handles
//! and files of earlier lives fail every call.

mod inode;
mod tree;

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use rand_chacha::ChaCha8Rng;

use crate::disk::{Disk, DiskFile, OpenMode};
use tree::Tree;

/// What a sync of a file does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SyncFault {
    /// It works.
    #[default]
    None,
    /// The next one fails, the ones after it work.
    Once,
    /// All fail.
    Always,
}

#[derive(Clone, Default)]
struct State {
    tree: Tree,
    life: u64,
    capacity_bytes: Option<u64>,
    sync_fault: SyncFault,
    /// Calls that changed something, in all lives.
    calls: u64,
    /// The call after which the power is off.
    calls_max: Option<u64>,
}

impl State {
    /// Counts a call that changes something; fails it if the power is off.
    fn count_call(&mut self) -> io::Result<()> {
        if self.calls_max.is_some_and(|max| self.calls >= max) {
            return Err(io::Error::other("simulated disk: the power is off"));
        }
        self.calls += 1;
        Ok(())
    }

    /// What becomes of the sync that is about to be done.
    fn take_sync_fault(&mut self) -> SyncFault {
        let fault = self.sync_fault;
        if fault == SyncFault::Once {
            self.sync_fault = SyncFault::None;
        }
        fault
    }
}

/// A [`Disk`] in memory.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
    life: u64,
}

/// An open file of a [`MemoryDisk`].
pub struct MemoryFile {
    disk: MemoryDisk,
    inode: u64,
}

impl MemoryDisk {
    /// An empty disk without limits or faults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Loses the power: draws what survives, and returns the handle of the disk's next life, with power and without
    /// sync faults. All other handles and files fail from now on.
    #[must_use]
    pub fn crash(&self, rng: &mut ChaCha8Rng) -> Self {
        let mut state = self.lock();
        state.tree.crash(rng);
        self.next_life(&mut state)
    }

    /// Ends the process but not the machine: everything written is still read back, and nothing more is durable than
    /// before. Returns the handle of the disk's next life; all other handles and files fail from now on.
    #[must_use]
    pub fn restart(&self) -> Self {
        self.next_life(&mut self.lock())
    }

    fn next_life(&self, state: &mut State) -> Self {
        state.life += 1;
        state.calls_max = None;
        state.sync_fault = SyncFault::None;
        Self { state: Arc::clone(&self.state), life: state.life }
    }

    /// A copy of the whole disk, with what is not durable yet, that shares nothing with this one.
    #[must_use]
    pub fn fork(&self) -> Self {
        let state = self.lock().clone();
        Self { life: state.life, state: Arc::new(Mutex::new(state)) }
    }

    /// Limits the bytes of all files together; `None` lifts the limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.lock().capacity_bytes = bytes;
    }

    /// The bytes of all files together.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.lock().tree.used()
    }

    /// Makes syncs of files fail from now on, or work again.
    pub fn set_sync_fault(&self, fault: SyncFault) {
        self.lock().sync_fault = fault;
    }

    /// How many calls changed something so far: writes, sizes, syncs and names.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    /// Cuts the power when that many calls have changed something; every such call after them fails.
    pub fn power_off_after(&self, calls: u64) {
        self.lock().calls_max = Some(calls);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no call on a simulated disk panics")
    }

    fn alive(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.lock();
        if state.life == self.life {
            Ok(state)
        } else {
            Err(io::Error::other("simulated disk: this handle is from before a crash"))
        }
    }

    fn changing(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.alive()?;
        state.count_call()?;
        Ok(state)
    }
}

impl Disk for MemoryDisk {
    type File = MemoryFile;

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.changing()?.tree.create_dir(path)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<MemoryFile> {
        let inode = match mode {
            OpenMode::Existing => self.alive()?.tree.find_file(path)?,
            OpenMode::CreateNew => self.changing()?.tree.create_file(path)?,
        };
        Ok(MemoryFile { disk: self.clone(), inode })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.alive()?.tree.list(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.changing()?.tree.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.changing()?.tree.remove(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.changing()?.tree.remove_dir(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.changing()?.tree.sync_dir(dir)
    }

    fn sync_all(&self) -> io::Result<()> {
        let mut state = self.changing()?;
        match state.take_sync_fault() {
            SyncFault::None => state.tree.sync_all(),
            SyncFault::Once | SyncFault::Always => {
                state.tree.fail_sync_all();
                return Err(io::Error::other("simulated disk: sync failed"));
            }
        }
        Ok(())
    }
}

impl DiskFile for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        Ok(self.disk.alive()?.tree.inode(self.inode).read(buffer, position))
    }

    fn write_at(&self, chunks: &[Bytes], position: u64) -> io::Result<()> {
        let mut state = self.disk.changing()?;
        let size_max = size_max(&state, self.inode);
        let inode = state.tree.inode_mut(self.inode);
        let mut position = position;
        for chunk in chunks {
            let room = usize::try_from(size_max.saturating_sub(position)).unwrap_or(usize::MAX);
            let taken = chunk.len().min(room);
            inode.write(&chunk[..taken], position);
            if taken < chunk.len() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            position += chunk.len() as u64;
        }
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.alive()?.tree.inode(self.inode).size())
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        let mut state = self.disk.changing()?;
        if size > size_max(&state, self.inode) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.tree.inode_mut(self.inode).set_size(size);
        Ok(())
    }

    fn set_aside(&self, position: u64, size: u64) -> io::Result<()> {
        self.set_size((position + size).max(self.size()?))
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.changing()?;
        match state.take_sync_fault() {
            SyncFault::None => state.tree.inode_mut(self.inode).sync(),
            SyncFault::Once | SyncFault::Always => {
                state.tree.inode_mut(self.inode).fail_sync();
                return Err(io::Error::other("simulated disk: sync failed"));
            }
        }
        Ok(())
    }
}

/// How large a file may be while all files together stay within the capacity; never below its size.
fn size_max(state: &State, inode: u64) -> u64 {
    match state.capacity_bytes {
        None => u64::MAX,
        Some(capacity) => state.tree.inode(inode).size() + capacity.saturating_sub(state.tree.used()),
    }
}

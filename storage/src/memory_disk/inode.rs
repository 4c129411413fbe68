//! The bytes of one simulated file: what is read back, and what a crash may make of it.
//!
//! Every change carries a tick, one per change of this file. A sector with changes since the last sync has a list of
//! versions, the synced one first; a crash draws one for each sector (or one tick for each 4096-byte block).

use std::collections::BTreeMap;

use rand::Rng;
use rand_chacha::ChaCha8Rng;

const SECTOR: usize = 512;
const SECTORS_PER_BLOCK: u64 = 8;

#[derive(Clone)]
struct Version {
    tick: u64,
    bytes: Box<[u8; SECTOR]>,
}

/// A file of a simulated disk.
#[derive(Clone, Default)]
pub(super) struct Inode {
    content: Vec<u8>,
    tick: u64,
    /// By sector: its versions since the last sync, oldest first; the first one is the synced one.
    pending: BTreeMap<u64, Vec<Version>>,
    /// By sector: what is on the disk, of sectors whose sync failed and that were not written since.
    lost: BTreeMap<u64, Version>,
    /// Sizes since the last sync with their ticks, oldest first; the first one is the synced one.
    sizes: Vec<(u64, u64)>,
}

impl Inode {
    pub(super) fn size(&self) -> u64 {
        self.content.len() as u64
    }

    pub(super) fn read(&self, buffer: &mut [u8], position: u64) -> usize {
        let start = to_index(position).min(self.content.len());
        let count = buffer.len().min(self.content.len() - start);
        buffer[..count].copy_from_slice(&self.content[start..start + count]);
        count
    }

    pub(super) fn write(&mut self, bytes: &[u8], position: u64) {
        if bytes.is_empty() {
            return;
        }
        let start = to_index(position);
        let end = start + bytes.len();
        if end > self.content.len() {
            self.change_size(end);
        }
        self.change(start, end, |content| content.copy_from_slice(bytes));
    }

    pub(super) fn set_size(&mut self, size: u64) {
        let size = to_index(size);
        if size < self.content.len() {
            self.change(size, self.content.len(), |content| content.fill(0));
        }
        self.change_size(size);
    }

    pub(super) fn sync(&mut self) {
        self.pending.clear();
        self.sizes.clear();
    }

    /// The pages are clean now, and their bytes were not written.
    pub(super) fn fail_sync(&mut self) {
        for (sector, versions) in std::mem::take(&mut self.pending) {
            let on_disk = versions.into_iter().next().expect("a changed sector has the synced version");
            self.lost.entry(sector).or_insert(on_disk);
        }
        self.sizes.clear();
    }

    fn change_size(&mut self, size: usize) {
        if self.sizes.is_empty() {
            self.sizes.push((self.tick, self.size()));
        }
        self.tick += 1;
        self.content.resize(size, 0);
        self.sizes.push((self.tick, size as u64));
    }

    /// Changes the bytes from `start` to `end`, and keeps the versions of all sectors they touch.
    fn change(&mut self, start: usize, end: usize, change: impl FnOnce(&mut [u8])) {
        let sectors = (start / SECTOR) as u64..=((end - 1) / SECTOR) as u64;
        for sector in sectors.clone() {
            if !self.pending.contains_key(&sector) {
                let synced = self.lost.remove(&sector).unwrap_or_else(|| self.version(sector));
                self.pending.insert(sector, vec![synced]);
            }
        }
        change(&mut self.content[start..end]);
        self.tick += 1;
        for sector in sectors {
            let version = self.version(sector);
            self.pending.get_mut(&sector).expect("the sector has its synced version").push(version);
        }
    }

    fn version(&self, sector: u64) -> Version {
        let mut bytes = Box::new([0; SECTOR]);
        self.read(&mut bytes[..], sector * SECTOR as u64);
        Version { tick: self.tick, bytes }
    }

    /// Draws what survives.
    pub(super) fn crash(&mut self, rng: &mut ChaCha8Rng) {
        let whole_blocks = rng.random_bool(0.5);
        // None, some or all of it: a uniform draw would hardly ever show the two ends of a long list.
        let survival = [0.0, 0.25, 0.5, 0.75, 1.0][rng.random_range(0..5)];
        let size = match self.sizes.len() {
            0 => self.size(),
            _ if rng.random_bool(survival) => self.size(),
            count => self.sizes[rng.random_range(0..count)].1,
        };
        let mut block_tick = (u64::MAX, 0);
        for (sector, versions) in std::mem::take(&mut self.pending) {
            let block = sector / SECTORS_PER_BLOCK;
            if !whole_blocks || block_tick.0 != block {
                block_tick = (block, draw_tick(&versions, survival, rng));
            }
            let survivor = versions.iter().rev().find(|version| version.tick <= block_tick.1);
            self.put(sector, survivor.unwrap_or(&versions[0]));
        }
        for (sector, version) in std::mem::take(&mut self.lost) {
            self.put(sector, &version);
        }
        self.content.resize(to_index(size), 0);
        self.sizes.clear();
    }

    fn put(&mut self, sector: u64, version: &Version) {
        let start = to_index(sector) * SECTOR;
        let end = start + SECTOR;
        if end > self.content.len() {
            self.content.resize(end, 0);
        }
        self.content[start..end].copy_from_slice(&version.bytes[..]);
    }
}

fn draw_tick(versions: &[Version], survival: f64, rng: &mut ChaCha8Rng) -> u64 {
    let index =
        if rng.random_bool(survival) { versions.len() - 1 } else { rng.random_range(0..versions.len()) };
    versions[index].tick
}

fn to_index(position: u64) -> usize {
    usize::try_from(position).expect("a simulated file fits the memory")
}

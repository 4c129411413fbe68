//! What an append to a file costs, by how its room was made: the numbers behind what `writer` does.
//!
//! Every way appends the same blocks with one `fdatasync` each, in turns with the others, so that what else the machine does hits all
//! alike. `cargo bench -p varve-storage --bench preallocation -- DIRECTORY`, on the disk in question.
//!
//! | way        | the file before a block is written                                                       |
//! |------------|------------------------------------------------------------------------------------------|
//! | overwrite  | all of it was written and synced before: the limit of the disk                           |
//! | grow       | ends there                                                                               |
//! | fallocate  | its blocks are given to it a step ahead, and were never written                          |
//! | zeros      | was filled with zeros a step ahead, in the same sync                                     |
//! | fill apart | was filled with zeros a step ahead, in a sync of their own                               |
//! | recycle    | is an old segment under another name, as long as the new one                             |

use std::fs::{File, OpenOptions, create_dir_all, remove_file, rename};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, fallocate};

const WAYS: [Way; 6] = [Way::Overwrite, Way::Grow, Way::Fallocate, Way::Zeros, Way::FillApart, Way::Recycle];

/// Blocks that one way writes before the next one's turn.
const BLOCKS_PER_TURN: u64 = 16;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Overwrite,
    Grow,
    Fallocate,
    Zeros,
    FillApart,
    Recycle,
}

struct Lane {
    way: Way,
    file: File,
    path: PathBuf,
    position: u64,
    /// Where the room ends that was made ahead.
    room: u64,
    waits: Vec<Duration>,
}

impl Lane {
    fn new(dir: &Path, way: Way, bytes: u64) -> io::Result<Self> {
        let path = dir.join(format!("{way:?}"));
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
        let mut lane = Self { way, file, path, position: 0, room: 0, waits: Vec::new() };
        if matches!(way, Way::Overwrite | Way::Recycle) {
            lane.fill(bytes)?;
        }
        if way == Way::Recycle {
            let next = lane.path.with_extension("recycled");
            rename(&lane.path, &next)?;
            lane.path = next;
        }
        lane.file.sync_all()?;
        File::open(dir)?.sync_all()?;
        Ok(lane)
    }

    fn fill(&self, bytes: u64) -> io::Result<()> {
        let zeros = vec![0; 1 << 20];
        let mut at = self.room;
        while at < self.room + bytes {
            let count = usize::try_from((self.room + bytes - at).min(1 << 20)).unwrap_or(1 << 20);
            self.file.write_all_at(&zeros[..count], at)?;
            at += count as u64;
        }
        Ok(())
    }

    fn append(&mut self, block: &[u8], step: u64) -> io::Result<()> {
        let start = Instant::now();
        let end = self.position + block.len() as u64;
        let needs_room = end > self.room;
        match self.way {
            Way::Overwrite | Way::Grow | Way::Recycle => {}
            Way::Fallocate if needs_room => {
                fallocate(&self.file, FallocateFlags::empty(), self.room, step)?;
                self.room += step;
            }
            Way::Zeros | Way::FillApart if needs_room => {
                self.fill(step)?;
                self.room += step;
                if self.way == Way::FillApart {
                    self.file.sync_data()?;
                }
            }
            Way::Fallocate | Way::Zeros | Way::FillApart => {}
        }
        self.file.write_all_at(block, self.position)?;
        self.file.sync_data()?;
        self.position = end;
        self.waits.push(start.elapsed());
        Ok(())
    }

    fn report(&mut self, block: usize) {
        self.waits.sort();
        let at = |permille: usize| self.waits[(self.waits.len() - 1) * permille / 1000].as_secs_f64() * 1e3;
        let total: f64 = self.waits.iter().map(Duration::as_secs_f64).sum();
        let rate = (self.waits.len() * block) as f64 / total / 1e6;
        let way = format!("{:?}", self.way);
        println!("{way:>10} {:>9.3} {:>9.3} {:>9.3} {rate:>9.1}", at(500), at(990), at(1000));
    }
}

fn run(dir: &Path, block: usize, step: u64, blocks: u64) -> io::Result<()> {
    let bytes = block as u64 * blocks;
    let mut lanes = WAYS.iter().map(|way| Lane::new(dir, *way, bytes)).collect::<io::Result<Vec<_>>>()?;
    let pattern: Vec<u8> = (0..=u8::MAX).cycle().take(block).collect();
    for _ in 0..blocks / BLOCKS_PER_TURN {
        for lane in &mut lanes {
            for _ in 0..BLOCKS_PER_TURN {
                lane.append(&pattern, step)?;
            }
        }
    }
    println!("{block} bytes, {blocks} blocks, {step} bytes ahead");
    println!("       way    p50 ms    p99 ms    max ms      MB/s");
    for lane in &mut lanes {
        lane.report(block);
        remove_file(&lane.path)?;
    }
    Ok(())
}

fn main() -> io::Result<()> {
    let dir = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let dir = PathBuf::from(dir.unwrap_or_else(|| "target/preallocation".to_owned()));
    create_dir_all(&dir)?;
    for (block, step, blocks) in [
        (4 << 10, 64 << 10, 2000),
        (4 << 10, 1 << 20, 2000),
        (4 << 10, 4 << 20, 2000),
        (64 << 10, 4 << 20, 640),
        (1 << 20, 4 << 20, 192),
        (1 << 20, 32 << 20, 192),
    ] {
        run(&dir, block, step, blocks)?;
    }
    Ok(())
}

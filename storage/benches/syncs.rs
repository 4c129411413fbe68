//! What it costs to make appends to many files durable, by how they are synced: the numbers behind what `round` does.
//!
//! A round appends 1 KiB to each of so many files, whose room was written before. All ways do so in turns, each on files of its
//! own, so that what else the machine does hits all alike.
//! `cargo bench -p varve-storage --bench syncs -- DIRECTORY`, on the disk in question.
//!
//! | way       | how a round becomes durable                                              |
//! |-----------|--------------------------------------------------------------------------|
//! | one file  | the same bytes go to a single file, with one sync: the limit of the disk |
//! | in turn   | `fdatasync` of each file, one after the other                            |
//! | N threads | the same, from N threads                                                 |
//! | syncfs    | one sync of the whole file system                                        |

use std::fs::{File, OpenOptions, create_dir_all, remove_dir_all};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const WAYS: [Way; 7] = [
    Way::OneFile,
    Way::InTurn,
    Way::Threads(2),
    Way::Threads(4),
    Way::Threads(8),
    Way::Threads(16),
    Way::Syncfs,
];

const RECORD: usize = 1 << 10;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    OneFile,
    InTurn,
    Threads(usize),
    Syncfs,
}

struct Lane {
    way: Way,
    dir: File,
    files: Vec<File>,
    position: u64,
    waits: Vec<Duration>,
}

impl Lane {
    fn new(root: &Path, way: Way, count: usize, rounds: usize) -> io::Result<Self> {
        let path = root.join(format!("{way:?}"));
        create_dir_all(&path)?;
        let (files, size) = if way == Way::OneFile { (1, count * rounds) } else { (count, rounds) };
        let zeros = vec![0; size * RECORD];
        let files = (0..files).map(|file| {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .open(path.join(file.to_string()))?;
            file.write_all_at(&zeros, 0)?;
            Ok(file)
        });
        let files = files.collect::<io::Result<Vec<_>>>()?;
        let dir = File::open(&path)?;
        rustix::fs::syncfs(&dir)?;
        Ok(Self { way, dir, files, position: 0, waits: Vec::new() })
    }

    fn round(&mut self, count: usize) -> io::Result<()> {
        let start = Instant::now();
        let record = [0x5a; RECORD];
        match self.way {
            Way::OneFile => {
                for _ in 0..count {
                    self.files[0].write_all_at(&record, self.position)?;
                    self.position += RECORD as u64;
                }
            }
            Way::InTurn | Way::Threads(_) | Way::Syncfs => {
                for file in &self.files {
                    file.write_all_at(&record, self.position)?;
                }
                self.position += RECORD as u64;
            }
        }
        match self.way {
            Way::OneFile | Way::InTurn => self.files.iter().try_for_each(File::sync_data)?,
            Way::Threads(threads) => self.sync_with(threads)?,
            Way::Syncfs => rustix::fs::syncfs(&self.dir)?,
        }
        self.waits.push(start.elapsed());
        Ok(())
    }

    fn sync_with(&self, threads: usize) -> io::Result<()> {
        let next = AtomicUsize::new(0);
        let sync = || {
            while let Some(file) = self.files.get(next.fetch_add(1, Ordering::Relaxed)) {
                file.sync_data()?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(sync)).collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("a sync does not panic"))
        })
    }

    fn report(&mut self, limit: f64) -> f64 {
        self.waits.sort();
        let at = |permille: usize| self.waits[(self.waits.len() - 1) * permille / 1000].as_secs_f64() * 1e3;
        let way = format!("{:?}", self.way);
        let median = at(500);
        let of_limit = if limit == 0.0 { 1.0 } else { limit / median };
        println!("{way:>12} {median:>9.3} {:>9.3} {:>9.3} {of_limit:>9.2}", at(990), at(1000));
        median
    }
}

fn run(root: &Path, count: usize, rounds: usize) -> io::Result<()> {
    let mut lanes =
        WAYS.iter().map(|way| Lane::new(root, *way, count, rounds)).collect::<io::Result<Vec<_>>>()?;
    for _ in 0..rounds {
        for lane in &mut lanes {
            lane.round(count)?;
        }
    }
    println!("{count} files, {rounds} rounds of {RECORD} bytes for each");
    println!("         way    p50 ms    p99 ms    max ms  of limit");
    let mut limit = 0.0;
    for lane in &mut lanes {
        let median = lane.report(limit);
        if lane.way == Way::OneFile {
            limit = median;
        }
    }
    remove_dir_all(root)
}

fn main() -> io::Result<()> {
    let root = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let root = PathBuf::from(root.unwrap_or_else(|| "target/syncs".to_owned()));
    for (count, rounds) in [(2, 200), (4, 200), (16, 100), (100, 40), (1000, 12)] {
        run(&root, count, rounds)?;
    }
    Ok(())
}

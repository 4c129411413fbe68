//! How close the store comes to the disk: appends, beside raw writes of the same sizes, in one run.
//!
//! `cargo run --release -p varve-storage --example append_rate [directory]`; the directory must be on a real disk.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use varve_protocol::id::{
    ClusterId, DirectoryId, Epoch, GroupId, NodeId, Offset, ProducerId, RequestNumber, Timestamp, View,
};
use varve_protocol::prepare::{PREPARE_HEADER_SIZE, Prepare, PrepareFields, PrepareId, PrepareKind};
use varve_protocol::superblock::Superblock;
use varve_storage::{Completion, FileDisk, Identity, Job, Options, StorageError, Store};

const LARGE: usize = 1 << 20;
const LARGE_COUNT: usize = 400;
const SMALL: usize = 4096;
const SMALL_COUNT: usize = 2000;
/// Each measurement is taken so often, in turns, because other users of the disk come and go.
const TURNS: usize = 3;

const IDENTITY: Identity = Identity { cluster: ClusterId::new(1), node: NodeId::new(1) };
const DIRECTORY: DirectoryId = DirectoryId::new(1);
const GROUP: GroupId = GroupId::new(1);

/// The times of one measurement, over all turns.
struct Times {
    name: &'static str,
    size: usize,
    each: Vec<Duration>,
}

impl Times {
    fn new(name: &'static str, size: usize) -> Self {
        Self { name, size, each: Vec::new() }
    }

    fn add(&mut self, count: usize, mut act: impl FnMut(usize) -> io::Result<()>) -> io::Result<()> {
        for at in 0..count {
            let start = Instant::now();
            act(at)?;
            self.each.push(start.elapsed());
        }
        Ok(())
    }

    fn quantile_us(&self, quantile: f64) -> f64 {
        let mut sorted = self.each.clone();
        sorted.sort_unstable();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a place in a short list"
        )]
        let at = ((sorted.len() - 1) as f64 * quantile) as usize;
        sorted[at].as_secs_f64() * 1e6
    }

    fn rate_mb(&self) -> f64 {
        let total: Duration = self.each.iter().sum();
        (self.size * self.each.len()) as f64 / total.as_secs_f64() / 1e6
    }

    fn print(&self) {
        let (p50, p99) = (self.quantile_us(0.5), self.quantile_us(0.99));
        println!("{:<44} {:>7.0} MB/s   p50 {p50:>6.0} us   p99 {p99:>6.0} us", self.name, self.rate_mb());
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let parent = std::env::args().nth(1).unwrap_or_else(|| ".".to_owned());
    let mut raw_large = Times::new("(a) raw 1 MiB overwrite + fdatasync", LARGE);
    let mut store_large = Times::new("(b) store, 1 MiB prepare per round", LARGE);
    let mut raw_small = Times::new("(c) raw 4 KiB overwrite + fdatasync", SMALL);
    let mut store_small = Times::new("(d) store, 4 KiB prepare per round", SMALL);
    for _ in 0..TURNS {
        let dir = tempfile::tempdir_in(&parent)?;
        measure_raw(&dir.path().join("raw"), LARGE_COUNT, &mut raw_large)?;
        measure_store(&dir.path().join("large"), LARGE_COUNT, &mut store_large)?;
        measure_raw(&dir.path().join("raw"), SMALL_COUNT, &mut raw_small)?;
        measure_store(&dir.path().join("small"), SMALL_COUNT, &mut store_small)?;
    }
    for times in [&raw_large, &store_large, &raw_small, &store_small] {
        times.print();
    }
    println!("rate of (b) / (a)     {:.2}", store_large.rate_mb() / raw_large.rate_mb());
    println!("p50 of (b) / (a)      {:.2}", store_large.quantile_us(0.5) / raw_large.quantile_us(0.5));
    println!("p50 of (d) / (c)      {:.2}", store_small.quantile_us(0.5) / raw_small.quantile_us(0.5));
    Ok(())
}

/// Overwrites a file whose blocks were all written before.
fn measure_raw(path: &Path, count: usize, times: &mut Times) -> io::Result<()> {
    let file = File::options().write(true).create(true).truncate(true).open(path)?;
    let block = vec![7; times.size];
    for at in 0..count {
        file.write_all_at(&block, (at * times.size) as u64)?;
    }
    file.sync_all()?;
    times.add(count, |at| {
        file.write_all_at(&block, (at * block.len()) as u64)?;
        file.sync_data()
    })
}

/// Appends prepares whose header and body together have the size asked for, one per round.
fn measure_store(path: &Path, count: usize, times: &mut Times) -> Result<(), StorageError> {
    let disk = FileDisk::open(path.to_owned())?;
    Store::format(&disk, IDENTITY, DIRECTORY)?;
    let (mut store, _) = Store::open(disk, IDENTITY, Options::default(), &mut |_, _| {})?;
    let superblock = Superblock::new(GROUP);
    store.execute(vec![Job::SaveSuperblock(superblock)]);
    let body = Bytes::from(vec![7; times.size - PREPARE_HEADER_SIZE]);
    let mut parent = PrepareId::ROOT;
    let prepares: Vec<Prepare> = (0..count).map(|_| seal(&mut parent, &body)).collect();
    let result = times.add(count, |at| {
        let prepares = vec![prepares[at].clone()];
        let told = store.execute(vec![Job::Append { group: GROUP, prepares }]);
        let is_durable = told.iter().any(|one| matches!(one, Completion::Durable { .. }));
        if is_durable { Ok(()) } else { Err(io::Error::other("the append failed")) }
    });
    result.map_err(|error| StorageError::Io { act: "append to", path: path.to_owned(), source: error.into() })
}

fn seal(parent: &mut PrepareId, body: &Bytes) -> Prepare {
    let fields = PrepareFields {
        cluster: IDENTITY.cluster,
        group: GROUP,
        view: View::ZERO,
        parent: *parent,
        epoch: Epoch::ZERO,
        kind: PrepareKind::Records,
        base_offset: Offset::new(parent.op.as_raw()),
        record_count: 1,
        timestamp: Timestamp::new(parent.op.as_raw() + 1),
        producer: ProducerId::ZERO,
        request: RequestNumber::ZERO,
    };
    let prepare = Prepare::seal(fields, body.clone());
    *parent = prepare.id();
    prepare
}

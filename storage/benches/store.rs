//! How close a store comes to its disk: each measure beside the same bytes written or read without a store, in turns in one run, so
//! that what else the machine does hits both alike.
//!
//! `cargo bench -p varve-storage --bench store -- DIRECTORY [MIB [MEASURE]]`: the directory must be on the disk in question, MIB (512)
//! is the size of the log that is read, MEASURE the only one that is taken (`reads` for the four that read). With `sealed` in front of a line the store has a key.
//!
//! `varve` has its allocator keep blocks of some MiB that were given back. To measure what it does, let this one do so, too:
//! `MALLOC_MMAP_THRESHOLD_=33554432 MALLOC_TRIM_THRESHOLD_=67108864 cargo bench ...` (GNU C library).
//!
//! | measure | the store                                       | beside it                                                  |
//! |---------|-------------------------------------------------|------------------------------------------------------------|
//! | large   | a prepare of 1 MiB per round, made durable      | 1 MiB written to a file with room for it, and `fdatasync`  |
//! | reused  | the same, written over segments that were let go of | 1 MiB overwritten in a file, and `fdatasync`           |
//! | small   | a prepare of 4 KiB per round, made durable      | 4 KiB overwritten in a file, and `fdatasync`               |
//! | again   | the same, written over segments that were let go of | as above                                               |
//! | deleted | a prepare of 4 KiB per round; before the first of 50 a log of 256 MiB goes | as above, and nothing goes |
//! | groups  | 1 KiB for each of 1,000 groups in one round     | the same bytes in one file, and one `fdatasync`            |
//! | scan    | opens a log, reading all of it from the disk    | reads files of the same bytes, 1 MiB at a time             |
//! | start   | opens it behind its resume point                | as above                                                   |
//! | cold    | reads all prepares of it, 1 MiB at a time       | as above                                                   |
//! | look    | looks at all of it, as the scrubber does        | as above                                                   |
//! | idle    | memory for each of 10,000 groups with a prepare | -                                                          |

use std::error::Error;
use std::fs::{File, OpenOptions, create_dir_all, read_dir, remove_dir_all};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use varve_protocol::id::{
    ClusterId, DirectoryId, Epoch, GroupId, NodeId, Offset, Op, ProducerId, RequestNumber, Timestamp, View,
};
use varve_protocol::log_start::LogStart;
use varve_protocol::prepare::{
    PREPARE_HEADER_SIZE, Prepare, PrepareFields, PrepareHeader, PrepareId, PrepareKind,
};
use varve_protocol::resume_point::ResumePoint;
use varve_protocol::snapshot::Snapshot;
use varve_protocol::superblock::Superblock;
use varve_protocol::version::Version;
use varve_storage::{
    Completion, Extent, FileDisk, Identity, Job, Keys, Options, ReadFrom, ScrubFrom, Store, Summary,
    raise_open_files_max,
};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

const IDENTITY: Identity = Identity { cluster: ClusterId::new(1), node: NodeId::new(1) };
const MIB: usize = 1 << 20;
const GROUPS: u64 = 1000;
const IDLE_GROUPS: u64 = 10_000;
/// Each measure is taken so often, in turns.
const TURNS: usize = 5;
/// Bytes of a segment where segments are let go of.
const SHORT_SEGMENT_BYTES: usize = 64 << 20;
const DELETED_MIB: usize = 256;
const ROUNDS_A_DELETION: usize = 50;
/// Rounds over all groups: enough to fill the journal a few times.
const GROUP_ROUNDS: usize = 200;

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|one| !one.starts_with("--")).collect();
    let root = arguments.first().map_or_else(|| PathBuf::from("target/store"), PathBuf::from);
    let mib = arguments.get(1).map_or(Ok(512), |count| count.parse())?;
    raise_open_files_max()?;
    create_dir_all(&root)?;
    println!(
        "{:<14} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10} {:>8}",
        "", "raw p50", "raw p99", "raw mean", "p50", "p99", "mean", "of raw"
    );
    let is_wanted = |measure: &str| arguments.get(2).is_none_or(|only| only == measure);
    for keys in [Keys::NONE, Keys::parse(&"5a".repeat(32), [7; 32])?] {
        if is_wanted("large") {
            rounds("large", &root, &keys, (MIB, 60, Kept::Everything))?;
        }
        if is_wanted("reused") {
            rounds("reused", &root, &keys, (MIB, 192, Kept::OneSegment))?;
        }
        if is_wanted("small") {
            rounds("small", &root, &keys, (4096, 400, Kept::Everything))?;
        }
        if is_wanted("again") {
            rounds("again", &root, &keys, (4096, 400, Kept::OneSegment))?;
        }
        if is_wanted("deleted") {
            deletion(&root, &keys)?;
        }
        if is_wanted("groups") {
            many_groups(&root, &keys)?;
        }
        if is_wanted("reads") {
            reads(&root, &keys, mib)?;
        }
    }
    if is_wanted("idle") {
        idle(&root)?;
    }
    Ok(remove_dir_all(&root)?)
}

/// How long something took each time, with a store and without.
#[derive(Default)]
struct Pair {
    raw: Vec<Duration>,
    store: Vec<Duration>,
}

impl Pair {
    fn print(&mut self, name: &str, keys: &Keys) {
        let ms = |waits: &mut Vec<Duration>, permille: usize| {
            waits.sort_unstable();
            waits.get((waits.len() - 1) * permille / 1000).map_or(0.0, |wait| wait.as_secs_f64() * 1e3)
        };
        let name = if keys.newest().is_some() { format!("sealed {name}") } else { name.to_owned() };
        let [raw, raw_p99] = [500, 990].map(|at| ms(&mut self.raw, at));
        let [store, store_p99] = [500, 990].map(|at| ms(&mut self.store, at));
        let mean = |waits: &[Duration]| {
            waits.iter().sum::<Duration>().as_secs_f64() * 1e3 / waits.len().max(1) as f64
        };
        let [raw_mean, store_mean] = [&self.raw, &self.store].map(|waits| mean(waits));
        println!(
            "{name:<14} {raw:>10.3} {raw_p99:>10.3} {raw_mean:>10.3} {store:>10.3} {store_p99:>10.3} {store_mean:>10.3} {:>8.2}",
            raw_mean / store_mean
        );
    }
}

fn timed<T>(waits: &mut Vec<Duration>, act: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    let start = Instant::now();
    let done = act()?;
    waits.push(start.elapsed());
    Ok(done)
}

/// What is kept of a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kept {
    Everything,
    /// What is older goes as soon as a segment is full, before the clock runs again.
    OneSegment,
}

/// One prepare a round, made durable.
fn rounds(name: &str, root: &Path, keys: &Keys, (size, count, kept): (usize, usize, Kept)) -> Outcome {
    let mut pair = Pair::default();
    let body = Bytes::from(vec![7; size - PREPARE_HEADER_SIZE]);
    for _ in 0..TURNS {
        let (mut store, dir) = new_store(root, keys, 1)?;
        let mut log = Log::new(1);
        if kept == Kept::OneSegment {
            drop(store);
            let segment_size_bytes_max = SHORT_SEGMENT_BYTES as u64;
            let disk = FileDisk::open(dir.clone())?;
            let options = Options { keys: keys.clone(), segment_size_bytes_max, ..Options::DEFAULT };
            store = Store::open(disk, IDENTITY, options, &mut |_, _| {})?.0;
            let large = Bytes::from(vec![7; MIB]);
            // Then so much that the next segment is written over one of these.
            for count in [3, 1].map(|segments| segments * SHORT_SEGMENT_BYTES / MIB) {
                let_go_as_it_fills(&mut store, &mut log, &large, count)?;
                forget_spares(&dir)?;
            }
            // The room of what was too much is given back meanwhile; `deleted` measures what that does to others.
            std::thread::sleep(Duration::from_millis(500));
        }
        for _ in 0..count {
            let jobs = vec![log.append(&body)];
            timed(&mut pair.store, || durable(&mut store, jobs, 1))?;
            if kept == Kept::OneSegment {
                let_go_as_it_fills(&mut store, &mut log, &body, 0)?;
                forget_spares(&dir)?;
            }
        }
        drop(store);
        remove_dir_all(dir)?;
        let file = match kept {
            Kept::Everything if size == MIB => allocated_file(&root.join("raw"), size * count)?,
            Kept::Everything | Kept::OneSegment => written_file(&root.join("raw"), size * count)?,
        };
        let block = vec![7; size];
        for at in 0..count {
            timed(&mut pair.raw, || {
                file.write_all_at(&block, (at * size) as u64)?;
                Ok(file.sync_data()?)
            })?;
        }
    }
    pair.print(name, keys);
    Ok(())
}

/// Small rounds of a log while a large one goes. That hits one round in fifty, so the slowest hundredth tells.
fn deletion(root: &Path, keys: &Keys) -> Outcome {
    let mut pair = Pair::default();
    let large = Bytes::from(vec![7; MIB]);
    let small = large.slice(..4096 - PREPARE_HEADER_SIZE);
    for _ in 0..TURNS {
        let (mut store, dir) = new_store(root, keys, 2)?;
        let mut logs = [Log::new(1), Log::new(2)];
        for _ in 0..DELETED_MIB {
            durable(&mut store, vec![logs[1].append(&large)], 1)?;
        }
        let mut jobs = vec![Job::DeleteGroup { group: logs[1].group }];
        for _ in 0..ROUNDS_A_DELETION {
            jobs.push(logs[0].append(&small));
            timed(&mut pair.store, || durable(&mut store, std::mem::take(&mut jobs), 1))?;
        }
        drop(store);
        remove_dir_all(dir)?;
        let file = written_file(&root.join("raw"), 4096 * ROUNDS_A_DELETION)?;
        for at in 0..ROUNDS_A_DELETION {
            timed(&mut pair.raw, || {
                file.write_all_at(&large[..4096], (at * 4096) as u64)?;
                Ok(file.sync_data()?)
            })?;
        }
    }
    pair.print("deleted", keys);
    Ok(())
}

/// A summary of nothing but where the log ended.
struct Ended(Option<PrepareHeader>);

impl Summary for Ended {
    fn push(&mut self, header: &PrepareHeader, _: Option<&Prepare>) {
        self.0 = Some(*header);
    }

    fn finish(&self) -> Option<Snapshot> {
        Some(Snapshot { header: self.0?, state: Bytes::new() })
    }
}

fn summarize(before: Option<&Snapshot>) -> Option<Box<dyn Summary>> {
    Some(Box::new(Ended(before.map(|before| before.header))))
}

/// Appends so often, and lets go of all full segments but the newest.
fn let_go_as_it_fills(store: &mut Store<FileDisk>, log: &mut Log, body: &Bytes, count: usize) -> Outcome {
    for _ in 0..count {
        durable(store, vec![log.append(body)], 1)?;
    }
    let group = log.group;
    let Some(Completion::Surveyed { sealed, .. }) = store.execute(vec![Job::Survey { group }]).pop() else {
        return Err("a survey was not answered".into());
    };
    if let [.., before, _] = sealed.as_slice() {
        let first = before.next.op;
        let told = store.execute(vec![Job::LetGo { group, first, summarize }]);
        if !matches!(told.as_slice(), [Completion::LetGo { .. }]) {
            return Err(format!("nothing was let go: {told:?}").into());
        }
    }
    Ok(())
}

/// A small prepare for each of many groups in one round.
fn many_groups(root: &Path, keys: &Keys) -> Outcome {
    let (mut store, dir) = new_store(root, keys, GROUPS)?;
    let mut logs: Vec<Log> = (1..=GROUPS).map(Log::new).collect();
    let body = Bytes::from(vec![7; 1024 - PREPARE_HEADER_SIZE]);
    let bytes = 1024 * logs.len();
    let file = written_file(&root.join("raw"), bytes * GROUP_ROUNDS)?;
    let block = vec![7; bytes];
    let mut pair = Pair::default();
    // The first rounds make files.
    for turn in 0..2 + GROUP_ROUNDS {
        let jobs = logs.iter_mut().map(|log| log.append(&body)).collect();
        let mut waits = Vec::new();
        timed(&mut waits, || durable(&mut store, jobs, logs.len()))?;
        if let Some(turn) = turn.checked_sub(2) {
            pair.store.extend(waits);
            timed(&mut pair.raw, || {
                file.write_all_at(&block, (turn * bytes) as u64)?;
                Ok(file.sync_data()?)
            })?;
        }
    }
    drop(store);
    remove_dir_all(dir)?;
    pair.print("groups", keys);
    Ok(())
}

/// Opens a log, and reads it, from the disk.
fn reads(root: &Path, keys: &Keys, mib: usize) -> Outcome {
    let (mut store, dir) = new_store(root, keys, 1)?;
    let mut log = Log::new(1);
    // No power of two, so that what is read at once ends within a prepare.
    let body = Bytes::from((0..=u8::MAX).cycle().take(10_000).collect::<Vec<_>>());
    let rounds = mib * MIB / (16 * (body.len() + PREPARE_HEADER_SIZE));
    for _ in 0..rounds {
        durable(&mut store, (0..16).map(|_| log.append(&body)).collect(), 1)?;
    }
    let last = log.head.ok_or("nothing was appended")?;
    let snapshot = Snapshot { header: *last.header(), state: Bytes::new() };
    let point = ResumePoint { log_start: LogStart { op: Op::new(1), offset: Offset::ZERO }, snapshot };
    store.execute(vec![Job::SaveResumePoint { group: GroupId::new(1), point: Box::new(point) }]);
    drop(store);

    let mut pairs = ["scan", "start", "cold", "look"].map(|name| (name, Pair::default()));
    for _ in 0..TURNS.div_ceil(2) {
        for (name, pair) in &mut pairs {
            forget(&dir)?;
            timed(&mut pair.raw, || read_files(&dir))?;
            let extent = if *name == "scan" { Extent::Whole } else { Extent::Tail };
            forget(&dir)?;
            let mut opening = Vec::new();
            let mut store = timed(&mut opening, || open(&dir, keys, extent))?;
            match *name {
                "cold" => timed(&mut pair.store, || read_all(&mut store, last.op()))?,
                "look" => timed(&mut pair.store, || look_at_all(&mut store, last.op()))?,
                _ => pair.store.extend(opening),
            }
        }
    }
    for (name, pair) in &mut pairs {
        pair.print(name, keys);
    }
    Ok(remove_dir_all(dir)?)
}

fn read_all(store: &mut Store<FileDisk>, last: Op) -> Outcome {
    let mut next = Op::new(1);
    while next <= last {
        let from = ReadFrom::Op(next);
        let job = Job::Read { group: GroupId::new(1), token: 0, from, bytes_max: MIB, last };
        let Some(Completion::Read { result, .. }) = store.execute(vec![job]).pop() else {
            return Err("a read was not answered".into());
        };
        next = result?.last().ok_or("nothing was read")?.op().next();
    }
    Ok(())
}

fn look_at_all(store: &mut Store<FileDisk>, last: Op) -> Outcome {
    let mut from = Some(ScrubFrom::Read(ReadFrom::Op(Op::new(1))));
    while let Some(at) = from {
        let job = Job::Scrub { group: GroupId::new(1), from: at, bytes_max: 256 << 10, last };
        let Some(Completion::Scrubbed { piece, .. }) = store.execute(vec![job]).pop() else {
            return Err("a look was not answered".into());
        };
        if !piece.findings.is_empty() {
            return Err(format!("damage: {:?}", piece.findings).into());
        }
        from = piece.next.map(ScrubFrom::Mark);
    }
    Ok(())
}

/// Memory of this process, while many groups are open that nobody uses.
fn idle(root: &Path) -> Outcome {
    let (mut store, dir) = new_store(root, &Keys::NONE, IDLE_GROUPS)?;
    let body = Bytes::from_static(&[7; 100]);
    for groups in (1..=IDLE_GROUPS).collect::<Vec<_>>().chunks(1000) {
        let jobs = groups.iter().map(|group| Log::new(*group).append(&body)).collect();
        durable(&mut store, jobs, groups.len())?;
    }
    drop(store);
    let before = resident_bytes()?;
    let store = open(&dir, &Keys::NONE, Extent::Tail)?;
    let each = resident_bytes()?.saturating_sub(before) / IDLE_GROUPS;
    println!("idle           {each:>10} bytes of memory for each of {IDLE_GROUPS} groups");
    drop(store);
    Ok(remove_dir_all(dir)?)
}

fn resident_bytes() -> Outcome<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
}

fn open(dir: &Path, keys: &Keys, extent: Extent) -> Outcome<Store<FileDisk>> {
    let options = Options { keys: keys.clone(), extent, ..Options::DEFAULT };
    let disk = FileDisk::open(dir.to_owned())?;
    Ok(Store::open(disk, IDENTITY, options, &mut |_, _| {})?.0)
}

fn new_store(root: &Path, keys: &Keys, groups: u64) -> Outcome<(Store<FileDisk>, PathBuf)> {
    let dir = root.join("store");
    Store::format(&FileDisk::open(dir.clone())?, IDENTITY, DirectoryId::new(1))?;
    let mut store = open(&dir, keys, Extent::Tail)?;
    let saves = (1..=groups).map(|group| Job::SaveSuperblock(Superblock::new(GroupId::new(group))));
    store.execute(saves.collect());
    Ok((store, dir))
}

fn durable(store: &mut Store<FileDisk>, jobs: Vec<Job>, groups: usize) -> Outcome {
    let told = store.execute(jobs);
    let count = told.iter().filter(|one| matches!(one, Completion::Durable { .. })).count();
    if count == groups { Ok(()) } else { Err(format!("an append failed: {told:?}").into()) }
}

/// A file all of whose blocks were written before.
fn written_file(path: &Path, bytes: usize) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
    for at in (0..bytes).step_by(MIB) {
        file.write_all_at(&vec![1; MIB.min(bytes - at)], at as u64)?;
    }
    file.sync_all()?;
    Ok(file)
}

/// A file whose blocks are there, and were never written.
fn allocated_file(path: &Path, bytes: usize) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes as u64)?;
    file.sync_all()?;
    Ok(file)
}

/// Has the system forget what it has in memory of what was let go of, as it does with what was written long ago.
fn forget_spares(dir: &Path) -> io::Result<()> {
    for entry in read_dir(dir.join("groups/0000000001"))? {
        let path = entry?.path();
        if path.to_string_lossy().contains(".spare") {
            rustix::fs::fadvise(File::open(path)?, 0, None, rustix::fs::Advice::DontNeed)?;
        }
    }
    Ok(())
}

fn segments(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = read_dir(dir.join("groups/0000000001"))?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    Ok(paths.into_iter().filter(|path| path.extension().is_some_and(|suffix| suffix == "log")).collect())
}

/// Has the system forget what it has in memory of the log.
fn forget(dir: &Path) -> io::Result<()> {
    for path in segments(dir)? {
        let file = File::open(path)?;
        file.sync_all()?;
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    }
    Ok(())
}

fn read_files(dir: &Path) -> Outcome {
    let mut buffer = vec![0; MIB];
    for path in segments(dir)? {
        let file = File::open(path)?;
        let mut at = 0;
        loop {
            let read = file.read_at(&mut buffer, at)?;
            if read == 0 {
                break;
            }
            at += read as u64;
        }
    }
    Ok(())
}

/// Prepares of a group, one behind the other.
struct Log {
    group: GroupId,
    head: Option<Prepare>,
}

impl Log {
    fn new(group: u64) -> Self {
        Self { group: GroupId::new(group), head: None }
    }

    fn append(&mut self, body: &Bytes) -> Job {
        let parent = self.head.as_ref().map_or(PrepareId::ROOT, Prepare::id);
        let fields = PrepareFields {
            version: Version::FIRST,
            cluster: IDENTITY.cluster,
            group: self.group,
            view: View::ZERO,
            parent,
            epoch: Epoch::ZERO,
            kind: PrepareKind::Records,
            base_offset: Offset::new(parent.op.as_raw()),
            record_count: 1,
            timestamp: Timestamp::new(parent.op.as_raw() + 1),
            producer: ProducerId::ZERO,
            request: RequestNumber::ZERO,
        };
        let prepare = Prepare::seal(fields, body.clone());
        self.head = Some(prepare.clone());
        Job::Append { group: self.group, prepares: vec![prepare] }
    }
}

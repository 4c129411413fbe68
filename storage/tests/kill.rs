//! A process on a real disk that is killed again and again in the midst of its writes: whatever it said was durable is there.
//!
//! A kill loses nothing of what the system was given, so this is not about syncs: it is about writes, seals, index files, resume
//! points and snapshots that are left half done, on a real file system and with real files.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use bytes::Bytes;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use varve_protocol::id::{Op, View};
use varve_protocol::log_start::LogStart;
use varve_protocol::prepare::{PrepareHeader, PrepareId};
use varve_protocol::resume_point::ResumePoint;
use varve_protocol::snapshot::Snapshot;
use varve_storage::{Completion, Extent, FileDisk, Job, Options, Piece, ReadFrom, Store};

use crate::support::{Branch, GROUP, IDENTITY, append, new_store, read_some, summarize};

/// Names the data directory to the process that is to be killed.
const DIR: &str = "VARVE_KILL_DIR";

const OPTIONS: Options =
    Options { segment_size_bytes_max: 4096 + 20_000, reserve_bytes: 0, ..Options::DEFAULT };

/// Lives of the process. More by environment, for long runs.
fn rounds() -> u64 {
    std::env::var("VARVE_KILL_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(12)
}

/// The header of the newest prepare that is known of a log.
fn open(dir: &Path, extent: Extent) -> (Store<FileDisk>, Option<PrepareHeader>) {
    let disk = FileDisk::open(dir.to_owned()).unwrap();
    let mut newest = None;
    let (store, found) =
        Store::open(disk, IDENTITY, Options { extent, ..OPTIONS }, &mut |_, piece| match piece {
            Piece::Root => newest = None,
            Piece::Snapshot(snapshot) => newest = Some(snapshot.header),
            Piece::ResumePoint(point) => newest = Some(point.snapshot.header),
            Piece::Prepare(prepare) => newest = Some(*prepare.header()),
        })
        .unwrap();
    assert_eq!((&found[0].problem, found[0].hole), (&None, None), "a kill damages nothing");
    assert!(!found[0].superblock.is_torn, "a kill loses nothing");
    assert_eq!(found[0].head, newest.map_or(PrepareId::ROOT, |header| header.id()));
    (store, newest)
}

/// Appends, rolls, keeps resume points and lets go of what is old, and says what is durable, until it is killed. Does nothing in an
/// ordinary run of the tests.
#[test]
fn a_process_that_waits_to_be_killed() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let (mut store, newest) = open(Path::new(&dir), Extent::Tail);
    let mut branch = newest.map_or(Branch::new(GROUP), |header| Branch {
        group: GROUP,
        view: header.view(),
        head: header.id(),
        next_offset: header.next_offset(),
        version: header.version(),
    });
    let mut rng = ChaCha8Rng::seed_from_u64(branch.head.op.as_raw());
    loop {
        let sizes: Vec<usize> = (0..rng.random_range(1..5)).map(|_| rng.random_range(0..3000)).collect();
        let prepares = branch.seal_many(&sizes);
        let last = *prepares[prepares.len() - 1].header();
        let mut jobs = vec![append(GROUP, &prepares)];
        if rng.random_ratio(1, 10) {
            let first = Op::new(last.op().as_raw().saturating_sub(60).max(1));
            jobs.insert(0, Job::LetGo { group: GROUP, first, summarize });
        }
        if rng.random_ratio(1, 10) {
            branch.view = View::new(branch.view.as_raw() + 1);
            jobs.push(Job::SaveSuperblock(crate::support::superblock(GROUP, branch.view.as_raw())));
        }
        let told = store.execute(jobs);
        assert!(told.contains(&Completion::Durable { group: GROUP, id: last.id() }), "{told:?}");
        if told.iter().any(|one| matches!(one, Completion::Sealed { .. })) {
            let snapshot = Snapshot { header: last, state: Bytes::new() };
            let point = Box::new(ResumePoint { log_start: LogStart::FIRST, snapshot });
            store.execute(vec![Job::SaveResumePoint { group: GROUP, point }]);
        }
        eprintln!("durable {} {}", last.op().as_raw(), last.id().checksum);
    }
}

#[test]
fn a_killed_process_has_lost_nothing_of_what_it_said_was_durable() {
    let dir = tempfile::tempdir().unwrap();
    drop(new_store(FileDisk::open(dir.path().to_owned()).unwrap(), OPTIONS));
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for _ in 0..rounds() {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill::a_process_that_waits_to_be_killed", "--nocapture"])
            .env(DIR, dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let first: Vec<String> = lines.by_ref().take(rng.random_range(1..40)).collect();
        child.kill().unwrap();
        let said: Vec<String> = first.into_iter().chain(lines).collect();
        child.wait().unwrap();

        let last = said.iter().rev().find_map(|line| {
            let (op, checksum) = line.strip_prefix("durable ")?.split_once(' ')?;
            Some((Op::new(op.parse().ok()?), checksum.parse::<u32>().ok()?))
        });
        let (op, checksum) = last.unwrap_or_else(|| panic!("it said nothing sound: {said:?}"));
        for extent in [Extent::Tail, Extent::Whole] {
            let (mut store, newest) = open(dir.path(), extent);
            assert!(newest.is_some_and(|newest| newest.op() >= op), "{op} was durable: {newest:?}");
            let found = read_some(&mut store, ReadFrom::Op(op), 0, op);
            assert_eq!(found.first().map(|prepare| prepare.id().checksum), Some(checksum), "{op}");
        }
    }
}

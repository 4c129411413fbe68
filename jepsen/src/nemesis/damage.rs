//! Damage to the files of a node that is down, of the kinds that Varve promises to notice and to mend.
//!
//! The newest round of writes of a log is spared, because rot there cannot be told from a torn write and is cut, as README says: a
//! replica that has lost it is no longer whole and does not know. Where that round begins stands in the log's newest file, in two
//! slots of 64 bytes at 512 and 1024: magic `VRVR` at 4, the round's number at 8, its position in the file at 24, little-endian. The
//! journal of the node is spared in the same way; its slots have the magic `VRVJ`.
//!
//! Of the superblocks one copy of the two is hit, never both.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rand::Rng as _;
use rand::seq::IndexedRandom as _;
use rand_chacha::ChaCha8Rng;

/// Bits that are flipped in one file at most.
const FLIPS_MAX: u32 = 8;

/// Behind the local block; no round begins before it.
const BLOCK: u64 = 4096;

/// A file that may be hit, and how far from its start.
#[derive(Clone, Debug)]
struct Target {
    path: PathBuf,
    /// Bytes from the start on that may be hit.
    end: u64,
}

/// Damages one to three files in a data directory; says what it did, or nothing if there is nothing that may be hit.
pub(super) fn damage(data_dir: &Path, rng: &mut ChaCha8Rng) -> io::Result<Option<String>> {
    let targets = segments(&data_dir.join("groups"))?;
    let mut done = Vec::new();
    let mut logs_hit = Vec::new();
    for _ in 0..rng.random_range(1..=3) {
        let Some(target) = targets.choose(rng) else { break };
        if !logs_hit.contains(&target.path) {
            logs_hit.push(target.path.clone());
            done.push(hit(target, rng)?);
        }
    }
    if rng.random_ratio(1, 4) {
        let name = *["superblocks-a", "superblocks-b"].choose(rng).unwrap_or(&"superblocks-a");
        let path = data_dir.join(name);
        let end = fs::metadata(&path)?.len();
        if end > 0 {
            done.push(flip(&Target { path, end }, rng)?);
        }
    }
    if rng.random_ratio(1, 6) {
        let path = data_dir.join("journal");
        // It may have been removed before.
        if path.exists()
            && let Some(end) = newest_round(&path, b"VRVJ")?
        {
            done.push(hit(&Target { path, end }, rng)?);
        }
    }
    Ok((!done.is_empty()).then(|| done.join("; ")))
}

/// The segment files of all groups, and what of each may be hit.
fn segments(groups: &Path) -> io::Result<Vec<Target>> {
    let mut targets = Vec::new();
    for group in fs::read_dir(groups)? {
        let mut files = BTreeMap::new();
        for file in fs::read_dir(group?.path())? {
            let path = file?.path();
            if path.extension().is_some_and(|extension| extension == "log") {
                files.insert(path.clone(), fs::metadata(&path)?.len());
            }
        }
        let newest = files.keys().next_back().cloned();
        for (path, length) in files {
            let is_newest = Some(&path) == newest.as_ref();
            let end = if is_newest { newest_round(&path, b"VRVR")?.unwrap_or(0).min(length) } else { length };
            if end > BLOCK {
                targets.push(Target { path, end });
            }
        }
    }
    targets.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(targets)
}

/// Where the newest round in a file begins.
fn newest_round(path: &Path, magic: &[u8; 4]) -> io::Result<Option<u64>> {
    let file = fs::File::open(path)?;
    let mut newest = None;
    for at in [512, 1024] {
        let mut slot = [0; 64];
        if file.read_exact_at(&mut slot, at).is_err() || &slot[4..8] != magic {
            continue;
        }
        let number =
            |at: usize| slot[at..at + 8].iter().rev().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
        newest = newest.max(Some((number(8), number(24))));
    }
    Ok(newest.map(|(_, position)| position))
}

fn hit(target: &Target, rng: &mut ChaCha8Rng) -> io::Result<String> {
    match rng.random_range(0..10) {
        0 => {
            fs::remove_file(&target.path)?;
            Ok(format!("removed {}", name(&target.path)))
        }
        1 => {
            let length = rng.random_range(0..target.end);
            OpenOptions::new().write(true).open(&target.path)?.set_len(length)?;
            Ok(format!("truncated {} to {length} bytes", name(&target.path)))
        }
        _ => flip(target, rng),
    }
}

fn flip(target: &Target, rng: &mut ChaCha8Rng) -> io::Result<String> {
    let file = OpenOptions::new().read(true).write(true).open(&target.path)?;
    let flips = rng.random_range(1..=FLIPS_MAX);
    let mut positions = Vec::new();
    for _ in 0..flips {
        let position = rng.random_range(0..target.end);
        let mut byte = [0];
        file.read_exact_at(&mut byte, position)?;
        byte[0] ^= 1 << rng.random_range(0..8);
        file.write_all_at(&byte, position)?;
        positions.push(position);
    }
    Ok(format!("flipped {flips} bits of {} at {positions:?}", name(&target.path)))
}

/// The last two parts of a path, by which a file is known within a node.
fn name(path: &Path) -> String {
    let parts: Vec<_> = path.iter().rev().take(2).map(|part| part.to_string_lossy()).collect();
    parts.into_iter().rev().collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    fn slot(round: u64, position: u64) -> [u8; 64] {
        let mut slot = [0; 64];
        slot[4..8].copy_from_slice(b"VRVR");
        slot[8..16].copy_from_slice(&round.to_le_bytes());
        slot[24..32].copy_from_slice(&position.to_le_bytes());
        slot
    }

    fn write(path: &Path, rounds: [(u64, u64); 2], length: usize) {
        let mut bytes = vec![0_u8; length];
        for ((round, position), at) in rounds.into_iter().zip([512, 1024]) {
            bytes[at..at + 64].copy_from_slice(&slot(round, position));
        }
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn the_newest_round_is_spared() {
        let folder = tempfile::tempdir().unwrap();
        let group = folder.path().join("groups/0000000001");
        fs::create_dir_all(&group).unwrap();
        write(&group.join("0-1.log"), [(3, 4096), (4, 9000)], 10_000);
        write(&group.join("5-6.log"), [(7, 6000), (6, 5000)], 10_000);
        let targets = segments(&folder.path().join("groups")).unwrap();
        let ends: Vec<u64> = targets.iter().map(|target| target.end).collect();
        assert_eq!(
            ends,
            [10_000, 6_000],
            "all of the older file, and of the newest what is older than round 7"
        );
    }

    #[test]
    fn a_log_of_one_round_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let group = folder.path().join("groups/0000000001");
        fs::create_dir_all(&group).unwrap();
        write(&group.join("0-1.log"), [(1, 4096), (0, 0)], 8_192);
        assert!(segments(&folder.path().join("groups")).unwrap().is_empty());
    }

    #[test]
    fn a_seed_decides_what_is_damaged() {
        let bytes = |seed| {
            let folder = tempfile::tempdir().unwrap();
            let group = folder.path().join("groups/0000000001");
            fs::create_dir_all(&group).unwrap();
            write(&group.join("0-1.log"), [(1, 4096), (2, 9_000)], 10_000);
            fs::write(folder.path().join("superblocks-a"), [0; 384]).unwrap();
            fs::write(folder.path().join("superblocks-b"), [0; 384]).unwrap();
            let said = damage(folder.path(), &mut ChaCha8Rng::seed_from_u64(seed)).unwrap();
            (said.expect("there is something to damage"), fs::read(group.join("0-1.log")).unwrap_or_default())
        };
        assert_eq!(bytes(1), bytes(1));
        assert_ne!(bytes(1), bytes(2));
        let (_, after) = bytes(1);
        assert!(after.iter().skip(9_000).all(|byte| *byte == 0), "the newest round is spared");
    }
}

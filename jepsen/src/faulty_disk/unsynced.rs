//! What was written and not synced, and how to undo it.
//!
//! A power failure keeps any of the writes since a file's last sync, in part or whole, in no order: each file gets back
//! what it held then, and some of the changes are made again. Files that were made, renamed or removed stay so: directories
//! count as synced at once.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::sync::Arc;

use rand::Rng as _;
use rand_chacha::ChaCha8Rng;

/// What a device writes whole or not at all.
const SECTOR: usize = 512;

/// A change that is about to be made.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change<'a> {
    Write { position: u64, data: &'a [u8] },
    Resize { size: u64 },
}

/// A change that was made.
#[derive(Debug)]
struct Made {
    position: u64,
    /// What stood at the position, as far as the file went.
    before: Vec<u8>,
    size_before: u64,
    /// What stands there now; none for a change of the size.
    after: Option<Vec<u8>>,
    size_after: u64,
}

#[derive(Debug)]
struct Changed {
    file: Arc<File>,
    made: Vec<Made>,
}

/// All files of a disk that have something to lose, by their inodes.
#[derive(Debug, Default)]
pub(super) struct Unsynced(BTreeMap<u64, Changed>);

impl Unsynced {
    /// Writes down what a change is about to destroy.
    pub(super) fn note(&mut self, file: &Arc<File>, change: Change<'_>) -> io::Result<()> {
        let metadata = file.metadata()?;
        let size_before = metadata.len();
        let (position, end, after) = match change {
            Change::Write { position, data } => (position, position + data.len() as u64, Some(data.to_vec())),
            Change::Resize { size } => (size, u64::MAX, None),
        };
        let size_after = if after.is_some() { size_before.max(end) } else { position };
        let length = end.min(size_before).saturating_sub(position);
        let mut before = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        file.read_exact_at(&mut before, position)?;
        let made = Made { position, before, size_before, after, size_after };
        let new = || Changed { file: file.clone(), made: Vec::new() };
        self.0.entry(metadata.ino()).or_insert_with(new).made.push(made);
        Ok(())
    }

    /// A file has nothing to lose any more.
    pub(super) fn note_synced(&mut self, file: &File) -> io::Result<()> {
        self.0.remove(&file.metadata()?.ino());
        Ok(())
    }

    /// A file loses all that was not synced.
    pub(super) fn lose(&mut self, file: &File) -> io::Result<()> {
        self.0.remove(&file.metadata()?.ino()).map_or(Ok(()), |changed| changed.undo_all())
    }

    /// All files lose some of what was not synced; returns how many changes were lost, wholly or in part.
    pub(super) fn lose_some(self, rng: &mut ChaCha8Rng) -> io::Result<usize> {
        let mut lost = 0;
        for changed in self.0.values() {
            changed.undo_all()?;
            lost += changed.redo_some(rng)?;
        }
        Ok(lost)
    }
}

impl Changed {
    fn undo_all(&self) -> io::Result<()> {
        for made in self.made.iter().rev() {
            self.file.write_all_at(&made.before, made.position)?;
            self.file.set_len(made.size_before)?;
        }
        Ok(())
    }

    /// Each change survives, or not, or some sectors at its beginning do; often none do.
    fn redo_some(&self, rng: &mut ChaCha8Rng) -> io::Result<usize> {
        let survival = *[0.0, 0.0, 0.5, 0.9].get(rng.random_range(0..4_usize)).unwrap_or(&0.0);
        let mut lost = 0;
        for made in &self.made {
            let survives = rng.random_bool(survival);
            lost += usize::from(!survives);
            match &made.after {
                Some(after) if survives => self.file.write_all_at(after, made.position)?,
                Some(after) if rng.random_bool(survival) => {
                    let sectors = rng.random_range(0..=after.len() / SECTOR);
                    self.file.write_all_at(&after[..sectors * SECTOR], made.position)?;
                }
                None if survives => self.file.set_len(made.size_after)?,
                Some(_) | None => {}
            }
        }
        Ok(lost)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::SeedableRng as _;

    use super::*;

    fn text(file: &File) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    fn write(unsynced: &mut Unsynced, file: &Arc<File>, position: u64, data: &[u8]) {
        unsynced.note(file, Change::Write { position, data }).unwrap();
        file.write_all_at(data, position).unwrap();
    }

    fn resize(unsynced: &mut Unsynced, file: &Arc<File>, size: u64) {
        unsynced.note(file, Change::Resize { size }).unwrap();
        file.set_len(size).unwrap();
    }

    #[test]
    fn whatever_was_done_is_undone() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        file.write_all_at(b"0123456789", 0).unwrap();
        let mut unsynced = Unsynced::default();
        write(&mut unsynced, &file, 8, b"abcd");
        resize(&mut unsynced, &file, 3);
        write(&mut unsynced, &file, 1, b"xy");
        resize(&mut unsynced, &file, 20);
        write(&mut unsynced, &file, 30, b"far");
        unsynced.lose(&file).unwrap();
        assert_eq!(text(&file), b"0123456789");
    }

    #[test]
    fn what_is_synced_stays() {
        let (one, other) = (Arc::new(tempfile::tempfile().unwrap()), Arc::new(tempfile::tempfile().unwrap()));
        let mut unsynced = Unsynced::default();
        write(&mut unsynced, &one, 0, b"one");
        write(&mut unsynced, &other, 0, b"other");
        unsynced.note_synced(&one).unwrap();
        let lost = unsynced.lose_some(&mut ChaCha8Rng::seed_from_u64(0)).unwrap();
        assert_eq!(text(&one), b"one");
        assert!(lost <= 1);
    }

    #[test]
    fn any_of_the_rest_may_survive_in_part_or_whole() {
        let ends: BTreeSet<Vec<u8>> = (0..200)
            .map(|seed| {
                let file = Arc::new(tempfile::tempfile().unwrap());
                let mut unsynced = Unsynced::default();
                write(&mut unsynced, &file, 0, &[1; 2 * SECTOR]);
                write(&mut unsynced, &file, 2 * SECTOR as u64, &[2; SECTOR]);
                unsynced.lose_some(&mut ChaCha8Rng::seed_from_u64(seed)).unwrap();
                text(&file).chunks(SECTOR).map(|sector| sector[0]).collect()
            })
            .collect();
        // Nothing, all, only the first, half of the first with and without the second, only the second behind a hole.
        let expected: [&[u8]; 6] = [&[], &[1, 1, 2], &[1, 1], &[1], &[1, 0, 2], &[0, 0, 2]];
        assert_eq!(ends, expected.map(<[u8]>::to_vec).into());
    }
}

//! How fast a disk takes what it must not forget: writes with a sync after each, as a log makes them.
//!
//! What the directory lies on is what is measured. One writer that waits for every sync does not fill a disk that takes several
//! at once, so nodes that share one may come to more than it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::clock::Clock;
use super::payload::Payloads;

const WRITE_SIZE: usize = 1 << 20;

const WRITE_SIZE_SMALL: usize = 4 << 10;

/// How long each limit is measured.
const TIME: Duration = Duration::from_secs(2);

/// Writes at most, so that a fast disk is not filled.
const WRITES_MAX: usize = 2_048;

/// The longest time that is told apart from longer ones: ten minutes.
const TIME_NS_MAX: u64 = 600_000_000_000;

/// How long writes take.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Disk {
    /// Writes of 1 MiB, each synced.
    pub(crate) disk_megabytes_per_second: f64,
    /// From before the write of 1 MiB until it is synced.
    pub(crate) write_1mib_ms: Times,
    /// The same for 4 KiB, which is about as short as a sync gets.
    pub(crate) write_4kib_ms: Times,
}

/// Percentiles in milliseconds.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Times {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

impl Disk {
    /// Measures; ends early if the clock says so. Blocks.
    pub(crate) fn measure(dir: &Path, clock: &Clock) -> io::Result<Self> {
        let mut scratch = Scratch::new(dir)?;
        let block: Vec<u8> = Payloads::new(0, WRITE_SIZE).plain(0).into();
        let large = repeat(clock, WRITES_MAX, || scratch.append(&block))?;
        let small = repeat(clock, WRITES_MAX, || scratch.append(&block[..WRITE_SIZE_SMALL]))?;
        Ok(Self {
            disk_megabytes_per_second: megabytes_per_second(WRITE_SIZE, &large),
            write_1mib_ms: times(&large),
            write_4kib_ms: times(&small),
        })
    }
}

/// A file that goes when it is done with.
struct Scratch {
    path: PathBuf,
    file: File,
}

impl Scratch {
    fn new(dir: &Path) -> io::Result<Self> {
        let path = dir.join(format!("varve-disk-{}.tmp", std::process::id()));
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        Ok(Self { path, file })
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.file.sync_data()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // If it cannot be removed, its name says whose it is.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Does something again and again, and tells how many nanoseconds each time took.
pub(crate) fn repeat(
    clock: &Clock,
    count_max: usize,
    mut act: impl FnMut() -> io::Result<()>,
) -> io::Result<Histogram<u64>> {
    let mut taken_ns = Histogram::new_with_max(TIME_NS_MAX, 3)
        .expect("three digits up to ten minutes are a sound histogram");
    let start = Instant::now();
    for _ in 0..count_max {
        if clock.is_stopped() || start.elapsed() > TIME {
            break;
        }
        let before = Instant::now();
        act()?;
        taken_ns.saturating_record(u64::try_from(before.elapsed().as_nanos()).unwrap_or(TIME_NS_MAX));
    }
    Ok(taken_ns)
}

pub(crate) fn times(taken_ns: &Histogram<u64>) -> Times {
    let ms = |ns: u64| ns as f64 / 1e6;
    Times {
        p50: ms(taken_ns.value_at_quantile(0.5)),
        p99: ms(taken_ns.value_at_quantile(0.99)),
        max: ms(taken_ns.max()),
    }
}

pub(crate) fn megabytes_per_second(size: usize, taken_ns: &Histogram<u64>) -> f64 {
    // A mean and no percentile: the slow ones are part of the rate.
    if taken_ns.is_empty() { 0.0 } else { size as f64 / 1e6 / (taken_ns.mean() / 1e9) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_means() {
        let mut taken_ns = Histogram::new(3).unwrap();
        taken_ns.record(1_000_000).unwrap();
        taken_ns.record(3_000_000).unwrap();
        assert!((megabytes_per_second(1_000_000, &taken_ns) - 500.0).abs() < 1.0);
        assert_eq!(megabytes_per_second(1, &Histogram::new(3).unwrap()), 0.0);
    }

    #[test]
    fn a_disk_is_measured_and_no_file_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::start();
        let mut scratch = Scratch::new(dir.path()).unwrap();
        let taken_ns = repeat(&clock, 3, || scratch.append(b"four")).unwrap();
        assert_eq!((taken_ns.len(), std::fs::read(&scratch.path).unwrap().len()), (3, 12));
        let nap = Duration::from_millis(5);
        let naps = repeat(&clock, 3, || {
            std::thread::sleep(nap);
            Ok(())
        });
        assert!(times(&naps.unwrap()).p50 >= 4.99, "a sleep is no shorter than it was told to be");
        drop(scratch);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        clock.stop();
        assert_eq!(repeat(&clock, 3, || Ok(())).unwrap().len(), 0, "it was told to end");
        assert!(Disk::measure(&dir.path().join("nowhere"), &clock).is_err());
    }
}

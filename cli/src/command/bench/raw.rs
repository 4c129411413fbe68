//! What this machine can do without a cluster: the limits that results are held against.
//!
//! Measured before the load, while the cluster is idle: writes of 1 MiB with a sync after each, as a log makes them; syncs of
//! 4 KiB, which are about as short as a sync gets; copies within memory; round trips over loopback UDP. What the directory lies
//! on is what is measured: name one beside the data of a node. One writer that waits for every sync does not fill a disk that
//! takes several at once, so nodes that share one may come to more than it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::load::Clock;
use super::report::Side;
use crate::output::table;

const WRITE_SIZE: usize = 1 << 20;

const WRITE_SIZE_SMALL: usize = 4 << 10;

/// Larger than the caches of a processor.
const COPY_SIZE: usize = 64 << 20;

/// How long each limit is measured.
const TIME: Duration = Duration::from_secs(2);

/// Writes at most, so that a fast disk is not filled.
const WRITES_MAX: usize = 2_048;

/// Round trips over loopback at most.
const TRIPS_MAX: usize = 20_000;

/// The longest time that is told apart from longer ones: ten minutes.
const TIME_NS_MAX: u64 = 600_000_000_000;

/// How long a datagram may take over loopback before it counts as lost.
const TRIP_MAX: Duration = Duration::from_secs(1);

/// The limits of this machine, and the results as parts of them.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct Raw {
    /// The directory that was written to.
    dir: PathBuf,
    /// Writes of 1 MiB, each synced.
    disk_megabytes_per_second: f64,
    /// From before the write of 1 MiB until it is synced.
    write_1mib_ms: Times,
    /// The same for 4 KiB.
    write_4kib_ms: Times,
    memcpy_megabytes_per_second: f64,
    /// 64 bytes there and back.
    loopback_udp_ms: Times,
    /// Filled in when the results are known.
    ratios: Vec<Ratio>,
}

/// Percentiles in milliseconds.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
struct Times {
    p50: f64,
    p99: f64,
    max: f64,
}

/// A result divided by a limit.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct Ratio {
    what: String,
    ratio: f64,
}

impl Raw {
    /// Measures; ends early if the clock says so. Blocks.
    pub(super) fn measure(dir: &Path, clock: &Clock) -> io::Result<Self> {
        let (large, small) = {
            let mut scratch = Scratch::new(dir)?;
            let block: Vec<u8> = super::schedule::Payloads::new(0, WRITE_SIZE).plain(0).into();
            let large = repeat(clock, WRITES_MAX, || scratch.append(&block))?;
            (large, repeat(clock, WRITES_MAX, || scratch.append(&block[..WRITE_SIZE_SMALL]))?)
        };
        let (from, mut to) = (vec![1_u8; COPY_SIZE], vec![0_u8; COPY_SIZE]);
        let copies = repeat(clock, usize::MAX, || {
            to.copy_from_slice(std::hint::black_box(&from));
            std::hint::black_box(&mut to);
            Ok(())
        })?;
        let (here, there) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
        here.connect(there.local_addr()?)?;
        there.connect(here.local_addr()?)?;
        here.set_read_timeout(Some(TRIP_MAX))?;
        there.set_read_timeout(Some(TRIP_MAX))?;
        let trips = repeat(clock, TRIPS_MAX, || round_trip(&here, &there))?;
        Ok(Self {
            dir: dir.to_owned(),
            disk_megabytes_per_second: megabytes_per_second(WRITE_SIZE, &large),
            write_1mib_ms: times(&large),
            write_4kib_ms: times(&small),
            memcpy_megabytes_per_second: megabytes_per_second(COPY_SIZE, &copies),
            loopback_udp_ms: times(&trips),
            ratios: Vec::new(),
        })
    }

    /// Divides what came out by the limits, where `replicas` nodes write each record.
    pub(super) fn relate(mut self, sides: &[Side], replicas: u32) -> Self {
        for side in sides {
            let Side { name, megabytes_per_second: rate, latency_ms, .. } = side;
            let mut ratio = |what: &str, ratio: f64| {
                self.ratios.push(Ratio { what: format!("{name}: {what}"), ratio });
            };
            if name == "produced" {
                ratio("MB/s / synced writes", rate / self.disk_megabytes_per_second);
                if replicas > 1 {
                    let shared = self.disk_megabytes_per_second / f64::from(replicas);
                    ratio(&format!("the same, if {replicas} replicas share the disk"), rate / shared);
                }
                ratio("p50 / p50 of a 4 KiB write", latency_ms.p50 / self.write_4kib_ms.p50);
                ratio("p99 / p99 of a 4 KiB write", latency_ms.p99 / self.write_4kib_ms.p99);
            }
            ratio("MB/s / memcpy", rate / self.memcpy_megabytes_per_second);
            ratio("p50 / loopback round trip", latency_ms.p50 / self.loopback_udp_ms.p50);
        }
        // What was not measured, as in a run that was interrupted at once, is no number.
        self.ratios.retain(|ratio| ratio.ratio.is_finite());
        self
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let times = |what: &str, times: &Times| {
            let Times { p50, p99, max } = times;
            vec![
                what.to_owned(),
                String::new(),
                format!("{p50:.3}"),
                format!("{p99:.3}"),
                format!("{max:.3}"),
            ]
        };
        let mut writes = times("write of 1 MiB, synced", &self.write_1mib_ms);
        writes[1] = format!("{:.0}", self.disk_megabytes_per_second);
        let copies = vec!["memcpy".to_owned(), format!("{:.0}", self.memcpy_megabytes_per_second)];
        let rows = [
            writes,
            times("write of 4 KiB, synced", &self.write_4kib_ms),
            times("loopback UDP, there and back", &self.loopback_udp_ms),
            copies,
        ];
        let limits = table(&["LIMIT", "MB/S", "P50 MS", "P99", "MAX"], &[1, 2, 3, 4], rows);
        let ratios = self.ratios.iter().map(|ratio| vec![ratio.what.clone(), format!("{:.3}", ratio.ratio)]);
        let ratios = table(&["RESULT / LIMIT", "RATIO"], &[1], ratios);
        format!("\nthis machine without a cluster, in {}:\n\n{limits}\n{ratios}", self.dir.display())
    }
}

/// A file that goes when it is done with.
struct Scratch {
    path: PathBuf,
    file: File,
}

impl Scratch {
    fn new(dir: &Path) -> io::Result<Self> {
        let path = dir.join(format!("varve-bench-{}.tmp", std::process::id()));
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

fn round_trip(here: &UdpSocket, there: &UdpSocket) -> io::Result<()> {
    let mut buffer = [0; 64];
    here.send(&buffer)?;
    there.recv(&mut buffer)?;
    there.send(&buffer)?;
    here.recv(&mut buffer).map(|_| ())
}

/// Does something again and again, and tells how many nanoseconds each time took.
fn repeat(
    clock: &Clock,
    count_max: usize,
    mut act: impl FnMut() -> io::Result<()>,
) -> io::Result<Histogram<u64>> {
    let mut taken_ns = Histogram::new_with_max(TIME_NS_MAX, 3)
        .expect("three digits up to ten minutes are a sound histogram");
    let start = Instant::now();
    for _ in 0..count_max {
        if clock.stopped_at().is_some() || start.elapsed() > TIME {
            break;
        }
        let before = Instant::now();
        act()?;
        taken_ns.saturating_record(u64::try_from(before.elapsed().as_nanos()).unwrap_or(TIME_NS_MAX));
    }
    Ok(taken_ns)
}

fn times(taken_ns: &Histogram<u64>) -> Times {
    let ms = |ns: u64| ns as f64 / 1e6;
    Times {
        p50: ms(taken_ns.value_at_quantile(0.5)),
        p99: ms(taken_ns.value_at_quantile(0.99)),
        max: ms(taken_ns.max()),
    }
}

fn megabytes_per_second(size: usize, taken_ns: &Histogram<u64>) -> f64 {
    // A mean and no percentile: the slow ones are part of the rate.
    if taken_ns.is_empty() { 0.0 } else { size as f64 / 1e6 / (taken_ns.mean() / 1e9) }
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::side;
    use super::*;

    #[test]
    fn rates_are_means_and_ratios_have_a_limit_below() {
        let mut taken_ns = Histogram::new(3).unwrap();
        taken_ns.record(1_000_000).unwrap();
        taken_ns.record(3_000_000).unwrap();
        assert!((megabytes_per_second(1_000_000, &taken_ns) - 500.0).abs() < 1.0);
        assert_eq!(megabytes_per_second(1, &Histogram::new(3).unwrap()), 0.0);

        let times = Times { p50: 2.0, p99: 4.0, max: 8.0 };
        let raw = Raw {
            dir: PathBuf::from("here"),
            disk_megabytes_per_second: 300.0,
            write_1mib_ms: times,
            write_4kib_ms: times,
            memcpy_megabytes_per_second: 0.0,
            loopback_udp_ms: times,
            ratios: Vec::new(),
        };
        // 500,000 records of 100 bytes are 50 MB.
        let raw = raw.relate(&[side(&[500_000.0; 3], 5.0)], 3);
        let ratios: Vec<f64> = raw.ratios.iter().map(|ratio| ratio.ratio).collect();
        assert_eq!(ratios, [50.0 / 300.0, 0.5, 2.5, 2.5, 2.5], "what has no limit has no ratio");
        assert!(raw.text().contains("if 3 replicas share the disk  0.500"), "{}", raw.text());
    }

    #[test]
    fn limits_are_measured_and_leave_no_file() {
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
        assert!(Raw::measure(&dir.path().join("nowhere"), &clock).is_err());
    }
}

//! What this machine can do without a cluster: the limits that results are held against.
//!
//! Measured before the load, while the cluster is idle: writes of 1 MiB with a sync after each, as a log makes them; syncs of
//! 4 KiB, which are about as short as a sync gets; copies within memory; round trips over loopback UDP. What the directory lies
//! on is what is measured: name one beside the data of a node.

use std::io;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::report::Side;
use crate::measure::clock::Clock;
use crate::measure::disk::{Disk, Times, megabytes_per_second, repeat, times};
use crate::output::table;

/// Larger than the caches of a processor.
const COPY_SIZE: usize = 64 << 20;

/// Round trips over loopback at most.
const TRIPS_MAX: usize = 20_000;

/// How long a datagram may take over loopback before it counts as lost.
const TRIP_MAX: Duration = Duration::from_secs(1);

/// The limits of this machine, and the results as parts of them.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct Raw {
    /// The directory that was written to.
    dir: PathBuf,
    #[serde(flatten)]
    disk: Disk,
    memcpy_megabytes_per_second: f64,
    /// 64 bytes there and back.
    loopback_udp_ms: Times,
    /// Filled in when the results are known.
    ratios: Vec<Ratio>,
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
        let disk = Disk::measure(dir, clock)?;
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
            disk,
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
                ratio("MB/s / synced writes", rate / self.disk.disk_megabytes_per_second);
                if replicas > 1 {
                    let shared = self.disk.disk_megabytes_per_second / f64::from(replicas);
                    ratio(&format!("the same, if {replicas} replicas share the disk"), rate / shared);
                }
                ratio("p50 / p50 of a 4 KiB write", latency_ms.p50 / self.disk.write_4kib_ms.p50);
                ratio("p99 / p99 of a 4 KiB write", latency_ms.p99 / self.disk.write_4kib_ms.p99);
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
        let mut writes = times("write of 1 MiB, synced", &self.disk.write_1mib_ms);
        writes[1] = format!("{:.0}", self.disk.disk_megabytes_per_second);
        let copies = vec!["memcpy".to_owned(), format!("{:.0}", self.memcpy_megabytes_per_second)];
        let rows = [
            writes,
            times("write of 4 KiB, synced", &self.disk.write_4kib_ms),
            times("loopback UDP, there and back", &self.loopback_udp_ms),
            copies,
        ];
        let limits = table(&["LIMIT", "MB/S", "P50 MS", "P99", "MAX"], &[1, 2, 3, 4], rows);
        let ratios = self.ratios.iter().map(|ratio| vec![ratio.what.clone(), format!("{:.3}", ratio.ratio)]);
        let ratios = table(&["RESULT / LIMIT", "RATIO"], &[1], ratios);
        format!("\nthis machine without a cluster, in {}:\n\n{limits}\n{ratios}", self.dir.display())
    }
}

fn round_trip(here: &UdpSocket, there: &UdpSocket) -> io::Result<()> {
    let mut buffer = [0; 64];
    here.send(&buffer)?;
    there.recv(&mut buffer)?;
    there.send(&buffer)?;
    here.recv(&mut buffer).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::side;
    use super::*;

    #[test]
    fn ratios_have_a_limit_below() {
        let times = Times { p50: 2.0, p99: 4.0, max: 8.0 };
        let raw = Raw {
            dir: PathBuf::from("here"),
            disk: Disk { disk_megabytes_per_second: 300.0, write_1mib_ms: times, write_4kib_ms: times },
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
}

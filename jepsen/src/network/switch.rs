//! A switch in the harness, for kernels without netem: every station is a TAP device, and what one sends passes through here.
//!
//! Frames go to the station whose hardware address they name, and nowhere else: as on the bridge, a wrong address is nobody's.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_tun::{Tun, TunBuilder};

use super::shape::Shape;

/// The largest frame on the wire, with its header.
const FRAME_MAX: usize = 2_048;

/// Behind the hardware addresses and the kind.
const FRAME_HEADER: usize = 14;

/// A sender whose packets wait longer than that loses the next ones.
const QUEUE_MAX: Duration = Duration::from_millis(500);

/// All TAP devices, and who carries their frames.
pub(super) struct Switch {
    shapes: Arc<Mutex<BTreeMap<u8, Shape>>>,
    carriers: Vec<JoinHandle<()>>,
}

impl Drop for Switch {
    fn drop(&mut self) {
        for carrier in &self.carriers {
            carrier.abort();
        }
    }
}

/// A TAP device of this name, which is there as long as this is.
pub(super) fn tap(name: &str) -> anyhow::Result<Tun> {
    let made = TunBuilder::new().name(name).tap().close_on_exec().build();
    let made = made.with_context(|| format!("cannot make the TAP device {name}"))?;
    made.into_iter().next().context("a TAP device has a queue")
}

impl Switch {
    /// Carries frames between stations.
    pub(super) fn new(stations: BTreeMap<u8, Tun>) -> Self {
        let shapes: Arc<Mutex<BTreeMap<u8, Shape>>> = Arc::default();
        let stations: Arc<BTreeMap<u8, Tun>> = Arc::new(stations);
        let carrier = |from: &u8| tokio::spawn(carry(*from, stations.clone(), shapes.clone()));
        let carriers = stations.keys().map(carrier).collect();
        Self { shapes, carriers }
    }

    /// Shapes what a station sends from now on.
    pub(super) fn shape(&self, station: u8, shape: Shape) {
        self.shapes.lock().unwrap_or_else(PoisonError::into_inner).insert(station, shape);
    }
}

/// Carries what one station sends.
async fn carry(from: u8, stations: Arc<BTreeMap<u8, Tun>>, shapes: Arc<Mutex<BTreeMap<u8, Shape>>>) {
    let Some(device) = stations.get(&from) else { return };
    let mut rng = ChaCha8Rng::seed_from_u64(from.into());
    let mut buffer = vec![0; FRAME_MAX];
    let mut free_at = Instant::now();
    loop {
        // A device that is gone ends it; the nodes are gone by then, too.
        let Ok(size) = device.recv(&mut buffer).await else { return };
        let frame = &mut buffer[..size];
        let Some(to) = receiver(frame).filter(|to| stations.contains_key(to)) else { continue };
        let shape =
            shapes.lock().unwrap_or_else(PoisonError::into_inner).get(&from).copied().unwrap_or_default();
        let now = Instant::now();
        let start = free_at.max(now);
        if start - now > QUEUE_MAX {
            continue;
        }
        free_at = start + shape.takes(size);
        let fate = shape.fate(free_at.saturating_duration_since(now), &mut rng);
        if fate.is_corrupt && size > FRAME_HEADER {
            frame[rng.random_range(FRAME_HEADER..size)] ^= 1 << rng.random_range(0..8);
        }
        for delay in fate.copies {
            if delay.is_zero() {
                let _ = stations[&to].send(frame).await;
            } else {
                let (stations, frame) = (stations.clone(), frame.to_vec());
                tokio::spawn(async move {
                    tokio::time::sleep_until(now + delay).await;
                    let _ = stations[&to].send(&frame).await;
                });
            }
        }
    }
}

/// The station that a frame is for, by its hardware address: see `Namespaces::hardware`.
fn receiver(frame: &[u8]) -> Option<u8> {
    let [2, 0x76, 0x6a, _, 0, station] = frame.first_chunk::<6>()? else { return None };
    Some(*station)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_name_their_receiver() {
        assert_eq!(receiver(&[2, 0x76, 0x6a, 9, 0, 3, 1, 1]), Some(3));
        assert_eq!(receiver(&[2, 0x76, 0x6a, 9, 0xff, 0xff, 1, 1]), None, "nobody's");
        assert_eq!(receiver(&[0xff; 14]), None, "everybody's");
        assert_eq!(receiver(&[2]), None);
    }
}

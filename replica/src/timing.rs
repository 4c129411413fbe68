//! How fast a node beats, and how soon it suspects.

use std::time::Duration;

use varve_consensus::Timeouts;

/// The clockwork of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Between two pulses to a peer. Default 25 ms.
    pub pulse_interval: Duration,
    /// Without a fresh pulse of a peer for this long (plus up to a quarter, drawn per node), its primaries are suspected.
    /// Default 150 ms.
    pub suspicion_timeout: Duration,
    /// How long a node that has come back must stay before it leads again the groups it is the preferred primary of; zero:
    /// it never does by itself. Default 10 s.
    pub restore_primaries_after: Duration,
    /// Between two looks for records that need not be kept any longer. Default 10 s.
    pub retention_check: Duration,
    /// Bytes of old prepares that a node sends in a second to replicas that catch up; zero: no limit. Default zero.
    pub catch_up_bytes_per_second: u64,
    /// Bytes of its logs that a node looks at in a second, to see whether they have rotted; zero: none. Default 512 KiB.
    pub scrub_bytes_per_second: u64,
    /// Between the beginnings of two passes over all logs, at least: what can be read today can be read tomorrow. Default a day.
    pub scrub_pass_every: Duration,
    /// The clockwork inside each group.
    pub consensus: Timeouts,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            pulse_interval: Duration::from_millis(25),
            suspicion_timeout: Duration::from_millis(150),
            restore_primaries_after: Duration::from_secs(10),
            retention_check: Duration::from_secs(10),
            catch_up_bytes_per_second: 0,
            scrub_bytes_per_second: 512 << 10,
            scrub_pass_every: Duration::from_secs(24 * 60 * 60),
            consensus: Timeouts::default(),
        }
    }
}

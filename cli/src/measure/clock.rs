//! The clock of a run: all times count from its start, and whoever looks at it learns whether the run was told to end.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// How long a thread sleeps before it looks whether it shall stop.
const NAP_MAX: Duration = Duration::from_millis(50);

/// The clock of a run, and whether it was told to end.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    start: Instant,
    stopped_at: Arc<OnceLock<Duration>>,
}

impl Clock {
    /// Starts it.
    pub(crate) fn start() -> Self {
        Self { start: Instant::now(), stopped_at: Arc::default() }
    }

    /// Time since the start.
    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Tells everybody to end.
    pub(crate) fn stop(&self) {
        self.stopped_at.get_or_init(|| self.now());
    }

    /// When it was told to end.
    pub(crate) fn stopped_at(&self) -> Option<Duration> {
        self.stopped_at.get().copied()
    }

    /// Whether it was told to end.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped_at().is_some()
    }

    /// Waits on this thread until a moment; false if the run was told to end before.
    pub(crate) fn sleep_until(&self, at: Duration) -> bool {
        while !self.is_stopped() {
            let left = at.saturating_sub(self.now());
            if left.is_zero() {
                return true;
            }
            std::thread::sleep(left.min(NAP_MAX));
        }
        false
    }
}

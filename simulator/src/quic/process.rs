//! A process of the QUIC world: a Tokio runtime of its own, which moves only when it is told to.
//!
//! So a process can be frozen as a stop signal freezes one: nothing in it runs, not a single task. When it goes on, its clock
//! is ahead by all it has missed, and every timer that became due meanwhile fires at once.
//!
//! turmoil moves all its hosts whenever it moves the network, which is why nodes are no hosts of its own: what turmoil runs of
//! a computer is the network card.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use varve_protocol::id::NodeId;

use crate::oracle::Violation;
use crate::panics;

/// How far the world moves at a time.
pub(crate) const TICK: Duration = Duration::from_millis(1);

/// The software, which is not expected to end; if it does, it says why.
pub(crate) type Software = Pin<Box<dyn Future<Output = String> + Send>>;

/// A running process, or a frozen one.
pub(crate) struct Process {
    node: NodeId,
    runtime: Runtime,
    software: Option<Software>,
    /// Faults that freeze it.
    frozen: u32,
    /// What its clock has missed.
    missed: Duration,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, frozen, missed, .. } = self;
        f.debug_struct("Process").field("node", node).field("frozen", frozen).field("missed", missed).finish()
    }
}

impl Process {
    /// A process whose first step is its next tick.
    pub(crate) fn new(node: NodeId, software: Software) -> Self {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime without I/O needs nothing of the system");
        // Timers fire at whole milliseconds of the runtime; from here on its clock shows such a one between ticks.
        runtime.block_on(async { tokio::time::sleep(TICK).await });
        Self { node, runtime, software: Some(software), frozen: 0, missed: Duration::ZERO }
    }

    /// Lets it run for a tick, unless it is frozen.
    ///
    /// # Errors
    /// When it ends or panics.
    pub(crate) fn tick(&mut self) -> Result<(), Violation> {
        if self.frozen > 0 {
            self.missed += TICK;
            return Ok(());
        }
        let Some(software) = &mut self.software else { return Ok(()) };
        let span = tracing::info_span!("node", name = %self.node);
        let ended = panics::guard(self.node, || {
            let _entered = span.enter();
            self.runtime.block_on(async {
                tokio::select! {
                    biased;
                    why = software => Some(why),
                    () = tokio::time::sleep(TICK) => None,
                }
            })
        })?;
        match ended {
            Some(why) => Err(Violation::new("a node stopped", why)),
            None => Ok(()),
        }
    }

    /// One more fault freezes it.
    pub(crate) fn freeze(&mut self) {
        self.frozen += 1;
    }

    /// One fault less freezes it; after the last one it goes on.
    pub(crate) fn thaw(&mut self) {
        if self.frozen == 0 {
            return;
        }
        self.frozen -= 1;
        if self.frozen == 0 {
            let missed = std::mem::take(&mut self.missed);
            self.runtime.block_on(tokio::time::advance(missed));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Whatever looks at the clock while it is dropped sees this process's.
        let _entered = self.runtime.enter();
        self.software = None;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::time::{Instant, sleep};

    use super::*;

    /// What the tasks of a process have done: which, and when by its clock.
    type Deeds = Arc<Mutex<Vec<(&'static str, u128)>>>;

    /// A process with a task that does something every ten milliseconds, and two that wait once.
    fn process() -> (Process, impl Fn() -> Vec<(&'static str, u128)>) {
        let deeds = Deeds::default();
        let told = Arc::clone(&deeds);
        let software = async move {
            let start = Instant::now();
            let note = move |what| {
                let at = start.elapsed().as_millis();
                told.lock().expect("nobody panics").push((what, at));
            };
            for (what, wait) in [("first", 35), ("second", 45)] {
                let note = note.clone();
                tokio::spawn(async move {
                    sleep(Duration::from_millis(wait)).await;
                    note(what);
                });
            }
            loop {
                sleep(Duration::from_millis(10)).await;
                note("again");
            }
        };
        let process = Process::new(NodeId::new(1), Box::pin(software));
        (process, move || std::mem::take(&mut *deeds.lock().expect("nobody panics")))
    }

    fn tick(process: &mut Process, times: u32) {
        (0..times).for_each(|_| process.tick().expect("it goes on"));
    }

    #[test]
    fn nothing_happens_in_a_frozen_process() {
        let (mut process, deeds) = process();
        tick(&mut process, 26);
        assert_eq!(deeds(), [("again", 10), ("again", 20)]);
        process.freeze();
        tick(&mut process, 74);
        process.freeze();
        process.thaw();
        tick(&mut process, 100);
        assert_eq!(deeds(), [], "two faults froze it, and one of them still does");
        process.thaw();
        tick(&mut process, 1);
        let mut at_once = deeds();
        at_once.sort_unstable();
        assert_eq!(at_once, [("again", 200), ("first", 200), ("second", 200)], "all that was due");
        tick(&mut process, 10);
        assert_eq!(deeds(), [("again", 210)]);
        process.thaw();
        tick(&mut process, 10);
        assert_eq!(deeds(), [("again", 220)], "it was not frozen");
    }

    #[test]
    fn a_process_that_ends_or_panics_is_a_violation() {
        let mut process = Process::new(NodeId::new(1), Box::pin(async { "it is done".to_owned() }));
        assert_eq!(process.tick(), Err(Violation::new("a node stopped", "it is done".to_owned())));
        let mut process = Process::new(NodeId::new(1), Box::pin(async { panic!("it is broken") }));
        let told = process.tick().expect_err("it panics").to_string();
        assert!(told.contains("it is broken"), "{told}");
    }
}

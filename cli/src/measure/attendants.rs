//! What goes on beside a run: progress on a terminal, and Ctrl-C, which ends it early and in good order.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget};
use tokio::task::JoinHandle;

use super::clock::Clock;

/// How often progress shows.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

/// The tasks beside a run.
pub(crate) struct Attendants {
    bar: ProgressBar,
    tasks: [JoinHandle<()>; 2],
}

impl Attendants {
    /// Starts them. `words` says every [`PROGRESS_EVERY`] what was done since the last time.
    pub(crate) fn start(clock: &Clock, words: impl FnMut(Duration) -> String + Send + 'static) -> Self {
        let bar = if std::io::stderr().is_terminal() {
            ProgressBar::new_spinner()
        } else {
            ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden())
        };
        let tasks = [
            tokio::spawn(show(bar.clone(), clock.clone(), words)),
            tokio::spawn(mind(clock.clone(), "waiting for what was sent")),
        ];
        Self { bar, tasks }
    }

    /// Ends them.
    pub(crate) async fn end(self) {
        for task in self.tasks {
            task.abort();
            // It was aborted: there is nothing to learn from how it ended.
            let _ = task.await;
        }
        self.bar.finish_and_clear();
    }
}

/// Says every while what was done since the last time.
async fn show(bar: ProgressBar, clock: Clock, mut words: impl FnMut(Duration) -> String) {
    let mut ticks = tokio::time::interval(PROGRESS_EVERY);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        bar.set_message(format!("{:.0} s: {}", clock.now().as_secs_f64(), words(PROGRESS_EVERY)));
        bar.tick();
    }
}

/// The first Ctrl-C ends the run, the second one the process. `doing` says what is done meanwhile.
pub(crate) async fn mind(clock: Clock, doing: &'static str) {
    if tokio::signal::ctrl_c().await.is_ok() {
        clock.stop();
        // If stderr is gone, nobody is left to tell.
        let _ = writeln!(std::io::stderr(), "{doing}; Ctrl-C again ends at once");
        if tokio::signal::ctrl_c().await.is_ok() {
            std::process::exit(1);
        }
    }
}

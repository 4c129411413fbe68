//! What a search came to.

use std::fmt;
use std::time::Duration;

use super::story::Story;
use crate::oracle::Violation;

/// How a search ended.
#[derive(Debug)]
pub enum Ending {
    /// Every state within the bounds was visited, and all is well in all of them.
    Exhausted,
    /// A limit was reached before; all is well in every state visited.
    Limited(&'static str),
    /// A promise was broken.
    Broken {
        /// Which, and how.
        violation: Violation,
        /// One of the shortest ways to get there.
        story: Story,
    },
}

/// How far a search has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// Distinct states visited.
    pub states: usize,
    /// Those of them that differ in more than what is in flight.
    pub groups: usize,
    /// Steps taken between them.
    pub transitions: u64,
    /// Steps from the first state to the farthest.
    pub depth: u32,
    /// States at that depth.
    pub waiting: usize,
    /// Time spent.
    pub elapsed: Duration,
    /// Distinct replicas with their disks.
    pub locals: usize,
    /// Distinct messages.
    pub envelopes: usize,
    /// Times that a core was run.
    pub reactions: usize,
    /// Elections held on what a crash would leave.
    pub elections: usize,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.elapsed.as_secs_f64();
        write!(f, "states={} groups={} transitions={}", self.states, self.groups, self.transitions)?;
        write!(
            f,
            " depth={} waiting={} replicas={} messages={}",
            self.depth, self.waiting, self.locals, self.envelopes
        )?;
        write!(f, " reactions={} elections={} seconds={seconds:.1}", self.reactions, self.elections)
    }
}

/// What a search came to.
#[derive(Debug)]
pub struct Finding {
    /// How it ended.
    pub ending: Ending,
    /// How far it came.
    pub progress: Progress,
}

impl Finding {
    /// The exit code of the process: 0 nothing is broken, 1 something is.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self.ending {
            Ending::Exhausted | Ending::Limited(_) => 0,
            Ending::Broken { .. } => 1,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.progress)?;
        match &self.ending {
            Ending::Exhausted => writeln!(f, "exhausted: every state within the bounds was visited"),
            Ending::Limited(limit) => writeln!(f, "not exhausted: {limit}"),
            Ending::Broken { violation, story } => {
                writeln!(f, "VIOLATION {violation}")?;
                writeln!(f, "after {} steps:", story.steps())?;
                write!(f, "{}", story.render())
            }
        }
    }
}

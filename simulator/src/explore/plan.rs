//! How far a search goes.

use std::fmt;
use std::str::FromStr;

use super::plant::Plant;

/// How often something may happen on the way from the first state to any other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bound {
    /// No more often than this.
    AtMost(u8),
    /// As often as it likes.
    Any,
}

impl Bound {
    /// Whether it may happen once more after it happened `spent` times.
    pub(super) fn allows(self, spent: u8) -> bool {
        match self {
            Self::AtMost(limit) => spent < limit,
            Self::Any => true,
        }
    }

    /// The new count: kept only if it is limited, so that it splits no states otherwise.
    pub(super) fn spend(self, spent: u8) -> u8 {
        match self {
            Self::AtMost(_) => spent + 1,
            Self::Any => 0,
        }
    }
}

impl FromStr for Bound {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "any" { Ok(Self::Any) } else { text.parse().map(Self::AtMost) }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(limit) => write!(f, "{limit}"),
            Self::Any => f.write_str("any"),
        }
    }
}

/// The scope of a search: everything within these bounds is visited, unless a limit ends the search first.
#[derive(clap::Args, Clone, Debug)]
pub struct Plan {
    /// Members of the group: 1, 3, 5 or 7.
    #[arg(long, default_value_t = 3, value_parser = members)]
    pub replicas: u8,
    /// Requests of the one producer there is, at most 7.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(..=7))]
    pub requests: u8,
    /// Times that somebody asks a primary where the log ends now.
    #[arg(long, default_value_t = 0)]
    pub reads: u8,
    /// Nobody gives up a view that is not below this one; only a restarted primary goes beyond it.
    #[arg(long, default_value_t = 2)]
    pub views: u8,
    /// Crashes, each with a restart.
    #[arg(long, default_value_t = 0)]
    pub crashes: u8,
    /// Follow every proposal of a view, instead of letting any replica enter any view at any time.
    #[arg(long)]
    pub votes: bool,
    /// Messages lost as a step of its own; adds no safety to what is checked, for a message may always stay on its way.
    #[arg(long, default_value_t = 0)]
    pub drops: u8,
    /// Messages that are delivered and stay on their way; or `any`: all of them, as often as they like.
    #[arg(long, default_value_t = Bound::AtMost(0))]
    pub duplicates: Bound,
    /// Times that somebody's timers fire; or `any`.
    #[arg(long, default_value_t = Bound::AtMost(0))]
    pub timeouts: Bound,
    /// End the search when so many states were seen.
    #[arg(long)]
    pub states: Option<u64>,
    /// End the search after so many seconds.
    #[arg(long)]
    pub seconds: Option<u64>,
    /// Make a mistake in the harness, to see that it is noticed.
    #[arg(long, value_enum)]
    pub plant: Option<Plant>,
    /// Seed of the jitter of timers, which must not matter.
    #[arg(long, default_value_t = 0)]
    pub jitter: u64,
}

fn members(text: &str) -> Result<u8, String> {
    match text {
        "1" | "3" | "5" | "7" => Ok(text.as_bytes()[0] - b'0'),
        _ => Err("a group has 1, 3, 5 or 7 members".to_owned()),
    }
}

impl Plan {
    /// Whether messages may arrive as often as they like, which allows to keep fewer of them; see the module's text.
    pub(super) fn is_network_loose(&self) -> bool {
        self.duplicates == Bound::Any
    }
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            replicas: 3,
            requests: 2,
            reads: 0,
            views: 2,
            crashes: 0,
            votes: false,
            drops: 0,
            duplicates: Bound::AtMost(0),
            timeouts: Bound::AtMost(0),
            states: None,
            seconds: None,
            plant: None,
            jitter: 0,
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { replicas, requests, reads, views, crashes, drops, votes, duplicates, timeouts, .. } = self;
        write!(
            f,
            "replicas={replicas} requests={requests} reads={reads} views={views} crashes={crashes} drops={drops} \
             duplicates={duplicates} timeouts={timeouts} votes={votes}"
        )?;
        self.plant.map_or(Ok(()), |plant| write!(f, " plant={plant:?}"))
    }
}

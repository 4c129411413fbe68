//! What a replica is doing. The paper's three words.
//!
//! ```text
//!  new --> Normal --quorum proposes a later view, or somebody has entered one--> ViewChange
//!            ^                                                                      |
//!            '------ the view's starting log and log_view = view are durable -------'
//!  restart --> Recovering (log_view = view) --start_view or a later view--> ViewChange
//!  restart --> ViewChange (log_view < view: it was in a view change and goes on there)
//! ```

use std::fmt;

/// What a replica is doing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Status {
    /// Replicating in its view, as primary or as backup.
    Normal,
    /// It has left all earlier views and does not work in its view yet: that view's log is being chosen or fetched.
    ViewChange,
    /// Restarted, and waiting to be told how its view goes on.
    Recovering,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Normal => "normal",
            Self::ViewChange => "view change",
            Self::Recovering => "recovering",
        })
    }
}

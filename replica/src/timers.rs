//! The timers of a node: a sorted set of moments, each with what is due then.

use std::collections::BTreeSet;

use varve_protocol::id::{GroupId, NodeId, View};
use varve_protocol::time::Moment;

use crate::node::fetch::FetchId;

/// What is due.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Due {
    /// A group's own timer.
    Group(GroupId),
    /// A group is to be told whether its primary is heard.
    Liveness(GroupId),
    /// A group is to be told that the node that led it in this view has been restarted.
    Reborn(GroupId, View),
    /// A fetch has waited long enough.
    Fetch(FetchId),
    /// A peer that has come back is to lead its groups again.
    Restore(NodeId),
    /// It is time to look for records that need not be kept.
    Retention,
    /// It is time to look whether a full disk has room again.
    DiskRoom,
    /// It is time to look at a piece of a log.
    Scrub,
    /// The next frame of filler is due.
    Probe,
    /// It is time to ask again for what has rotted in a group.
    Wound(GroupId),
    /// It is time to ask again for what a group's log builds on, and cannot be read.
    Base(GroupId),
}

/// A sorted set of timers.
#[derive(Debug, Default)]
pub(crate) struct Timers(BTreeSet<(Moment, Due)>);

impl Timers {
    pub(crate) fn set(&mut self, at: Moment, due: Due) {
        self.0.insert((at, due));
    }

    pub(crate) fn clear(&mut self, at: Moment, due: Due) {
        self.0.remove(&(at, due));
    }

    pub(crate) fn next(&self) -> Option<Moment> {
        self.0.first().map(|(at, _)| *at)
    }

    /// Takes the first timer that is due at `now`.
    pub(crate) fn pop(&mut self, now: Moment) -> Option<Due> {
        match self.0.first() {
            Some((at, _)) if *at <= now => self.0.pop_first().map(|(_, due)| due),
            Some(_) | None => None,
        }
    }
}

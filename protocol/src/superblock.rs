//! What a replica must never forget and no peer can tell it: the views it has promised.

use crate::id::{GroupId, Op, View};

/// The durable state of one replica beside its log. A replica acts on a promise only after it is durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Superblock {
    /// The group this replica belongs to.
    pub group: GroupId,
    /// The newest view this replica has entered; durable before it sends `DoViewChange` for it.
    pub view: View,
    /// The newest view in which this replica was normal; durable before it acts normal in it.
    pub log_view: View,
    /// A lower bound of the commit; zero if nothing better was known.
    pub commit: Op,
    /// Whether the log has lost its end: in `log_view` it held, and perhaps acknowledged, prepares behind the last one that
    /// is left, nobody can tell how many. The replica tells nobody what its log holds, until it holds all of it again.
    pub is_torn: bool,
    /// Whether this replica, in the life that saved this, may have acknowledged prepares that its disk does not hold: so it is
    /// in a group that acknowledges from memory, and was not stopped in order. Who finds this at its start is torn.
    pub is_unsynced: bool,
}

impl Superblock {
    /// What the replica of a group has promised that was never here before: nothing.
    #[must_use]
    pub const fn new(group: GroupId) -> Self {
        Self {
            group,
            view: View::ZERO,
            log_view: View::ZERO,
            commit: Op::ZERO,
            is_torn: false,
            is_unsynced: false,
        }
    }
}

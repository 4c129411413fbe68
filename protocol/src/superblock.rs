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
}

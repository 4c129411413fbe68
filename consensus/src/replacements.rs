//! Who stands in the places of a group: the replicas it was made with, and those that its log has put in the place of one that
//! lost its disk, or goes to another node (rules S4, E1, E2).
//!
//! A replica that has lost its disk has forgotten what it promised. It must not vote as the one it was; it comes back as
//! another, which is mute: it takes the log and says nothing that counts. An entry of the group's own log puts it in its
//! place, committed by a quorum of the others, for it cannot vote on it and the one before it is gone. When it has that entry,
//! knows it to be committed, and will know so after any restart, it votes.
//!
//! Why no two quorums miss each other. Let X be the entry, made in view v. Whoever starts a later view with a quorum that
//! contains a tale of the lost replica, told before it was lost, has at least q - 1 tales of others. X is on q of the n - 1
//! others, and q + q - 1 > n - 1, so one of those tales comes from a replica that holds X, and it says so: every tale names
//! the generations that its teller knows. A tale of an older generation than anybody names counts for nothing. So that
//! quorum needs one more, and then it contains all that was committed with the new replica's help, too.
//!
//! No message but `DoViewChange` needs a generation: what the lost replica acknowledged, it did hold, and everything up to X is
//! on a quorum without it.
//!
//! Where a replica moves, the one before may be alive. Then X is on q of the others all the same: neither it nor the new one is
//! counted for X. With the n - 1 - q others at most that lack X it is less than a quorum, whatever it says to them; and the
//! driver sees to it that those who hold X hear nothing of it, so that it counts for nothing after X either.

use varve_protocol::id::{Op, ReplicaIndex};
use varve_protocol::prepare::{Prepare, PrepareKind};
use varve_protocol::replacement::Replacement;

/// The entries of a log that replace replicas, oldest first. There are few: one for each disk that was ever lost,
/// and each move.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub(crate) struct Replacements(Vec<(Op, Replacement)>);

impl Replacements {
    /// Takes note of the next prepare of the log.
    ///
    /// # Panics
    /// If it is of that kind and cannot be read: its checksum is right, so another release sealed it.
    pub(crate) fn note(&mut self, prepare: &Prepare) {
        if prepare.header().kind() == PrepareKind::Replacement {
            let replacement = Replacement::decode(prepare.body()).expect("a replacement can be read");
            self.push(prepare.op(), replacement);
        }
    }

    /// Takes note of an entry.
    pub(crate) fn push(&mut self, op: Op, replacement: Replacement) {
        self.0.push((op, replacement));
    }

    /// All entries, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &(Op, Replacement)> {
        self.0.iter()
    }

    /// The log was cut behind `keep`.
    pub(crate) fn truncate(&mut self, keep: Op) {
        self.0.retain(|(op, _)| *op <= keep);
    }

    /// The newest entry up to `last` that replaces `replica`.
    pub(crate) fn newest(&self, replica: ReplicaIndex, last: Op) -> Option<&(Op, Replacement)> {
        self.0.iter().rev().find(|(op, entry)| *op <= last && entry.replica == replica)
    }

    /// Whether there is an entry above `commit`.
    pub(crate) fn is_pending(&self, commit: Op) -> bool {
        self.0.last().is_some_and(|(op, _)| *op > commit)
    }
}

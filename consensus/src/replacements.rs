//! Who stands in the places of a group: the replicas it was made with, those that its log has put in the place of one that
//! lost its disk, or goes to another node, and those that it has let into a vacant place (rules S4, E1, E2). Who stands there, not
//! whose word counts: that is in [`crate::members`]. Somebody new is seated first and counts later, when it has its voice, so that
//! none of those who count is mute.
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
//!
//! An entry that leaves a place vacant takes effect when it is committed: until then who leaves is one of those who commit it.

use varve_protocol::id::{Op, ReplicaIndex};
use varve_protocol::prepare::{Prepare, PrepareKind};
use varve_protocol::replacement::{Change, Known, Replacement};

/// The entries of a log that say who stands where, oldest first. There are few: one for each disk that was ever lost, and each
/// replica that came, went or moved.
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

    /// The newest entry for a place.
    pub(crate) fn newest(&self, replica: ReplicaIndex) -> Option<&(Op, Replacement)> {
        self.0.iter().rev().find(|(_, entry)| entry.replica == replica)
    }

    /// The newest entry up to `last` that puts somebody in a place.
    pub(crate) fn newest_seating(&self, replica: ReplicaIndex, last: Op) -> Option<&(Op, Replacement)> {
        self.0
            .iter()
            .rev()
            .find(|(op, entry)| *op <= last && entry.replica == replica && entry.change == Change::Seated)
    }

    /// The newest entry for a place that is in effect, where everything up to `commit` is committed.
    pub(crate) fn in_effect(&self, replica: ReplicaIndex, commit: Op) -> Option<&(Op, Replacement)> {
        let takes_effect = |(op, entry): &&(Op, Replacement)| {
            entry.replica == replica
                && match entry.change {
                    Change::Seated => true,
                    Change::Vacated => *op <= commit,
                    Change::Counted => false,
                }
        };
        self.0.iter().rev().find(takes_effect)
    }

    /// The places of those that entries have seated, and that have not left.
    pub(crate) fn seated(&self) -> impl Iterator<Item = ReplicaIndex> {
        let is_newest =
            |at: &usize| !self.0[at + 1..].iter().any(|(_, later)| later.replica == self.0[*at].1.replica);
        let newest = (0..self.0.len()).filter(is_newest).map(|at| &self.0[at].1);
        newest.filter(|entry| entry.change != Change::Vacated).map(|entry| entry.replica)
    }

    /// What it makes of each place that it has an entry for, in a group that was made with so many replicas.
    pub(crate) fn known(&self, founders: u8) -> Vec<Known> {
        let mut known: Vec<Known> = Vec::new();
        for (op, entry) in &self.0 {
            let at = known.iter().position(|known| known.replica == entry.replica).unwrap_or_else(|| {
                let counts = entry.replica.as_raw() < founders;
                known.push(Known {
                    replica: entry.replica,
                    generation: Op::ZERO,
                    counts,
                    counts_since: Op::ZERO,
                });
                known.len() - 1
            });
            let place = &mut known[at];
            let counts = match entry.change {
                Change::Seated => place.counts,
                Change::Counted => true,
                Change::Vacated => false,
            };
            if entry.change == Change::Seated {
                place.generation = *op;
            }
            if counts != place.counts {
                (place.counts, place.counts_since) = (counts, *op);
            }
        }
        known
    }

    /// The newest entry that is committed because of what was sealed behind it, in a log that ends with `head`: another entry, or
    /// anything at all if it changed whose word counts.
    pub(crate) fn implied_commit(&self, founders: u8, head: Op) -> Op {
        let before_last = self.0.iter().rev().nth(1).map_or(Op::ZERO, |(op, _)| *op);
        let changes = self.known(founders).into_iter().map(|known| known.counts_since);
        changes.filter(|op| *op < head).max().unwrap_or_default().max(before_last)
    }

    /// Whether there is an entry above `commit`.
    pub(crate) fn is_pending(&self, commit: Op) -> bool {
        self.0.last().is_some_and(|(op, _)| *op > commit)
    }
}

#[cfg(test)]
mod tests {
    use varve_protocol::id::{DirectoryId, NodeId};

    use super::*;

    fn entry(op: u64, replica: u8, change: Change) -> (Op, Replacement) {
        let (node, directory) = match change {
            Change::Vacated => (NodeId::ZERO, DirectoryId::ZERO),
            Change::Seated | Change::Counted => (NodeId::new(9), DirectoryId::new(9)),
        };
        let replica = ReplicaIndex::new(replica);
        (Op::new(op), Replacement { replica, change, node, directory, known_at: Op::ZERO })
    }

    #[test]
    fn who_is_seated_in_a_vacant_place_counts_when_an_entry_says_so() {
        let entries = [
            entry(2, 3, Change::Seated),
            entry(4, 1, Change::Seated),
            entry(5, 3, Change::Counted),
            entry(6, 0, Change::Vacated),
            entry(7, 0, Change::Seated),
        ];
        let known = Replacements(entries.to_vec()).known(3).into_iter().map(|known| {
            (known.replica.as_raw(), known.generation.as_raw(), known.counts, known.counts_since.as_raw())
        });
        assert_eq!(known.collect::<Vec<_>>(), [(3, 2, true, 5), (1, 4, true, 0), (0, 7, false, 6)]);
    }

    #[test]
    fn a_vacancy_takes_effect_when_it_is_committed() {
        let entries = Replacements(vec![
            entry(2, 1, Change::Seated),
            entry(3, 1, Change::Counted),
            entry(6, 1, Change::Vacated),
        ]);
        let in_effect =
            |commit| entries.in_effect(ReplicaIndex::new(1), Op::new(commit)).map(|(op, _)| op.as_raw());
        assert_eq!([0, 5, 6].map(in_effect), [Some(2), Some(2), Some(6)]);
    }
}

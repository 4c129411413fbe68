//! Whose word counts in a group, as its log tells (rules E1 to E3).
//!
//! A group has places, some of them vacant. Those it was made with come first. Entries of its log have a replica that was
//! let into a vacant place count, and empty places, and so the number of those who count changes, by one at a time. Call such an
//! entry X, and those who count before and after it B and A.
//!
//! * Nothing is sealed behind X before X is committed. So it is the end of a log, or it is committed.
//! * Up to X and with it, prepares are committed by a quorum of B; behind X by a quorum of A. So who joins says nothing on X, and who
//!   leaves does; but X must be on a quorum of A as well, for those who leave take their copies along.
//! * A view starts with the tales of a quorum of B or of one of A, whichever comes first, as long as X is not known to be
//!   committed; else with a quorum of A.
//!
//! Why no two quorums miss each other. Since A and B differ by one replica, any quorum of the one shares a replica with any
//! quorum of the other. Let M be the newest entry that is committed anywhere. Who starts a view without having heard of M goes by
//! an entry before it, or by one that was made beside it and is not committed; in either case by quorums that are those of the
//! replicas before M, or differ from them by one replica. M is on a quorum of those before it, and so one of the tales is from a
//! replica that held M; all later views begin with M, so the tale of the latest view has it. Hence whoever starts a view has
//! heard of M, and goes by A or B of M, or of the one entry after it: all of these share a replica with any quorum of A, that
//! committed what came after M, and with M's own.
//!
//! That X is committed by a quorum of *B* is what this stands on: entries that take effect when they are written, in the logs of
//! two primaries that do not know of each other, would differ by two.
//!
//! Who has left may be needed until a quorum of A knows that X is committed: without that knowledge they go by B, and may be too
//! few. They know when something behind X is committed. So who leaves keeps its replica until then.
//!
//! Source: Ongaro's thesis, section 4.1, and his note of 2015 on its first version; VRR section 7 has epochs instead, and a group
//! that stands still between two of them.

use varve_protocol::id::Op;
use varve_protocol::mutant::Mutant;
use varve_protocol::replacement::Known;

use crate::quorum::{Votes, nack_quorum, quorum};

/// Whose word counts, before and after the newest entry that changed it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Members {
    before: Votes,
    after: Votes,
    /// That entry, unless it is known to be committed: then both are the same.
    pending: Option<Op>,
}

impl Members {
    /// Those of a group that was made with this many replicas, where `known` is what the log makes of the other places,
    /// everything up to `commit` is committed, and the log ends with `head`.
    pub(crate) fn new(founders: u8, known: impl Iterator<Item = Known>, commit: Op, head: Op) -> Self {
        let mut after = Votes::first(founders);
        let mut newest: Option<Known> = None;
        for one in known {
            if one.counts {
                after.insert(one.replica);
            } else {
                after.remove(one.replica);
            }
            if newest.is_none_or(|newest| newest.counts_since < one.counts_since) {
                newest = Some(one);
            }
        }
        let mut before = after;
        let pending = newest.filter(|newest| newest.counts_since > commit && newest.counts_since >= head);
        match pending {
            Some(Known { replica, counts: true, .. }) => before.remove(replica),
            Some(Known { replica, counts: false, .. }) => before.insert(replica),
            None => {}
        }
        Self { before, after, pending: pending.map(|pending| pending.counts_since) }
    }

    /// Those who commit the prepare at `op`.
    pub(crate) fn committing(&self, op: Op) -> Votes {
        match self.pending {
            Some(pending) if op <= pending && !Mutant::ChangeAtOnce.is_on() => self.before,
            Some(_) | None => self.after,
        }
    }

    /// The entry that changes who counts, if it may not be committed.
    pub(crate) fn pending(&self) -> Option<Op> {
        self.pending
    }

    /// Those who must hold the pending entry, too, because another leaves with it.
    pub(crate) fn staying(&self) -> Option<Votes> {
        let is_less = self.after.count() < self.before.count() && !Mutant::LeaverNotMissed.is_on();
        is_less.then_some(self.after)
    }

    /// Whether these may start a view, with so many less than it takes.
    pub(crate) fn suffice(&self, votes: Votes, missing: usize) -> bool {
        let is_quorum = |members: Votes| votes.both(members).count() + missing >= quorum(members.count());
        is_quorum(self.before) || is_quorum(self.after)
    }

    /// Whether these prove, by lacking the prepare at `op`, that it is not committed.
    pub(crate) fn rule_out(&self, op: Op, lacking: Votes) -> bool {
        let members = self.committing(op);
        lacking.both(members).count() >= nack_quorum(members.count())
    }

    /// Everybody whose word may count.
    pub(crate) fn all(&self) -> Votes {
        self.before.union(self.after)
    }

    /// Those who stay whatever becomes of the pending entry.
    pub(crate) fn settled(&self) -> Votes {
        self.before.both(self.after)
    }
}

#[cfg(test)]
mod tests {
    use varve_protocol::id::ReplicaIndex;

    use super::*;

    fn known(replica: u8, counts: bool, counts_since: u64) -> Known {
        let (replica, counts_since) = (ReplicaIndex::new(replica), Op::new(counts_since));
        Known { replica, generation: Op::new(1), counts, counts_since }
    }

    fn votes(replicas: &[u8]) -> Votes {
        replicas.iter().copied().map(ReplicaIndex::new).collect()
    }

    /// Of a group of three, whose log ends with op 5.
    fn members(known: &[Known], commit: u64) -> Members {
        Members::new(3, known.iter().copied(), Op::new(commit), Op::new(5))
    }

    #[test]
    fn those_it_was_made_with_count_until_an_entry_says_otherwise() {
        let founders = members(&[], 0);
        assert_eq!((founders.all(), founders.pending()), (votes(&[0, 1, 2]), None));
        let changed =
            members(&[known(3, true, 5), known(1, false, 7), known(2, true, 0), known(4, false, 0)], 9);
        assert_eq!((changed.all(), changed.pending()), (votes(&[0, 2, 3]), None));
    }

    #[test]
    fn who_joins_says_nothing_on_the_entry_that_lets_it_in_and_who_leaves_does() {
        let joining = members(&[known(3, true, 5)], 4);
        assert_eq!(joining.committing(Op::new(5)), votes(&[0, 1, 2]));
        assert_eq!(joining.committing(Op::new(6)), votes(&[0, 1, 2, 3]));
        assert_eq!((joining.staying(), joining.settled()), (None, votes(&[0, 1, 2])));
        let leaving = members(&[known(1, false, 5)], 4);
        assert_eq!(leaving.committing(Op::new(5)), votes(&[0, 1, 2]));
        assert_eq!(leaving.committing(Op::new(6)), votes(&[0, 2]));
        assert_eq!((leaving.staying(), leaving.settled()), (Some(votes(&[0, 2])), votes(&[0, 2])));
    }

    #[test]
    fn either_side_of_a_pending_entry_may_start_a_view() {
        let joining = members(&[known(3, true, 5)], 4);
        assert!(joining.suffice(votes(&[0, 1]), 0), "a quorum of those before it");
        let joined = members(&[known(3, true, 5)], 5);
        assert!(!joined.suffice(votes(&[0, 1]), 0), "two of four");
        assert!(joined.suffice(votes(&[0, 1, 3]), 0));
        let left = members(&[known(2, false, 5)], 5);
        assert!(!left.suffice(votes(&[0, 2]), 0), "who has left counts no more");
        assert!(left.suffice(votes(&[0, 1]), 0));
    }

    #[test]
    fn what_something_was_sealed_behind_is_committed() {
        let known = [known(3, true, 5)];
        let members = |head| Members::new(3, known.into_iter(), Op::new(4), Op::new(head));
        assert_eq!([5, 6].map(|head| members(head).pending()), [Some(Op::new(5)), None]);
    }

    /// For every group of up to seven places, and every one that differs from it by one replica.
    #[test]
    fn quorums_before_and_after_share_a_replica() {
        let all: Vec<Votes> = (1..1_u8 << 7)
            .map(|bits| (0..7).filter(|bit| bits >> bit & 1 == 1).map(ReplicaIndex::new).collect())
            .collect();
        for before in &all {
            for place in (0..7).map(ReplicaIndex::new) {
                let mut after = *before;
                if after.contains(place) {
                    after.remove(place)
                } else {
                    after.insert(place)
                }
                let (b, a) = (quorum(before.count()), quorum(after.count()));
                let together = before.union(after).count();
                assert!(after.count() == 0 || b + a > together, "{before:?} and {after:?}");
            }
        }
    }

    #[test]
    fn who_lacks_a_prepare_must_be_among_those_who_commit_it() {
        let joining = members(&[known(3, true, 5)], 4);
        assert!(joining.rule_out(Op::new(5), votes(&[1, 2])), "two of three");
        assert!(!joining.rule_out(Op::new(5), votes(&[2, 3])), "who joins has no say");
        assert!(joining.rule_out(Op::new(6), votes(&[2, 3])), "two of four leave no three");
    }
}

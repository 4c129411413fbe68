//! How many are enough, and sets of voters in which nobody counts twice.
//!
//! | replicas n | failures f | quorum q = f+1 | nack quorum n-q+1 |
//! |-----------:|-----------:|---------------:|------------------:|
//! |          1 |          0 |              1 |                 1 |
//! |          3 |          1 |              2 |                 2 |
//! |          5 |          2 |              3 |                 3 |
//! |          7 |          3 |              4 |                 4 |
//!
//! In between, 2, 4 and 6 survive no more failures than 1, 3 and 5: they are steps of a group that grows or shrinks.
//!
//! Any two quorums share a replica. If a nack quorum never stored a prepare, no quorum of the rest did.

use varve_protocol::id::{Op, ReplicaIndex};
use varve_protocol::limits::REPLICAS_MAX;
use varve_protocol::mutant::Mutant;

/// Replicas of `members` that must agree before anything is decided.
#[must_use]
pub const fn quorum(members: usize) -> usize {
    members / 2 + 1
}

/// Replicas that must lack a prepare for certain before it is known to be uncommitted.
pub(crate) const fn nack_quorum(members: usize) -> usize {
    members - quorum(members) + 1
}

/// The largest op that a quorum of `acknowledged` (one per replica) has reached.
pub(crate) fn quorum_op(acknowledged: impl Iterator<Item = Op>) -> Op {
    let mut ops = [Op::ZERO; REPLICAS_MAX];
    let mut count = 0;
    for op in acknowledged {
        ops[count] = op;
        count += 1;
    }
    let ops = &mut ops[..count];
    ops.sort_unstable();
    let missing = usize::from(Mutant::CommitQuorumMinusOne.is_on() && count > 1);
    ops[count - (count / 2 + 1) + missing]
}

/// A set of replicas.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub(crate) struct Votes(u8);

impl Votes {
    /// The first so many places.
    pub(crate) fn first(count: u8) -> Self {
        assert!(usize::from(count) <= REPLICAS_MAX, "a group has at most {REPLICAS_MAX} places");
        Self((1 << count) - 1)
    }

    pub(crate) fn insert(&mut self, replica: ReplicaIndex) {
        if Mutant::ProposalCountsTwice.is_on() && self.contains(replica) {
            self.0 |= 1 << 7;
        }
        self.0 |= 1 << replica.as_raw();
    }

    pub(crate) fn remove(&mut self, replica: ReplicaIndex) {
        self.0 &= !(1 << replica.as_raw());
    }

    pub(crate) fn contains(self, replica: ReplicaIndex) -> bool {
        self.0 & (1 << replica.as_raw()) != 0
    }

    pub(crate) fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those in both sets.
    pub(crate) fn both(self, other: Self) -> Self {
        let twice = if Mutant::ProposalCountsTwice.is_on() { 1 << 7 } else { 0 };
        Self(self.0 & (other.0 | twice))
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = ReplicaIndex> {
        (0..).map(ReplicaIndex::new).take(REPLICAS_MAX).filter(move |replica| self.contains(*replica))
    }

    pub(crate) fn count(self) -> usize {
        self.0.count_ones() as usize
    }
}

impl FromIterator<ReplicaIndex> for Votes {
    fn from_iter<T: IntoIterator<Item = ReplicaIndex>>(replicas: T) -> Self {
        let mut votes = Self::default();
        for replica in replicas {
            votes.0 |= 1 << replica.as_raw();
        }
        votes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_quorums_share_a_replica_and_a_nack_quorum_leaves_none() {
        for n in 1..=7 {
            assert!(2 * quorum(n) > n);
            assert!(n - nack_quorum(n) < quorum(n));
        }
    }

    #[test]
    fn quorum_op_is_the_largest_op_on_a_quorum() {
        let table: [(&[u64], u64); 6] = [
            (&[3], 3),
            (&[3, 0, 0], 0),
            (&[3, 2, 0], 2),
            (&[1, 9, 9], 9),
            (&[5, 4, 3, 2, 1], 3),
            (&[7, 7, 0, 0, 1], 1),
        ];
        for (acknowledged, expected) in table {
            let ops: Vec<_> = acknowledged.iter().copied().map(Op::new).collect();
            assert_eq!(quorum_op(ops.into_iter()), Op::new(expected), "{acknowledged:?}");
        }
    }

    #[test]
    fn nobody_counts_twice() {
        let mut votes = Votes::default();
        votes.insert(ReplicaIndex::new(2));
        votes.insert(ReplicaIndex::new(2));
        assert_eq!(votes.count(), 1);
        assert!(votes.contains(ReplicaIndex::new(2)));
    }
}

//! How far partitions are known to go. What one node has told stays true when another is asked that is behind, as one that was cut off
//! from the others is, and still serves what it has.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use varve_protocol::id::{GroupId, Offset};

/// High watermarks as told by nodes, the highest of each group.
#[derive(Default)]
pub(crate) struct Ends(Mutex<BTreeMap<GroupId, Offset>>);

impl Ends {
    /// What is known of a group.
    pub(crate) fn of(&self, group: GroupId) -> Offset {
        self.lock().get(&group).copied().unwrap_or_default()
    }

    /// Takes note of what a node has told; returns what is known then, which is more if the node is behind.
    pub(crate) fn note(&self, group: GroupId, told: Offset) -> Offset {
        let mut ends = self.lock();
        let known = ends.entry(group).or_default();
        *known = told.max(*known);
        *known
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<GroupId, Offset>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_once_stays_true_whoever_is_asked_then() {
        let ends = Ends::default();
        let told = [(1, 5, 5), (1, 3, 5), (2, 3, 3), (1, 7, 7), (2, 2, 3)];
        for (group, told, known) in told {
            assert_eq!(ends.note(GroupId::new(group), Offset::new(told)), Offset::new(known));
            assert_eq!(ends.of(GroupId::new(group)), Offset::new(known));
        }
    }
}

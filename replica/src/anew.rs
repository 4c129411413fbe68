//! A replica of whose log something has rotted that nothing makes whole: its peers have let go of it, or it is a snapshot that none
//! of them has, and none of what they offer instead fits what is here. It works, and can let go of nothing any more. So it is to give
//! up its log and take that of the others, as one does that has lost its disk and kept its promises.
//!
//! ```text
//!   none fits ──▶ wait ──▶ do the others hold what is committed? ──▶ a quorum of them does ──▶ begin anew (`mending`)
//!      ▲           │                                      │
//!      '───────────'──────────── asked again ◀────────────'
//! ```
//! While it waits it counts like any other replica, and what the group appends and lets go of may bring one that fits. It
//! stops counting only when it is seen that a quorum works without it: as many of the others as a majority of the group is
//! hold the newest prepare that is known here to be committed, and thus all before it.
//!
//! Of several replicas that come to this no more stop counting than the group can do without: who has asked tells nobody for a while
//! what it holds itself, and what is answered counts within that while only. Of those that begin anew take the one whose question is the
//! newest. Whoever answered it had not asked, and if it asks later, it is not the newest. So a majority stays.

use std::collections::BTreeSet;
use std::time::Duration;

use varve_protocol::id::NodeId;
use varve_protocol::prepare::{PrepareHeader, PrepareId};
use varve_protocol::time::Moment;

/// How long nothing must have fitted. To take a log again is dear.
const NONE_FITS_AFTER: Duration = Duration::from_secs(5);
/// How long a question whether the others hold what is committed counts.
const ANSWERED_WITHIN: Duration = Duration::from_millis(500);
/// Between two such questions, at least: meanwhile others are answered, and an answer to the one before is not taken for one to the
/// next, for no message to a peer that is heard takes as long.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(3);

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Anew {
    /// Since when nothing fits.
    since: Moment,
    /// What the others were asked for last, and when.
    asked: Option<(PrepareId, Moment)>,
    /// Who holds that.
    holders: BTreeSet<NodeId>,
}

impl Anew {
    pub(crate) fn since(now: Moment) -> Self {
        Self { since: now, asked: None, holders: BTreeSet::new() }
    }

    /// Says whether the others are to be asked for what is committed here.
    pub(crate) fn asks_for(&mut self, commit: PrepareId, now: Moment) -> bool {
        let is_time = now.since(self.since) >= NONE_FITS_AFTER
            && self.asked.is_none_or(|(_, at)| now.since(at) >= ASK_AGAIN_AFTER);
        if is_time {
            self.asked = Some((commit, now));
            self.holders.clear();
        }
        is_time
    }

    /// Whether the others were asked just now, and nobody is to rely on this replica.
    pub(crate) fn is_asking(&self, now: Moment) -> bool {
        self.asked.is_some_and(|(_, at)| now.since(at) < ANSWERED_WITHIN)
    }

    /// Whether this is the prepare that the others were asked for.
    pub(crate) fn has_asked_for(&self, header: &PrepareHeader) -> bool {
        self.asked.is_some_and(|(commit, _)| commit == header.id())
    }

    /// One of so many peers holds that; says whether the group can do without the replica here.
    pub(crate) fn note_holder(&mut self, (node, now): (NodeId, Moment), peers: usize) -> bool {
        if !self.is_asking(now) {
            return false;
        }
        self.holders.insert(node);
        2 * self.holders.len() > peers + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(millis: u64) -> Moment {
        Moment::ZERO.plus(Duration::from_millis(millis))
    }

    #[test]
    fn the_others_are_asked_late_and_not_often() {
        let mut anew = Anew::since(after(100));
        let asked: Vec<u64> = (0..120)
            .map(|place| place * 100)
            .filter(|at| anew.asks_for(PrepareId::ROOT, after(100 + at)))
            .collect();
        assert_eq!(asked, [5000, 8000, 11000]);
    }

    #[test]
    fn a_majority_of_the_group_is_needed_among_the_others() {
        let asking = || {
            let mut anew = Anew::since(Moment::ZERO);
            assert!(anew.asks_for(PrepareId::ROOT, after(5000)));
            anew
        };
        for (peers, needed) in [(1, None), (2, Some(2)), (3, Some(3)), (4, Some(3)), (6, Some(4))] {
            let mut anew = asking();
            let mut is_enough =
                |node: &u8| anew.note_holder((NodeId::new(*node), after(5100)), usize::from(peers));
            assert_eq!((1..=peers).find(&mut is_enough), needed, "of {peers} others");
        }
        let mut anew = asking();
        let mut hold = |node, at| anew.note_holder((NodeId::new(node), after(at)), 2);
        assert!(!hold(2, 5100) && !hold(2, 5200), "who says it twice is one");
        assert!(!hold(3, 5500), "that is too late");
        assert!(anew.asks_for(PrepareId::ROOT, after(8000)));
        assert!(!anew.note_holder((NodeId::new(3), after(8100)), 2), "what was said before counts no more");
        assert!(anew.note_holder((NodeId::new(2), after(8100)), 2));
    }

    #[test]
    fn nobody_relies_on_who_has_asked_just_now() {
        let mut anew = Anew::since(Moment::ZERO);
        assert!(!anew.is_asking(after(4999)));
        assert!(anew.asks_for(PrepareId::ROOT, after(5000)));
        let asking = [5000, 5499, 5500, 5999].map(|at| anew.is_asking(after(at)));
        assert_eq!(asking, [true, true, false, false]);
    }
}

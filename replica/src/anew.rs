//! A replica of whose log something has rotted that nothing makes whole: its peers have let go of it, and none of what they offer
//! instead fits what is here. It works, and can let go of nothing any more. So it is to give up its log and take that of the
//! others, as one does that has lost its disk and kept its promises.
//!
//! ```text
//!   none fits ──▶ wait ──▶ do the others hold what is committed? ──▶ a quorum of them does ──▶ begin anew (`mending`)
//!      ▲           │                                      │
//!      '───────────'──────────── asked again ◀────────────'
//! ```
//! While it waits it counts like any other replica, and what the group appends and lets go of may bring one that fits. It
//! stops counting only when it is seen that a quorum works without it: as many of the others as a majority of the group is
//! hold the newest prepare that is known here to be committed, and thus all before it. No two replicas get here at once: all peers
//! of each must have let go of something that it has not.

use std::collections::BTreeSet;
use std::time::Duration;

use varve_protocol::id::NodeId;
use varve_protocol::prepare::{PrepareHeader, PrepareId};
use varve_protocol::time::Moment;

/// How long nothing must have fitted. To take a log again is dear.
const NONE_FITS_AFTER: Duration = Duration::from_secs(5);
/// Between two questions whether the others hold what is committed, at least.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(500);

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

    /// Whether this is the prepare that the others were asked for.
    pub(crate) fn has_asked_for(&self, header: &PrepareHeader) -> bool {
        self.asked.is_some_and(|(commit, _)| commit == header.id())
    }

    /// One of so many peers holds that; says whether the group can do without the replica here.
    pub(crate) fn note_holder(&mut self, node: NodeId, peers: usize) -> bool {
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
        let asked: Vec<u64> = (0..70)
            .map(|place| place * 100)
            .filter(|at| anew.asks_for(PrepareId::ROOT, after(100 + at)))
            .collect();
        assert_eq!(asked, [5000, 5500, 6000, 6500]);
    }

    #[test]
    fn a_majority_of_the_group_is_needed_among_the_others() {
        for (peers, needed) in [(1, None), (2, Some(2)), (3, Some(3)), (4, Some(3)), (6, Some(4))] {
            let mut anew = Anew::since(Moment::ZERO);
            let enough = (1..=peers).find(|node| anew.note_holder(NodeId::new(*node), usize::from(peers)));
            assert_eq!(enough, needed, "of {peers} others");
            assert!(!Anew::since(Moment::ZERO).note_holder(NodeId::new(1), 2), "who says it twice is one");
        }
        let mut anew = Anew::since(Moment::ZERO);
        assert!(!anew.note_holder(NodeId::new(2), 2) && !anew.note_holder(NodeId::new(2), 2));
        assert!(anew.asks_for(PrepareId::ROOT, after(5000)));
        assert!(!anew.note_holder(NodeId::new(3), 2), "what was said before counts no more");
    }
}

//! What must hold after every step. A replica that breaks one of these stops: wrong is worse than unavailable.

use varve_protocol::limits::PREPARES_IN_FLIGHT_MAX;
use varve_protocol::mutant::Mutant;

use super::{Replica, Stage};
use crate::status::Status;
use crate::timeout::Timer;

impl Replica {
    pub(super) fn assert_invariants(&self) {
        self.assert_log_in_order();
        self.assert_promises_kept();
        assert!(
            self.leading.waiting.is_empty() || self.is_primary(),
            "requests wait at a normal primary only"
        );
        assert!(
            self.leading.waiting.first().is_none_or(|(op, _)| *op > self.commit)
                && self.leading.waiting.last().is_none_or(|(op, _)| *op <= self.log.head().op),
            "requests wait for uncommitted prepares only"
        );
        let reading = &self.leading.reading;
        assert!(
            reading.is_idle() || self.takes_requests(),
            "reads wait at a primary that has no reason to doubt itself"
        );
        assert!(
            reading.has_round() == self.timers.is_armed(Timer::ConfirmView),
            "a round is repeated until it is over"
        );
        debug_assert!(
            !self.is_primary() || self.leading.bytes_in_flight == self.count_bytes_in_flight(),
            "what is in flight was counted"
        );
    }

    fn assert_log_in_order(&self) {
        let head = self.log.head().op;
        assert!(self.vouched <= head, "nothing is acknowledged that is not in the log");
        assert!(
            self.vouched <= self.durable || self.saved.is_unsynced || Mutant::MemoryMarkNotSaved.is_on(),
            "the disk says that acknowledgements may be early before one is"
        );
        assert!(self.commit <= head, "nothing is committed here that is not in the log");
        assert!(self.durable <= head, "nothing is durable here that is not in the log");
        assert!(self.log.id(self.commit).is_some(), "the committed prepare is remembered");
        assert!(self.log.id(self.durable).is_some(), "the durable prepare is remembered");
        assert!(
            head.since(self.commit) <= PREPARES_IN_FLIGHT_MAX,
            "a log proves all but its last window to be committed"
        );
    }

    fn assert_promises_kept(&self) {
        assert!(self.saved.view <= self.requested.view, "what is saved was requested");
        assert!(self.requested.view == self.view, "a view is handed out to be saved as it is entered");
        assert!(self.requested.log_view <= self.view, "the log view is no later than the view");
        match self.status {
            Status::Normal => {
                assert!(self.saved.view == self.view, "a normal replica's view is durable");
                assert!(self.saved.log_view == self.view, "a normal replica's log view is its view, durably");
                assert!(!self.is_torn(), "a replica whose log is torn works in no view");
            }
            Status::ViewChange => {
                assert!(
                    !self.changing.has_told || self.saved.view == self.view,
                    "a replica tells its log only in a durable view"
                );
                assert!(
                    self.requested.log_view < self.view || self.changing.stage == Stage::Installing,
                    "a replica that has held its view's log never chooses it again"
                );
            }
            Status::Recovering => {
                assert!(
                    self.saved.log_view == self.view,
                    "only a replica that was normal in its view recovers in it"
                );
            }
        }
    }
}

//! The moments at which a replica wants to be woken. An idle healthy replica has none, so ten thousand idle groups cost
//! nothing. Timers never decide what is safe, only when something is tried again.

use std::hash::{Hash, Hasher};

use varve_protocol::time::Moment;

/// What a replica may be waiting to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Timer {
    /// Repeat the proposal of a later view.
    Propose,
    /// Repeat what was said in this view change or recovery.
    ViewChangeResend,
    /// Give this view up.
    ViewChangeEscalate,
    /// Ask again for what is missing.
    Repair,
    /// Repeat unacknowledged prepares.
    PrepareResend,
    /// Ask again for the log of a later view.
    AskStartView,
    /// See whether anything has moved.
    Stall,
    /// Give a handover up.
    HandOver,
    /// Ask again whether this view goes on.
    ConfirmView,
    /// Have what is in memory synced.
    Sync,
    /// See whether nothing was appended for a while.
    Rest,
}

/// All timers, in the order in which they fire when several are due.
pub(crate) const TIMERS: [Timer; 11] = [
    Timer::Propose,
    Timer::ViewChangeResend,
    Timer::ViewChangeEscalate,
    Timer::Repair,
    Timer::PrepareResend,
    Timer::AskStartView,
    Timer::Stall,
    Timer::HandOver,
    Timer::ConfirmView,
    Timer::Sync,
    Timer::Rest,
];

/// When each timer is due, if it is armed.
#[derive(Clone, Default, Debug)]
pub(crate) struct Timers([Option<Moment>; TIMERS.len()]);

impl Timers {
    pub(crate) fn arm(&mut self, timer: Timer, due: Moment) {
        self.0[timer as usize] = Some(due);
    }

    pub(crate) fn disarm(&mut self, timer: Timer) {
        self.0[timer as usize] = None;
    }

    pub(crate) fn is_armed(&self, timer: Timer) -> bool {
        self.0[timer as usize].is_some()
    }

    /// Disarms `timer` and says whether it was due.
    pub(crate) fn take_due(&mut self, timer: Timer, now: Moment) -> bool {
        let is_due = self.0[timer as usize].is_some_and(|due| due <= now);
        if is_due {
            self.disarm(timer);
        }
        is_due
    }

    /// Hashes which timers are armed, and not when they are due.
    pub(crate) fn fingerprint<H: Hasher>(&self, state: &mut H) {
        self.0.map(|due| due.is_some()).hash(state);
    }

    /// The earliest due moment.
    pub(crate) fn next(&self) -> Option<Moment> {
        self.0.iter().flatten().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_armed_timer_is_next_and_fires_once() {
        let mut timers = Timers::default();
        assert_eq!(timers.next(), None);
        timers.arm(Timer::Repair, Moment::from_nanos(20));
        timers.arm(Timer::Propose, Moment::from_nanos(10));
        assert_eq!(timers.next(), Some(Moment::from_nanos(10)));
        assert!(!timers.take_due(Timer::Repair, Moment::from_nanos(19)));
        assert!(timers.take_due(Timer::Propose, Moment::from_nanos(19)));
        assert!(!timers.take_due(Timer::Propose, Moment::from_nanos(19)));
        assert_eq!(timers.next(), Some(Moment::from_nanos(20)));
    }
}

//! How long prepares take to their commit: one at a time is timed, from its sealing on.
//!
//! A longer delay counts at once, a shorter one by halves. One that was repeated counts as well: if it was not lost but slow, its delay
//! is the one to know, and if it was lost the next ones soon tell.

use std::time::Duration;

use varve_protocol::id::Op;
use varve_protocol::time::Moment;

#[derive(Clone, Copy, Default, Debug)]
pub(super) struct CommitDelay {
    timed: Option<(Op, Moment)>,
    lately: Duration,
}

impl CommitDelay {
    /// Takes note that a prepare is sealed.
    pub(super) fn begin(&mut self, op: Op, now: Moment) {
        self.timed.get_or_insert((op, now));
    }

    /// Takes note that everything up to `commit` is committed.
    pub(super) fn end(&mut self, commit: Op, now: Moment) {
        if let Some((_, since)) = self.timed.take_if(|(timed, _)| *timed <= commit) {
            self.lately = now.since(since).max(self.lately / 2);
        }
    }

    /// How long it took lately; zero before the first commit.
    pub(super) fn lately(&self) -> Duration {
        self.lately
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_longer_counts_at_once_and_what_is_shorter_by_halves() {
        let mut delay = CommitDelay::default();
        assert_eq!(delay.lately(), Duration::ZERO);
        let mut now = Moment::ZERO;
        let expected = [(800, 800), (100, 400), (900, 900), (500, 500), (10, 250), (10, 125)];
        for (op, (took, lately)) in (1..).map(Op::new).zip(expected) {
            delay.begin(op, now);
            delay.begin(op.next(), now.plus(Duration::from_millis(1)));
            delay.end(op.previous(), now);
            now = now.plus(Duration::from_millis(took));
            delay.end(op, now);
            assert_eq!(delay.lately(), Duration::from_millis(lately));
        }
    }
}

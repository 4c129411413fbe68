//! What a group that acknowledges from memory may lose, and what not.
//!
//! ```text
//!      the power of everybody fails          an operator forces the group
//!   ──────────────┬─────────────────────────────────────┬──────────────────▶
//!    all promised │ all promised stays promised, and    │ what stands below `left` stays promised,
//!                 │ nothing new can be                  │ all behind it is gone, offsets are given again
//! ```
//!
//! Without a failure of everybody's power an operator's word allows nothing, and one failure allows one loss. What is lost is the end
//! of the log, from the offset on that the operator was told. It never reaches below what a replica knew to be committed and had
//! synced when the power failed: whoever holds that is among those who are forced, or another one with a newer log.

use varve_protocol::id::GroupId;

use super::{Oracle, State, Violation};

/// How far a log goes: an op, and the offset behind it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct LogEnd {
    /// The last op.
    pub op: u64,
    /// The offset behind its records.
    pub offset: u64,
}

/// What is known of the losses of a partition.
#[derive(Default, Debug)]
pub(super) struct Loss {
    /// What no loss reaches.
    synced: LogEnd,
    /// The power of everybody failed, and no operator has spoken since.
    is_allowed: bool,
    /// How often something may have been lost.
    pub(super) times: u64,
}

impl Oracle {
    /// The power of everybody fails, while the group has committed and synced so much on one disk at least.
    pub fn power_failed(&mut self, group: GroupId, synced: LogEnd) {
        let loss = &mut self.logs.entry(group).or_default().loss;
        loss.synced = loss.synced.max(synced);
        loss.is_allowed = true;
    }

    /// Whether the power of everybody has failed, and no operator has spoken since.
    #[must_use]
    pub fn may_await_operator(&self, group: GroupId) -> bool {
        self.logs.get(&group).is_some_and(|log| log.loss.is_allowed)
    }

    /// How often something of this group may have been lost.
    #[must_use]
    pub fn losses(&self, group: GroupId) -> u64 {
        self.logs.get(&group).map_or(0, |log| log.loss.times)
    }

    /// An operator is about to have the group go on with what is left.
    ///
    /// # Errors
    /// When more would be lost than what was not synced.
    pub fn forced(&mut self, group: GroupId, left: LogEnd) -> Result<(), Violation> {
        let log = self.logs.entry(group).or_default();
        if !std::mem::take(&mut log.loss.is_allowed) {
            // What the power took is forgiven already, or there was no failure.
            return Ok(());
        }
        if left < log.loss.synced || left.offset < log.loss.synced.offset {
            let detail = format!("{group} goes on with {left:?}; {:?} was synced", log.loss.synced);
            return Err(Violation::new("synced record given up", detail));
        }
        log.loss.synced = left;
        log.loss.times += 1;
        let gone = log.slots.split_off(&left.offset);
        log.prepares.split_off(&(left.op + 1));
        log.acked_end = log.acked_end.min(left.offset);
        log.known_end = log.known_end.min(left.offset);
        log.start = log.start.min(left.offset);
        for id in gone.into_values() {
            let append = &mut self.appends[id.0];
            append.placed = None;
            if append.state == State::Acked {
                append.state = State::Lost;
            }
        }
        for append in self.appends.iter_mut().filter(|append| append.invocation.group == group) {
            append.floor = append.floor.min(left.offset);
        }
        Ok(())
    }
}

//! Whether a replica stands in its place, and who does, as far as its log tells (`crate::replacements`).

use varve_protocol::id::{Op, ReplicaIndex};
use varve_protocol::mutant::Mutant;
use varve_protocol::replacement::Replacement;

use super::Replica;

impl Replica {
    /// Whether this replica stands in its place: one that has lost its disk does not before the group says so, and before
    /// it will know that after any restart.
    #[must_use]
    pub fn is_admitted(&self) -> bool {
        let stands = match self.own_replacement() {
            Some((op, entry)) => {
                entry.directory == self.config.directory
                    && (entry.known_at >= self.config.arrived || Mutant::EarlierStayCounts.is_on())
                    && (*op <= self.saved.commit || Mutant::VoiceNotSaved.is_on())
            }
            None => self.config.is_original,
        };
        stands || Mutant::LostDiskVotes.is_on()
    }

    /// The newest committed entry that puts a replica in the place of this one.
    pub(super) fn own_replacement(&self) -> Option<&(Op, Replacement)> {
        self.replacements.newest(self.config.replica, self.commit)
    }

    /// The newest entry of the log, committed or not, that replaces a replica; `None` if it is still the one that the
    /// group was made with.
    #[must_use]
    pub fn replacement(&self, replica: ReplicaIndex) -> Option<Replacement> {
        self.replacements.newest(replica, self.log.head().op).map(|(_, entry)| *entry)
    }

    /// The op of that entry; zero if there is none.
    #[must_use]
    pub fn generation(&self, replica: ReplicaIndex) -> Op {
        self.replacements.newest(replica, self.log.head().op).map_or(Op::ZERO, |(op, _)| *op)
    }

    /// The op of the log that gave this replica its voice; zero if it was there from the start, or has none.
    #[must_use]
    pub fn own_generation(&self) -> Op {
        let own = self.own_replacement().filter(|_| self.is_admitted());
        own.map_or(Op::ZERO, |(op, _)| *op)
    }

    /// Whether the log replaces a replica above the commit.
    #[must_use]
    pub fn is_replacing(&self) -> bool {
        self.replacements.is_pending(self.commit)
    }

    /// Saves that this replica stands in its place now, as soon as that is durable in its log.
    pub(super) fn save_voice(&mut self) {
        let is_news =
            |(op, _): &(Op, Replacement)| *op > self.requested.commit && *op <= self.commit.min(self.durable);
        if self.own_replacement().is_some_and(is_news) {
            self.save_superblock(self.requested.log_view);
        }
    }
}

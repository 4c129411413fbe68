//! Whether a replica stands in its place, and who does, as far as its log tells (`crate::replacements`).

use varve_protocol::id::{Op, ReplicaIndex, View};
use varve_protocol::mark::Mark;
use varve_protocol::mutant::Mutant;
use varve_protocol::replacement::Replacement;

use super::Replica;
use crate::members::Members;
use crate::quorum::{Votes, quorum};

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

    /// The newest committed entry that puts a replica in the place of this one. Whoever has left goes on: the others may need
    /// its word until they know that it has, and then count it no more.
    pub(super) fn own_replacement(&self) -> Option<&(Op, Replacement)> {
        self.replacements.newest_seating(self.config.replica, self.commit)
    }

    /// The newest entry of the log for a place that is in effect, committed or not; `None` if it is as it was when the group was
    /// made.
    #[must_use]
    pub fn replacement(&self, replica: ReplicaIndex) -> Option<Replacement> {
        self.replacements.in_effect(replica, self.commit).map(|(_, entry)| *entry)
    }

    /// The op of that entry; zero if there is none.
    #[must_use]
    pub fn generation(&self, replica: ReplicaIndex) -> Op {
        self.replacements.in_effect(replica, self.commit).map_or(Op::ZERO, |(op, _)| *op)
    }

    /// The newest entry of the log for a place, in effect or not, with its op.
    #[must_use]
    pub fn newest_entry(&self, replica: ReplicaIndex) -> Option<(Op, Replacement)> {
        self.replacements.newest(replica).copied()
    }

    /// Whose word counts in this group.
    pub(super) fn members(&self) -> Members {
        let founders = self.config.founders;
        let known = self.replacements.known(founders).into_iter();
        Members::new(founders, known, self.commit, self.log.head().op)
    }

    /// Whether the word of whoever stands in a place counts, or will if an entry of the log is committed.
    #[must_use]
    pub fn is_member(&self, replica: ReplicaIndex) -> bool {
        self.members().all().contains(replica)
    }

    /// Whether somebody stands in a place who is not the only one, and nobody is joining or leaving.
    #[must_use]
    pub fn may_leave(&self, replica: ReplicaIndex) -> bool {
        let members = self.members();
        members.pending().is_none() && members.all().contains(replica) && members.all().count() > 1
    }

    /// Whether the replicas in these places, if all of them agree, may decide something.
    #[must_use]
    pub fn suffice(&self, places: impl Iterator<Item = ReplicaIndex>) -> bool {
        self.members().suffice(places.collect(), 0)
    }

    /// Whether an entry that vacates a place would be committed at once by those in `places`, who are near the end of the log: by
    /// enough of those who count before it, and of those who do after it.
    #[must_use]
    pub fn may_vacate(&self, place: ReplicaIndex, places: impl Iterator<Item = ReplicaIndex>) -> bool {
        let members = self.members();
        let votes: Votes = places.collect();
        let mut staying = members.all();
        staying.remove(place);
        let goes_on = votes.both(staying).count() >= quorum(staying.count());
        members.pending().is_none() && members.suffice(votes, 0) && goes_on
    }

    /// All others whose word may count, or may come to, and who is to join them, in order.
    pub(super) fn peers(&self) -> impl Iterator<Item = ReplicaIndex> + use<> {
        let mut peers = self.members().all();
        for place in self.replacements.seated() {
            peers.insert(place);
        }
        if let Some(listener) = self.listener {
            peers.insert(listener);
        }
        peers.remove(self.config.replica);
        peers.iter()
    }

    /// The first view after `view` that is led by somebody who stays.
    pub(super) fn next_view(&self, view: View) -> View {
        let settled = self.members().settled();
        let mut next = view.next();
        if Mutant::VacantPlaceLeads.is_on() {
            return next;
        }
        while !settled.contains(self.config.primary(next)) && settled.count() > 0 {
            Mark::AbsentPassedOver.hit();
            next = next.next();
        }
        next
    }

    /// A replica that is to stand in a vacant place is told how the log goes on; `None`: nobody is to. Once it is seated it is told
    /// anyway.
    pub fn set_listener(&mut self, place: Option<ReplicaIndex>) {
        self.listener = place;
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

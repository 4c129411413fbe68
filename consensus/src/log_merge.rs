//! Choosing the log that a new view starts with: a pure function of the `DoViewChange`s at hand.
//!
//! Rules (n replicas, quorum q):
//! 1. L is the largest log view told, c the largest commit told. Only replicas with log view L say where the log ends:
//!    whatever was committed up to now is in each of their logs, if that log is long enough, or in a shorter one as far as
//!    it goes.
//! 2. Walk from the largest head down to c+1. A prepare is named by its child's parent field, or, at the top, by whoever
//!    holds one there. If some replica *has* it, it stays.
//! 3. If nobody has it and n-q+1 replicas *lack it for certain*, no quorum ever stored it: the log ends before it.
//! 4. Otherwise nothing is decided: a damaged slot may hide a committed prepare. Wait for more replicas; never guess.
//! 0. Before all that: what a replica told before it lost its disk counts for nothing once anybody tells that it was replaced
//!    (`replacements`).
//!
//! ```text
//!   op            5     6     7     8          n = 3, q = 2, n-q+1 = 2
//!   r0 (L=2)      has   has   has   cannot     head 8
//!   r1 (L=2)      has   has   -     -          lacks 7 and 8 for certain
//!   r2 (L=1)      has   other -     -          lacks 8 too: two lack it, so the log ends at 7, which r0 has
//! ```
//!
//! Source: VRR section 4.2; Alagappan et al., FAST'18, for damaged slots.

use std::collections::BTreeMap;

use varve_protocol::id::{Op, ReplicaIndex, View};
use varve_protocol::mark::Mark;
use varve_protocol::message::SuffixSlot;
use varve_protocol::mutant::Mutant;
use varve_protocol::prepare::{PrepareHeader, PrepareId};
use varve_protocol::replacement::Generations;

use crate::members::Members;
use crate::quorum::Votes;

#[cfg(test)]
mod tests;

/// What one replica told in its `DoViewChange`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Told {
    /// The last view in which it was normal.
    pub(crate) log_view: View,
    /// Its newest committed prepare.
    pub(crate) commit: PrepareId,
    /// Newest op ever written there.
    pub(crate) head: Op,
    /// Who was replaced, as far as it knows.
    pub(crate) generations: Generations,
    /// One slot for the commit itself (unless it is the root) and each op above it, up to `head`.
    pub(crate) suffix: Vec<SuffixSlot>,
}

/// What a replica says of one named prepare.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Word {
    Has,
    CannotTell,
    Lacks,
}

impl Told {
    /// Whether slots, commit and head fit each other.
    pub(crate) fn is_sound(&self) -> bool {
        let first = if self.commit == PrepareId::ROOT { Op::new(1) } else { self.commit.op };
        let ops = self.suffix.iter().map(SuffixSlot::op);
        let in_a_row = ops.eq((first.as_raw()..=self.head.as_raw()).map(Op::new));
        let starts_at_commit = self.commit == PrepareId::ROOT
            || self.suffix.first().is_some_and(|slot| match slot {
                SuffixSlot::Has(header) => header.id() == self.commit,
                SuffixSlot::CannotTell(_) => true,
            });
        let is_chain = self.suffix.windows(2).all(|pair| match (&pair[0], &pair[1]) {
            (SuffixSlot::Has(parent), SuffixSlot::Has(child)) => child.parent() == parent.id(),
            (SuffixSlot::CannotTell(_), _) | (_, SuffixSlot::CannotTell(_)) => true,
        });
        in_a_row && starts_at_commit && is_chain
    }

    /// Whether this replica can send the prepare `id`.
    pub(crate) fn holds(&self, id: PrepareId) -> bool {
        id.op < self.commit.op || id == self.commit || self.word(id) == Word::Has
    }

    fn slot(&self, op: Op) -> Option<&SuffixSlot> {
        self.suffix.iter().find(|slot| slot.op() == op)
    }

    fn header(&self, op: Op) -> Option<&PrepareHeader> {
        match self.slot(op)? {
            SuffixSlot::Has(header) => Some(header),
            SuffixSlot::CannotTell(_) => None,
        }
    }

    /// What it says of `id`, an op above the largest commit.
    fn word(&self, id: PrepareId) -> Word {
        match self.slot(id.op) {
            Some(SuffixSlot::Has(header)) if header.id() == id => Word::Has,
            Some(SuffixSlot::CannotTell(_)) if !Mutant::CannotTellLacks.is_on() => Word::CannotTell,
            Some(SuffixSlot::CannotTell(_) | SuffixSlot::Has(_)) | None => Word::Lacks,
        }
    }
}

/// What came of a merge.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Merge {
    /// The view starts with this log.
    Decided(Merged),
    /// The replicas heard so far do not suffice.
    Undecided,
}

/// The log a view starts with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Merged {
    /// The largest commit told.
    pub(crate) commit: PrepareId,
    /// The header at the commit, if somebody has it, and all above it, ascending.
    pub(crate) headers: Vec<PrepareHeader>,
}

impl Merged {
    /// The newest prepare of the merged log.
    pub(crate) fn head(&self) -> PrepareId {
        self.headers.last().map_or(self.commit, PrepareHeader::id)
    }
}

/// Chooses the log of a new view from what the replicas told of a group that was made with so many `founders`.
pub(crate) fn merge(founders: u8, told: &BTreeMap<ReplicaIndex, Told>) -> Merge {
    let told = &without_the_replaced(told);
    let Some(commit) = told.values().map(|one| one.commit).max() else { return Merge::Undecided };
    let members = members(founders, told, commit.op);
    let missing = usize::from(Mutant::ViewChangeQuorumMinusOne.is_on());
    if !members.suffice(told.keys().copied().collect(), missing) {
        return Merge::Undecided;
    }
    let Some(above) = choose_above(members, told, commit.op) else {
        Mark::LogUndecided.hit();
        return Merge::Undecided;
    };
    let anchor = told.values().filter_map(|one| one.header(commit.op)).find(|header| header.id() == commit);
    let headers: Vec<_> = anchor.into_iter().copied().chain(above.into_iter().rev()).collect();
    let first_above = headers.iter().find(|header| header.op() > commit.op);
    if first_above.is_some_and(|header| header.parent() != commit) {
        tracing::error!(%commit, "the log to choose does not contain the commit");
        return Merge::Undecided;
    }
    Merge::Decided(Merged { commit, headers })
}

/// What those told who were not replaced since, as far as anybody knows.
fn without_the_replaced(told: &BTreeMap<ReplicaIndex, Told>) -> BTreeMap<ReplicaIndex, &Told> {
    let newest = |replica: ReplicaIndex| {
        let known = told.values().flat_map(|one| &one.generations.known);
        known.filter(|known| known.replica == replica).map(|known| known.generation).max()
    };
    let is_current = |(replica, one): &(&ReplicaIndex, &Told)| {
        newest(**replica).is_none_or(|newest| one.generations.own >= newest)
            || Mutant::ReplacedTaleCounts.is_on()
    };
    let current: BTreeMap<_, _> =
        told.iter().filter(is_current).map(|(replica, one)| (*replica, one)).collect();
    if current.len() < told.len() {
        Mark::ReplacedIgnored.hit();
    }
    current
}

/// Whose word counts, as the longest log of the latest view tells: that holds all that was committed before that view, and the others
/// of that view are pieces of it.
fn members(founders: u8, told: &BTreeMap<ReplicaIndex, &Told>, commit: Op) -> Members {
    let longest = told.values().max_by_key(|one| (one.log_view, one.head));
    let known = longest.into_iter().flat_map(|one| &one.generations.known).copied();
    Members::new(founders, known, commit, longest.map(|one| one.head).unwrap_or_default())
}

/// The prepares to keep above `commit`, **descending**; `None` if that cannot be told yet.
fn choose_above(
    members: Members,
    told: &BTreeMap<ReplicaIndex, &Told>,
    commit: Op,
) -> Option<Vec<PrepareHeader>> {
    let log_view = told.values().map(|one| one.log_view).max()?;
    let holders = || told.values().filter(|one| one.log_view == log_view || Mutant::LongestLogWins.is_on());
    let head = holders().map(|one| one.head).max()?;
    let head = if Mutant::SuffixDropped.is_on() { commit } else { head };
    if head < commit {
        tracing::error!(%commit, %head, "the newest log ends before the commit");
        return None;
    }
    let mut kept: Vec<PrepareHeader> = Vec::new();
    for op in (commit.next().as_raw()..=head.as_raw()).rev().map(Op::new) {
        let named = match kept.last() {
            Some(child) => Some(child.parent()),
            None => holders()
                .filter_map(|one| one.header(op))
                .max_by_key(|header| header.id())
                .map(PrepareHeader::id),
        };
        let found = named
            .and_then(|id| told.values().filter_map(|one| one.header(op)).find(|header| header.id() == id));
        if let Some(header) = found {
            if told.values().filter_map(|one| one.header(op)).any(|other| other.id() != header.id()) {
                Mark::BranchesTold.hit();
            }
            kept.push(*header);
        } else if members.rule_out(op, lacking(members, told, op, named)) {
            Mark::PrepareRuledOut.hit();
            kept.clear();
        } else {
            return None;
        }
    }
    Some(kept)
}

/// Who lacks the prepare at `op` for certain. If its name is unknown, only those with no prepare there at all do.
fn lacking(
    members: Members,
    told: &BTreeMap<ReplicaIndex, &Told>,
    op: Op,
    named: Option<PrepareId>,
) -> Votes {
    let lacks = |replica: &ReplicaIndex| match (told.get(replica), named) {
        (Some(one), Some(id)) => one.word(id) == Word::Lacks,
        (Some(one), None) => one.head < op,
        (None, _) => Mutant::SilentLacks.is_on(),
    };
    members.all().iter().filter(lacks).collect()
}

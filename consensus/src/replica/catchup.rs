//! What a replica knows of its view's log beyond its own: headers it has been told, bodies it has been sent, and what it
//! asked for. All of it belongs to one view and is dropped with it.
//!
//! ```text
//!   own log:    ... commit ... verified ... head
//!   view's log: ... commit ... verified | known headers, some with bodies | ... target
//!                                                announced ^
//! ```
//! `verified`: up to here the own log is known to be the view's log. Equal to the head once the view's log is installed.
//! `announced`: the head the view's primary announced; all up to it must be durable here before this replica is normal.
//! `target`: the newest op known to exist in the view's log.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::hash::{Hash, Hasher};

use varve_protocol::id::Op;
use varve_protocol::limits::{HEADERS_PER_MESSAGE_MAX, PREPARES_ASIDE_MAX, REPAIR_PREPARES_MAX};
use varve_protocol::mutant::Mutant;
use varve_protocol::prepare::{Prepare, PrepareHeader, PrepareId};

use super::fingerprint::hash_header;
use crate::log::Log;

/// What is known of one op of the view's log.
#[derive(Clone, Debug)]
enum Fact {
    /// What it is.
    Header(Box<PrepareHeader>),
    /// All of it.
    Whole(Prepare),
}

impl Fact {
    fn header(&self) -> &PrepareHeader {
        match self {
            Self::Header(header) => header,
            Self::Whole(prepare) => prepare.header(),
        }
    }

    fn prepare(&self) -> Option<&Prepare> {
        match self {
            Self::Header(_) => None,
            Self::Whole(prepare) => Some(prepare),
        }
    }
}

/// Something to ask another replica for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Want {
    /// Headers of these ops.
    Headers {
        /// First op.
        first: Op,
        /// Last op.
        last: Op,
    },
    /// Exactly these prepares, ascending.
    Prepares(Vec<PrepareId>),
}

/// See the module's text.
#[derive(Clone, Default, Debug)]
pub(super) struct Catchup {
    known: BTreeMap<Op, Fact>,
    verified: Op,
    announced: Op,
    target: Op,
    commit: PrepareId,
    /// The question that is out.
    asked: Option<Want>,
    /// Counts up to ask somebody else.
    pub(super) rotation: usize,
    /// Refusals since anything came.
    pub(super) misses: usize,
    /// Questions that nobody answered in time since anything came.
    pub(super) repeats: u32,
    /// The last prepare that the primary sent was the next one, so what is only heard of may be on its way: word of a commit overtakes
    /// the prepares, and to have those sent twice makes a network that is slow slower.
    is_following: bool,
}

impl Catchup {
    /// Knows nothing but that the own log is the view's log up to `verified`.
    pub(super) fn from_verified(verified: Op) -> Self {
        Self { verified, ..Self::default() }
    }

    pub(super) fn verified(&self) -> Op {
        self.verified
    }

    pub(super) fn announced(&self) -> Op {
        self.announced
    }

    pub(super) fn target(&self) -> Op {
        self.target
    }

    /// The primary's newest commit heard of in this view.
    pub(super) fn commit(&self) -> PrepareId {
        self.commit
    }

    pub(super) fn header(&self, op: Op) -> Option<&PrepareHeader> {
        self.known.get(&op).map(Fact::header)
    }

    /// Takes note of where the view's log starts out to end.
    pub(super) fn hear_announced(&mut self, head: Op) {
        self.announced = self.announced.max(head);
        self.target = self.target.max(head);
    }

    pub(super) fn hear_commit(&mut self, commit: PrepareId) {
        if commit.op > self.commit.op {
            self.commit = commit;
            self.target = self.target.max(commit.op);
        }
    }

    /// Sets a prepare aside that the primary sent early; too early ones are only remembered as existing.
    pub(super) fn offer(&mut self, prepare: Prepare, head: Op) {
        let op = prepare.op();
        self.target = self.target.max(op);
        if op.since(head) <= PREPARES_ASIDE_MAX as u64 {
            match self.known.entry(op) {
                Entry::Vacant(vacant) => {
                    vacant.insert(Fact::Whole(prepare));
                }
                Entry::Occupied(mut known) if known.get().header() == prepare.header() => {
                    known.insert(Fact::Whole(prepare));
                }
                Entry::Occupied(_) => {}
            }
        }
    }

    /// Takes note that the primary has sent the very next prepare; says whether its stream is to be waited for now. Whoever has asked for
    /// something waits for that.
    pub(super) fn follow(&mut self) -> bool {
        self.is_following |= self.asked.is_none();
        self.is_following
    }

    /// Takes note that something is missing in what the primary sends, or that nothing comes.
    pub(super) fn lose_track(&mut self) {
        self.is_following = false;
    }

    pub(super) fn is_following(&self) -> bool {
        self.is_following
    }

    /// Takes note of a header of the view's log.
    pub(super) fn learn(&mut self, header: PrepareHeader) {
        if header.op() > self.verified {
            self.known.entry(header.op()).or_insert_with(|| Fact::Header(Box::new(header)));
        }
    }

    /// Takes note of headers that follow `after` in the view's log, as far as they chain. Says whether any was new.
    pub(super) fn learn_chain(&mut self, mut after: PrepareId, headers: &[PrepareHeader]) -> bool {
        let mut is_news = false;
        let first = after.op;
        for header in headers.iter().filter(|header| header.op() > first) {
            if header.parent() != after || header.op() > self.target {
                break;
            }
            after = header.id();
            is_news |= self.header(header.op()).is_none();
            self.learn(*header);
        }
        if is_news {
            self.repeats = 0;
        }
        is_news
    }

    /// Takes a prepare that was asked for. Says whether it was wanted.
    pub(super) fn supply(&mut self, prepare: Prepare) -> bool {
        let is_any = Mutant::RepairUnverified.is_on();
        match self.known.get_mut(&prepare.op()) {
            Some(fact) if (fact.header() == prepare.header() || is_any) && fact.prepare().is_none() => {
                *fact = Fact::Whole(prepare);
                (self.misses, self.repeats) = (0, 0);
                true
            }
            Some(_) | None => false,
        }
    }

    /// The prepare at `op`, if it is here with its body.
    pub(super) fn ready(&self, op: Op) -> Option<&Prepare> {
        self.known.get(&op).and_then(Fact::prepare)
    }

    /// The own log has become the view's log up to `op`.
    pub(super) fn advance(&mut self, op: Op) {
        self.verified = self.verified.max(op);
        while self.known.first_key_value().is_some_and(|(op, _)| *op <= self.verified) {
            self.known.pop_first();
        }
    }

    /// Compares the own log with what is known of the view's: where one prepare is the same, all before it are.
    pub(super) fn compare(&mut self, log: &Log, commit: Op) {
        let is_same = |(op, fact): (&Op, &Fact)| (log.id(*op) == Some(fact.header().id())).then_some(*op);
        let same = self.known.range(..=log.head().op).rev().find_map(is_same).unwrap_or_default();
        self.advance(same.max(commit));
    }

    /// Forgets all facts, for they do not fit together.
    pub(super) fn distrust(&mut self) {
        self.known.clear();
        self.asked = None;
        self.is_following = false;
    }

    /// Whether a question is out whose answer would help with `next`.
    pub(super) fn is_asked(&self, next: Op) -> bool {
        match &self.asked {
            Some(Want::Headers { last, .. }) => next <= *last && self.header(next).is_none(),
            Some(Want::Prepares(ids)) => ids.last().is_some_and(|id| next <= id.op),
            None => false,
        }
    }

    pub(super) fn set_asked(&mut self, want: Option<Want>) {
        self.asked = want;
    }

    /// What to ask for so that the log can grow from `next` on; `None` if that is at hand already.
    pub(super) fn want(&self, next: Op) -> Option<Want> {
        if self.header(next).is_none() {
            let before_known = self.known.range(next..).next().map_or(self.target, |(op, _)| op.previous());
            let last = before_known.min(next.plus(HEADERS_PER_MESSAGE_MAX as u64 - 1));
            return Some(Want::Headers { first: next, last });
        }
        let ops = (next.as_raw()..next.plus(REPAIR_PREPARES_MAX).as_raw()).map(Op::new);
        let facts = ops.map_while(|op| self.known.get(&op));
        let ids: Vec<_> =
            facts.filter(|fact| fact.prepare().is_none()).map(|fact| fact.header().id()).collect();
        (!ids.is_empty()).then_some(Want::Prepares(ids))
    }

    /// Hashes all of it but how long the next wait is; of `rotation` only what decides whom of at most `places` less one replicas it
    /// names.
    pub(super) fn fingerprint<H: Hasher>(&self, places: u8, state: &mut H) {
        let Self {
            known,
            verified,
            announced,
            target,
            commit,
            asked,
            rotation,
            misses,
            repeats: _,
            is_following,
        } = self;
        known.len().hash(state);
        for fact in known.values() {
            hash_header(fact.header(), state);
            fact.prepare().is_some().hash(state);
        }
        (verified, announced, target, commit, asked, is_following).hash(state);
        // Divided by every number of replicas there can be to choose from.
        let whole_turn = match places {
            0..=3 => 2,
            4..=5 => 12,
            6.. => 60,
        };
        (rotation % whole_turn, misses).hash(state);
    }
}

//! A replica whose log has a hole: which prepares are missing, which of them are here already, and what to ask for next.
//!
//! ```text
//!   after                                                      last
//!     |  <- put back, oldest first | fetched | named | ...  <-  |
//!     '------------------------- the hole ---------------------'
//! ```
//! 1. names: what stands behind the hole names its last prepare, and a header, or a whole prepare, of that name names the one
//!    before it, until the name is that of the prepare before the hole. A name comes with a checksum over all that is before
//!    it, so anybody's answer can be believed.
//! 2. prepares: asked for by name, a few at a time, put back in order.
//! 3. when no hole is left, the log is read from its start, as any log is when a node starts.
//!
//! One peer is asked at a time, in turn; later and later while nothing comes. Names above what is surely committed may be of
//! prepares that the cluster has cut meanwhile, and nobody has them: then the hole is given up, and the log ends before it.
//!
//! A peer may also have let go of what is missing, and offer what its log builds on instead. Then the hole need not be filled, but
//! what stands behind it may still be the good copy that another damaged replica needs. So it is given up only when a primary
//! says that it works, in our newest view or a later one: a quorum of others holds everything then. The replica goes on like
//! one that has lost the end of its log, and takes the snapshot.
//!
//! The same is mended in a log that has rotted while it is in use (`scrubbing`), and the replica works meanwhile. Should all peers
//! have let go of what is missing, and what they offer instead not fit, it begins anew (`anew`): it asks for nothing but that
//! word of a primary then, and gives up all of its log.
//!
//! Meanwhile this replica does not exist for its group, but for one thing: it serves what it holds to others that mend.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use varve_consensus::RecoveredLog;
use varve_protocol::id::{NodeId, Op, View};
use varve_protocol::limits::{HEADERS_PER_MESSAGE_MAX, PREPARES_IN_FLIGHT_MAX, REPAIR_PREPARES_MAX};
use varve_protocol::mark::Mark;
use varve_protocol::message::Message;
use varve_protocol::mutant::Mutant;
use varve_protocol::prepare::{Prepare, PrepareHeader, PrepareId};
use varve_protocol::snapshot::Snapshot;
use varve_protocol::superblock::Superblock;
use varve_protocol::time::Moment;
use varve_storage::Hole;

#[cfg(test)]
mod tests;

/// Prepares asked for, and put back, at once.
const AT_ONCE: usize = 16;
/// Until an unanswered question is asked again; doubles while nothing comes.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// Bound of that doubling.
const ASK_AGAIN_AFTER_MAX: Duration = Duration::from_secs(2);
/// How long nothing must have come until a hole is given up whose prepares some say they do not have.
const GIVE_UP_AFTER: Duration = Duration::from_secs(5);

const _: () = assert!(AT_ONCE as u64 <= REPAIR_PREPARES_MAX, "peers answer all that is asked for");

/// What became of a log whose hole is filled, as far as it has been read.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    pub(crate) log: RecoveredLog,
    pub(crate) next: Op,
}

impl Reading {
    /// Nothing was read yet of a log that builds on a snapshot, or begins with op 1.
    fn behind(snapshot: Option<&Snapshot>) -> Self {
        let log = snapshot.and_then(RecoveredLog::from_snapshot).unwrap_or_default();
        Self { log, next: snapshot.map_or(Op::ZERO, Snapshot::op).next() }
    }
}

/// What to do next.
#[derive(Debug)]
pub(crate) enum Step {
    /// Wait for an answer, the disk, or the time.
    Wait,
    /// Put these back.
    PutBack(Vec<Prepare>),
    /// Nobody has what is missing.
    GiveUp,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Mending {
    pub(crate) superblock: Superblock,
    hole: Hole,
    /// The name of the oldest missing prepare whose header is not known.
    unnamed: PrepareId,
    /// Missing prepares whose headers are known; all of them when `unnamed` is the prepare before the hole.
    names: BTreeMap<Op, PrepareId>,
    fetched: BTreeMap<Op, Prepare>,
    /// The prepares of the last question that have not come yet.
    asked: BTreeSet<Op>,
    /// Some are on their way to the disk.
    is_writing: bool,
    is_given_up: bool,
    /// Who said that it does not have what is asked for.
    lacking: BTreeSet<NodeId>,
    /// Questions in a row that nothing came of.
    attempts: u32,
    /// Counts the questions, to ask everybody in turn.
    turn: usize,
    moved_at: Moment,
    /// When to ask again.
    pub(crate) due: Option<Moment>,
    /// Present when no hole is left.
    pub(crate) reading: Option<Reading>,
    /// What the log builds on.
    pub(crate) snapshot: Option<Snapshot>,
    /// A peer has let go of something that is missing.
    is_gone_elsewhere: bool,
    /// The peers that have let go of what is asked for.
    let_go_by: BTreeSet<NodeId>,
    /// Nothing is to be put back: the others are to have all of it.
    begins_anew: bool,
    /// Names the questions for a primary.
    nonce: u64,
    /// A primary has said that it works.
    is_led: bool,
}

impl Mending {
    pub(crate) fn new(superblock: Superblock, hole: Hole, now: Moment) -> Self {
        Self {
            superblock,
            hole,
            unnamed: hole.last,
            names: BTreeMap::new(),
            fetched: BTreeMap::new(),
            asked: BTreeSet::new(),
            is_writing: false,
            is_given_up: false,
            lacking: BTreeSet::new(),
            attempts: 0,
            turn: 0,
            moved_at: now,
            due: Some(now),
            reading: None,
            snapshot: None,
            is_gone_elsewhere: false,
            let_go_by: BTreeSet::new(),
            begins_anew: false,
            nonce: 0,
            is_led: false,
        }
    }

    /// The same, of a log that builds on a snapshot, with a number drawn for this life.
    pub(crate) fn behind(self, snapshot: Option<Snapshot>, nonce: u64) -> Self {
        Self { snapshot, nonce, ..self }
    }

    /// The same, of a log that nothing helps any more, for the others have let go of what is missing.
    pub(crate) fn anew(superblock: Superblock, hole: Hole, (nonce, now): (u64, Moment)) -> Self {
        Self { is_gone_elsewhere: true, begins_anew: true, nonce, ..Self::new(superblock, hole, now) }
    }

    /// Whether all of the log is given up when a primary works without this replica.
    pub(crate) fn begins_anew(&self) -> bool {
        self.begins_anew
    }

    /// A peer has let go of what is before the end of its snapshot.
    pub(crate) fn note_let_go_by(&mut self, node: NodeId, snapshot: Op) {
        if self.oldest_wanted().is_some_and(|wanted| wanted <= snapshot) {
            self.let_go_by.insert(node);
        }
    }

    /// Whether all these peers have let go of what is asked for.
    pub(crate) fn is_gone_everywhere(&self, peers: &[NodeId]) -> bool {
        peers.iter().all(|peer| self.let_go_by.contains(peer))
    }

    /// A peer has let go of what is before the end of its snapshot; says whether to ask for a primary.
    pub(crate) fn note_gone(&mut self, snapshot: &Snapshot) -> bool {
        let is_news = snapshot.op() > self.hole.after.op && !self.is_gone_elsewhere;
        self.is_gone_elsewhere |= is_news;
        if is_news {
            self.asked.clear();
        }
        is_news
    }

    /// A primary has begun a view, or says that it works in one; says whether that is news.
    pub(crate) fn note_primary(&mut self, view: View, nonce: u64) -> bool {
        let is_news = nonce == self.nonce && nonce != 0 && view >= self.superblock.view && !self.is_led;
        self.is_led |= is_news;
        is_news
    }

    /// What is the matter, for people.
    pub(crate) fn problem(&self) -> String {
        if self.reading.is_some() {
            return "its log was mended and is being read".to_owned();
        }
        let Hole { after, last, .. } = self.hole;
        if self.begins_anew {
            let first = after.op.next();
            return format!(
                "what its log says of {first} to {} has rotted, and nothing of the others fits; all of it is fetched anew",
                last.op
            );
        }
        format!(
            "its log has a hole, {} to {}, and is being mended from the other replicas",
            after.op.next(),
            last.op
        )
    }

    /// Whom to ask, among `peers`, and what; none if nothing is to be asked for.
    pub(crate) fn ask(&mut self, peers: &[NodeId], now: Moment) -> Option<(NodeId, Vec<Message>)> {
        let due = self.due.take();
        if self.reading.is_some() || self.is_given_up || peers.is_empty() {
            return None;
        }
        let waits_until = due.filter(|due| *due > now && !self.asked.is_empty());
        if waits_until.is_some() {
            self.due = waits_until;
            return None;
        }
        let view = self.superblock.view;
        let mut messages = if self.begins_anew {
            Vec::new()
        } else if self.is_named() {
            let wanted = self.wanted();
            if wanted.is_empty() {
                return None;
            }
            self.asked = wanted.iter().map(|id| id.op).collect();
            vec![Message::GetPrepares { view, ids: wanted }]
        } else {
            let last = self.unnamed.op;
            let first = Op::new(last.as_raw().saturating_sub(HEADERS_PER_MESSAGE_MAX as u64 - 1));
            let first = first.max(self.hole.after.op.next());
            self.asked = BTreeSet::from([last]);
            vec![
                Message::GetHeaders { view, first, last },
                Message::GetPrepares { view, ids: vec![self.unnamed] },
            ]
        };
        if self.is_gone_elsewhere {
            messages.push(Message::GetStartView { view, nonce: self.nonce });
        }
        // Whoever has answered is asked again.
        self.turn += usize::from(self.attempts > 0);
        let wait = ASK_AGAIN_AFTER.saturating_mul(1 << self.attempts.min(16)).min(ASK_AGAIN_AFTER_MAX);
        self.due = Some(now.plus(wait));
        self.attempts += 1;
        Some((peers[self.turn % peers.len()], messages))
    }

    fn is_named(&self) -> bool {
        self.unnamed.op <= self.hole.after.op
    }

    /// The next few that were not fetched yet.
    fn wanted(&self) -> Vec<PrepareId> {
        let is_missing = |id: &&PrepareId| !self.fetched.contains_key(&id.op);
        self.window().filter(is_missing).take(AT_ONCE).copied().collect()
    }

    /// As many missing ones as are kept in memory: those that are being put back, and those that are asked for meanwhile.
    fn window(&self) -> impl Iterator<Item = &PrepareId> {
        self.names.values().take(2 * AT_ONCE)
    }

    /// Takes headers; says whether to ask for more.
    pub(crate) fn learn(&mut self, headers: &[PrepareHeader], now: Moment) -> bool {
        let before = self.unnamed;
        for header in headers.iter().rev() {
            self.learn_one(header);
        }
        self.note_move(before != self.unnamed, now)
    }

    fn learn_one(&mut self, header: &PrepareHeader) {
        if !self.is_named() && header.id() == self.unnamed {
            self.names.insert(header.op(), header.id());
            self.unnamed = header.parent();
            self.asked.clear();
        }
    }

    /// Takes a prepare; says whether it is time to ask for more.
    pub(crate) fn take(&mut self, prepare: Prepare, now: Moment) -> bool {
        let before = self.unnamed;
        self.learn_one(prepare.header());
        let is_any = Mutant::MendedUnverified.is_on();
        let is_it = |id: &PrepareId| *id == prepare.id() || (is_any && id.op == prepare.op());
        let is_wanted =
            self.is_named() && self.window().any(is_it) && !self.fetched.contains_key(&prepare.op());
        if is_wanted {
            self.asked.remove(&prepare.op());
            self.fetched.insert(prepare.op(), prepare);
        }
        self.note_move(is_wanted || self.unnamed != before, now) && self.asked.is_empty()
    }

    fn note_move(&mut self, has_moved: bool, now: Moment) -> bool {
        if has_moved {
            self.moved_at = now;
            self.attempts = 0;
            self.lacking.clear();
            self.let_go_by.clear();
        }
        has_moved
    }

    /// A peer does not have a prepare; says whether to ask another one at once.
    pub(crate) fn note_missing(&mut self, node: NodeId, id: PrepareId) -> bool {
        let is_wanted = id == self.unnamed || self.wanted().contains(&id);
        let is_news = is_wanted && self.lacking.insert(node);
        if is_news {
            // Who has said so before is not asked again before it is time.
            self.asked.clear();
        }
        is_news
    }

    /// Whether all of so many peers lack what is asked for.
    pub(crate) fn is_nowhere(&self, peers: usize) -> bool {
        !self.is_writing && self.lacking.len() >= peers
    }

    /// Whether so many peers were all asked for the same in vain, and more than once.
    pub(crate) fn is_stuck(&self, peers: usize) -> bool {
        !self.is_writing && self.attempts as usize > 2 * peers
    }

    /// What to do now that something has come, or time has passed.
    pub(crate) fn next_step(&mut self, peers: &[NodeId], now: Moment) -> Step {
        if self.is_writing || self.is_given_up || self.reading.is_some() {
            return Step::Wait;
        }
        if self.begins_anew {
            self.is_given_up = self.is_led || Mutant::RottenLeavesAlone.is_on();
            return if self.is_given_up { Step::GiveUp } else { Step::Wait };
        }
        if self.is_named() && self.unnamed != self.hole.after {
            // The two ends of the log do not belong together: the newer one is not this log's.
            Mark::MendingBranched.hit();
            self.is_given_up = true;
            return Step::GiveUp;
        }
        if self.is_gone_elsewhere && self.is_led {
            Mark::MendingGone.hit();
            self.is_given_up = true;
            return Step::GiveUp;
        }
        let ready = self.ready();
        if !ready.is_empty() {
            self.is_writing = true;
            return Step::PutBack(ready);
        }
        let may_be_cut = self.oldest_wanted().is_some_and(|op| op > self.committed());
        let nobody_has_it = self.lacking.len() == peers.len();
        let is_late = !self.lacking.is_empty() && now.since(self.moved_at) >= GIVE_UP_AFTER;
        if may_be_cut && (nobody_has_it || is_late) {
            Mark::MendingInVain.hit();
            self.is_given_up = true;
            return Step::GiveUp;
        }
        Step::Wait
    }

    /// The oldest that is missing, as far as names are known; none if nothing is.
    fn oldest_wanted(&self) -> Option<Op> {
        if self.is_named() { self.names.keys().next().copied() } else { Some(self.unnamed.op) }
    }

    /// Everything up to here is surely committed: a primary seals an op only while its commit is no more than a window behind.
    fn committed(&self) -> Op {
        let floor = self.hole.head.op.as_raw().saturating_sub(PREPARES_IN_FLIGHT_MAX);
        self.superblock.commit.max(Op::new(floor))
    }

    /// What is here of the oldest missing ones, without a gap, when all names are known.
    fn ready(&self) -> Vec<Prepare> {
        if !self.is_named() {
            return Vec::new();
        }
        let run = self.names.keys().map_while(|op| self.fetched.get(op));
        run.take(AT_ONCE).cloned().collect()
    }

    /// What was put back is on disk, or the rest was given up; `hole` is what is left.
    pub(crate) fn note_mended(&mut self, hole: Option<Hole>, now: Moment) {
        self.is_writing = false;
        self.superblock.is_torn |= self.is_given_up;
        self.note_move(true, now);
        let Some(hole) = hole else {
            self.reading = Some(Reading::behind(self.snapshot.as_ref()));
            self.due = None;
            return;
        };
        if hole.last == self.hole.last {
            let put_back = |op: &Op| *op <= hole.after.op;
            self.names.retain(|op, _| !put_back(op));
            self.fetched.retain(|op, _| !put_back(op));
            self.unnamed = if self.is_named() { hole.after } else { self.unnamed };
            self.hole = hole;
        } else {
            let (superblock, turn, nonce, snapshot) =
                (self.superblock, self.turn, self.nonce, self.snapshot.take());
            *self = Self { turn, nonce, snapshot, ..Self::new(superblock, hole, now) };
        }
    }
}

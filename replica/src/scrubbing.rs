//! What a node knows of how sound its logs are: which one is looked at next, how much was looked at, and what has rotted.
//!
//! ```text
//!   groups   g1 ...... g4 |::::: g5 ...... g9
//!                         ^ a pass begins somewhere, goes on to the end, and then from the first log to where it began
//! ```
//! A pass takes weeks where there is much, and a process may not live as long: if each began with the first log, the last ones
//! would never be looked at.
//!
//! What somebody has found to be unreadable is looked at before anything else, and at once. Of what has rotted in a group one
//! stretch is mended at a time.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use varve_protocol::client::ScrubStatus;
use varve_protocol::id::{GroupId, Op, Timestamp};
use varve_protocol::mark;
use varve_protocol::prepare::{PrepareHeader, PrepareId};
use varve_protocol::time::Moment;
use varve_storage::{Damage, Mark, ReadFrom, ScrubFrom};

use crate::anew::Anew;
use crate::mending::Mending;

/// Bytes looked at in one job: what an append may have to wait for, a millisecond or two of a disk's work.
pub(crate) const PIECE_BYTES: usize = 256 << 10;

/// What a piece counts for beyond its bytes: a file is opened, and its local block is read.
const PIECE_COST_BYTES: u64 = 4096;

/// The longest time between the start of a node and its first look.
const FIRST_PASS_AFTER_MAX: Duration = Duration::from_secs(60);

/// Where there is no log at all, it is looked for one now and then.
const IDLE_LOOK_AFTER_MIN: Duration = Duration::from_secs(1);

/// Bytes looked at behind a place that could not be read: more than a reader is given at once.
const SUSPECT_BYTES: u64 = 32 << 20;

/// Stretches of a group that are remembered as damaged; more are found by the next pass.
const WOUNDS_MAX: usize = 64;

/// Which part of a log is to be looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub(crate) group: GroupId,
    pub(crate) from: ScrubFrom,
    /// Nothing above it is looked at.
    pub(crate) last: Op,
}

/// Whoever has a log.
pub(crate) trait Lookable {
    /// The newest op that can be looked at: what is above it is not sure to stay where it is. None if nothing can be.
    fn limit(&self) -> Option<Op>;
}

/// The first of the logs that can be looked at, from this one on.
fn first_from(logs: &BTreeMap<GroupId, impl Lookable>, group: GroupId) -> Option<GroupId> {
    logs.range(group..).find(|(_, log)| log.limit().is_some()).map(|(group, _)| *group)
}

/// Why a log is looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Why {
    Pass,
    /// Somebody could not read something; so many bytes are left to be looked at.
    Suspect(u64),
}

/// A look that is on its way to the disk.
#[derive(Debug)]
struct Look {
    group: GroupId,
    why: Why,
    /// The log that it was meant for has been given up meanwhile.
    is_void: bool,
}

impl Look {
    fn new(group: GroupId, why: Why) -> Self {
        Self { group, why, is_void: false }
    }
}

/// A pass over all logs, as far as it has come.
#[derive(Debug)]
struct Pass {
    began: Moment,
    /// The log that it began with, and where in it.
    origin: (GroupId, Op),
    group: GroupId,
    from: ScrubFrom,
    /// It goes on from the first log to the origin.
    has_wrapped: bool,
}

/// A stretch of a log that cannot be read.
#[derive(Debug)]
pub(crate) struct Wound {
    pub(crate) path: PathBuf,
    pub(crate) damage: Damage,
    /// How far it is mended, since that has begun.
    pub(crate) mending: Option<Mending>,
}

/// A snapshot that a log builds on, and that cannot be read.
#[derive(Debug)]
pub(crate) struct RottenBase {
    pub(crate) path: PathBuf,
    /// The last prepare that it sums up.
    pub(crate) id: PrepareId,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Scrubbing {
    /// Zero: nothing is looked at that nobody has missed.
    bytes_per_second: u64,
    /// Between the beginnings of two passes, at least.
    pass_every: Duration,
    rng: ChaCha8Rng,
    under_way: Option<Look>,
    pass: Option<Pass>,
    /// It is new, and nobody has asked yet.
    has_begun: bool,
    next_pass: Moment,
    suspects: BTreeMap<GroupId, (ScrubFrom, u64)>,
    wounds: BTreeMap<GroupId, VecDeque<Wound>>,
    /// Snapshots that logs build on and that cannot be read.
    bases: BTreeMap<GroupId, RottenBase>,
    /// That nothing fits which the others have.
    anews: BTreeMap<GroupId, Anew>,
    pub(crate) status: ScrubStatus,
    /// When the next look is due.
    pub(crate) due: Option<Moment>,
}

impl Scrubbing {
    /// Nothing was looked at yet; `seed` is the node's.
    pub(crate) fn new(bytes_per_second: u64, pass_every: Duration, (seed, now): ([u8; 32], Moment)) -> Self {
        let mut rng = ChaCha8Rng::from_seed(seed);
        // What else the node draws is none of this.
        rng.set_stream(1);
        Self {
            bytes_per_second,
            pass_every,
            rng,
            under_way: None,
            pass: None,
            has_begun: false,
            next_pass: now.plus(pass_every.min(FIRST_PASS_AFTER_MAX)),
            suspects: BTreeMap::new(),
            wounds: BTreeMap::new(),
            bases: BTreeMap::new(),
            anews: BTreeMap::new(),
            status: ScrubStatus::default(),
            due: None,
        }
    }

    /// What to look at now; none if nothing is due or a look is under way.
    pub(crate) fn next(
        &mut self,
        logs: &BTreeMap<GroupId, impl Lookable>,
        (now, wall): (Moment, Timestamp),
    ) -> Option<Piece> {
        if self.under_way.is_some() {
            return None;
        }
        while let Some((group, (from, bytes))) = self.suspects.pop_first() {
            if let Some(last) = logs.get(&group).and_then(Lookable::limit) {
                self.under_way = Some(Look::new(group, Why::Suspect(bytes)));
                return Some(Piece { group, from, last });
            }
        }
        if self.bytes_per_second == 0 || (self.pass.is_none() && self.next_pass > now) {
            return None;
        }
        if self.pass.is_none() {
            self.begin_pass(logs, now);
        }
        self.skip_what_is_not_there(logs, (now, wall));
        let Pass { origin, group, from, has_wrapped, .. } = *self.pass.as_ref()?;
        let last = logs.get(&group).and_then(Lookable::limit)?;
        let last = if has_wrapped && group == origin.0 { last.min(origin.1) } else { last };
        self.under_way = Some(Look::new(group, Why::Pass));
        Some(Piece { group, from, last })
    }

    fn begin_pass(&mut self, logs: &BTreeMap<GroupId, impl Lookable>, now: Moment) {
        let place = self.rng.random_range(0..logs.len().max(1));
        let drawn = logs.keys().nth(place).and_then(|group| first_from(logs, *group));
        let Some(group) = drawn.or_else(|| first_from(logs, GroupId::METADATA)) else { return };
        let last = logs.get(&group).and_then(Lookable::limit).map_or(1, Op::as_raw);
        let op = Op::new(self.rng.random_range(1..=last));
        let from = ScrubFrom::Read(ReadFrom::Op(op));
        let origin = (group, op);
        self.pass = Some(Pass { began: now, origin, group, from, has_wrapped: false });
        self.has_begun = true;
    }

    /// Whether a pass has begun since this was asked last.
    pub(crate) fn has_begun_pass(&mut self) -> bool {
        std::mem::take(&mut self.has_begun)
    }

    /// Passes over groups that are not here any more, have no log, or are mended as a whole.
    fn skip_what_is_not_there(
        &mut self,
        logs: &BTreeMap<GroupId, impl Lookable>,
        times: (Moment, Timestamp),
    ) {
        while let Some(pass) = &self.pass
            && logs.get(&pass.group).and_then(Lookable::limit).is_none()
        {
            self.go_on(None, logs, times);
        }
    }

    fn go_to(&mut self, group: GroupId) {
        if let Some(pass) = &mut self.pass {
            pass.group = group;
            pass.from = ScrubFrom::Read(ReadFrom::Op(Op::new(1)));
        }
    }

    fn wrap(&mut self, logs: &BTreeMap<GroupId, impl Lookable>) {
        if let Some(pass) = &mut self.pass {
            pass.has_wrapped = true;
        }
        self.go_to(first_from(logs, GroupId::METADATA).unwrap_or_default());
    }

    /// Whether what the look has found that ends now is of the log that is here now.
    pub(crate) fn is_look_valid(&self) -> bool {
        self.under_way.as_ref().is_some_and(|look| !look.is_void)
    }

    /// A look has ended after so many bytes, and may go on; says when the next one is due.
    pub(crate) fn note_looked(
        &mut self,
        (bytes, next): (u64, Option<Mark>),
        has_found: bool,
        logs: &BTreeMap<GroupId, impl Lookable>,
        (now, wall): (Moment, Timestamp),
    ) -> Moment {
        self.status.bytes += bytes;
        match self.under_way.take() {
            Some(Look { group, why: Why::Suspect(left), is_void }) => {
                let left = left.saturating_sub(bytes.max(1));
                if let Some(mark) = next.filter(|_| left > 0 && !has_found && !is_void) {
                    self.suspects.entry(group).or_insert((ScrubFrom::Mark(mark), left));
                }
            }
            Some(Look { why: Why::Pass, .. }) => self.go_on(next, logs, (now, wall)),
            None => {}
        }
        if !self.suspects.is_empty() {
            return now;
        }
        if self.pass.is_none() {
            return self.next_pass.max(now);
        }
        now.plus(self.pause_after(bytes))
    }

    fn pause_after(&self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes + PIECE_COST_BYTES) * 1_000_000_000;
        let pause = nanos / u128::from(self.bytes_per_second.max(1));
        Duration::from_nanos(u64::try_from(pause).unwrap_or(u64::MAX)).max(Duration::from_millis(1))
    }

    fn go_on(
        &mut self,
        next: Option<Mark>,
        logs: &BTreeMap<GroupId, impl Lookable>,
        (now, wall): (Moment, Timestamp),
    ) {
        let Some(pass) = &mut self.pass else { return };
        if let Some(mark) = next {
            pass.from = ScrubFrom::Mark(mark);
            return;
        }
        let later = first_from(logs, GroupId::new(pass.group.as_raw() + 1));
        match later {
            Some(group) if !pass.has_wrapped || group <= pass.origin.0 => self.go_to(group),
            None if !pass.has_wrapped => self.wrap(logs),
            Some(_) | None => {
                let began = pass.began;
                self.pass = None;
                self.next_pass = began.plus(self.pass_every).max(now);
                self.status.passes += 1;
                self.status.last_pass_ended = wall;
            }
        }
    }

    /// When to look again, if nothing is to be looked at now; none if a look is under way, or nothing ever is.
    pub(crate) fn idle_until(&self, now: Moment) -> Option<Moment> {
        let is_idle = self.under_way.is_none() && self.bytes_per_second > 0;
        is_idle.then(|| self.next_pass.max(now.plus(IDLE_LOOK_AFTER_MIN)))
    }

    /// Something of a log cannot be read.
    pub(crate) fn suspect(&mut self, group: GroupId, from: ScrubFrom) {
        self.suspects.entry(group).or_insert((from, SUSPECT_BYTES));
    }

    /// A stretch of a log was found to be damaged; says whether that is news.
    pub(crate) fn note_wound(&mut self, group: GroupId, path: PathBuf, damage: Damage) -> bool {
        let wounds = self.wounds.entry(group).or_default();
        let is_apart = |wound: &Wound| {
            damage.after.op >= wound.damage.last.op || damage.last.op <= wound.damage.after.op
        };
        let is_news = wounds.len() < WOUNDS_MAX && wounds.iter().all(is_apart);
        if is_news {
            wounds.push_back(Wound { path, damage, mending: None });
            self.status.damages_found += 1;
        }
        is_news
    }

    /// What a log builds on cannot be read; says whether that is news.
    pub(crate) fn note_rotten_base(&mut self, group: GroupId, base: RottenBase) -> bool {
        let is_news = self.bases.insert(group, base).is_none();
        self.status.damages_found += u64::from(is_news);
        is_news
    }

    /// The stretch of a log that is being mended.
    pub(crate) fn wound(&mut self, group: GroupId) -> Option<&mut Wound> {
        self.wounds.get_mut(&group)?.front_mut()
    }

    /// The same, to look at.
    pub(crate) fn first_wound(&self, group: GroupId) -> Option<&Wound> {
        self.wounds.get(&group)?.front()
    }

    /// Whether that is where an op belongs.
    pub(crate) fn is_missing(&self, group: GroupId, op: Op) -> bool {
        let wound = self.first_wound(group);
        wound.is_some_and(|wound| op > wound.damage.after.op && op <= wound.damage.last.op)
    }

    /// The stretch that was being mended is mended.
    pub(crate) fn note_mended(&mut self, group: GroupId) {
        self.status.damages_mended += 1;
        self.close_wound(group);
    }

    /// The stretch that was being mended is left as it is until it is found again.
    pub(crate) fn give_up_wound(&mut self, group: GroupId) {
        mark::Mark::WoundGivenUp.hit();
        self.status.damages_found -= 1;
        self.close_wound(group);
    }

    fn close_wound(&mut self, group: GroupId) {
        self.anews.remove(&group);
        if let Some(wounds) = self.wounds.get_mut(&group) {
            wounds.pop_front();
            if wounds.is_empty() {
                self.wounds.remove(&group);
            }
        }
    }

    /// Lets another stretch of a log be mended first, if there is one.
    pub(crate) fn put_off_wound(&mut self, group: GroupId) {
        if let Some(wounds) = self.wounds.get_mut(&group).filter(|wounds| wounds.len() > 1)
            && let Some(wound) = wounds.pop_front()
        {
            wounds.push_back(Wound { mending: None, ..wound });
        }
    }

    /// What lies before an op has been let go: whether it could be read matters no more.
    pub(crate) fn note_let_go(&mut self, group: GroupId, first: Op) {
        self.anews.remove(&group);
        if let Some(wounds) = self.wounds.get_mut(&group) {
            let before = wounds.len();
            wounds.retain(|wound| wound.damage.last.op >= first);
            self.status.damages_mended += (before - wounds.len()) as u64;
            if wounds.is_empty() {
                self.wounds.remove(&group);
            }
        }
    }

    /// What a log builds on is another snapshot now, or was made anew.
    pub(crate) fn note_new_base(&mut self, group: GroupId) {
        self.anews.remove(&group);
        self.status.damages_mended += u64::from(self.bases.remove(&group).is_some());
    }

    /// What a log builds on, if that cannot be read.
    pub(crate) fn rotten_base(&self, group: GroupId) -> Option<&RottenBase> {
        self.bases.get(&group)
    }

    /// Forgets a group that is not here any more, or whose log is read anew.
    pub(crate) fn forget(&mut self, group: GroupId) {
        let wounds = self.wounds.remove(&group).map_or(0, |wounds| wounds.len() as u64);
        self.status.damages_mended += wounds;
        self.note_new_base(group);
        self.suspects.remove(&group);
        if let Some(look) = self.under_way.as_mut().filter(|look| look.group == group) {
            look.is_void = true;
        }
    }

    /// Nothing fits of what the others have.
    pub(crate) fn note_none_fits(&mut self, group: GroupId, now: Moment) -> &mut Anew {
        self.anews.entry(group).or_insert_with(|| Anew::since(now))
    }

    /// Since when nothing fits, and who has been asked.
    pub(crate) fn anew(&mut self, group: GroupId) -> Option<&mut Anew> {
        self.anews.get_mut(&group)
    }

    /// Whether a group's peers were asked for what is committed, and this is the answer.
    pub(crate) fn is_asked_for(&self, group: GroupId, header: &PrepareHeader) -> bool {
        self.anews.get(&group).is_some_and(|anew| anew.has_asked_for(header))
    }

    /// Whether nobody is to rely on what is held here of a group.
    pub(crate) fn is_asking(&self, group: GroupId, now: Moment) -> bool {
        self.anews.get(&group).is_some_and(|anew| anew.is_asking(now))
    }

    /// Whether something is the matter with a log.
    pub(crate) fn has_problem(&self, group: GroupId) -> bool {
        self.wounds.contains_key(&group) || self.bases.contains_key(&group)
    }

    /// What is the matter with a log, for people.
    pub(crate) fn problem(&self, group: GroupId, has_peers: bool) -> Option<String> {
        let what = if has_peers {
            "is being mended from the other replicas"
        } else {
            "there is no other replica to mend it from; the rest can be read and written"
        };
        if let Some(Wound { damage, .. }) = self.first_wound(group) {
            let (first, last) = (damage.after.op.next(), damage.last.op);
            return Some(format!("its log {ROTTEN}, {first} to {last}: {what}"));
        }
        let path = self.bases.get(&group)?.path.display();
        Some(format!("its log {ROTTEN}, {path}: {what}"))
    }
}

/// What is said of a replica that works although a part of its log cannot be read.
pub const ROTTEN: &str = "cannot be read as a whole";

#[cfg(test)]
mod tests;

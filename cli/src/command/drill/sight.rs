//! Who sees what of an event: the nodes are asked every few milliseconds whether they miss the node that was struck, and who
//! leads its partitions now. A moment is that of the answer, so it may be late by one question, and is never early.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use varve_client::Admin;
use varve_protocol::id::{GroupId, NodeId, View};
use varve_protocol::metadata::NodeEntry;

use crate::measure::clock::Clock;

/// Between two questions to a node.
pub(super) const ASK_EVERY: Duration = Duration::from_millis(10);

/// How long a node may take to answer before it counts as one that does not.
const ANSWER_MAX: Duration = Duration::from_millis(300);

/// What was seen first, and when.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Seen {
    /// Somebody missed the node that was struck, or was on the way to another view.
    pub(super) missed: Option<Duration>,
    /// Somebody said that he leads a later view.
    pub(super) led: BTreeMap<GroupId, (Duration, NodeId)>,
    /// When the node that was struck answered last.
    pub(super) answered: Duration,
    /// When it was first found not to answer.
    pub(super) silent: Option<Duration>,
}

/// The tasks that ask; they end when this goes.
pub(super) struct Sight {
    seen: Arc<Mutex<Seen>>,
    _asking: JoinSet<()>,
}

/// Whom to ask for what.
#[derive(Clone, Debug)]
pub(super) struct Question {
    /// Who is struck.
    pub(super) victim: NodeId,
    /// The groups that it leads, and in which views.
    pub(super) groups: Vec<(GroupId, View)>,
}

impl Sight {
    /// Begins to ask.
    pub(super) fn open(admin: &Arc<Admin>, nodes: &[NodeEntry], question: &Question, clock: &Clock) -> Self {
        let seen = Arc::new(Mutex::new(Seen { answered: clock.now(), ..Seen::default() }));
        let mut asking = JoinSet::new();
        for node in nodes {
            let witness = Witness {
                admin: admin.clone(),
                node: node.clone(),
                question: question.clone(),
                clock: clock.clone(),
                seen: seen.clone(),
            };
            if node.node == question.victim {
                asking.spawn(witness.watch_victim());
            } else {
                asking.spawn(witness.watch_others());
            }
        }
        Self { seen, _asking: asking }
    }

    /// What was seen so far.
    pub(super) fn seen(&self) -> Seen {
        lock(&self.seen).clone()
    }
}

struct Witness {
    admin: Arc<Admin>,
    node: NodeEntry,
    question: Question,
    clock: Clock,
    seen: Arc<Mutex<Seen>>,
}

impl Witness {
    /// Whether the one that is struck answers, and since when not. If it leads no more, it has been seen, too.
    async fn watch_victim(self) {
        let mut ticks = ticks();
        loop {
            ticks.tick().await;
            let answered = tokio::time::timeout(ANSWER_MAX, self.admin.vitals_of(&self.node)).await;
            let now = self.clock.now();
            let mut seen = lock(&self.seen);
            match answered {
                Ok(Ok(_)) => seen.answered = now,
                Ok(Err(_)) | Err(_) => _ = seen.silent.get_or_insert(now),
            }
        }
    }

    /// What another node says.
    async fn watch_others(self) {
        let (mut ticks, mut has_heard) = (ticks(), false);
        loop {
            ticks.tick().await;
            if let Ok(vitals) = self.admin.vitals_of(&self.node).await {
                let hears = vitals.hears.contains(&self.question.victim);
                if has_heard && !hears {
                    self.note_missed();
                }
                has_heard |= hears;
            }
            for (group, view) in &self.question.groups {
                self.look_at(*group, *view).await;
            }
        }
    }

    async fn look_at(&self, group: GroupId, before: View) {
        if lock(&self.seen).led.contains_key(&group) {
            return;
        }
        let Ok(now) = self.admin.offsets_at(&self.node, group).await else { return };
        if now.view > before {
            self.note_missed();
            if now.primary == self.node.node {
                let at = self.clock.now();
                lock(&self.seen).led.entry(group).or_insert((at, now.primary));
            }
        }
    }

    fn note_missed(&self) {
        let now = self.clock.now();
        lock(&self.seen).missed.get_or_insert(now);
    }
}

fn ticks() -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(ASK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

//! What all parts of a QUIC universe share: the oracle, the trace, the phase, and who still waits for what.
//!
//! A lock protects it because quinn wants its parts sendable; all of it runs on one thread.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use varve_protocol::client::NodeStatus;
use varve_protocol::id::{GroupId, NodeId};
use varve_protocol::retention::Retention;

use crate::actor::{Placement, Streams};
use crate::oracle::{Oracle, Violation};
use crate::report::Statistics;
use crate::scenario::Phase;
use crate::trace::{Event, Printing, Trace};

/// The state itself.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) oracle: Oracle,
    pub(crate) trace: Trace,
    pub(crate) statistics: Statistics,
    pub(crate) phase: Phase,
    /// Where the partitions are, once somebody knows.
    pub(crate) placement: Option<Placement>,
    /// Where they are now, if replicas are moved.
    pub(crate) moved: Option<Placement>,
    /// The streams that the tinkerer has made.
    pub(crate) streams: Streams,
    /// The first broken promise.
    pub(crate) violation: Option<Violation>,
    /// What each client still waits for before the phase may end.
    pub(crate) waits: BTreeMap<u32, String>,
    /// How nodes said they are, last.
    pub(crate) statuses: BTreeMap<NodeId, NodeStatus>,
    /// When each node was stopped last: what an earlier life said may come later.
    pub(crate) stopped: BTreeMap<NodeId, Duration>,
    /// The newest view of each group that anybody told.
    pub(crate) views: BTreeMap<GroupId, u64>,
    /// Where each replica ended when all was read.
    pub(crate) ends: BTreeMap<GroupId, BTreeMap<NodeId, u64>>,
}

impl State {
    /// Notes how a node says it is, unless it was stopped since it said so.
    pub(crate) fn note_status(&mut self, now: Duration, status: NodeStatus) {
        let life_max = self.stopped.get(&status.node).map(|stopped| now.saturating_sub(*stopped));
        if life_max.is_some_and(|life_max| Duration::from_millis(status.uptime_ms) > life_max) {
            return;
        }
        for replica in &status.groups {
            let newest = self.views.entry(replica.group).or_default();
            *newest = replica.view.as_raw().max(*newest);
        }
        self.statuses.insert(status.node, status);
    }
}

/// A handle of the state.
#[derive(Clone, Debug)]
pub(crate) struct Board(Arc<Mutex<State>>);

impl Board {
    /// A universe at its beginning.
    pub(crate) fn new(printing: Printing, retention: Retention) -> Self {
        Self(Arc::new(Mutex::new(State {
            oracle: Oracle::with_retention(retention),
            trace: Trace::new(printing),
            statistics: Statistics { seeds: 1, ..Statistics::default() },
            phase: Phase::Safety,
            placement: None,
            moved: None,
            streams: Streams::new(),
            violation: None,
            waits: BTreeMap::new(),
            statuses: BTreeMap::new(),
            stopped: BTreeMap::new(),
            views: BTreeMap::new(),
            ends: BTreeMap::new(),
        })))
    }

    /// Looks at the state or changes it; never held while anything waits.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the universe is doing.
    pub(crate) fn phase(&self) -> Phase {
        self.lock().phase
    }

    /// Writes into the trace, from inside a simulated host.
    pub(crate) fn record(&self, event: Event) {
        let at = turmoil::sim_elapsed().unwrap_or_default();
        self.lock().trace.record(at, event);
    }

    /// Notes what a client waits for; `None`: nothing.
    pub(crate) fn set_waits(&self, client: u32, waits_for: Option<String>) {
        let waits = &mut self.lock().waits;
        match waits_for {
            Some(what) => waits.insert(client, what),
            None => waits.remove(&client),
        };
    }

    /// Waits, looking every few milliseconds, until the topic exists.
    pub(crate) async fn placement(&self) -> Placement {
        loop {
            if let Some(placement) = &self.lock().placement {
                return placement.clone();
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// How often the parts of a universe look at the board.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(5);

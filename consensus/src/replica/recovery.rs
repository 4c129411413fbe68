//! Coming back after a restart with a sound superblock and log (rules S1, S2).
//!
//! A restarted replica knows what it promised and what it holds, but not what was committed. Its log tells part of that: a
//! primary seals op h only while h - commit is within the window, so a log with head h proves that everything up to
//! h - window is committed. Everything above is committed again by the protocol, and applied once.

use rand_chacha::ChaCha8Rng;
use varve_protocol::id::Op;
use varve_protocol::limits::PREPARES_IN_FLIGHT_MAX;
use varve_protocol::mark::Mark;
use varve_protocol::mutant::Mutant;
use varve_protocol::prepare::{Prepare, PrepareHeader, PrepareId};
use varve_protocol::snapshot::Snapshot;
use varve_protocol::superblock::Superblock;
use varve_protocol::time::Moment;

use super::Replica;
use super::memory::as_found;
use crate::client_table::ClientTable;
use crate::config::Config;
use crate::log::Log;
use crate::log_starts::LogStarts;
use crate::replacements::Replacements;
use crate::snapshot::State;
use crate::status::Status;
use crate::timeout::Timer;

/// What a restarted replica finds in its journal, prepare by prepare.
#[derive(Clone, Debug)]
pub struct RecoveredLog {
    pub(super) log: Log,
    pub(super) client_table: ClientTable,
    pub(super) replacements: Replacements,
    pub(super) log_starts: LogStarts,
    /// Newest op that is surely committed; in the client table.
    pub(super) committed: Op,
}

impl Default for RecoveredLog {
    fn default() -> Self {
        Self::new()
    }
}

impl RecoveredLog {
    /// An empty log.
    #[must_use]
    pub fn new() -> Self {
        Self {
            log: Log::new(PrepareId::ROOT),
            client_table: ClientTable::default(),
            replacements: Replacements::default(),
            log_starts: LogStarts::default(),
            committed: Op::ZERO,
        }
    }

    /// A log that builds on a snapshot; `None` if the snapshot's state cannot be read.
    #[must_use]
    pub fn from_snapshot(snapshot: &Snapshot) -> Option<Self> {
        let State { client_table, replacements } = State::decode(&snapshot.state)?;
        Some(Self {
            log: Log::starting_with(snapshot.header),
            client_table,
            replacements,
            log_starts: LogStarts::new(snapshot.log_start()),
            committed: snapshot.op(),
        })
    }

    /// The newest op that is surely committed.
    #[must_use]
    pub fn committed(&self) -> Op {
        self.committed
    }

    /// Takes the next prepare, durable and verified. Returns the header that is surely committed because of it and has been
    /// taken into the client table: the driver applies that one too, for `Output::Apply` never names it.
    ///
    /// # Panics
    /// If the prepares are no chain: the journal has judged that before.
    pub fn push(&mut self, prepare: &Prepare) -> Option<PrepareHeader> {
        self.replacements.note(prepare);
        self.log_starts.note(prepare);
        let header = *prepare.header();
        self.log.append_header(header);
        let window = if Mutant::RecoveryFloorTooHigh.is_on() { 8 } else { PREPARES_IN_FLIGHT_MAX };
        let floor = Op::new(header.op().as_raw().saturating_sub(window));
        if floor <= self.committed {
            return None;
        }
        let committed = *self.log.header(floor).expect("a window of headers is kept");
        self.client_table.apply(&committed);
        self.log_starts.commit(committed.op());
        self.log.forget(self.committed, committed.op(), header.op());
        self.committed = committed.op();
        Some(committed)
    }
}

impl Replica {
    /// What its superblock says when all that was handed out is saved.
    #[must_use]
    pub fn superblock(&self) -> Superblock {
        self.requested
    }

    /// A replica that was here before: `superblock` and `log` are what its disk holds, all of it durable. Or one that has lost
    /// its disk, with a superblock of zeros and an empty log: it asks for everything, and has no voice until it is let in.
    ///
    /// # Panics
    /// If superblock and log do not belong together.
    #[must_use]
    pub fn recover(config: Config, rng: ChaCha8Rng, superblock: Superblock, log: RecoveredLog) -> Self {
        assert!(superblock.log_view <= superblock.view, "the log view is no later than the view");
        assert!(log.log.head().view <= superblock.view, "no prepare is stored before its view");
        let superblock = as_found(superblock);
        let head = log.log.head().op;
        let mut replica = Self::with_state(config, rng, superblock, log);
        let was_changing = superblock.log_view < superblock.view;
        replica.status = if was_changing { Status::ViewChange } else { Status::Recovering };
        let commit = if Mutant::RecoveryTrustsLog.is_on() { head } else { superblock.commit.min(head) };
        replica.commit_to(commit);
        replica.begin_doubt();
        // Due at once: the first tick says what has to be said.
        replica.timers.arm(Timer::ViewChangeResend, Moment::ZERO);
        if Mutant::PrimaryResumes.is_on() && !was_changing && replica.leads_view() {
            replica.status = Status::Normal;
        } else if !was_changing && replica.leads_view() {
            Mark::PrimaryRestarted.hit();
            // Prepares that it sent and never synced may live on elsewhere: it must not seal those ops again in this view.
            replica.propose(replica.next_view(superblock.view));
        }
        if was_changing {
            Mark::ChangeRestarted.hit();
        }
        replica.assert_invariants();
        replica
    }
}

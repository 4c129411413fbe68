//! One replica of one group: its state, its inputs and outputs. The sub-protocols are the child modules, a file each.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use varve_protocol::id::{Offset, Op, ReplicaIndex, View};
use varve_protocol::log_start::LogStart;
use varve_protocol::mark::Mark;
use varve_protocol::message::Message;
use varve_protocol::mutant::Mutant;
use varve_protocol::prepare::{PrepareHeader, PrepareId};
use varve_protocol::superblock::Superblock;
use varve_protocol::time::Moment;

use crate::client_table::ClientTable;
use crate::config::Config;
use crate::event::{Input, Liveness, Output, RequestHandle};
use crate::log::Log;
use crate::log_merge::Told;
use crate::log_starts::LogStarts;
use crate::quorum::Votes;
use crate::replacements::Replacements;
use crate::status::Status;
use crate::timeout::{TIMERS, Timer, Timers};

mod catchup;
mod commit_delay;
pub(crate) mod fingerprint;
mod handover;
mod install;
mod invariant;
mod memory;
mod normal;
mod primary;
mod reading;
pub(crate) mod recovery;
mod repair;
mod resume;
mod seat;
mod torn;
mod transfer;
mod view_change;

use catchup::Catchup;
use reading::Reading;
use recovery::RecoveredLog;

/// One replica of one group. `Clone`, so that a checker can branch.
#[derive(Clone, Debug)]
pub struct Replica {
    config: Config,
    rng: ChaCha8Rng,
    /// The latest moment handed in.
    now: Moment,
    status: Status,
    /// The newest view entered; perhaps not durable yet.
    view: View,
    /// The superblock known to be durable.
    saved: Superblock,
    /// The superblock last handed out to be saved; equal to `saved` if none is under way.
    requested: Superblock,
    log: Log,
    /// Entries of the log that say who stands where.
    replacements: Replacements,
    /// The vacant place of a replica that is to join.
    listener: Option<ReplicaIndex>,
    /// Entries of the log that move its start.
    log_starts: LogStarts,
    /// Newest op known to be committed; applied at once.
    commit: Op,
    /// Newest op durable here, and all below it.
    durable: Op,
    /// The snapshot that has taken the place of the log and is not durable yet.
    taking: Option<PrepareId>,
    /// Newest op acknowledged before it was durable; older ones do not matter any more.
    vouched: Op,
    /// Newest op that a sync was asked for.
    syncing: Op,
    /// The process is about to end: nothing is acknowledged any more before it is durable.
    is_stopping: bool,
    client_table: ClientTable,
    liveness: Liveness,
    proposal: Proposal,
    leading: Leading,
    changing: Changing,
    catchup: Catchup,
    /// The last question for a `StartView` outside a view change, so that a flood of messages is not answered by another.
    start_view_asked: Option<(View, Moment)>,
    /// Sent with every question for a `StartView`: while this replica's log is torn a number drawn for this life, else zero.
    nonce: u64,
    /// Who has said, and not shown otherwise since, that its log is torn, while this one's is.
    torn_peers: Votes,
    timers: Timers,
    outputs: VecDeque<Output>,
}

/// A view later than the present one that replicas, perhaps this one too, want to enter.
#[derive(Clone, Default, Debug)]
struct Proposal {
    view: View,
    /// Whose proposals were heard since this replica last repeated its own, and in the periods before that. Who does not
    /// repeat his has withdrawn it.
    votes: [Votes; VOTE_PERIODS],
}

/// How many of its own repetitions a replica lets pass until another's proposal is taken to be withdrawn.
const VOTE_PERIODS: usize = 4;

impl Proposal {
    fn of(view: View) -> Self {
        Self { view, ..Self::default() }
    }

    fn insert(&mut self, replica: ReplicaIndex) {
        self.votes[0].insert(replica);
    }

    /// A period is over.
    fn age(&mut self) {
        self.votes.rotate_right(1);
        self.votes[0] = if Mutant::ProposalNeverOld.is_on() { self.votes[1] } else { Votes::default() };
    }

    fn standing(&self) -> Votes {
        self.votes.iter().copied().fold(Votes::default(), Votes::union)
    }
}

/// What a primary keeps for the duration of its view.
#[derive(Clone, Default, Debug)]
struct Leading {
    /// Newest op each replica has acknowledged in this view; nothing yet means it was not heard in this view.
    acknowledged: BTreeMap<ReplicaIndex, Op>,
    /// Who waits for which op.
    waiting: BTreeSet<(Op, RequestHandle)>,
    /// The newest op of the log that the view started with.
    started_with: Op,
    /// Reads that wait for a quorum's word.
    reading: Reading,
    /// Bytes of the bodies above the commit.
    bytes_in_flight: usize,
    /// Resends since anything was committed.
    resends: u32,
    /// The last prepare that was repeated to a backup, until it acknowledges that or a later one.
    repeated: BTreeMap<ReplicaIndex, Op>,
    /// How long prepares take to their commit lately.
    commit_delay: commit_delay::CommitDelay,
    /// How far it was when it was last looked at.
    seen: Progress,
    /// Whether it was found stuck, and has not moved since.
    is_stuck: bool,
    /// Who is to lead instead.
    successor: Option<ReplicaIndex>,
}

/// How far a primary is.
#[derive(Clone, Copy, Hash, Default, Debug)]
struct Progress {
    head: Op,
    commit: Op,
    durable: Op,
}

/// What a replica keeps for the duration of a view change.
#[derive(Clone, Default, Debug)]
struct Changing {
    stage: Stage,
    /// Whether `DoViewChange` was sent in this view: its content is fixed from then on.
    has_told: bool,
    /// What replicas told the primary of the new view.
    told: BTreeMap<ReplicaIndex, Told>,
    /// Views given up in a row.
    attempts: u32,
    /// How often what this view change, or the recovery, is about was said again.
    repeats: u32,
}

/// How far a view change has come here.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
enum Stage {
    /// The view's log is not known yet.
    #[default]
    Choosing,
    /// The view's log is known and is being made durable here.
    Installing,
}

impl Replica {
    /// A replica of a brand-new group, whose superblock with view and log view zero is already durable: normal in view 0, with
    /// an empty log.
    #[must_use]
    pub fn new(config: Config, rng: ChaCha8Rng) -> Self {
        assert!(config.is_original, "a replica that has lost its disk is recovered, with an empty log");
        let superblock = Superblock::new(config.group);
        Self::with_state(config, rng, superblock, RecoveredLog::new())
    }

    fn with_state(config: Config, rng: ChaCha8Rng, superblock: Superblock, log: RecoveredLog) -> Self {
        let RecoveredLog { log, client_table, replacements, log_starts, committed: commit } = log;
        config.assert_sound();
        assert!(superblock.group == config.group, "a superblock belongs to the group it is given to");
        Self {
            config,
            rng,
            now: Moment::ZERO,
            status: Status::Normal,
            view: superblock.view,
            saved: superblock,
            requested: superblock,
            durable: log.head().op,
            vouched: Op::ZERO,
            syncing: Op::ZERO,
            is_stopping: false,
            log,
            replacements,
            listener: None,
            log_starts,
            commit,
            taking: None,
            client_table,
            liveness: Liveness::Heard,
            proposal: Proposal::default(),
            leading: Leading::default(),
            changing: Changing::default(),
            catchup: Catchup::default(),
            start_view_asked: None,
            nonce: 0,
            torn_peers: Votes::default(),
            timers: Timers::default(),
            outputs: VecDeque::new(),
        }
    }

    /// Takes in one thing that happened. Drain [`Self::poll_output`] afterwards.
    pub fn step(&mut self, now: Moment, input: Input) {
        self.now = self.now.max(now);
        match input {
            Input::Message { from, message } => self.on_message(from, message),
            Input::Request(request) => self.on_request(request),
            Input::ConfirmRead { handle } => self.on_confirm_read(handle),
            Input::Durable(id) => self.on_durable(id),
            Input::SuperblockDurable(superblock) => self.on_superblock_durable(superblock),
            Input::PrimaryLiveness(liveness) => self.on_primary_liveness(liveness),
            Input::HandOver { to } => self.on_hand_over(to),
            Input::SaveCommit => self.on_save_commit(),
            Input::Stop => self.on_stop(),
            Input::ForceRecover => self.on_force_recover(),
            Input::Tick => self.on_tick(),
        }
        self.assert_invariants();
    }

    /// The next thing to do; `None` when all is told.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to hand in [`Input::Tick`]; ask again after every step. `None` for an idle, healthy group.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Moment> {
        self.timers.next()
    }

    /// What this replica is doing.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status
    }

    /// The newest view entered.
    #[must_use]
    pub fn view(&self) -> View {
        self.view
    }

    /// The last view in which this replica was normal, as far as that is durable.
    #[must_use]
    pub fn log_view(&self) -> View {
        self.saved.log_view
    }

    /// The newest op of which this replica will know after a restart, from its superblock alone, that it is committed.
    #[must_use]
    pub fn commit_saved(&self) -> Op {
        self.saved.commit
    }

    /// Who leads this replica's view.
    #[must_use]
    pub fn primary(&self) -> ReplicaIndex {
        self.config.primary(self.view)
    }

    /// Whether this replica leads its view and works in it.
    #[must_use]
    pub fn is_primary(&self) -> bool {
        self.status == Status::Normal && self.leads_view()
    }

    /// Whether this replica is the primary and does not doubt that it will stay so; else it takes nothing new (N8).
    #[must_use]
    pub fn takes_requests(&self) -> bool {
        self.is_primary() && (!self.doubts_primary() || Mutant::TakesRequestsAlone.is_on())
    }

    /// How many ops of the log here a replica, this one or a peer, has not acknowledged, as this primary has heard.
    #[must_use]
    pub fn lag(&self, replica: ReplicaIndex) -> u64 {
        self.log.head().op.since(self.acknowledged_by(replica))
    }

    /// Whether this replica wants another primary: it does not hear it, or is it and hears no quorum or gets nothing done (N8).
    #[must_use]
    pub fn doubts_primary(&self) -> bool {
        self.liveness == Liveness::Suspected || self.leading.is_stuck
    }

    /// The newest prepare of the log, durable or not.
    #[must_use]
    pub fn head(&self) -> PrepareId {
        self.log.head()
    }

    /// The newest prepare that is durable here together with all before it.
    #[must_use]
    pub fn durable(&self) -> PrepareId {
        self.log.id(self.durable).expect("the durable prepare is remembered")
    }

    /// The newest prepare that this replica acknowledges.
    fn held_id(&self) -> PrepareId {
        self.log.id(self.held()).expect("what is acknowledged is remembered")
    }

    /// The newest prepare known to be committed.
    #[must_use]
    pub fn commit(&self) -> PrepareId {
        self.log.id(self.commit).expect("the committed prepare is remembered")
    }

    /// Where the log starts: what is older was let go, or will be.
    #[must_use]
    pub fn log_start(&self) -> LogStart {
        self.log_starts.committed()
    }

    /// Whether the log moves its start above the commit.
    #[must_use]
    pub fn is_moving_log_start(&self) -> bool {
        self.log_starts.is_pending()
    }

    /// The high watermark: the first offset that consumers cannot read yet.
    #[must_use]
    pub fn next_offset_committed(&self) -> Offset {
        let newest = if Mutant::HighWatermarkAtLogEnd.is_on() { self.log.head().op } else { self.commit };
        self.log.header(newest).map_or(Offset::ZERO, PrepareHeader::next_offset)
    }

    /// The offset that the next record appended here would get; records below it may be uncommitted.
    #[must_use]
    pub fn log_end(&self) -> Offset {
        self.log.next_offset()
    }

    /// Who this replica is.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    fn leads_view(&self) -> bool {
        self.primary() == self.config.replica
    }

    fn is_installing(&self) -> bool {
        self.status == Status::ViewChange && self.changing.stage == Stage::Installing
    }

    fn on_message(&mut self, from: ReplicaIndex, message: Message) {
        if from.as_raw() >= self.config.places || from == self.config.replica {
            tracing::warn!(group = %self.config.group, %from, "ignore a message of no peer");
            return;
        }
        self.note_torn(from, &message);
        match message {
            Message::Prepare { view, commit, prepare } => self.on_prepare(from, view, commit, prepare),
            Message::PrepareOk { view, id } => self.on_prepare_ok(from, view, id),
            Message::Commit { view, commit } => self.on_commit(from, view, commit),
            Message::StartViewChange { view, current } => self.on_start_view_change(from, view, current),
            Message::DoViewChange { view, log_view, commit, head, generations, suffix } => {
                self.on_do_view_change(from, view, Told { log_view, commit, head, generations, suffix });
            }
            Message::StartView { view, commit, head, suffix, nonce } => {
                self.on_start_view(from, view, nonce, &install::Announced { commit, head, suffix });
            }
            Message::GetStartView { view, nonce } => self.on_get_start_view(from, view, nonce),
            Message::GetHeaders { view: _, first, last } => self.on_get_headers(from, first, last),
            Message::Headers { view, headers } => self.on_headers(view, &headers),
            Message::GetPrepares { view: _, ids } => self.on_get_prepares(from, &ids),
            Message::RepairPrepare { view: _, prepare } => self.on_repair_prepare(prepare),
            Message::RepairMissing { view: _, id } => self.on_repair_missing(id),
            Message::ConfirmView { view, round } => self.on_confirm_view(from, view, round),
            Message::ViewConfirmed { view, round } => self.on_view_confirmed(from, view, round),
            Message::Snapshot { view, snapshot } => self.on_snapshot(from, view, snapshot),
        }
    }

    fn on_tick(&mut self) {
        for timer in TIMERS {
            if !self.timers.take_due(timer, self.now) {
                continue;
            }
            match timer {
                Timer::Propose => self.repeat_proposal(),
                Timer::ViewChangeResend => self.resend_in_view_change(),
                Timer::ViewChangeEscalate => self.give_up_view(),
                Timer::Repair => self.ask_again(),
                Timer::PrepareResend => self.resend_prepares(),
                Timer::AskStartView => self.ask_start_view_again(),
                Timer::Stall => self.look_for_stall(),
                Timer::HandOver => self.give_up_handover(),
                Timer::ConfirmView => self.repeat_round(),
                Timer::Sync => self.sync_is_due(),
                Timer::Rest => self.rest(),
            }
        }
    }

    fn send(&mut self, to: ReplicaIndex, message: Message) {
        assert!(to != self.config.replica, "a replica sends nothing to itself");
        tracing::debug!(group = %self.config.group, view = %self.view, %to, command = ?message.command(), "send");
        self.outputs.push_back(Output::Send { to, message });
    }

    fn broadcast(&mut self, message: &Message) {
        for to in self.peers() {
            self.send(to, message.clone());
        }
    }

    /// Hands out a superblock with the present view and the given log view.
    fn save_superblock(&mut self, log_view: View) {
        // Of the commit only what is durable: superblock and log reach the disk in any order, and a commit told of an op
        // that the log may still hold in another version would be believed at the next start.
        // It is not taken back if the log has lost what is known to be committed.
        let commit = self.commit.min(self.durable).max(self.requested.commit);
        let is_torn = self.is_torn() && log_view == self.requested.log_view;
        let superblock = Superblock {
            group: self.config.group,
            view: self.view,
            log_view,
            commit,
            is_torn,
            is_unsynced: self.requested.is_unsynced,
        };
        assert!(superblock.view >= self.requested.view, "a promised view is never taken back");
        assert!(log_view >= self.requested.log_view, "a log view is never taken back");
        self.requested = superblock;
        self.outputs.push_back(Output::SaveSuperblock(superblock));
    }

    fn on_save_commit(&mut self) {
        if self.commit.min(self.durable) > self.requested.commit {
            self.save_superblock(self.requested.log_view);
        }
    }

    fn on_superblock_durable(&mut self, superblock: Superblock) {
        assert!(superblock.view <= self.requested.view, "only what was handed out can have been saved");
        let was_admitted = self.is_admitted();
        if superblock.view >= self.saved.view && superblock.log_view >= self.saved.log_view {
            self.saved = superblock;
        }
        if !was_admitted && self.is_admitted() {
            Mark::VoiceGained.hit();
            tracing::info!(group = %self.config.group, view = %self.view, "this replica has a voice");
            self.send_prepare_ok();
            if self.status == Status::Normal && self.doubts_primary() {
                self.give_up_primary();
            }
        }
        self.note_mark_saved();
        self.tell_log();
        self.finish_install();
    }

    /// Arms a timer after `wait`, lengthened at random by up to one half.
    fn arm(&mut self, timer: Timer, wait: Duration) {
        let jitter = wait.mul_f64(self.rng.random_range(0.0..0.5));
        self.timers.arm(timer, self.now.plus(wait + jitter));
    }
}

/// `wait` doubled `times` times, at most `limit`.
fn backed_off(wait: Duration, times: u32, limit: Duration) -> Duration {
    wait.saturating_mul(1 << times.min(16)).min(limit)
}

//! One replica with its disk, and what it makes of one stimulus. A pure function: the same replica and the same stimulus
//! give the same reaction, which is what allows [`super::catalog`] to compute each only once.

use std::hash::{Hash, Hasher};
use std::time::Duration;

use bytes::Bytes;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use varve_consensus::event::{Liveness, Outcome, ReadHandle, ReadOutcome, Request, RequestHandle};
use varve_consensus::{Config, Input, Output, RecoveredLog, Replica, Timeouts};
use varve_protocol::durability::Durability;
use varve_protocol::id::{
    ClusterId, DirectoryId, Epoch, GroupId, Op, ProducerId, ReplicaIndex, RequestNumber, Timestamp, View,
};
use varve_protocol::message::{Message, SuffixSlot};
use varve_protocol::prepare::{Prepare, PrepareHeader, PrepareId, PrepareKind};
use varve_protocol::replacement::Generations;
use varve_protocol::superblock::Superblock;
use varve_protocol::time::Moment;
use varve_protocol::version::Version;

use super::disk::{Disk, Job, place};
use super::plan::Plan;
use super::plant::Plant;

pub(super) const GROUP: GroupId = GroupId::new(1);
const PRODUCER: ProducerId = ProducerId::new(1);
/// All timers but those that give a view up are due after the short wait, that one only after the long wait.
const SHORT_WAIT: Duration = Duration::from_millis(10);
const LONG_WAIT: Duration = Duration::from_secs(100_000);
const TIMEOUTS: Timeouts = Timeouts {
    start_view_change_resend: Duration::from_millis(1),
    view_change_resend: Duration::from_millis(1),
    view_change: Duration::from_secs(50_000),
    view_change_max: Duration::from_secs(50_000),
    repair: Duration::from_millis(1),
    repair_max: Duration::from_millis(1),
    follow: Duration::from_millis(1),
    prepare_resend: Duration::from_millis(1),
    prepare_resend_max: Duration::from_millis(1),
    stall: Duration::from_secs(50_000),
    confirm_view: Duration::from_millis(1),
    handover: Duration::from_secs(50_000),
    memory_sync: Duration::from_millis(1),
    memory_rest: Duration::from_millis(1),
};

/// Something that happens to one replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stimulus<'a> {
    /// A message arrives.
    Message { from: u8, message: &'a Message },
    /// The producer asks for its request of this number.
    Request(u8),
    /// Somebody asks where the log ends now, when this many ops are committed somewhere.
    Read { floor: u8 },
    /// The disk does its oldest job.
    Disk,
    /// The primary is missed.
    Suspect,
    /// Whatever the others propose, this replica hears enough of it to enter this view.
    Enter(u8),
    /// Somebody asks for the view's log, as somebody always may.
    Ask { from: u8 },
    /// Everything is due but giving up the view.
    Tick,
    /// Everything is due.
    LongTick,
    /// A crash before which so many of the jobs under way reached the disk, and a restart.
    Crash { performed: u8 },
}

/// A message on its way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Envelope {
    pub(super) from: u8,
    pub(super) to: u8,
    pub(super) message: Message,
}

/// What came of a stimulus, in order.
#[derive(Clone, Debug)]
pub(super) enum Effect {
    Send(Envelope),
    /// A prepare is written; `is_sealed` where it was made.
    Append {
        prepare: Prepare,
        is_sealed: bool,
    },
    Cut(Op),
    Durable(PrepareId),
    Saved(Superblock),
    Apply(PrepareHeader),
    Reply {
        request: u8,
        outcome: Outcome,
    },
    ReplyToRead {
        outcome: ReadOutcome,
        commit: Op,
    },
}

/// One replica: its core and its disk.
#[derive(Clone, Debug)]
pub(super) struct Local {
    pub(super) core: Replica,
    pub(super) disk: Disk,
    clock: Moment,
    /// Requests that wait for an answer, a bit each; known to the core's fingerprint, too.
    pub(super) waiting: u8,
}

impl Local {
    /// A replica of a new group.
    pub(super) fn new(replica: u8, plan: &Plan) -> Self {
        let core = Replica::new(config(replica, plan.replicas), rng(plan));
        Self { core, disk: Disk::new(GROUP), clock: Moment::ZERO, waiting: 0 }
    }

    /// A replica that finds this on its disk when it starts, and the first that it has to say.
    pub(super) fn restart(replica: u8, disk: Disk, plan: &Plan) -> (Self, Vec<Effect>) {
        let mut log = RecoveredLog::new();
        let mut effects = Vec::new();
        for prepare in &disk.log {
            effects.extend(log.push(prepare).map(Effect::Apply));
        }
        let core = Replica::recover(config(replica, plan.replicas), rng(plan), disk.superblock, log);
        let mut local = Self { core, disk, clock: Moment::ZERO, waiting: 0 };
        local.drain(plan, &mut effects);
        local.step(Input::Tick, plan, &mut effects);
        (local, effects)
    }

    fn index(&self) -> u8 {
        self.core.config().replica.as_raw()
    }

    /// Hashes everything that the behaviour of this replica depends on.
    pub(super) fn fingerprint<H: Hasher>(&self, state: &mut H) {
        let Self { core, disk, clock: _, waiting } = self;
        core.fingerprint(state);
        disk.fingerprint(state);
        waiting.hash(state);
    }

    /// What this replica becomes and does when something happens to it.
    ///
    /// # Panics
    /// When the core does.
    pub(super) fn react(&self, stimulus: Stimulus<'_>, plan: &Plan) -> (Self, Vec<Effect>) {
        if let Stimulus::Crash { performed } = stimulus {
            return Self::restart(self.index(), self.crashed_disk(performed, plan.plant), plan);
        }
        let mut next = self.clone();
        let mut effects = Vec::new();
        match stimulus {
            Stimulus::Message { from, message } => next.receive(from, message, plan, &mut effects),
            Stimulus::Request(number) => {
                next.waiting |= 1 << number;
                next.step(request(number), plan, &mut effects);
            }
            Stimulus::Read { floor } => {
                // The handle says what the answer must contain, so that nobody has to remember it.
                let handle = ReadHandle(u64::from(floor));
                next.step(Input::ConfirmRead { handle }, plan, &mut effects);
            }
            Stimulus::Disk => next.complete_job(plan, &mut effects),
            Stimulus::Suspect => {
                next.step(Input::PrimaryLiveness(Liveness::Suspected), plan, &mut effects);
            }
            Stimulus::Enter(view) => next.enter(View::new(u64::from(view)), plan, &mut effects),
            Stimulus::Ask { from } => {
                let message = Message::GetStartView { view: View::ZERO, nonce: 0 };
                next.receive(from, &message, plan, &mut effects);
            }
            Stimulus::Tick => next.wait(SHORT_WAIT, plan, &mut effects),
            Stimulus::LongTick => next.wait(LONG_WAIT, plan, &mut effects),
            Stimulus::Crash { .. } => unreachable!("a crash was dealt with"),
        }
        if next.core.is_primary() && next.core.commit() != self.core.commit() {
            next.pulse(&mut effects);
        }
        (next, effects)
    }

    fn receive(&mut self, from: u8, message: &Message, plan: &Plan, effects: &mut Vec<Effect>) {
        let input = |from| Input::Message { from: ReplicaIndex::new(from), message: message.clone() };
        let own = self.index();
        self.step(input(from), plan, effects);
        if let (Some(Plant::ViewConfirmedBlindly), Message::ConfirmView { view, round }) =
            (plan.plant, message)
        {
            let message = Message::ViewConfirmed { view: *view, round: *round };
            effects.push(self.send(ReplicaIndex::new(from), message));
        }
        let forges = plan.plant == Some(Plant::VoteForged) && matches!(message, Message::PrepareOk { .. });
        for other in (0..plan.replicas).filter(|other| forges && *other != from && *other != own) {
            self.step(input(other), plan, effects);
        }
    }

    /// Makes the core enter a view by what would make it do so: votes of all others, or the word of one that has entered it.
    fn enter(&mut self, view: View, plan: &Plan, effects: &mut Vec<Effect>) {
        let others =
            (0..plan.replicas).map(ReplicaIndex::new).filter(|other| *other != self.core.config().replica);
        let others: Vec<_> = others.collect();
        if self.core.is_primary() {
            let log_view = View::ZERO;
            let (commit, head, suffix) = (PrepareId::ROOT, Op::ZERO, Vec::new());
            let generations = Generations::default();
            let message = Message::DoViewChange { view, log_view, commit, head, generations, suffix };
            return self.step(Input::Message { from: others[0], message }, plan, effects);
        }
        self.step(Input::PrimaryLiveness(Liveness::Suspected), plan, effects);
        for from in others {
            if self.core.view() < view {
                let message = Message::StartViewChange { view, current: self.core.view() };
                self.step(Input::Message { from, message }, plan, effects);
            }
        }
    }

    fn complete_job(&mut self, plan: &Plan, effects: &mut Vec<Effect>) {
        let Some(done) = self.disk.perform() else { return };
        match &done {
            Input::Durable(id) => effects.push(Effect::Durable(*id)),
            Input::SuperblockDurable(superblock) => effects.push(Effect::Saved(*superblock)),
            Input::Message { .. }
            | Input::Request(_)
            | Input::PrimaryLiveness(_)
            | Input::HandOver { .. }
            | Input::ConfirmRead { .. }
            | Input::SaveCommit
            | Input::Stop
            | Input::ForceRecover
            | Input::Tick => {}
        }
        self.step(done, plan, effects);
    }

    fn wait(&mut self, wait: Duration, plan: &Plan, effects: &mut Vec<Effect>) {
        if self.core.next_timeout().is_some() {
            self.clock = self.clock.plus(wait);
            self.step(Input::Tick, plan, effects);
        }
    }

    /// The primary's node tells its commit; later pulses say the same until it has grown again.
    fn pulse(&self, effects: &mut Vec<Effect>) {
        let message = Message::Commit { view: self.core.view(), commit: self.core.commit() };
        for to in (0..self.core.config().places).filter(|to| *to != self.index()) {
            effects.push(Effect::Send(Envelope { from: self.index(), to, message: message.clone() }));
        }
    }

    fn crashed_disk(&self, performed: u8, plant: Option<Plant>) -> Disk {
        let mut disk = self.disk.clone();
        for _ in 0..performed {
            disk.perform();
        }
        disk.jobs.clear();
        let superblock = &mut disk.superblock;
        match plant {
            Some(Plant::DurableTooEarly) => drop(disk.log.pop()),
            Some(Plant::ViewForgotten) => {
                superblock.view = superblock
                    .log_view
                    .max(disk.log.last().map_or(superblock.log_view, |prepare| prepare.header().view()))
            }
            Some(Plant::LogViewAhead) => superblock.log_view = superblock.view,
            Some(Plant::VoteForged | Plant::LogHidden | Plant::ViewConfirmedBlindly) | None => {}
        }
        disk
    }

    fn step(&mut self, input: Input, plan: &Plan, effects: &mut Vec<Effect>) {
        self.core.step(self.clock, input);
        self.drain(plan, effects);
    }

    fn drain(&mut self, plan: &Plan, effects: &mut Vec<Effect>) {
        while let Some(output) = self.core.poll_output() {
            self.perform(output, plan, effects);
        }
    }

    fn perform(&mut self, output: Output, plan: &Plan, effects: &mut Vec<Effect>) {
        match output {
            Output::Send { to, message } => {
                self.assert_promises(&message);
                if self.is_needed(to, &message, plan) {
                    effects.push(self.send(to, tampered(message, plan.plant)));
                }
            }
            Output::Append(prepare) => {
                let is_sealed = self.core.is_primary() && prepare.header().view() == self.core.view();
                self.disk.jobs.push_back(Job::Append(prepare.clone()));
                effects.push(Effect::Append { prepare, is_sealed });
            }
            Output::Sync => unreachable!("the group acknowledges from its disks"),
            Output::Truncate { keep } => {
                self.disk.jobs.push_back(Job::Truncate(keep));
                effects.push(Effect::Cut(keep));
            }
            Output::SaveSuperblock(superblock) => self.disk.jobs.push_back(Job::Save(superblock)),
            Output::Apply(header) => effects.push(Effect::Apply(header)),
            Output::Reply { handle: RequestHandle(number), outcome } => {
                let request = u8::try_from(number).expect("there are few requests");
                self.waiting &= !(1 << request);
                effects.push(Effect::Reply { request, outcome });
            }
            Output::ReplyToRead { handle: ReadHandle(floor), outcome } => {
                let commit = self.core.commit().op;
                let is_late = outcome == ReadOutcome::Confirmed && commit.as_raw() < floor;
                assert!(!is_late, "a read sees what was committed before it was asked");
                effects.push(Effect::ReplyToRead { outcome, commit });
            }
            Output::TakeSnapshot(_) => panic!("nobody lets go of anything here"),
            Output::ServePrepares { to, view, ids } => {
                let written = self.disk.written();
                for id in ids {
                    let found = written.get(place(id.op)).filter(|prepare| prepare.id() == id);
                    let message = match found.cloned() {
                        Some(prepare) => Message::RepairPrepare { view, prepare },
                        None => Message::RepairMissing { view, id },
                    };
                    effects.push(self.send(to, message));
                }
            }
            Output::ServeHeaders { to, view, first, last } => {
                let written = self.disk.written();
                let headers = written[place(first)..=place(last)].iter().map(|prepare| *prepare.header());
                effects.push(self.send(to, Message::Headers { view, headers: headers.collect() }));
            }
        }
    }

    /// Whether a message can do more than what happens anyway: views are entered, and logs of views asked for, at any time.
    fn is_needed(&self, to: ReplicaIndex, message: &Message, plan: &Plan) -> bool {
        match message {
            Message::StartViewChange { .. } => plan.votes,
            Message::DoViewChange { view, .. } => plan.votes || to == self.core.config().primary(*view),
            Message::GetStartView { .. } => !plan.is_network_loose(),
            Message::Prepare { .. }
            | Message::PrepareOk { .. }
            | Message::Commit { .. }
            | Message::StartView { .. }
            | Message::GetHeaders { .. }
            | Message::Headers { .. }
            | Message::GetPrepares { .. }
            | Message::RepairPrepare { .. }
            | Message::RepairMissing { .. }
            | Message::ConfirmView { .. }
            | Message::ViewConfirmed { .. }
            | Message::Snapshot { .. } => true,
        }
    }

    fn send(&self, to: ReplicaIndex, message: Message) -> Effect {
        Effect::Send(Envelope { from: self.index(), to: to.as_raw(), message })
    }

    /// P1, P2 and N4 as seen from outside: at the moment of sending, the disk holds what the message promises.
    fn assert_promises(&self, message: &Message) {
        let disk = &self.disk;
        match message {
            Message::DoViewChange { view, log_view, suffix, .. } => {
                assert!(disk.superblock.view == *view, "P1: the view is durable before do_view_change");
                assert!(disk.superblock.log_view == *log_view, "do_view_change tells the durable log view");
                let told = suffix.iter().all(|slot| match slot {
                    SuffixSlot::Has(header) => disk.holds(header.id()),
                    SuffixSlot::CannotTell(_) => true,
                });
                assert!(told, "do_view_change tells what is durable");
            }
            Message::StartView { view, .. } | Message::Prepare { view, .. } => {
                assert!(disk.superblock.log_view == *view, "P2: the log view is durable before leading");
            }
            Message::PrepareOk { view, id } => {
                assert!(disk.superblock.log_view == *view, "P2: the log view is durable before prepare_ok");
                assert!(disk.holds(*id), "prepare_ok comes after the sync");
            }
            Message::Commit { .. }
            | Message::StartViewChange { .. }
            | Message::GetStartView { .. }
            | Message::GetHeaders { .. }
            | Message::Headers { .. }
            | Message::GetPrepares { .. }
            | Message::RepairPrepare { .. }
            | Message::RepairMissing { .. }
            | Message::ConfirmView { .. }
            | Message::ViewConfirmed { .. }
            | Message::Snapshot { .. } => {}
        }
    }
}

fn tampered(mut message: Message, plant: Option<Plant>) -> Message {
    if let Message::DoViewChange { commit, head, suffix, .. } = &mut message
        && plant == Some(Plant::LogHidden)
    {
        suffix.retain(|slot| slot.op() <= commit.op);
        *head = commit.op;
    }
    message
}

/// A request with a body of one byte.
fn request(number: u8) -> Input {
    Input::Request(Request {
        version: Version::FIRST,
        handle: RequestHandle(u64::from(number)),
        producer: PRODUCER,
        request: RequestNumber::new(u64::from(number)),
        kind: PrepareKind::Records,
        record_count: 1,
        now: Timestamp::ZERO,
        body: Bytes::from_static(b"x"),
    })
}

fn config(replica: u8, replicas: u8) -> Config {
    Config {
        cluster: ClusterId::new(7),
        group: GROUP,
        epoch: Epoch::ZERO,
        replica: ReplicaIndex::new(replica),
        founders: replicas,
        places: replicas,
        directory: DirectoryId::new(u64::from(replica) + 1),
        arrived: Op::ZERO,
        is_original: true,
        durability: Durability::QuorumDisk,
        timeouts: TIMEOUTS,
    }
}

/// What it gives decides only the jitter of timers, so that all replicas in all lives may share it.
fn rng(plan: &Plan) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(plan.jitter)
}

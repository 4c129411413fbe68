//! A computer of the fast world: clocks, a disk that survives, and the process on it, if there is one.

use std::time::Duration;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use varve_protocol::id::{Incarnation, NodeId, Timestamp};
use varve_protocol::time::Moment;
use varve_protocol::version::Versions;

use super::chronicle::Process;
use super::heap::EventHeap;
use super::machine::{Clocks, Effect, Ending, Input, Machine, Setup, Work};
use super::universe::Event;
use crate::oracle::Violation;
use crate::panics::guard;
use crate::random::{chance, duration_between, long_tail, nanos};
use crate::scenario::{Death, Disk};

/// Microseconds since 1970 when a universe begins.
const EPOCH_US: u64 = 1_800_000_000_000_000;

/// How much slower a disk is while that fault lasts.
const SLOWNESS: u32 = 50;

/// A death that waits for a round of writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Doom {
    /// Rounds that are still let pass.
    pub(crate) rounds: u32,
    /// Who dies.
    pub(crate) death: Death,
    /// For how long.
    pub(crate) lasts: Duration,
}

/// A computer.
#[derive(Debug)]
pub(crate) struct Host<M: Machine> {
    setup: Setup,
    rng: ChaCha8Rng,
    disk: Disk,
    machine: Option<M>,
    platter: Option<M::Disk>,
    /// Disks that were lost.
    disks: u64,
    /// Counts the processes that have run here.
    pub(crate) life: u64,
    started: Duration,
    drift_ppm: i64,
    wall_offset_us: i64,
    /// When the next tick is due.
    armed: Option<Duration>,
    is_in_round: bool,
    /// Faults that keep the process from running.
    pub(crate) down: u32,
    /// Faults that freeze it.
    pub(crate) frozen: u32,
    /// Faults that slow its disk.
    pub(crate) slow: u32,
    /// Faults that let it hang.
    pub(crate) hung: u32,
    /// Faults that let it be full.
    full: u32,
    /// It dies in one of its next rounds of writes.
    pub(crate) doom: Option<Doom>,
    /// What happened while it was frozen.
    pub(crate) stash: Vec<Event>,
    past_work: Work,
}

impl<M: Machine> Host<M> {
    /// A computer that has never run.
    pub(crate) fn new(setup: Setup, disk: Disk, drift_ppm_max: u32, mut rng: ChaCha8Rng) -> Self {
        let platter = M::format(&setup, 0);
        let drift = i64::from(drift_ppm_max);
        Self {
            setup,
            disk,
            machine: None,
            platter: Some(platter),
            disks: 0,
            life: 0,
            started: Duration::ZERO,
            drift_ppm: rng.random_range(-drift..=drift),
            wall_offset_us: rng.random_range(-5_000..=5_000),
            armed: None,
            is_in_round: false,
            down: 0,
            frozen: 0,
            slow: 0,
            hung: 0,
            full: 0,
            doom: None,
            stash: Vec::new(),
            past_work: Work::default(),
            rng,
        }
    }

    fn node(&self) -> NodeId {
        self.setup.node
    }

    /// Whether there is a process, frozen or not.
    pub(crate) fn is_up(&self) -> bool {
        self.machine.is_some()
    }

    /// What it does.
    pub(crate) fn process(&self) -> Process {
        match (self.is_up(), self.frozen) {
            (false, _) => Process::Down,
            (true, 0) => Process::Running,
            (true, _) => Process::Frozen,
        }
    }

    /// Whether there is a process with a round of writes under way.
    pub(crate) fn is_in_round(&self) -> bool {
        self.is_in_round
    }

    /// The incarnation of the present process, as it tells it to others.
    pub(crate) fn incarnation(&self) -> Incarnation {
        Incarnation::new(u64::from(self.node().as_raw()) << 32 | self.life)
    }

    /// Starts a process of a release that knows these versions.
    pub(crate) fn start(
        &mut self,
        versions: Versions,
        heap: &mut EventHeap<Event>,
    ) -> Result<Vec<Effect>, Violation> {
        self.setup.versions = versions;
        let node = self.node();
        self.life += 1;
        self.started = heap.now();
        self.is_in_round = false;
        self.armed = None;
        let incarnation = self.incarnation();
        let platter = self.platter.take().expect("a host without a process has its disk");
        let started = guard(node, || M::start(&self.setup, incarnation, platter))?;
        match started {
            Ok(machine) => self.machine = Some(machine),
            Err(why) => return Err(Violation::new("a node does not start", format!("{node}: {why}"))),
        }
        self.settle(heap)
    }

    /// Ends the process at once; `Some(true)` if that broke off a round of writes.
    pub(crate) fn crash(&mut self, ending: Ending) -> Option<bool> {
        let machine = self.machine.take()?;
        let work = machine.work();
        self.past_work.truncations += work.truncations;
        self.past_work.let_go += work.let_go;
        self.past_work.snapshots += work.snapshots;
        self.past_work.repairs += work.repairs;
        self.platter = Some(machine.crash(ending, &mut self.rng));
        self.stash.clear();
        self.armed = None;
        Some(std::mem::take(&mut self.is_in_round))
    }

    /// Replaces the disk of a computer without a process by an empty one.
    pub(crate) fn lose_disk(&mut self) {
        assert!(self.machine.is_none(), "a disk is lost while no process uses it");
        self.disks += 1;
        self.platter = Some(M::format(&self.setup, self.disks));
    }

    /// Hands an input to the process, and gives what it wants done.
    pub(crate) fn step(
        &mut self,
        input: Input,
        heap: &mut EventHeap<Event>,
    ) -> Result<Vec<Effect>, Violation> {
        let clocks = self.clocks(heap.now());
        let node = self.node();
        let Some(machine) = &mut self.machine else { return Ok(Vec::new()) };
        guard(node, || machine.step(clocks, input))?;
        self.settle(heap)
    }

    /// The timer fired.
    pub(crate) fn tick(&mut self, heap: &mut EventHeap<Event>) -> Result<Option<Vec<Effect>>, Violation> {
        self.armed = None;
        let now = self.clocks(heap.now()).now;
        let next = self.machine.as_ref().and_then(Machine::next_timeout);
        if next.is_some_and(|next| next <= now) {
            return self.step(Input::Tick, heap).map(Some);
        }
        self.arm(heap);
        Ok(None)
    }

    /// The round of writes is done.
    pub(crate) fn finish_round(&mut self, heap: &mut EventHeap<Event>) -> Result<Vec<Effect>, Violation> {
        self.is_in_round = false;
        let clocks = self.clocks(heap.now());
        let node = self.node();
        let Some(machine) = &mut self.machine else { return Ok(Vec::new()) };
        guard(node, || machine.finish_round(clocks))?;
        self.settle(heap)
    }

    /// The disk is well from now on.
    pub(crate) fn calm(&mut self) {
        self.disk.spike_permille = 0;
        self.disk.latency = self.disk.latency.min(Duration::from_millis(1));
        self.slow = 0;
        self.doom = None;
    }

    /// Leaves only so much room on the disk.
    pub(crate) fn fill(&mut self, room: u64) {
        self.full += 1;
        self.set_room(Some(room));
    }

    /// One of the faults that filled the disk is over.
    pub(crate) fn make_room(&mut self) {
        self.full -= 1;
        if self.full == 0 {
            self.set_room(None);
        }
    }

    fn set_room(&self, room: Option<u64>) {
        let disk = self.platter.as_ref().or_else(|| self.machine.as_ref().and_then(Machine::disk));
        if let Some(disk) = disk {
            M::fill(disk, room);
        }
    }

    /// Moves the wall clock.
    pub(crate) fn jump_clock(&mut self, by_ms: i64) {
        self.wall_offset_us += by_ms * 1000;
    }

    /// The process, to be looked at.
    pub(crate) fn machine(&self) -> Option<&M> {
        self.machine.as_ref()
    }

    /// The disk, while no process uses it.
    pub(crate) fn platter(&self) -> Option<&M::Disk> {
        self.platter.as_ref()
    }

    /// What all processes here have done.
    pub(crate) fn work(&self) -> Work {
        let present = self.machine.as_ref().map(Machine::work).unwrap_or_default();
        Work {
            truncations: self.past_work.truncations + present.truncations,
            let_go: self.past_work.let_go + present.let_go,
            snapshots: self.past_work.snapshots + present.snapshots,
            repairs: self.past_work.repairs + present.repairs,
        }
    }

    /// Takes the effects out, starts a round of writes if one is wanted, and sets the timer.
    fn settle(&mut self, heap: &mut EventHeap<Event>) -> Result<Vec<Effect>, Violation> {
        let node = self.node();
        let Some(machine) = &mut self.machine else { return Ok(Vec::new()) };
        let effects = guard(node, || std::iter::from_fn(|| machine.poll_effect()).collect())?;
        if let Some(reason) = machine.halted() {
            return Err(Violation::new("a node stopped", format!("{node}: {reason}")));
        }
        if !self.is_in_round
            && let Some(jobs) = guard(node, || machine.begin_round())?
        {
            self.is_in_round = true;
            let wait = self.round_latency();
            heap.push_after(wait, Event::DiskRound(node, self.life, jobs));
            match &mut self.doom {
                Some(Doom { rounds: rounds @ 1.., .. }) => *rounds -= 1,
                Some(doom) => {
                    let doom = *doom;
                    self.doom = None;
                    let wait = duration_between(&mut self.rng, Duration::ZERO, wait);
                    heap.push_after(wait, Event::Doom(node, self.life, doom));
                }
                None => {}
            }
        }
        self.arm(heap);
        Ok(effects)
    }

    fn round_latency(&mut self) -> Duration {
        let latency = self.disk.latency;
        let usual = latency / 2 + long_tail(&mut self.rng, latency / 2);
        let spike = if chance(&mut self.rng, self.disk.spike_permille) {
            duration_between(&mut self.rng, latency, self.disk.spike_max)
        } else {
            Duration::ZERO
        };
        let slowed = if self.slow > 0 { usual * SLOWNESS } else { usual };
        slowed + spike
    }

    fn arm(&mut self, heap: &mut EventHeap<Event>) {
        let Some(next) = self.machine.as_ref().and_then(Machine::next_timeout) else { return };
        let at = self.when(next).max(heap.now());
        if self.armed.is_none_or(|armed| at < armed) {
            self.armed = Some(at);
            heap.push(at, Event::Tick(self.node(), self.life, at));
        }
    }

    /// Whether the tick for `at` is still the one that is waited for.
    pub(crate) fn is_armed_for(&self, at: Duration) -> bool {
        self.armed == Some(at)
    }

    fn clocks(&self, now: Duration) -> Clocks {
        let elapsed = self.local(now.saturating_sub(self.started));
        let wall = i128::from(EPOCH_US) + i128::from(nanos(now) / 1000) + i128::from(self.wall_offset_us);
        Clocks {
            now: Moment::from_nanos(elapsed),
            wall: Timestamp::new(u64::try_from(wall).unwrap_or_default()),
        }
    }

    /// What this host's clock counts while `elapsed` passes.
    fn local(&self, elapsed: Duration) -> u64 {
        let elapsed = i128::from(nanos(elapsed));
        let local = elapsed + elapsed * i128::from(self.drift_ppm) / 1_000_000;
        u64::try_from(local).unwrap_or_default()
    }

    /// When this host's clock shows `moment`, or shortly after.
    fn when(&self, moment: Moment) -> Duration {
        let target = moment.as_nanos();
        let rate = i128::from(1_000_000 + self.drift_ppm);
        let guess = i128::from(target) * 1_000_000 / rate;
        let mut elapsed = Duration::from_nanos(u64::try_from(guess).unwrap_or(u64::MAX));
        while self.local(elapsed) < target && elapsed < Duration::MAX / 2 {
            elapsed += Duration::from_nanos(1);
        }
        self.started.saturating_add(elapsed)
    }
}

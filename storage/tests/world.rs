//! A store on a simulated disk and what its user was told: after every crash the two are compared.
//!
//! What must hold after a crash, for each group: it is there if its superblock was acknowledged and no deletion was
//! tried; its superblock is the acknowledged one or a newer one that was tried; its log has no problem, holds all that was
//! acknowledged and not asked to be cut, and nothing but prefixes of what it went through in the round of the crash.

use std::collections::{BTreeMap, BTreeSet};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use varve_protocol::id::{GroupId, Op, View};
use varve_protocol::prepare::{Prepare, PrepareId};
use varve_protocol::resume_point::ResumePoint;
use varve_protocol::snapshot::Snapshot;
use varve_protocol::superblock::Superblock;
use varve_storage::{Completion, Job, MemoryDisk, Options, Piece, RecoveredGroup, Store};

use crate::support::{
    self, Branch, DIRECTORY, IDENTITY, SMALL_SEGMENTS, append, resume_point_of, snapshot_of, summarize,
    superblock,
};

/// One job; groups are picked among those there are.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Create,
    Append {
        pick: usize,
        sizes: Vec<usize>,
    },
    /// As an append, and not synced.
    Write {
        pick: usize,
        sizes: Vec<usize>,
    },
    Sync {
        pick: usize,
    },
    Truncate {
        pick: usize,
        back: usize,
    },
    Save {
        pick: usize,
    },
    /// Let go of all but the last `kept` of what is acknowledged.
    LetGo {
        pick: usize,
        kept: usize,
    },
    /// Take a snapshot that is so far ahead.
    Take {
        pick: usize,
        ahead: usize,
    },
    /// Keep a resume point behind all but the last `back` of what is acknowledged.
    Mark {
        pick: usize,
        back: usize,
    },
    Delete {
        pick: usize,
    },
    /// The disk has so much room from now on.
    Fill {
        room: u64,
    },
    /// There is room for everything, and what waits is to go on.
    Free,
}

#[derive(Clone, Default, Debug)]
struct Expected {
    /// What was acknowledged.
    log: Vec<Prepare>,
    superblock: Option<Superblock>,
    /// What was asked for since, and not answered well.
    tried_logs: Vec<Vec<Prepare>>,
    tried_superblocks: Vec<Superblock>,
    tried_deletion: bool,
    /// Prepares that may be in a snapshot.
    floor: usize,
    /// Prepares that a resume point speaks of: they are never cut.
    marked: usize,
    /// Views of new branches: never one of an older branch.
    view: u64,
}

impl Expected {
    fn newest_log(&self) -> &Vec<Prepare> {
        self.tried_logs.last().unwrap_or(&self.log)
    }

    /// Takes word that a log with this head is durable: the newest one, or the oldest if later ones are not told of yet. A log that waits
    /// for room is told to be durable up to where it was, which a log that is cut behind it may be as well: that counts as no news.
    fn note_durable(&mut self, head: PrepareId, is_newest: bool) {
        let ends_there = |log: &Vec<Prepare>| log.last().map_or(PrepareId::ROOT, Prepare::id) == head;
        assert!(!is_newest || ends_there(self.newest_log()), "the last word is of the newest log");
        let place = if is_newest {
            self.tried_logs.len().checked_sub(1)
        } else if ends_there(&self.log) {
            None
        } else {
            self.tried_logs.iter().position(ends_there)
        };
        if let Some(log) = place.and_then(|place| self.tried_logs.drain(..=place).next_back()) {
            self.log = log;
        }
    }

    /// Compares with what is found on the disk; returns the whole log, together with what is in the snapshot, or before the resume
    /// point.
    fn check(&self, found: &RecoveredGroup, shown: &Shown) -> Vec<Prepare> {
        assert_eq!((&found.problem, found.hole), (&None, None), "a crash alone damages nothing");
        let base = found.snapshot.as_ref().map_or(PrepareId::ROOT, Snapshot::id);
        let gone = usize::try_from(base.op.as_raw()).unwrap();
        assert!(gone <= self.floor, "nothing is let go that was to be kept");
        let Shown { resume_point, prepares: shown } = shown;
        let before = resume_point.as_ref().map(|point| &point.snapshot).or(found.snapshot.as_ref());
        let passed = before.map_or(PrepareId::ROOT, Snapshot::id);
        assert_eq!(found.head, shown.last().map_or(passed, Prepare::id));
        let gone = usize::try_from(passed.op.as_raw()).unwrap();
        let saved =
            self.superblock.iter().chain(&self.tried_superblocks).any(|save| *save == found.superblock);
        assert!(saved, "a superblock never goes back: {:?} after {:?}", found.superblock, self.superblock);
        let kept = self.tried_logs.iter().map(Vec::len).min().unwrap_or(usize::MAX).min(self.log.len());
        assert!(gone + shown.len() >= kept, "{kept} durable prepares; {gone} and {} found", shown.len());
        let mut logs = std::iter::once(&self.log).chain(&self.tried_logs);
        let whole = logs.find(|log| {
            let is_base = gone == 0 || (gone <= log.len() && before == Some(&snapshot_of(&log[..gone])));
            is_base && log[gone..].starts_with(shown)
        });
        whole.expect("the log is one that was written")[..gone + shown.len()].to_vec()
    }
}

/// What a store has shown of a log.
#[derive(Default)]
struct Shown {
    resume_point: Option<ResumePoint>,
    prepares: Vec<Prepare>,
}

impl Shown {
    fn take(&mut self, piece: Piece<'_>) {
        match piece {
            Piece::Root | Piece::Snapshot(_) => *self = Self::default(),
            Piece::ResumePoint(point) => {
                *self = Self { resume_point: Some(point.clone()), ..Self::default() };
            }
            Piece::Prepare(prepare) => self.prepares.push(prepare.clone()),
        }
    }
}

/// Whether it tells what came of writes to this group's log.
fn is_of_log(completion: &Completion, of: GroupId) -> bool {
    match completion {
        Completion::Durable { group, .. }
        | Completion::Failed { group, .. }
        | Completion::Deleted { group } => *group == of,
        Completion::DiskFull { .. }
        | Completion::DiskHasRoom { .. }
        | Completion::SuperblockDurable(_)
        | Completion::FoundersDurable
        | Completion::Read { .. }
        | Completion::LetGo { .. }
        | Completion::Sealed { .. }
        | Completion::Snapshot { .. }
        | Completion::Surveyed { .. }
        | Completion::Scrubbed { .. }
        | Completion::SharedScrubbed { .. }
        | Completion::Patched { .. }
        | Completion::CannotLetGo { .. }
        | Completion::NoneFits { .. }
        | Completion::SnapshotRestored { .. }
        | Completion::Mended { .. } => false,
    }
}

pub(crate) struct World {
    pub(crate) disk: MemoryDisk,
    pub(crate) options: Options,
    keys: u8,
    store: Option<Store<MemoryDisk>>,
    groups: BTreeMap<GroupId, Expected>,
    /// Those that wait because the disk is full.
    waiting: BTreeSet<GroupId>,
    next_group: u64,
}

impl World {
    /// A world whose store has a key file of so many keys.
    pub(crate) fn new(keys: u8) -> Self {
        let disk = MemoryDisk::new();
        Store::format(&disk, IDENTITY, DIRECTORY).unwrap();
        let (groups, waiting) = Default::default();
        let options = Options { keys: support::keys(keys), ..SMALL_SEGMENTS };
        let mut world = Self { disk, options, keys, store: None, groups, waiting, next_group: 0 };
        world.open();
        world
    }

    /// A world in the same state on a copy of the disk; its store has to be opened.
    pub(crate) fn fork(&self) -> Self {
        let (groups, waiting) = (self.groups.clone(), self.waiting.clone());
        let (disk, options, keys) = (self.disk.fork(), self.options.clone(), self.keys);
        Self { disk, options, keys, store: None, groups, waiting, next_group: self.next_group }
    }

    /// Gives the store one more key, when it is opened again.
    pub(crate) fn add_key(&mut self) {
        self.keys += 1;
        self.options.keys = support::keys(self.keys);
    }

    /// Runs one round; false if something of it failed: then the store has to be opened again.
    pub(crate) fn run(&mut self, steps: &[Step]) -> bool {
        let jobs: Vec<Job> = steps.iter().filter_map(|step| self.job(step)).collect();
        let completions = self.store.as_mut().expect("the store is open").execute(jobs);
        let mut is_good = true;
        self.note_who_waits(&completions);
        for (place, completion) in completions.iter().cloned().enumerate() {
            match completion {
                Completion::DiskFull { .. } | Completion::DiskHasRoom { .. } | Completion::Sealed { .. } => {}
                Completion::Durable { group, id } => {
                    let is_last = !completions[place + 1..].iter().any(|later| is_of_log(later, group))
                        && !self.waiting.contains(&group);
                    self.groups.get_mut(&group).unwrap().note_durable(id, is_last);
                }
                Completion::SuperblockDurable(superblock) => {
                    let expected = self.groups.get_mut(&superblock.group).unwrap();
                    expected.superblock = Some(superblock);
                    expected.tried_superblocks.retain(|tried| tried.view > superblock.view);
                }
                Completion::Deleted { group } => {
                    self.groups.remove(&group);
                }
                Completion::Failed { .. } => is_good = false,
                Completion::LetGo { group, start } => {
                    let floor = self.groups[&group].floor as u64;
                    assert!(start.op <= Op::new(floor).next(), "nothing is let go that was to be kept");
                }
                Completion::FoundersDurable
                | Completion::Read { .. }
                | Completion::Snapshot { .. }
                | Completion::Surveyed { .. }
                | Completion::Scrubbed { .. }
                | Completion::SharedScrubbed { .. }
                | Completion::Patched { .. }
                | Completion::CannotLetGo { .. }
                | Completion::NoneFits { .. }
                | Completion::SnapshotRestored { .. }
                | Completion::Mended { .. } => panic!("nobody asked for that"),
            }
        }
        if !is_good {
            self.store = None;
        }
        let is_free = steps.iter().any(|step| matches!(step, Step::Free));
        if is_good && is_free && !steps.iter().any(|step| matches!(step, Step::Fill { .. })) {
            assert_eq!(self.waiting, BTreeSet::new(), "nothing waits when there is room");
        }
        is_good
    }

    fn note_who_waits(&mut self, completions: &[Completion]) {
        for completion in completions {
            if let Completion::DiskFull { group } = completion {
                assert!(self.waiting.insert(*group), "{group} begins to wait once");
            } else if let Completion::DiskHasRoom { group } = completion {
                assert!(self.waiting.remove(group), "only who waits stops waiting");
            }
        }
    }

    fn job(&mut self, step: &Step) -> Option<Job> {
        match step {
            Step::Create => {
                let group = GroupId::new(self.next_group);
                self.next_group += 1;
                let expected = self.groups.entry(group).or_default();
                expected.tried_superblocks.push(superblock(group, 0));
                Some(Job::SaveSuperblock(superblock(group, 0)))
            }
            Step::Append { pick, sizes } => {
                let (group, prepares) = self.seal(*pick, sizes)?;
                Some(append(group, &prepares))
            }
            Step::Write { pick, sizes } => {
                let (group, prepares) = self.seal(*pick, sizes)?;
                Some(Job::Write { group, prepares })
            }
            Step::Sync { pick } => Some(Job::Sync { group: self.pick(*pick)?.0 }),
            Step::Truncate { pick, back } => {
                let (group, expected) = self.pick(*pick)?;
                let mut log = expected.newest_log().clone();
                log.truncate(log.len().saturating_sub(*back).max(expected.floor).max(expected.marked));
                let keep = Op::new(log.len() as u64);
                expected.tried_logs.push(log);
                expected.view += 1;
                Some(Job::Truncate { group, keep })
            }
            Step::Save { pick } => {
                let (group, expected) = self.pick(*pick)?;
                expected.view += 1;
                expected.tried_superblocks.push(superblock(group, expected.view));
                Some(Job::SaveSuperblock(superblock(group, expected.view)))
            }
            Step::LetGo { pick, kept } => {
                let (group, expected) = self.pick(*pick)?;
                let tried = expected.tried_logs.iter().map(Vec::len).min().unwrap_or(usize::MAX);
                let gone = expected.log.len().min(tried).saturating_sub(*kept);
                expected.floor = expected.floor.max(gone);
                Some(Job::LetGo { group, first: Op::new(gone as u64 + 1), summarize })
            }
            Step::Take { pick, ahead } => self.take(*pick, *ahead),
            Step::Mark { pick, back } => self.mark(*pick, *back),
            Step::Delete { pick } => {
                let (group, expected) = self.pick(*pick)?;
                expected.tried_deletion = true;
                Some(Job::DeleteGroup { group })
            }
            Step::Fill { room } => {
                self.disk.set_capacity(Some(self.disk.used() + room));
                None
            }
            Step::Free => {
                self.disk.set_capacity(None);
                Some(Job::Resume)
            }
        }
    }

    fn take(&mut self, pick: usize, ahead: usize) -> Option<Job> {
        let (group, expected) = self.pick(pick)?;
        let mut log = expected.newest_log().clone();
        // What is there may be of another branch from anywhere above what was let go.
        log.truncate(expected.floor.max(expected.marked).max(log.len() / 2));
        let mut branch = log.last().map_or(Branch::new(group), Branch::behind);
        expected.view += 1;
        branch.view = View::new(expected.view);
        log.extend(branch.seal_many(&vec![10; ahead + 1]));
        expected.floor = log.len();
        let snapshot = snapshot_of(&log);
        expected.tried_logs.push(log);
        Some(Job::TakeSnapshot { group, snapshot })
    }

    fn mark(&mut self, pick: usize, back: usize) -> Option<Job> {
        let (group, expected) = self.pick(pick)?;
        let tried = expected.tried_logs.iter().map(Vec::len).min().unwrap_or(usize::MAX);
        let passed = expected.log.len().min(tried).saturating_sub(back);
        if passed == 0 {
            return None;
        }
        expected.marked = expected.marked.max(passed);
        let point = Box::new(resume_point_of(&expected.log[..passed]));
        Some(Job::SaveResumePoint { group, point })
    }

    /// Seals what continues the newest log of a group, in its newest view.
    fn seal(&mut self, pick: usize, sizes: &[usize]) -> Option<(GroupId, Vec<Prepare>)> {
        let (group, expected) = self.pick(pick)?;
        let mut branch = expected.newest_log().last().map_or(Branch::new(group), Branch::behind);
        branch.view = View::new(expected.view);
        let prepares = branch.seal_many(sizes);
        let mut log = expected.newest_log().clone();
        log.extend_from_slice(&prepares);
        expected.tried_logs.push(log);
        Some((group, prepares))
    }

    fn pick(&mut self, pick: usize) -> Option<(GroupId, &mut Expected)> {
        let mut there: Vec<_> = self.groups.iter_mut().filter(|(_, group)| !group.tried_deletion).collect();
        let at = pick.checked_rem(there.len())?;
        let (group, expected) = there.swap_remove(at);
        Some((*group, expected))
    }

    /// Loses the power, and opens the store again.
    pub(crate) fn crash(&mut self, seed: u64) {
        self.lose_power(seed);
        self.open();
    }

    pub(crate) fn lose_power(&mut self, seed: u64) {
        self.store = None;
        self.disk = self.disk.crash(&mut ChaCha8Rng::seed_from_u64(seed));
    }

    /// Kills the process, and opens the store again.
    pub(crate) fn restart(&mut self) {
        self.store = None;
        self.disk = self.disk.restart();
        self.open();
    }

    /// Opens the store, and compares it with what was told; what it shows counts as told from now on.
    pub(crate) fn open(&mut self) {
        if !self.try_open() {
            // It may be full, and the reserve used up.
            self.disk.set_capacity(None);
            assert!(self.try_open(), "a crash alone leaves a directory that can be opened");
        }
    }

    /// As [`Self::open`]; false if the power went off meanwhile.
    pub(crate) fn try_open(&mut self) -> bool {
        let mut shown: BTreeMap<GroupId, Shown> = BTreeMap::new();
        self.waiting.clear();
        let opened = Store::open(self.disk.clone(), IDENTITY, self.options.clone(), &mut |group, piece| {
            shown.entry(group).or_default().take(piece);
        });
        let Ok((store, recovered)) = opened else { return false };
        if recovered
            .iter()
            .any(|found| found.problem.as_ref().is_some_and(|problem| !problem.is_repairable()))
        {
            return false;
        }
        let mut recovered: BTreeMap<_, _> =
            recovered.into_iter().map(|found| (found.superblock.group, found)).collect();
        self.groups.retain(|group, expected| {
            let Some(found) = recovered.remove(group) else {
                let may_be_gone = expected.superblock.is_none() || expected.tried_deletion;
                assert!(may_be_gone, "{group} was acknowledged and is gone");
                return false;
            };
            let log = shown.remove(group).unwrap_or_default();
            let log = expected.check(&found, &log);
            let (view, floor) = (expected.view + 1, expected.floor.min(log.len()));
            let (superblock, marked) = (Some(found.superblock), expected.marked);
            *expected = Expected { log, superblock, view, floor, marked, ..Expected::default() };
            true
        });
        assert!(recovered.is_empty(), "no group is there that nobody made: {recovered:?}");
        self.store = Some(store);
        true
    }
}

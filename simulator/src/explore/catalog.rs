//! Everything that a search has met so far, each thing once and by number: replicas, messages, prepares, disks, reactions.
//!
//! A state of the whole group is then a short row of numbers, and a step of it a look-up: the core is run once for each
//! pair of a replica and a stimulus, however many states contain the two.
//!
//! Replicas and messages are told apart by fingerprints of 128 bits, since comparing them would be slow.

use std::collections::BTreeMap;
#[allow(clippy::disallowed_types, reason = "only looked up, never iterated")]
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use varve_consensus::Status;
use varve_consensus::event::Outcome;
use varve_protocol::frame::Voice;
use varve_protocol::id::{ClusterId, GroupId, Op, View};
use varve_protocol::message::Message;
use varve_protocol::prepare::{Prepare, PrepareId};

use super::disk::Disk;
use super::local::{Effect, Envelope, Local, Stimulus};
use super::plan::Plan;
use crate::oracle::Violation;
use crate::panics;

#[allow(clippy::disallowed_types, reason = "only looked up, never iterated")]
type Table<K> = HashMap<K, u32>;

/// What may happen to a replica, with a message by its number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Happening {
    Deliver(u32),
    Request(u8),
    /// So many ops were committed when it was asked.
    Read {
        floor: u8,
    },
    Disk,
    Suspect,
    Enter(u8),
    Ask {
        from: u8,
    },
    Tick,
    LongTick,
    Crash {
        performed: u8,
    },
}

impl Happening {
    fn code(self) -> u32 {
        const SPECIAL: u32 = 0xffff_0000;
        match self {
            Self::Deliver(envelope) => envelope,
            Self::Request(number) => SPECIAL + u32::from(number),
            Self::Read { floor } => SPECIAL + 0x500 + u32::from(floor),
            Self::Disk => SPECIAL + 0x100,
            Self::Suspect => SPECIAL + 0x101,
            Self::Tick => SPECIAL + 0x102,
            Self::LongTick => SPECIAL + 0x103,
            Self::Ask { from } => SPECIAL + 0x400 + u32::from(from),
            Self::Enter(view) => SPECIAL + 0x300 + u32::from(view),
            Self::Crash { performed } => SPECIAL + 0x200 + u32::from(performed),
        }
    }
}

/// What a search asks about a replica often.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Traits {
    /// Number of what a crash would leave.
    pub(super) image: u32,
    /// Number of the newest prepare of the log as written.
    pub(super) head: u32,
    pub(super) jobs: u8,
    pub(super) waiting: u8,
    pub(super) view: u64,
    pub(super) is_primary: bool,
    pub(super) is_normal: bool,
    pub(super) has_timer: bool,
}

/// What a crash would leave of a replica: its log by the newest prepare, and its superblock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Image {
    pub(super) head: u32,
    pub(super) view: View,
    pub(super) log_view: View,
    pub(super) commit: Op,
}

/// What a reaction does beside changing the replica, by numbers.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub(super) struct Summary {
    /// Envelopes, in order.
    pub(super) sends: Vec<u32>,
    /// Prepares, in order.
    pub(super) applied: Vec<u32>,
    /// Prepares made here.
    pub(super) sealed: Vec<u32>,
    /// Requests that were told to be committed, and where.
    pub(super) answered: Vec<(u8, Op)>,
}

/// What a stimulus makes of a replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Reaction {
    pub(super) next: u32,
    summary: u32,
}

/// A prepare that was sealed somewhere at some time.
#[derive(Debug)]
struct Sealed {
    prepare: Option<Prepare>,
    id: PrepareId,
    parent: u32,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Catalog {
    pub(super) plan: Plan,
    locals: Vec<Local>,
    traits: Vec<Traits>,
    local_numbers: Table<u128>,
    envelopes: Vec<Envelope>,
    envelope_numbers: Table<u128>,
    sealed: Vec<Sealed>,
    sealed_numbers: BTreeMap<PrepareId, u32>,
    images: Vec<Image>,
    image_numbers: BTreeMap<Image, u32>,
    summaries: Vec<Summary>,
    summary_numbers: BTreeMap<Summary, u32>,
    #[allow(clippy::disallowed_types, reason = "only looked up, never iterated")]
    reactions: HashMap<u64, Reaction>,
}

/// The number of the end of the empty log.
pub(super) const ROOT: u32 = 0;

impl Catalog {
    pub(super) fn new(plan: Plan) -> Self {
        let root = Sealed { prepare: None, id: PrepareId::ROOT, parent: ROOT };
        Self {
            plan,
            locals: Vec::new(),
            traits: Vec::new(),
            local_numbers: Table::default(),
            envelopes: Vec::new(),
            envelope_numbers: Table::default(),
            sealed: vec![root],
            sealed_numbers: BTreeMap::from([(PrepareId::ROOT, ROOT)]),
            images: Vec::new(),
            image_numbers: BTreeMap::new(),
            summaries: Vec::new(),
            summary_numbers: BTreeMap::new(),
            reactions: Default::default(),
        }
    }

    pub(super) fn local(&self, number: u32) -> &Local {
        &self.locals[number as usize]
    }

    pub(super) fn traits(&self, number: u32) -> Traits {
        self.traits[number as usize]
    }

    pub(super) fn envelope(&self, number: u32) -> &Envelope {
        &self.envelopes[number as usize]
    }

    /// Whether a message is too old to do anything but to be answered with what whoever asks is told, now and after a crash.
    pub(super) fn is_stale(&self, envelope: u32, receiver: u32) -> bool {
        let message = &self.envelope(envelope).message;
        let durable = self.image(self.traits(receiver).image).view;
        match message {
            Message::Prepare { view, .. }
            | Message::PrepareOk { view, .. }
            | Message::Commit { view, .. }
            | Message::StartViewChange { view, .. }
            | Message::DoViewChange { view, .. }
            | Message::StartView { view, .. }
            | Message::Headers { view, .. } => *view < durable,
            Message::GetStartView { view, .. } => *view <= durable,
            Message::GetHeaders { .. }
            | Message::GetPrepares { .. }
            | Message::RepairPrepare { .. }
            | Message::RepairMissing { .. }
            | Message::ConfirmView { .. }
            | Message::ViewConfirmed { .. }
            | Message::Snapshot { .. } => false,
        }
    }

    pub(super) fn image(&self, number: u32) -> Image {
        self.images[number as usize]
    }

    pub(super) fn summary(&self, reaction: Reaction) -> &Summary {
        &self.summaries[reaction.summary as usize]
    }

    pub(super) fn prepare_id(&self, number: u32) -> PrepareId {
        self.sealed[number as usize].id
    }

    pub(super) fn number_of(&self, id: PrepareId) -> Option<u32> {
        self.sealed_numbers.get(&id).copied()
    }

    pub(super) fn prepare(&self, number: u32) -> Option<&Prepare> {
        self.sealed[number as usize].prepare.as_ref()
    }

    pub(super) fn parent(&self, number: u32) -> u32 {
        self.sealed[number as usize].parent
    }

    /// How much was met: replicas, messages, reactions.
    pub(super) fn sizes(&self) -> [usize; 3] {
        [self.locals.len(), self.envelopes.len(), self.reactions.len()]
    }

    /// The prepare at `op` of the log that ends in `head`; the root if that log is shorter.
    pub(super) fn ancestor(&self, head: u32, op: Op) -> u32 {
        let mut number = head;
        while self.prepare_id(number).op > op {
            number = self.parent(number);
        }
        if self.prepare_id(number).op == op { number } else { ROOT }
    }

    /// Whether the log that ends in `head` contains this prepare.
    pub(super) fn contains(&self, head: u32, prepare: u32) -> bool {
        self.ancestor(head, self.prepare_id(prepare).op) == prepare
    }

    /// The log that ends in `head`.
    pub(super) fn log(&self, head: u32) -> Vec<Prepare> {
        let mut log: Vec<_> = std::iter::successors(Some(head), |number| Some(self.parent(*number)))
            .map_while(|number| self.prepare(number).cloned())
            .collect();
        log.reverse();
        log
    }

    /// What a replica does when something happens, computed now or before.
    pub(super) fn react(&mut self, local: u32, happening: Happening) -> Result<Reaction, Violation> {
        let key = u64::from(local) << 32 | u64::from(happening.code());
        if let Some(known) = self.reactions.get(&key) {
            return Ok(*known);
        }
        let (next, effects) = self.run(local, happening)?;
        let reaction = Reaction { next: self.add_local(next), summary: self.summarise(&effects) };
        self.reactions.insert(key, reaction);
        Ok(reaction)
    }

    /// Runs the core.
    pub(super) fn run(&self, local: u32, happening: Happening) -> Result<(Local, Vec<Effect>), Violation> {
        let local = self.local(local);
        let stimulus = match happening {
            Happening::Deliver(envelope) => {
                let Envelope { from, message, .. } = self.envelope(envelope);
                Stimulus::Message { from: *from, message }
            }
            Happening::Request(number) => Stimulus::Request(number),
            Happening::Read { floor } => Stimulus::Read { floor },
            Happening::Disk => Stimulus::Disk,
            Happening::Suspect => Stimulus::Suspect,
            Happening::Ask { from } => Stimulus::Ask { from },
            Happening::Enter(view) => Stimulus::Enter(view),
            Happening::Tick => Stimulus::Tick,
            Happening::LongTick => Stimulus::LongTick,
            Happening::Crash { performed } => Stimulus::Crash { performed },
        };
        let who = local.core.config().replica;
        let reaction = panics::guard(who, || local.react(stimulus, &self.plan))?;
        if reaction.0.core.commit() < local.core.commit() && !matches!(happening, Happening::Crash { .. }) {
            return Err(Violation::new("a commit went back", format!("at {who}")));
        }
        Ok(reaction)
    }

    pub(super) fn add_local(&mut self, local: Local) -> u32 {
        let key = fingerprint(|state| local.fingerprint(state));
        if let Some(known) = self.local_numbers.get(&key) {
            return *known;
        }
        let number = next_number(self.locals.len());
        let traits = self.traits_of(&local);
        self.traits.push(traits);
        self.locals.push(local);
        self.local_numbers.insert(key, number);
        number
    }

    fn traits_of(&mut self, local: &Local) -> Traits {
        let Local { core, disk, waiting, .. } = local;
        for prepare in disk.written() {
            self.add_prepare(&prepare);
        }
        Traits {
            image: self.add_image(disk),
            head: self.sealed_numbers[&core.head()],
            jobs: u8::try_from(disk.jobs.len()).expect("a disk has few jobs"),
            waiting: *waiting,
            view: core.view().as_raw(),
            is_primary: core.is_primary(),
            is_normal: core.status() == Status::Normal,
            has_timer: core.next_timeout().is_some(),
        }
    }

    fn add_image(&mut self, disk: &Disk) -> u32 {
        let head = self.sealed_numbers[&disk.head()];
        let superblock = disk.superblock;
        let image =
            Image { head, view: superblock.view, log_view: superblock.log_view, commit: superblock.commit };
        let number = next_number(self.images.len());
        let known = *self.image_numbers.entry(image).or_insert(number);
        if known == number {
            self.images.push(image);
        }
        known
    }

    /// Whoever adds a prepare has added its parent before.
    fn add_prepare(&mut self, prepare: &Prepare) -> u32 {
        let id = prepare.id();
        let number = next_number(self.sealed.len());
        let known = *self.sealed_numbers.entry(id).or_insert(number);
        if known == number {
            let parent = self.sealed_numbers[&prepare.header().parent()];
            self.sealed.push(Sealed { prepare: Some(prepare.clone()), id, parent });
        }
        known
    }

    fn add_envelope(&mut self, envelope: &Envelope) -> u32 {
        let frame = envelope.message.to_frame(ClusterId::new(7), GroupId::new(1), Voice::default());
        let bytes = frame.encode();
        let key = fingerprint(|state| {
            (envelope.from, envelope.to).hash(state);
            bytes.hash(state);
        });
        let number = next_number(self.envelopes.len());
        let known = *self.envelope_numbers.entry(key).or_insert(number);
        if known == number {
            self.envelopes.push(envelope.clone());
        }
        known
    }

    fn summarise(&mut self, effects: &[Effect]) -> u32 {
        let mut summary = Summary::default();
        for effect in effects {
            match effect {
                Effect::Send(envelope) => summary.sends.push(self.add_envelope(envelope)),
                Effect::Append { prepare, is_sealed } => {
                    let number = self.add_prepare(prepare);
                    summary.sealed.extend(is_sealed.then_some(number));
                }
                Effect::Apply(header) => summary.applied.push(self.sealed_numbers[&header.id()]),
                Effect::Reply { request, outcome: Outcome::Committed { op, .. } } => {
                    summary.answered.push((*request, *op));
                }
                Effect::Reply { .. }
                | Effect::ReplyToRead { .. }
                | Effect::Cut(_)
                | Effect::Durable(_)
                | Effect::Saved(_) => {}
            }
        }
        let number = next_number(self.summaries.len());
        let known = *self.summary_numbers.entry(summary.clone()).or_insert(number);
        if known == number {
            self.summaries.push(summary);
        }
        known
    }
}

fn next_number(count: usize) -> u32 {
    u32::try_from(count).expect("what a search meets can be numbered")
}

fn fingerprint(hash: impl Fn(&mut DefaultHasher)) -> u128 {
    let half = |salt: u8| {
        let mut state = DefaultHasher::new();
        salt.hash(&mut state);
        hash(&mut state);
        u128::from(state.finish())
    };
    half(0) << 64 | half(1)
}

//! A state of the whole group as a row of numbers, and the steps that lead out of it.
//!
//! ```text
//!   word 0      what was spent: crashes, timeouts, duplicates, drops, a byte each
//!   word 1      the newest prepare that was ever committed by anybody
//!   word 2      requests that were told to be committed, a bit each
//!   word 3      how often somebody asked where the log ends
//!   next n      the replicas
//!   the rest    messages in flight, ascending, each at most once
//! ```
//! The numbers are those of the [`Catalog`]. Equal rows are equal states.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::catalog::{Catalog, Happening, ROOT};
use super::local::Local;
use super::plan::Bound;
use super::visited::Key;

const REPLICAS: usize = 4;

/// A row of numbers, wherever it is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct State<'a> {
    words: &'a [u32],
    replicas: usize,
}

/// What was used up of the plan's bounds.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Spent {
    pub(super) crashes: u8,
    pub(super) timeouts: u8,
    pub(super) duplicates: u8,
    pub(super) drops: u8,
}

/// One step of the group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Step {
    pub(super) replica: u8,
    pub(super) act: Act,
}

/// What is done in a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Act {
    /// Something happens to the replica; a message that is delivered is gone.
    Happens(Happening),
    /// A message to the replica is delivered and stays in flight.
    DeliversCopy(u32),
    /// A message to the replica is lost.
    Loses(u32),
}

impl<'a> State<'a> {
    pub(super) fn new(words: &'a [u32], replicas: u8) -> Self {
        Self { words, replicas: usize::from(replicas) }
    }

    /// The words of the first state: replicas of a new group, nothing in flight.
    pub(super) fn first(catalog: &mut Catalog) -> Vec<u32> {
        let locals: Vec<_> =
            (0..catalog.plan.replicas).map(|replica| Local::new(replica, &catalog.plan)).collect();
        let locals = locals.into_iter().map(|local| catalog.add_local(local));
        [Spent::default().to_word(), ROOT, 0, 0].into_iter().chain(locals).collect()
    }

    pub(super) fn words(&self) -> &'a [u32] {
        self.words
    }

    pub(super) fn spent(&self) -> Spent {
        let [crashes, timeouts, duplicates, drops] = self.words[0].to_le_bytes();
        Spent { crashes, timeouts, duplicates, drops }
    }

    pub(super) fn committed(&self) -> u32 {
        self.words[1]
    }

    pub(super) fn answered(&self) -> u32 {
        self.words[2]
    }

    fn reads(&self) -> u32 {
        self.words[3]
    }

    pub(super) fn locals(&self) -> &'a [u32] {
        &self.words[REPLICAS..REPLICAS + self.replicas]
    }

    pub(super) fn network(&self) -> &'a [u32] {
        &self.words[REPLICAS + self.replicas..]
    }

    /// What tells states apart, up to one chance in 2^64 for any two.
    pub(super) fn key(&self) -> Key<'a> {
        let network = self.network();
        let mut state = DefaultHasher::new();
        self.words[..REPLICAS + self.replicas].hash(&mut state);
        let group = state.finish();
        network.hash(&mut state);
        Key { group, whole: state.finish(), network }
    }

    /// All steps within the plan's bounds; some of them change nothing.
    pub(super) fn steps(&self, catalog: &Catalog, steps: &mut Vec<Step>) {
        steps.clear();
        let plan = &catalog.plan;
        let spent = self.spent();
        for &envelope in self.network() {
            let replica = catalog.envelope(envelope).to;
            let mut add = |act| steps.push(Step { replica, act });
            if plan.duplicates == Bound::Any {
                add(Act::DeliversCopy(envelope));
                continue;
            }
            add(Act::Happens(Happening::Deliver(envelope)));
            if plan.duplicates.allows(spent.duplicates) {
                add(Act::DeliversCopy(envelope));
            }
            if spent.drops < plan.drops {
                add(Act::Loses(envelope));
            }
        }
        for (&local, replica) in self.locals().iter().zip(0..) {
            let traits = catalog.traits(local);
            let mut add = |happening| steps.push(Step { replica, act: Act::Happens(happening) });
            let later_views = traits.view + 1..=u64::from(plan.views);
            let may_propose = plan.votes && !later_views.is_empty();
            if traits.jobs > 0 {
                add(Happening::Disk);
            }
            if traits.is_primary {
                let open = (1..=plan.requests)
                    .filter(|number| (u32::from(traits.waiting) | self.answered()) & (1 << number) == 0);
                open.for_each(|number| add(Happening::Request(number)));
                if self.reads() < u32::from(plan.reads) {
                    let committed = catalog.prepare_id(self.committed()).op.as_raw();
                    let floor = u8::try_from(committed).expect("a search has few ops");
                    add(Happening::Read { floor });
                }
            }
            if traits.is_normal && !traits.is_primary && may_propose {
                add(Happening::Suspect);
            }
            if !plan.votes {
                let views = later_views.map(|view| u8::try_from(view).expect("a bound is a byte"));
                views.for_each(|view| add(Happening::Enter(view)));
            }
            if traits.has_timer && plan.timeouts.allows(spent.timeouts) {
                add(Happening::Tick);
                if may_propose && !traits.is_normal {
                    add(Happening::LongTick);
                }
            }
            if spent.crashes < plan.crashes {
                (0..=traits.jobs).for_each(|performed| add(Happening::Crash { performed }));
            }
        }
    }
}

impl Spent {
    pub(super) fn to_word(self) -> u32 {
        u32::from_le_bytes([self.crashes, self.timeouts, self.duplicates, self.drops])
    }

    /// After one more step.
    pub(super) fn after(mut self, act: Act, catalog: &Catalog) -> Self {
        match act {
            Act::Happens(Happening::Crash { .. }) => self.crashes += 1,
            Act::Happens(Happening::Tick | Happening::LongTick) => {
                self.timeouts = catalog.plan.timeouts.spend(self.timeouts);
            }
            Act::DeliversCopy(_) => self.duplicates = catalog.plan.duplicates.spend(self.duplicates),
            Act::Loses(_) => self.drops += 1,
            Act::Happens(
                Happening::Deliver(_)
                | Happening::Request(_)
                | Happening::Read { .. }
                | Happening::Disk
                | Happening::Suspect
                | Happening::Enter(_)
                | Happening::Ask { .. },
            ) => {}
        }
        self
    }
}

/// Writes the state after a step into `words`. Says whether it is worth a visit: it is not if the replica is what it was
/// and sends nothing new, for what can happen from there can happen from here.
pub(super) fn advance(
    from: State<'_>,
    step: Step,
    reaction: Option<super::catalog::Reaction>,
    catalog: &Catalog,
    words: &mut Vec<u32>,
) -> bool {
    words.clear();
    words.extend_from_slice(from.words());
    let place = REPLICAS + usize::from(step.replica);
    let network = REPLICAS + from.replicas;
    let mut is_news = reaction.is_none_or(|reaction| reaction.next != from.words[place]);
    words[0] = from.spent().after(step.act, catalog).to_word();
    words[3] += u32::from(matches!(step.act, Act::Happens(Happening::Read { .. })));
    if let Act::Happens(Happening::Deliver(envelope)) | Act::Loses(envelope) = step.act
        && let Ok(found) = words[network..].binary_search(&envelope)
    {
        words.remove(network + found);
    }
    let Some(reaction) = reaction else { return is_news };
    words[place] = reaction.next;
    let summary = catalog.summary(reaction);
    for envelope in &summary.sends {
        if let Err(found) = words[network..].binary_search(envelope) {
            words.insert(network + found, *envelope);
            is_news |= from.network().binary_search(envelope).is_err();
        }
    }
    for prepare in &summary.applied {
        if catalog.prepare_id(*prepare).op > catalog.prepare_id(words[1]).op {
            words[1] = *prepare;
        }
    }
    for (request, _) in &summary.answered {
        words[2] |= 1 << request;
    }
    is_news
}

/// Where messages arrive as often as they like, does what is free: delivers everything that leaves its receiver what it is
/// and only makes it send something. More in flight can do no less. Adds the steps taken to `taken`.
///
/// Only `replica` has changed, and only the messages `sent` are new, since this was done last.
pub(super) fn answer(
    words: &mut Vec<u32>,
    replica: u8,
    sent: &[u32],
    catalog: &mut Catalog,
    mut taken: Option<&mut Vec<Step>>,
) {
    if !catalog.plan.is_network_loose() {
        return;
    }
    let network = REPLICAS + usize::from(catalog.plan.replicas);
    let to_replica = |envelope: &u32| catalog.envelope(*envelope).to == replica;
    let mut open: Vec<Step> = Vec::new();
    let deliver = |envelope: u32, catalog: &Catalog| Step {
        replica: catalog.envelope(envelope).to,
        act: Act::DeliversCopy(envelope),
    };
    open.extend(
        words[network..].iter().copied().filter(to_replica).map(|envelope| deliver(envelope, catalog)),
    );
    open.extend(sent.iter().map(|envelope| deliver(*envelope, catalog)));
    let peers = (0..catalog.plan.replicas).filter(|from| *from != replica);
    open.extend(peers.map(|from| Step { replica, act: Act::Happens(Happening::Ask { from }) }));
    if catalog.plan.timeouts == Bound::Any {
        open.push(Step { replica, act: Act::Happens(Happening::Tick) });
    }
    while let Some(step) = open.pop() {
        let local = words[REPLICAS + usize::from(step.replica)];
        let happening = match step.act {
            Act::Happens(happening) => happening,
            Act::DeliversCopy(envelope) | Act::Loses(envelope) => Happening::Deliver(envelope),
        };
        // A reaction that breaks something is met again as a step of its own.
        let Ok(reaction) = catalog.react(local, happening) else { continue };
        if reaction.next != local {
            continue;
        }
        let mut is_news = false;
        for &envelope in &catalog.summary(reaction).sends {
            if let Err(found) = words[network..].binary_search(&envelope) {
                words.insert(network + found, envelope);
                open.push(deliver(envelope, catalog));
                is_news = true;
            }
        }
        if let Some(taken) = taken.as_mut().filter(|_| is_news) {
            taken.push(step);
        }
    }
    let mut kept = network;
    for place in network..words.len() {
        let envelope = words[place];
        let receiver = words[REPLICAS + usize::from(catalog.envelope(envelope).to)];
        if !catalog.is_stale(envelope, receiver) {
            words[kept] = envelope;
            kept += 1;
        }
    }
    words.truncate(kept);
}

//! If everybody crashed now, and only a quorum came back: with which log would it start its view?
//!
//! The cores themselves are asked. Those of the quorum are restarted on what a crash would leave of their disks and work,
//! with a fair network, until one of them leads; the others are never heard again. That is a course of events like any
//! other, so a log that is too short then is a loss that can happen, not a suspicion.
//!
//! The outcome depends on the disks alone and is remembered for each combination of them.

use std::collections::{BTreeMap, VecDeque};

use varve_protocol::prepare::PrepareId;

use super::catalog::Catalog;
use super::disk::Disk;
use super::local::{Effect, Envelope, Local, Stimulus};
use super::plan::Plan;
use crate::oracle::Violation;
use crate::panics;

/// Rounds of time-outs after which a quorum should have found together.
const ROUNDS_MAX: u32 = 200;

/// The head of the log that a quorum starts with; `None` if it does not start.
type Outcome = Option<PrepareId>;

/// What came of the elections held so far.
#[derive(Debug)]
pub(super) struct Elections {
    /// The search's, but every proposal is followed.
    plan: Plan,
    outcomes: BTreeMap<Vec<(u8, u32)>, Outcome>,
}

impl Elections {
    pub(super) fn new(plan: &Plan) -> Self {
        Self { plan: Plan { votes: true, ..plan.clone() }, outcomes: BTreeMap::new() }
    }

    /// Elections that were held.
    pub(super) fn held(&self) -> usize {
        self.outcomes.len()
    }

    /// Every quorum of these disks would go on with what is committed.
    pub(super) fn judge(
        &mut self,
        images: &[u32],
        committed: u32,
        catalog: &Catalog,
    ) -> Result<(), Violation> {
        let quorum = images.len() / 2 + 1;
        for members in (0_u32..1 << images.len()).filter(|members| members.count_ones() as usize == quorum) {
            let voters: Vec<_> =
                (0..).zip(images.iter().copied()).filter(|(r, _)| members & (1 << r) != 0).collect();
            let outcome = match self.outcomes.get(&voters) {
                Some(known) => *known,
                None => {
                    let outcome =
                        panics::guard("a quorum that restarts", || hold(&voters, &self.plan, catalog))?;
                    self.outcomes.insert(voters.clone(), outcome);
                    outcome
                }
            };
            judge_outcome(outcome, &voters, committed, catalog)?;
        }
        Ok(())
    }
}

fn judge_outcome(
    outcome: Outcome,
    voters: &[(u8, u32)],
    committed: u32,
    catalog: &Catalog,
) -> Result<(), Violation> {
    let names: Vec<_> = voters.iter().map(|(replica, _)| format!("r{replica}")).collect();
    let names = names.join(" and ");
    let Some(head) = outcome else {
        return Err(Violation::new("a quorum does not come back", format!("{names}, after a crash of all")));
    };
    let is_kept = catalog.number_of(head).is_some_and(|head| catalog.contains(head, committed));
    if !is_kept {
        let id = catalog.prepare_id(committed);
        let detail =
            format!("{id}: {names}, after a crash of all, start a view with a log that ends in {head}");
        return Err(Violation::new("a later view forgets what was committed", detail));
    }
    Ok(())
}

/// Restarts these replicas and lets them work until one leads. Returns the head of its log.
fn hold(voters: &[(u8, u32)], plan: &Plan, catalog: &Catalog) -> Outcome {
    let mut network = VecDeque::new();
    let mut locals = BTreeMap::new();
    for &(replica, image) in voters {
        let (local, effects) = Local::restart(replica, disk(image, catalog), plan);
        locals.insert(replica, local);
        send(&effects, &mut network);
    }
    for round in 0..ROUNDS_MAX {
        settle(&mut locals, &mut network, plan);
        if let Some(primary) = locals.values().find(|local| local.core.is_primary()) {
            return Some(primary.core.head());
        }
        let stimulus = if round % 4 == 3 { Stimulus::LongTick } else { Stimulus::Tick };
        // One after the other: time-outs that expire together for ever are prevented by jitter, of which there is none here.
        for replica in locals.keys().copied().collect::<Vec<_>>() {
            happen(replica, stimulus, &mut locals, &mut network, plan);
            settle(&mut locals, &mut network, plan);
        }
    }
    None
}

/// Delivers and syncs until nothing is left to do.
fn settle(locals: &mut BTreeMap<u8, Local>, network: &mut VecDeque<Envelope>, plan: &Plan) {
    loop {
        while let Some(Envelope { from, to, message }) = network.pop_front() {
            let stimulus = Stimulus::Message { from, message: &message };
            happen(to, stimulus, locals, network, plan);
        }
        let busy = locals.iter().find(|(_, local)| !local.disk.jobs.is_empty()).map(|(replica, _)| *replica);
        let Some(replica) = busy else { return };
        happen(replica, Stimulus::Disk, locals, network, plan);
    }
}

fn happen(
    replica: u8,
    stimulus: Stimulus<'_>,
    locals: &mut BTreeMap<u8, Local>,
    network: &mut VecDeque<Envelope>,
    plan: &Plan,
) {
    if let Some(local) = locals.get_mut(&replica) {
        let (next, effects) = local.react(stimulus, plan);
        *local = next;
        send(&effects, network);
    }
}

fn send(effects: &[Effect], network: &mut VecDeque<Envelope>) {
    for effect in effects {
        if let Effect::Send(envelope) = effect {
            network.push_back(envelope.clone());
        }
    }
}

fn disk(image: u32, catalog: &Catalog) -> Disk {
    let image = catalog.image(image);
    let mut disk = Disk::new(super::local::GROUP);
    disk.log = catalog.log(image.head);
    disk.superblock.view = image.view;
    disk.superblock.log_view = image.log_view;
    disk.superblock.commit = image.commit;
    disk
}

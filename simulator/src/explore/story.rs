//! The way to a violation as an ASCII sequence diagram: time runs down, one column per replica, a message drawn where it
//! arrives.

use varve_protocol::id::Op;
use varve_protocol::message::{Message, SuffixSlot};
use varve_protocol::prepare::PrepareHeader;

use super::catalog::{Catalog, Happening};
use super::local::{Effect, Envelope};
use super::state::{Act, State, Step};
use crate::diagram::Diagram;

/// See the module's text.
#[derive(Debug)]
pub struct Story {
    steps: usize,
    diagram: Diagram,
}

impl Story {
    pub(super) fn new(replicas: u8) -> Self {
        let heads = (0..replicas).map(|replica| format!("r{replica}"));
        Self { steps: 0, diagram: Diagram::new(heads.collect()) }
    }

    /// How many steps it has.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Adds a step and what came of it.
    pub(super) fn tell(&mut self, from: State<'_>, step: Step, catalog: &Catalog) {
        self.steps += 1;
        let happening = match step.act {
            Act::Happens(happening) => happening,
            Act::DeliversCopy(envelope) => Happening::Deliver(envelope),
            Act::Loses(envelope) => return self.arrow(catalog.envelope(envelope), false),
        };
        let local = from.locals()[usize::from(step.replica)];
        match happening {
            Happening::Deliver(envelope) => self.arrow(catalog.envelope(envelope), true),
            Happening::Request(number) => self.at(step.replica, format!("request {number}")),
            Happening::Read { floor } => {
                self.at(step.replica, format!("read, when {} was committed", Op::new(u64::from(floor))));
            }
            Happening::Disk => {}
            Happening::Suspect => self.at(step.replica, "suspects its primary".to_owned()),
            Happening::Ask { from } => self.at(step.replica, format!("is asked by r{from}")),
            Happening::Enter(view) => self.at(step.replica, format!("enters v{view}")),
            Happening::Tick => self.at(step.replica, "waits, and repeats itself".to_owned()),
            Happening::LongTick => self.at(step.replica, "waits, and gives the view up".to_owned()),
            Happening::Crash { performed } => {
                let jobs = catalog.traits(local).jobs;
                let what = format!("crash, {performed} of {jobs} writes on disk; restart");
                self.at(step.replica, what);
            }
        }
        match catalog.run(local, happening) {
            Ok((_, effects)) => effects.iter().for_each(|effect| self.effect(step.replica, effect)),
            Err(violation) => self.at(step.replica, format!("stops: {}", violation.property)),
        }
    }

    fn effect(&mut self, replica: u8, effect: &Effect) {
        let what = match effect {
            Effect::Send(_) => return,
            Effect::Append { prepare, .. } => format!("append {}", prepare.id()),
            Effect::Cut(keep) => format!("cut behind {keep}"),
            Effect::Durable(id) => format!("durable {id}"),
            Effect::Saved(saved) => format!("superblock view={} log_view={}", saved.view, saved.log_view),
            Effect::Apply(header) => format!("commit {}", header.id()),
            Effect::Reply { request, outcome } => format!("reply {request} {outcome:?}"),
            Effect::ReplyToRead { outcome, commit } => format!("reply to read {outcome:?} commit={commit}"),
        };
        self.at(replica, what);
    }

    fn at(&mut self, replica: u8, what: String) {
        self.diagram.at(usize::from(replica), what);
    }

    fn arrow(&mut self, envelope: &Envelope, arrives: bool) {
        let Envelope { from, to, message } = envelope;
        let ends = (usize::from(*from), usize::from(*to));
        if arrives {
            self.diagram.arrow(ends, describe(message));
        } else {
            self.diagram.lost(ends, describe(message));
        }
    }

    /// The diagram.
    #[must_use]
    pub fn render(&self) -> String {
        self.diagram.render()
    }
}

/// A message in a few words; the envelope's view first.
fn describe(message: &Message) -> String {
    let view = message.view();
    let names = |headers: &[PrepareHeader]| join(headers.iter().map(PrepareHeader::id));
    match message {
        Message::Prepare { commit, prepare, .. } => {
            format!("{view} prepare {} commit={}", prepare.id(), commit.op)
        }
        Message::PrepareOk { id, .. } => format!("{view} prepare_ok {id}"),
        Message::Commit { commit, .. } => format!("{view} commit {commit}"),
        Message::StartViewChange { .. } => format!("{view} start_view_change"),
        Message::DoViewChange { log_view, commit, suffix, .. } => {
            let slots = suffix.iter().map(|slot| match slot {
                SuffixSlot::Has(header) => header.id().to_string(),
                SuffixSlot::CannotTell(op) => format!("{op}?"),
            });
            format!("{view} do_view_change log_view={log_view} commit={} has=[{}]", commit.op, join(slots))
        }
        Message::StartView { commit, suffix, .. } => {
            format!("{view} start_view commit={} log=[{}]", commit.op, names(suffix))
        }
        Message::GetStartView { .. } => format!("{view} get_start_view"),
        Message::GetHeaders { first, last, .. } => format!("{view} get_headers {first}..={last}"),
        Message::Headers { headers, .. } => format!("{view} headers [{}]", names(headers)),
        Message::GetPrepares { ids, .. } => format!("{view} get_prepares [{}]", join(ids.iter())),
        Message::RepairPrepare { prepare, .. } => format!("{view} repair_prepare {}", prepare.id()),
        Message::RepairMissing { id, .. } => format!("{view} repair_missing {id}"),
        Message::ConfirmView { round, .. } => format!("{view} confirm_view {round}"),
        Message::ViewConfirmed { round, .. } => format!("{view} view_confirmed {round}"),
        Message::Snapshot { snapshot, .. } => format!("{view} snapshot {}", snapshot.id()),
    }
}

fn join(names: impl Iterator<Item = impl ToString>) -> String {
    names.map(|name| name.to_string()).collect::<Vec<_>>().join(" ")
}

//! What must hold in every state, whatever happened on the way to it.
//!
//! | promise                   | looked at                                                                            |
//! |---------------------------|--------------------------------------------------------------------------------------|
//! | agreement                 | all that anybody applies is one chain, from the first op on                          |
//! | exactly once              | no request is in that chain twice                                                    |
//! | answers are true          | a request that is told to be committed is in that chain, at the op that was told      |
//! | (view, op) names one      | no prepare is sealed while another with its view and op is in a log or in flight      |
//! | durability                | the chain is on the disks of a quorum, synced                                        |
//! | no later view forgets     | whatever quorum comes back after a crash of all starts its view with the whole chain |
//! | promises kept, no panic   | when the core is run: see `Local::assert_promises` and [`crate::panics`]             |
//!
//! Logs match by construction of their names: an id contains a checksum over the parent's, so one id is one chain, which
//! the catalog and every disk insist on. That a view has one primary follows from its number; what two primaries of one
//! view could do wrong is to seal two prepares under one name.

use varve_protocol::message::Message;

use super::catalog::{Catalog, Reaction};
use super::election::Elections;
use super::state::State;
use crate::oracle::Violation;

/// Judges a step by the states before and after it.
pub(super) fn judge(
    before: State<'_>,
    after: State<'_>,
    reaction: Reaction,
    catalog: &Catalog,
    elections: &mut Elections,
) -> Result<(), Violation> {
    let summary = catalog.summary(reaction);
    let mut committed = before.committed();
    for &prepare in &summary.applied {
        let id = catalog.prepare_id(prepare);
        if id.op > catalog.prepare_id(committed).op {
            if catalog.parent(prepare) != committed {
                return Err(Violation::new("two logs were committed", format!("{id} is not on the chain")));
            }
            judge_first(prepare, committed, catalog)?;
            committed = prepare;
        } else if !catalog.contains(committed, prepare) {
            return Err(Violation::new("two prepares were committed at one op", id.to_string()));
        }
    }
    for &(request, op) in &summary.answered {
        let found = catalog.prepare(catalog.ancestor(committed, op));
        if found.is_none_or(|prepare| prepare.header().request().as_raw() != u64::from(request)) {
            let detail = format!("request {request} was told to be at {op}");
            return Err(Violation::new("an answer is not true", detail));
        }
    }
    summary.sealed.iter().try_for_each(|prepare| judge_name(*prepare, before, catalog))?;
    if committed != before.committed() || images(before, catalog) != images(after, catalog) {
        judge_durable(after, catalog)?;
        elections.judge(&images(after, catalog), committed, catalog)?;
    }
    Ok(())
}

/// What a crash would leave of each replica.
fn images(state: State<'_>, catalog: &Catalog) -> Vec<u32> {
    state.locals().iter().map(|local| catalog.traits(*local).image).collect()
}

/// The request of a prepare was not committed before.
fn judge_first(prepare: u32, committed: u32, catalog: &Catalog) -> Result<(), Violation> {
    let key = |number| catalog.prepare(number).map(|prepare| prepare.header().request());
    let mut earlier = committed;
    while let Some(request) = key(earlier) {
        if Some(request) == key(prepare) {
            return Err(Violation::new("a request was committed twice", format!("request {request}")));
        }
        earlier = catalog.parent(earlier);
    }
    Ok(())
}

/// No other prepare of the same view and op exists.
fn judge_name(prepare: u32, before: State<'_>, catalog: &Catalog) -> Result<(), Violation> {
    let id = catalog.prepare_id(prepare);
    let in_logs = before.locals().iter().map(|local| catalog.ancestor(catalog.traits(*local).head, id.op));
    let in_logs = in_logs.map(|number| catalog.prepare_id(number));
    let in_flight =
        before.network().iter().filter_map(|envelope| match &catalog.envelope(*envelope).message {
            Message::Prepare { prepare, .. } | Message::RepairPrepare { prepare, .. } => Some(prepare.id()),
            Message::PrepareOk { id, .. } => Some(*id),
            Message::Commit { .. }
            | Message::StartViewChange { .. }
            | Message::DoViewChange { .. }
            | Message::StartView { .. }
            | Message::GetStartView { .. }
            | Message::GetHeaders { .. }
            | Message::Headers { .. }
            | Message::GetPrepares { .. }
            | Message::RepairMissing { .. }
            | Message::ConfirmView { .. }
            | Message::ViewConfirmed { .. }
            | Message::Snapshot { .. } => None,
        });
    let mut others = in_logs.chain(in_flight).filter(|other| *other != id);
    if others.any(|other| (other.view, other.op) == (id.view, id.op)) {
        return Err(Violation::new("two prepares have one name", id.to_string()));
    }
    Ok(())
}

/// What is committed is synced at a quorum.
fn judge_durable(state: State<'_>, catalog: &Catalog) -> Result<(), Violation> {
    let images = state.locals().iter().map(|local| catalog.image(catalog.traits(*local).image));
    let copies = images.filter(|image| catalog.contains(image.head, state.committed())).count();
    if copies <= state.locals().len() / 2 {
        let id = catalog.prepare_id(state.committed());
        return Err(Violation::new("a committed prepare is durable on too few", format!("{id} on {copies}")));
    }
    Ok(())
}

//! Stories named after claims, compared letter by letter with `tests/golden/<claim>.txt`. `UPDATE_GOLDEN=1` writes them anew;
//! then read the difference as a reviewer would. Messages are drawn where they arrive, a lost one ends in a cross.

use std::path::PathBuf;

use varve_consensus::event::Liveness;
use varve_protocol::durability::Durability;
use varve_protocol::message::Message;
use varve_protocol::prepare::Prepare;

use crate::cluster::{Cluster, Envelope};

mod handover;
mod lost_disk;
mod members;
mod memory;
mod reading;
mod replication;
mod restart;
mod session;
mod torn;
mod transfer;
mod views;

fn claim(name: &str, count: usize, story: impl FnOnce(&mut Cluster)) {
    claim_with(name, count, Durability::QuorumDisk, story);
}

fn claim_with(name: &str, count: usize, durability: Durability, story: impl FnOnce(&mut Cluster)) {
    claim_of(name, Cluster::with_durability(count, durability), story);
}

fn claim_of(name: &str, mut cluster: Cluster, story: impl FnOnce(&mut Cluster)) {
    cluster.trace.unmute();
    story(&mut cluster);
    cluster.trace.mute();
    let rendered = cluster.trace.render();
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.txt"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        golden_write(&path, &rendered);
    }
    let golden = golden_read(&path);
    assert_eq!(rendered, golden, "the story `{name}` goes differently:\n{rendered}");
    crate::schedule::heal_and_work(&mut cluster);
}

#[expect(clippy::disallowed_methods, reason = "the tests, not the core, keep files")]
fn golden_write(path: &PathBuf, rendered: &str) {
    std::fs::write(path, rendered).unwrap();
}

fn golden_read(path: &PathBuf) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn quietly(cluster: &mut Cluster, note: &str, course: impl FnOnce(&mut Cluster)) {
    cluster.trace.note(note);
    cluster.trace.mute();
    course(cluster);
    cluster.trace.unmute();
}

/// The nodes other than the primary of view 0 move to view 1, all the way or until something holds.
fn change_view_without(cluster: &mut Cluster, without: usize, is_enough: impl Fn(&Cluster) -> bool) {
    let others: Vec<_> = (0..cluster.count()).filter(|node| *node != without).collect();
    for node in others {
        cluster.liveness(node, Liveness::Suspected);
    }
    cluster.settle_until(&[without], is_enough);
}

/// Two prepares of view 0: the one that every story's first request makes, and one that no second request makes.
fn another_history() -> Vec<Prepare> {
    let mut cluster = Cluster::new(3);
    cluster.request(0);
    cluster.request_of(0, 5, 1);
    let prepares = |sent: Envelope| match (sent.to, sent.message) {
        (1, Message::Prepare { prepare, .. }) => Some(prepare),
        _ => None,
    };
    cluster.network.into_iter().filter_map(prepares).collect()
}

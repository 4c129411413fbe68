//! A node dies, and nothing that was acknowledged is lost.

use serde_json::Value;

use crate::cluster::{Cluster, send_signal, wait_for};
use crate::tour::sample;

#[test]
fn killing_the_primary_loses_nothing() {
    let cluster = Cluster::start();
    cluster.varve(&["stream", "create", "shop"]).ok();
    cluster.varve(&["topic", "create", "shop/orders"]).ok();
    let text = sample(3_000);
    cluster.varve_with(&["produce", "shop/orders"], &text).ok();

    let primary = cluster.primary("shop/orders/0");
    send_signal("KILL", cluster.pid(primary).unwrap());
    wait_for("the news of its death", || cluster.pid(primary).is_none().then_some(()));
    cluster.varve_with(&["produce", "shop/orders"], &text).ok();
    let back = cluster.varve(&["consume", "shop/orders", "--until-end"]).ok();
    assert_eq!(back, [text.clone(), text].concat());

    let successor = cluster.primary("shop/orders/0");
    assert_ne!(successor, primary);
    let status = cluster.varve(&["cluster", "status", "--output", "json"]).json();
    assert_eq!(status["health"], "degraded");
}

#[test]
fn without_a_majority_writes_wait_and_are_reported() {
    let cluster = Cluster::start();
    cluster.varve(&["stream", "create", "shop"]).ok();
    cluster.varve(&["topic", "create", "shop/orders"]).ok();
    cluster.varve_with(&["produce", "shop/orders"], b"one\n").ok();
    let primary = cluster.primary("metadata");
    for node in (1..=3).filter(|node| *node != primary) {
        send_signal("KILL", cluster.pid(node).unwrap());
    }
    let ran = wait_for("the loss to be noticed", || {
        let ran = cluster.varve(&["cluster", "status", "--output", "json"]);
        (ran.code == Some(1)).then_some(ran)
    });
    let status: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!(status["health"], "unavailable");
    ran.refused(1, "cannot take writes");
    cluster
        .varve_with(&["produce", "shop/orders", "--timeout", "2s"], b"two\n")
        .refused(1, "nothing was sent");
}

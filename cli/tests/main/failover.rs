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
fn a_drained_node_is_stopped_unnoticed() {
    let mut cluster = Cluster::start();
    // Else it would be given back what it was preferred for, on a slow machine before the test has looked.
    cluster.restart_with("[timing]\nrestore_primaries_after_ms = 0");
    cluster.varve(&["stream", "create", "shop"]).ok();
    cluster.varve(&["topic", "create", "shop/orders", "--partitions", "3"]).ok();
    let text = sample(10_000);
    cluster.varve_with(&["produce", "shop/orders"], &text).ok();
    let node = cluster.primary("shop/orders/0");
    let drained = cluster.varve(&["cluster", "drain", &node.to_string(), "--output", "json"]).json();
    assert!(drained["groups"].as_u64().unwrap() >= 1, "{drained}");
    let status = cluster.varve(&["cluster", "status", "--output", "json"]).json();
    let of_node = status["nodes"].as_array().unwrap().iter().find(|one| one["id"] == node).unwrap().clone();
    assert_eq!(of_node["primary_of"], 0, "{status}");
    let back = ["cluster", "transfer", "shop/orders/0", "--to", &node.to_string()];
    cluster.varve(&back).ok();
    assert_eq!(cluster.primary("shop/orders/0"), node);
    cluster.varve(&back).ok();
    cluster.varve(&["cluster", "transfer", "shop/orders/9", "--to", "1"]).refused(1, "cluster status");
    cluster.varve(&["cluster", "transfer", "metadata", "--to", "9"]).refused(1, "holds no replica");
    cluster.varve(&["cluster", "drain", "9"]).refused(1, "no node 9");

    cluster.varve(&["cluster", "drain", &node.to_string()]).ok();
    send_signal("KILL", cluster.pid(node).unwrap());
    cluster.varve_with(&["produce", "shop/orders"], &text).ok();
    let consumed = [0, 1, 2].map(|partition: u32| {
        let partition = partition.to_string();
        cluster.varve(&["consume", "shop/orders", "--partition", &partition, "--until-end"]).ok()
    });
    assert_eq!(consumed.concat().len(), 2 * text.len(), "nothing is lost");
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

#[test]
fn an_unsafe_restart_is_told_and_an_operator_decides() {
    let cluster = Cluster::start();
    cluster.varve(&["stream", "create", "shop"]).ok();
    cluster.varve(&["topic", "create", "shop/clicks", "--durability", "quorum-memory"]).ok();
    let text = sample(500);
    let primary = cluster.primary("shop/clicks/0");
    let stopped = [primary, primary % 3 + 1];
    let pids = stopped.map(|node| cluster.pid(node).unwrap());
    cluster.varve_with(&["produce", "shop/clicks"], &text).ok();
    // At once: a group that was given nothing for two seconds has synced all, and says so.
    pids.into_iter().for_each(|pid| send_signal("KILL", pid));
    let mut nodes = stopped.map(|node| cluster.start_node(node));
    let says = |problem: &str| {
        let status = cluster.varve(&["cluster", "status", "--output", "json"]);
        String::from_utf8_lossy(&status.stdout).contains(problem).then_some(())
    };
    wait_for("word of the unsafe restart", || says("unsafe restart"));
    let force = ["cluster", "force-recover", "shop/clicks/0"];
    cluster.varve(&force).refused(1, "--accept-loss");
    cluster.varve(&[&force[..], &["--accept-loss"]].concat()).ok();
    cluster.varve_with(&["produce", "shop/clicks"], b"the last line\n").ok();
    let back = cluster.varve(&["consume", "shop/clicks", "--until-end"]).ok();
    assert_eq!(back, [&text[..], b"the last line\n"].concat(), "the third replica held all of it");
    cluster.varve(&force).refused(1, "nothing is to be forced");
    for node in &mut nodes {
        drop(node.stdin.take());
        node.wait().unwrap();
    }
}

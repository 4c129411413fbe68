//! Replicas go from node to node while the cluster works.

use serde_json::Value;

use crate::cluster::{Cluster, send_signal};
use crate::tour::sample;

fn replicas(cluster: &Cluster) -> Vec<u64> {
    let status = cluster.varve(&["cluster", "status", "--output", "json"]).json();
    let groups = status["groups"].as_array().unwrap().clone();
    let group = groups.iter().find(|group| group["name"] == "shop/orders/0").unwrap();
    group["replicas"].as_array().unwrap().iter().filter_map(Value::as_u64).collect()
}

#[test]
fn a_partition_leaves_a_node_and_loses_nothing() {
    let cluster = Cluster::start_of(5);
    cluster.varve(&["stream", "create", "shop"]).ok();
    cluster.varve(&["topic", "create", "shop/orders"]).ok();
    let text = sample(3_000);
    cluster.varve_with(&["produce", "shop/orders"], &text).ok();

    let before = replicas(&cluster);
    let from = cluster.primary("shop/orders/0");
    let to = (1..=5).find(|node| !before.contains(node)).unwrap();
    let outsider = (1..=5).rfind(|node| !before.contains(node)).unwrap();
    let [from_text, to_text, outsider] = [from, to, outsider].map(|node| node.to_string());
    let other = before.iter().find(|node| **node != from).unwrap().to_string();
    let go = |group: &str, from: &str, to: &str| {
        cluster.varve(&["cluster", "move", group, "--from", from, "--to", to])
    };
    go("shop/orders/0", &outsider, &to_text).refused(1, "holds no replica");
    go("shop/orders/0", &from_text, &other).refused(1, "holds a replica of g1 already");
    go("shop/orders/0", &from_text, "9").refused(1, "no n9 in this cluster");
    go("shop/orders/7", &from_text, &to_text).refused(1, "cluster status");
    go("metadata", &from_text, &to_text).refused(1, "every node holds the metadata");
    cluster
        .varve(&["cluster", "move", "shop/orders/0", "--cancel"])
        .refused(1, "no replica of g1 is coming, going or being moved");
    cluster.varve(&["cluster", "move", "shop/orders/0", "--from", "1"]).refused(2, "required arguments");

    go("shop/orders/0", &from_text, &to_text).ok();
    let after = replicas(&cluster);
    assert!(after.contains(&to) && !after.contains(&from), "{before:?} became {after:?}");
    send_signal("KILL", cluster.pid(from).unwrap());
    cluster.varve_with(&["produce", "shop/orders"], &text).ok();
    let back = cluster.varve(&["consume", "shop/orders", "--until-end"]).ok();
    assert_eq!(back, [text.clone(), text].concat());
}

#[test]
fn a_partition_of_one_replica_gets_company_and_leaves_its_first_node() {
    let cluster = Cluster::start_of(3);
    cluster.varve(&["stream", "create", "shop"]).ok();
    cluster.varve(&["topic", "create", "shop/orders", "--replication-factor", "1"]).ok();
    let text = sample(3_000);
    cluster.varve_with(&["produce", "shop/orders"], &text).ok();
    let add =
        |node: u64| cluster.varve(&["cluster", "add-replica", "shop/orders/0", "--to", &node.to_string()]);
    let remove = |node: u64| {
        cluster.varve(&["cluster", "remove-replica", "shop/orders/0", "--from", &node.to_string()])
    };
    let first = cluster.primary("shop/orders/0");
    remove(first).refused(1, "has no other replica");
    add(first).refused(1, "holds a replica of g1 already");
    add(9).refused(1, "no n9 in this cluster");
    let others: Vec<u64> = (1..=3).filter(|node| *node != first).collect();
    let (from, to) = (first.to_string(), others[0].to_string());
    cluster
        .varve(&["cluster", "move", "shop/orders/0", "--from", &from, "--to", &to])
        .refused(1, "add-replica");

    for node in &others {
        add(*node).ok();
    }
    assert_eq!(replicas(&cluster).len(), 3);
    remove(first).ok();
    let left = replicas(&cluster);
    assert!(left.len() == 2 && !left.contains(&first), "{left:?}");
    cluster.varve_with(&["produce", "shop/orders"], &text).ok();
    let back = cluster.varve(&["consume", "shop/orders", "--until-end"]).ok();
    assert_eq!(back, [text.clone(), text].concat());
}

//! What operators do with the data directory of a node: check it, print it, and see it mended.

use serde_json::Value;

use crate::cluster::{Cluster, wait_for};
use crate::tour::sample;

#[test]
fn damage_is_found_told_and_mended() {
    let mut cluster = Cluster::start();
    cluster.varve(&["stream", "create", "shop"]).ok();
    cluster.varve(&["topic", "create", "shop/orders"]).ok();
    let text = sample(5_000);
    for piece in [&text[..text.len() / 2], &text[text.len() / 2..]] {
        cluster.varve_with(&["produce", "shop/orders"], piece).ok();
    }
    let live = cluster.varve(&["verify", "varve-data/node-1"]);
    assert!(
        matches!(live.code, Some(0 | 1)),
        "a running node may be in the middle of a write: {}",
        live.stderr
    );
    cluster.stop();

    let group = |verdict: &Value| verdict["groups"][1].clone();
    let before = cluster.varve(&["verify", "varve-data/node-2", "--output", "json"]).json();
    assert_eq!(
        (&group(&before)["name"], &group(&before)["findings"]),
        (&"shop/orders/0".into(), &Value::Array(vec![]))
    );
    let dumped =
        cluster.varve(&["dump", "varve-data/node-2", "--group", "1", "--records", "--output", "json"]).text();
    let lines: Vec<Value> = dumped.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let records: usize = lines.iter().map(|line| line["records"].as_array().map_or(0, Vec::len)).sum();
    assert_eq!(records as u64, group(&before)["records"].as_u64().unwrap());
    assert_eq!(lines.last().unwrap()["op"], group(&before)["last_op"]);

    let dir = cluster.folder.path().join("varve-data/node-2/groups/0000000001");
    let file = std::fs::read_dir(dir).unwrap().next().unwrap().unwrap().path();
    let sound = std::fs::read(&file).unwrap();
    let mut rotten = sound.clone();
    rotten[4096 + 1000] ^= 1;
    std::fs::write(&file, &rotten).unwrap();
    let told = cluster.varve(&["verify", "varve-data/node-2"]);
    assert!(String::from_utf8_lossy(&told.stdout).contains("fetched from the other replicas"));
    told.refused(1, "1 finding in varve-data/node-2");
    assert!(std::fs::read(&file).unwrap() == rotten, "to look changes nothing");

    cluster.start_again();
    wait_for("the end of mending", || {
        // While the replica that leads is the one that mends, nobody leads, and the command says so with its exit code.
        let status = String::from_utf8(cluster.varve(&["cluster", "status"]).stdout).unwrap();
        status.lines().filter(|line| line.contains("3 of 3")).nth(1).map(|_| ())
    });
    cluster.stop();
    cluster.varve(&["verify", "varve-data/node-2"]).ok();
}

#[test]
fn a_directory_without_data_is_told_as_such() {
    let cluster = Cluster::start();
    cluster
        .varve(&["verify", "nowhere"])
        .refused(2, "nowhere does not exist; name the data directory of a node");
    cluster.varve(&["dump", "varve-data/tls"]).refused(2, "no data directory");
}

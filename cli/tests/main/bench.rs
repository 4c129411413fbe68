//! `varve bench` counts right: what it says was produced is in the partitions, and what is there is read. How fast that goes is
//! nothing a test can know.

use serde_json::Value;

use crate::cluster::{Cluster, varve_in};

/// Records that all partitions of a topic hold together.
fn records_in(cluster: &Cluster, topic: &str) -> u64 {
    let described = cluster.varve(&["topic", "describe", topic, "--output", "json"]).json();
    let partitions = described["partitions"].as_array().unwrap();
    partitions.iter().map(|partition| partition["high_watermark"].as_u64().unwrap()).sum()
}

/// A short run, and its report.
fn bench(cluster: &Cluster, arguments: &[&str]) -> Value {
    cluster.varve(&[&["bench"], arguments, &["--output", "json"]].concat()).json()
}

const SHORT: [&str; 4] = ["--duration", "1s", "--warm-up", "200ms"];

#[test]
fn what_was_produced_is_there_and_is_read() {
    let cluster = Cluster::start();
    cluster.varve(&["stream", "create", "shop"]).ok();
    cluster.varve(&["topic", "create", "shop/orders", "--partitions", "2"]).ok();
    cluster.varve(&["bench", "consume", "shop/orders"]).refused(1, "varve bench produce shop/orders");

    let load = ["produce", "shop/orders", "--producers", "2", "--record-size", "200"];
    let produced = bench(&cluster, &[&load[..], &SHORT].concat());
    let side = &produced["sides"][0];
    let records = side["records_in_all"].as_u64().unwrap();
    assert!(records > 0);
    assert_eq!(records_in(&cluster, "shop/orders"), records);
    assert_eq!(side["bytes"].as_u64().unwrap(), side["records"].as_u64().unwrap() * 200);
    assert_eq!(side["errors"], 0);

    let consumed = bench(&cluster, &["consume", "shop/orders", "--consumers", "3"]);
    let side = &consumed["sides"][0];
    assert_eq!(side["records_in_all"], records * 3, "each consumer reads all of it");
    assert_eq!((&side["records"], &side["bytes"]), (&Value::from(records * 3), &Value::from(records * 600)));
    let text = cluster.varve(&["bench", "consume", "shop/orders", "--raw", "."]).text();
    assert!(text.contains("RESULT / LIMIT"), "{text}");
    assert!(text.starts_with("consume on shop/orders: ") && text.contains("P99.99"), "{text}");
}

#[test]
fn a_rate_is_kept_and_every_record_is_read_by_every_consumer() {
    let cluster = Cluster::start();
    cluster.varve(&["stream", "create", "shop"]).ok();
    cluster.varve(&["topic", "create", "shop/orders", "--partitions", "3"]).ok();
    // What others append is not taken for records of the run.
    cluster.varve_with(&["produce", "shop/orders"], b"of\nsomebody\nelse\n").ok();
    let load = ["end-to-end", "shop/orders", "--rate", "500", "--consumers", "2", "--producers", "2"];
    let report = bench(&cluster, &[&load[..], &SHORT].concat());
    let (produced, consumed) = (&report["sides"][0], &report["sides"][1]);
    // Records 0 to 599 are due within 1.2 s, 100 of them before the warm-up is over. None is left out for being late.
    assert_eq!((&produced["records_in_all"], &produced["latency_samples"]), (&600.into(), &500.into()));
    assert_eq!((&consumed["records_in_all"], &consumed["latency_samples"]), (&1_200.into(), &1_000.into()));
    assert_eq!(records_in(&cluster, "shop/orders"), 603);

    let load = ["mixed", "shop/orders", "--record-size", "5000"];
    let report = bench(&cluster, &[&load[..], &SHORT].concat());
    let (produced, consumed) = (&report["sides"][0], &report["sides"][1]);
    assert_eq!(produced["records_in_all"], consumed["records_in_all"]);
    assert_eq!(records_in(&cluster, "shop/orders"), 603 + produced["records_in_all"].as_u64().unwrap());
}

#[test]
fn no_more_records_are_on_their_way_than_were_asked_for() {
    let mut cluster = Cluster::start();
    cluster.varve(&["stream", "create", "shop"]).ok();
    cluster.varve(&["topic", "create", "shop/orders"]).ok();
    let load = ["produce", "shop/orders", "--in-flight", "3", "--linger", "5ms"];
    let report = bench(&cluster, &[&load[..], &SHORT].concat());
    assert!(report["sides"][0]["records_in_all"].as_u64().unwrap() > 30, "{report}");
    cluster.stop();
    let dumped = cluster.varve(&["dump", "varve-data/node-1", "--group", "1", "--output", "json"]).text();
    let lines = dumped.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let batches: Vec<u64> = lines.filter_map(|line| line["record_count"].as_u64()).collect();
    assert!(batches.len() > 10 && batches.iter().all(|count| *count <= 3), "{batches:?}");
}

#[test]
fn a_topic_that_a_benchmark_made_is_taken_away_again() {
    let cluster = Cluster::start();
    let load =
        ["bench", "produce", "own/topic", "--create", "--durability", "quorum-memory", "--rate", "100"];
    cluster.varve(&[&load[..], &SHORT, &["--save", "run.json", "--html", "run.html"]].concat()).ok();
    assert_eq!(cluster.varve(&["stream", "list", "--output", "json"]).json(), Value::Array(Vec::new()));
    let saved = std::fs::read(cluster.folder.path().join("run.json")).unwrap();
    let saved: Value = serde_json::from_slice(&saved).unwrap();
    assert_eq!((&saved["benchmark"], &saved["sides"][0]["records_in_all"]), (&"produce".into(), &120.into()));
    let page = std::fs::read_to_string(cluster.folder.path().join("run.html")).unwrap();
    assert!(page.contains("varve bench produce on own/topic") && page.contains("<svg"), "{page}");
    let compared = cluster.varve(&["bench", "compare", "run.json", "run.json", "--output", "json"]).json();
    assert_eq!(compared["lines"][0]["ratio"], 1.0);
    cluster.varve(&["bench", "compare", "run.json", "run.html"]).refused(2, "run.html is no report");
    cluster.varve(&["bench", "compare", "run.json", "none.json"]).refused(2, "cannot read none.json");

    cluster.varve(&["stream", "create", "shop"]).ok();
    cluster.varve(&["topic", "create", "shop/orders"]).ok();
    cluster.varve_with(&["produce", "shop/orders"], b"mine\n").ok();
    cluster.varve(&["bench", "produce", "shop/orders", "--create"]).refused(1, "exists already");
    assert_eq!(records_in(&cluster, "shop/orders"), 1, "what was there before is left alone");
    cluster.varve(&["bench", "produce", "shop/other"]).refused(1, "--create makes one");
}

#[test]
fn what_does_not_go_together_is_told_before_anything_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |arguments: &[&str], says: &str| {
        varve_in(folder.path(), &[&["bench"], arguments].concat(), b"").refused(2, says);
    };
    refused(&["produce", "orders"], "STREAM/TOPIC");
    refused(&["produce", "a/b", "--partitions", "3"], "required arguments");
    refused(&["produce", "a/b", "--rate", "0"], "leave it out");
    refused(&["produce", "a/b", "--duration", "0s"], "cannot be 0");
    refused(&["produce", "a/b", "--duration", "10"], "time unit");
    refused(&["produce", "a/b", "--record-size", "2000", "--batch-bytes", "1024"], "raise --batch-bytes");
    refused(&["produce", "a/b", "--record-size", "1048512"], "too large");
    refused(&["end-to-end", "a/b", "--record-size", "8"], "at least 16");
    refused(&["produce", "a/b", "--save", "nowhere/run.json"], "no folder nowhere");
    refused(&["produce", "a/b", "--raw", "nowhere"], "nowhere is none");
    refused(&["consume", "a/b", "--create"], "unexpected argument");
}

//! `varve drill` does to a real cluster what it says, and sees what comes of it. How long a failover takes is nothing a test can
//! know; that it was measured, that the cluster is whole again, and that every record is there, is.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use serde_json::Value;

use crate::cluster::{Cluster, command, send_signal, varve_in};

/// A short drill, and its report.
fn drill(cluster: &Cluster, arguments: &[&str]) -> Value {
    let short = ["--rate", "100", "--before", "200ms", "--after", "300ms", "--yes", "--output", "json"];
    cluster.varve(&[&["drill"], arguments, &short].concat()).json()
}

/// Everything that was acknowledged was read back, and seen by those who watched; nobody saw an error.
#[track_caller]
fn assert_nothing_is_lost(report: &Value) {
    let users = &report["users"];
    assert!(users["records_sent"].as_u64().unwrap() > 0, "{report}");
    assert_eq!(users["records_sent"], users["records_acknowledged"], "{report}");
    assert_eq!((&users["records_failed"], &users["reads_failed"]), (&0.into(), &0.into()), "{report}");
    for found in [&report["read_back"], &report["read_live"]] {
        assert_eq!(found["read"], users["records_sent"], "{report}");
        for wrong in ["lost", "doubled", "reordered", "damaged", "misplaced", "holes"] {
            assert_eq!(found[wrong], 0, "{report}");
        }
    }
    assert_eq!(report["passed"], true, "{report}");
}

#[test]
fn a_primary_is_killed_and_all_is_well_again() {
    let cluster = Cluster::start();
    let before: Vec<u64> = (1..=3).map(|node| cluster.pid(node).unwrap()).collect();
    let kill = ["kill-primary", "--count", "1", "--limit-first-ack", "30s", "--save", "drill.json"];
    let report = drill(&cluster, &[&kill[..], &["--html", "drill.html"]].concat());
    assert_nothing_is_lost(&report);
    let round = &report["rounds"][0];
    let struck: Vec<&Value> = round["partitions"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|partition| partition["struck"] == true)
        .collect();
    assert!(!struck.is_empty(), "{report}");
    for partition in struck {
        assert_eq!(partition["primary_before"], round["node"]);
        assert_ne!(partition["primary_after"], round["node"]);
        assert!(partition["first_ack_ms"].as_f64().unwrap() > 0.0, "{report}");
        assert!(partition["unavailable_ms"].as_f64().unwrap() > 0.0, "{report}");
    }
    for seen in ["detection_ms", "new_primary_ms", "first_ack_ms"] {
        assert!(round[seen].as_f64().unwrap() > 0.0, "{seen}: {report}");
    }
    assert_eq!(
        (&report["limits"][0]["name"], &report["limits"][0]["met"]),
        (&"first-ack".into(), &true.into())
    );
    // The node that was killed is a child of `varve dev` again, as another process; the others are the same.
    let node = round["node"].as_u64().unwrap();
    let after: Vec<u64> = (1..=3).map(|node| cluster.pid(node).unwrap()).collect();
    let changed: Vec<u64> =
        (1..=3).zip(before.iter().zip(&after)).filter(|(_, (a, b))| a != b).map(|(node, _)| node).collect();
    assert_eq!(changed, [node]);
    let status = cluster.varve(&["cluster", "status", "--output", "json"]).json();
    assert_eq!((&status["health"], status["groups"].as_array().unwrap().len()), (&"healthy".into(), 1));
    assert_eq!(cluster.varve(&["stream", "list", "--output", "json"]).json(), Value::Array(Vec::new()));
    let saved = std::fs::read(cluster.folder.path().join("drill.json")).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&saved).unwrap(), report);
    let page = std::fs::read_to_string(cluster.folder.path().join("drill.html")).unwrap();
    assert!(page.contains("varve drill kill-primary on") && page.matches("<svg").count() == 2, "{page}");
    // A limit that nothing keeps.
    let missed = ["kill-primary", "--rate", "50", "--yes", "--limit-unavailable", "1ms", "--partitions", "1"];
    let ran = cluster.varve(&[&["drill"], &missed[..]].concat());
    assert!(String::from_utf8_lossy(&ran.stdout).contains("limit unavailable 1 ms: MISSED"), "{ran:?}");
    ran.refused(1, "limit unavailable 1 ms: MISSED");
}

#[test]
fn primaries_go_round_in_a_topic_of_somebody() {
    let mut cluster = Cluster::start();
    // Else others might lead by themselves, on a busy machine, before the test has looked.
    cluster.restart_with("[timing]\nrestore_primaries_after_ms = 0\nsuspicion_timeout_ms = 5000\nview_change_timeout_ms = 10000");
    cluster.varve(&["stream", "create", "shop"]).ok();
    cluster.varve(&["topic", "create", "shop/orders", "--partitions", "2"]).ok();
    cluster.varve_with(&["produce", "shop/orders"], b"of\nsomebody\nelse\n").ok();
    let led = [cluster.primary("shop/orders/0"), cluster.primary("shop/orders/1")];
    let report = drill(&cluster, &["transfer-primaries", "shop/orders"]);
    assert_nothing_is_lost(&report);
    let rounds = report["rounds"].as_array().unwrap();
    assert_eq!(rounds.len(), 2);
    for (place, round) in rounds.iter().enumerate() {
        let partition = &round["partitions"][place];
        assert_eq!((&partition["struck"], &partition["primary_before"]), (&true.into(), &led[place].into()));
        assert_ne!(partition["primary_after"], led[place], "{report}");
    }
    assert_eq!([cluster.primary("shop/orders/0"), cluster.primary("shop/orders/1")], led, "as it was before");
    let described = cluster.varve(&["topic", "describe", "shop/orders", "--output", "json"]).json();
    let partitions = described["partitions"].as_array().unwrap();
    let records: u64 = partitions.iter().map(|partition| partition["high_watermark"].as_u64().unwrap()).sum();
    assert_eq!(records, 3 + report["users"]["records_sent"].as_u64().unwrap(), "they stay there");
}

#[test]
fn a_node_comes_back_with_an_empty_disk() {
    let cluster = Cluster::start();
    cluster.varve(&["stream", "create", "shop"]).ok();
    cluster.varve(&["topic", "create", "shop/orders"]).ok();
    cluster.varve_with(&["produce", "shop/orders"], b"one\ntwo\n").ok();
    let report = drill(&cluster, &["replace-node", "--partitions", "1"]);
    assert_nothing_is_lost(&report);
    let status = cluster.varve(&["cluster", "status", "--output", "json"]).json();
    assert_eq!(status["health"], "healthy");
    assert_eq!(cluster.varve(&["consume", "shop/orders", "--until-end"]).ok(), b"one\ntwo\n");
}

#[test]
fn what_hurts_is_asked_for_and_what_cannot_be_done_is_told() {
    let cluster = Cluster::start();
    let refused = |arguments: &[&str], says: &str| {
        cluster.varve(&[&["drill"], arguments].concat()).refused(2, says);
    };
    refused(&["kill-primary"], "say --yes to do it");
    refused(&["rolling-restart"], "say --yes to do it");
    refused(&["transfer-primaries", "shop/orders", "--partitions", "2"], "cannot be used with");
    refused(&["kill-primary", "--yes", "--count", "0"], "--count");
    refused(&["kill-primary", "--yes", "--rate", "1000000"], "varve bench");
    refused(&["kill-primary", "--yes", "--save", "nowhere/drill.json"], "no folder nowhere");
    cluster.varve(&["drill", "kill-primary", "shop/none", "--yes"]).refused(1, "shop");
    cluster.varve(&["stream", "create", "shop"]).ok();
    cluster.varve(&["topic", "create", "shop/single", "--replication-factor", "1"]).ok();
    refused(&["kill-primary", "shop/single", "--yes"], "nobody takes over");

    // The same cluster from a folder in which no `varve dev` is known: signals reach it, orders do not.
    let elsewhere = tempfile::tempdir().unwrap();
    let servers = cluster.running()["servers"].as_str().unwrap().to_owned();
    let from_there = |arguments: &[&str]| {
        varve_in(elsewhere.path(), &[&["--servers", &servers, "drill"], arguments].concat(), b"")
    };
    from_there(&["replace-node", "--yes"]).refused(2, "name its --data-dir");
    from_there(&["pause-primary", "--rate", "50", "--for", "400ms", "--after", "0s", "--yes"]).ok();
    let states =
        (1..=3).map(|node| std::fs::read_to_string(format!("/proc/{}/stat", cluster.pid(node).unwrap())));
    assert!(states.map(Result::unwrap).all(|stat| !stat.contains(") T ")), "all of them go on");
}

#[test]
fn somebody_else_may_kill_the_node() {
    let cluster = Cluster::start();
    let manual = ["drill", "kill-primary", "--manual", "--yes", "--rate", "100", "--output", "json"];
    let mut drill =
        command(cluster.folder.path(), &[&manual[..], &["--before", "0s", "--after", "0s"]].concat())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
    let mut told = BufReader::new(drill.stderr.take().unwrap()).lines();
    let mut node_told = |to: &str| -> u64 {
        let mut heard = Vec::new();
        let line = told.find_map(|line| {
            heard.push(line.unwrap());
            heard.last()?.strip_prefix(to).map(str::to_owned)
        });
        let line = line.unwrap_or_else(|| panic!("it never told to `{to}`: {heard:?}"));
        line.split(' ').next().unwrap().parse().unwrap()
    };
    let node = node_told("now kill the process of node ");
    send_signal("KILL", cluster.pid(node).unwrap());
    assert_eq!(node_told("now start node "), node);
    let mut started = cluster.start_node(node);
    let ran = drill.wait_with_output().unwrap();
    let report: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_nothing_is_lost(&report);
    assert_eq!(report["rounds"][0]["node"], node);
    assert!(report["rounds"][0]["first_ack_ms"].as_f64().unwrap() > 0.0, "{report}");
    drop(started.stdin.take());
    started.wait().unwrap();
}

#[test]
fn a_check_measures_and_changes_nothing() {
    let cluster = Cluster::start();
    let check = ["drill", "check", "--output", "json"];
    let ran = cluster.varve(&check);
    let found: Value = serde_json::from_slice(&ran.stdout).unwrap();
    let found = found.as_array().unwrap();
    let bad = found.iter().filter(|finding| finding["verdict"] == "look_at_this").count();
    assert_eq!(ran.code, Some(i32::from(bad > 0)), "{}", ran.stderr);
    for what in
        ["sync of 4 KiB", "round trip to node 3", "node 2 at", "UDP receive buffer", "open files of node 1"]
    {
        let is_it = |finding: &&Value| finding["what"].as_str().is_some_and(|found| found.starts_with(what));
        assert!(found.iter().any(|finding| is_it(&finding)), "{what} is not in {found:#?}");
    }
    let names = std::fs::read_dir(cluster.folder.path().join("varve-data")).unwrap();
    let left = names.flatten().find(|entry| entry.file_name().to_string_lossy().ends_with(".tmp"));
    assert!(left.is_none(), "{left:?}");
    let nobody = tempfile::tempdir().unwrap();
    let alone = varve_in(nobody.path(), &["drill", "check"], b"");
    let text = String::from_utf8(alone.stdout).unwrap();
    assert!(text.contains("no cluster was named"), "{text}");
    varve_in(nobody.path(), &["drill", "check", "--dir", "nowhere"], b"").refused(2, "nowhere");
}

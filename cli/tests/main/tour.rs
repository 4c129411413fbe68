//! What a new user does first, in order; and what it looks like to programs.

use serde_json::Value;

use crate::cluster::{Cluster, varve_in};

/// Lines of many lengths, none of them alike, some empty, some no UTF-8.
pub(crate) fn sample(lines: usize) -> Vec<u8> {
    let mut text = Vec::new();
    for number in 0..lines {
        if number % 10 != 3 {
            text.extend_from_slice(format!("{number} ").as_bytes());
            text.resize(text.len() + number % 300, b'a' + u8::try_from(number % 26).unwrap());
            text.push(if number % 7 == 0 { 0xff } else { b'.' });
        }
        text.push(b'\n');
    }
    text
}

#[test]
fn a_file_comes_back_byte_for_byte_also_after_a_restart() {
    let mut cluster = Cluster::start();
    cluster.varve(&["stream", "create", "shop"]).ok();
    let created = cluster.varve(&["topic", "create", "shop/orders"]).text();
    assert_eq!(created, "created topic shop/orders\n");
    let text = sample(5_000);
    cluster.varve_with(&["produce", "shop/orders"], &text).ok();
    assert_eq!(cluster.varve(&["consume", "shop/orders", "--until-end"]).ok(), text);

    cluster.restart();
    let file = cluster.folder.path().join("more.txt");
    std::fs::write(&file, b"from a file\nwithout a newline at its end").unwrap();
    cluster.varve(&["produce", "shop/orders", "--file", "more.txt"]).ok();
    let both = [text.as_slice(), b"from a file\nwithout a newline at its end\n"].concat();
    assert_eq!(cluster.varve(&["consume", "shop/orders", "--until-end"]).ok(), both);
    let last = cluster.varve(&["consume", "shop/orders", "--from", "5000", "--count", "1"]).ok();
    assert_eq!(last, b"from a file\n");

    let since = |from| cluster.varve(&["consume", "shop/orders", "--from", from, "--until-end"]).ok();
    assert_eq!(since("1h"), both, "all of it was appended within the last hour");
    assert_eq!(since("2001-01-01T00:00:00Z"), both);
    assert_eq!(since("2150-01-01T00:00:00Z"), b"", "nothing was yet");
}

#[test]
fn several_partitions_and_keys() {
    let cluster = Cluster::start();
    cluster.varve(&["stream", "create", "shop"]).ok();
    cluster.varve(&["topic", "create", "shop/orders", "--partitions", "4"]).ok();
    let text: Vec<u8> =
        (0..1_000).flat_map(|number| format!("k{}:v{number}\n", number % 17).into_bytes()).collect();
    cluster.varve_with(&["produce", "shop/orders", "--key-separator", ":"], &text).ok();
    let back = cluster.varve(&["consume", "shop/orders", "--until-end", "--key-separator", ":"]).ok();
    let sorted = |text: &[u8]| {
        let mut lines: Vec<Vec<u8>> = text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&back), sorted(&text));

    let json = cluster.varve(&["consume", "shop/orders", "--until-end", "--output", "json"]).text();
    let mut partition_of = std::collections::BTreeMap::new();
    let mut last_of = std::collections::BTreeMap::new();
    for line in json.lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        let key = record["key"].as_str().unwrap().to_owned();
        let partition = record["partition"].as_u64().unwrap();
        let number: u64 = record["payload"].as_str().unwrap()[1..].parse().unwrap();
        assert_eq!(
            *partition_of.entry(key.clone()).or_insert(partition),
            partition,
            "a key stays in its partition"
        );
        let before = last_of.insert(key, number);
        assert!(before < Some(number), "records of a key stay in order");
    }
    assert_eq!(partition_of.len(), 17);

    let lines: Vec<u8> = sample(20_000);
    let produced =
        cluster.varve_with(&["produce", "shop/orders", "--batch-bytes", "20000", "--output", "json"], &lines);
    assert_eq!(produced.json()["records"], 20_000);
    let described = cluster.varve(&["topic", "describe", "shop/orders", "--output", "json"]).json();
    let ends: Vec<u64> = described["partitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|partition| partition["high_watermark"].as_u64().unwrap())
        .collect();
    assert_eq!(ends.iter().sum::<u64>(), 21_000);
    assert!(ends.iter().all(|end| *end > 3_000), "lines without a key are spread evenly: {ends:?}");
}

#[test]
fn every_command_speaks_json() {
    let cluster = Cluster::start();
    let json = |arguments: &[&str]| {
        let ran = cluster.varve_with(&[arguments, &["--output", "json"]].concat(), b"one\ntwo\n");
        ran.json()
    };
    assert_eq!(json(&["stream", "create", "shop"])["done"], "created stream");
    assert_eq!(json(&["topic", "create", "shop/orders"])["name"], "shop/orders");
    assert_eq!(json(&["stream", "list"])[0]["name"], "shop");
    assert_eq!(json(&["stream", "describe", "shop"])["topics"][0]["name"], "orders");
    assert_eq!(json(&["topic", "list"])[0]["replication_factor"], 3);
    assert_eq!(json(&["topic", "list"])[0]["durability"], "quorum-disk");
    assert_eq!(json(&["produce", "shop/orders"])["records"], 2);
    let record = json(&["consume", "shop/orders", "--count", "1"]);
    assert_eq!((&record["offset"], &record["payload"]), (&Value::from(0), &Value::from("one")));
    assert_eq!(json(&["topic", "describe", "shop/orders"])["partitions"][0]["high_watermark"], 2);
    let status = json(&["cluster", "status"]);
    assert_eq!(status["nodes"].as_array().unwrap().len(), 3);
    assert_eq!(status["health"], "healthy");
    assert_eq!(json(&["topic", "delete", "shop/orders", "--yes"])["done"], "deleted topic");
    assert_eq!(json(&["stream", "delete", "shop", "--yes"])["done"], "deleted stream");
    assert_eq!(json(&["topic", "list"]), Value::Array(Vec::new()));
}

#[test]
fn a_cluster_made_by_hand_works() {
    let folder = tempfile::tempdir().unwrap();
    let base = crate::cluster::free_ports(1);
    let config = format!(
        "cluster_id = \"00112233445566778899aabbccddeeff\"\n[[node]]\nid = 1\naddress = \"127.0.0.1:{base}\"\n\
         data_dir = \"data\"\n[tls]\nca = \"tls/ca.crt\"\ncert_dir = \"tls\"\n"
    );
    std::fs::write(folder.path().join("cluster.toml"), config).unwrap();
    let varve = |arguments: &[&str]| varve_in(folder.path(), arguments, b"");
    let made = varve(&["cert", "--output", "json"]).json();
    assert_eq!(made["made"].as_array().unwrap().len(), 4);
    let again = varve(&["cert", "--output", "json"]).json();
    assert_eq!(again["kept"].as_array().unwrap().len(), 4, "nothing is overwritten");
    varve(&["node", "--id", "1"]).refused(2, "varve format");
    varve(&["format", "--id", "1"]).ok();
    varve(&["format", "--id", "1"]).refused(2, "data");
    // The end of its stdin stops it, before or after it is up.
    varve(&["node", "--id", "1", "--exit-with-parent"]).ok();
}

#[test]
fn what_was_acknowledged_from_memory_survives_a_stop_in_order() {
    let mut cluster = Cluster::start();
    cluster.varve(&["stream", "create", "shop"]).ok();
    cluster.varve(&["topic", "create", "shop/clicks", "--durability", "quorum-memory"]).ok();
    cluster.varve(&["topic", "create", "shop/views", "--durability", "memory"]).refused(2, "quorum-memory");
    let listed = cluster.varve(&["topic", "list", "--output", "json"]).json();
    assert_eq!(listed[0]["durability"], "quorum-memory");
    let text = sample(2_000);
    cluster.varve_with(&["produce", "shop/clicks"], &text).ok();
    cluster.restart();
    assert_eq!(cluster.varve(&["consume", "shop/clicks", "--until-end"]).ok(), text);
    let described = cluster.varve(&["topic", "describe", "shop/clicks"]).text();
    assert!(
        described
            .starts_with("topic shop/clicks, 3 replicas, quorum-memory, not compressed, all records kept\n"),
        "{described}"
    );
    cluster
        .varve(&["cluster", "force-recover", "shop/clicks/0", "--accept-loss"])
        .refused(1, "nothing is to be forced");
}

//! Records with headers, and compressed: what a producer appended is what consumers and tools show, and less of it is stored.

use serde_json::{Value, json};

use crate::cluster::Cluster;

/// Lines that are alike.
fn orders(lines: usize) -> Vec<u8> {
    (0..lines)
        .flat_map(|line| format!("order {line}: one more of what everybody orders\n").into_bytes())
        .collect()
}

/// The lines of JSON that a command printed.
fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn compressed_records_come_back_byte_for_byte_and_take_less_room() {
    let mut cluster = Cluster::start();
    cluster.varve(&["stream", "create", "shop"]).ok();
    let text = orders(20_000);
    let random = crate::tour::sample(300);
    for codec in ["none", "lz4", "zstd"] {
        let topic = format!("shop/{codec}");
        cluster.varve(&["topic", "create", &topic, "--compression", codec]).ok();
        let produce = ["produce", &topic, "--header", "source=till", "--header", "shift:int64=-2"];
        cluster.varve_with(&produce, &text).ok();
        cluster.varve_with(&["produce", &topic], &random).ok();
    }
    cluster.varve(&["topic", "create", "shop/gzip", "--compression", "gzip"]).refused(2, "none, lz4 or zstd");
    let listed = cluster.varve(&["topic", "list", "--output", "json"]).json();
    let compressions: Vec<&Value> = (0..3).map(|place| &listed[place]["compression"]).collect();
    assert_eq!(compressions, ["lz4", "none", "zstd"]);
    let described = cluster.varve(&["topic", "describe", "shop/zstd", "--output", "json"]).json();
    assert_eq!(described["compression"], "zstd");
    let described = cluster.varve(&["topic", "describe", "shop/lz4"]).text();
    assert!(described.contains(", compressed with lz4, all records kept\n"), "{described}");

    cluster.restart();
    for codec in ["none", "lz4", "zstd"] {
        let topic = format!("shop/{codec}");
        let back = cluster.varve(&["consume", &topic, "--until-end"]).ok();
        assert_eq!(back, [text.as_slice(), &random].concat(), "{codec}");
        let one = ["consume", &topic, "--from", "19999", "--count", "2", "--headers"];
        let printed = cluster.varve(&one).ok();
        let expected = b"shift:int64=-2 source=\"till\"\torder 19999: one more of what everybody orders\n\t";
        assert!(printed.starts_with(expected), "{}", String::from_utf8_lossy(&printed));
        let printed = cluster.varve(&[&one[..6], &["--output", "json"]].concat()).text();
        let headers =
            json!({"shift": {"kind": "int64", "value": -2}, "source": {"kind": "string", "value": "till"}});
        let records = lines(&printed);
        assert_eq!((&records[0]["headers"], records[1].get("headers")), (&headers, None));
    }
    cluster.stop();
    let verdict = cluster.varve(&["verify", "varve-data/node-1", "--output", "json"]).json();
    let mut stored = Vec::new();
    for (group, codec) in [(1, "none"), (2, "lz4"), (3, "zstd")] {
        assert_eq!(verdict["groups"][group]["name"], format!("shop/{codec}/0"));
        stored.push(verdict["groups"][group]["bytes"].as_u64().unwrap());
        let number = group.to_string();
        let dump = ["dump", "varve-data/node-1", "--group", &number, "--records"];
        let dumped = lines(&cluster.varve(&[&dump[..], &["--output", "json"]].concat()).text());
        let batches: Vec<&Value> = dumped.iter().filter(|line| line["kind"] == "records").collect();
        // A batch that the producer sent early, of few records, may be smaller as it is.
        let largest = batches.iter().max_by_key(|batch| batch["records"].as_array().unwrap().len()).unwrap();
        assert_eq!(largest["compression"], codec);
        assert_eq!(batches[0]["records"][0]["headers"]["shift"]["value"], -2);
        let records: usize = batches.iter().map(|batch| batch["records"].as_array().unwrap().len()).sum();
        assert_eq!(records, 20_300);
        let plain: u64 = batches.iter().map(|batch| batch["records_bytes"].as_u64().unwrap()).sum();
        assert!(plain > text.len() as u64 + 20_000 * 24);
        let dumped = cluster.varve(&dump).text();
        assert_eq!(dumped.contains(&format!(" {codec} of ")), codec != "none");
        assert!(dumped.contains(" shift:int64=-2 source=\"till\" \"order 0: "), "{}", &dumped[..1000]);
    }
    assert!(stored[1] * 4 < stored[0] && stored[2] * 4 < stored[0] && stored[2] < stored[1], "{stored:?}");
}

#[test]
fn headers_that_make_no_sense_are_refused_before_anything_is_sent() {
    let cluster = Cluster::start();
    cluster.varve(&["stream", "create", "shop"]).ok();
    cluster.varve(&["topic", "create", "shop/orders"]).ok();
    let table = [
        (vec!["--header", "hops"], "KEY=VALUE"),
        (vec!["--header", "hops:int7=3"], "`int7` is no kind of header"),
        (vec!["--header", "hops:uint8=300"], "`300` is no uint8"),
        (vec!["--header", "a=1", "--header", "a=2"], "header `a` is given twice"),
    ];
    for (headers, says) in table {
        cluster
            .varve_with(&[&["produce", "shop/orders"], headers.as_slice()].concat(), b"one\n")
            .refused(2, says);
    }
    let described = cluster.varve(&["topic", "describe", "shop/orders", "--output", "json"]).json();
    assert_eq!(described["partitions"][0]["high_watermark"], 0);
}

#[test]
fn a_benchmark_says_how_its_topic_was_compressed() {
    let cluster = Cluster::start();
    let bench =
        ["bench", "end-to-end", "bench/one", "--create", "--compression", "lz4", "--compressible", "75"];
    let short = ["--rate", "500", "--duration", "1s", "--warm-up", "200ms", "--output", "json"];
    let report = cluster.varve(&[&bench[..], &short].concat()).json();
    let settings = report["settings"].as_array().unwrap();
    let value =
        |name: &str| settings.iter().find(|setting| setting["name"] == name).unwrap()["value"].clone();
    assert_eq!((value("compression"), value("compressible")), ("lz4".into(), "75 %".into()));
    assert_eq!(report["sides"][0]["records_in_all"], report["sides"][1]["records_in_all"]);
}

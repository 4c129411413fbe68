//! The file and its example belong together, and every mistake is told with its line and what would be right.

use super::file::{File, NodeTable, StorageTable, TimingTable, TlsTable, TransportTable};
use super::*;

const EXAMPLE: &str = include_str!("../../../cluster.toml");

const SMALLEST: &str = r#"
cluster_id = "000102030405060708090a0b0c0d0e0f"
[[node]]
id = 1
address = "localhost:7101"
data_dir = "data"
[tls]
ca = "ca.crt"
cert_dir = "tls"
"#;

fn parse(text: &str) -> Result<ClusterConfig, ConfigError> {
    ClusterConfig::parse(text, Path::new("etc/cluster.toml"))
}

#[test]
fn example_describes_three_nodes_on_loopback() {
    let config = parse(EXAMPLE).unwrap();
    assert_eq!(config.node_list(), "1, 2, 3");
    assert!(config.nodes.iter().all(|node| node.address.starts_with("127.0.0.1:")));
    assert_eq!(config.transport.path_mtu_max, 65_527);
}

#[test]
fn example_shows_every_key() {
    let file = File {
        cluster_id: toml::Spanned::new(0..0, String::new()),
        node: toml::Spanned::new(
            0..0,
            vec![NodeTable {
                id: toml::Spanned::new(0..0, 1),
                address: toml::Spanned::new(0..0, String::new()),
                data_dir: toml::Spanned::new(0..0, String::new()),
                cert: Some(String::new()),
                key: Some(String::new()),
            }],
        ),
        tls: TlsTable { ca: String::new(), cert_dir: String::new() },
        timing: TimingTable::default(),
        storage: StorageTable::default(),
        transport: TransportTable::default(),
    };
    let written = toml::to_string(&file).unwrap();
    let keys = written.lines().filter_map(|line| line.split_once(" = ")).map(|(key, _)| key);
    let mut count = 0;
    for key in keys {
        let shown =
            EXAMPLE.lines().any(|line| line.trim_start_matches("# ").starts_with(&format!("{key} = ")));
        assert!(shown, "`{key}` is not in the example");
        count += 1;
    }
    assert_eq!(count, 8 + NUMBER_KEYS.len(), "all keys were looked at");
}

#[test]
fn example_comments_tell_defaults_and_bounds() {
    for key in NUMBER_KEYS {
        let (_, name) = key.key.split_once('.').unwrap();
        let before = EXAMPLE.split(&format!("\n{name} = ")).next().unwrap();
        let comment: Vec<&str> = before.lines().rev().take_while(|line| line.starts_with('#')).collect();
        let says = format!("Default {}, from {} to {}.", key.default, key.min, key.max);
        assert!(comment.iter().any(|line| line.contains(&says)), "the comment of `{name}` says: {says}");
    }
}

#[test]
fn what_is_left_out_has_its_default() {
    let config = parse(SMALLEST).unwrap();
    let ms = |key: NumberKey| Duration::from_millis(key.default);
    assert_eq!(config.timing.pulse_interval, ms(PULSE_INTERVAL_MS));
    assert_eq!(config.timing.suspicion_timeout, ms(SUSPICION_TIMEOUT_MS));
    assert_eq!(config.timing.view_change_timeout, ms(VIEW_CHANGE_TIMEOUT_MS));
    assert_eq!(config.storage.segment_size_bytes_max, SEGMENT_SIZE_BYTES_MAX.default);
    assert_eq!(config.storage.segment_age_ms_max, SEGMENT_AGE_MS_MAX.default);
    assert_eq!(config.storage.memory_sync, ms(MEMORY_SYNC_MS));
    assert_eq!(config.storage.scrub_bytes_per_second_max, SCRUB_BYTES_PER_SECOND_MAX.default);
    assert_eq!(config.storage.scrub_bytes_per_second_max, crate::Timing::default().scrub_bytes_per_second);
    assert_eq!(u64::from(config.transport.path_mtu_max), PATH_MTU_MAX.default);
    let catch_up = config.transport.catch_up_bytes_per_second_max;
    assert_eq!(catch_up, CATCH_UP_BYTES_PER_SECOND_MAX.default);
}

#[test]
fn paths_start_at_the_folder_of_the_file() {
    let config = parse(&SMALLEST.replace("\"ca.crt\"", "\"/abs/ca.crt\"")).unwrap();
    assert_eq!(config.ca, Path::new("/abs/ca.crt"));
    assert_eq!(config.nodes[0].data_dir, Path::new("etc/data"));
    assert_eq!(config.nodes[0].cert, Path::new("etc/tls/node-1.crt"));
    let config = parse(&SMALLEST.replace("id = 1", "id = 1\nkey = \"secret/key.pem\"")).unwrap();
    assert_eq!(config.nodes[0].key, Path::new("etc/secret/key.pem"));
}

#[test]
fn a_missing_file_is_named() {
    let error = ClusterConfig::load("no/such/cluster.toml").unwrap_err().to_string();
    assert!(error.starts_with("cannot read no/such/cluster.toml: "), "{error}");
}

/// Puts `bad` for `good` in the smallest file and compares the error, which starts with the line.
fn assert_told(good: &str, bad: &str, says: &str) {
    let error = parse(&SMALLEST.replacen(good, bad, 1)).unwrap_err().to_string();
    assert_eq!(error, format!("etc/cluster.toml:{says}"), "for `{bad}`");
}

#[test]
fn a_wrong_value_is_told_with_its_line_and_what_is_right() {
    let address =
        |text: &str| format!("5: `address` is `{text}`; it must be `host:port`, such as `10.0.0.1:7101`");
    assert_told("id = 1\n", "id = 0\n", "4: `id` is 0; a node id is from 1 to 31");
    assert_told("id = 1\n", "id = 32\n", "4: `id` is 32; a node id is from 1 to 31");
    assert_told("id = 1\n", "", "3: missing key `id`");
    assert_told("id = 1\n", "id = \"1\"\n", "4: invalid type: string \"1\", expected u64");
    assert_told("localhost:7101", "localhost", &address("localhost"));
    assert_told("localhost:7101", "h:0", &address("h:0"));
    assert_told("localhost:7101", "::1:71", &address("::1:71"));
    assert_told(
        "0001",
        "",
        "2: `cluster_id`: `02030405060708090a0b0c0d0e0f` is not a cluster id: 32 hexadecimal digits are needed; \
         draw one with `openssl rand -hex 16`",
    );
    let timing = |line: &str| format!("[timing]\n{line}\n[tls]");
    assert_told(
        "[tls]",
        &timing("pulse_interval_ms = 0"),
        "8: `timing.pulse_interval_ms` is 0; it must be from 1 to 1000",
    );
    assert_told(
        "[tls]",
        &timing("pulse_interval_ms = 51"),
        "8: `timing.suspicion_timeout_ms` is 150; it must be at least 3 times `timing.pulse_interval_ms`, which is 51",
    );
    assert_told(
        "[tls]",
        "[transport]\npath_mtu_max = 65528\n[tls]",
        "8: `transport.path_mtu_max` is 65528; it must be from 1200 to 65527",
    );
}

#[test]
fn an_unknown_key_is_told_with_the_nearest_known_one() {
    assert_told("data_dir", "datadir", "6: unknown key `datadir`; did you mean `data_dir`?");
    assert_told("cert_dir", "certs", "9: unknown key `certs`; did you mean `cert_dir`?");
    assert_told("[tls]", "[timings]\n[tls]", "7: unknown key `timings`; did you mean `timing`?");
    assert_told("[tls]", "[xyzzy]\n[tls]", "7: unknown key `xyzzy`");
    assert_told(
        "[tls]",
        "[timing]\npulse_interval = 20\n[tls]",
        "8: unknown key `pulse_interval`; did you mean `pulse_interval_ms`?",
    );
}

#[test]
fn what_two_nodes_cannot_share_is_told() {
    let second = |id: u8, address: &str, data_dir: &str| {
        format!("[[node]]\nid = {id}\naddress = \"{address}\"\ndata_dir = \"{data_dir}\"\n[tls]")
    };
    assert_told("[tls]", &second(1, "b:1", "b"), "8: nodes 1 and 1 have the same `id`, 1");
    assert_told(
        "[tls]",
        &second(2, "localhost:7101", "b"),
        "9: nodes 1 and 2 have the same `address`, localhost:7101",
    );
    assert_told("[tls]", &second(2, "b:1", "data"), "10: nodes 1 and 2 have the same `data_dir`, etc/data");
}

#[test]
fn too_many_nodes_are_refused() {
    let more: String = (2..=8)
        .map(|id| format!("[[node]]\nid = {id}\naddress = \"h{id}:1\"\ndata_dir = \"d{id}\"\n"))
        .collect();
    let error = parse(&SMALLEST.replace("[tls]", &format!("{more}[tls]"))).unwrap_err().to_string();
    assert!(error.ends_with("there are 8 nodes; a cluster has from 1 to 7 in this version"), "{error}");
}

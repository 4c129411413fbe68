//! A node whose disk is sealed: nothing can be read of it without the key file, and everything with it.

use std::path::Path;
use std::process::{Child, Stdio};

use crate::cluster::{Ran, command, free_ports, varve_in, wait_for};

struct Node {
    folder: tempfile::TempDir,
    servers: String,
}

impl Node {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let base = free_ports(1);
        let config = format!(
            "cluster_id = \"00112233445566778899aabbccddeeff\"\n[[node]]\nid = 1\naddress = \"127.0.0.1:{base}\"\n\
             data_dir = \"data\"\n[tls]\nca = \"tls/ca.crt\"\ncert_dir = \"tls\"\n[storage]\nkey_file = \"node.key\"\n"
        );
        std::fs::write(folder.path().join("cluster.toml"), config).unwrap();
        Self { folder, servers: format!("varve://127.0.0.1:{base}/?ca=tls/ca.crt") }
    }

    fn varve(&self, arguments: &[&str]) -> Ran {
        varve_in(self.folder.path(), arguments, b"")
    }

    fn ask(&self, arguments: &[&str], stdin: &[u8]) -> Ran {
        varve_in(self.folder.path(), &[&["--servers", &self.servers], arguments].concat(), stdin)
    }

    /// Runs the node for as long as `work` takes.
    fn while_up(&self, work: impl FnOnce()) {
        let mut node: Child = command(self.folder.path(), &["node", "--id", "1", "--exit-with-parent"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_for("the node", || (self.ask(&["cluster", "status"], b"").code == Some(0)).then_some(()));
        work();
        drop(node.stdin.take());
        assert!(node.wait().unwrap().success());
    }
}

/// Whether any file below a folder has these bytes.
fn has(folder: &Path, bytes: &[u8]) -> bool {
    std::fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        let holds = |text: Vec<u8>| text.windows(bytes.len()).any(|window| window == bytes);
        if path.is_dir() { has(&path, bytes) } else { holds(std::fs::read(&path).unwrap()) }
    })
}

#[test]
fn nothing_can_be_read_without_the_key_file() {
    let node = Node::new();
    node.varve(&["cert"]).ok();
    node.varve(&["format", "--id", "1"]).ok();
    node.varve(&["node", "--id", "1"]).refused(2, "varve key");
    let first = node.varve(&["key", "node.key", "--output", "json"]).json();
    assert_eq!(first["older"], 0);

    node.while_up(|| {
        node.ask(&["stream", "create", "archive"], b"").ok();
        node.ask(&["topic", "create", "archive/letters"], b"").ok();
        node.ask(&["produce", "archive/letters"], b"for nobody else\nto read\n").ok();
    });
    let data = node.folder.path().join("data");
    for secret in ["for nobody else", "letters", "archive"] {
        assert!(!has(&data, secret.as_bytes()), "{secret}");
    }
    let told = node.varve(&["verify", "data"]);
    let said = String::from_utf8_lossy(&told.stdout).into_owned();
    let key = first["key"].as_str().unwrap();
    assert!(said.contains(key) && said.contains("prepares are right") && !said.contains("damaged"), "{said}");
    told.refused(1, "findings in data");
    node.varve(&["verify", "data", "--key-file", "node.key"]).ok();
    let dumped = node.varve(&["dump", "data", "--group", "1", "--records", "--key-file", "node.key"]).text();
    assert!(dumped.contains("for nobody else"), "{dumped}");

    let second = node.varve(&["key", "node.key", "--output", "json"]).json();
    assert!(second["older"] == 1 && second["key"] != first["key"]);
    node.while_up(|| {
        node.ask(&["produce", "archive/letters"], b"nor this\n").ok();
        let read = node.ask(&["consume", "archive/letters", "--until-end"], b"").ok();
        assert_eq!(read, b"for nobody else\nto read\nnor this\n");
    });
    let keys = std::fs::read_to_string(node.folder.path().join("node.key")).unwrap();
    std::fs::write(node.folder.path().join("node.key"), keys.lines().nth(1).unwrap()).unwrap();
    node.varve(&["node", "--id", "1"]).refused(2, key);
    std::fs::write(node.folder.path().join("node.key"), "a key").unwrap();
    node.varve(&["node", "--id", "1"]).refused(2, "line 1 of the key file");
    node.varve(&["key", "node.key"]).refused(2, "line 1 of the key file");

    let group = data.join("groups/0000000001");
    let files = std::fs::read_dir(&group).unwrap().map(|entry| entry.unwrap().path());
    let segment = files.filter(|path| path.extension().is_some_and(|suffix| suffix == "log")).min().unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[4096 + 300] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let told = node.varve(&["verify", "data"]);
    assert!(
        String::from_utf8_lossy(&told.stdout).contains("damaged from position 4"),
        "rot is seen without the key"
    );
}

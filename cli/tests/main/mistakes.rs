//! Mistakes that new users make: one line that says what to do, and an exit code.

use crate::cluster::{Cluster, varve_in};

#[test]
fn wrong_usage_is_told_before_anything_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let varve = |arguments: &[&str]| varve_in(folder.path(), arguments, b"");
    varve(&["topic", "list"]).refused(2, "start one, or name a cluster with --servers");
    varve(&["topic", "create", "orders"]).refused(2, "STREAM/TOPIC");
    varve(&["topic", "create", "shop/or ders"]).refused(2, "not a legal name");
    varve(&["node", "--config", "nowhere.toml", "--id", "1"]).refused(2, "cannot read nowhere.toml");
    varve(&["node", "--id", "32"]).refused(2, "32");
    varve(&["dev", "--base-port", "65535"]).refused(2, "choose a lower --base-port");
    varve(&["--servers", "localhost:7101", "topic", "list"]).refused(2, "varve://");
    varve(&["topic", "list", "--log", "a=b=c"]).refused(2, "is not a log filter");
}

#[test]
fn nobody_there_is_told_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start();
    let ca = cluster.folder.path().join("varve-data/tls/ca.crt");
    let port = crate::cluster::free_ports(1);
    let url = format!("varve://127.0.0.1:{port}/?ca={}", ca.display());
    varve_in(folder.path(), &["--servers", &url, "topic", "list"], b"").refused(3, "127.0.0.1");
}

#[test]
fn another_authority_is_not_trusted() {
    let (cluster, other) = (Cluster::start(), Cluster::start());
    let running = cluster.running();
    let (addresses, _) = running["servers"].as_str().unwrap().split_once("?ca=").unwrap();
    let ca = other.folder.path().join("varve-data/tls/ca.crt");
    let url = format!("{addresses}?ca={}", ca.display());
    cluster.varve(&["--servers", &url, "topic", "list"]).refused(3, "certificate");
    let url = format!("{addresses}?ca=nowhere.crt");
    cluster.varve(&["--servers", &url, "topic", "list"]).refused(2, "nowhere.crt");
}

#[test]
fn what_the_cluster_refuses_says_what_to_do() {
    let cluster = Cluster::start();
    cluster.varve(&["topic", "create", "shop/orders"]).refused(1, "varve stream create shop");
    cluster.varve(&["stream", "create", "shop"]).ok();
    cluster.varve(&["stream", "create", "shop"]).refused(1, "exists already");
    cluster.varve_with(&["produce", "shop/orders"], b"x\n").refused(1, "varve topic create shop/orders");
    cluster.varve(&["consume", "shop/orders", "--until-end"]).refused(1, "varve topic create shop/orders");
    cluster
        .varve(&["topic", "create", "shop/orders", "--replication-factor", "2"])
        .refused(1, "1, 3, 5 or 7");
    cluster
        .varve(&["topic", "create", "shop/orders", "--replication-factor", "5"])
        .refused(1, "at most the 3 nodes");
    cluster.varve(&["topic", "create", "shop/orders"]).ok();
    cluster.varve(&["stream", "delete", "shop"]).refused(1, "varve topic delete");
    cluster.varve_with(&["produce", "shop/orders", "--partition", "1"], b"x\n").refused(2, "partition 0");
    cluster.varve(&["consume", "shop/orders", "--from", "7", "--until-end"]).refused(1, "out of range");
    cluster.varve(&["consume", "shop/orders", "--from", "yesterday"]).refused(2, "how long ago (`90s`)");

    let line = [b'x'; 2_000];
    cluster
        .varve_with(&["produce", "shop/orders", "--batch-bytes", "1024"], &line)
        .refused(2, "raise --batch-bytes");
    let long = [b"short\n".as_slice(), &vec![b'x'; 2 << 20]].concat();
    cluster.varve_with(&["produce", "shop/orders"], &long).refused(1, "line 2 is too long");
    let just_over = [b"short\n".as_slice(), &vec![b'x'; (1 << 20) - 64]].concat();
    cluster.varve_with(&["produce", "shop/orders"], &just_over).refused(1, "line 2 is too long");
    cluster
        .varve_with(&["produce", "shop/orders", "--key-separator", ":"], b"a:b\nab\n")
        .refused(1, "line 2 has no `:`");
}

#[test]
fn a_data_directory_belongs_to_one_node() {
    let mut cluster = Cluster::start();
    cluster.varve(&["dev"]).refused(2, "another `varve dev`");
    let base =
        cluster.running()["nodes"][0]["address"].as_str().unwrap().rsplit_once(':').unwrap().1.to_owned();
    cluster.varve(&["dev", "--data-dir", "other", "--base-port", &base]).refused(2, "--base-port");
    cluster.stop();
    let data = cluster.folder.path().join("varve-data");
    std::fs::rename(data.join("node-1"), data.join("aside")).unwrap();
    std::fs::rename(data.join("node-2"), data.join("node-1")).unwrap();
    let ran = cluster.varve(&["node", "--config", "varve-data/cluster.toml", "--id", "1", "--log", "error"]);
    ran.refused(2, "node-1");
    cluster.varve(&["dev", "--nodes", "5"]).refused(2, "has 3 nodes and keeps them");
}

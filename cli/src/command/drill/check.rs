//! `varve drill check`: whether a machine and a cluster are fit, before they are trusted with anything. Changes nothing; a file is
//! written and removed again, and each node sends two megabytes of filler to each other one, behind all else.

mod pairs;

use std::net::{SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, anyhow};
use rustix::net::sockopt;
use rustix::process::{Resource, getrlimit};
use serde::Serialize;
use varve_client::{Admin, Client};
use varve_protocol::client::NodeVitals;
use varve_protocol::metadata::NodeEntry;
use varve_replica::config::PATH_MTU_MAX;
use varve_transport::Tuning;

use super::process::NodeProcess;
use crate::connection;
use crate::context::Context;
use crate::failure::{Failure, Kind, Outcome};
use crate::measure::clock::Clock;
use crate::measure::disk::Disk;
use crate::measure::latency::{Latency, count, histogram};
use crate::output::{self, counted, table};

/// A synced write of 4 KiB that takes longer than this is felt in every append.
const SYNC_MS_MAX: f64 = 20.0;

/// No disk is faster than this.
const SYNC_MS_MIN: f64 = 0.02;

/// Megabytes per second that a disk takes at least, each synced.
const DISK_RATE_MIN: f64 = 50.0;

/// Questions to each node.
const QUESTIONS: u32 = 50;

/// A round trip that takes longer is far for a cluster that misses a node after a fraction of a second.
const TRIP_MS_MAX: f64 = 20.0;

/// Open files that a node may need: one for each partition with records, and connections.
const FILES_MIN: u64 = 16_384;

/// What an IP packet and a UDP datagram put before their payload.
const HEADERS_SIZE: u32 = 28;

/// What `varve drill check` takes.
#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// The disk to measure: a directory beside the data of a node [default: --data-dir if it is there, or else this folder]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// What was looked at, and what came of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct Finding {
    what: String,
    value: String,
    verdict: Verdict,
    /// What to do, or why it is not known.
    advice: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Fine,
    LookAtThis,
    NotKnown,
}

impl Finding {
    /// Fine, or to be looked at with this advice.
    fn judge(what: &str, value: String, bad: Option<String>) -> Self {
        let verdict = if bad.is_none() { Verdict::Fine } else { Verdict::LookAtThis };
        Self { what: what.to_owned(), value, verdict, advice: bad }
    }

    fn not_known(what: &str, why: &str) -> Self {
        let (value, advice) = ("-".to_owned(), Some(why.to_owned()));
        Self { what: what.to_owned(), value, verdict: Verdict::NotKnown, advice }
    }
}

/// Checks.
pub(super) async fn run(context: &Context, arguments: &Arguments) -> Outcome {
    let here = if context.data_dir.is_dir() { context.data_dir.clone() } else { PathBuf::from(".") };
    let dir = arguments.dir.clone().unwrap_or(here);
    let mut findings = disk(dir).await?;
    findings.push(open_files("open files of a node started from here", getrlimit(Resource::Nofile).maximum));
    findings.extend(buffers()?);
    match connection::connect(context).await {
        Ok(client) => findings.extend(cluster(&client).await?),
        Err(failure) if failure.kind() == Kind::Usage && context.servers.is_none() => {
            let why = "no cluster was named: start one, or name one with --servers";
            findings.push(Finding::not_known("the nodes", why));
        }
        Err(failure) => return Err(failure),
    }
    output::print(context.output, &findings, |findings| text(findings))?;
    let bad = findings.iter().filter(|finding| finding.verdict == Verdict::LookAtThis).count();
    if bad == 0 {
        return Ok(());
    }
    Err(Failure::refused(anyhow!("{} to look at, as told above", counted(bad, "thing"))))
}

fn text(findings: &[Finding]) -> String {
    let rows = findings.iter().map(|finding| {
        let verdict = match finding.verdict {
            Verdict::Fine => "fine",
            Verdict::LookAtThis => "LOOK AT THIS",
            Verdict::NotKnown => "not known",
        };
        vec![finding.what.clone(), finding.value.clone(), verdict.to_owned()]
    });
    let mut text = table(&["WHAT", "MEASURED", "VERDICT"], &[], rows);
    let advised = findings.iter().filter_map(|finding| Some((finding, finding.advice.as_ref()?)));
    text.extend(advised.map(|(finding, advice)| format!("\n{}: {advice}\n", finding.what)));
    text
}

/// Synced writes in a directory.
async fn disk(dir: PathBuf) -> Outcome<Vec<Finding>> {
    let failed = format!("cannot measure the disk in {}", dir.display());
    let name = dir.display().to_string();
    let measured = tokio::task::spawn_blocking(move || Disk::measure(&dir, &Clock::start())).await;
    let measured = measured.context("the thread that measures has ended").map_err(Failure::refused)?;
    Ok(judge_disk(&name, &measured.context(failed).map_err(Failure::usage)?))
}

fn judge_disk(dir: &str, disk: &Disk) -> Vec<Finding> {
    let (sync, rate) = (disk.write_4kib_ms, disk.disk_megabytes_per_second);
    let bad_sync = match sync.p50 {
        p50 if p50 < SYNC_MS_MIN => Some(
            "no disk syncs as fast as that: this is memory, or something that forgets what it was told to keep; put the data \
             directory on a disk"
                .to_owned(),
        ),
        _ if sync.p99 > SYNC_MS_MAX => Some(format!(
            "every append waits for such a write on a majority of the nodes; a disk that keeps what it has in its cache when \
             the power fails takes less than {SYNC_MS_MAX} ms; is something else writing?"
        )),
        _ => None,
    };
    let bad_rate = (rate < DISK_RATE_MIN).then(|| {
        format!("a node appends no faster than its disk takes synced writes; {DISK_RATE_MIN} MB/s are little today")
    });
    vec![
        Finding::judge(
            &format!("sync of 4 KiB in {dir}"),
            format!("p50 {:.2} ms, p99 {:.2} ms, most {:.2} ms", sync.p50, sync.p99, sync.max),
            bad_sync,
        ),
        Finding::judge(&format!("synced writes of 1 MiB in {dir}"), format!("{rate:.0} MB/s"), bad_rate),
    ]
}

/// A limit of open files; none is no limit.
fn open_files(what: &str, limit: Option<u64>) -> Finding {
    let bad = limit.filter(|limit| *limit < FILES_MIN).map(|limit| {
        format!(
            "a node opens a file for each partition with records and gets no more than {limit}; raise the hard limit to {FILES_MIN} or \
             more: `ulimit -Hn`, `LimitNOFILE=` of a systemd unit, or /etc/security/limits.conf"
        )
    });
    Finding::judge(what, limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string()), bad)
}

/// How large the buffers of a UDP socket get that asks for what nodes ask for.
fn buffers() -> Outcome<Vec<Finding>> {
    let wanted = Tuning::default().socket_buffer_bytes;
    let given = || -> std::io::Result<(usize, usize)> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        sockopt::set_socket_recv_buffer_size(&socket, wanted)?;
        sockopt::set_socket_send_buffer_size(&socket, wanted)?;
        // The kernel counts its own bookkeeping, as much again, and tells both.
        let (receive, send) =
            (sockopt::socket_recv_buffer_size(&socket)?, sockopt::socket_send_buffer_size(&socket)?);
        Ok((receive / 2, send / 2))
    };
    let (receive, send) = given().context("cannot ask for a socket").map_err(Failure::refused)?;
    let judge = |what: &str, given: usize, key: &str| {
        let bad = (given < wanted).then(|| {
            format!("bursts are lost that do not fit, and sent again later; `sysctl -w {key}={wanted}`, and in /etc/sysctl.d")
        });
        Finding::judge(what, format!("{given} of {wanted} bytes"), bad)
    };
    Ok(vec![
        judge("UDP receive buffer", receive, "net.core.rmem_max"),
        judge("UDP send buffer", send, "net.core.wmem_max"),
    ])
}

/// What the nodes say and how long they take to say it.
async fn cluster(client: &Client) -> Outcome<Vec<Finding>> {
    let map = client.admin().map().await?;
    let (admin, mut findings) = (client.admin(), Vec::new());
    for node in &map.nodes {
        findings.extend(node_findings(&admin, node, &map.nodes).await);
    }
    findings.extend(pairs::findings(&admin, &map.nodes).await);
    Ok(findings)
}

async fn node_findings(admin: &Admin, node: &NodeEntry, nodes: &[NodeEntry]) -> Vec<Finding> {
    let name = format!("node {} at {}", node.node.as_raw(), node.address);
    let mut latency_us = histogram();
    let mut last = None;
    for _ in 0..QUESTIONS {
        let asked = Instant::now();
        match admin.vitals_of(node).await {
            Ok(vitals) => {
                count(&mut latency_us, asked.elapsed());
                last = Some(vitals);
            }
            Err(error) => {
                let advice =
                    "does it run, and does every firewall on the way let UDP through, both ways?".to_owned();
                return vec![Finding::judge(&name, error.to_string(), Some(advice))];
            }
        }
    }
    let mut findings = vec![judge_trips(&format!("round trip to {name}"), &Latency::of(&latency_us))];
    findings.extend(last.map(|vitals| judge_hearing(&name, &vitals, nodes)));
    findings.push(path_mtu(&format!("largest packet to {name}"), &node.address));
    if let Some(process) = NodeProcess::find(node) {
        let limits = Path::new("/proc").join(process.pid.to_string()).join("limits");
        if let Some(limit) = std::fs::read_to_string(limits).ok().as_deref().and_then(hard_limit_of_files) {
            findings.push(open_files(&format!("open files of {name}"), Some(limit)));
        }
    }
    findings
}

fn judge_trips(what: &str, latency: &Latency) -> Finding {
    let bad = (latency.p50 > TRIP_MS_MAX).then(|| {
        "every append travels from the primary to a majority and back; if the nodes are as far from each other, raise \
         `timing.suspicion_timeout_ms` to many times that"
            .to_owned()
    });
    Finding::judge(what, format!("p50 {:.2} ms, p99 {:.2} ms", latency.p50, latency.p99), bad)
}

fn judge_hearing(name: &str, vitals: &NodeVitals, nodes: &[NodeEntry]) -> Finding {
    let deaf_to: Vec<String> = nodes
        .iter()
        .filter(|node| !vitals.hears.contains(&node.node))
        .map(|node| node.node.as_raw().to_string())
        .collect();
    let bad = (!deaf_to.is_empty()).then(|| {
        format!(
            "it does not hear node {}: is that one down, or does a firewall between the two stop UDP?",
            deaf_to.join(" and ")
        )
    });
    let value = format!("{} of {}", nodes.len() - deaf_to.len(), counted(nodes.len(), "node"));
    Finding::judge(&format!("{name} hears"), value, bad)
}

/// How large a packet the way to an address takes, as far as this machine knows.
fn path_mtu(what: &str, address: &str) -> Finding {
    let asked = || -> std::io::Result<u32> {
        let found: Option<SocketAddr> = address.to_socket_addrs()?.find(SocketAddr::is_ipv4);
        let to = found.ok_or_else(|| std::io::Error::other("only IPv4 is asked"))?;
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(to)?;
        Ok(sockopt::ip_mtu(&socket)?)
    };
    match asked() {
        Ok(mtu) => judge_mtu(what, mtu),
        Err(error) => Finding::not_known(what, &error.to_string()),
    }
}

fn judge_mtu(what: &str, mtu: u32) -> Finding {
    let needed = u32::try_from(PATH_MTU_MAX.default).unwrap_or(u32::MAX).saturating_add(HEADERS_SIZE);
    let payload = mtu.saturating_sub(HEADERS_SIZE);
    let bad = (mtu < needed).then(|| {
        format!("nodes find out by themselves what goes through, and lose some packets doing so; `transport.path_mtu_max = {payload}` spares them that")
    });
    Finding::judge(what, format!("{mtu} bytes"), bad)
}

/// The hard limit of open files in what `/proc/PID/limits` says.
fn hard_limit_of_files(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::disk::Times;

    fn verdicts(sync: (f64, f64), rate: f64) -> Vec<Verdict> {
        let times = Times { p50: sync.0, p99: sync.1, max: sync.1 };
        let disk = Disk { disk_megabytes_per_second: rate, write_1mib_ms: times, write_4kib_ms: times };
        judge_disk("here", &disk).iter().map(|finding| finding.verdict).collect()
    }

    use Verdict::{Fine, LookAtThis};

    #[test]
    fn a_disk_may_be_too_slow_and_too_fast() {
        assert_eq!(verdicts((0.3, 2.0), 300.0), [Fine, Fine]);
        assert_eq!(verdicts((5.0, 60.0), 20.0), [LookAtThis, LookAtThis]);
        assert_eq!(verdicts((0.002, 0.01), 3_000.0), [LookAtThis, Fine]);
    }

    #[test]
    fn limits_are_read_and_judged() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max processes             15000                15000                processes\n\
                      Max open files            1024                 524288               files\n";
        assert_eq!(hard_limit_of_files(limits), Some(524_288));
        assert_eq!(hard_limit_of_files("nothing"), None);
        let verdict = |limit| open_files("files", limit).verdict;
        assert_eq!([verdict(Some(1_024)), verdict(Some(524_288)), verdict(None)], [LookAtThis, Fine, Fine]);
    }

    #[test]
    fn far_nodes_deaf_nodes_and_narrow_ways_are_seen() {
        let latency = |p50| Latency { p50, p90: p50, p99: p50, p99_9: p50, p99_99: p50, max: p50 };
        assert_eq!(judge_trips("x", &latency(0.4)).verdict, Fine);
        assert_eq!(judge_trips("x", &latency(80.0)).verdict, LookAtThis);
        assert_eq!([judge_mtu("x", 1_500).verdict, judge_mtu("x", 1_280).verdict], [Fine, LookAtThis]);
        let nodes = [1, 2, 3].map(|id| NodeEntry {
            node: varve_protocol::id::NodeId::new(id),
            address: format!("h{id}:1"),
            versions: None,
        });
        let mut vitals = NodeVitals {
            node: nodes[0].node,
            uptime_ms: 1,
            hears: nodes.iter().map(|node| node.node).collect(),
            counts: varve_protocol::client::RoleCounts::default(),
            frames_dropped: 0,
            scrub: Default::default(),
            map_op: varve_protocol::id::Op::ZERO,
        };
        assert_eq!(judge_hearing("node 1", &vitals, &nodes).verdict, Fine);
        vitals.hears.pop();
        let deaf = judge_hearing("node 1", &vitals, &nodes);
        assert!(deaf.advice.unwrap().contains("does not hear node 3") && deaf.value == "2 of 3 nodes");
    }

    #[test]
    fn buffers_are_given_and_told() {
        assert_eq!(buffers().unwrap().len(), 2);
        assert_eq!(path_mtu("x", "127.0.0.1:1").verdict, Fine, "loopback takes large packets");
    }
}

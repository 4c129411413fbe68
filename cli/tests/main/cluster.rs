//! A `varve dev` in a folder of its own, and commands run against it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// How long anything may take at most, on a machine that is busy with other tests.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// What a command came to.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ran {
    fn new(output: Output) -> Self {
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        Self { code: output.status.code(), stdout: output.stdout, stderr }
    }

    /// What was printed, if it went well.
    #[track_caller]
    pub(crate) fn ok(self) -> Vec<u8> {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self.stdout
    }

    #[track_caller]
    pub(crate) fn text(self) -> String {
        String::from_utf8(self.ok()).unwrap()
    }

    #[track_caller]
    pub(crate) fn json(self) -> Value {
        serde_json::from_slice(&self.ok()).unwrap()
    }

    /// Checks that it failed with this code and one line that says this.
    #[track_caller]
    pub(crate) fn refused(self, code: i32, says: &str) {
        assert_eq!(self.code, Some(code), "{}", self.stderr);
        let errors: Vec<&str> = self.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "{}", self.stderr);
        assert!(errors[0].contains(says), "`{says}` is not in: {}", errors[0]);
    }
}

/// Runs `varve` in a folder, with this on its stdin.
pub(crate) fn varve_in(folder: &Path, arguments: &[&str], stdin: &[u8]) -> Ran {
    let mut child = command(folder, arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let input = stdin.to_vec();
    // A command that fails early closes its end: that is its right.
    let feeder = std::thread::spawn(move || drop(pipe.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    Ran::new(output)
}

/// `varve` in a folder, to be run.
pub(crate) fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_varve"));
    command.args(arguments).current_dir(folder);
    command.env_remove("VARVE_SERVERS").env_remove("VARVE_DATA_DIR").env_remove("VARVE_LOG");
    command
}

/// The first of a row of UDP ports that are free at the moment.
pub(crate) fn free_ports(count: u16) -> u16 {
    for _ in 0..100 {
        let first = UdpSocket::bind("127.0.0.1:0").unwrap();
        let base = first.local_addr().unwrap().port();
        let Some(end) = base.checked_add(count) else { continue };
        let others: Result<Vec<UdpSocket>, _> =
            (base + 1..end).map(|port| UdpSocket::bind(("127.0.0.1", port))).collect();
        if others.is_ok() {
            return base;
        }
    }
    panic!("no {count} free ports in a row");
}

/// Asks again until there is an answer.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < DEADLINE, "waited for {what} in vain");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A cluster, of three nodes unless told otherwise.
pub(crate) struct Cluster {
    pub(crate) folder: TempDir,
    dev: Child,
    nodes: u16,
}

impl Cluster {
    pub(crate) fn start() -> Self {
        Self::start_of(3)
    }

    pub(crate) fn start_of(nodes: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dev = Self::dev(folder.path(), nodes);
        Self { folder, dev, nodes }
    }

    /// Starts `varve dev` and waits until it says that it is ready. Another process may take the ports in between.
    fn dev(folder: &Path, nodes: u16) -> Child {
        for _ in 0..5 {
            let base = free_ports(nodes).to_string();
            let count = nodes.to_string();
            let mut dev =
                command(folder, &["dev", "--nodes", &count, "--base-port", &base, "--output", "json"])
                    .stdin(Stdio::null())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped())
                    .spawn()
                    .unwrap();
            let stdout = dev.stdout.take().unwrap();
            let (told, ready) = mpsc::channel();
            std::thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    let _ = told.send(line);
                }
            });
            match ready.recv_timeout(DEADLINE) {
                Ok(_) => return dev,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    let _ = dev.kill();
                    let logs: String = (1..=nodes)
                        .map(|node| {
                            std::fs::read_to_string(folder.join(format!("varve-data/node-{node}.log")))
                        })
                        .map(Result::unwrap_or_default)
                        .collect();
                    panic!("the cluster did not get ready; its logs: {logs}");
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    let mut error = String::new();
                    dev.stderr.take().unwrap().read_to_string(&mut error).unwrap();
                    let _ = dev.wait();
                    assert!(error.contains("choose other ports with --base-port"), "{error}");
                }
            }
        }
        panic!("the ports were taken five times");
    }

    /// Runs a command in the folder of the cluster.
    pub(crate) fn varve(&self, arguments: &[&str]) -> Ran {
        self.varve_with(arguments, b"")
    }

    /// The same, with something on its stdin.
    pub(crate) fn varve_with(&self, arguments: &[&str], stdin: &[u8]) -> Ran {
        varve_in(self.folder.path(), arguments, stdin)
    }

    /// What `varve dev` tells other commands.
    pub(crate) fn running(&self) -> Value {
        let file = self.folder.path().join("varve-data/dev.json");
        serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
    }

    /// The process of a node, if it runs.
    pub(crate) fn pid(&self, node: u64) -> Option<u64> {
        let running = self.running();
        let nodes = running["nodes"].as_array().unwrap().clone();
        nodes.iter().find(|entry| entry["id"] == node).and_then(|entry| entry["pid"].as_u64())
    }

    /// Who leads a partition, by asking the nodes.
    pub(crate) fn primary(&self, name: &str) -> u64 {
        wait_for("a primary", || {
            let ran = self.varve(&["cluster", "status", "--output", "json"]);
            let status: Value = serde_json::from_slice(&ran.stdout).ok()?;
            let groups = status["groups"].as_array()?.clone();
            let group = groups.iter().find(|group| group["name"] == name && group["available"] == true)?;
            group["primary"].as_u64()
        })
    }

    /// Stops the cluster in good order and starts it again on the same data.
    pub(crate) fn restart(&mut self) {
        self.stop();
        self.start_again();
    }

    /// Starts it again after it was stopped.
    pub(crate) fn start_again(&mut self) {
        self.dev = Self::dev(self.folder.path(), self.nodes);
    }

    /// Starts a node that has died, until its stdin ends.
    pub(crate) fn start_node(&self, node: u64) -> Child {
        let id = node.to_string();
        let arguments = ["node", "--config", "varve-data/cluster.toml", "--id", &id, "--exit-with-parent"];
        command(self.folder.path(), &arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// Restarts it with a table more in its `cluster.toml`.
    pub(crate) fn restart_with(&mut self, table: &str) {
        self.stop();
        let file = self.folder.path().join("varve-data/cluster.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, format!("{text}\n{table}\n")).unwrap();
        self.dev = Self::dev(self.folder.path(), self.nodes);
    }

    /// Stops it as a user does.
    pub(crate) fn stop(&mut self) {
        send_signal("TERM", u64::from(self.dev.id()));
        let status = wait_for("the end of varve dev", || self.dev.try_wait().unwrap());
        assert_eq!(status.code(), Some(0), "it stops in good order");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.dev.try_wait().is_ok_and(|status| status.is_none()) {
            send_signal("TERM", u64::from(self.dev.id()));
            let _ = self.dev.wait();
        }
    }
}

/// Sends a signal to a process.
pub(crate) fn send_signal(signal: &str, pid: u64) {
    let status = Command::new("sh").args(["-c", &format!("kill -{signal} {pid}")]).status().unwrap();
    assert!(status.success(), "the signal was sent");
}

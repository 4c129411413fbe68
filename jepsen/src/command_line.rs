//! Other programs: run, waited for within a bound, and their words kept for the error.

use std::ffi::OsStr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use tokio::process::Command;

/// What a program that ended said.
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a program to its end, or kills it when it takes too long.
pub(crate) async fn ask<S: AsRef<OsStr>>(
    program: &str,
    arguments: impl IntoIterator<Item = S>,
    limit: Duration,
) -> anyhow::Result<Said> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(limit, command.output())
        .await
        .map_err(|_| anyhow!("`{program}` took longer than {limit:?}"))?
        .with_context(|| format!("cannot run `{program}`"))?;
    Ok(Said {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// How long a program that only changes something in the system may take.
const QUICK: Duration = Duration::from_secs(20);

/// Runs a line like `ip link add ...`, which must succeed.
pub(crate) async fn must(line: &str) -> anyhow::Result<()> {
    let mut words = line.split_whitespace();
    let program = words.next().context("an empty command")?;
    let said = ask(program, words, QUICK).await?;
    if said.code != Some(0) {
        bail!("`{line}` failed: {}", said.stderr);
    }
    Ok(())
}

/// The same without tokio, for cleaning up on the way out; what fails is passed over, for it may be gone already.
pub(crate) fn try_now(line: &str) {
    let mut words = line.split_whitespace();
    if let Some(program) = words.next() {
        let _ = std::process::Command::new(program)
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}

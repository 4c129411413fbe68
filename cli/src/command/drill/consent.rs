//! Whether an operator really wants what hurts.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use anyhow::anyhow;

use crate::failure::{Failure, Outcome};

/// Asks on a terminal; elsewhere somebody must have said so.
pub(super) fn ask(what: &str, is_said: Said) -> Outcome {
    if is_said == Said::Yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage(anyhow!("this {what}; nobody can be asked here, so say --yes to do it")));
    }
    let mut stderr = std::io::stderr();
    let mut answer = String::new();
    let asked = write!(stderr, "This {what}.\nType `yes` to do it: ").and_then(|()| stderr.flush());
    let answered = asked.and_then(|()| std::io::stdin().lock().read_line(&mut answer));
    if answered.is_ok() && answer.trim() == "yes" {
        return Ok(());
    }
    Err(Failure::usage(anyhow!("nothing was done")))
}

/// What was said on the command line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Said {
    Yes,
    Nothing,
}

//! Results on stdout: tables for people, JSON for programs.

use std::io::{ErrorKind, Write};

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::failure::{Failure, Outcome};

/// How results are printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON document, or one per line where there is no end in sight.
    Json,
}

/// Prints a result: `text` for people, the value itself for programs.
pub(crate) fn print<T: Serialize>(format: Format, value: &T, text: impl FnOnce(&T) -> String) -> Outcome {
    let mut printed = match format {
        Format::Text => text(value),
        Format::Json => serde_json::to_string_pretty(value).expect("our own structures become JSON"),
    };
    if !printed.is_empty() && !printed.ends_with('\n') {
        printed.push('\n');
    }
    let mut stdout = std::io::stdout().lock();
    quiet(stdout.write_all(printed.as_bytes()).and_then(|()| stdout.flush()))
}

/// A reader that went away (as `head` does) is no failure.
pub(crate) fn quiet(result: std::io::Result<()>) -> Outcome {
    match result {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::refused(anyhow::Error::new(error).context("cannot write to stdout")))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// A table of words and numbers; the columns named in `right` hold numbers.
pub(crate) fn table(head: &[&str], right: &[usize], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(head.to_vec());
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    for column in right {
        if let Some(column) = table.column_mut(*column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// `1 node`, `3 nodes`.
pub(crate) fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

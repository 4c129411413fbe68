//! What happened, as an ASCII sequence diagram: time runs down, one column per replica, a message drawn where it arrives.

use varve_protocol::message::{Message, SuffixSlot};

const COLUMN_WIDTH: usize = 10;

#[derive(Clone, Debug)]
enum Row {
    At { node: usize, what: String },
    Arrow { from: usize, to: usize, what: String, arrives: bool },
    Note(String),
}

#[derive(Clone)]
pub(crate) struct Trace {
    count: usize,
    rows: Vec<Row>,
    is_muted: bool,
}

impl Trace {
    pub(crate) fn new(count: usize) -> Self {
        Self { count, rows: Vec::new(), is_muted: true }
    }

    pub(crate) fn unmute(&mut self) {
        self.is_muted = false;
    }

    pub(crate) fn mute(&mut self) {
        self.is_muted = true;
    }

    pub(crate) fn note(&mut self, what: &str) {
        self.push(Row::Note(what.to_owned()));
    }

    pub(crate) fn at(&mut self, node: usize, what: impl Into<String>) {
        if !self.is_muted {
            self.push(Row::At { node, what: what.into() });
        }
    }

    pub(crate) fn arrow(&mut self, from: usize, to: usize, what: String, arrives: bool) {
        self.push(Row::Arrow { from, to, what, arrives });
    }

    fn push(&mut self, row: Row) {
        if !self.is_muted {
            self.rows.push(row);
        }
    }

    pub(crate) fn render(&self) -> String {
        let head: String = (0..self.count)
            .map(|node| {
                format!("{:>width$}", format!("r{node}"), width = if node == 0 { 6 } else { COLUMN_WIDTH })
            })
            .collect();
        let rows = self.rows.iter().map(|row| self.render_row(row));
        std::iter::once(format!("{head}\n")).chain(rows).collect()
    }

    fn render_row(&self, row: &Row) -> String {
        let column = |node: usize| 5 + node * COLUMN_WIDTH;
        let mut line: Vec<char> = vec![' '; column(self.count - 1) + 1];
        for node in 0..self.count {
            line[column(node)] = '│';
        }
        let what = match row {
            Row::Note(what) => return format!("     --- {what}\n"),
            Row::At { node, what } => {
                line[column(*node)] = '●';
                what
            }
            Row::Arrow { from, to, what, arrives } => {
                let (start, end) = (column(*from), column(*to));
                let tip = if *arrives { end } else { usize::midpoint(start, end) };
                line[start.min(tip)..=start.max(tip)].fill('─');
                line[start] = if end > start { '├' } else { '┤' };
                line[tip] = match (arrives, end > start) {
                    (false, _) => '╳',
                    (true, true) => '▶',
                    (true, false) => '◀',
                };
                what
            }
        };
        let line: String = line.into_iter().collect();
        format!("{line}        {what}\n")
    }
}

/// A message in a few words; the envelope's view first.
pub(crate) fn describe(message: &Message) -> String {
    let view = message.view();
    match message {
        Message::Prepare { commit, prepare, .. } => {
            format!("{view} prepare {} commit={}", prepare.id(), commit.op)
        }
        Message::PrepareOk { id, .. } => format!("{view} prepare_ok {id}"),
        Message::Commit { commit, .. } => format!("{view} commit {commit}"),
        Message::StartViewChange { .. } => format!("{view} start_view_change"),
        Message::DoViewChange { log_view, commit, suffix, .. } => {
            let slots = suffix.iter().map(|slot| match slot {
                SuffixSlot::Has(header) => header.id().to_string(),
                SuffixSlot::CannotTell(op) => format!("{op}?"),
            });
            let slots: Vec<_> = slots.collect();
            format!(
                "{view} do_view_change log_view={log_view} commit={} has=[{}]",
                commit.op,
                slots.join(" ")
            )
        }
        Message::StartView { commit, suffix, .. } => {
            let names: Vec<_> = suffix.iter().map(|header| header.id().to_string()).collect();
            format!("{view} start_view commit={} log=[{}]", commit.op, names.join(" "))
        }
        Message::GetStartView { .. } => format!("{view} get_start_view"),
        Message::GetHeaders { first, last, .. } => format!("{view} get_headers {first}..={last}"),
        Message::Headers { headers, .. } => {
            let names: Vec<_> = headers.iter().map(|header| header.id().to_string()).collect();
            format!("{view} headers [{}]", names.join(" "))
        }
        Message::GetPrepares { ids, .. } => {
            let names: Vec<_> = ids.iter().map(ToString::to_string).collect();
            format!("{view} get_prepares [{}]", names.join(" "))
        }
        Message::RepairPrepare { prepare, .. } => format!("{view} repair_prepare {}", prepare.id()),
        Message::Snapshot { snapshot, .. } => format!("{view} snapshot {}", snapshot.id()),
        Message::RepairMissing { id, .. } => format!("{view} repair_missing {id}"),
        Message::ConfirmView { round, .. } => format!("{view} confirm_view {round}"),
        Message::ViewConfirmed { round, .. } => format!("{view} view_confirmed {round}"),
    }
}

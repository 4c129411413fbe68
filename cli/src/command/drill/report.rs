//! What a drill came to: the document that `--output json` prints and `--save` keeps, and its tables for people.

use std::collections::BTreeMap;

use serde::Serialize;

use super::ledger::Findings;
use super::timeline::{Distribution, Phase};
use crate::measure::setting::Setting;
use crate::output::table;

/// Rounds that are listed one by one; of more, the worst are.
const ROUNDS_SHOWN_MAX: usize = 24;

/// A whole drill.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct Report {
    /// `kill-primary`, `pause-primary` and so on.
    pub(super) drill: &'static str,
    /// The version of `varve` that ran it.
    pub(super) version: String,
    pub(super) topic: String,
    pub(super) settings: Vec<Setting>,
    /// All went as it must, and no limit was exceeded.
    pub(super) passed: bool,
    /// Why not, if so.
    pub(super) failures: Vec<String>,
    pub(super) limits: Vec<Limit>,
    pub(super) distributions: Distributions,
    /// How long acknowledgements took before, during and after the events, all rounds together.
    pub(super) ack_latency: [Phase; 3],
    pub(super) users: Users,
    /// What a reader found at the end that had seen nothing before.
    pub(super) read_back: Findings,
    /// What the consumers found that read all the time.
    pub(super) read_live: Findings,
    pub(super) rounds: Vec<Round>,
    /// Latencies around the events, all rounds on top of each other.
    pub(super) profile: Profile,
    /// What to know before the numbers are believed.
    pub(super) notes: Vec<String>,
}

/// Something that was not to be exceeded.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct Limit {
    pub(super) name: String,
    pub(super) limit_ms: f64,
    /// None: it was never measured.
    pub(super) worst_ms: Option<f64>,
    pub(super) met: bool,
}

/// Milliseconds from the event on, over all rounds; none where that was not seen.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(super) struct Distributions {
    pub(super) detection_ms: Option<Distribution>,
    pub(super) new_primary_ms: Option<Distribution>,
    pub(super) first_ack_ms: Option<Distribution>,
    pub(super) unavailable_ms: Option<Distribution>,
    pub(super) well_ms: Option<Distribution>,
}

/// What users of the client library saw.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub(super) struct Users {
    pub(super) records_sent: u64,
    pub(super) records_acknowledged: u64,
    /// Records that were said to have failed, or whose fate was not known.
    pub(super) records_failed: u64,
    pub(super) reads_failed: u64,
    /// What the errors were, and how often.
    pub(super) errors: BTreeMap<String, u64>,
}

/// One event and what came of it.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct Round {
    /// From 1.
    pub(super) round: usize,
    /// What was done.
    pub(super) what: String,
    /// To which node.
    pub(super) node: u8,
    /// Seconds after the probes began.
    pub(super) at_s: f64,
    /// Until another node missed it.
    pub(super) detection_ms: Option<f64>,
    /// Until all partitions that it led were led by another node.
    pub(super) new_primary_ms: Option<f64>,
    /// Until all partitions that it led were acknowledged again.
    pub(super) first_ack_ms: Option<f64>,
    /// The longest time without an acknowledgement, of any partition.
    pub(super) unavailable_ms: f64,
    /// Until all was well again.
    pub(super) well_ms: f64,
    /// Records and reads that failed from the round before to the end of this one.
    pub(super) requests_failed: u64,
    pub(super) partitions: Vec<PartitionRound>,
}

/// One partition in a round.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct PartitionRound {
    pub(super) partition: u32,
    /// Whether the node that was struck led it.
    pub(super) struck: bool,
    pub(super) primary_before: u8,
    /// As far as it was seen.
    pub(super) primary_after: Option<u8>,
    pub(super) new_primary_ms: Option<f64>,
    pub(super) first_ack_ms: Option<f64>,
    pub(super) unavailable_ms: f64,
}

/// Latencies by when the records were due, in steps around the event.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct Profile {
    /// Where the first step begins; the event is at 0.
    pub(super) from_ms: f64,
    pub(super) step_ms: f64,
    pub(super) mean_ms: Vec<Option<f64>>,
    pub(super) max_ms: Vec<Option<f64>>,
}

impl Report {
    /// For people.
    pub(super) fn text(&self) -> String {
        let settings: Vec<String> =
            self.settings.iter().map(|setting| format!("{} {}", setting.name, setting.value)).collect();
        let mut text = format!("{} on {}: {}\n\n", self.drill, self.topic, settings.join(", "));
        text += &self.rounds_in_words();
        text += &self.distributions_in_words();
        let head = ["ACK LATENCY MS", "RECORDS", "P50", "P90", "P99", "P99.9", "P99.99", "MAX"];
        text += &table(&head, &[1, 2, 3, 4, 5, 6, 7], self.ack_latency.iter().map(phase_row));
        let Users { records_sent, records_acknowledged, records_failed, reads_failed, errors } = &self.users;
        text += &format!(
            "\nusers: {records_sent} records sent, {records_acknowledged} acknowledged, {records_failed} failed; \
             {reads_failed} reads failed\n"
        );
        text.extend(errors.iter().map(|(error, count)| format!("  {count} times: {error}\n")));
        text += &format!("read back: {}\n", findings_in_words(&self.read_back));
        text += &format!("consumers meanwhile: {}\n", findings_in_words(&self.read_live));
        text.extend(self.limits.iter().map(|limit| format!("limit {}\n", limit.in_words())));
        text.extend(self.notes.iter().map(|note| format!("note: {note}\n")));
        text + if self.passed { "passed\n" } else { "FAILED\n" }
    }

    fn rounds_in_words(&self) -> String {
        let mut rounds: Vec<&Round> = self.rounds.iter().collect();
        let mut text = String::new();
        if rounds.len() > ROUNDS_SHOWN_MAX {
            rounds.sort_by(|a, b| b.unavailable_ms.total_cmp(&a.unavailable_ms));
            rounds.truncate(ROUNDS_SHOWN_MAX);
            text += &format!("the worst {ROUNDS_SHOWN_MAX} rounds of {}:\n", self.rounds.len());
        }
        let head = [
            "ROUND",
            "NODE",
            "MISSED MS",
            "NEW PRIMARY",
            "FIRST ACK",
            "UNAVAILABLE",
            "WELL AGAIN",
            "FAILED",
            "BY PARTITION",
        ];
        text + &table(&head, &[0, 1, 2, 3, 4, 5, 6, 7], rounds.into_iter().map(Round::row)) + "\n"
    }

    fn distributions_in_words(&self) -> String {
        let Distributions { detection_ms, new_primary_ms, first_ack_ms, unavailable_ms, well_ms } =
            self.distributions;
        let rows = [
            ("until it is missed", detection_ms),
            ("until a new primary", new_primary_ms),
            ("until the first ack", first_ack_ms),
            ("unavailable", unavailable_ms),
            ("until all is well", well_ms),
        ];
        let rows = rows.into_iter().filter_map(|(name, numbers)| {
            let Distribution { rounds, min, p50, p99, max } = numbers?;
            let mut row = vec![name.to_owned(), rounds.to_string()];
            row.extend([min, p50, p99, max].map(whole));
            Some(row)
        });
        table(&["MS AFTER THE EVENT", "ROUNDS", "MIN", "P50", "P99", "MAX"], &[1, 2, 3, 4, 5], rows) + "\n"
    }
}

impl Limit {
    /// `first-ack 1000 ms: met, the worst was 312 ms`.
    pub(super) fn in_words(&self) -> String {
        let Self { name, limit_ms, worst_ms, met } = self;
        let worst = worst_ms.map_or_else(
            || "it was not seen".to_owned(),
            |worst_ms| format!("the worst was {worst_ms:.0} ms"),
        );
        let met = if *met { "met" } else { "MISSED" };
        format!("{name} {limit_ms:.0} ms: {met}, {worst}")
    }
}

impl Round {
    fn row(&self) -> Vec<String> {
        let partitions = self.partitions.iter().map(|partition| {
            let struck = if partition.struck { "*" } else { "" };
            format!("{}{struck}: {}", partition.partition, whole(partition.unavailable_ms))
        });
        vec![
            self.round.to_string(),
            self.node.to_string(),
            or_dash(self.detection_ms),
            or_dash(self.new_primary_ms),
            or_dash(self.first_ack_ms),
            whole(self.unavailable_ms),
            whole(self.well_ms),
            self.requests_failed.to_string(),
            partitions.collect::<Vec<String>>().join(", "),
        ]
    }
}

fn phase_row(phase: &Phase) -> Vec<String> {
    let mut row = vec![phase.phase.to_owned(), phase.samples.to_string()];
    let number = |(_, ms): (&str, f64)| if phase.samples == 0 { "-".to_owned() } else { format!("{ms:.2}") };
    row.extend(phase.latency_ms.named().map(number));
    row
}

/// `12000 records; lost 0, doubled 0 ...`.
pub(super) fn findings_in_words(findings: &Findings) -> String {
    let Findings { read, lost, doubled, reordered, damaged, misplaced, holes } = findings;
    format!(
        "{read} records; lost {lost}, doubled {doubled}, reordered {reordered}, damaged {damaged}, misplaced {misplaced}, \
         holes {holes}"
    )
}

fn whole(number: f64) -> String {
    format!("{number:.0}")
}

fn or_dash(number: Option<f64>) -> String {
    number.map_or_else(|| "-".to_owned(), whole)
}

//! What a benchmark came to: the document that `--output json` prints and `--save` keeps, and its table for people.

use serde::{Deserialize, Serialize};

use super::raw::Raw;
use crate::measure::latency::Latency;
use crate::measure::setting::Setting;
use crate::output::table;

/// A whole run.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// `produce`, `consume`, `end-to-end` or `mixed`.
    pub(super) benchmark: String,
    /// The version of `varve` that ran it.
    pub(super) version: String,
    pub(super) topic: String,
    /// What was asked for, in words.
    pub(super) settings: Vec<Setting>,
    /// Producers, consumers, or both.
    pub(super) sides: Vec<Side>,
    /// What to know before the numbers are believed.
    pub(super) notes: Vec<String>,
    /// What this machine can do without a cluster, if that was asked for.
    pub(super) raw: Option<Raw>,
}

/// What the producers, or the consumers, did together.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct Side {
    /// `produced` or `consumed`.
    pub(super) name: String,
    /// From when until when a latency goes.
    pub(super) latency_is: String,
    /// Records done from the first to the last, warm-up and stragglers with them.
    pub(super) records_in_all: u64,
    /// Records done within the span that was measured.
    pub(super) records: u64,
    /// Bytes of their payloads.
    pub(super) bytes: u64,
    /// How long the span was.
    pub(super) seconds: f64,
    pub(super) records_per_second: f64,
    /// A megabyte is 1,000,000 bytes.
    pub(super) megabytes_per_second: f64,
    pub(super) latency_samples: u64,
    pub(super) latency_ms: Latency,
    /// Records that were due, and given up because the cluster did not keep up.
    pub(super) not_sent: u64,
    /// Records, or fetches, that failed.
    pub(super) errors: u64,
    pub(super) first_error: Option<String>,
    /// The span second by second.
    pub(super) over_time: Vec<Second>,
}

/// One second of the span; the last one may be shorter.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct Second {
    /// How wide it is.
    pub(super) seconds: f64,
    pub(super) records_per_second: f64,
    pub(super) megabytes_per_second: f64,
    /// None if nothing was done.
    pub(super) latency_ms: Option<Latency>,
}

impl Report {
    /// For people.
    pub(super) fn text(&self) -> String {
        let settings: Vec<String> =
            self.settings.iter().map(|setting| format!("{} {}", setting.name, setting.value)).collect();
        let mut text = format!("{} on {}: {}\n\n", self.benchmark, self.topic, settings.join(", "));
        let head =
            ["", "RECORDS", "RECORDS/S", "MB/S", "P50 MS", "P90", "P99", "P99.9", "P99.99", "MAX", "ERRORS"];
        let right: Vec<usize> = (1..head.len()).collect();
        text += &table(&head, &right, self.sides.iter().map(Side::row));
        text.push('\n');
        for side in &self.sides {
            text += &format!("{}: latency is {}\n", side.name, side.latency_is);
            text += &side.seconds_in_words();
        }
        for note in &self.notes {
            text += &format!("note: {note}\n");
        }
        text += &self.raw.as_ref().map_or_else(String::new, Raw::text);
        text
    }
}

impl Side {
    fn row(&self) -> Vec<String> {
        let mut row = vec![
            self.name.clone(),
            self.records.to_string(),
            format!("{:.0}", self.records_per_second),
            format!("{:.2}", self.megabytes_per_second),
        ];
        let latency = |(_, ms): (&str, f64)| {
            if self.latency_samples == 0 { "-".to_owned() } else { format!("{ms:.2}") }
        };
        row.extend(self.latency_ms.named().map(latency));
        row.push(self.errors.to_string());
        row
    }

    fn seconds_in_words(&self) -> String {
        let rates: Vec<f64> = self.over_time.iter().map(|second| second.records_per_second).collect();
        let mut sorted = rates.clone();
        sorted.sort_by(f64::total_cmp);
        let (Some(least), Some(most)) = (sorted.first(), sorted.last()) else { return String::new() };
        let median = sorted[sorted.len() / 2];
        let bars = sparkline(&rates);
        format!(
            "{}: records/s second by second {bars} least {least:.0}, median {median:.0}, most {most:.0}\n",
            self.name
        )
    }
}

/// At most 60 bars; where there are more seconds than that, the least of each bar's seconds shows, for stalls are what one
/// looks for.
fn sparkline(rates: &[f64]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = rates.iter().copied().fold(0.0, f64::max);
    let per_bar = rates.len().div_ceil(60).max(1);
    let bar = |rates: &[f64]| {
        let least = rates.iter().copied().fold(f64::INFINITY, f64::min);
        let height = BARS.iter().zip(1_u32..).find(|(_, step)| least * 8.0 <= most * f64::from(*step));
        height.map_or('█', |(bar, _)| *bar)
    };
    rates.chunks(per_bar).map(bar).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A side that did so many records in each of its seconds, with this median latency.
    pub(crate) fn side(rates: &[f64], p50: f64) -> Side {
        let latency_ms = Latency {
            p50,
            p90: p50 * 1.5,
            p99: p50 * 2.0,
            p99_9: p50 * 3.0,
            p99_99: p50 * 4.0,
            max: p50 * 5.0,
        };
        let sum: f64 = rates.iter().sum();
        let average = sum / rates.len() as f64;
        Side {
            name: "produced".to_owned(),
            latency_is: "from here to there".to_owned(),
            records_in_all: 9,
            records: 9,
            bytes: 900,
            seconds: rates.len() as f64,
            records_per_second: average,
            megabytes_per_second: average / 1e4,
            latency_samples: 9,
            latency_ms,
            not_sent: 0,
            errors: 0,
            first_error: None,
            over_time: rates
                .iter()
                .map(|rate| Second {
                    seconds: 1.0,
                    records_per_second: *rate,
                    megabytes_per_second: rate / 1e4,
                    latency_ms: (*rate > 0.0).then_some(latency_ms),
                })
                .collect(),
        }
    }

    pub(crate) fn report(sides: Vec<Side>) -> Report {
        Report {
            benchmark: "produce".to_owned(),
            version: "0".to_owned(),
            topic: "a/b".to_owned(),
            settings: vec![Setting { name: "seed".to_owned(), value: "1".to_owned() }],
            sides,
            notes: vec!["slow disk".to_owned()],
            raw: None,
        }
    }

    #[test]
    fn a_stall_is_seen_in_the_bars() {
        assert_eq!(sparkline(&[8.0, 4.0, 0.0, 8.0]), "█▄▁█");
        assert_eq!(sparkline(&[]), "");
        let mut long = vec![10.0; 600];
        long[305] = 0.0;
        let bars = sparkline(&long);
        assert_eq!((bars.chars().count(), bars.matches('▁').count()), (60, 1));
    }

    #[test]
    fn the_table_has_what_the_document_has() {
        let text = report(vec![side(&[100.0, 0.0, 200.0], 2.5)]).text();
        for part in [
            "produce on a/b: seed 1\n",
            "P99.99",
            "2.50",
            "12.50",
            "note: slow disk\n",
            "least 0, median 100, most 200",
        ] {
            assert!(text.contains(part), "`{part}` is not in:\n{text}");
        }
    }

    #[test]
    fn what_was_saved_is_read_back_as_it_was() {
        let report = report(vec![side(&[1.0, 0.0], 1.5)]);
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
    }
}

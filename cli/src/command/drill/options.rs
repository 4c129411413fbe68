//! What the drills take, and what of it does not go together.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::anyhow;
use varve_client::{Durability, TopicOptions};
use varve_protocol::limits::RECORD_BYTES_MAX;

use super::report::Limit;
use super::timeline::{Distribution, ms};
use crate::failure::{Failure, Outcome};
use crate::measure::payload::STAMP_SIZE;
use crate::measure::setting::{Setting, setting};
use crate::measure::{rate, report_file};
use crate::topic_name::TopicName;

/// Partitions of a topic that is probed: each takes two threads' worth of work.
pub(super) const PARTITIONS_MAX: usize = 64;

/// Bytes of a record's payload at most: a probe is no load test.
const RECORD_SIZE_MAX: i64 = 64 << 10;

/// Records per second and partition at most.
const RATE_MAX: f64 = 20_000.0;

/// Rounds of one drill.
const ROUNDS_MAX: i64 = 1_000;

/// What every drill takes that does something.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Common {
    /// STREAM/TOPIC that the probes append to and read; their records stay in it [default: a topic that the drill makes and
    /// deletes]
    pub(super) topic: Option<TopicName>,
    /// Really do it; needed without a terminal, where nobody can be asked
    #[arg(long)]
    pub(super) yes: bool,
    /// How often
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=ROUNDS_MAX))]
    pub(super) count: u32,
    /// How many partitions the drill's own topic gets
    #[arg(long, value_name = "N", default_value_t = 3, conflicts_with = "topic",
        value_parser = clap::value_parser!(u32).range(1..=PARTITIONS_MAX as i64))]
    partitions: u32,
    /// When appends to the drill's own topic are acknowledged: `quorum-disk` or `quorum-memory`
    #[arg(long, value_name = "D", default_value_t = Durability::QuorumDisk, conflicts_with = "topic")]
    durability: Durability,
    /// Records per second that are appended to each partition
    #[arg(long, value_name = "N", default_value = "500", value_parser = rate::parse)]
    pub(super) rate: f64,
    /// Bytes of a record's payload
    #[arg(long, value_name = "BYTES", default_value_t = 100,
        value_parser = clap::value_parser!(u32).range(STAMP_SIZE as i64..=RECORD_SIZE_MAX))]
    record_size: u32,
    /// How long the probes run before each event, when all is well
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = humantime::parse_duration)]
    pub(super) before: Duration,
    /// How long they run after it before anything is mended
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = humantime::parse_duration)]
    pub(super) after: Duration,
    /// How long it is waited for acknowledgements to come again
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    pub(super) give_up: Duration,
    /// How long the cluster may take to be well again, which every round waits for
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = humantime::parse_duration)]
    pub(super) well_within: Duration,
    /// Keep the report in this file
    #[arg(long, value_name = "FILE.json")]
    pub(super) save: Option<PathBuf>,
    /// Draw the report as one page that a browser shows, into this file
    #[arg(long, value_name = "FILE.html")]
    pub(super) html: Option<PathBuf>,
    #[command(flatten)]
    pub(super) limits: Limits,
}

/// What no round may exceed; without these, failed requests and broken promises alone make a drill fail.
#[derive(clap::Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Limits: exit code 1 if any round exceeds one")]
pub(super) struct Limits {
    /// Without an acknowledgement, for any partition
    #[arg(long = "limit-unavailable", value_name = "TIME", value_parser = humantime::parse_duration)]
    unavailable: Option<Duration>,
    /// Until the partitions that were struck have another primary
    #[arg(long = "limit-new-primary", value_name = "TIME", value_parser = humantime::parse_duration)]
    new_primary: Option<Duration>,
    /// Until all is well again
    #[arg(long = "limit-well", value_name = "TIME", value_parser = humantime::parse_duration)]
    well: Option<Duration>,
}

/// The same for what happens at one moment.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
#[command(next_help_heading = "Limits: exit code 1 if any round exceeds one")]
pub(super) struct StrikeLimits {
    /// Until the partitions that were struck are acknowledged again
    #[arg(long = "limit-first-ack", value_name = "TIME", value_parser = humantime::parse_duration)]
    first_ack: Option<Duration>,
    /// Until another node misses the one that was struck
    #[arg(long = "limit-detection", value_name = "TIME", value_parser = humantime::parse_duration)]
    detection: Option<Duration>,
}

/// Who does it.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub(super) struct Manual {
    /// Say what is to be done instead of doing it, and watch: for nodes on other machines
    #[arg(long)]
    pub(super) manual: bool,
}

/// What was measured in all rounds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    pub(super) detection: Option<Distribution>,
    pub(super) new_primary: Option<Distribution>,
    pub(super) first_ack: Option<Distribution>,
    pub(super) unavailable: Option<Distribution>,
    pub(super) well: Option<Distribution>,
    /// Rounds in all; what was measured in fewer was not seen in all.
    pub(super) rounds: usize,
}

impl Common {
    /// Says what does not go together, before anything is asked of the cluster.
    pub(super) fn check(&self) -> Outcome {
        if self.rate > RATE_MAX {
            return Err(Failure::usage(anyhow!(
                "--rate is at most {RATE_MAX} records per second and partition: `varve bench` is for loads"
            )));
        }
        report_file::check(self.save.iter().chain(&self.html))
    }

    pub(super) fn record_size(&self) -> usize {
        usize::try_from(self.record_size).unwrap_or(RECORD_BYTES_MAX)
    }

    /// How the drill's own topic is.
    pub(super) fn own_topic(&self) -> TopicOptions {
        let Self { partitions, durability, .. } = *self;
        TopicOptions { partitions, durability, ..TopicOptions::default() }
    }

    /// What was asked for, in words.
    pub(super) fn settings(&self) -> Vec<Setting> {
        let time = |time: Duration| humantime::format_duration(time).to_string();
        vec![
            setting("count", self.count),
            setting("rate", format!("{}/s per partition", self.rate)),
            setting("record-size", self.record_size),
            setting("before", time(self.before)),
            setting("after", time(self.after)),
        ]
    }

    /// Which limits were kept.
    pub(super) fn judge(&self, strike: StrikeLimits, measured: &Measured) -> Vec<Limit> {
        let limits = [
            ("detection", strike.detection, measured.detection),
            ("new-primary", self.limits.new_primary, measured.new_primary),
            ("first-ack", strike.first_ack, measured.first_ack),
            ("unavailable", self.limits.unavailable, measured.unavailable),
            ("well", self.limits.well, measured.well),
        ];
        let judged = limits.into_iter().filter_map(|(name, limit, measured_ms)| {
            let limit_ms = ms(limit?);
            let worst_ms = measured_ms.map(|distribution| distribution.max);
            let in_all = measured_ms.is_some_and(|distribution| distribution.rounds == measured.rounds);
            let met = in_all && worst_ms.is_some_and(|worst_ms| worst_ms <= limit_ms);
            Some(Limit { name: name.to_owned(), limit_ms, worst_ms, met })
        });
        judged.collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        strike: StrikeLimits,
    }

    #[test]
    fn a_limit_is_kept_if_every_round_kept_it() {
        let line =
            ["drill", "--limit-first-ack", "1s", "--limit-unavailable", "500ms", "--limit-detection", "1s"];
        let Line { common, strike } = Line::parse_from(line);
        let of = |numbers: &[f64]| Distribution::of(numbers.iter().copied());
        let measured = Measured {
            detection: of(&[1.0]),
            new_primary: None,
            first_ack: of(&[10.0, 1_000.0]),
            unavailable: of(&[500.0, 500.1]),
            well: None,
            rounds: 2,
        };
        let judged = common.judge(strike, &measured);
        let met: Vec<(&str, bool)> = judged.iter().map(|limit| (limit.name.as_str(), limit.met)).collect();
        let expected = [("detection", false), ("first-ack", true), ("unavailable", false)];
        assert_eq!(met, expected, "what was seen in one round of two is not kept in both");
    }
}

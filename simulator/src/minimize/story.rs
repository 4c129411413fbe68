//! What is left of a seed, as a story: who takes part, what strikes, which promise is broken, and how it came to that.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use varve_protocol::frame::Command;
use varve_protocol::id::Op;

use crate::diagram::Diagram;
use crate::report::{Report, Verdict};
use crate::scenario::{Load, Rot, Scenario};
use crate::trace::{ConnectionState, Endpoint, Event};

/// Rows of the diagram.
const ROWS_MAX: usize = 40;

/// A story.
#[derive(Clone, Copy, Debug)]
pub struct Story<'a> {
    /// What the seed drew.
    pub drawn: &'a Scenario,
    /// What is left of it.
    pub left: &'a Scenario,
    /// How what is left ends.
    pub report: &'a Report,
}

impl fmt::Display for Story<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { drawn, left, report } = self;
        write!(f, "fast seed {}, made smaller", drawn.seed)?;
        if left.seed != drawn.seed {
            write!(f, " and played as by seed {}", left.seed)?;
        }
        writeln!(f, "\n")?;
        self.write_cluster(f)?;
        self.write_clients(f)?;
        self.write_weather(f)?;
        let (strikes, before) = (left.strikes.len(), drawn.strikes.len());
        writeln!(f, "  {strikes} of {before} faults, in {:?} of {:?}", left.safety, drawn.safety)?;
        for strike in &left.strikes {
            writeln!(f, "    {:>12.6}s  {:?} for {:?}", strike.at.as_secs_f64(), strike.fault, strike.lasts)?;
        }
        for behind in &left.left_behind {
            writeln!(f, "    {:>12.6}s  {:?}, left behind", left.safety.as_secs_f64(), behind.fault)?;
        }
        for rollout in &left.rollouts {
            let (at, node, release) = (rollout.at.as_secs_f64(), rollout.node, rollout.release);
            writeln!(f, "    {at:>12.6}s  {node} is started with the release {release:?} from now on")?;
        }
        let at = report.statistics.simulated.as_secs_f64();
        let broken = match &report.verdict {
            Verdict::Violation(violation) => violation.to_string(),
            Verdict::Pass | Verdict::NothingHappened | Verdict::HarnessFault(_) => report.verdict.to_string(),
        };
        writeln!(f, "\nat {at:.6}s a promise is broken: {broken}\n")?;
        write!(f, "{}", diagram(left, report).render())
    }
}

impl Story<'_> {
    fn write_cluster(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Scenario { nodes, partitions, replication_factor, durability, .. } = self.left;
        let nodes_before = self.drawn.nodes;
        let partitions_before = self.drawn.partitions;
        writeln!(
            f,
            "  {nodes} of {nodes_before} nodes; {partitions} of {partitions_before} partitions x \
             {replication_factor}, {durability}"
        )
    }

    fn write_clients(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (left, before) = (&self.left.load, &self.drawn.load);
        let Load { window, batch_records_max, payload_bytes_max, think, .. } = left;
        let busybodies =
            |load: &Load| [load.tinkers, load.balances, load.moves].map(u32::from).iter().sum::<u32>();
        let others = |load: &Load| load.amnesiacs + load.readers + busybodies(load);
        writeln!(
            f,
            "  {} of {} producers (window {window}, up to {batch_records_max} records of up to \
             {payload_bytes_max} bytes, every {think:?}); {} of {} other clients",
            left.producers,
            before.producers,
            others(left),
            others(before)
        )
    }

    /// The weather that is not a list of strikes, as far as there is any.
    fn write_weather(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Scenario { link, disk, rot, clock_drift_ppm_max: drift, load, .. } = self.left;
        let mut lines = Vec::new();
        if !link.reset_every.is_zero() {
            lines.push(format!("a connection breaks every {:?}", link.reset_every));
        }
        if !link.latency_tail.is_zero() {
            lines.push(format!("a latency of {:?} and about {:?}", link.latency, link.latency_tail));
        }
        if disk.spike_permille > 0 {
            lines.push(format!("{} in 1000 writes take up to {:?}", disk.spike_permille, disk.spike_max));
        }
        if *rot != Rot::NONE {
            lines.push(format!("disks forget something after {} in 1000 crashes", rot.crashes_permille));
        }
        if *drift > 0 {
            lines.push(format!("clocks that are off by up to {drift} ppm"));
        }
        if load.retention.is_bounded() {
            lines.push(format!("records are let go: {:?}", load.retention));
        }
        lines.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}

/// The last events, but for those that say nothing: pulses and timers.
fn diagram(scenario: &Scenario, report: &Report) -> Diagram {
    let told: Vec<&(Duration, Event)> =
        report.last.iter().filter(|(_, event)| is_worth_telling(event)).collect();
    let told = &told[told.len().saturating_sub(ROWS_MAX)..];
    let nodes = scenario.node_ids().map(Endpoint::Node);
    let clients: BTreeSet<Endpoint> = told
        .iter()
        .flat_map(|(_, event)| ends(event))
        .filter(|end| matches!(end, Endpoint::Client(_)))
        .collect();
    let columns: Vec<Endpoint> = nodes.chain(clients).collect();
    let column = |end: &Endpoint| columns.iter().position(|other| other == end).unwrap_or_default();
    let mut diagram = Diagram::new(columns.iter().map(Endpoint::to_string).collect());
    for (at, event) in told {
        let what = format!("{:.6}s {}", at.as_secs_f64(), describe(event));
        match ends(event)[..] {
            [from, to] => diagram.arrow((column(&from), column(&to)), what),
            [at] => diagram.at(column(&at), what),
            _ => diagram.across(what),
        }
    }
    if let Verdict::Violation(violation) = &report.verdict {
        diagram.across(format!("{:.6}s {}", report.statistics.simulated.as_secs_f64(), violation.property));
    }
    diagram
}

/// Who takes part in an event: who sent it and who got it, or whom it happened to, or nobody in particular.
fn ends(event: &Event) -> Vec<Endpoint> {
    match event {
        Event::Frame { from, to, .. } | Event::Packet { from, to, .. } => vec![*from, *to],
        Event::Connection { at, .. } => vec![*at],
        Event::DiskRound { node, .. } | Event::Tick { node } | Event::View { node, .. } => {
            vec![Endpoint::Node(*node)]
        }
        Event::Note(_) => Vec::new(),
    }
}

fn is_worth_telling(event: &Event) -> bool {
    match event {
        Event::Frame { header, .. } => header.command != Command::Pulse,
        Event::Tick { .. } => false,
        Event::Packet { .. }
        | Event::Connection { .. }
        | Event::DiskRound { .. }
        | Event::View { .. }
        | Event::Note(_) => true,
    }
}

fn describe(event: &Event) -> String {
    match event {
        Event::Frame { from, to, header, .. } => {
            let is_between_nodes = [from, to].iter().all(|end| matches!(end, Endpoint::Node(_)));
            let words = [
                format!("{:?} {}", header.command, header.group),
                if is_between_nodes { header.view.to_string() } else { String::new() },
                if header.op == Op::ZERO { String::new() } else { header.op.to_string() },
                if header.commit == 0 { String::new() } else { format!("commit={}", header.commit) },
            ];
            words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
        }
        Event::Connection { with, state: ConnectionState::Up, .. } => format!("is connected with {with}"),
        Event::Connection { with, state: ConnectionState::Down, .. } => format!("has lost {with}"),
        Event::DiskRound { jobs, .. } => format!("{jobs} writes are on disk"),
        Event::View { group, view, .. } => format!("{group} is in v{view}"),
        Event::Packet { .. } | Event::Tick { .. } | Event::Note(_) => event.to_string(),
    }
}

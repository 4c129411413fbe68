//! The page: an image with a lane per thing, time to the right. What the lanes are stands beside it and stays when it is scrolled.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use varve_protocol::client::Role;
use varve_protocol::id::{GroupId, NodeId};

use crate::fast::chronicle::{Changes, Chronicle, Process, Shown};
use crate::report::Report;
use crate::scenario::Scenario;

/// Where time begins, from the left of the image, in pixels.
const LEFT: f64 = 8.0;
/// The width of the names of the lanes.
const LABELS: f64 = 90.0;
const LANE: f64 = 18.0;
const GRAPH: f64 = 90.0;
const GAP: f64 = 12.0;
/// The widest image, in pixels, and what a second has if there is room.
const WIDTH_MAX: f64 = 12_000.0;
const SECOND: f64 = 120.0;

const STYLE: &str = "
  body { font: 13px/1.4 system-ui, sans-serif; margin: 1.5em; color: #222; background: #fff }
  h1 { font-size: 1.3em } .broken { color: #b3261e } .scroll { display: flex; overflow-x: auto; border: 1px solid #ccc }
  .scroll svg { flex: none } .labels { position: sticky; left: 0; background: #fff; border-right: 1px solid #e4e4e4 }
  text { font: 11px ui-monospace, monospace; fill: #333 } .view { fill: #111; pointer-events: none }
  .grid { stroke: #e4e4e4 } .end { stroke: #b3261e; stroke-width: 2 }
  .primary { fill: #46a274 } .backup { fill: #b4dcc6 } .view_change { fill: #e0a030 } .faulty { fill: #b3261e }
  .learner { fill: #7d5ba6 } .down { fill: #777 } .frozen { fill: #6fa8dc } .fault { fill: #d9776a }
  polyline { fill: none; stroke-width: 1.5 } .key line { stroke-width: 3 }
  .n1 { stroke: #1b6ca8 } .n2 { stroke: #c8553d } .n3 { stroke: #3a7d44 } .n4 { stroke: #8e4585 } .n5 { stroke: #b08900 }
";

/// A universe as a page.
#[must_use]
pub fn page(scenario: &Scenario, report: &Report, chronicle: &Chronicle) -> String {
    let mut image = Image::new(report.statistics.simulated);
    image.faults(scenario);
    let mut groups: Vec<GroupId> = chronicle.replicas.keys().map(|(_, group)| *group).collect();
    groups.sort_unstable();
    groups.dedup();
    for node in scenario.node_ids() {
        image.gap();
        image.process(node, chronicle.processes.get(&node).map_or(&[], Vec::as_slice));
        for group in &groups {
            if let Some(changes) = chronicle.replicas.get(&(node, *group)) {
                image.replica((node, *group), changes);
            }
        }
    }
    for group in &groups {
        image.gap();
        let of_group = chronicle.commits.iter().filter(|((_, other), _)| other == group);
        image.commits(*group, &of_group.map(|((node, _), commits)| (*node, commits)).collect());
    }
    let class = if report.verdict.exit_code() == 0 { "" } else { " class=\"broken\"" };
    let notes: String = chronicle
        .notes
        .iter()
        .map(|(at, note)| format!("{:>12.6}s  {}\n", at.as_secs_f64(), escaped(note)))
        .collect();
    format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>fast seed {seed}</title>\
         <style>{STYLE}</style>\n<h1>fast seed {seed}: <span{class}>{verdict}</span></h1>\n\
         <p>{summary}</p>\n<p class=\"key\">{key}</p>\n<div class=\"scroll\">{image}</div>\n\
         <details><summary>what was said</summary><pre>{notes}</pre></details></html>\n",
        seed = report.seed,
        verdict = escaped(&report.verdict.to_string()),
        summary = escaped(&scenario.summary()),
        key = key(scenario),
        image = image.finish(),
    )
}

/// What the colours mean.
fn key(scenario: &Scenario) -> String {
    let classes = ["primary", "backup", "view_change", "learner", "faulty", "frozen", "down", "fault"];
    let entry = |class: &&str| {
        let words = class.replace('_', " ");
        format!(
            "<svg width=\"14\" height=\"12\"><rect class=\"{class}\" width=\"12\" height=\"12\"/></svg>{words} &nbsp; "
        )
    };
    let line = |node: NodeId| {
        format!(
            "<svg width=\"14\" height=\"12\"><line class=\"{node}\" x2=\"12\" y1=\"7\" y2=\"7\"/></svg>commit of {node} &nbsp; "
        )
    };
    classes.iter().map(entry).chain(scenario.node_ids().map(line)).collect()
}

struct Image {
    /// The end of time.
    end: Duration,
    /// Pixels of a second.
    second: f64,
    /// Where the next lane begins, from above.
    y: f64,
    labels: String,
    body: String,
}

impl Image {
    fn new(end: Duration) -> Self {
        let second = SECOND.min((WIDTH_MAX - LEFT) / end.as_secs_f64().max(0.001));
        // The shortest universes fill a screen, too.
        let second = second.max(1_000.0 / end.as_secs_f64().max(0.001));
        Self { end, second, y: 2.0 * LANE, labels: String::new(), body: String::new() }
    }

    fn x(&self, at: Duration) -> f64 {
        LEFT + at.min(self.end).as_secs_f64() * self.second
    }

    fn gap(&mut self) {
        self.y += GAP;
    }

    fn put(&mut self, element: std::fmt::Arguments<'_>) {
        self.body.write_fmt(element).expect("a string takes everything");
    }

    fn label(&mut self, text: &str) {
        let y = self.y + LANE * 0.7;
        writeln!(self.labels, "<text x=\"4\" y=\"{y:.1}\">{}</text>", escaped(text))
            .expect("a string takes everything");
    }

    /// A span of a lane, with words to be seen if there is room, and others when it is pointed at.
    fn span(&mut self, (from, to): (Duration, Duration), class: &str, words: &str, title: &str) {
        let (x, y, title) = (self.x(from), self.y, escaped(title));
        let width = (self.x(to) - x).max(1.0);
        let height = LANE - 3.0;
        self.put(format_args!(
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height}\">\
             <title>{title}</title></rect>\n"
        ));
        if !words.is_empty() && width > 7.0 * words.len() as f64 {
            let (x, y) = (x + 2.0, y + LANE * 0.65);
            let words = escaped(words);
            self.put(format_args!("<text class=\"view\" x=\"{x:.1}\" y=\"{y:.1}\">{words}</text>\n"));
        }
    }

    /// Faults in as few lanes as let none hide another.
    fn faults(&mut self, scenario: &Scenario) {
        let (top, over) = (self.y, self.end);
        self.label("faults");
        let mut busy_until: Vec<Duration> = Vec::new();
        for strike in scenario.strikes.iter().filter(|strike| strike.at < over) {
            let end = (strike.at + strike.lasts).min(scenario.safety.max(strike.at));
            let free = busy_until.iter().position(|until| *until <= strike.at);
            let lane = free.unwrap_or(busy_until.len());
            busy_until.resize(busy_until.len().max(lane + 1), Duration::ZERO);
            busy_until[lane] = end;
            self.y = top + LANE * lane as f64;
            let title =
                format!("{:?} at {:.6} s for {:?}", strike.fault, strike.at.as_secs_f64(), strike.lasts);
            self.span((strike.at, end), "fault", strike.fault.name(), &title);
        }
        self.y = top + LANE * busy_until.len().max(1) as f64;
        for behind in &scenario.left_behind {
            if scenario.safety < self.end {
                self.label("left behind");
                let title = format!("{:?}, left behind", behind.fault);
                self.span((scenario.safety, self.end), "fault", behind.fault.name(), &title);
                self.y += LANE;
            }
        }
    }

    fn process(&mut self, node: NodeId, changes: &[(Duration, Process)]) {
        self.label(&node.to_string());
        for (from, to, process) in self.spans(changes) {
            let class = match process {
                Process::Running => continue,
                Process::Frozen => "frozen",
                Process::Down => "down",
            };
            self.span((from, to), class, class, &format!("{node} is {class}"));
        }
        self.y += LANE;
    }

    fn replica(&mut self, (node, group): (NodeId, GroupId), changes: &Changes<Shown>) {
        if changes.iter().all(|(_, shown)| shown.is_none()) {
            return;
        }
        self.label(&format!("{node} {group}"));
        for (from, to, shown) in self.spans(changes) {
            let Some((role, view)) = shown else { continue };
            let class = match role {
                Role::Primary => "primary",
                Role::Backup => "backup",
                Role::ViewChange => "view_change",
                Role::Faulty => "faulty",
                Role::Learner => "learner",
            };
            let title = format!("{node} {group}: {role:?} in {view} from {:.3} s", from.as_secs_f64());
            self.span((from, to), class, &view.to_string(), &title);
        }
        self.y += LANE;
    }

    fn commits(&mut self, group: GroupId, of_nodes: &BTreeMap<NodeId, &Changes<u64>>) {
        let newest = of_nodes.values().flat_map(|commits| commits.iter().map(|(_, op)| *op)).max();
        let newest = newest.unwrap_or_default().max(1);
        self.label(&format!("{group} commit"));
        self.y += LANE;
        self.label(&format!("to op{newest}"));
        self.y -= LANE;
        for (node, commits) in of_nodes {
            let height = |op: u64| self.y + GRAPH * (1.0 - op as f64 / newest as f64);
            let mut points = String::new();
            for (from, to, op) in self.spans(commits) {
                let (from, to, y) = (self.x(from), self.x(to), height(op));
                write!(points, "{from:.1},{y:.1} {to:.1},{y:.1} ").expect("a string takes everything");
            }
            let class = node.to_string();
            self.put(format_args!(
                "<polyline class=\"{class}\" points=\"{}\"><title>{group} at {node}</title></polyline>\n",
                points.trim_end()
            ));
        }
        self.y += GRAPH;
    }

    /// From when to when something held.
    fn spans<T: Copy>(&self, changes: &[(Duration, T)]) -> Vec<(Duration, Duration, T)> {
        let ends = changes.iter().skip(1).map(|(at, _)| *at).chain([self.end]);
        changes.iter().zip(ends).map(|((from, what), to)| (*from, to, *what)).collect()
    }

    fn finish(self) -> String {
        let (width, height) = (self.x(self.end) + 40.0, self.y + LANE);
        let mut grid = String::new();
        // At most a line each hundred pixels.
        let every = [0.01, 0.1, 1.0, 5.0, 10.0, 60.0].into_iter().find(|every| every * self.second >= 60.0);
        let every = Duration::from_secs_f64(every.unwrap_or(600.0));
        let mut at = Duration::ZERO;
        while at <= self.end {
            let (x, seconds) = (self.x(at), at.as_secs_f64());
            writeln!(
                grid,
                "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{LANE}\" y2=\"{height}\"/>\
                 <text x=\"{x:.1}\" y=\"13\">{seconds} s</text>"
            )
            .expect("a string takes everything");
            at += every;
        }
        let (x, Self { labels, body, .. }) = (self.x(self.end), self);
        format!(
            "<svg class=\"labels\" width=\"{LABELS}\" height=\"{height:.0}\">\n{labels}</svg>\
             <svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\">\n{grid}{body}\
             <line class=\"end\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{LANE}\" y2=\"{height}\"/></svg>"
        )
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

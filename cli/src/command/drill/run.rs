//! A drill from beginning to end: consent, the topic, the probes, the rounds, what is there afterwards, the verdict.

use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use varve_client::Client;
use varve_protocol::id::{GroupId, NodeId};
use varve_protocol::metadata::{ClusterMap, NodeEntry, TopicEntry};

use super::consent::{self, Said};
use super::hands::{Hands, tell};
use super::isolation;
use super::ledger::Findings;
use super::options::{Common, Measured, PARTITIONS_MAX, StrikeLimits};
use super::page::page;
use super::probe::{Plan, Probes};
use super::profile::Profiler;
use super::report::{Distributions, Report, Round, Users, findings_in_words};
use super::round::{Act, Led, Stage, Target, wait_until_well};
use super::timeline::{Distribution, Phases};
use crate::command::topic::find;
use crate::connection;
use crate::context::Context;
use crate::entropy;
use crate::failure::{Failure, Outcome};
use crate::measure::attendants::mind;
use crate::measure::clock::Clock;
use crate::measure::own_topic::OwnTopic;
use crate::measure::report_file;
use crate::measure::setting::setting;
use crate::output;
use crate::topic_name::TopicName;

/// Replicas that a partition has at least for others to go on without one.
const REPLICAS_MIN: usize = 3;

/// What is to be rehearsed.
pub(super) struct Drill {
    pub(super) name: &'static str,
    pub(super) act: Act,
    pub(super) options: Common,
    pub(super) limits: StrikeLimits,
    pub(super) is_manual: bool,
}

/// Rehearses, and tells what came of it.
pub(super) async fn run(context: &Context, drill: Drill) -> Outcome {
    drill.options.check()?;
    let hands = Hands::new(context, drill.is_manual)?;
    let client = connection::connect(context).await?;
    let map = client.admin().map().await?;
    drill.check(&hands, &map)?;
    drill.ask()?;
    wait_until_well(&client, drill.options.well_within).await?;
    let (name, own) = drill.topic(&client).await?;
    let played = drill.play(context, &hands, &name, &client).await;
    let deleted = match own {
        Some(own) => own.delete(&client).await,
        None => Ok(()),
    };
    let report = played?;
    if let Some(path) = &drill.options.save {
        report_file::write_json(path, &report)?;
    }
    if let Some(path) = &drill.options.html {
        report_file::write(path, &page(&report))?;
    }
    output::print(context.output, &report, Report::text)?;
    deleted?;
    match report.failures.as_slice() {
        [] => Ok(()),
        failures => Err(Failure::refused(anyhow!("the drill did not pass: {}", failures.join("; ")))),
    }
}

impl Drill {
    /// Says what cannot be done before anything is.
    fn check(&self, hands: &Hands, map: &ClusterMap) -> Outcome {
        if let Some(name) = &self.options.topic {
            self.check_topic(find(map, name)?, name)?;
        } else if map.nodes.len() < REPLICAS_MIN {
            return Err(Failure::usage(anyhow!(
                "a cluster of {} has nobody to take over; a drill needs {REPLICAS_MIN} nodes",
                output::counted(map.nodes.len(), "node")
            )));
        }
        match self.act {
            Act::Kill | Act::Pause(_) => hands.check_processes(&map.nodes),
            Act::Isolate(..) => {
                hands.check_dev(&map.nodes, self.name)?;
                isolation::check()
            }
            Act::Restart { .. } | Act::Replace => hands.check_dev(&map.nodes, self.name),
            Act::Transfer => Ok(()),
        }
    }

    fn check_topic(&self, entry: &TopicEntry, name: &TopicName) -> Outcome {
        let count = entry.partitions.len();
        if count > PARTITIONS_MAX {
            return Err(Failure::usage(anyhow!(
                "{name} has {count} partitions, and at most {PARTITIONS_MAX} can be probed; without a topic, the drill makes its own"
            )));
        }
        let few = entry.partitions.iter().find(|partition| partition.replicas().len() < REPLICAS_MIN);
        match few {
            Some(few) => Err(Failure::usage(anyhow!(
                "{name} has partitions of {}: nobody takes over",
                output::counted(few.replicas().len(), "replica")
            ))),
            None => Ok(()),
        }
    }

    /// Asks whether what hurts is wanted.
    fn ask(&self) -> Outcome {
        let Common { topic, count, yes, .. } = &self.options;
        let time = humantime::format_duration;
        let times = if *count == 1 { "once".to_owned() } else { format!("{count} times") };
        let whose = "a node of the cluster that leads partitions, of this drill and of others";
        let mut what = match self.act {
            Act::Kill => Some(format!("kills the process of {whose}, {times}")),
            Act::Pause(for_time) => {
                Some(format!("stops the process of {whose}, for {}, {times}", time(for_time)))
            }
            Act::Isolate(_, for_time) => Some(format!("cuts off {whose}, for {}, {times}", time(for_time))),
            Act::Restart { .. } => Some(format!("stops and starts each node of the cluster, {times}")),
            Act::Replace => {
                Some(format!("deletes the data of {whose}, and has it take them from the others, {times}"))
            }
            Act::Transfer => None,
        };
        if let Some(topic) = topic {
            let appends = format!("appends records to {topic} that stay there");
            what = Some(what.map_or_else(|| appends.clone(), |what| format!("{what}, and {appends}")));
        }
        let said = if *yes { Said::Yes } else { Said::Nothing };
        what.map_or(Ok(()), |what| consent::ask(&what, said))
    }

    /// The topic that is probed, and whether the drill has made it.
    async fn topic(&self, client: &Client) -> Outcome<(TopicName, Option<OwnTopic>)> {
        if let Some(name) = &self.options.topic {
            return Ok((name.clone(), None));
        }
        let number = u32::from_le_bytes(entropy::draw()?);
        let name = TopicName { stream: format!("varve-drill-{number:08x}"), topic: "probe".to_owned() };
        let own = OwnTopic::new(client, &name, self.options.own_topic()).await?;
        Ok((name, Some(own)))
    }

    /// Plays all rounds and adds up.
    async fn play(
        &self,
        context: &Context,
        hands: &Hands,
        name: &TopicName,
        client: &Client,
    ) -> Outcome<Report> {
        let map = client.admin().map().await?;
        let entry = find(&map, name)?;
        let groups: Vec<GroupId> = entry.partitions.iter().map(|partition| partition.group).collect();
        let plan = Plan {
            servers: connection::servers(context)?,
            topic: name.to_string(),
            groups: groups.clone(),
            rate: self.options.rate,
            record_size: self.options.record_size(),
            run: u64::from_le_bytes(entropy::draw()?),
        };
        let (clock, interrupt) = (Clock::start(), Clock::start());
        let probes = Probes::start(plan, &clock).await?;
        let minder =
            tokio::spawn(mind(interrupt.clone(), "ending in good order, after mending what is broken"));
        let mut stage = Stage {
            act: self.act,
            options: &self.options,
            hands,
            observer: client,
            admin: Arc::new(client.admin()),
            nodes: map.nodes.clone(),
            groups,
            probes: &probes,
            clock: clock.clone(),
            interrupt: interrupt.clone(),
            phases: Phases::new(),
            profiler: Profiler::new(),
            failed_before: 0,
        };
        let mut rounds = Vec::new();
        let ended = play_rounds(&mut stage, entry, &mut rounds).await;
        let Stage { phases, profiler, .. } = stage;
        let lanes = probes.lanes.clone();
        let found = probes.finish().await;
        minder.abort();
        let mut users = Users::default();
        for lane in lanes {
            let state = lane.state();
            users.records_sent += state.sent;
            users.records_acknowledged += state.acknowledged;
            users.records_failed += state.failed;
            users.reads_failed += state.reads_failed;
            for (error, count) in &state.errors {
                *users.errors.entry(error.clone()).or_default() += count;
            }
        }
        let outcome = Played { rounds, ended, users, found, interrupted: interrupt.is_stopped() };
        let mut report = self.report(name, outcome);
        report.ack_latency = phases.told();
        report.profile = profiler.told();
        report.settings.push(setting("partitions", entry.partitions.len()));
        report.settings.push(setting("replicas", entry.replication_factor));
        report.settings.push(setting("durability", entry.durability().name()));
        Ok(report)
    }

    fn report(&self, name: &TopicName, played: Played) -> Report {
        let Played { rounds, ended, users, found, interrupted } = played;
        let distribution =
            |number: &dyn Fn(&Round) -> Option<f64>| Distribution::of(rounds.iter().filter_map(number));
        let distributions = Distributions {
            detection_ms: distribution(&|round| round.detection_ms),
            new_primary_ms: distribution(&|round| round.new_primary_ms),
            first_ack_ms: distribution(&|round| round.first_ack_ms),
            unavailable_ms: distribution(&|round| Some(round.unavailable_ms)),
            well_ms: distribution(&|round| Some(round.well_ms)),
        };
        let measured = Measured {
            detection: distributions.detection_ms,
            new_primary: distributions.new_primary_ms,
            first_ack: distributions.first_ack_ms,
            unavailable: distributions.unavailable_ms,
            well: distributions.well_ms,
            rounds: rounds.len(),
        };
        let limits = self.options.judge(self.limits, &measured);
        let mut failures: Vec<String> = ended.err().map(|failure| failure.line()).into_iter().collect();
        let (read_live, read_back) = found.unwrap_or_else(|failure| {
            failures.push(failure.line());
            (Findings::default(), Findings::default())
        });
        failures.extend(verdict(&users, (&read_live, &read_back), &rounds, self.act));
        failures.extend(
            limits.iter().filter(|limit| !limit.met).map(|limit| format!("limit {}", limit.in_words())),
        );
        let mut notes = Vec::new();
        if interrupted {
            notes.push(format!("interrupted after {}", output::counted(rounds.len(), "round")));
        }
        if cfg!(debug_assertions) {
            notes
                .push("this `varve` was built without optimisation; measure with a release build".to_owned());
        }
        Report {
            drill: self.name,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            topic: name.to_string(),
            settings: self.options.settings(),
            passed: failures.is_empty(),
            failures,
            limits,
            distributions,
            ack_latency: Phases::new().told(),
            users,
            read_back,
            read_live,
            rounds,
            profile: Profiler::new().told(),
            notes,
        }
    }
}

/// What all rounds came to.
struct Played {
    rounds: Vec<Round>,
    ended: Outcome,
    users: Users,
    /// By the consumers that watched, and by one that reads all of it afterwards.
    found: Outcome<(Findings, Findings)>,
    interrupted: bool,
}

/// What must never be, whatever the limits.
fn verdict(users: &Users, (live, back): (&Findings, &Findings), rounds: &[Round], act: Act) -> Vec<String> {
    let mut failures = Vec::new();
    if rounds.is_empty() {
        failures.push("no round was played to its end".to_owned());
    }
    if users.records_failed > 0 || users.reads_failed > 0 {
        let (records, reads) = (users.records_failed, users.reads_failed);
        failures.push(format!("users saw {records} records and {reads} reads fail"));
    }
    if back.wrong() > 0 {
        failures.push(format!("of what was acknowledged, this was read back: {}", findings_in_words(back)));
    }
    if live.wrong() > 0 {
        failures.push(format!("consumers saw this: {}", findings_in_words(live)));
    }
    let is_struck = |round: &&Round| round.partitions.iter().any(|partition| partition.struck);
    let silent = rounds.iter().filter(is_struck).filter(|round| round.first_ack_ms.is_none()).count();
    if act.is_strike() && silent > 0 {
        failures.push(format!("in {} acknowledgements did not come again", output::counted(silent, "round")));
    }
    failures
}

/// Plays rounds until all are played, one goes wrong, or Ctrl-C.
async fn play_rounds(stage: &mut Stage<'_>, entry: &TopicEntry, rounds: &mut Vec<Round>) -> Outcome {
    let nodes = stage.nodes.clone();
    let steps = match stage.act {
        Act::Restart { .. } => nodes.len(),
        Act::Transfer => entry.partitions.len(),
        Act::Kill | Act::Pause(_) | Act::Isolate(..) | Act::Replace => 1,
    };
    let count = steps * usize::try_from(stage.options.count).unwrap_or(usize::MAX);
    let mut first_led: Option<Vec<Led>> = None;
    for number in 1..=count {
        stage.prepare().await?;
        if stage.interrupt.is_stopped() {
            break;
        }
        let led = stage.led().await?;
        first_led.get_or_insert_with(|| led.clone());
        let target = choose(stage.act, (number - 1) % steps, (entry, &nodes, &led))?;
        let round = stage.play(number, target, &led).await?;
        tell(&line(&round, count));
        rounds.push(round);
    }
    if stage.act == Act::Transfer {
        give_back(stage, &first_led.unwrap_or_default()).await?;
    }
    Ok(())
}

/// To whom it happens in this step.
fn choose(
    act: Act,
    step: usize,
    (entry, nodes, led): (&TopicEntry, &[NodeEntry], &[Led]),
) -> Outcome<Target> {
    let entry_of = |id: NodeId| {
        let found = nodes.iter().find(|node| node.node == id).cloned();
        found.ok_or_else(|| Failure::refused(anyhow!("the cluster has no {id}")))
    };
    match act {
        Act::Kill | Act::Pause(_) | Act::Isolate(..) | Act::Replace => {
            Ok(Target { node: entry_of(led[0].0)?, transfer: None })
        }
        Act::Restart { .. } => Ok(Target { node: nodes[step].clone(), transfer: None }),
        Act::Transfer => {
            let (from, _) = led[step];
            let to = successor(&entry.partitions[step].replicas(), from)
                .ok_or_else(|| Failure::refused(anyhow!("partition {step} has one replica only")))?;
            Ok(Target { node: entry_of(from)?, transfer: Some((step, to)) })
        }
    }
}

/// The replica after this one, round and round.
fn successor(replicas: &[NodeId], from: NodeId) -> Option<NodeId> {
    let place = replicas.iter().position(|replica| *replica == from)?;
    replicas.iter().copied().cycle().nth(place + 1).filter(|to| *to != from)
}

/// Lets those lead that did before.
async fn give_back(stage: &Stage<'_>, first_led: &[Led]) -> Outcome {
    for (group, (node, _)) in stage.groups.iter().zip(first_led) {
        stage.admin.transfer_primary(*group, *node).await?;
    }
    Ok(())
}

/// A round in one line, while the others go on.
fn line(round: &Round, count: usize) -> String {
    let ms = |what: &str, ms: Option<f64>| ms.map_or_else(String::new, |ms| format!(", {what} {ms:.0} ms"));
    format!(
        "round {} of {count}: {}{}{}, unavailable for {:.0} ms, well after {:.1} s",
        round.round,
        round.what,
        ms("new primary after", round.new_primary_ms),
        ms("first ack after", round.first_ack_ms),
        round.unavailable_ms,
        Duration::from_secs_f64(round.well_ms / 1e3).as_secs_f64()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primaries_go_round() {
        let replicas = [2, 3, 1].map(NodeId::new);
        assert_eq!(successor(&replicas, NodeId::new(2)), Some(NodeId::new(3)));
        assert_eq!(successor(&replicas, NodeId::new(1)), Some(NodeId::new(2)));
        assert_eq!(successor(&replicas, NodeId::new(9)), None);
        assert_eq!(successor(&replicas[..1], NodeId::new(2)), None);
    }

    #[test]
    fn nothing_wrong_is_passed_over() {
        let users = Users::default();
        let (well, bad) = (Findings::default(), Findings { lost: 1, ..Findings::default() });
        let of = |users: &Users, live, back| verdict(users, (live, back), &[], Act::Kill).len();
        assert_eq!(of(&users, &well, &well), 1, "no round was played");
        assert_eq!(of(&users, &bad, &well), 2);
        assert_eq!(of(&users, &well, &bad), 2);
        assert_eq!(of(&Users { reads_failed: 1, ..users.clone() }, &well, &well), 2);
        assert_eq!(of(&Users { records_failed: 1, ..users }, &bad, &bad), 4);
    }
}

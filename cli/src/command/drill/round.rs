//! One round: the cluster is well, something happens to a node, the cluster is well again.

use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use varve_client::{Admin, Client};
use varve_protocol::id::{GroupId, NodeId, View};
use varve_protocol::metadata::NodeEntry;

use super::hands::{Hands, tell};
use super::isolation::{Isolated, Isolation};
use super::options::Common;
use super::probe::{Lane, Probes};
use super::process::Paused;
use super::profile::Profiler;
use super::report::{PartitionRound, Round};
use super::sight::{ASK_EVERY, Question, Seen, Sight};
use super::timeline::{Moments, Phases, first_ack, ms, unavailable};
use crate::cluster_state;
use crate::command::cluster::transfer;
use crate::failure::{Failure, Outcome};
use crate::health::{Health, Summary};
use crate::measure::clock::Clock;
use crate::output::counted;

/// Between two looks at whether the cluster is well.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long it is waited without a word.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is done to a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Act {
    /// Its process is killed, and started again at the end of the round.
    Kill,
    /// Its process does not run for a time.
    Pause(Duration),
    /// It hears nobody for a time.
    Isolate(Isolated, Duration),
    /// Another node leads in its place.
    Transfer,
    /// It is stopped in good order and started again; perhaps after others lead what it led.
    Restart { is_drained: bool },
    /// It comes back with an empty disk.
    Replace,
}

impl Act {
    /// Whether what happens does so at one moment, so that acknowledgements after it come from another primary.
    pub(super) fn is_strike(self) -> bool {
        match self {
            Self::Kill | Self::Pause(_) | Self::Isolate(..) => true,
            Self::Transfer | Self::Restart { .. } | Self::Replace => false,
        }
    }

    /// How long it lasts by itself.
    fn lasts(self) -> Duration {
        match self {
            Self::Pause(time) | Self::Isolate(_, time) => time,
            Self::Kill | Self::Transfer | Self::Restart { .. } | Self::Replace => Duration::ZERO,
        }
    }
}

/// What an act holds until it is over; dropping it ends the act.
#[expect(dead_code, reason = "what is held is dropped, and that is what it is for")]
enum Hold {
    Nothing,
    Paused(Paused),
    Isolated(Isolation),
}

/// To whom it happens.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) node: NodeEntry,
    /// The only partition that is meant, and who shall lead it; none: all that the node leads.
    pub(super) transfer: Option<(usize, NodeId)>,
}

/// Who leads a partition, in which view.
pub(super) type Led = (NodeId, View);

/// What the rounds of a drill share.
pub(super) struct Stage<'a> {
    pub(super) act: Act,
    pub(super) options: &'a Common,
    pub(super) hands: &'a Hands,
    /// Looks at the cluster; the probes have clients of their own.
    pub(super) observer: &'a Client,
    pub(super) admin: Arc<Admin>,
    pub(super) nodes: Vec<NodeEntry>,
    pub(super) groups: Vec<GroupId>,
    pub(super) probes: &'a Probes,
    pub(super) clock: Clock,
    /// Stopped by Ctrl-C.
    pub(super) interrupt: Clock,
    pub(super) phases: Phases,
    pub(super) profiler: Profiler,
    /// Requests that had failed by the end of the last round.
    pub(super) failed_before: u64,
}

/// How it was done.
struct Struck {
    what: String,
    event: Duration,
    /// The process that was killed.
    pid: Option<u32>,
    hold: Hold,
}

impl Stage<'_> {
    /// Plays one round on the node that is chosen when all is well.
    pub(super) async fn play(&mut self, number: usize, target: Target, led: &[Led]) -> Outcome<Round> {
        if let Act::Restart { is_drained: true } = self.act {
            return self.play_drained(number, target).await;
        }
        self.play_on(number, target, led).await
    }

    /// What the node leads is led by others first, and then it is stopped.
    async fn play_drained(&mut self, number: usize, target: Target) -> Outcome<Round> {
        transfer::hand_over_all(self.observer, target.node.node.as_raw()).await?;
        let led = self.led().await?;
        self.play_on(number, target, &led).await
    }

    async fn play_on(&mut self, number: usize, target: Target, led: &[Led]) -> Outcome<Round> {
        let struck_groups = self.struck(&target, led);
        let groups = struck_groups.iter().map(|place| (self.groups[*place], led[*place].1));
        let question = Question { victim: target.node.node, groups: groups.collect() };
        let sight = Sight::open(&self.admin, &self.nodes, &question, &self.clock);
        let Struck { what, event, pid, hold } = self.strike(&target, &sight).await?;
        self.wait_for_acks(&struck_groups, event).await;
        let mut over = self.clock.now();
        self.nap_until(event + self.act.lasts()).await;
        drop(hold);
        if self.hands.is_manual && !self.act.lasts().is_zero() {
            tell(&format!("now let node {} go on", target.node.node.as_raw()));
        }
        let well = if let Act::Restart { .. } | Act::Replace = self.act {
            if self.act == Act::Replace && !self.hands.is_manual {
                self.hands.replace_disk(&target.node)?;
            }
            self.hands.start(&target.node, pid).await?;
            self.wait_until_well().await?;
            over = self.clock.now();
            self.nap(self.options.after).await;
            over
        } else {
            self.nap(self.options.after).await;
            if self.act == Act::Kill {
                self.hands.start(&target.node, pid).await?;
            }
            self.wait_until_well().await?;
            self.clock.now()
        };
        let moments = Moments { event, over, end: self.clock.now() };
        let story = Story { number, what, target, seen: sight.seen(), moments, well };
        Ok(self.sum_up(&story, (&struck_groups, led)))
    }

    /// Which partitions it is about.
    fn struck(&self, target: &Target, led: &[Led]) -> Vec<usize> {
        match target.transfer {
            Some((place, _)) => vec![place],
            None => {
                let is_led = |(node, _): &Led| *node == target.node.node;
                led.iter().enumerate().filter(|(_, led)| is_led(led)).map(|(place, _)| place).collect()
            }
        }
    }

    /// Does it. The event is when it is done, so that no acknowledgement of before is taken for one of after; where it takes its
    /// time, it is when that began.
    async fn strike(&self, target: &Target, sight: &Sight) -> Outcome<Struck> {
        if self.hands.is_manual {
            return self.have_it_done(target, sight).await;
        }
        let node = &target.node;
        let id = node.node.as_raw();
        let now = || self.clock.now();
        let struck = |what: String, event, pid, hold| Ok(Struck { what, event, pid, hold });
        match self.act {
            Act::Kill => {
                let process = self.hands.process(node)?;
                process.kill()?;
                struck(format!("killed process {}", process.pid), now(), Some(process.pid), Hold::Nothing)
            }
            Act::Pause(time) => {
                let process = self.hands.process(node)?;
                let what = format!("paused process {} for {time:?}", process.pid);
                let hold = Hold::Paused(process.pause(time)?);
                struck(what, now(), None, hold)
            }
            Act::Isolate(isolated, time) => {
                let process = self.hands.process(node)?;
                let hold = Isolation::begin(node, &self.nodes, (isolated, time))?;
                struck(
                    format!("isolated process {} for {time:?}", process.pid),
                    now(),
                    None,
                    Hold::Isolated(hold),
                )
            }
            Act::Transfer => {
                let (place, to) =
                    target.transfer.ok_or_else(|| Failure::refused(anyhow!("nobody else can lead")))?;
                let event = now();
                self.admin.transfer_primary(self.groups[place], to).await?;
                let what = format!("partition {place} led by node {} instead of {id}", to.as_raw());
                struck(what, event, None, Hold::Nothing)
            }
            Act::Restart { .. } | Act::Replace => {
                let pid = self.hands.process(node)?.pid;
                let event = now();
                self.hands.stop(node).await?;
                let what = if self.act == Act::Replace { "replaced the disk of" } else { "restarted" };
                struck(format!("{what} node {id}"), event, Some(pid), Hold::Nothing)
            }
        }
    }

    /// Says what to do and waits until it is done. The event is when the node answered last, which may be a few milliseconds
    /// before it was struck.
    async fn have_it_done(&self, target: &Target, sight: &Sight) -> Outcome<Struck> {
        let (id, address) = (target.node.node.as_raw(), &target.node.address);
        let what = match self.act {
            Act::Kill => format!("kill the process of node {id} at {address} with SIGKILL"),
            Act::Pause(time) => {
                format!("send SIGSTOP to the process of node {id} at {address}, to go on after {time:?}")
            }
            Act::Restart { .. } => format!("stop node {id} at {address} with SIGTERM"),
            Act::Replace => {
                format!(
                    "stop node {id} at {address} with SIGTERM, empty its data directory, and run `varve format`"
                )
            }
            Act::Isolate(..) | Act::Transfer => {
                return Err(Failure::usage(anyhow!("there is nothing to be done by hand")));
            }
        };
        tell(&format!("now {what}"));
        while sight.seen().silent.is_none() {
            if self.interrupt.is_stopped() {
                return Err(Failure::refused(anyhow!("interrupted before node {id} was struck")));
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
        Ok(Struck {
            what: format!("by hand: {what}"),
            event: sight.seen().answered,
            pid: None,
            hold: Hold::Nothing,
        })
    }

    /// Waits until what was struck is acknowledged again, or for as long as was said.
    async fn wait_for_acks(&self, struck: &[usize], event: Duration) {
        let lanes: Vec<&Arc<Lane>> =
            struck.iter().filter_map(|place| self.probes.lanes.get(*place)).collect();
        while self.clock.now() < event + self.options.give_up
            && lanes.iter().any(|lane| lane.first_ack_of(event).is_none())
        {
            tokio::time::sleep(ASK_EVERY / 2).await;
        }
    }

    async fn nap(&self, time: Duration) {
        self.nap_until(self.clock.now() + time).await;
    }

    /// Sleeps until a moment, or Ctrl-C.
    async fn nap_until(&self, at: Duration) {
        while !self.interrupt.is_stopped() {
            let left = at.saturating_sub(self.clock.now());
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(LOOK_EVERY)).await;
        }
    }

    /// Waits until every node is up and every replica works, and a little longer.
    pub(super) async fn prepare(&self) -> Outcome {
        self.wait_until_well().await?;
        self.nap(self.options.before).await;
        Ok(())
    }

    async fn wait_until_well(&self) -> Outcome {
        wait_until_well(self.observer, self.options.well_within).await
    }

    /// Who leads each partition, as they say themselves. A machine that is busy may be between two views just now.
    pub(super) async fn led(&self) -> Outcome<Vec<Led>> {
        let until = self.clock.now() + self.options.well_within;
        loop {
            let led = self.look_who_leads().await;
            match led.iter().position(Option::is_none) {
                None => return Ok(led.into_iter().flatten().collect()),
                Some(place) if self.clock.now() > until => {
                    return Err(Failure::refused(anyhow!("nobody says that he leads partition {place}")));
                }
                Some(_) => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }

    async fn look_who_leads(&self) -> Vec<Option<Led>> {
        let mut led = vec![None; self.groups.len()];
        for (led, group) in led.iter_mut().zip(&self.groups) {
            for node in &self.nodes {
                let Ok(told) = self.admin.offsets_at(node, *group).await else { continue };
                if told.primary == node.node && led.is_none_or(|(_, view)| told.view > view) {
                    *led = Some((node.node, told.view));
                }
            }
        }
        led
    }

    fn sum_up(&mut self, story: &Story, (struck, led): (&[usize], &[Led])) -> Round {
        let Story { number, what, target, seen, moments, well } = story;
        let since = |at: Duration| ms(at.saturating_sub(moments.event));
        let mut partitions = Vec::new();
        let mut failed = 0;
        for (place, lane) in self.probes.lanes.iter().enumerate() {
            let samples = lane.take_samples();
            self.phases.count(&samples, *moments);
            self.profiler.count(&samples, moments.event);
            let state = lane.state();
            failed += state.failed + state.reads_failed;
            let is_struck = struck.contains(&place);
            let new = seen.led.get(&self.groups[place]);
            let acked = first_ack(&samples, moments.event).filter(|_| is_struck && self.act.is_strike());
            partitions.push(PartitionRound {
                partition: u32::try_from(place).unwrap_or(u32::MAX),
                struck: is_struck,
                primary_before: led[place].0.as_raw(),
                primary_after: new.map(|(_, node)| node.as_raw()),
                new_primary_ms: new.map(|(at, _)| since(*at)),
                first_ack_ms: acked.map(ms),
                unavailable_ms: ms(unavailable(&samples, *moments)),
            });
        }
        let requests_failed = failed - self.failed_before;
        self.failed_before = failed;
        Round {
            round: *number,
            what: what.clone(),
            node: target.node.node.as_raw(),
            at_s: moments.event.as_secs_f64(),
            detection_ms: seen.missed.map(since).filter(|_| self.act.is_strike()),
            new_primary_ms: worst(&partitions, |partition| partition.new_primary_ms),
            first_ack_ms: worst(&partitions, |partition| partition.first_ack_ms)
                .filter(|_| self.act.is_strike()),
            unavailable_ms: partitions.iter().map(|partition| partition.unavailable_ms).fold(0.0, f64::max),
            well_ms: since(*well),
            requests_failed,
            partitions,
        }
    }
}

/// What is known of a round when it is over.
struct Story {
    number: usize,
    what: String,
    target: Target,
    seen: Seen,
    moments: Moments,
    well: Duration,
}

/// The largest number of those that were struck; none if one of them has none, or none was struck.
fn worst(partitions: &[PartitionRound], number: impl Fn(&PartitionRound) -> Option<f64>) -> Option<f64> {
    let struck = partitions.iter().filter(|partition| partition.struck);
    let numbers: Option<Vec<f64>> = struck.map(number).collect();
    numbers?.into_iter().reduce(f64::max)
}

/// Waits until every node is up and every replica works. Says what it waits for, if that takes a while.
pub(super) async fn wait_until_well(client: &Client, limit: Duration) -> Outcome {
    let start = tokio::time::Instant::now();
    let mut has_said = false;
    loop {
        let lack = match cluster_state::summary(client).await {
            Ok(summary) if summary.health == Health::Healthy => return Ok(()),
            Ok(summary) => lack(&summary),
            Err(error) => error.to_string(),
        };
        if start.elapsed() > limit {
            return Err(Failure::refused(anyhow!(
                "the cluster is not well after {limit:?} ({lack}), and a drill begins and ends with one that is"
            )));
        }
        if !has_said && start.elapsed() > PATIENCE {
            has_said = true;
            tell(&format!("waiting until the cluster is well: {lack}"));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What a cluster lacks.
fn lack(summary: &Summary) -> String {
    let unwell = summary.nodes.iter().filter(|node| !node.is_well()).map(|node| match &node.unreachable {
        Some(why) => format!("node {} is down: {why}", node.id),
        None => format!(
            "{} on node {} do not work",
            counted((node.changing + node.faulty) as usize, "replica"),
            node.id
        ),
    });
    let idle = summary.unavailable().map(|group| format!("{} has no primary", group.name));
    unwell.chain(idle).take(3).collect::<Vec<String>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_is_as_slow_as_the_slowest_that_was_struck() {
        let partition = |struck, first_ack_ms| PartitionRound {
            partition: 0,
            struck,
            primary_before: 1,
            primary_after: None,
            new_primary_ms: None,
            first_ack_ms,
            unavailable_ms: 0.0,
        };
        let of = |partitions: &[PartitionRound]| worst(partitions, |partition| partition.first_ack_ms);
        assert_eq!(
            of(&[partition(true, Some(3.0)), partition(false, Some(9.0)), partition(true, Some(5.0))]),
            Some(5.0)
        );
        assert_eq!(of(&[partition(true, Some(3.0)), partition(true, None)]), None, "one never came back");
        assert_eq!(of(&[partition(false, Some(3.0))]), None);
    }
}

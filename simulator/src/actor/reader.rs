//! Clients that read: one that wanders while faults strike, and one that reads everything at the end.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use varve_protocol::client::{FetchOptions, Refusal, Request, Response};
use varve_protocol::frame::Frame;
use varve_protocol::id::{ClusterId, GroupId, NodeId};

use super::operator::{other_streams, placement};
use super::{
    Actor, Answer, Happening, Orders, Placement, Streams, fetch_frame, observe_fetch, request_frame,
};
use crate::oracle::Violation;
use crate::random::{chance, long_tail, pick};

/// How long a reader waits for an answer.
const PATIENCE: Duration = Duration::from_millis(700);

/// The mean pause of the wanderer between two reads.
const STROLL: Duration = Duration::from_millis(20);

/// The pause of the auditor before it looks at a replica again.
const AUDIT_RETRY: Duration = Duration::from_millis(20);

/// Reads whatever replica it comes across, onwards or once more from somewhere before.
#[derive(Debug)]
pub(crate) struct Wanderer {
    cluster: ClusterId,
    rng: ChaCha8Rng,
    placement: Placement,
    next: Vec<u64>,
    correlation: u64,
    /// Partition, replica and first offset of the fetch under way.
    asked: Option<(usize, NodeId, u64)>,
    wake_at: Duration,
    is_healed: bool,
}

impl Wanderer {
    /// A reader that draws its ways from `rng`.
    pub(crate) fn new(cluster: ClusterId, rng: ChaCha8Rng) -> Self {
        Self {
            cluster,
            rng,
            placement: Vec::new(),
            next: Vec::new(),
            correlation: 0,
            asked: None,
            wake_at: Duration::ZERO,
            is_healed: false,
        }
    }

    fn ask(&mut self, orders: &mut Orders<'_>) {
        let index = self.rng.random_range(0..self.placement.len());
        let (group, replicas) = &self.placement[index];
        let node = replicas[self.rng.random_range(0..replicas.len())];
        let mut offset = self.next[index];
        if chance(&mut self.rng, 100) {
            offset = self.rng.random_range(0..=offset);
        }
        let options = FetchOptions {
            bytes_max: pick(&mut self.rng, &[1, 1_000, 100_000]),
            wait_ms: pick(&mut self.rng, &[0, 0, 50, 300]),
        };
        self.correlation += 1;
        self.asked = Some((index, node, offset));
        self.wake_at = orders.now + PATIENCE;
        orders.send(node, fetch_frame(self.cluster, (*group, offset), self.correlation, options));
    }

    fn on_answer(
        &mut self,
        answer: Answer,
        (index, node, offset): (usize, NodeId, u64),
        orders: &mut Orders<'_>,
    ) -> Result<(), Violation> {
        let group = self.placement[index].0;
        match answer {
            Answer::Fetched { high_watermark, prepares } => {
                let end = observe_fetch((group, node), offset, (high_watermark, &prepares), orders)?;
                self.next[index] = self.next[index].max(end);
                Ok(())
            }
            Answer::Refused(Refusal::OffsetOutOfRange { earliest, next }) if offset < earliest.as_raw() => {
                let (earliest, next) = (earliest.as_raw(), next.as_raw());
                orders.oracle.log_start_told((group, node), earliest, next)?;
                self.next[index] = self.next[index].max(earliest);
                Ok(())
            }
            Answer::Refused(Refusal::OffsetOutOfRange { next, .. })
                if next.as_raw() < offset && orders.oracle.losses(group) > 0 =>
            {
                // It may have been beyond the end that is left: it goes on there.
                self.next[index] = next.as_raw();
                Ok(())
            }
            Answer::Refused(Refusal::OffsetOutOfRange { next, .. }) if next.as_raw() >= offset => {
                let detail = format!("{node} refused offset {offset} of {group}, which ends at {next}");
                Err(Violation::new("sound request refused", detail))
            }
            Answer::Refused(_) => Ok(()),
            Answer::Appended(_) | Answer::Response(_) => {
                Err(Violation::new("unsound answer", format!("a fetch at {node} brought {answer:?}")))
            }
        }
    }
}

impl Actor for Wanderer {
    fn handle(&mut self, happening: Happening, orders: &mut Orders<'_>) -> Result<(), Violation> {
        match happening {
            Happening::Placed(placement) => {
                self.next = vec![0; placement.len()];
                self.placement = placement;
                self.wake_at = orders.now;
            }
            Happening::Healed => self.is_healed = true,
            Happening::Lost(node) if self.asked.is_some_and(|(_, asked, _)| asked == node) => {
                self.asked = None;
                self.wake_at = orders.now + STROLL;
            }
            Happening::Answer(node, frame) if frame.header.correlation == self.correlation => {
                let answer = Answer::read(node, &frame)?;
                if let Some(asked) = self.asked.take() {
                    self.on_answer(answer, asked, orders)?;
                    self.wake_at = orders.now + long_tail(&mut self.rng, STROLL);
                }
            }
            Happening::Wake | Happening::Lost(_) | Happening::Answer(..) => {}
        }
        if self.placement.is_empty() || self.is_healed {
            return Ok(());
        }
        if orders.now >= self.wake_at {
            self.ask(orders);
        }
        orders.wake_at(self.wake_at);
        Ok(())
    }

    fn waits_for(&self) -> Option<String> {
        None
    }
}

/// One replica as the auditor reads it.
#[derive(Debug)]
struct Scan {
    group: GroupId,
    node: NodeId,
    next: u64,
    /// It has been read up to its high watermark.
    is_at_end: bool,
    /// When to ask again; `None` while an answer is awaited.
    ask_at: Option<Duration>,
    deadline: Duration,
}

/// Reads every replica from start to end, until all replicas of a partition end at the same offset, at or behind the last
/// acknowledged record; and asks every node for its map.
#[derive(Debug)]
pub(crate) struct Auditor {
    cluster: ClusterId,
    scans: Vec<Scan>,
    wanted: Placement,
    wanted_streams: Streams,
    maps: BTreeMap<NodeId, Scan>,
    waits_for: Option<String>,
}

impl Auditor {
    /// An auditor of the replicas of `placement`.
    pub(crate) fn new(
        cluster: ClusterId,
        nodes: &[NodeId],
        (placement, streams): (Placement, Streams),
    ) -> Self {
        let scan = |group: GroupId, node: NodeId| Scan {
            group,
            node,
            next: 0,
            is_at_end: false,
            ask_at: Some(Duration::ZERO),
            deadline: Duration::ZERO,
        };
        let replicas = |(group, nodes): &(GroupId, Vec<NodeId>)| {
            let group = *group;
            nodes.iter().map(move |node| (group, *node)).collect::<Vec<_>>()
        };
        Self {
            cluster,
            scans: placement.iter().flat_map(replicas).map(|(group, node)| scan(group, node)).collect(),
            wanted: placement,
            wanted_streams: streams,
            maps: nodes.iter().map(|node| (*node, scan(GroupId::METADATA, *node))).collect(),
            waits_for: Some("nothing has been read".to_owned()),
        }
    }

    fn on_frame(&mut self, node: NodeId, frame: &Frame, orders: &mut Orders<'_>) -> Result<(), Violation> {
        let answer = Answer::read(node, frame)?;
        let correlation = usize::try_from(frame.header.correlation).unwrap_or(usize::MAX);
        if let Some(scan) = self.scans.get_mut(correlation) {
            return scan.on_answer(&answer, orders);
        }
        let Some(scan) = self.maps.get_mut(&node) else { return Ok(()) };
        scan.ask_at = Some(orders.now + AUDIT_RETRY);
        if let Answer::Response(Response::Map(map)) = &answer {
            // Who is behind is asked again: on a path that has become narrow the newest metadata may take seconds.
            let is_right = placement(map).as_ref() == Some(&self.wanted);
            scan.is_at_end = is_right && other_streams(map) == self.wanted_streams;
        }
        Ok(())
    }

    /// What is still missing, in words.
    fn judge(&self, orders: &Orders<'_>) -> Option<String> {
        let lagging = self.scans.iter().find(|scan| {
            let longest = self.ends(scan.group).values().copied().max().unwrap_or_default();
            !scan.is_at_end || scan.next < longest.max(orders.oracle.acked_end(scan.group))
        });
        if let Some(Scan { node, group, next, .. }) = lagging {
            let acked = orders.oracle.acked_end(*group);
            return Some(format!("{node} has {group} up to {next}, and up to {acked} was acknowledged"));
        }
        let mapless = self.maps.values().find(|scan| !scan.is_at_end)?;
        let (topic, streams) = (&self.wanted, &self.wanted_streams);
        Some(format!("{} does not know the topic as {topic:?}, and {streams:?}", mapless.node))
    }
}

impl Scan {
    fn on_answer(&mut self, answer: &Answer, orders: &mut Orders<'_>) -> Result<(), Violation> {
        self.ask_at = Some(orders.now + AUDIT_RETRY);
        match answer {
            Answer::Fetched { high_watermark, prepares } => {
                let replica = (self.group, self.node);
                let next = observe_fetch(replica, self.next, (*high_watermark, prepares), orders)?;
                if next > self.next {
                    self.ask_at = Some(orders.now);
                }
                self.next = next;
                self.is_at_end = next >= *high_watermark;
                Ok(())
            }
            Answer::Refused(Refusal::OffsetOutOfRange { earliest, next })
                if self.next < earliest.as_raw() =>
            {
                let (earliest, next) = (earliest.as_raw(), next.as_raw());
                orders.oracle.log_start_told((self.group, self.node), earliest, next)?;
                self.ask_at = Some(orders.now);
                self.next = earliest;
                Ok(())
            }
            Answer::Refused(_) => Ok(()),
            Answer::Appended(_) | Answer::Response(_) => {
                Err(Violation::new("unsound answer", format!("a fetch at {} brought {answer:?}", self.node)))
            }
        }
    }

    fn ask(&mut self, correlation: usize, cluster: ClusterId, orders: &mut Orders<'_>) {
        if self.ask_at.is_none() && orders.now >= self.deadline {
            self.ask_at = Some(orders.now);
        }
        if self.ask_at.is_some_and(|at| at <= orders.now) {
            self.ask_at = None;
            self.deadline = orders.now + PATIENCE;
            let correlation = correlation as u64;
            let frame = if self.group == GroupId::METADATA {
                request_frame(cluster, correlation, &Request::GetMap)
            } else {
                let options = FetchOptions { bytes_max: 1 << 20, wait_ms: 0 };
                fetch_frame(cluster, (self.group, self.next), correlation, options)
            };
            orders.send(self.node, frame);
        }
        orders.wake_at(self.ask_at.unwrap_or(self.deadline));
    }
}

impl Actor for Auditor {
    fn handle(&mut self, happening: Happening, orders: &mut Orders<'_>) -> Result<(), Violation> {
        match happening {
            Happening::Answer(node, frame) => self.on_frame(node, &frame, orders)?,
            Happening::Wake | Happening::Lost(_) | Happening::Placed(_) | Happening::Healed => {}
        }
        self.waits_for = self.judge(orders);
        if self.waits_for.is_none() {
            return Ok(());
        }
        let count = self.scans.len();
        for (index, scan) in self.scans.iter_mut().chain(self.maps.values_mut()).enumerate() {
            scan.ask(index.min(count), self.cluster, orders);
        }
        Ok(())
    }

    fn waits_for(&self) -> Option<String> {
        self.waits_for.clone()
    }

    fn ends(&self, group: GroupId) -> BTreeMap<NodeId, u64> {
        self.scans.iter().filter(|scan| scan.group == group).map(|scan| (scan.node, scan.next)).collect()
    }
}

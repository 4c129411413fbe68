//! A client that appends to every partition and keeps its word to the oracle about each append.
//!
//! With a session it goes back to the oldest unanswered append whenever anything is unclear, and sends everything from
//! there on again with the same request numbers, wherever the primary may be: the outcome becomes known in the end, and
//! nothing is doubled. Only where an operator had a group go on with less than was acknowledged it may be that the session is
//! refused for good, because an acknowledged append is missing: then it begins a new one there, and what was on its way stays
//! unknown. Without a session (an amnesiac) it sends each append once: a refusal means that it was not done, and
//! silence means that nobody knows.

mod lane;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use varve_protocol::client::{Refusal, Request, Response};
use varve_protocol::compression::Compression;
use varve_protocol::frame::Frame;
use varve_protocol::id::{ClusterId, GroupId, NodeId, ProducerId, RequestNumber};
use varve_protocol::metadata::{MetadataOp, MetadataOutcome};

use super::{Actor, Answer, Happening, Orders, Placement, append_frame, request_frame};
use crate::oracle::{Invocation, Violation};
use crate::random::{duration_between, long_tail};
use crate::scenario::Load;
use crate::workload::{Value, batch};
use lane::{Flight, Lane};

/// Appends that each partition must take after the faults are over.
const GOAL: u64 = 3;

/// The shortest pause before a refused append is tried again.
const RETRY: Duration = Duration::from_millis(10);

/// The correlation number of everything that is not an append.
const REGISTRATION: u64 = u64::MAX;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Session {
    /// It never wants one.
    None,
    /// It asks for one.
    Wanted,
    /// It has one, wherever it writes.
    Registered,
}

/// A producer.
#[derive(Debug)]
pub(crate) struct Producer {
    client: u32,
    cluster: ClusterId,
    nodes: Vec<NodeId>,
    load: Load,
    rng: ChaCha8Rng,
    session: Session,
    registrar: NodeId,
    register_at: Duration,
    counter: u64,
    lanes: Vec<Lane>,
    is_healed: bool,
}

impl Producer {
    /// A producer with a session.
    pub(crate) fn new(
        client: u32,
        (cluster, nodes): (ClusterId, Vec<NodeId>),
        load: Load,
        rng: ChaCha8Rng,
    ) -> Self {
        let registrar = nodes[client as usize % nodes.len()];
        Self {
            client,
            cluster,
            nodes,
            load,
            rng,
            session: Session::Wanted,
            registrar,
            register_at: Duration::ZERO,
            counter: 0,
            lanes: Vec::new(),
            is_healed: false,
        }
    }

    /// A producer without a session.
    pub(crate) fn without_session(
        client: u32,
        cluster: (ClusterId, Vec<NodeId>),
        mut load: Load,
        rng: ChaCha8Rng,
    ) -> Self {
        load.window = 1;
        Self { session: Session::None, ..Self::new(client, cluster, load, rng) }
    }

    fn place(&mut self, placement: Placement, now: Duration) {
        let lane = |(group, replicas): (GroupId, Vec<NodeId>)| Lane {
            group,
            target: replicas[0],
            replicas,
            producer: None,
            session_begin: 0,
            next_request: 1,
            flights: VecDeque::new(),
            attempt: 0,
            append_at: now,
            resend_at: None,
            deadline: Duration::MAX,
            acked_after_heal: 0,
            late: BTreeMap::new(),
        };
        self.lanes = placement.into_iter().map(lane).collect();
    }

    fn register(&mut self, orders: &mut Orders<'_>) {
        if self.session != Session::Wanted || self.lanes.is_empty() {
            return;
        }
        if orders.now >= self.register_at {
            let request = Request::Change(MetadataOp::RegisterProducer);
            orders.send(self.registrar, request_frame(self.cluster, REGISTRATION, &request));
            self.register_at = orders.now + self.load.patience.max(Duration::from_millis(500));
            self.registrar = self.nodes[self.rng.random_range(0..self.nodes.len())];
        }
        orders.wake_at(self.register_at);
    }

    fn on_registration(&mut self, answer: Answer, orders: &mut Orders<'_>) -> Result<(), Violation> {
        match answer {
            Answer::Response(Response::Changed(MetadataOutcome::Producer(producer))) => {
                orders.oracle.registered(producer, self.client)?;
                if self.session == Session::Wanted {
                    self.session = Session::Registered;
                    for lane in self.lanes.iter_mut().filter(|lane| lane.producer.is_none()) {
                        lane.producer = Some(producer);
                    }
                }
                Ok(())
            }
            Answer::Refused(refusal) => {
                if let Refusal::NotPrimary { primary, .. } = refusal
                    && primary != NodeId::ZERO
                {
                    self.registrar = primary;
                }
                self.register_at = self.register_at.min(orders.now + RETRY);
                Ok(())
            }
            Answer::Appended(_) | Answer::Fetched { .. } | Answer::Response(_) => {
                let detail = format!("client {} asked to be registered and was told {answer:?}", self.client);
                Err(Violation::new("unsound answer", detail))
            }
        }
    }

    fn on_append_answer(
        &mut self,
        correlation: u64,
        answer: Answer,
        orders: &mut Orders<'_>,
    ) -> Result<(), Violation> {
        let (lane, request, attempt) = split_correlation(correlation);
        let has_session = self.session != Session::None;
        let pause = duration_between(&mut self.rng, RETRY, RETRY * 4);
        let Some(lane) = self.lanes.get_mut(lane) else { return Ok(()) };
        match answer {
            Answer::Appended(base_offset) => {
                lane.on_acked(request, base_offset.as_raw(), orders)?;
            }
            Answer::Refused(refusal) if has_session => {
                if attempt == lane.attempt & ATTEMPT_MASK {
                    if lane.has_lost_session(&refusal, orders) {
                        lane.end_session(orders);
                        self.session = Session::Wanted;
                        self.register_at = orders.now;
                        return Ok(());
                    }
                    let elsewhere = self.rng.random_range(0..lane.replicas.len());
                    lane.on_refused(&refusal, (elsewhere, orders.now + pause), orders)?;
                }
            }
            Answer::Refused(refusal) => {
                let any = self.rng.random_range(0..lane.replicas.len());
                // Who has one try per append would need luck to find the last replica of a group.
                let elsewhere = if self.is_healed { lane.next_to_try() } else { any };
                lane.on_refused_for_good(request, &refusal, (elsewhere, orders))?;
            }
            Answer::Fetched { .. } | Answer::Response(_) => {
                let detail = format!("client {} appended and was told {answer:?}", self.client);
                return Err(Violation::new("unsound answer", detail));
            }
        }
        Ok(())
    }

    fn on_lost(&mut self, node: NodeId, orders: &mut Orders<'_>) {
        let pause = duration_between(&mut self.rng, RETRY, RETRY * 4);
        let has_session = self.session != Session::None;
        for lane in self.lanes.iter_mut().filter(|lane| lane.target == node) {
            if lane.flights.iter().any(|flight| flight.is_sent) {
                lane.try_elsewhere(&mut self.rng);
                if has_session {
                    lane.resend_at.get_or_insert(orders.now + pause);
                } else {
                    lane.give_up(orders);
                }
            }
        }
    }

    fn pump(&mut self, orders: &mut Orders<'_>) {
        for index in 0..self.lanes.len() {
            let producer = match self.session {
                Session::None => ProducerId::ZERO,
                Session::Wanted | Session::Registered => match self.lanes[index].producer {
                    Some(producer) => producer,
                    None => continue,
                },
            };
            self.check_patience(index, orders);
            self.append_more(index, producer, orders);
            let lane = &mut self.lanes[index];
            let (cluster, group, target) = (self.cluster, lane.group, lane.target);
            let attempt = lane.attempt;
            if lane.resend_at.is_none() {
                for flight in lane.flights.iter_mut().filter(|flight| !flight.is_sent) {
                    flight.is_sent = true;
                    let is_numbered = producer != ProducerId::ZERO;
                    let request = if is_numbered { flight.request - lane.session_begin } else { 0 };
                    let correlation = join_correlation(index, flight.request, attempt);
                    let session = (producer, RequestNumber::new(request));
                    let batch = flight.batch.clone();
                    orders.send(target, append_frame(cluster, group, session, (correlation, batch)));
                    lane.deadline = orders.now + self.load.patience;
                }
            }
            match lane.resend_at {
                Some(at) => orders.wake_at(at),
                None if lane.flights.iter().any(|flight| flight.is_sent) => orders.wake_at(lane.deadline),
                None => {}
            }
        }
    }

    /// Sends again what is due to be sent again, and loses patience with a silent node.
    fn check_patience(&mut self, index: usize, orders: &mut Orders<'_>) {
        let has_session = self.session != Session::None;
        let lane = &mut self.lanes[index];
        if lane.resend_at.is_some_and(|at| at <= orders.now) {
            lane.send_anew();
        }
        let waits = lane.resend_at.is_none() && lane.flights.iter().any(|flight| flight.is_sent);
        if waits && orders.now >= lane.deadline {
            lane.try_elsewhere(&mut self.rng);
            if has_session {
                lane.send_anew();
            } else {
                lane.give_up(orders);
            }
        }
    }

    fn append_more(&mut self, index: usize, producer: ProducerId, orders: &mut Orders<'_>) {
        let lane = &mut self.lanes[index];
        let is_open = lane.flights.len() < self.load.window as usize;
        if !is_open || (self.is_healed && lane.acked_after_heal >= GOAL) {
            return;
        }
        if orders.now < lane.append_at {
            orders.wake_at(lane.append_at);
            return;
        }
        lane.append_at = orders.now + long_tail(&mut self.rng, self.load.think);
        let count = self.rng.random_range(1..=self.load.batch_records_max);
        let size = self.rng.random_range(0..=self.load.payload_bytes_max) as usize;
        let first = Value { producer: self.client, counter: self.counter };
        self.counter += u64::from(count);
        let request = lane.next_request;
        lane.next_request += 1;
        let session = (producer != ProducerId::ZERO).then_some((producer, request - lane.session_begin));
        // Who has no session does not look what the topic's compression is.
        let compression = match self.session {
            Session::None => compression_of(self.load.compression, first),
            Session::Wanted | Session::Registered => self.load.compression,
        };
        let append = orders.oracle.invoked(Invocation { group: lane.group, session, first, count });
        lane.flights.push_back(Flight {
            request,
            batch: batch(first, (count, size), self.load.compression, compression),
            append,
            is_sent: false,
            is_acked: false,
            after_heal: self.is_healed,
        });
        if lane.flights.len() < self.load.window as usize {
            orders.wake_at(lane.append_at);
        }
    }
}

/// Any, in turn, where topics are compressed.
fn compression_of(of_topic: Compression, first: Value) -> Compression {
    let all = Compression::ALL;
    let turn = usize::try_from(first.counter % all.len() as u64).unwrap_or_default();
    if of_topic == Compression::None { of_topic } else { all[turn] }
}

const ATTEMPT_BITS: u32 = 16;
const REQUEST_BITS: u32 = 32;
const ATTEMPT_MASK: u64 = (1 << ATTEMPT_BITS) - 1;

fn join_correlation(lane: usize, request: u64, attempt: u64) -> u64 {
    (lane as u64) << (REQUEST_BITS + ATTEMPT_BITS) | request << ATTEMPT_BITS | attempt & ATTEMPT_MASK
}

fn split_correlation(correlation: u64) -> (usize, u64, u64) {
    let lane = usize::try_from(correlation >> (REQUEST_BITS + ATTEMPT_BITS)).unwrap_or(usize::MAX);
    let request = correlation >> ATTEMPT_BITS & ((1 << REQUEST_BITS) - 1);
    (lane, request, correlation & ATTEMPT_MASK)
}

impl Actor for Producer {
    fn handle(&mut self, happening: Happening, orders: &mut Orders<'_>) -> Result<(), Violation> {
        match happening {
            Happening::Wake => {}
            Happening::Placed(placement) => self.place(placement, orders.now),
            Happening::Healed => self.is_healed = true,
            Happening::Lost(node) => self.on_lost(node, orders),
            Happening::Answer(node, frame) => self.on_frame(node, &frame, orders)?,
        }
        self.register(orders);
        self.pump(orders);
        Ok(())
    }

    fn waits_for(&self) -> Option<String> {
        let client = self.client;
        if self.lanes.is_empty() {
            return Some(format!("client {client} has not been told of the partitions"));
        }
        if self.session == Session::Wanted {
            return Some(format!("client {client} is not registered"));
        }
        let behind = |lane: &&Lane| lane.acked_after_heal < GOAL || !lane.flights.is_empty();
        let lane = self.lanes.iter().find(behind)?;
        let (group, done, open) = (lane.group, lane.acked_after_heal, lane.flights.len());
        Some(format!("client {client} got {done} of {GOAL} new appends to {group}, {open} still open"))
    }
}

impl Producer {
    fn on_frame(&mut self, node: NodeId, frame: &Frame, orders: &mut Orders<'_>) -> Result<(), Violation> {
        let correlation = frame.header.correlation;
        let answer = Answer::read(node, frame)?;
        if correlation == REGISTRATION {
            self.on_registration(answer, orders)
        } else {
            self.on_append_answer(correlation, answer, orders)
        }
    }
}

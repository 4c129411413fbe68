//! Nodes with planted bugs: the judges must find each of them, and must be content with the node that has none.
//!
//! The toy is a cluster of one node. It keeps its whole state in memory and copies it to its "disk" with every round of
//! writes.

use std::collections::BTreeMap;

use bytes::Bytes;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use simulator::fast::machine::{Clocks, Effect, Ending, Input, Machine, Setup, Work};
use simulator::fast::run_with;
use simulator::report::{Report, Verdict};
use simulator::scenario::{Fault, Rot, Scenario, Strike, Victim, World};
use simulator::trace::Printing;
use std::time::Duration;
use varve_protocol::client::{
    FetchOptions, GroupStatus, NodeStatus, PartitionOffsets, Request, Response, Role, ScrubStatus,
    decode_archive, encode_archive,
};
use varve_protocol::durability::Durability;
use varve_protocol::frame::{Body, Command, Frame, FrameHeader};
use varve_protocol::id::{Epoch, GroupId, Incarnation, NodeId, Offset, ProducerId, RequestNumber, View};
use varve_protocol::metadata::{
    ClusterMap, MetadataOp, MetadataOutcome, PartitionEntry, StreamEntry, TopicEntry,
};
use varve_protocol::prepare::{Prepare, PrepareFields, PrepareId, PrepareKind};
use varve_protocol::time::Moment;
use varve_protocol::version::Version;

const NO_BUG: u8 = 0;
pub(super) const ACK_BEFORE_SYNC: u8 = 1;
const APPEND_RETRIES_AGAIN: u8 = 2;
const WRONG_OFFSET: u8 = 3;
const REFUSE_AND_APPEND: u8 = 4;
const PHANTOM: u8 = 5;
pub(super) const RESUME_VIEW: u8 = 6;
pub(super) const PANIC: u8 = 7;
const SILENT: u8 = 8;
const SWAP: u8 = 9;
const LATE_END: u8 = 10;
const EARLY_END: u8 = 11;

#[derive(Clone, Default)]
pub(super) struct State {
    view: u64,
    producers: u64,
    topic: Option<(u32, u8)>,
    logs: BTreeMap<GroupId, Vec<Prepare>>,
}

pub(super) struct Toy<const BUG: u8> {
    setup: Setup,
    state: State,
    synced: State,
    waiting: Vec<Effect>,
    in_round: Option<(Vec<Effect>, State)>,
    ready: Vec<Effect>,
    appends: u64,
}

impl<const BUG: u8> Toy<BUG> {
    fn answer(&mut self, session: u64, question: &FrameHeader, command: Command, body: Bytes, commit: u64) {
        let mut header = FrameHeader::new(command, self.setup.cluster);
        header.group = question.group;
        header.correlation = question.correlation;
        header.commit = commit;
        let effect = Effect::ToClient { session, frame: Frame { header, body: body.into() } };
        if command == Command::AppendOk && BUG != ACK_BEFORE_SYNC {
            self.waiting.push(effect);
        } else {
            self.ready.push(effect);
        }
    }

    fn on_append(&mut self, session: u64, frame: &Frame) {
        let header = &frame.header;
        let (producer, request) = (ProducerId::new(header.commit), RequestNumber::new(header.op.as_raw()));
        self.appends += 1;
        let log = self.state.logs.entry(header.group).or_default();
        let mine =
            |prepare: &&Prepare| prepare.header().producer() == producer && producer != ProducerId::ZERO;
        let before = log.iter().filter(mine).find(|prepare| prepare.header().request() == request);
        if let (Some(before), true) = (before, BUG != APPEND_RETRIES_AGAIN) {
            let offset = before.header().base_offset().as_raw();
            return self.answer(session, header, Command::AppendOk, Bytes::new(), offset);
        }
        let last = log.iter().filter(mine).map(|prepare| prepare.header().request().as_raw()).max();
        if producer != ProducerId::ZERO && request.as_raw() > last.unwrap_or_default() + 1 {
            let refusal = varve_protocol::client::Refusal::OutOfOrder { expected: RequestNumber::new(1) };
            return self.answer(session, header, Command::Refused, encode_archive(&refusal), 0);
        }
        let parent = log.last().map_or(PrepareId::ROOT, Prepare::id);
        let base = log.last().map_or(Offset::ZERO, |last| last.header().next_offset());
        let mut body = frame.body.to_bytes();
        if BUG == PHANTOM && self.appends == 50 {
            let mut bytes = body.to_vec();
            let end = bytes.len() - 1;
            bytes[end] ^= 1;
            body = bytes.into();
        }
        let fields = PrepareFields {
            version: Version::FIRST,
            cluster: self.setup.cluster,
            group: header.group,
            view: View::new(self.state.view),
            parent,
            epoch: Epoch::ZERO,
            kind: PrepareKind::Records,
            base_offset: base,
            record_count: u32::from_le_bytes(body[..4].try_into().expect("a batch starts with its count")),
            timestamp: varve_protocol::id::Timestamp::new(log.len() as u64 + 1),
            producer,
            request,
        };
        log.push(Prepare::seal(fields, body));
        let mut offset = base.as_raw();
        if BUG == WRONG_OFFSET && self.appends == 50 {
            offset += 1;
        }
        if BUG == REFUSE_AND_APPEND && producer == ProducerId::ZERO && self.appends.is_multiple_of(10) {
            let refusal = encode_archive(&varve_protocol::client::Refusal::Busy);
            return self.answer(session, header, Command::Refused, refusal, 0);
        }
        if BUG == SILENT {
            return;
        }
        self.answer(session, header, Command::AppendOk, Bytes::new(), offset);
    }

    fn on_request(&mut self, session: u64, frame: &Frame) {
        let request: Request =
            decode_archive(Command::Request, &frame.body.to_bytes()).expect("actors send sound requests");
        let response = match request {
            Request::GetMap => Response::Map(self.map()),
            Request::Change(MetadataOp::CreateTopic { partitions, replication_factor, .. }) => {
                self.state.topic = replication_factor.map(|factor| (partitions, factor));
                Response::Changed(MetadataOutcome::Done)
            }
            Request::Change(MetadataOp::RegisterProducer) => {
                self.state.producers += 1;
                Response::Changed(MetadataOutcome::Producer(ProducerId::new(self.state.producers)))
            }
            Request::Change(_) => Response::Changed(MetadataOutcome::Done),
            Request::GetLatestOffsets => Response::Offsets(self.offsets(frame.header.group)),
            Request::GetOffsets
            | Request::GetStatus
            | Request::HandOver { .. }
            | Request::GetVitals
            | Request::GetDistances
            | Request::MeasureRate { .. }
            | Request::GetDoubt
            | Request::GetOffsetAt { .. }
            | Request::ForceRecover => return,
        };
        // The metadata of the toy is synced at once: it is not what is tested here.
        self.synced.topic = self.state.topic;
        self.synced.producers = self.state.producers;
        self.answer(session, &frame.header, Command::Response, encode_archive(&response), 0);
    }

    fn offsets(&self, group: GroupId) -> PartitionOffsets {
        let log = self.synced.logs.get(&group).map_or(&[][..], Vec::as_slice);
        let ends = |log: &[Prepare]| log.last().map_or(Offset::ZERO, |last| last.header().next_offset());
        let high_watermark = match BUG {
            LATE_END => ends(&log[..log.len().saturating_sub(3)]),
            EARLY_END => ends(log).plus(100),
            _ => ends(log),
        };
        let (view, primary) = (View::new(self.state.view), self.setup.node);
        PartitionOffsets { log_start: Offset::ZERO, high_watermark, view, primary }
    }

    fn map(&self) -> ClusterMap {
        let partition = |number| PartitionEntry {
            directories: Vec::new(),
            arrived: Vec::new(),
            moving: None,
            group: GroupId::new(u64::from(number) + 1),
            places: vec![self.setup.node],
            founders: 1,
            durability: Durability::QuorumDisk,
        };
        let streams = self.state.topic.map(|(partitions, replication_factor)| StreamEntry {
            name: "sediment".to_owned(),
            topics: vec![TopicEntry {
                name: "sediment".to_owned(),
                replication_factor,
                partitions: (0..partitions).map(partition).collect(),
                retention: Default::default(),
                compression: Default::default(),
            }],
        });
        ClusterMap { streams: streams.into_iter().collect(), ..ClusterMap::default() }
    }

    fn on_fetch(&mut self, session: u64, frame: &Frame) {
        let options: FetchOptions =
            decode_archive(Command::Fetch, &frame.body.to_bytes()).expect("actors send sound requests");
        let log = self.synced.logs.get(&frame.header.group).cloned().unwrap_or_default();
        let high_watermark = log.last().map_or(0, |last| last.header().next_offset().as_raw());
        let wanted = frame.header.op.as_raw();
        let mut chunks = Vec::new();
        let mut size = 0;
        let mut given: Vec<&Prepare> =
            log.iter().filter(|prepare| prepare.header().next_offset().as_raw() > wanted).collect();
        if BUG == SWAP && given.len() > 3 {
            given.swap(1, 2);
        }
        for prepare in given {
            if size < options.bytes_max as usize {
                size += prepare.header().total_size();
                chunks.extend(prepare.chunks());
            }
        }
        let body = Body::from_chunks(chunks).to_bytes();
        self.answer(session, &frame.header, Command::FetchOk, body, high_watermark);
    }
}

impl<const BUG: u8> Machine for Toy<BUG> {
    type Disk = State;

    fn format(_: &Setup, _: u64) -> State {
        State::default()
    }

    fn start(setup: &Setup, _: Incarnation, mut disk: State) -> Result<Self, String> {
        if BUG != RESUME_VIEW {
            disk.view += 1;
        }
        Ok(Self {
            setup: setup.clone(),
            state: disk.clone(),
            synced: disk,
            waiting: Vec::new(),
            in_round: None,
            ready: Vec::new(),
            appends: 0,
        })
    }

    fn step(&mut self, _: Clocks, input: Input) {
        let Input::ClientFrame { session, frame } = input else { return };
        assert!(BUG != PANIC || self.appends < 20, "the toy was told to fail");
        let command = frame.header.command;
        if command == Command::Append {
            self.on_append(session, &frame);
        } else if command == Command::Fetch {
            self.on_fetch(session, &frame);
        } else {
            assert_eq!(command, Command::Request, "actors send nothing else");
            self.on_request(session, &frame);
        }
    }

    fn poll_effect(&mut self) -> Option<Effect> {
        (!self.ready.is_empty()).then(|| self.ready.remove(0))
    }

    fn next_timeout(&self) -> Option<Moment> {
        None
    }

    fn status(&self) -> NodeStatus {
        let group = |(group, log): (&GroupId, &Vec<Prepare>)| GroupStatus {
            group: *group,
            role: Role::Primary,
            view: View::new(self.state.view),
            primary: NodeId::new(1),
            head: log.len() as u64,
            durable: self.synced.logs.get(group).map_or(0, Vec::len) as u64,
            commit: 0,
            high_watermark: Offset::ZERO,
            problem: None,
        };
        NodeStatus {
            node: self.setup.node,
            uptime_ms: 0,
            hears: vec![self.setup.node],
            groups: self.state.logs.iter().map(group).collect(),
            frames_dropped: 0,
            scrub: ScrubStatus::default(),
        }
    }

    fn begin_round(&mut self) -> Option<usize> {
        let length = |state: &State| state.logs.values().map(Vec::len).sum::<usize>();
        let has_news = !self.waiting.is_empty() || length(&self.state) > length(&self.synced);
        if self.in_round.is_some() || !has_news {
            return None;
        }
        self.in_round = Some((std::mem::take(&mut self.waiting), self.state.clone()));
        Some(1)
    }

    fn finish_round(&mut self, _: Clocks) {
        let (answers, state) = self.in_round.take().expect("a round is under way");
        self.ready.extend(answers);
        self.synced = state;
    }

    fn crash(self, _: Ending, rng: &mut ChaCha8Rng) -> State {
        match self.in_round {
            Some((_, state)) if rng.random_bool(0.5) => state,
            _ => self.synced,
        }
    }

    fn work(&self) -> Work {
        Work::default()
    }
}

/// A scenario with one node and many crashes.
pub(super) fn crashes(seed: u64) -> Scenario {
    let mut scenario = Scenario::draw(seed, World::Fast);
    scenario.nodes = 1;
    scenario.replication_factor = 1;
    scenario.durability = Durability::QuorumDisk;
    scenario.rot = Rot::NONE;
    scenario.left_behind.clear();
    scenario.rollouts.clear();
    // A toy has one topic, made once.
    scenario.load.tinkers = false;
    scenario.load.balances = false;
    scenario.load.moves = false;
    scenario.load.amnesiacs = 1;
    scenario.load.window = 8;
    scenario.load.think = Duration::from_millis(20);
    scenario.load.patience = Duration::from_millis(200);
    scenario.link.idle_timeout = Duration::from_millis(300);
    scenario.link.latency = Duration::from_micros(200);
    scenario.disk.latency = Duration::from_millis(1);
    scenario.safety = Duration::from_secs(10);
    let victim = Victim::Node(NodeId::new(1));
    let strike = |at: u64| Strike {
        at: Duration::from_millis(at * 600 + at * at),
        lasts: Duration::from_millis(20),
        fault: Fault::Crash(victim),
    };
    scenario.strikes = (1..15).map(strike).collect();
    scenario
}

fn play<const BUG: u8>() -> Vec<Report> {
    (0..10).map(|seed| run_with::<Toy<BUG>>(crashes(seed), Printing::Off)).collect()
}

/// The bug must be found by most seeds, and be called by its name.
fn must_find<const BUG: u8>(properties: &[&str]) {
    let reports = play::<BUG>();
    let mut found = 0;
    for report in &reports {
        if let Verdict::Violation(violation) = &report.verdict {
            assert!(properties.contains(&violation.property), "not the planted bug: {violation}");
            found += 1;
        }
    }
    assert!(found >= 3, "found by {found} of {} seeds only", reports.len());
}

#[test]
fn a_sound_node_passes() {
    for report in play::<NO_BUG>() {
        assert_eq!(report.verdict, Verdict::Pass, "seed {}: {:#?}", report.seed, report.last);
        let numbers = report.statistics;
        assert!(numbers.tally.acked > 20 && numbers.crashes > 10, "something happened: {numbers}");
        assert!(numbers.records_read > 20, "something was read: {numbers}");
        assert!(numbers.ends_confirmed > 20, "ends were told: {numbers}");
    }
}

#[test]
fn acknowledging_before_the_sync_is_found() {
    must_find::<ACK_BEFORE_SYNC>(&[
        "acknowledged record lost",
        "two records at one offset",
        "sound request refused",
        "did not recover in time",
        "records reordered",
        "request skipped",
        "late read",
    ]);
}

#[test]
fn appending_a_retry_again_is_found() {
    must_find::<APPEND_RETRIES_AGAIN>(&[
        "record stored twice",
        "two records at one offset",
        "request skipped",
        "phantom end",
    ]);
}

#[test]
fn a_wrong_offset_in_an_acknowledgement_is_found() {
    must_find::<WRONG_OFFSET>(&["record stored twice", "two records at one offset", "records reordered"]);
}

#[test]
fn appending_what_was_refused_is_found() {
    must_find::<REFUSE_AND_APPEND>(&["refused append stored", "phantom end"]);
}

#[test]
fn a_damaged_record_is_found() {
    must_find::<PHANTOM>(&["phantom record", "unsound answer"]);
}

#[test]
fn resuming_a_view_is_found() {
    must_find::<RESUME_VIEW>(&["a restarted primary resumed its view"]);
}

#[test]
fn a_failed_assertion_is_found() {
    must_find::<PANIC>(&["a node stopped"]);
}

#[test]
fn never_answering_is_found() {
    must_find::<SILENT>(&["did not recover in time"]);
}

#[test]
fn an_end_that_is_told_too_late_is_found() {
    must_find::<LATE_END>(&["late read"]);
}

#[test]
fn an_end_where_nothing_can_be_is_found() {
    must_find::<EARLY_END>(&["phantom end"]);
}

#[test]
fn records_out_of_order_are_found() {
    must_find::<SWAP>(&["fetch skipped records", "record stored twice"]);
}

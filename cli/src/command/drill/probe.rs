//! The load around the event: for each partition a producer at a fixed rate and a consumer, from before the first round until
//! after the last.
//!
//! ```text
//!   thread per partition: sleeps until a record is due, sends ──▶ task: waits for acknowledgements ──▶ samples, offsets
//!   task per partition:   follows, checks what it reads ─────────────────────────────────────────────▶ reading
//! ```
//!
//! Each has a client of its own, as users have. A latency counts from when the record was due, whatever kept it from being sent.
//! When something fails, it is counted, and a new producer or consumer goes on: the drill is about what users see.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use varve_client::{Ack, Client, ClientError, From, Offset, Producer, ProducerConfig, Record, Target};
use varve_protocol::id::GroupId;

use super::ledger::{Findings, Found, Offsets, Reading};
use super::timeline::Sample;
use crate::failure::{Failure, Outcome};
use crate::measure::clock::Clock;
use crate::measure::payload::{Payloads, STAMP_SIZE, read_stamp};
use crate::measure::rate;

/// Records of one partition whose acknowledgements are awaited at most.
const RECORDS_AWAITED_MAX: usize = 1 << 17;

/// Kinds of errors that are told apart; all others count together.
const ERRORS_MAX: usize = 16;

/// The pause before another producer or consumer is made after an error.
const AFTER_ERROR: Duration = Duration::from_millis(200);

/// How long reading back may be without a new record.
const READ_BACK_MAX: Duration = Duration::from_secs(30);

/// What all probes have in common.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) servers: String,
    pub(super) topic: String,
    /// By partition.
    pub(super) groups: Vec<GroupId>,
    /// Records per second and partition.
    pub(super) rate: f64,
    pub(super) record_size: usize,
    /// What tells records of this drill from others.
    pub(super) run: u64,
}

/// All probes.
pub(super) struct Probes {
    plan: Arc<Plan>,
    pub(super) lanes: Vec<Arc<Lane>>,
    clock: Clock,
    sending: JoinSet<()>,
    reading: JoinSet<()>,
}

/// The probe of one partition.
pub(super) struct Lane {
    partition: u32,
    /// Its records carry it.
    stamp: u64,
    payloads: Payloads,
    /// Where the partition ended before the first one.
    begin: Offset,
    state: Mutex<State>,
    reading: Mutex<Reading>,
}

/// What has come of a probe so far.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Records handed to the client.
    pub(super) sent: u64,
    pub(super) acknowledged: u64,
    /// Records that the client said had failed, or whose fate it did not know.
    pub(super) failed: u64,
    /// Reads that failed.
    pub(super) reads_failed: u64,
    /// What went wrong, and how often.
    pub(super) errors: BTreeMap<String, u64>,
    pub(super) offsets: Offsets,
    /// Acknowledgements since they were last taken.
    samples: Vec<Sample>,
}

impl State {
    fn count_error(&mut self, error: &ClientError) {
        let mut words = error.to_string();
        if self.errors.len() >= ERRORS_MAX && !self.errors.contains_key(&words) {
            words = "others".to_owned();
        }
        *self.errors.entry(words).or_default() += 1;
    }
}

impl Lane {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reading(&self) -> MutexGuard<'_, Reading> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record_failed(&self, error: &ClientError) {
        let mut state = self.state();
        state.failed += 1;
        state.count_error(error);
    }

    fn read_failed(&self, error: &ClientError) {
        let mut state = self.state();
        state.reads_failed += 1;
        state.count_error(error);
    }

    /// The acknowledgements since they were last taken.
    pub(super) fn take_samples(&self) -> Vec<Sample> {
        std::mem::take(&mut self.state().samples)
    }

    /// The first acknowledgement so far of a record that was due at this moment or later.
    pub(super) fn first_ack_of(&self, due: Duration) -> Option<Duration> {
        let state = self.state();
        let since = state.samples.iter().rev().take_while(|sample| sample.due >= due);
        since.map(|sample| sample.done).min()
    }

    fn payload(&self, record: u64) -> bytes::Bytes {
        self.payloads.stamped(record, self.stamp, record)
    }

    fn found(&self, payload: &[u8]) -> Found {
        match read_stamp(payload, self.stamp) {
            None => Found::Foreign,
            Some(record) if self.payload(record) == payload => Found::Ours(record),
            Some(_) => Found::Damaged,
        }
    }
}

/// A record on its way.
struct Awaited {
    ack: Ack,
    record: u64,
    due: Duration,
}

impl Probes {
    /// Starts them all.
    pub(super) async fn start(plan: Plan, clock: &Clock) -> Outcome<Self> {
        let plan = Arc::new(plan);
        let admin = Client::connect(&plan.servers).await?.admin();
        let mut probes = Self {
            lanes: Vec::new(),
            clock: clock.clone(),
            sending: JoinSet::new(),
            reading: JoinSet::new(),
            plan: plan.clone(),
        };
        for (partition, group) in (0..).zip(&plan.groups) {
            let begin = admin.offsets(*group).await?.high_watermark;
            let lane = Arc::new(Lane {
                partition,
                stamp: plan.run.wrapping_add(u64::from(partition)),
                payloads: Payloads::new(plan.run, plan.record_size.max(STAMP_SIZE)),
                begin,
                state: Mutex::default(),
                reading: Mutex::new(Reading::from(begin.as_raw())),
            });
            probes.lanes.push(lane.clone());
            let producer = producer(&plan).await?;
            probes.reading.spawn(follow(lane.clone(), plan.clone()));
            probes.sending.spawn(produce(producer, lane, plan.clone(), clock.clone()));
        }
        Ok(probes)
    }

    /// Ends the producers, waits for what was sent, and reads everything back. Tells what the consumers saw while it happened,
    /// and what is there now.
    pub(super) async fn finish(mut self) -> Outcome<(Findings, Findings)> {
        self.clock.stop();
        while self.sending.join_next().await.is_some() {}
        let (mut live, mut back) = (Findings::default(), Findings::default());
        let client = Client::connect(&self.plan.servers).await?;
        for (lane, group) in self.lanes.iter().zip(&self.plan.groups) {
            let end = client.admin().offsets(*group).await?.high_watermark;
            let read = read_back(&client, &self.plan.topic, lane, end).await.map_err(|failure| {
                failure.context(format!("partition {} was not read back", lane.partition))
            })?;
            wait_for_consumer(lane, end).await;
            let state = lane.state();
            live = live.plus(lane.reading().findings(&state.offsets));
            back = back.plus(read.findings(&state.offsets));
        }
        self.reading.shutdown().await;
        Ok((live, back))
    }
}

async fn producer(plan: &Plan) -> Result<Producer, ClientError> {
    Client::connect(&plan.servers).await?.producer(&plan.topic, ProducerConfig::default()).await
}

/// Sends one partition's records from a thread of its own; ends when all of them are acknowledged or have failed.
async fn produce(producer: Producer, lane: Arc<Lane>, plan: Arc<Plan>, clock: Clock) {
    let (give, awaited) = mpsc::channel(RECORDS_AWAITED_MAX);
    let waiter = tokio::spawn(wait_for_acks(awaited, lane.clone(), clock.clone()));
    let runtime = Handle::current();
    let sender = tokio::task::spawn_blocking(move || {
        // What was sent is waited for before the producers go, for that would drop it.
        send_all(&runtime, producer, (&lane, &plan), &clock, &give)
    });
    let producers = sender.await;
    let _ = waiter.await;
    drop(producers);
}

fn send_all(
    runtime: &Handle,
    producer: Producer,
    (lane, plan): (&Lane, &Plan),
    clock: &Clock,
    give: &mpsc::Sender<Awaited>,
) -> Vec<Producer> {
    let start = clock.now();
    let mut producers = vec![producer];
    for record in 0.. {
        let due = start + rate::due(plan.rate, record);
        let Some(producer) = producers.last() else { break };
        if !clock.sleep_until(due) {
            break;
        }
        lane.state().sent += 1;
        let payload = Record { payload: lane.payload(record), ..Record::default() };
        match runtime.block_on(producer.send(Target::Partition(lane.partition), payload)) {
            Ok(ack) => {
                if give.blocking_send(Awaited { ack, record, due }).is_err() {
                    break;
                }
            }
            Err(error) => {
                lane.record_failed(&error);
                // Order would be lost if this one went on, so it refuses to; a user would make another one.
                producers.extend(runtime.block_on(another_producer(plan, clock)));
            }
        }
    }
    producers
}

async fn another_producer(plan: &Plan, clock: &Clock) -> Option<Producer> {
    while !clock.is_stopped() {
        tokio::time::sleep(AFTER_ERROR).await;
        if let Ok(producer) = producer(plan).await {
            return Some(producer);
        }
    }
    None
}

async fn wait_for_acks(mut awaited: mpsc::Receiver<Awaited>, lane: Arc<Lane>, clock: Clock) {
    while let Some(Awaited { ack, record, due }) = awaited.recv().await {
        let fate = ack.wait().await;
        let done = clock.now();
        match fate {
            Ok(offset) => {
                let mut state = lane.state();
                state.acknowledged += 1;
                state.offsets.set(record, offset.as_raw());
                state.samples.push(Sample { due, done });
            }
            Err(error) => lane.record_failed(&error),
        }
    }
}

/// Reads a partition from where the drill began, until it is aborted.
async fn follow(lane: Arc<Lane>, plan: Arc<Plan>) {
    loop {
        let next = Offset::new(lane.reading().next());
        let error = match read_on(&lane, &plan, next).await {
            Ok(never) => match never {},
            Err(error) => error,
        };
        lane.read_failed(&error);
        tokio::time::sleep(AFTER_ERROR).await;
    }
}

async fn read_on(lane: &Lane, plan: &Plan, next: Offset) -> Result<std::convert::Infallible, ClientError> {
    let client = Client::connect(&plan.servers).await?;
    let mut consumer = client.consumer(&plan.topic, lane.partition, From::Offset(next)).await?;
    loop {
        let fetched = consumer.next_batch().await?;
        let mut reading = lane.reading();
        for (offset, record) in &fetched.records {
            reading.take(offset.as_raw(), lane.found(&record.payload));
        }
    }
}

/// Reads all of a partition that the drill may have written, with a consumer that has seen none of it.
async fn read_back(client: &Client, topic: &str, lane: &Lane, end: Offset) -> Outcome<Reading> {
    let mut reading = Reading::from(lane.begin.as_raw());
    let mut consumer = client.consumer(topic, lane.partition, From::Offset(lane.begin)).await?;
    while consumer.position() < end {
        let fetched = tokio::time::timeout(READ_BACK_MAX, consumer.next_batch()).await.map_err(|_| {
            Failure::refused(anyhow::anyhow!(
                "nothing came for {READ_BACK_MAX:?} at {} of {end}",
                consumer.position()
            ))
        })??;
        for (offset, record) in fetched.records.iter().filter(|(offset, _)| *offset < end) {
            reading.take(offset.as_raw(), lane.found(&record.payload));
        }
    }
    Ok(reading)
}

/// Gives a consumer the time to read what there is.
async fn wait_for_consumer(lane: &Lane, end: Offset) {
    let has_all = async {
        while lane.reading().next() < end.as_raw() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    // What it has not seen by then counts as lost to it.
    let _ = tokio::time::timeout(READ_BACK_MAX, has_all).await;
}

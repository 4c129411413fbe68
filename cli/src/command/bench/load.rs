//! The load: producers that send what is due, and the tasks that wait for acknowledgements and for records.
//!
//! ```text
//!   thread per producer: sleeps until a record is due, sends ──▶ task per partition: waits for acknowledgements ──▶ recorder
//!   task per consumer and partition: fetches, reads the stamps ──────────────────────────────────────────────────▶ recorder
//! ```
//!
//! A producer has a thread, because the timers of the runtime have a resolution of a millisecond, which is more than an append
//! may take. One task per partition waits for acknowledgements, so that a slow partition does not make others look slow.

use std::future::ready;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use varve_client::{Ack, ClientError, Consumer, Fetched, Offset, Producer, Record, Target};

use super::recorder::Recorder;
use super::schedule::Share;
use crate::measure::clock::Clock;
use crate::measure::payload::{Payloads, read_stamp};

/// What is awaited of one partition and one producer at most: more than its window holds.
const AWAITED_MAX: usize = 1 << 17;

/// How long after the end what was due before it is still sent. A load far above what the cluster can take would go on for many
/// times its duration.
pub(super) const CATCH_UP_MAX: Duration = Duration::from_secs(5);

/// A recorder that several tasks write to.
#[derive(Clone, Debug)]
pub(super) struct Shared(Arc<Mutex<Recorder>>);

impl Shared {
    pub(super) fn new(recorder: Recorder) -> Self {
        Self(Arc::new(Mutex::new(recorder)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Recorder> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What all producers have in common.
#[derive(Clone, Debug)]
pub(super) struct Sending {
    pub(super) clock: Clock,
    /// When the last record is sent at the latest.
    pub(super) end: Duration,
    pub(super) payloads: Payloads,
    /// The run that is stamped on payloads; none: they carry no stamp.
    pub(super) run: Option<u64>,
    pub(super) partitions: u32,
    /// Records that each producer has waiting for their acknowledgement at most.
    pub(super) in_flight: Option<u32>,
    pub(super) recorder: Shared,
}

/// Records on their way together. To await each for itself costs more than to send it: the acknowledgements would be counted late.
struct Awaited {
    ack: Ack,
    /// When each was due.
    due: Vec<Duration>,
    bytes: u64,
    /// Their places among those that wait, if there are only so many.
    places: Option<OwnedSemaphorePermit>,
}

/// Sends one producer's share of the load from a thread of its own; ends when all of it is acknowledged or has failed.
pub(super) async fn produce(producer: Producer, share: Share, sending: Sending) {
    let mut waiters = JoinSet::new();
    let mut together = Vec::new();
    for _ in 0..sending.partitions {
        let (give, awaited) = mpsc::channel(AWAITED_MAX);
        together.push(Together { awaited: None, give });
        waiters.spawn(wait_for_acks(awaited, sending.clock.clone(), sending.recorder.clone()));
    }
    let runtime = Handle::current();
    let sender = tokio::task::spawn_blocking(move || {
        // It may sleep on this thread until a record is due, for nobody else is on it.
        let sent = runtime.block_on(send_all(&producer, share, &sending, together));
        if let Err(error) = sent {
            sending.recorder.lock().failed(1, &error);
        }
        // What was sent is waited for before the producer goes, for that would drop it.
        producer
    });
    let producer = sender.await;
    while waiters.join_next().await.is_some() {}
    drop(producer);
}

async fn send_all(
    producer: &Producer,
    share: Share,
    sending: &Sending,
    mut together: Vec<Together>,
) -> Result<(), ClientError> {
    let Sending { clock, end, payloads, run, partitions, .. } = sending;
    let places = sending.in_flight.map(|count| Arc::new(Semaphore::new(count as usize)));
    let sent = async {
        for turn in 0.. {
            let place = match &places {
                Some(places) => Some(take_place(places, &mut together).await),
                None => None,
            };
            let record = share.record(turn);
            let now = clock.now();
            let due = share.due(record).unwrap_or(now);
            if due < *end && now > *end + CATCH_UP_MAX {
                sending.recorder.lock().not_sent(share.left(turn, *end));
                break;
            }
            if due > now {
                hand_over_all(&mut together).await;
            }
            if due >= *end || !clock.sleep_until(due) {
                break;
            }
            let payload = match run {
                Some(run) => payloads.stamped(record, *run, nanos(due)),
                None => payloads.plain(record),
            };
            let bytes = payload.len() as u64;
            let partition = u32::try_from(record % u64::from(*partitions)).expect("a remainder fits");
            let record = Record { payload, ..Record::default() };
            let mut taken = pin!(producer.send(Target::Partition(partition), record));
            let ack = tokio::select! {
                biased;
                taken = &mut taken => taken,
                // There is no room: nothing waits for more while this does.
                () = ready(()) => {
                    hand_over_all(&mut together).await;
                    taken.await
                }
            }?;
            together[partition as usize].add(ack, (due, bytes, place)).await;
        }
        Ok(())
    };
    let sent = sent.await;
    hand_over_all(&mut together).await;
    sent
}

/// The records of one partition, as long as they go into one batch.
struct Together {
    awaited: Option<Awaited>,
    give: mpsc::Sender<Awaited>,
}

impl Together {
    async fn add(&mut self, ack: Ack, (due, bytes, place): (Duration, u64, Option<OwnedSemaphorePermit>)) {
        match &mut self.awaited {
            Some(awaited) if awaited.ack.is_with(&ack) => {
                awaited.due.push(due);
                awaited.bytes += bytes;
                if let (Some(places), Some(place)) = (&mut awaited.places, place) {
                    places.merge(place);
                }
            }
            Some(_) | None => {
                self.hand_over().await;
                self.awaited = Some(Awaited { ack, due: vec![due], bytes, places: place });
            }
        }
    }

    /// Has somebody wait for what there is.
    async fn hand_over(&mut self) {
        if let Some(awaited) = self.awaited.take() {
            // Who waits ends only when nothing can come any more.
            let _ = self.give.send(awaited).await;
        }
    }
}

/// Waits until one of those that wait has its acknowledgement, if there are as many as may wait.
async fn take_place(places: &Arc<Semaphore>, together: &mut [Together]) -> OwnedSemaphorePermit {
    let mut taken = pin!(Arc::clone(places).acquire_owned());
    let taken = tokio::select! {
        biased;
        taken = &mut taken => taken,
        () = ready(()) => {
            hand_over_all(together).await;
            taken.await
        }
    };
    taken.expect("nobody closes it")
}

async fn hand_over_all(together: &mut [Together]) {
    for one in together {
        one.hand_over().await;
    }
}

/// What a payload is stamped with: when it was due, after the start.
fn nanos(due: Duration) -> u64 {
    u64::try_from(due.as_nanos()).unwrap_or(u64::MAX)
}

async fn wait_for_acks(mut awaited: mpsc::Receiver<Awaited>, clock: Clock, recorder: Shared) {
    while let Some(Awaited { ack, due, bytes, places }) = awaited.recv().await {
        let fate = ack.wait().await;
        drop(places);
        let (now, count) = (clock.now(), due.len() as u64);
        let mut recorder = recorder.lock();
        match fate {
            Ok(_) => {
                recorder.done(count, bytes, now);
                due.iter().for_each(|due| recorder.took(*due, now.saturating_sub(*due)));
            }
            Err(error) => recorder.failed(count, &error),
        }
    }
}

/// Reads a partition from the end it had at the start, until it is aborted. What is not of this run is passed over.
pub(super) async fn follow(mut consumer: Consumer, run: u64, clock: Clock, recorder: Shared) {
    loop {
        let fetched = consumer.next_batch().await;
        let now = clock.now();
        let mut recorder = recorder.lock();
        match fetched {
            Ok(Fetched { records, .. }) => {
                let (mut count, mut bytes) = (0, 0);
                for (_, record) in &records {
                    if let Some(due) = read_stamp(&record.payload, run).map(Duration::from_nanos) {
                        recorder.took(due, now.saturating_sub(due));
                        count += 1;
                        bytes += record.payload.len() as u64;
                    }
                }
                recorder.done(count, bytes, now);
            }
            Err(error) => {
                recorder.failed(1, &error);
                return;
            }
        }
    }
}

/// Reads a partition up to an offset, exclusive, or until a moment.
pub(super) async fn read_up_to(
    mut consumer: Consumer,
    (end, until): (Offset, Duration),
    clock: Clock,
    recorder: Shared,
) {
    while consumer.position() < end && !clock.is_stopped() && clock.now() < until {
        let asked = clock.now();
        let fetched = consumer.next_batch().await;
        let now = clock.now();
        let mut recorder = recorder.lock();
        match fetched {
            Ok(Fetched { records, .. }) => {
                let wanted = records.iter().filter(|(offset, _)| *offset < end);
                let (count, bytes) = wanted
                    .fold((0, 0), |(count, bytes), (_, record)| (count + 1, bytes + record.payload.len()));
                recorder.done(count, bytes as u64, now);
                recorder.took(asked, now.saturating_sub(asked));
            }
            Err(error) => {
                recorder.failed(1, &error);
                return;
            }
        }
    }
}

//! The batch that a partition is filling, and the few that are full and wait for the lane.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use varve_protocol::compression::Compression;
use varve_protocol::record::{BatchBuilder, BatchError, Record};

use super::{Ack, Fate};
use crate::error::ClientError;

/// Full batches that wait for the lane.
const FULL_MAX: usize = 2;

/// A batch that is closed.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) bytes: Bytes,
    pub(crate) fate: watch::Sender<Fate>,
    pub(crate) since: Instant,
}

/// One that is full, and not finished yet: compressing it takes some milliseconds, and the lock is not held for that.
#[derive(Debug)]
pub(crate) struct Full {
    builder: BatchBuilder,
    fate: watch::Sender<Fate>,
    since: Instant,
}

impl Full {
    /// Finishes it.
    pub(crate) fn seal(self, compression: Compression) -> Sealed {
        let bytes = self.builder.finish_compressed(compression);
        Sealed { bytes, fate: self.fate, since: self.since }
    }
}

/// What the lane gets when it asks for a batch.
#[derive(Debug)]
pub(crate) enum Taken {
    /// This one.
    Batch(Full),
    /// None before this moment, unless one fills up.
    NotBefore(Instant),
    /// None before one is begun.
    Nothing,
}

#[derive(Debug)]
struct Open {
    builder: BatchBuilder,
    fate: watch::Sender<Fate>,
    since: Instant,
}

#[derive(Debug)]
struct Building {
    open: Option<Open>,
    full: VecDeque<Full>,
    /// The fate of the newest batch of all, for flushing.
    newest: Option<watch::Receiver<Fate>>,
    /// Whether the open batch is wanted now.
    is_urgent: bool,
    failure: Option<ClientError>,
}

/// Between the producer and a lane. The lock is held for the copy of one record at most.
#[derive(Debug)]
pub(crate) struct Slot {
    batch_bytes_max: usize,
    linger: Duration,
    building: Mutex<Building>,
    /// Wakes the lane: there is something to take, or sooner than thought.
    pub(crate) changed: Notify,
    /// Wakes senders: the lane has taken something, or failed.
    room: Notify,
}

impl Slot {
    pub(crate) fn new(batch_bytes_max: usize, linger: Duration) -> Self {
        let building =
            Building { open: None, full: VecDeque::new(), newest: None, is_urgent: false, failure: None };
        Self {
            batch_bytes_max,
            linger,
            building: Mutex::new(building),
            changed: Notify::new(),
            room: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Building> {
        self.building.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a record to the open batch; waits while too many full ones wait.
    pub(crate) async fn push(&self, record: &Record) -> Result<Ack, ClientError> {
        // Almost always there is room, and then nothing needs to be awaited.
        if let Some(ack) = self.try_push(record)? {
            return Ok(ack);
        }
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            // From here on a notification is not missed.
            room.as_mut().enable();
            if let Some(ack) = self.try_push(record)? {
                return Ok(ack);
            }
            room.await;
        }
    }

    fn try_push(&self, record: &Record) -> Result<Option<Ack>, ClientError> {
        let mut building = self.lock();
        if let Some(failure) = &building.failure {
            return Err(ClientError::EarlierFailed { reason: failure.to_string() });
        }
        loop {
            let is_new = building.open.is_none();
            let open = building.open.get_or_insert_with(|| Open {
                builder: BatchBuilder::new(self.batch_bytes_max),
                fate: watch::Sender::new(None),
                since: Instant::now(),
            });
            let place = open.builder.record_count();
            match open.builder.push(record) {
                Ok(()) => {
                    let fate = open.fate.subscribe();
                    if is_new {
                        building.newest = Some(fate.clone());
                        self.changed.notify_one();
                    }
                    return Ok(Some(Ack { fate, place }));
                }
                Err(BatchError::Full) if building.full.len() < FULL_MAX => {
                    building.close();
                    self.changed.notify_one();
                }
                Err(BatchError::Full) => return Ok(None),
                Err(
                    error @ (BatchError::RecordTooLarge { .. }
                    | BatchError::Size { .. }
                    | BatchError::Version { .. }
                    | BatchError::Compression { .. }
                    | BatchError::TooLarge { .. }
                    | BatchError::Compressed { .. }
                    | BatchError::Field { .. }),
                ) => {
                    building.open.take_if(|open| open.builder.is_empty());
                    return Err(error.into());
                }
            }
        }
    }

    /// Gives the lane the next batch. One that is still open is given only if it is due.
    pub(crate) fn take(&self, is_idle: bool) -> Taken {
        let mut building = self.lock();
        if building.full.is_empty() {
            let Some(open) = &building.open else { return Taken::Nothing };
            let due = open.since + self.linger;
            if !is_idle && !building.is_urgent && Instant::now() < due {
                return Taken::NotBefore(due);
            }
            building.close();
        }
        let full = building.full.pop_front().expect("a batch was closed if none was");
        self.room.notify_waiters();
        Taken::Batch(full)
    }

    /// Lets the open batch go at once; returns a promise that is kept when all given so far are.
    pub(crate) fn close_batch(&self) -> Option<Ack> {
        let mut building = self.lock();
        building.is_urgent = building.open.is_some();
        self.changed.notify_one();
        building.newest.clone().map(|fate| Ack { fate, place: 0 })
    }

    /// Ends the partition for this producer: order would be lost if anything after a failed batch were sent.
    pub(crate) fn fail(&self, error: &ClientError) {
        let mut building = self.lock();
        building.failure = Some(error.clone());
        building.close();
        let later = ClientError::EarlierFailed { reason: error.to_string() };
        for full in building.full.drain(..) {
            full.fate.send_replace(Some(Err(later.clone())));
        }
        self.room.notify_waiters();
    }
}

impl Building {
    fn close(&mut self) {
        if let Some(Open { builder, fate, .. }) = self.open.take() {
            self.full.push_back(Full { builder, fate, since: Instant::now() });
        }
        self.is_urgent = false;
    }
}

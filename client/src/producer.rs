//! The producer: records in, batches out, one lane per partition.
//!
//! A record is added to the batch that its partition is filling. The lane takes that batch when it is full, when it has
//! lingered long enough, or at once when nothing is on its way; so a lone record waits for nobody, and under load batches
//! fill by themselves. What cannot be taken yet holds `send` back: memory is bounded by the window. The lane compresses what it
//! takes as the topic says; how large a batch may get, and when it is full, counts its bytes before that.

mod building;
mod lane;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use varve_protocol::checksum::checksum;
use varve_protocol::id::Offset;
use varve_protocol::limits::{BATCH_BYTES_DEFAULT, CLIENT_TABLE_REQUESTS_MAX};
use varve_protocol::record::Record;

use crate::admin::register_producer;
use crate::cluster::Shared;
use crate::error::ClientError;
use crate::producer::building::Slot;
use crate::producer::lane::Lane;

/// How a producer works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerConfig {
    /// Bytes of a batch at most, before it is compressed; a record must fit one.
    pub batch_bytes_max: usize,
    /// How long a batch that is not full may wait while others are on their way.
    pub linger: Duration,
    /// Batches on their way at once per partition: enough to keep the disks busy, and no more, for the rest only waits. At
    /// most as many as a partition remembers per producer.
    pub window: usize,
    /// How long a batch may take from being closed to its acknowledgement, failovers included.
    pub timeout: Duration,
}

impl Default for ProducerConfig {
    fn default() -> Self {
        Self {
            batch_bytes_max: BATCH_BYTES_DEFAULT,
            linger: Duration::from_millis(5),
            window: 4,
            timeout: Duration::from_secs(30),
        }
    }
}

/// Where a record goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// To this partition.
    Partition(u32),
    /// To the partition that its key's CRC-32 falls to; without a key, as with an empty one.
    Key,
}

/// What becomes of a batch: nothing yet, or its base offset, or why it failed.
type Fate = Option<Result<Offset, ClientError>>;

/// The promise that a record's acknowledgement will come.
#[derive(Debug)]
pub struct Ack {
    fate: watch::Receiver<Fate>,
    place: u32,
}

impl Ack {
    /// Whether two records are in one batch, so that what becomes of them is known at the same moment.
    #[must_use]
    pub fn is_with(&self, other: &Self) -> bool {
        self.fate.same_channel(&other.fate)
    }

    /// Waits for the record's offset: it is then durable on a quorum of its partition's replicas.
    ///
    /// # Errors
    /// When the record was not stored, or that is not known; [`ClientError::outcome`] says which.
    pub async fn wait(mut self) -> Result<Offset, ClientError> {
        let fate = self.fate.wait_for(Option::is_some).await;
        let fate = fate.ok().and_then(|fate| fate.clone()).unwrap_or(Err(ClientError::Dropped));
        fate.map(|base| base.plus(self.place.into()))
    }
}

/// Appends records to a topic, each exactly once, in order per partition. Dropping it drops what is unacknowledged.
pub struct Producer {
    topic: String,
    slots: Vec<Arc<Slot>>,
    lanes: Vec<JoinHandle<()>>,
}

impl Producer {
    pub(crate) async fn start(
        shared: Arc<Shared>,
        topic: &str,
        config: ProducerConfig,
    ) -> Result<Self, ClientError> {
        let config = ProducerConfig { window: config.window.clamp(1, CLIENT_TABLE_REQUESTS_MAX), ..config };
        let entry = shared.topic(topic).await?;
        let producer = register_producer(&shared, config.timeout).await?;
        let mut slots = Vec::new();
        let mut lanes = Vec::new();
        for partition in entry.partitions {
            let slot = Arc::new(Slot::new(config.batch_bytes_max, config.linger));
            let lane = Lane::new(
                shared.clone(),
                slot.clone(),
                (topic.to_owned(), partition.group, producer),
                (config, entry.compression),
            );
            lanes.push(tokio::spawn(lane.run()));
            slots.push(slot);
        }
        Ok(Self { topic: topic.to_owned(), slots, lanes })
    }

    /// Takes a record; waits while the partition's window is full.
    ///
    /// # Errors
    /// When the record fits no batch, there is no such partition, or an earlier batch to it has failed.
    pub async fn send(&self, target: Target, record: Record) -> Result<Ack, ClientError> {
        let partition = match target {
            Target::Partition(partition) => partition,
            Target::Key => {
                let count = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
                checksum(record.key.as_deref().unwrap_or_default()) % count
            }
        };
        let slot = self.slots.get(partition as usize).ok_or_else(|| ClientError::PartitionUnknown {
            topic: self.topic.clone(),
            partition,
            partitions: u32::try_from(self.slots.len()).unwrap_or(u32::MAX),
        })?;
        slot.push(&record).await
    }

    /// Sends what is waiting and waits until all of it is acknowledged.
    ///
    /// # Errors
    /// When anything sent since the last flush was not stored, or that is not known.
    pub async fn flush(&self) -> Result<(), ClientError> {
        let newest: Vec<Ack> = self.slots.iter().filter_map(|slot| slot.close_batch()).collect();
        for ack in newest {
            ack.wait().await?;
        }
        Ok(())
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        for lane in &self.lanes {
            lane.abort();
        }
    }
}

//! The consumer: reads a partition in order, and waits at its end.
//!
//! Every prepare that comes is verified: its checksums, its place in the order, its batch. Any replica may serve, for all of
//! them hold the same records below their high watermarks; the primary is preferred, because it knows of new ones first.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use varve_protocol::client::{FetchOptions, Refusal, encode_archive};
use varve_protocol::frame::{Command, Frame, FrameHeader};
use varve_protocol::id::{ClusterId, GroupId, Offset, Op, Timestamp};
use varve_protocol::limits::FETCH_BYTES_MAX;
use varve_protocol::prepare::Prepare;
use varve_protocol::record::{Batch, Record};

use crate::admin::Admin;
use crate::cluster::{Backoff, Shared, is_over, read_refusal, replicas_of};
use crate::error::ClientError;

/// How long a node holds a fetch open when there is nothing to read.
const WAIT: Duration = Duration::from_millis(500);

/// How long an answer may take beyond that.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// How long a consumer looks for a node that serves it.
const TROUBLE_MAX: Duration = Duration::from_secs(15);

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// At the oldest record kept.
    First,
    /// Behind everything that was acknowledged before the start.
    Last,
    /// At this offset.
    Offset(Offset),
    /// At the first record that was appended at this time or later, as the clocks of the primaries had it.
    Time(Timestamp),
}

/// Records in order, and how far the partition goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Offsets are dense; never empty.
    pub records: Vec<(Offset, Record)>,
    /// First offset that could not be read yet.
    pub high_watermark: Offset,
}

/// Reads one partition.
pub struct Consumer {
    shared: Arc<Shared>,
    topic: String,
    group: GroupId,
    next: Offset,
    /// It began at the oldest record kept and has read nothing yet.
    at_first: bool,
    /// The node that serves.
    address: Option<String>,
    /// Counts up to try another replica when there is no primary to be found.
    rotation: usize,
}

impl Consumer {
    pub(crate) async fn start(
        shared: Arc<Shared>,
        topic: &str,
        partition: u32,
        from: From,
    ) -> Result<Self, ClientError> {
        let group = shared.partition(topic, partition).await?.group;
        let next = match from {
            From::Offset(offset) => offset,
            From::First => Admin::new(shared.clone()).offsets_as_known(group).await?.log_start,
            From::Last => Admin::new(shared.clone()).offsets(group).await?.high_watermark,
            From::Time(time) => Admin::new(shared.clone()).offset_at(group, time).await?,
        };
        let at_first = from == From::First;
        Ok(Self { shared, topic: topic.to_owned(), group, next, at_first, address: None, rotation: 0 })
    }

    /// The offset of the next record.
    #[must_use]
    pub fn position(&self) -> Offset {
        self.next
    }

    /// The next records; waits until there are any.
    ///
    /// # Errors
    /// When no replica serves for a while, or the offset is out of range.
    pub async fn next_batch(&mut self) -> Result<Fetched, ClientError> {
        let mut backoff = Backoff::new();
        let mut trouble_since: Option<Instant> = None;
        loop {
            let error = match self.fetch().await {
                Ok(Some(fetched)) => return Ok(fetched),
                Ok(None) => {
                    trouble_since = None;
                    continue;
                }
                Err(error) => error,
            };
            if let Some(address) = self.address.take()
                && matches!(error, ClientError::Unreachable { .. })
            {
                self.shared.nodes.forget(&address);
            }
            let since = *trouble_since.get_or_insert_with(Instant::now);
            if !error.is_retryable() || is_over(since, TROUBLE_MAX) {
                return Err(error);
            }
            self.check_topic().await?;
            backoff.wait(&self.shared).await;
        }
    }

    /// One fetch; `None` if there was nothing to read in its time.
    async fn fetch(&mut self) -> Result<Option<Fetched>, ClientError> {
        let address = match &self.address {
            Some(address) => address.clone(),
            None => self.find_server().await?,
        };
        let mut header = FrameHeader::new(Command::Fetch, ClusterId::default());
        header.group = self.group;
        header.op = Op::new(self.next.as_raw());
        let options = FetchOptions {
            bytes_max: u32::try_from(FETCH_BYTES_MAX).expect("the limit fits 32 bits"),
            wait_ms: u32::try_from(WAIT.as_millis()).expect("the wait fits 32 bits"),
        };
        let frame = Frame { header, body: encode_archive(&options).into() };
        let answer = self.shared.nodes.call(&address, frame, WAIT + ANSWER_MAX).await?;
        self.address = Some(address);
        if answer.header.command != Command::FetchOk {
            let refusal = read_refusal(&answer);
            if let Refusal::OffsetOutOfRange { earliest, .. } = refusal
                && self.at_first
                && earliest > self.next
            {
                // What was the oldest record when it was asked for has been let go since.
                self.next = earliest;
                return Ok(None);
            }
            return Err(refusal.into());
        }
        let records = read_records(&answer, self.next)?;
        let Some((last, _)) = records.last() else { return Ok(None) };
        self.next = last.next();
        self.at_first = false;
        Ok(Some(Fetched { records, high_watermark: Offset::new(answer.header.commit) }))
    }

    /// The primary; or if there is none, the replicas in turn.
    async fn find_server(&mut self) -> Result<String, ClientError> {
        if let Some(leader) = self.shared.find_leader(self.group, None).await {
            return Ok(leader.address);
        }
        let replicas = replicas_of(&self.shared.map(), self.group);
        self.rotation += 1;
        let no_replica = Refusal::UnknownGroup { group: self.group };
        let place = self.rotation.checked_rem(replicas.len()).ok_or(no_replica)?;
        Ok(replicas[place].1.clone())
    }

    async fn check_topic(&self) -> Result<(), ClientError> {
        let is_gone =
            self.shared.refresh_map().await.is_ok() && replicas_of(&self.shared.map(), self.group).is_empty();
        if is_gone { self.shared.topic(&self.topic).await.map(drop) } else { Ok(()) }
    }
}

/// The records from `next` on in the answer to a fetch, verified.
fn read_records(answer: &Frame, next: Offset) -> Result<Vec<(Offset, Record)>, ClientError> {
    let nonsense = |reason: String| ClientError::Nonsense { reason };
    let mut bytes = answer.body.to_bytes();
    let mut records = Vec::new();
    let mut expected: Option<Offset> = None;
    while !bytes.is_empty() {
        let prepare = Prepare::decode(&bytes).map_err(|error| nonsense(error.to_string()))?;
        bytes = bytes.slice(prepare.header().total_size()..);
        let base = prepare.header().base_offset();
        if expected.is_some_and(|expected| expected != base) || (expected.is_none() && base > next) {
            return Err(nonsense(format!("{base} follows where {expected:?} or {next} was due")));
        }
        expected = Some(prepare.header().next_offset());
        if prepare.header().record_count() == 0 {
            continue;
        }
        let batch = Batch::decode(prepare.body().clone()).map_err(|error| nonsense(error.to_string()))?;
        let offsets = (base.as_raw()..).map(Offset::new);
        records.extend(offsets.zip(batch.records()).filter(|(offset, _)| *offset >= next));
    }
    Ok(records)
}

//! The consumer: reads a partition in order, and waits at its end.
//!
//! Every prepare that comes is verified: its checksums, its place in the order, its batch. Any replica may serve, for all of
//! them hold the same records below their high watermarks; the primary is preferred, because it knows of new ones first.
//! A fetch is bounded by bytes as they are stored. What it brings is decompressed piece by piece, so that records which
//! compress very well do not fill the memory.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
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

/// Bytes of records, decompressed, that are handed out at once; the last batch may go beyond.
const PIECE_BYTES_MAX: usize = FETCH_BYTES_MAX;

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
    /// First offset that could not be read yet, as far as the client knows; it never goes back, whichever node serves.
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
    unread: Unread,
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
        Ok(Self {
            shared,
            topic: topic.to_owned(),
            group,
            next,
            at_first,
            address: None,
            rotation: 0,
            unread: Unread::default(),
        })
    }

    /// The offset of the next record.
    #[must_use]
    pub fn position(&self) -> Offset {
        self.next
    }

    /// The next records; waits until there are any.
    ///
    /// # Errors
    /// When no replica serves for a while, or the offset is out of range, or a batch cannot be read by this build.
    pub async fn next_batch(&mut self) -> Result<Fetched, ClientError> {
        let mut backoff = Backoff::new();
        let mut trouble_since: Option<Instant> = None;
        loop {
            let error = match self.next_piece().await {
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

    /// What is left of the last fetch, or one more; `None` if there was nothing to read in its time.
    async fn next_piece(&mut self) -> Result<Option<Fetched>, ClientError> {
        let mut unread = std::mem::take(&mut self.unread);
        if unread.prepares.is_empty() {
            let Some(answered) = self.fetch().await? else { return Ok(None) };
            unread = answered;
        }
        let records = unread.read_piece(self.next)?;
        let high_watermark = unread.high_watermark;
        self.unread = unread;
        let Some((last, _)) = records.last() else { return Ok(None) };
        self.next = last.next();
        self.at_first = false;
        Ok(Some(Fetched { records, high_watermark }))
    }

    /// One fetch; `None` if the offset was corrected instead.
    async fn fetch(&mut self) -> Result<Option<Unread>, ClientError> {
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
        let known = self.shared.ends.of(self.group);
        let answer = self.shared.nodes.call(&address, frame, WAIT + ANSWER_MAX).await?;
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
        let told = Offset::new(answer.header.commit);
        let high_watermark = self.shared.ends.note(self.group, told);
        // Who knows less than was known before it was asked is asked no more if there is anybody better.
        self.address = (told >= known).then_some(address);
        Ok(Some(Unread { prepares: answer.body.to_bytes(), expected: None, high_watermark }))
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
        match self.shared.refresh_map().await {
            Err(release @ ClientError::Release { .. }) => Err(release),
            Ok(map) if replicas_of(&map, self.group).is_empty() => {
                self.shared.topic(&self.topic).await.map(drop)
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

/// What a fetch has brought and nobody has read yet.
#[derive(Default)]
struct Unread {
    prepares: Bytes,
    /// The base offset of the first of them, if that is known.
    expected: Option<Offset>,
    high_watermark: Offset,
}

impl Unread {
    /// Takes records from `next` on, verified: all of them, or as many as are handed out at once.
    fn read_piece(&mut self, next: Offset) -> Result<Vec<(Offset, Record)>, ClientError> {
        let nonsense = |reason: String| ClientError::Nonsense { reason };
        let mut records = Vec::new();
        let mut size = 0;
        while !self.prepares.is_empty() && size < PIECE_BYTES_MAX {
            let prepare = Prepare::decode(&self.prepares).map_err(|error| nonsense(error.to_string()))?;
            self.prepares = self.prepares.slice(prepare.header().total_size()..);
            let base = prepare.header().base_offset();
            let expected = self.expected.replace(prepare.header().next_offset());
            if expected.is_some_and(|expected| expected != base) || (expected.is_none() && base > next) {
                return Err(nonsense(format!("{base} follows where {expected:?} or {next} was due")));
            }
            if prepare.header().record_count() == 0 {
                continue;
            }
            let batch = Batch::decode(prepare.body().clone())
                .map_err(|error| ClientError::Unreadable { offset: base, error })?;
            size += batch.records_size();
            let offsets = (base.as_raw()..).map(Offset::new);
            records.extend(offsets.zip(batch.records()).filter(|(offset, _)| *offset >= next));
        }
        Ok(records)
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use varve_protocol::compression::Compression;
    use varve_protocol::id::{Epoch, ProducerId, RequestNumber, Timestamp, View};
    use varve_protocol::prepare::{PrepareFields, PrepareId, PrepareKind};
    use varve_protocol::record::BatchBuilder;
    use varve_protocol::version::Version;

    use super::*;

    /// A prepare over a batch of these bytes.
    fn prepare(base_offset: u64, record_count: u32, body: Bytes) -> Bytes {
        let parent = PrepareId { op: Op::new(base_offset), view: View::new(0), checksum: 0 };
        let fields = PrepareFields {
            version: Version::FIRST,
            cluster: ClusterId::default(),
            group: GroupId::new(1),
            view: View::new(0),
            parent,
            epoch: Epoch::new(0),
            kind: PrepareKind::Records,
            base_offset: Offset::new(base_offset),
            record_count,
            timestamp: Timestamp::new(1),
            producer: ProducerId::new(1),
            request: RequestNumber::new(1),
        };
        let mut bytes = BytesMut::new();
        Prepare::seal(fields, body).encode(&mut bytes);
        bytes.freeze()
    }

    fn batch(compression: Compression, payload: &Bytes, count: u32) -> Bytes {
        let mut builder = BatchBuilder::new(usize::MAX);
        for _ in 0..count {
            builder.push(&Record { payload: payload.clone(), ..Record::default() }).unwrap();
        }
        builder.finish_compressed(compression)
    }

    fn unread(prepares: &[Bytes]) -> Unread {
        Unread { prepares: prepares.concat().into(), ..Unread::default() }
    }

    #[test]
    fn what_compresses_well_is_handed_out_piece_by_piece() {
        let payload = Bytes::from(vec![7; 1_000_000]);
        let body = batch(Compression::Zstd, &payload, 15);
        assert!(body.len() < 20_000);
        let prepares: Vec<Bytes> = (0..10).map(|number| prepare(number * 15, 15, body.clone())).collect();
        let mut unread = unread(&prepares);
        let mut next = Offset::new(4);
        let mut pieces = Vec::new();
        while !unread.prepares.is_empty() {
            let records = unread.read_piece(next).unwrap();
            pieces.push(records.len());
            for (offset, record) in records {
                assert_eq!((offset, record.payload.len()), (next, payload.len()));
                next = next.next();
            }
        }
        assert_eq!((pieces.len(), pieces[0], next), (10, 11, Offset::new(150)));
    }

    #[test]
    fn what_cannot_be_decompressed_is_told_with_its_codec_and_offset() {
        let sound = batch(Compression::Lz4, &Bytes::from_static(&[7; 500]), 3);
        let mut broken = sound.to_vec();
        broken.truncate(sound.len() - 4);
        let mut unknown = sound.to_vec();
        unknown[9] = 9;
        let table = [(broken, "lz4 data"), (unknown, "compression 9 is unknown to this build")];
        for (body, says) in table {
            let mut unread = unread(&[prepare(0, 3, sound.clone()), prepare(3, 3, body.into())]);
            let error = unread.read_piece(Offset::ZERO).unwrap_err();
            assert!(matches!(error, ClientError::Unreadable { offset, .. } if offset == Offset::new(3)));
            assert!(error.to_string().contains(says), "{error}");
        }
    }
}

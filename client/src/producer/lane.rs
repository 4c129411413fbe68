//! One partition of a producer: finds the primary, keeps the pipeline moving, survives failovers.
//!
//! Silence is looked into early: when nothing has been answered for a while, the other replicas are asked whether there is
//! a later view. So the client learns of a new primary about as soon as there is one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use varve_protocol::client::Refusal;
use varve_protocol::compression::Compression;
use varve_protocol::frame::{Command, Frame, FrameHeader};
use varve_protocol::id::{GroupId, NodeId, Offset, Op, ProducerId, RequestNumber};

use super::ProducerConfig;
use super::building::{Sealed, Slot, Taken};
use crate::cluster::{Backoff, Leader, Shared, read_refusal, replicas_of};
use crate::error::{ClientError, Outcome};
use crate::link::Link;
use crate::pipeline::Pipeline;

/// Silence after which the other replicas are asked who leads.
const PROBE_AFTER: Duration = Duration::from_millis(75);

/// How often they are asked if the node that leads still answers others.
const PROBE_ALWAYS_AFTER: Duration = Duration::from_millis(500);

/// Silence after which a session is given up even if nobody knows of another primary.
const GIVE_UP_AFTER: Duration = Duration::from_secs(2);

/// Why a session is left.
enum Left {
    /// Somebody else leads, as the node itself or another has said.
    For(Leader),
    /// It is not known who leads.
    Lost(String),
    /// The node wants to be asked again.
    Again(String),
    /// Going on makes no sense.
    Failed(ClientError),
}

/// What becomes of the batches that were on their way behind the one that failed. They were sent ahead of its answer: if it may
/// be in the log, they may be, too; if it surely is not, they cannot follow it.
fn fate_behind(error: &ClientError) -> ClientError {
    match error.outcome() {
        Outcome::Unknown => error.clone(),
        Outcome::NotDone => ClientError::EarlierFailed { reason: error.to_string() },
    }
}

/// One partition of a producer.
pub(crate) struct Lane {
    shared: Arc<Shared>,
    slot: Arc<Slot>,
    topic: String,
    group: GroupId,
    producer: ProducerId,
    timeout: Duration,
    compression: Compression,
    pipeline: Pipeline<Sealed>,
    /// The numbers of what was sent on this session since the last rewind, by correlation.
    sent: BTreeMap<u64, RequestNumber>,
    next_correlation: u64,
    /// When something was last heard, or first waited for.
    heard: Instant,
    /// When it was last looked into silence.
    probed: Instant,
    /// When others were last asked about it.
    asked: Instant,
    last_trouble: String,
    /// What a node said whose disk is full, since anything was acknowledged.
    full: Option<String>,
}

impl Lane {
    pub(crate) fn new(
        shared: Arc<Shared>,
        slot: Arc<Slot>,
        (topic, group, producer): (String, GroupId, ProducerId),
        (config, compression): (ProducerConfig, Compression),
    ) -> Self {
        let now = Instant::now();
        Self {
            shared,
            slot,
            topic,
            group,
            producer,
            timeout: config.timeout,
            compression,
            pipeline: Pipeline::new(config.window),
            sent: BTreeMap::new(),
            next_correlation: 1,
            heard: now,
            probed: now,
            asked: now,
            last_trouble: "the partition has no primary".to_owned(),
            full: None,
        }
    }

    /// Works until a batch fails, or the producer is dropped.
    pub(crate) async fn run(mut self) {
        let error = self.work().await;
        tracing::debug!(topic = self.topic, group = %self.group, %error, "producer lane failed");
        let mut fate = error.clone();
        for sealed in self.pipeline.drain() {
            sealed.fate.send_replace(Some(Err(fate)));
            fate = fate_behind(&error);
        }
        self.slot.fail(&error);
    }

    async fn work(&mut self) -> ClientError {
        let mut backoff = Backoff::new();
        let mut leader = None;
        loop {
            // Nothing is asked of anybody before there is something to send.
            if self.pipeline.is_empty() && leader.is_none() {
                self.wait_for_batch().await;
            }
            if let Some(error) = self.overdue() {
                return error;
            }
            if leader.is_none() {
                leader = self.shared.find_leader(self.group, None).await;
            }
            let left = match &leader {
                Some(leader) => self.lead_by(leader, &mut backoff).await,
                None => Left::Lost(match &self.full {
                    Some(full) => format!("no replica knows of a primary, and {full}"),
                    None => "no replica knows of a primary".to_owned(),
                }),
            };
            leader = match left {
                Left::For(next) => Some(next),
                Left::Again(reason) => {
                    self.last_trouble = reason;
                    backoff.wait(&self.shared).await;
                    leader
                }
                Left::Lost(reason) => {
                    self.last_trouble = reason;
                    backoff.wait(&self.shared).await;
                    if let Err(error) = self.check_topic().await {
                        return error;
                    }
                    None
                }
                Left::Failed(error) => return error,
            };
        }
    }

    async fn wait_for_batch(&mut self) {
        loop {
            match self.slot.take(true) {
                Taken::Batch(full) => return self.pipeline.push(full.seal(self.compression)),
                Taken::NotBefore(_) | Taken::Nothing => self.slot.changed.notified().await,
            }
        }
    }

    /// Works on a session with the node that is said to lead.
    async fn lead_by(&mut self, leader: &Leader, backoff: &mut Backoff) -> Left {
        let mut link = match self.open(leader).await {
            Ok(link) => link,
            Err(left) => {
                self.shared.nodes.forget(&leader.address);
                return left;
            }
        };
        self.pipeline.rewind();
        self.sent.clear();
        self.heard = Instant::now();
        loop {
            let next_batch = self.fill();
            if let Some(error) = self.overdue() {
                return Left::Failed(error);
            }
            let wake = self.wake_at(next_batch);
            let outgoing = link.outgoing.clone();
            tokio::select! {
                biased;
                frame = link.incoming.recv() => {
                    let Some(frame) = frame else { return Left::Lost("the connection broke".to_owned()) };
                    if let Err(left) = self.on_answer(&frame) {
                        return left;
                    }
                    *backoff = Backoff::new();
                }
                permit = outgoing.reserve(), if self.pipeline.has_unsent() => {
                    let Ok(permit) = permit else { return Left::Lost("the connection broke".to_owned()) };
                    self.send_next(permit, &link);
                }
                () = self.slot.changed.notified(), if self.pipeline.has_room() => {}
                () = tokio::time::sleep_until(wake) => {
                    if let Some(left) = self.look_into_silence(leader).await {
                        return left;
                    }
                }
            }
        }
    }

    /// Opens a session with the node that is said to lead. One that was stopped a moment ago is still said to lead, and does not
    /// answer: while it is waited for, the others are asked who leads now.
    async fn open(&self, leader: &Leader) -> Result<Link, Left> {
        let newer = async {
            loop {
                tokio::time::sleep(PROBE_AFTER).await;
                let newer = self.shared.find_leader(self.group, Some(leader.view)).await;
                if let Some(newer) = newer.filter(|newer| newer.view > leader.view) {
                    return newer;
                }
            }
        };
        tokio::select! {
            biased;
            opened = self.shared.nodes.open(&leader.address) => {
                opened.map_err(|error| Left::Lost(error.to_string()))
            }
            newer = newer => Err(Left::For(newer)),
        }
    }

    /// Takes batches while there is room; says when to look for the next.
    fn fill(&mut self) -> Option<Instant> {
        while self.pipeline.has_room() {
            match self.slot.take(self.pipeline.is_empty()) {
                Taken::Batch(full) => self.pipeline.push(full.seal(self.compression)),
                Taken::NotBefore(moment) => return Some(moment),
                Taken::Nothing => return None,
            }
        }
        None
    }

    fn send_next(&mut self, permit: mpsc::Permit<'_, Frame>, link: &Link) {
        if !self.pipeline.awaits_answer() {
            self.heard = Instant::now();
        }
        let Some((request, sealed)) = self.pipeline.send_next() else { return };
        let mut header = FrameHeader::new(Command::Append, link.cluster());
        header.group = self.group;
        header.op = Op::new(request.as_raw());
        header.commit = self.producer.as_raw();
        header.correlation = self.next_correlation;
        permit.send(Frame { header, body: sealed.bytes.clone().into() });
        self.sent.insert(self.next_correlation, request);
        self.next_correlation += 1;
    }

    fn on_answer(&mut self, frame: &Frame) -> Result<(), Left> {
        self.heard = Instant::now();
        let Some(request) = self.sent.remove(&frame.header.correlation) else {
            // An answer to something sent before a rewind; what counts is the answer to the repeat.
            return Ok(());
        };
        if frame.header.command == Command::AppendOk {
            self.full = None;
            for (sealed, offset) in self.pipeline.answer(request, Offset::new(frame.header.commit)) {
                sealed.fate.send_replace(Some(Ok(offset)));
            }
            return Ok(());
        }
        let refusal = read_refusal(frame);
        if matches!(refusal, Refusal::DiskFull { .. }) {
            self.full = Some(refusal.to_string());
        }
        Err(self.on_refusal(refusal))
    }

    fn on_refusal(&self, refusal: Refusal) -> Left {
        match refusal {
            Refusal::NotPrimary { primary, view, .. } if primary != NodeId::ZERO => {
                let replicas = replicas_of(&self.shared.map(), self.group);
                match replicas.into_iter().find(|(node, _)| *node == primary) {
                    Some((node, address)) => Left::For(Leader { node, view, address }),
                    None => Left::Lost(format!("{primary} leads, and its address is not known")),
                }
            }
            Refusal::OutOfOrder { expected } if self.pipeline.oldest_request() > Some(expected) => {
                // Either this is a primary of the past, or all its table is; a later one decides, or the time that is left.
                Left::Lost(format!(
                    "{} does not remember this producer's batches from {expected} on",
                    self.group
                ))
            }
            Refusal::Busy | Refusal::OutOfOrder { .. } => Left::Again(refusal.to_string()),
            Refusal::NotPrimary { .. }
            | Refusal::NoPrimary { .. }
            | Refusal::UnknownGroup { .. }
            | Refusal::Storage { .. }
            | Refusal::DiskFull { .. }
            | Refusal::ViewEnded { .. } => Left::Lost(refusal.to_string()),
            Refusal::UnknownOutcome
            | Refusal::BadBatch { .. }
            | Refusal::BatchTooLarge { .. }
            | Refusal::OffsetOutOfRange { .. }
            | Refusal::Malformed { .. }
            | Refusal::NotPossible { .. }
            | Refusal::WrongCluster => Left::Failed(refusal.into()),
        }
    }

    fn wake_at(&self, next_batch: Option<Instant>) -> Instant {
        let far = Instant::now() + GIVE_UP_AFTER;
        let silence = self.pipeline.awaits_answer().then(|| self.heard.max(self.probed) + PROBE_AFTER);
        let overdue = self.pipeline.oldest().map(|oldest| oldest.since + self.timeout);
        [next_batch, silence, overdue].into_iter().flatten().fold(far, Instant::min)
    }

    async fn look_into_silence(&mut self, leader: &Leader) -> Option<Left> {
        let silence = self.heard.max(self.probed).elapsed();
        if !self.pipeline.awaits_answer() || silence < PROBE_AFTER {
            return None;
        }
        // A node that lives refuses what it can no longer do; while it answers others, its disk may be what is slow.
        let is_alive = self.shared.nodes.was_heard(&leader.address, PROBE_AFTER);
        if is_alive && self.heard.max(self.asked).elapsed() < PROBE_ALWAYS_AFTER {
            self.probed = Instant::now();
            return None;
        }
        let newer = self.shared.find_leader(self.group, Some(leader.view)).await;
        self.probed = Instant::now();
        self.asked = self.probed;
        match newer {
            Some(newer) if newer.view > leader.view => Some(Left::For(newer)),
            Some(_) | None if self.heard.elapsed() > GIVE_UP_AFTER => {
                self.shared.nodes.forget(&leader.address);
                Some(Left::Lost(format!("{} does not answer", leader.node)))
            }
            Some(_) | None => None,
        }
    }

    /// The error for the oldest batch, if it has taken too long.
    fn overdue(&self) -> Option<ClientError> {
        let oldest = self.pipeline.oldest()?;
        (oldest.since.elapsed() >= self.timeout).then(|| ClientError::TimedOut {
            what: "an append",
            limit: self.timeout,
            reason: self.last_trouble.clone(),
        })
    }

    /// Whether the topic is still there; if the cluster cannot say, it is. An error, too, if this client's release is not the cluster's.
    async fn check_topic(&self) -> Result<(), ClientError> {
        match self.shared.recent_map().await {
            Err(release @ ClientError::Release { .. }) => return Err(release),
            Err(_) => return Ok(()),
            Ok(map) if !replicas_of(&map, self.group).is_empty() => return Ok(()),
            Ok(_) => {}
        }
        self.shared.topic(&self.topic).await?;
        let deleted = Refusal::UnknownGroup { group: self.group };
        Err(deleted.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_behind_an_unknown_batch_is_unknown() {
        let late = ClientError::TimedOut {
            what: "an append",
            limit: Duration::from_secs(2),
            reason: "n4 does not answer".to_owned(),
        };
        assert_eq!(fate_behind(&late).outcome(), Outcome::Unknown);
        let refused = ClientError::Refused(Refusal::WrongCluster);
        assert_eq!(fate_behind(&refused).outcome(), Outcome::NotDone);
        assert!(matches!(fate_behind(&refused), ClientError::EarlierFailed { .. }));
    }
}

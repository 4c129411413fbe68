//! Streams, topics and nodes: changed and looked at.
//!
//! Changes go to the primary of the metadata group, numbered in a session of their own, so that one that is repeated over a
//! failover happens once.

mod peers;
mod version;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use varve_protocol::client::{
    Doubt, NodeStatus, NodeVitals, PartitionOffsets, Refusal, Request, Response, encode_archive,
};
use varve_protocol::compression::Compression;
use varve_protocol::durability::Durability;
use varve_protocol::frame::{Command, Frame, FrameHeader};
use varve_protocol::id::{ClusterId, GroupId, NodeId, Offset, Op, ProducerId, RequestNumber, Timestamp};
use varve_protocol::metadata::{ClusterMap, MetadataError, MetadataOp, MetadataOutcome, Move, NodeEntry};
use varve_protocol::retention::Retention;

use crate::cluster::{AdminSession, Backoff, Shared, is_over, nonsense, read_response, replicas_of};
use crate::error::ClientError;

/// How long a change may take, failovers included.
const CHANGE_MAX: Duration = Duration::from_secs(15);

/// How long one try of a change may take before another node is asked who leads.
const TRY_MAX: Duration = Duration::from_millis(500);

/// How long the transfer of a primary may take.
const TRANSFER_MAX: Duration = Duration::from_secs(10);

/// How long a node may take to tell its status.
const STATUS_MAX: Duration = Duration::from_secs(1);

/// How a new topic shall be, for good.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TopicOptions {
    /// How many partitions it has.
    pub partitions: u32,
    /// Replicas of each; `None`: 3, or 1 if the cluster has fewer nodes.
    pub replication_factor: Option<u8>,
    /// When an append counts as done.
    pub durability: Durability,
    /// How long records are kept.
    pub retention: Retention,
    /// How producers compress what they append.
    pub compression: Compression,
}

impl Default for TopicOptions {
    /// One partition, acknowledged when it is on disk, whose records are kept for ever, as they are.
    fn default() -> Self {
        Self {
            partitions: 1,
            replication_factor: None,
            durability: Durability::default(),
            retention: Retention::FOREVER,
            compression: Compression::None,
        }
    }
}

/// Changes and looks at streams, topics and nodes.
pub struct Admin {
    shared: Arc<Shared>,
}

impl Admin {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The cluster map, as the primary of the metadata has it if there is one.
    ///
    /// # Errors
    /// When no node answers.
    pub async fn map(&self) -> Result<ClusterMap, ClientError> {
        Ok(self.shared.fresh_map().await?.as_ref().clone())
    }

    /// How every node is, or why that cannot be learnt.
    ///
    /// # Errors
    /// When no node answers at all.
    pub async fn statuses(&self) -> Result<Vec<(NodeEntry, Result<NodeStatus, ClientError>)>, ClientError> {
        let nodes = self.shared.refresh_map().await?.nodes.clone();
        let answers = self.ask_each(nodes, Request::GetStatus).await.into_iter();
        let status = |answer| match answer {
            Response::Status(status) => Ok(status),
            other @ (Response::Map(_)
            | Response::Changed(_)
            | Response::Offsets(_)
            | Response::HandingOver
            | Response::Doubt(_)
            | Response::OffsetAt(_)
            | Response::Distances(_)
            | Response::Rate(_)
            | Response::Vitals(_)) => Err(nonsense(&other)),
        };
        Ok(answers.map(|(node, answer)| (node, answer.and_then(status))).collect())
    }

    /// How every node is, in short, or why that cannot be learnt. Asks the nodes of the map as last learnt and nothing of
    /// each group, so that it may be done often.
    pub async fn vitals(&self) -> Vec<(NodeEntry, Result<NodeVitals, ClientError>)> {
        let nodes = self.shared.map().nodes.clone();
        let answers = self.ask_each(nodes, Request::GetVitals).await.into_iter();
        answers.map(|(node, answer)| (node, answer.and_then(vitals))).collect()
    }

    /// How one node is, in short.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn vitals_of(&self, node: &NodeEntry) -> Result<NodeVitals, ClientError> {
        ask_node(&self.shared, &node.address, &Request::GetVitals).await.and_then(vitals)
    }

    /// Asks all nodes the same at once.
    async fn ask_each(
        &self,
        nodes: Vec<NodeEntry>,
        request: Request,
    ) -> Vec<(NodeEntry, Result<Response, ClientError>)> {
        let mut asked = JoinSet::new();
        for (place, node) in nodes.into_iter().enumerate() {
            let (shared, request) = (self.shared.clone(), request.clone());
            asked.spawn(async move { (place, ask_node(&shared, &node.address, &request).await, node) });
        }
        let mut answers = Vec::new();
        while let Some(answered) = asked.join_next().await {
            answers.extend(answered.ok());
        }
        answers.sort_by_key(|(place, ..)| *place);
        answers.into_iter().map(|(_, answer, node)| (node, answer)).collect()
    }

    /// Creates a stream.
    ///
    /// # Errors
    /// When the name is taken or not legal, or the cluster cannot be changed at the moment.
    pub async fn create_stream(&self, stream: &str) -> Result<(), ClientError> {
        self.change(MetadataOp::CreateStream { stream: stream.to_owned() }).await
    }

    /// Deletes a stream without topics.
    ///
    /// # Errors
    /// When there is no such stream, or it has topics, or the cluster cannot be changed at the moment.
    pub async fn delete_stream(&self, stream: &str) -> Result<(), ClientError> {
        self.change(MetadataOp::DeleteStream { stream: stream.to_owned() }).await
    }

    /// Creates a topic and waits until all its partitions have a primary.
    ///
    /// # Errors
    /// When the name is taken or not legal, the numbers are out of bounds, or the cluster cannot be changed at the moment.
    pub async fn create_topic(
        &self,
        stream: &str,
        topic: &str,
        options: TopicOptions,
    ) -> Result<(), ClientError> {
        let TopicOptions { partitions, replication_factor, durability, retention, compression } = options;
        let (stream, topic) = (stream.to_owned(), topic.to_owned());
        let full_name = format!("{stream}/{topic}");
        let operation = MetadataOp::CreateTopic {
            stream,
            topic,
            partitions,
            replication_factor,
            durability,
            retention,
            compression,
        };
        self.change(operation).await?;
        match self.wait_for_primaries(&full_name).await {
            Ok(()) => Ok(()),
            // It was created; somebody has deleted it since.
            Err(ClientError::Metadata(_) | ClientError::Refused(Refusal::UnknownGroup { .. })) => Ok(()),
            Err(error) => Err(ClientError::TimedOut {
                what: "the wait for the primaries of a topic that is created",
                limit: CHANGE_MAX,
                reason: error.to_string(),
            }),
        }
    }

    /// Deletes a topic with all its records.
    ///
    /// # Errors
    /// When there is no such topic, or the cluster cannot be changed at the moment.
    pub async fn delete_topic(&self, stream: &str, topic: &str) -> Result<(), ClientError> {
        self.change(MetadataOp::DeleteTopic { stream: stream.to_owned(), topic: topic.to_owned() }).await
    }

    /// Lets another node lead a group, and waits until it does. Requests under way see no error.
    ///
    /// # Errors
    /// When the node holds no replica of the group, or is not up, or does not take over in time.
    pub async fn transfer_primary(&self, group: GroupId, to: NodeId) -> Result<(), ClientError> {
        let start = Instant::now();
        let mut backoff = Backoff::new();
        let mut reason = Refusal::NoPrimary { group }.to_string();
        while !is_over(start, TRANSFER_MAX) {
            if let Some(leader) = self.shared.find_leader(group, None).await {
                if leader.node == to {
                    return Ok(());
                }
                let asked =
                    self.shared.request(&leader.address, group, &Request::HandOver { to }, TRY_MAX).await;
                match asked {
                    Ok(Response::HandingOver) => reason = format!("{to} has not caught up"),
                    Ok(other) => return Err(nonsense(&other)),
                    Err(error) if error.is_retryable() => reason = error.to_string(),
                    Err(error) => return Err(error),
                }
            }
            backoff.wait_and_relearn(&self.shared).await?;
        }
        Err(ClientError::TimedOut { what: "the transfer of a primary", limit: TRANSFER_MAX, reason })
    }

    /// Has another node take the place of one that holds a replica of a group. It takes the log first, while the group goes on;
    /// see [`Self::moving`] for when it is done.
    ///
    /// # Errors
    /// When it is not possible, as the error says, or the cluster cannot be changed at the moment.
    pub async fn move_replica(&self, group: GroupId, from: NodeId, to: NodeId) -> Result<(), ClientError> {
        self.change(MetadataOp::MoveReplica { group, from, to }).await
    }

    /// Has one more node hold a replica of a group. It takes the log first, while the group goes on; see [`Self::moving`] for when
    /// its word counts.
    ///
    /// # Errors
    /// When it is not possible, as the error says, or the cluster cannot be changed at the moment.
    pub async fn add_replica(&self, group: GroupId, to: NodeId) -> Result<(), ClientError> {
        self.change(MetadataOp::MoveReplica { group, from: NodeId::ZERO, to }).await
    }

    /// Has a node leave a group: its replica counts no more, and is deleted; see [`Self::moving`] for when that is so.
    ///
    /// # Errors
    /// When it is not possible, as the error says, or the cluster cannot be changed at the moment.
    pub async fn remove_replica(&self, group: GroupId, from: NodeId) -> Result<(), ClientError> {
        self.change(MetadataOp::MoveReplica { group, from, to: NodeId::ZERO }).await
    }

    /// Gives up a move, or that a replica comes or leaves: it is turned round.
    ///
    /// # Errors
    /// When no replica of the group is coming, going or being moved, or the cluster cannot be changed at the moment.
    pub async fn cancel_move(&self, group: GroupId) -> Result<(), ClientError> {
        self.change(MetadataOp::CancelMove { group }).await
    }

    /// The move of a replica of a group, from, to or between nodes, that is under way, if there is one.
    ///
    /// # Errors
    /// When no node answers, or there is no such group.
    pub async fn moving(&self, group: GroupId) -> Result<Option<Move>, ClientError> {
        let map = self.shared.fresh_map().await?;
        let mut partitions =
            map.streams.iter().flat_map(|stream| &stream.topics).flat_map(|topic| &topic.partitions);
        let found = partitions.find(|partition| partition.group == group);
        found.map(|partition| partition.moving).ok_or_else(|| MetadataError::GroupUnknown(group).into())
    }

    /// What each replica of a group holds, and whether it may lack what it acknowledged; or why that cannot be learnt.
    ///
    /// # Errors
    /// When no node answers, or there is no such group.
    pub async fn doubts(
        &self,
        group: GroupId,
    ) -> Result<Vec<(NodeEntry, Result<Doubt, ClientError>)>, ClientError> {
        let map = self.shared.refresh_map().await?;
        let topics = map.streams.iter().flat_map(|stream| &stream.topics);
        let mut partitions = topics.flat_map(|topic| &topic.partitions);
        // All nodes hold the metadata, which is in no topic.
        let found = partitions.find(|partition| partition.group == group);
        let is_member =
            |node: &NodeEntry| found.is_none_or(|partition| partition.places.contains(&node.node));
        let mut doubts = Vec::new();
        for node in map.nodes.iter().filter(|node| is_member(node)) {
            let asked = self.shared.request(&node.address, group, &Request::GetDoubt, STATUS_MAX).await;
            doubts.push((node.clone(), asked.and_then(doubt)));
        }
        Ok(doubts)
    }

    /// Has the replica of a group on one node go on with what it holds, although it may lack what it acknowledged. What it
    /// lacks, and no other replica holds that takes part in the next view change, is lost for good.
    ///
    /// # Errors
    /// When the node does not answer, or holds no replica of the group.
    pub async fn force_recover(&self, group: GroupId, node: &NodeEntry) -> Result<Doubt, ClientError> {
        self.shared.request(&node.address, group, &Request::ForceRecover, STATUS_MAX).await.and_then(doubt)
    }

    /// Where a partition begins and ends now: its high watermark is no lower than the end of anything that was acknowledged,
    /// or told by this, before the call. A quorum confirms that, so that no primary of the past answers.
    ///
    /// # Errors
    /// When the partition has no primary with a quorum for a while.
    pub async fn offsets(&self, group: GroupId) -> Result<PartitionOffsets, ClientError> {
        let start = Instant::now();
        let mut backoff = Backoff::new();
        let mut tried = None;
        while !is_over(start, CHANGE_MAX) {
            if let Some(leader) = self.shared.find_leader(group, tried).await {
                match self.shared.latest_offsets(&leader.address, group).await {
                    Ok(offsets) => return Ok(offsets),
                    // It may have been replaced without knowing: a later view is looked for first.
                    Err(error) if error.is_retryable() => tried = Some(leader.view),
                    Err(error) => return Err(error),
                }
            }
            backoff.wait_and_relearn(&self.shared).await?;
        }
        Err(Refusal::NoPrimary { group }.into())
    }

    /// The same as its primary knows it, or whoever takes itself for that: perhaps late.
    pub(crate) async fn offsets_as_known(&self, group: GroupId) -> Result<PartitionOffsets, ClientError> {
        let start = Instant::now();
        let mut backoff = Backoff::new();
        loop {
            if let Some(leader) = self.shared.find_leader(group, None).await
                && let Ok(offsets) = self.shared.offsets(&leader.address, group).await
                && offsets.primary == leader.node
            {
                return Ok(offsets);
            }
            if is_over(start, CHANGE_MAX) {
                return Err(Refusal::NoPrimary { group }.into());
            }
            backoff.wait_and_relearn(&self.shared).await?;
            if replicas_of(&self.shared.map(), group).is_empty() {
                return Err(Refusal::UnknownGroup { group }.into());
            }
        }
    }

    /// Where a partition begins and ends, in which view it is and who leads that, as one node sees it, perhaps late.
    ///
    /// # Errors
    /// When the node does not answer, or holds no replica of the group.
    pub async fn offsets_at(
        &self,
        node: &NodeEntry,
        group: GroupId,
    ) -> Result<PartitionOffsets, ClientError> {
        self.shared.offsets(&node.address, group).await
    }

    /// The offset of the first record that was appended to a partition at this time or later, by the clock of the primary that took
    /// it; never below the oldest offset kept, and that of the next record if nothing was appended since.
    ///
    /// # Errors
    /// When the partition has no primary for a while.
    pub async fn offset_at(&self, group: GroupId, time: Timestamp) -> Result<Offset, ClientError> {
        let start = Instant::now();
        let mut backoff = Backoff::new();
        while !is_over(start, CHANGE_MAX) {
            if let Some(leader) = self.shared.find_leader(group, None).await {
                match self.shared.offset_at(&leader.address, group, time).await {
                    Err(error) if error.is_retryable() => {}
                    answered => return answered,
                }
            }
            backoff.wait_and_relearn(&self.shared).await?;
        }
        Err(Refusal::NoPrimary { group }.into())
    }

    async fn wait_for_primaries(&self, topic: &str) -> Result<(), ClientError> {
        let entry = self.shared.topic(topic).await?;
        for partition in entry.partitions {
            self.offsets_as_known(partition.group).await?;
        }
        Ok(())
    }

    async fn change(&self, operation: MetadataOp) -> Result<(), ClientError> {
        match change(&self.shared, operation).await? {
            MetadataOutcome::Done => Ok(()),
            MetadataOutcome::Refused(error) => Err(error.into()),
            outcome @ MetadataOutcome::Producer(_) => {
                Err(ClientError::Nonsense { reason: format!("{outcome:?}") })
            }
        }
    }
}

fn vitals(answer: Response) -> Result<NodeVitals, ClientError> {
    match answer {
        Response::Vitals(vitals) => Ok(vitals),
        other @ (Response::Map(_)
        | Response::Changed(_)
        | Response::Offsets(_)
        | Response::Status(_)
        | Response::Doubt(_)
        | Response::OffsetAt(_)
        | Response::Distances(_)
        | Response::Rate(_)
        | Response::HandingOver) => Err(nonsense(&other)),
    }
}

fn doubt(answer: Response) -> Result<Doubt, ClientError> {
    match answer {
        Response::Doubt(doubt) => Ok(doubt),
        other @ (Response::Map(_)
        | Response::Changed(_)
        | Response::Offsets(_)
        | Response::Status(_)
        | Response::HandingOver
        | Response::OffsetAt(_)
        | Response::Distances(_)
        | Response::Rate(_)
        | Response::Vitals(_)) => Err(nonsense(&other)),
    }
}

/// Asks one node how it is; one that does not answer is connected to anew the next time.
async fn ask_node(shared: &Shared, address: &str, request: &Request) -> Result<Response, ClientError> {
    let answer = shared.request(address, GroupId::METADATA, request, STATUS_MAX).await;
    if answer.is_err() {
        shared.nodes.forget(address);
    }
    answer
}

/// Registers a producer.
pub(crate) async fn register_producer(
    shared: &Arc<Shared>,
    limit: Duration,
) -> Result<ProducerId, ClientError> {
    // Without a session: a try that is repeated may use up an id, and nothing else.
    let session = (ProducerId::ZERO, RequestNumber::ZERO);
    match try_change(shared, &MetadataOp::RegisterProducer, session, limit).await? {
        MetadataOutcome::Producer(producer) => Ok(producer),
        outcome @ (MetadataOutcome::Done | MetadataOutcome::Refused(_)) => {
            Err(ClientError::Nonsense { reason: format!("{outcome:?}") })
        }
    }
}

/// Makes a change in the client's session.
async fn change(shared: &Arc<Shared>, operation: MetadataOp) -> Result<MetadataOutcome, ClientError> {
    let mut session = shared.admin.lock().await;
    let producer = match session.producer {
        Some(producer) => producer,
        None => *session.producer.insert(register_producer(shared, CHANGE_MAX).await?),
    };
    session.last = session.last.next();
    let outcome = try_change(shared, &operation, (producer, session.last), CHANGE_MAX).await;
    if outcome.is_err() {
        // Whether this number was used up is not known: the next change begins another session.
        *session = AdminSession::default();
    }
    outcome
}

/// Asks for a change until it is answered for good.
async fn try_change(
    shared: &Arc<Shared>,
    operation: &MetadataOp,
    (producer, number): (ProducerId, RequestNumber),
    limit: Duration,
) -> Result<MetadataOutcome, ClientError> {
    let mut header = FrameHeader::new(Command::Request, ClusterId::default());
    header.op = Op::new(number.as_raw());
    header.commit = producer.as_raw();
    let frame = Frame { header, body: encode_archive(&Request::Change(operation.clone())).into() };
    let start = Instant::now();
    let mut backoff = Backoff::new();
    let mut reason = "the metadata group has no primary".to_owned();
    while !is_over(start, limit) {
        if let Some(leader) = shared.find_leader(GroupId::METADATA, None).await {
            let answer = shared.nodes.call(&leader.address, frame.clone(), TRY_MAX).await;
            match answer.and_then(|answer| read_response(&answer)) {
                Ok(Response::Changed(outcome)) => return Ok(outcome),
                Ok(other) => return Err(nonsense(&other)),
                Err(error) if error.is_retryable() => reason = error.to_string(),
                Err(error) => return Err(error),
            }
        }
        backoff.wait_and_relearn(shared).await?;
    }
    Err(ClientError::TimedOut { what: "a change of the metadata", limit, reason })
}

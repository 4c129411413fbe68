//! The cluster as a client sees it: the map, the nodes, and who leads what. Shared by all parts of a client.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use varve_protocol::client::{PartitionOffsets, Refusal, Request, Response, decode_archive, encode_archive};
use varve_protocol::frame::{Command, Frame, FrameHeader};
use varve_protocol::id::{ClusterId, GroupId, NodeId, Offset, ProducerId, RequestNumber, Timestamp, View};
use varve_protocol::metadata::{ClusterMap, MetadataError, PartitionEntry, TopicEntry};
use varve_transport::ClientEndpoint;

use crate::ends::Ends;
use crate::error::ClientError;
use crate::nodes::Nodes;

/// How long one node may take to answer a question that it can answer from memory.
const ANSWER_MAX: Duration = Duration::from_millis(500);

/// How long a connection's first question may take, handshake included.
const FIRST_ANSWER_MAX: Duration = Duration::from_secs(3);

/// How long one node is waited for before the next is asked as well.
const HEDGE_AFTER: Duration = Duration::from_millis(100);

/// How long replicas are given to say who leads them, before what has come is taken.
const WHO_LEADS_MAX: Duration = Duration::from_millis(50);

/// How long a map is taken to be as good as a new one by those who have reason to doubt it.
const MAP_RECENT: Duration = Duration::from_millis(250);

/// Groups whose leaders are looked for at once: the answers of all of them must come within [`WHO_LEADS_MAX`].
const LOOKING_MAX: usize = 128;

/// Who leads a group, as somebody says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Leader {
    pub(crate) node: NodeId,
    pub(crate) view: View,
    pub(crate) address: String,
}

/// The session in which a client makes its changes.
#[derive(Debug, Default)]
pub(crate) struct AdminSession {
    pub(crate) producer: Option<ProducerId>,
    pub(crate) last: RequestNumber,
}

/// What all parts of a client share.
pub(crate) struct Shared {
    pub(crate) nodes: Nodes,
    servers: Vec<String>,
    map: Mutex<Arc<ClusterMap>>,
    /// When the map was last asked for by one of many; held meanwhile.
    map_asked: tokio::sync::Mutex<Option<Instant>>,
    /// How far partitions are known to go.
    pub(crate) ends: Ends,
    /// One for each group whose leader is being looked for.
    looking: Semaphore,
    rng: Mutex<ChaCha8Rng>,
    /// Held over a whole change: the changes of one session are made one after the other.
    pub(crate) admin: tokio::sync::Mutex<AdminSession>,
}

impl Shared {
    pub(crate) fn new(endpoint: ClientEndpoint, servers: Vec<String>, seed: Option<[u8; 32]>) -> Self {
        let rng = match seed {
            Some(seed) => ChaCha8Rng::from_seed(seed),
            None => ChaCha8Rng::from_os_rng(),
        };
        Self {
            nodes: Nodes::new(endpoint),
            servers,
            map: Mutex::default(),
            map_asked: tokio::sync::Mutex::default(),
            ends: Ends::default(),
            looking: Semaphore::new(LOOKING_MAX),
            rng: Mutex::new(rng),
            admin: tokio::sync::Mutex::default(),
        }
    }

    /// The cluster map as last learnt.
    pub(crate) fn map(&self) -> Arc<ClusterMap> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks one node after the other for the map, the next whenever one fails or is slow, until one answers. If none does, and one of
    /// them has said that this client's release is not theirs, that is why.
    pub(crate) async fn refresh_map(self: &Arc<Self>) -> Result<Arc<ClusterMap>, ClientError> {
        let mut addresses = self.addresses().into_iter();
        let mut asked = JoinSet::new();
        let mut last = ClientError::Unreachable { reason: "it has no nodes".to_owned() };
        loop {
            let next = addresses.next();
            if let Some(address) = &next {
                let (shared, address) = (self.clone(), address.clone());
                asked.spawn(async move { shared.map_from(&address).await });
            }
            let patience = if next.is_some() { HEDGE_AFTER } else { FIRST_ANSWER_MAX };
            match tokio::time::timeout(patience, asked.join_next()).await {
                Ok(Some(Ok(Ok(map)))) => return Ok(map),
                Ok(Some(Ok(Err(error)))) if matches!(last, ClientError::Release { .. }) => {
                    tracing::debug!(%error, "no map");
                }
                Ok(Some(Ok(Err(error)))) => last = error,
                Ok(None) if next.is_none() => return Err(last),
                Ok(None | Some(Err(_))) | Err(_) => {}
            }
        }
    }

    /// A map that is new or nearly so. A producer of a thousand partitions wants it a thousand times when a node dies, and it
    /// is large then: it is asked for once.
    pub(crate) async fn recent_map(self: &Arc<Self>) -> Result<Arc<ClusterMap>, ClientError> {
        let mut asked = self.map_asked.lock().await;
        if asked.is_some_and(|at| at.elapsed() < MAP_RECENT) {
            return Ok(self.map());
        }
        let map = self.refresh_map().await;
        *asked = Some(Instant::now());
        map
    }

    /// Asks one node for the map.
    pub(crate) async fn map_from(&self, address: &str) -> Result<Arc<ClusterMap>, ClientError> {
        match self.request(address, GroupId::METADATA, &Request::GetMap, FIRST_ANSWER_MAX).await? {
            Response::Map(map) => {
                let mut known = self.map.lock().unwrap_or_else(PoisonError::into_inner);
                if map.op >= known.op {
                    *known = Arc::new(map);
                }
                Ok(known.clone())
            }
            other @ (Response::Offsets(_)
            | Response::Changed(_)
            | Response::Status(_)
            | Response::Vitals(_)
            | Response::Doubt(_)
            | Response::OffsetAt(_)
            | Response::Distances(_)
            | Response::Rate(_)
            | Response::HandingOver) => Err(nonsense(&other)),
        }
    }

    /// Asks one node something.
    pub(crate) async fn request(
        &self,
        address: &str,
        group: GroupId,
        request: &Request,
        limit: Duration,
    ) -> Result<Response, ClientError> {
        let mut header = FrameHeader::new(Command::Request, ClusterId::default());
        header.group = group;
        let frame = Frame { header, body: encode_archive(request).into() };
        read_response(&self.nodes.call(address, frame, limit).await?)
    }

    /// A topic by its full name; asks the cluster anew if it is not in the map as known.
    pub(crate) async fn topic(self: &Arc<Self>, name: &str) -> Result<TopicEntry, ClientError> {
        let bad_name = || ClientError::TopicName { name: name.to_owned() };
        let (stream, topic) = name.split_once('/').ok_or_else(bad_name)?;
        if let Some(entry) = find(&self.map(), stream, topic) {
            return Ok(entry.clone());
        }
        let map = self.fresh_map().await?;
        if !map.streams.iter().any(|entry| entry.name == stream) {
            return Err(MetadataError::StreamUnknown(stream.to_owned()).into());
        }
        find(&map, stream, topic).cloned().ok_or_else(|| MetadataError::TopicUnknown(name.to_owned()).into())
    }

    /// One partition of a topic.
    pub(crate) async fn partition(
        self: &Arc<Self>,
        name: &str,
        partition: u32,
    ) -> Result<PartitionEntry, ClientError> {
        let mut entry = self.topic(name).await?;
        let partitions = entry.partitions.len();
        if partition as usize >= partitions {
            let partitions = u32::try_from(partitions).unwrap_or(u32::MAX);
            return Err(ClientError::PartitionUnknown { topic: name.to_owned(), partition, partitions });
        }
        Ok(entry.partitions.swap_remove(partition as usize))
    }

    /// The map as the primary of the metadata has it; as any node has it, if there is no primary.
    pub(crate) async fn fresh_map(self: &Arc<Self>) -> Result<Arc<ClusterMap>, ClientError> {
        if let Some(leader) = self.find_leader(GroupId::METADATA, None).await
            && let Ok(map) = tokio::time::timeout(ANSWER_MAX, self.map_from(&leader.address)).await
            && map.is_ok()
        {
            return map;
        }
        // Nobody leads, or whoever is said to lead has just died.
        self.refresh_map().await
    }

    /// Asks all replicas of a group who leads it. Without `newer_than`, the first that says "I do" is believed; with it, the
    /// first answer from a later view. Otherwise the latest view that is told in time counts.
    pub(crate) async fn find_leader(
        self: &Arc<Self>,
        group: GroupId,
        newer_than: Option<View>,
    ) -> Option<Leader> {
        let _turn = self.looking.acquire().await.ok()?;
        let replicas = replicas_of(&self.map(), group);
        let mut asked = JoinSet::new();
        for (node, address) in replicas.clone() {
            let shared = self.clone();
            asked.spawn(async move { (node, shared.offsets(&address, group).await) });
        }
        let mut best: Option<(NodeId, View)> = None;
        let collect = async {
            while let Some(answer) = asked.join_next().await {
                let Ok((node, Ok(PartitionOffsets { view, primary, .. }))) = answer else { continue };
                if primary != NodeId::ZERO && best.is_none_or(|(_, known)| view > known) {
                    best = Some((primary, view));
                }
                let is_enough = match newer_than {
                    None => primary == node,
                    Some(known) => best.is_some_and(|(_, view)| view > known),
                };
                if is_enough {
                    return;
                }
            }
        };
        // Who has not answered by then is passed over.
        let _ = tokio::time::timeout(WHO_LEADS_MAX, collect).await;
        let (node, view) = best?;
        let (_, address) = replicas.into_iter().find(|(replica, _)| *replica == node)?;
        Some(Leader { node, view, address })
    }

    /// The offsets of a partition, and who leads it, as one replica sees them, perhaps late.
    pub(crate) async fn offsets(
        &self,
        address: &str,
        group: GroupId,
    ) -> Result<PartitionOffsets, ClientError> {
        self.ask_offsets(address, group, &Request::GetOffsets).await
    }

    /// The offsets of a partition now, as its primary tells them when a quorum has confirmed that it leads.
    pub(crate) async fn latest_offsets(
        &self,
        address: &str,
        group: GroupId,
    ) -> Result<PartitionOffsets, ClientError> {
        self.ask_offsets(address, group, &Request::GetLatestOffsets).await
    }

    /// The first offset that was appended at a time or later, as one replica knows it.
    pub(crate) async fn offset_at(
        &self,
        address: &str,
        group: GroupId,
        time: Timestamp,
    ) -> Result<Offset, ClientError> {
        match self.request(address, group, &Request::GetOffsetAt { time }, ANSWER_MAX).await? {
            Response::OffsetAt(offset) => Ok(offset),
            other @ (Response::Map(_)
            | Response::Changed(_)
            | Response::Offsets(_)
            | Response::Status(_)
            | Response::Vitals(_)
            | Response::Doubt(_)
            | Response::Distances(_)
            | Response::Rate(_)
            | Response::HandingOver) => Err(nonsense(&other)),
        }
    }

    async fn ask_offsets(
        &self,
        address: &str,
        group: GroupId,
        request: &Request,
    ) -> Result<PartitionOffsets, ClientError> {
        match self.request(address, group, request, ANSWER_MAX).await? {
            Response::Offsets(offsets) => Ok(offsets),
            other @ (Response::Map(_)
            | Response::Changed(_)
            | Response::Status(_)
            | Response::Vitals(_)
            | Response::Doubt(_)
            | Response::OffsetAt(_)
            | Response::Distances(_)
            | Response::Rate(_)
            | Response::HandingOver) => Err(nonsense(&other)),
        }
    }

    /// `wait` shortened at random by up to one half, so that clients do not act in step.
    pub(crate) fn jittered(&self, wait: Duration) -> Duration {
        wait.mul_f64(self.rng.lock().unwrap_or_else(PoisonError::into_inner).random_range(0.5..1.0))
    }

    /// Where to ask for the map: the nodes that are known, and those the client began with.
    fn addresses(&self) -> Vec<String> {
        let mut addresses = self.servers.clone();
        let known = self.map();
        let unlisted = known.nodes.iter().filter(|node| !self.servers.contains(&node.address));
        addresses.extend(unlisted.map(|node| node.address.clone()));
        addresses
    }
}

fn find<'a>(map: &'a ClusterMap, stream: &str, topic: &str) -> Option<&'a TopicEntry> {
    let stream = map.streams.iter().find(|entry| entry.name == stream)?;
    stream.topics.iter().find(|entry| entry.name == topic)
}

/// The nodes that hold a group, with their addresses.
pub(crate) fn replicas_of(map: &ClusterMap, group: GroupId) -> Vec<(NodeId, String)> {
    let topics = map.streams.iter().flat_map(|stream| &stream.topics);
    let partition = topics.flat_map(|topic| &topic.partitions).find(|partition| partition.group == group);
    let holds = |node: NodeId| match partition {
        Some(partition) => partition.places.contains(&node),
        None => group == GroupId::METADATA,
    };
    map.nodes
        .iter()
        .filter(|entry| holds(entry.node))
        .map(|entry| (entry.node, entry.address.clone()))
        .collect()
}

/// The response in an answer, or the refusal as an error.
pub(crate) fn read_response(frame: &Frame) -> Result<Response, ClientError> {
    let unreadable =
        |error: varve_protocol::frame::FrameError| ClientError::Nonsense { reason: error.to_string() };
    let body = frame.body.to_bytes();
    if frame.header.command == Command::Response {
        decode_archive(Command::Response, &body).map_err(unreadable)
    } else {
        Err(read_refusal(frame).into())
    }
}

/// The refusal in an answer; one that says so, if it cannot be read.
pub(crate) fn read_refusal(frame: &Frame) -> Refusal {
    let unexpected = || Refusal::Malformed { reason: format!("the answer is {:?}", frame.header.command) };
    match frame.header.command == Command::Refused {
        true => decode_archive(Command::Refused, &frame.body.to_bytes()).unwrap_or_else(|_| unexpected()),
        false => unexpected(),
    }
}

pub(crate) fn nonsense(response: &Response) -> ClientError {
    ClientError::Nonsense { reason: format!("to another question: {response:?}") }
}

/// Waits that grow from one to the next.
#[derive(Debug)]
pub(crate) struct Backoff {
    wait: Duration,
}

impl Backoff {
    const MIN: Duration = Duration::from_millis(5);
    const MAX: Duration = Duration::from_millis(100);

    pub(crate) fn new() -> Self {
        Self { wait: Self::MIN }
    }

    /// Waits, longer each time.
    pub(crate) async fn wait(&mut self, shared: &Shared) {
        tokio::time::sleep(shared.jittered(self.wait)).await;
        self.wait = (self.wait * 2).min(Self::MAX);
    }

    /// Waits and looks at the map again. What has failed may have failed because of the map: a node that was asked for it early
    /// may have known only where the others were in an earlier life.
    ///
    /// # Errors
    /// When this client's release is not the cluster's.
    pub(crate) async fn wait_and_relearn(&mut self, shared: &Arc<Shared>) -> Result<(), ClientError> {
        self.wait(shared).await;
        match shared.recent_map().await {
            Err(release @ ClientError::Release { .. }) => Err(release),
            // Where no node has one, the known one is as good as any.
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

/// Whether `limit` has passed since `start`.
pub(crate) fn is_over(start: Instant, limit: Duration) -> bool {
    start.elapsed() >= limit
}

//! A node that answers by a script, on a real socket.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use varve_client::{Client, ClientError};
use varve_protocol::client::{PartitionOffsets, Refusal, Request, Response, decode_archive, encode_archive};
use varve_protocol::compression::Compression;
use varve_protocol::durability::Durability;
use varve_protocol::frame::{Command, Frame};
use varve_protocol::id::{ClusterId, GroupId, Incarnation, NodeId, Offset, Op, View};
use varve_protocol::metadata::{ClusterMap, NodeEntry, PartitionEntry, StreamEntry, TopicEntry};
use varve_protocol::retention::Retention;
use varve_protocol::version::{Version, Versions};
use varve_transport::authority::Authority;
use varve_transport::{Event, Identity, SystemResolver, Transport, TransportConfig, Tuning, bind_udp};

pub(crate) const CLUSTER: ClusterId = ClusterId::new(0xc1);
pub(crate) const NODE: NodeId = NodeId::new(1);
/// The group of the only partition of `shop/orders`.
pub(crate) const ORDERS: GroupId = GroupId::new(1);

/// What a node is asked.
pub(crate) enum Asked {
    Request(Request),
    /// From this offset on.
    Fetch(Offset),
    /// A batch.
    Append,
}

/// What it answers.
pub(crate) enum Answer {
    Response(Response),
    Refusal(Refusal),
    /// The batch begins at this offset.
    Appended(Offset),
    /// These prepares, and where the partition ends.
    Fetched(Bytes, Offset),
}

/// A node that runs until it is dropped.
pub(crate) struct Node {
    /// Where it is.
    pub(crate) address: String,
    authority: Authority,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Node {
    /// Starts one on a free port; the script is told its address.
    pub(crate) fn start(script: impl FnMut(&str, Asked) -> Answer + Send + 'static) -> Self {
        Self::start_in(Version::FIRST, script)
    }

    /// The same, of a cluster of this version.
    pub(crate) fn start_in(
        version: Version,
        mut script: impl FnMut(&str, Asked) -> Answer + Send + 'static,
    ) -> Self {
        let authority = Authority::from_seed(CLUSTER, [7; 32]).unwrap();
        let issued = authority.issue(NODE, [1; 32]).unwrap();
        let ca = authority.certificate_pem().unwrap();
        let [ca, certificate, key] = [ca, issued.certificate_pem, issued.key_pem].map(String::into_bytes);
        let tuning = Tuning::default();
        let socket = bind_udp("127.0.0.1:0".parse().unwrap(), &tuning).unwrap();
        let address = socket.local_addr().unwrap().to_string();
        let config = TransportConfig {
            cluster: CLUSTER,
            node: NODE,
            incarnation: Incarnation::new(1),
            versions: Versions::OF_THIS_RELEASE,
            identity: Identity::from_pem(&ca, &certificate, &key).unwrap(),
            peers: BTreeMap::new(),
            tuning,
            seed: None,
            reset_key: [1; 64],
        };
        let (transport, mut events) =
            Transport::start(config, Arc::new(quinn::TokioRuntime), socket, Arc::new(SystemResolver))
                .unwrap();
        transport.set_version(version);
        let own_address = address.clone();
        let task = tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                let Event::ClientFrame { session, frame } = event else { continue };
                let asked = match frame.header.command {
                    Command::Fetch => Asked::Fetch(Offset::new(frame.header.op.as_raw())),
                    Command::Append => Asked::Append,
                    _ => {
                        let body = frame.body.to_bytes();
                        Asked::Request(decode_archive(Command::Request, &body).unwrap())
                    }
                };
                let answer = reply(&frame, script(&own_address, asked));
                transport.send_to_client(session, answer).unwrap();
            }
        });
        Self { address, authority, task }
    }

    /// A client that begins at this node.
    pub(crate) async fn client(&self, folder: &Path) -> Client {
        self.try_client(folder).await.unwrap()
    }

    /// The same, or why there is none.
    pub(crate) async fn try_client(&self, folder: &Path) -> Result<Client, ClientError> {
        let ca = folder.join("ca.crt");
        std::fs::write(&ca, self.authority.certificate_pem().unwrap()).unwrap();
        Client::connect(&format!("varve://{}/?ca={}", self.address, ca.display())).await
    }
}

fn reply(request: &Frame, answer: Answer) -> Frame {
    let mut header = request.header;
    let body = match answer {
        Answer::Response(response) => {
            header.command = Command::Response;
            encode_archive(&response)
        }
        Answer::Refusal(refusal) => {
            header.command = Command::Refused;
            encode_archive(&refusal)
        }
        Answer::Appended(base) => {
            header.command = Command::AppendOk;
            header.commit = base.as_raw();
            Bytes::new()
        }
        Answer::Fetched(prepares, end) => {
            header.command = Command::FetchOk;
            header.commit = end.as_raw();
            prepares
        }
    };
    Frame { header, body: body.into() }
}

/// A map of one node at `address` that holds `shop/orders`.
pub(crate) fn map(op: u64, address: &str) -> ClusterMap {
    let partition = PartitionEntry {
        group: ORDERS,
        places: vec![NODE],
        founders: 1,
        directories: Vec::new(),
        arrived: Vec::new(),
        moving: None,
        durability: Durability::QuorumDisk,
    };
    let topic = TopicEntry {
        name: "orders".to_owned(),
        replication_factor: 1,
        partitions: vec![partition],
        retention: Retention::FOREVER,
        compression: Compression::None,
    };
    ClusterMap {
        version: Version::FIRST,
        op: Op::new(op),
        nodes: vec![NodeEntry { node: NODE, address: address.to_owned(), versions: None }],
        streams: vec![StreamEntry { name: "shop".to_owned(), topics: vec![topic] }],
        primaries: Vec::new(),
    }
}

/// What the node says of a group that it leads.
pub(crate) fn offsets(log_start: u64, high_watermark: u64) -> Response {
    Response::Offsets(PartitionOffsets {
        log_start: Offset::new(log_start),
        high_watermark: Offset::new(high_watermark),
        view: View::new(1),
        primary: NODE,
    })
}

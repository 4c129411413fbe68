//! A primary may be gone while all others still name it: they have not missed it yet.

use std::net::UdpSocket;
use std::time::Instant;

use varve_client::{Offset, ProducerConfig, Record, Target};
use varve_protocol::client::{PartitionOffsets, Request, Response};
use varve_protocol::id::{NodeId, ProducerId, View};
use varve_protocol::metadata::{ClusterMap, MetadataOp, MetadataOutcome, NodeEntry};
use varve_transport::Tuning;

use crate::node::{Answer, Asked, NODE, Node, map, offsets};

/// It takes packets and answers none.
const SILENT: NodeId = NodeId::new(2);

/// How often the node still names it.
const NAMED: u32 = 4;

fn map_of_two(address: &str, silent: &str) -> ClusterMap {
    let mut map = map(5, address);
    map.nodes.push(NodeEntry { node: SILENT, address: silent.to_owned(), versions: None });
    let partition = &mut map.streams[0].topics[0].partitions[0];
    (partition.places, partition.founders) = (vec![NODE, SILENT], 2);
    map
}

#[tokio::test]
async fn whoever_leads_now_is_found_while_the_one_before_is_waited_for() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let silent_address = silent.local_addr().unwrap().to_string();
    // Once there is a producer, nobody asks but it.
    let (mut is_registered, mut told) = (false, 0);
    let node = Node::start(move |address, asked| match asked {
        Asked::Request(Request::GetMap) => {
            Answer::Response(Response::Map(map_of_two(address, &silent_address)))
        }
        Asked::Request(Request::Change(MetadataOp::RegisterProducer)) => {
            is_registered = true;
            Answer::Response(Response::Changed(MetadataOutcome::Producer(ProducerId::new(1))))
        }
        Asked::Request(Request::GetOffsets) => {
            told += u32::from(is_registered);
            let Response::Offsets(now) = offsets(0, 7) else { unreachable!() };
            let (view, primary) = if (1..=NAMED).contains(&told) { (1, SILENT) } else { (2, NODE) };
            Answer::Response(Response::Offsets(PartitionOffsets { view: View::new(view), primary, ..now }))
        }
        Asked::Append => Answer::Appended(Offset::new(7)),
        Asked::Request(other) => panic!("{other:?}"),
        Asked::Fetch(offset) => panic!("a fetch from {offset}"),
    });
    let folder = tempfile::tempdir().unwrap();
    let client = node.client(folder.path()).await;
    let producer = client.producer("shop/orders", ProducerConfig::default()).await.unwrap();
    let asked = Instant::now();
    let ack = producer.send(Target::Partition(0), Record::default()).await.unwrap();
    assert_eq!(ack.wait().await.unwrap(), Offset::new(7));
    assert!(asked.elapsed() < Tuning::default().idle_timeout, "that is when connecting is given up");
}

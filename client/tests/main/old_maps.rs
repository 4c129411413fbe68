//! A map may be old: nodes were elsewhere in an earlier life.

use varve_client::TopicOptions;
use varve_protocol::client::{Request, Response};
use varve_protocol::id::ProducerId;
use varve_protocol::metadata::{MetadataOp, MetadataOutcome};

use crate::node::{Answer, Asked, NODE, Node, ORDERS, map, offsets};

/// Where nobody is.
const NOWHERE: &str = "127.0.0.1:9";

/// A node that has yet to learn, when it is first asked, that it is no longer at [`NOWHERE`].
fn start() -> Node {
    let mut maps = 0;
    Node::start(move |address, asked| match asked {
        Asked::Request(Request::GetMap) => {
            maps += 1;
            Answer::Response(Response::Map(match maps {
                1 => map(5, NOWHERE),
                _ => map(6, address),
            }))
        }
        Asked::Request(Request::GetOffsets | Request::GetLatestOffsets) => Answer::Response(offsets(0, 7)),
        Asked::Request(Request::HandOver { .. }) => Answer::Response(Response::HandingOver),
        Asked::Request(Request::Change(MetadataOp::RegisterProducer)) => {
            Answer::Response(Response::Changed(MetadataOutcome::Producer(ProducerId::new(1))))
        }
        Asked::Request(Request::Change(_)) => Answer::Response(Response::Changed(MetadataOutcome::Done)),
        Asked::Request(other) => panic!("{other:?}"),
        Asked::Fetch(offset) => panic!("a fetch from {offset}"),
        Asked::Append => panic!("an append"),
    })
}

#[tokio::test]
async fn a_change_finds_who_leads_where_it_is_now() {
    let folder = tempfile::tempdir().unwrap();
    let node = start();
    node.client(folder.path()).await.admin().create_stream("shop").await.unwrap();
}

#[tokio::test]
async fn a_new_topic_is_found_where_its_primary_is_now() {
    let folder = tempfile::tempdir().unwrap();
    let node = start();
    let admin = node.client(folder.path()).await.admin();
    admin.create_topic("shop", "orders", TopicOptions::default()).await.unwrap();
}

#[tokio::test]
async fn offsets_are_asked_of_whom_leads_where_it_is_now() {
    let folder = tempfile::tempdir().unwrap();
    let node = start();
    let offsets = node.client(folder.path()).await.admin().offsets(ORDERS).await.unwrap();
    assert_eq!(offsets.high_watermark.as_raw(), 7);
}

#[tokio::test]
async fn a_transfer_is_asked_of_whom_leads_where_it_is_now() {
    let folder = tempfile::tempdir().unwrap();
    let node = start();
    node.client(folder.path()).await.admin().transfer_primary(ORDERS, NODE).await.unwrap();
}

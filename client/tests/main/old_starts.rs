//! A log may let go of its beginning between a question and what is done with the answer.

use varve_client::{ClientError, From, Offset};
use varve_protocol::client::{Refusal, Request, Response};

use crate::node::{Answer, Asked, Node, map, offsets};

/// A node that tells that its log begins at 3 and refuses what is read below 8.
fn start() -> Node {
    Node::start(|address, asked| match asked {
        Asked::Request(Request::GetMap) => Answer::Response(Response::Map(map(5, address))),
        Asked::Request(Request::GetOffsets | Request::GetLatestOffsets) => Answer::Response(offsets(3, 20)),
        Asked::Append => panic!("an append"),
        Asked::Request(other) => panic!("{other:?}"),
        Asked::Fetch(offset) => Answer::Refusal(match offset.as_raw() {
            0..8 => Refusal::OffsetOutOfRange { earliest: Offset::new(8), next: Offset::new(20) },
            // So that the test learns where the consumer went on.
            _ => Refusal::Malformed { reason: format!("asked from {offset}") },
        }),
    })
}

#[tokio::test]
async fn who_begins_at_the_first_record_follows_it() {
    let folder = tempfile::tempdir().unwrap();
    let node = start();
    let client = node.client(folder.path()).await;
    let mut consumer = client.consumer("shop/orders", 0, From::First).await.unwrap();
    let error = consumer.next_batch().await.unwrap_err();
    assert!(matches!(error, ClientError::Refused(Refusal::Malformed { .. })), "{error}");
    assert_eq!(consumer.position(), Offset::new(8));
}

#[tokio::test]
async fn who_asks_for_an_offset_is_told_that_it_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let node = start();
    let client = node.client(folder.path()).await;
    let mut consumer = client.consumer("shop/orders", 0, From::Offset(Offset::new(3))).await.unwrap();
    let error = consumer.next_batch().await.unwrap_err();
    assert!(matches!(error, ClientError::Refused(Refusal::OffsetOutOfRange { .. })), "{error}");
    assert_eq!(consumer.position(), Offset::new(3));
}

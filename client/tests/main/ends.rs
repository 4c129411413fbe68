//! Nodes that are behind serve what they have: what the client was told before stays true.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use varve_client::{Consumer, From, Offset, Record};
use varve_protocol::client::{Request, Response};
use varve_protocol::id::{ClusterId, Epoch, Op, ProducerId, RequestNumber, Timestamp, View};
use varve_protocol::prepare::{Prepare, PrepareFields, PrepareId, PrepareKind};
use varve_protocol::record::BatchBuilder;
use varve_protocol::version::Version;

use crate::node::{Answer, Asked, Node, ORDERS, map, offsets};

/// A prepare with one record, at this offset.
fn record_at(offset: Offset) -> Bytes {
    let mut builder = BatchBuilder::new(1024);
    builder.push(&Record { payload: "one".into(), ..Record::default() }).unwrap();
    let fields = PrepareFields {
        version: Version::FIRST,
        cluster: ClusterId::default(),
        group: ORDERS,
        view: View::ZERO,
        parent: PrepareId { op: Op::new(offset.as_raw()), view: View::ZERO, checksum: 0 },
        epoch: Epoch::ZERO,
        kind: PrepareKind::Records,
        base_offset: offset,
        record_count: 1,
        timestamp: Timestamp::new(1),
        producer: ProducerId::ZERO,
        request: RequestNumber::ZERO,
    };
    let mut bytes = BytesMut::new();
    Prepare::seal(fields, builder.finish()).encode(&mut bytes);
    bytes.freeze()
}

#[tokio::test]
async fn the_end_never_goes_back_and_somebody_better_is_looked_for() {
    let folder = tempfile::tempdir().unwrap();
    let looked = Arc::new(AtomicU64::new(0));
    let count = looked.clone();
    // The end that is told with each fetch in turn.
    let mut ends = [7, 9, 4, 5, 9].into_iter();
    let node = Node::start(move |address, asked| match asked {
        Asked::Request(Request::GetMap) => Answer::Response(Response::Map(map(5, address))),
        Asked::Request(Request::GetOffsets) => {
            count.fetch_add(1, Ordering::Relaxed);
            Answer::Response(offsets(0, 9))
        }
        Asked::Fetch(offset) => Answer::Fetched(record_at(offset), Offset::new(ends.next().unwrap())),
        Asked::Request(other) => panic!("{other:?}"),
        Asked::Append => panic!("an append"),
    });
    let client = node.client(folder.path()).await;
    let begin = async || client.consumer("shop/orders", 0, From::Offset(Offset::ZERO)).await.unwrap();
    let end = async |consumer: &mut Consumer| consumer.next_batch().await.unwrap().high_watermark.as_raw();
    let mut consumer = begin().await;
    assert_eq!([end(&mut consumer).await, end(&mut consumer).await], [7, 9]);
    assert_eq!(looked.load(Ordering::Relaxed), 1, "it stays where it is served");
    // One that begins anew comes to a node that is behind.
    let mut consumer = begin().await;
    assert_eq!([end(&mut consumer).await, end(&mut consumer).await, end(&mut consumer).await], [9; 3]);
    assert_eq!(looked.load(Ordering::Relaxed), 4, "it looks again as long as the node is behind");
}

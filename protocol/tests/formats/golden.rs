//! Golden bytes. If one of these changes, old data and other releases can no longer be read: raise the version.

use bytes::BytesMut;
use varve_protocol::frame::Voice;
use varve_protocol::id::{ClusterId, GroupId, Op, ReplicaIndex, Timestamp, View};
use varve_protocol::message::Message;
use varve_protocol::prepare::PrepareId;
use varve_protocol::record::{BatchBuilder, Record};

use crate::{hex, sample_prepare};

#[test]
fn a_prepare_is_these_bytes() {
    let mut bytes = BytesMut::new();
    sample_prepare(b"body").encode(&mut bytes);
    assert_golden(&hex(&bytes), include_str!("golden/prepare.hex"));
}

#[test]
fn a_frame_is_these_bytes() {
    let id = PrepareId { op: Op::new(42), view: View::new(3), checksum: 0xdead_beef };
    let message = Message::PrepareOk { view: View::new(4), id };
    let voice = Voice { replica: ReplicaIndex::new(2), generation: Op::new(0x0105) };
    let frame = message.to_frame(ClusterId::new(0x1234), GroupId::new(7), voice);
    assert_golden(&hex(&frame.encode().concat()), include_str!("golden/frame.hex"));
}

#[test]
fn a_batch_is_these_bytes() {
    let mut builder = BatchBuilder::new(1024);
    let keyed = Record { timestamp: Timestamp::new(77), key: Some("key".into()), payload: "payload".into() };
    builder.push(&keyed).expect("the record fits");
    builder.push(&Record { payload: "second".into(), ..Record::default() }).expect("the record fits");
    assert_golden(&hex(&builder.finish()), include_str!("golden/batch.hex"));
}

fn assert_golden(found: &str, golden: &str) {
    assert_eq!(found, golden.trim_end(), "the format has changed; found:\n{found}");
}

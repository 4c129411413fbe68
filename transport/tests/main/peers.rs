//! Claims about connections between nodes.

use std::collections::BTreeMap;
use std::sync::Arc;

use quinn::TokioRuntime;
use quinn::crypto::rustls::QuicClientConfig;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use varve_protocol::frame::{Command, Frame, FrameHeader};
use varve_protocol::id::{ClusterId, GroupId, Incarnation, NodeId, Op};
use varve_transport::authority::Authority;
use varve_transport::{Event, Lane, SendError, SystemResolver, Transport, TransportError, Tuning, bind_udp};

use crate::support::{
    CLUSTER, ONE, OTHER_CLUSTER, Pair, Running, SEED, TWO, authority, identity, identity_of, is_up, loopback,
    peer_frame, soon,
};

fn lanes() -> Vec<Lane> {
    vec![Lane::Pulse, Lane::Control, Lane::Data(0), Lane::Data(1), Lane::Data(2), Lane::Data(3), Lane::Bulk]
}

async fn receive_in_order(receiver: &mut Running, sender: NodeId, per_lane: u64) {
    let mut next: BTreeMap<u64, u64> = BTreeMap::new();
    for _ in 0..per_lane * 7 {
        let Event::PeerFrame { node, frame } = receiver.next().await else { panic!("only frames come") };
        assert_eq!(node, sender);
        let op = next.entry(frame.header.group.as_raw()).or_default();
        assert_eq!(frame, peer_frame(frame.header.group.as_raw(), *op, 1000 * usize::try_from(*op).unwrap()));
        *op += 1;
    }
    assert!(next.values().all(|count| *count == per_lane));
}

#[tokio::test]
async fn frames_of_every_lane_arrive_in_order() {
    let mut pair = Pair::new();
    let (mut one, mut two) = pair.start_both().await;
    for op in 0..50 {
        for (number, lane) in (0..).zip(lanes()) {
            let frame = peer_frame(number, op, 1000 * usize::try_from(op).unwrap());
            one.transport.send_to_peer(TWO, lane, frame.clone()).unwrap();
            two.transport.send_to_peer(ONE, lane, frame).unwrap();
        }
    }
    receive_in_order(&mut one, TWO, 50).await;
    receive_in_order(&mut two, ONE, 50).await;
    assert_eq!(one.transport.frames_dropped() + two.transport.frames_dropped(), 0);
    soon(one.transport.shutdown()).await;
    soon(two.transport.shutdown()).await;
}

#[tokio::test]
async fn the_largest_frame_arrives_over_a_large_path() {
    let mut pair = Pair::tuned(Tuning::for_path_mtu(65_527));
    let (one, mut two) = pair.start_both().await;
    let frame = peer_frame(1, 1, varve_protocol::limits::FRAME_BODY_BYTES_MAX);
    one.transport.send_to_peer(TWO, Lane::data(GroupId::new(1)), frame.clone()).unwrap();
    let Event::PeerFrame { node: ONE, frame: arrived } = two.next().await else { panic!("a frame comes") };
    assert_eq!(arrived, frame);
}

#[tokio::test]
async fn a_killed_node_is_noticed_by_its_new_life_at_once() {
    let mut pair = Pair::new();
    let mut two = pair.start_plain(TWO);
    // A runtime that is thrown away takes the endpoint with it and lets it say nothing, like a killed process.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let killed = {
        let _inside = runtime.enter();
        let socket = bind_udp(loopback(), &pair.tuning).unwrap();
        pair.addresses.insert(ONE, socket.local_addr().unwrap());
        Transport::start(pair.config(ONE), Arc::new(TokioRuntime), socket, Arc::new(SystemResolver)).unwrap()
    };
    assert!(is_up(&two.next().await, ONE, 100));
    drop(killed);
    runtime.shutdown_background();

    let mut config = pair.config(ONE);
    config.incarnation = Incarnation::new(101);
    let started = std::time::Instant::now();
    let _again = loop_until_bound(&pair, config).await;
    // The old connection may end before or after the new one stands.
    let mut event = two.next().await;
    if matches!(event, Event::PeerDown { .. }) {
        event = two.next().await;
    }
    assert!(is_up(&event, ONE, 101), "{event:?}");
    assert!(started.elapsed() < pair.tuning.idle_timeout, "sooner than the idle timeout");
}

/// The port is free when the thrown-away runtime has let go of it.
async fn loop_until_bound(pair: &Pair, config: varve_transport::TransportConfig) -> Running {
    let address = pair.addresses[&config.node];
    let socket = soon(async {
        loop {
            match bind_udp(address, &pair.tuning) {
                Ok(socket) => return socket,
                Err(TransportError::Bind { .. }) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
    })
    .await;
    let started = Transport::start(config, Arc::new(TokioRuntime), socket, Arc::new(SystemResolver)).unwrap();
    Running { transport: started.0, events: started.1 }
}

#[tokio::test]
async fn a_shut_down_peer_is_down_and_its_frames_stay_behind() {
    let mut pair = Pair::new();
    let (mut one, two) = pair.start_both().await;
    soon(two.transport.shutdown()).await;
    assert!(matches!(one.next().await, Event::PeerDown { node: TWO }));
    assert_eq!(
        one.transport.send_to_peer(TWO, Lane::Control, peer_frame(0, 1, 0)),
        Err(SendError::NotConnected)
    );
    soon(one.transport.shutdown()).await;
    assert!(soon(one.events.recv()).await.is_none());
}

#[tokio::test]
async fn full_lanes_are_busy_and_the_control_lane_still_works() {
    let tuning = Tuning { lane_frames_max: 8, window_bytes: 1 << 20, ..Tuning::default() };
    let mut pair = Pair::tuned(tuning);
    let (one, mut two) = pair.start_both().await;
    // Nobody takes events at the other end, so everything between fills up, on every lane but the two urgent ones.
    for lane in lanes().into_iter().filter(|lane| !matches!(lane, Lane::Pulse | Lane::Control)) {
        let refused = soon(async {
            loop {
                match one.transport.send_to_peer(TWO, lane, peer_frame(1, 1, 100_000)) {
                    Ok(()) => tokio::time::sleep(std::time::Duration::from_millis(1)).await,
                    Err(error) => return error,
                }
            }
        })
        .await;
        assert_eq!(refused, SendError::Busy);
    }
    one.transport.send_to_peer(TWO, Lane::Control, peer_frame(9, 9, 10)).unwrap();
    // Events are taken with control first, so this comes first once it is there, whatever else waits.
    let is_control = |event: &Event| matches!(event, Event::PeerFrame { frame, .. } if frame.header.group == GroupId::new(9));
    soon(async {
        while !two.events.has_control() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(is_control(&two.next().await));
    // Its tasks wait for room in full queues; they end when nobody can make any.
    drop(two.events);
    soon(two.transport.shutdown()).await;
}

/// Starts node one with `change`d settings against a sound node two; neither may come up at the other.
async fn assert_refused(change: impl FnOnce(&mut varve_transport::TransportConfig)) {
    let mut pair = Pair::new();
    let mut config = pair.config(ONE);
    change(&mut config);
    let mut one = pair.start(config);
    let mut two = pair.start_plain(TWO);
    tokio::select! {
        biased;
        event = one.events.recv() => panic!("{event:?}"),
        event = two.events.recv() => panic!("{event:?}"),
        () = tokio::time::sleep(std::time::Duration::from_millis(500)) => {}
    }
    assert_eq!(
        one.transport.send_to_peer(TWO, Lane::Control, peer_frame(0, 1, 0)),
        Err(SendError::NotConnected)
    );
    assert_eq!(
        two.transport.send_to_peer(ONE, Lane::Control, peer_frame(0, 1, 0)),
        Err(SendError::NotConnected)
    );
    soon(one.transport.shutdown()).await;
    soon(two.transport.shutdown()).await;
}

#[tokio::test]
async fn a_node_of_another_authority_is_refused() {
    let foreign = Authority::from_seed(CLUSTER, [8; 32]).unwrap();
    assert_refused(|config| config.identity = identity_of(&foreign, ONE)).await;
}

#[tokio::test]
async fn a_node_of_another_cluster_of_the_same_authority_is_refused() {
    // The same key signs for another cluster: only names and hello tell them apart.
    let foreign = Authority::from_seed(OTHER_CLUSTER, SEED).unwrap();
    assert_refused(|config| {
        config.cluster = OTHER_CLUSTER;
        config.identity = identity_of(&foreign, ONE);
    })
    .await;
}

#[tokio::test]
async fn a_node_does_not_start_with_the_certificate_of_another() {
    let pair = Pair::new();
    let mut config = pair.config(ONE);
    config.identity = identity(NodeId::new(3));
    let socket = bind_udp(loopback(), &pair.tuning).unwrap();
    let refused =
        Transport::start(config, Arc::new(TokioRuntime), socket, Arc::new(SystemResolver)).err().unwrap();
    assert!(refused.to_string().contains("not that of n1"), "{refused}");
}

#[test]
fn a_taken_port_is_told() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    let tuning = Tuning::default();
    let first = bind_udp(loopback(), &tuning).unwrap();
    let address = first.local_addr().unwrap();
    let second = bind_udp(address, &tuning).err().unwrap();
    assert!(matches!(second, TransportError::Bind { .. }), "{second}");
}

/// A hand-made node connection: the TLS of `node`, and whatever the test writes.
async fn raw_peer(pair: &Pair, node: Option<NodeId>) -> quinn::Connection {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority().certificate_pem().unwrap().as_bytes()).unwrap())
        .unwrap();
    let builder =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots);
    let mut crypto = match node {
        None => builder.with_no_client_auth(),
        Some(node) => {
            let issued = authority().issue(node, SEED).unwrap();
            let chain = vec![CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    crypto.alpn_protocols = vec![b"varve-node/1".to_vec()];
    let endpoint = quinn::Endpoint::client(loopback()).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(crypto).unwrap()));
    soon(endpoint.connect_with(config, pair.addresses[&TWO], "cluster.varve").unwrap()).await.unwrap()
}

fn hello(cluster: ClusterId, node: NodeId) -> Frame {
    let mut header = FrameHeader::new(Command::Hello, cluster);
    header.op = Op::new(node.as_raw().into());
    Frame::bare(header)
}

async fn say(connection: &quinn::Connection, frame: &Frame) -> quinn::SendStream {
    let mut stream = connection.open_uni().await.unwrap();
    // The tag of the control lane.
    stream.write_all(&[1]).await.unwrap();
    stream.write_all_chunks(&mut frame.encode()).await.unwrap();
    stream
}

async fn refusal(connection: &quinn::Connection) -> String {
    match soon(connection.closed()).await {
        quinn::ConnectionError::ApplicationClosed(close) => {
            String::from_utf8_lossy(&close.reason).into_owned()
        }
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn hello_must_agree_with_certificate_and_cluster() {
    let mut pair = Pair::new();
    let two = pair.start_plain(TWO);
    let cases = [
        (None, hello(CLUSTER, ONE), "certificate"),
        (Some(NodeId::new(3)), hello(CLUSTER, ONE), "certificate"),
        (Some(NodeId::new(3)), hello(CLUSTER, NodeId::new(3)), "configuration"),
        (Some(ONE), hello(OTHER_CLUSTER, ONE), "it is of cluster"),
        (Some(ONE), peer_frame(1, 1, 10), "no hello"),
    ];
    for (certificate, first, expected) in cases {
        let connection = raw_peer(&pair, certificate).await;
        let _stream = say(&connection, &first).await;
        let reason = refusal(&connection).await;
        assert!(reason.contains(expected), "{reason}");
    }
    soon(two.transport.shutdown()).await;
}

#[tokio::test]
async fn garbage_of_a_certified_peer_is_counted_and_the_endpoint_goes_on() {
    let mut pair = Pair::new();
    let mut two = pair.start_plain(TWO);
    let mut rotten = peer_frame(1, 1, 100).encode();
    let mut body = rotten[1].to_vec();
    body[50] ^= 1;
    rotten[1] = body.into();
    let garbage: Vec<Vec<u8>> = vec![vec![0x5a; 500], rotten.concat()];
    for (count, bytes) in (1..).zip(garbage) {
        let connection = raw_peer(&pair, Some(ONE)).await;
        let mut stream = say(&connection, &hello(CLUSTER, ONE)).await;
        assert!(matches!(two.next().await, Event::PeerUp { node: ONE, .. }));
        stream.write_all_chunks(&mut peer_frame(1, 1, 10).encode()).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        assert!(matches!(two.next().await, Event::PeerFrame { node: ONE, .. }));
        assert!(refusal(&connection).await.starts_with("frame"));
        assert!(matches!(two.next().await, Event::PeerDown { node: ONE }));
        assert_eq!(two.transport.frames_dropped(), count);
    }
    let mut one = pair.start_plain(ONE);
    assert!(matches!(one.next().await, Event::PeerUp { node: TWO, .. }));
}

#[tokio::test]
async fn a_newer_connection_replaces_an_older_one() {
    let mut pair = Pair::new();
    let mut two = pair.start_plain(TWO);
    let older = raw_peer(&pair, Some(ONE)).await;
    let _older_stream = say(&older, &hello(CLUSTER, ONE)).await;
    assert!(matches!(two.next().await, Event::PeerUp { node: ONE, .. }));
    let newer = raw_peer(&pair, Some(ONE)).await;
    let _newer_stream = say(&newer, &hello(CLUSTER, ONE)).await;
    assert!(matches!(two.next().await, Event::PeerUp { node: ONE, .. }));
    assert!(refusal(&older).await.contains("took its place"));
    two.transport.send_to_peer(ONE, Lane::Control, peer_frame(1, 1, 1)).unwrap();
}

#[tokio::test]
async fn garbage_datagrams_do_no_harm() {
    let mut pair = Pair::new();
    let (mut one, two) = pair.start_both().await;
    let noise = tokio::net::UdpSocket::bind(loopback()).await.unwrap();
    for size in [0_usize, 1, 20, 100, 1200, 1472] {
        for first in [0x00, 0x40, 0x80, 0xc0, 0xff] {
            let datagram = vec![first; size];
            noise.send_to(&datagram, pair.addresses[&ONE]).await.unwrap();
        }
    }
    let frame = peer_frame(1, 1, 10);
    two.transport.send_to_peer(ONE, Lane::Control, frame.clone()).unwrap();
    let Event::PeerFrame { node: TWO, frame: arrived } = one.next().await else { panic!("a frame comes") };
    assert_eq!(arrived, frame);
    assert_eq!(one.transport.frames_dropped(), 0);
}

//! Claims about clients and their sessions.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use quinn::crypto::rustls::QuicClientConfig;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use varve_protocol::frame::{Command, Frame, FrameHeader};
use varve_protocol::version::Versions;
use varve_transport::authority::Authority;
use varve_transport::{Event, Identity, SendError, SessionId, TransportConfig, TransportError, Tuning};

use crate::support::{
    CLUSTER, ONE, Pair, Running, SEED, authority, client_endpoint, client_endpoint_of, client_frame, connect,
    loopback, soon,
};

async fn next_request(node: &mut Running) -> (SessionId, Frame) {
    match node.next().await {
        Event::ClientFrame { session, frame } => (session, frame),
        other => panic!("{other:?}"),
    }
}

fn answer(request: &Frame, body: usize) -> Frame {
    let mut frame = request.clone();
    frame.header.command = Command::AppendOk;
    frame.body = Bytes::from(vec![1; body]).into();
    frame
}

#[tokio::test]
async fn sessions_ask_and_are_answered() {
    let mut pair = Pair::new();
    let mut node = pair.start_plain(ONE);
    let endpoint = client_endpoint(&authority());
    let connection = connect(&endpoint, pair.addresses[&ONE]).await;
    let (mut first, mut first_answers) = connection.open_session().await.unwrap();
    assert_eq!((first.node(), first.cluster()), (ONE, CLUSTER));
    let (mut second, mut second_answers) = connection.open_session().await.unwrap();
    for number in 1..=20 {
        first.send(client_frame(number, 100_000)).await.unwrap();
        let (first_id, request) = next_request(&mut node).await;
        assert_eq!(request, client_frame(number, 100_000));
        node.transport.send_to_client(first_id, answer(&request, 10)).unwrap();
        second.send(client_frame(1000 + number, 10)).await.unwrap();
        let (second_id, request) = next_request(&mut node).await;
        assert_ne!(first_id, second_id);
        node.transport.send_to_client(second_id, answer(&request, 200_000)).unwrap();
        assert_eq!(soon(first_answers.recv()).await.unwrap().unwrap().header.correlation, number);
        assert_eq!(soon(second_answers.recv()).await.unwrap().unwrap().header.correlation, 1000 + number);
    }
    drop((first, first_answers));
    assert!(matches!(node.next().await, Event::ClientGone { .. }));
    connection.close();
    let Event::ClientGone { session } = node.next().await else { panic!("the second session ends too") };
    assert_eq!(node.transport.send_to_client(session, client_frame(1, 1)), Err(SendError::NotConnected));
    soon(node.transport.shutdown()).await;
}

#[tokio::test]
async fn a_client_of_another_authority_does_not_trust_the_node() {
    let mut pair = Pair::new();
    let _node = pair.start_plain(ONE);
    let foreign = Authority::from_seed(CLUSTER, [9; 32]).unwrap();
    let endpoint = client_endpoint(&foreign);
    let error = soon(endpoint.connect(&pair.addresses[&ONE].to_string())).await.err().unwrap();
    assert!(
        error.to_string().contains("UnknownIssuer") || error.to_string().contains("certificate"),
        "{error}"
    );
}

#[tokio::test]
async fn garbage_of_a_client_is_counted_and_the_endpoint_goes_on() {
    let mut pair = Pair::new();
    let mut node = pair.start_plain(ONE);
    let endpoint = client_endpoint(&authority());
    let mut rotten = client_frame(1, 100).encode();
    rotten[1] = Bytes::from(vec![0; 100]);
    let garbage =
        [Bytes::from(vec![0x11; 96]), rotten.concat().into(), client_frame(1, 1).encode().concat().into()];
    for (count, bytes) in (1..).zip(garbage) {
        // The first two after a hello, the last in its place.
        let connection = raw_client(pair.addresses[&ONE]).await;
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        if count < 3 {
            let mut hello = Frame::bare(FrameHeader::new(Command::Hello, CLUSTER));
            hello.header.commit = 1;
            send.write_all_chunks(&mut hello.encode()).await.unwrap();
        }
        send.write_all(&bytes).await.unwrap();
        soon(connection.closed()).await;
        assert_eq!(node.transport.frames_dropped(), count);
    }
    while node.events.try_recv().is_some() {}
    let connection = connect(&endpoint, pair.addresses[&ONE]).await;
    let (mut sender, _answers) = connection.open_session().await.unwrap();
    sender.send(client_frame(1, 1)).await.unwrap();
    assert_eq!(next_request(&mut node).await.1, client_frame(1, 1));
}

#[tokio::test]
async fn a_client_is_spoken_to_in_the_version_of_the_cluster_or_sent_away() {
    let (first, second) = (Versions::OF_THIS_RELEASE.newest, Versions::OF_THE_NEXT_RELEASE.newest);
    let mut pair = Pair::new();
    let config = TransportConfig { versions: Versions::OF_THE_NEXT_RELEASE, ..pair.config(ONE) };
    let mut node = pair.start(config);
    let older = client_endpoint(&authority());
    let newer = client_endpoint_of(&authority(), Versions::OF_THE_NEXT_RELEASE);
    for version in [first, second] {
        node.transport.set_version(version);
        for endpoint in [&older, &newer] {
            let connection = connect(endpoint, pair.addresses[&ONE]).await;
            let session = soon(connection.open_session()).await;
            if version == second && std::ptr::eq(endpoint, &older) {
                let refused = session.err().expect("it does not know the version").to_string();
                assert!(
                    refused.contains("the cluster is at version 2, and this client knows version 1"),
                    "{refused}"
                );
                assert!(refused.contains("use the client of a newer release"), "{refused}");
                continue;
            }
            let (mut sender, mut answers) = session.unwrap();
            sender.send(client_frame(1, 1)).await.unwrap();
            let (session, request) = next_request(&mut node).await;
            assert_eq!(request.header.version, version);
            node.transport.send_to_client(session, answer(&client_frame(1, 1), 1)).unwrap();
            assert_eq!(soon(answers.recv()).await.unwrap().unwrap().header.version, version);
            connection.close();
            assert!(matches!(node.next().await, Event::ClientGone { .. }));
        }
    }
}

#[tokio::test]
async fn a_session_that_does_not_read_is_busy_and_then_gone() {
    let tuning = Tuning { session_frames_max: 4, window_bytes: 1 << 20, ..Tuning::default() };
    let mut pair = Pair::tuned(tuning);
    let mut node = pair.start_plain(ONE);
    let endpoint = client_endpoint(&authority());
    let connection = connect(&endpoint, pair.addresses[&ONE]).await;
    let (mut sender, _unread) = connection.open_session().await.unwrap();
    sender.send(client_frame(1, 1)).await.unwrap();
    let (session, request) = next_request(&mut node).await;
    let refused = soon(async {
        loop {
            match node.transport.send_to_client(session, answer(&request, 1 << 20)) {
                Ok(()) => tokio::task::yield_now().await,
                Err(error) => return error,
            }
        }
    })
    .await;
    assert_eq!(refused, SendError::Busy);
    assert_eq!(node.transport.send_to_client(session, client_frame(1, 1)), Err(SendError::NotConnected));
}

#[tokio::test]
async fn shutdown_ends_sessions_even_if_nobody_takes_events() {
    let mut pair = Pair::new();
    let node = pair.start_plain(ONE);
    let endpoint = client_endpoint(&authority());
    let connection = connect(&endpoint, pair.addresses[&ONE]).await;
    let (mut sender, mut answers) = connection.open_session().await.unwrap();
    for number in 0..100 {
        sender.send(client_frame(number, 1000)).await.unwrap();
    }
    soon(node.transport.shutdown()).await;
    assert!(matches!(soon(answers.recv()).await, Err(TransportError::Broken(_)) | Ok(None)));
}

#[test]
fn certificates_follow_from_the_seed_and_authorities_read_back() {
    let first = authority();
    let ca = first.certificate_pem().unwrap();
    assert_eq!(ca, authority().certificate_pem().unwrap());
    let again = Authority::from_key_pem(CLUSTER, &first.key_pem()).unwrap();
    assert_eq!(again.certificate_pem().unwrap(), ca);
    let issued = again.issue(ONE, SEED).unwrap();
    assert_eq!(issued.certificate_pem, first.issue(ONE, SEED).unwrap().certificate_pem);
    let (certificate, key) = (issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes());
    Identity::from_pem(ca.as_bytes(), certificate, key).unwrap();
    for (ca, certificate, key) in [
        (&b"nothing"[..], certificate, key),
        (ca.as_bytes(), b"", key),
        (ca.as_bytes(), certificate, b"no key"),
    ] {
        assert!(matches!(Identity::from_pem(ca, certificate, key), Err(TransportError::Certificate { .. })));
    }
    assert!(Authority::from_key_pem(CLUSTER, "no key").is_err());
}

/// A hand-made client connection on which the test writes what it likes.
async fn raw_client(address: SocketAddr) -> quinn::Connection {
    let mut roots = RootCertStore::empty();
    let ca = authority().certificate_pem().unwrap();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut crypto = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    crypto.alpn_protocols = vec![b"varve-client/1".to_vec()];
    let endpoint = quinn::Endpoint::client(loopback()).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(crypto).unwrap()));
    soon(endpoint.connect_with(config, address, "cluster.varve").unwrap()).await.unwrap()
}

//! A client that does not know the version of the cluster is told so, at once.

use varve_client::ClientError;
use varve_protocol::version::Versions;

use crate::node::Node;

#[tokio::test]
async fn a_client_of_an_older_release_is_told_what_to_do() {
    let version = Versions::OF_THIS_RELEASE.newest.next();
    let node = Node::start_in(version, |_, _| panic!("nobody says anything to it"));
    let folder = tempfile::tempdir().unwrap();
    let error = node.try_client(folder.path()).await.err().expect("it cannot connect");
    assert!(matches!(error, ClientError::Release { .. }), "{error:?}");
    let expected =
        "the cluster is at version 2, and this client knows version 1: use the client of a newer release";
    assert_eq!(error.to_string(), expected);
    assert!(!error.is_retryable());
}

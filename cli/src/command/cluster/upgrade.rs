//! `varve cluster upgrade`: the last step of a rolling upgrade, and how far that is.

use anyhow::anyhow;
use serde::Serialize;
use varve_protocol::metadata::ClusterMap;
use varve_protocol::version::{Version, Versions};

use crate::connection::connect;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::{self, table};

/// How far an upgrade is.
#[derive(Serialize)]
struct Progress {
    /// The version of the cluster.
    version: u8,
    /// The newest one that all nodes know.
    known_to_all: u8,
    /// Whether the cluster went on to it just now.
    finished: bool,
    nodes: Vec<NodeProgress>,
}

/// What the release of a node knows; nothing is known of a node that was never up.
#[derive(Serialize)]
struct NodeProgress {
    id: u8,
    address: String,
    oldest: Option<u8>,
    newest: Option<u8>,
}

impl Progress {
    fn new(map: &ClusterMap) -> Self {
        let newest = |versions: Option<Versions>| versions.map_or(map.version, |versions| versions.newest);
        let known_to_all = map.nodes.iter().map(|entry| newest(entry.versions)).min();
        let nodes = map.nodes.iter().map(|entry| NodeProgress {
            id: entry.node.as_raw(),
            address: entry.address.clone(),
            oldest: entry.versions.map(|versions| versions.oldest.as_raw()),
            newest: entry.versions.map(|versions| versions.newest.as_raw()),
        });
        Self {
            version: map.version.as_raw(),
            known_to_all: known_to_all.unwrap_or(map.version).as_raw(),
            finished: false,
            nodes: nodes.collect(),
        }
    }

    fn text(&self) -> String {
        let Self { version, known_to_all, finished, nodes } = self;
        let is_ready = known_to_all > version;
        let is_under_way = nodes.iter().any(|node| node.newest.is_some_and(|newest| newest > *version));
        let stand = match (finished, is_ready, is_under_way) {
            (true, ..) => format!("the cluster is at version {known_to_all} now"),
            (false, true, _) => format!(
                "the cluster is at version {version}, and all nodes know {known_to_all}: `varve cluster upgrade --finish` \
                 goes on to it; until then every node can still be started with the older release"
            ),
            (false, false, true) => {
                format!(
                    "the cluster is at version {version}; start the newer release on the other nodes, too"
                )
            }
            (false, false, false) => {
                format!("the cluster is at version {version}, and no node knows a newer one")
            }
        };
        let number = |number: Option<u8>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        let row = |node: &NodeProgress| {
            vec![node.id.to_string(), node.address.clone(), number(node.oldest), number(node.newest)]
        };
        format!(
            "{stand}\n\n{}",
            table(&["NODE", "ADDRESS", "OLDEST", "NEWEST"], &[0, 2, 3], nodes.iter().map(row))
        )
    }
}

/// Says how far the upgrade is, and finishes it if asked to.
pub(super) async fn upgrade(context: &Context, finish: bool) -> Outcome {
    let client = connect(context).await?;
    let mut progress = Progress::new(&client.admin().map().await?);
    if finish {
        if progress.known_to_all <= progress.version {
            return Err(Failure::refused(anyhow!(
                "there is no version to go on to: the cluster is at version {}, and not all nodes know a newer one; see \
                 `varve cluster upgrade`",
                progress.version
            )));
        }
        client.admin().raise_version(Version::new(progress.known_to_all)).await?;
        progress.finished = true;
        progress.version = progress.known_to_all;
    }
    output::print(context.output, &progress, Progress::text)
}

#[cfg(test)]
mod tests {
    use varve_protocol::id::NodeId;
    use varve_protocol::metadata::NodeEntry;

    use super::*;

    fn told(newest: &[u8]) -> String {
        let nodes = (1..).zip(newest).map(|(id, newest)| NodeEntry {
            node: NodeId::new(id),
            address: format!("h{id}:1"),
            versions: (*newest > 0)
                .then_some(Versions { oldest: Version::FIRST, newest: Version::new(*newest) }),
        });
        Progress::new(&ClusterMap { nodes: nodes.collect(), ..ClusterMap::default() }).text()
    }

    #[test]
    fn it_says_what_is_to_be_done_next() {
        assert!(told(&[1, 1, 1]).contains("no node knows a newer one"));
        assert!(told(&[2, 1, 2]).contains("start the newer release on the other nodes"));
        assert!(told(&[2, 0, 2]).contains("start the newer release on the other nodes"));
        assert!(told(&[2, 3, 2]).contains("all nodes know 2: `varve cluster upgrade --finish`"));
    }
}

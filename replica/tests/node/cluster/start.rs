//! Clusters of several kinds, up and running.

use varve_protocol::id::NodeId;
use varve_replica::Timing;
use varve_storage::Options;

use super::{Cluster, OPTIONS, n};

impl Cluster {
    /// A cluster whose nodes are all up and registered.
    pub(crate) fn start(nodes: u8) -> Self {
        Self::start_with(nodes, OPTIONS)
    }

    /// The same, with stores of other options.
    pub(crate) fn start_with(nodes: u8, options: Options) -> Self {
        Self { options, ..Self::unfounded(nodes) }.started()
    }

    /// The same, with nodes of another clockwork.
    pub(crate) fn start_timed(nodes: u8, timing: Timing) -> Self {
        Self { timing, ..Self::unfounded(nodes) }.started()
    }

    /// The same, with both.
    pub(crate) fn start_timed_with(nodes: u8, timing: Timing, options: Options) -> Self {
        Self { timing, options, ..Self::unfounded(nodes) }.started()
    }

    fn started(self) -> Self {
        let mut cluster = self;
        let nodes = u8::try_from(cluster.machines.len()).expect("there are few");
        for id in (1..=nodes).map(NodeId::new) {
            cluster.boot(id);
        }
        let all = usize::from(nodes);
        cluster.run_until("all nodes are registered", |cluster| {
            cluster.node(n(1)).metadata().map().nodes.len() == all
        });
        cluster
    }

    /// The same, with nodes that keep nothing of the metadata's log that they can sum up.
    pub(crate) fn start_summing_up(nodes: u8, timing: Timing, options: Options) -> Self {
        Self { timing, options, metadata_bytes_kept: 0, ..Self::unfounded(nodes) }.started()
    }
}

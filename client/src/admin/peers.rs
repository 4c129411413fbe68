//! What nodes tell of the ways between them.

use std::time::Duration;

use varve_protocol::client::{PeerDistance, PeerRate, Request, Response};
use varve_protocol::id::{GroupId, NodeId};
use varve_protocol::metadata::NodeEntry;

use super::{Admin, ask_node};
use crate::cluster::nonsense;
use crate::error::ClientError;

/// How long a node may take to measure how fast another one is sent to: longer than it tries.
const RATE_MAX: Duration = Duration::from_secs(5);

impl Admin {
    /// How far the other nodes are from one, by the pulses that they exchange.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn distances_of(&self, node: &NodeEntry) -> Result<Vec<PeerDistance>, ClientError> {
        match ask_node(&self.shared, &node.address, &Request::GetDistances).await? {
            Response::Distances(distances) => Ok(distances),
            other @ (Response::Map(_)
            | Response::Changed(_)
            | Response::Offsets(_)
            | Response::Status(_)
            | Response::HandingOver
            | Response::Vitals(_)
            | Response::Doubt(_)
            | Response::OffsetAt(_)
            | Response::Rate(_)) => Err(nonsense(&other)),
        }
    }

    /// Has one node send two megabytes of filler to another, behind all else, to see how fast they come.
    ///
    /// # Errors
    /// When it does not answer, or is busy: it does not hear the other one, or measures already.
    pub async fn measure_rate(&self, from: &NodeEntry, to: NodeId) -> Result<PeerRate, ClientError> {
        let request = Request::MeasureRate { to };
        match self.shared.request(&from.address, GroupId::METADATA, &request, RATE_MAX).await? {
            Response::Rate(rate) => Ok(rate),
            other @ (Response::Map(_)
            | Response::Changed(_)
            | Response::Offsets(_)
            | Response::Status(_)
            | Response::HandingOver
            | Response::Vitals(_)
            | Response::Doubt(_)
            | Response::OffsetAt(_)
            | Response::Distances(_)) => Err(nonsense(&other)),
        }
    }
}

//! The version of a cluster, and what its nodes' releases know ([`varve_protocol::version`]).

use varve_protocol::metadata::MetadataOp;
use varve_protocol::version::Version;

use crate::admin::Admin;
use crate::error::ClientError;

impl Admin {
    /// Has the cluster go on to a newer version, which all its nodes must know. There is no way back.
    ///
    /// # Errors
    /// When a node runs a release that does not know it, or the cluster is there already, or cannot be changed at the moment.
    pub async fn raise_version(&self, to: Version) -> Result<(), ClientError> {
        self.change(MetadataOp::RaiseVersion { to }).await
    }
}

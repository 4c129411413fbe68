//! Dialling a peer: again and again, ever more slowly, and at once after a connection that stood.

use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, Endpoint};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use varve_protocol::id::NodeId;

use crate::error::TransportError;
use crate::identity::node_name;
use crate::peer;
use crate::shared::Shared;
use crate::socket::Resolve;
use crate::tasks::Tasks;

/// The wait after the first failure; it doubles with each further one.
const BACKOFF_MIN: Duration = Duration::from_millis(50);

/// The longest wait.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// How long one attempt may take.
const ATTEMPT_MAX: Duration = Duration::from_secs(2);

/// Keeps a connection to one peer.
pub(crate) struct Dialler {
    pub(crate) shared: Arc<Shared>,
    pub(crate) endpoint: Endpoint,
    pub(crate) tasks: Tasks,
    pub(crate) resolver: Arc<dyn Resolve>,
    pub(crate) peer: NodeId,
    pub(crate) address: String,
}

impl Dialler {
    /// Dials until the endpoint shuts down.
    pub(crate) async fn run(self, seed: [u8; 32]) {
        let mut rng = ChaCha8Rng::from_seed(seed);
        let mut wait = BACKOFF_MIN;
        let keep_dialling = async {
            loop {
                match self.dial().await {
                    Ok(connection) => {
                        wait = BACKOFF_MIN;
                        peer::run(self.shared.clone(), self.tasks.clone(), connection, Some(self.peer)).await;
                    }
                    Err(error) => tracing::debug!(peer = %self.peer, %error, "dialling failed"),
                }
                tokio::time::sleep(wait.mul_f64(rng.random_range(0.5..1.0))).await;
                wait = (wait * 2).min(BACKOFF_MAX);
            }
        };
        tokio::select! {
            biased;
            () = self.shared.shutdown() => {}
            () = keep_dialling => {}
        }
    }

    async fn dial(&self) -> Result<Connection, TransportError> {
        let refused = |reason: String| TransportError::Connect { address: self.address.clone(), reason };
        let resolved = self.resolver.resolve(&self.address).await;
        let address =
            resolved.map_err(|source| TransportError::Resolve { address: self.address.clone(), source })?;
        let name = node_name(self.shared.who.cluster, self.peer);
        let connecting = self.endpoint.connect(address, &name).map_err(|error| refused(error.to_string()))?;
        match tokio::time::timeout(ATTEMPT_MAX, connecting).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(refused(error.to_string())),
            Err(_) => Err(refused(format!("no answer within {ATTEMPT_MAX:?}"))),
        }
    }
}

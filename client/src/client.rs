//! The client: one connection to a cluster, from which producers, consumers and the admin are made.

use std::sync::Arc;

use varve_transport::ClientEndpoint;

use crate::admin::Admin;
use crate::cluster::Shared;
use crate::config::ClientConfig;
use crate::connection_string::ConnectionString;
use crate::consumer::{Consumer, From};
use crate::error::ClientError;
use crate::producer::{Producer, ProducerConfig};

/// A connection to a cluster. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

impl Client {
    /// Connects to the cluster that a connection string names.
    ///
    /// # Errors
    /// When the string or the authority's certificate cannot be read, or no node answers.
    pub async fn connect(connection: &str) -> Result<Self, ClientError> {
        let connection: ConnectionString = connection.parse()?;
        Self::with_config(ClientConfig::for_system(&connection)?).await
    }

    /// Connects to the cluster that a configuration names.
    ///
    /// # Errors
    /// When the configuration cannot be used, or no node answers.
    pub async fn with_config(config: ClientConfig) -> Result<Self, ClientError> {
        let ClientConfig { servers, ca_pem, tuning, seed, seams } = config;
        let transport = varve_transport::ClientConfig { ca_pem, tuning, versions: seams.versions, seed };
        let endpoint = ClientEndpoint::new(&transport, seams.runtime, seams.socket, seams.resolver)
            .map_err(|error| ClientError::Setup { reason: error.to_string() })?;
        let shared = Arc::new(Shared::new(endpoint, servers, seed));
        shared.refresh_map().await?;
        Ok(Self { shared })
    }

    /// Changes and looks at streams, topics and nodes.
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin::new(self.shared.clone())
    }

    /// Starts a producer for `stream/topic`.
    ///
    /// # Errors
    /// When there is no such topic, or the cluster cannot register the producer.
    pub async fn producer(&self, topic: &str, config: ProducerConfig) -> Result<Producer, ClientError> {
        Producer::start(self.shared.clone(), topic, config).await
    }

    /// Starts a consumer for one partition of `stream/topic`.
    ///
    /// # Errors
    /// When there is no such partition, or its offsets cannot be learnt.
    pub async fn consumer(&self, topic: &str, partition: u32, from: From) -> Result<Consumer, ClientError> {
        Consumer::start(self.shared.clone(), topic, partition, from).await
    }

    /// Closes all connections and waits until the nodes have been told.
    pub async fn shutdown(self) {
        self.shared.nodes.shutdown().await;
    }
}

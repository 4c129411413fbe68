//! The leader-aware client of Varve.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use varve_client::{Client, From, Headers, ProducerConfig, Record, Target};
//!
//! let client = Client::connect("varve://127.0.0.1:7101,127.0.0.1:7102/?ca=varve-data/tls/ca.crt").await?;
//! let producer = client.producer("shop/orders", ProducerConfig::default()).await?;
//! let mut headers = Headers::new();
//! headers.insert("trace", "a1b2")?;
//! headers.insert("hops", 3_u8)?;
//! let record = Record { headers, payload: "one".into(), ..Record::default() };
//! let ack = producer.send(Target::Partition(0), record).await?;
//! println!("stored at {}", ack.wait().await?);
//!
//! let mut consumer = client.consumer("shop/orders", 0, From::First).await?;
//! for (offset, record) in consumer.next_batch().await?.records {
//!     println!("{offset}: {:?}, {:?}", record.payload, record.headers.get("trace"));
//! }
//! # Ok(()) }
//! ```
//!
//! * [`Client`] knows the nodes and the cluster map, and finds out who leads what.
//! * [`Producer`] keeps one pipeline per partition: batches are numbered, sent ahead of their acknowledgements, and sent
//!   again in order, with the same numbers, to whoever leads after a failover. The cluster appends each exactly once.
//!   Batches are compressed as the topic says ([`Compression`]), where that makes them smaller.
//! * [`Consumer`] reads a partition in order, waiting at its end.
//! * [`Record`] has a payload, and if need be a key and typed [`Headers`].
//! * [`Admin`] changes streams and topics, exactly once as well, and tells where a partition ends now.
//!
//! Everything runs on tokio. The UDP socket and the names come through a seam ([`Seams`]), so that a simulator can bring its
//! own.

mod admin;
mod caller;
mod client;
mod cluster;
mod config;
mod connection_string;
mod consumer;
mod ends;
mod error;
mod link;
mod nodes;
mod pipeline;
mod producer;
pub mod recovery;

pub use admin::{Admin, TopicOptions};
pub use client::Client;
pub use config::{ClientConfig, Seams};
pub use connection_string::{ConnectionString, ConnectionStringError};
pub use consumer::{Consumer, Fetched, From};
pub use error::{ClientError, Outcome};
pub use producer::{Ack, Producer, ProducerConfig, Target};
pub use varve_protocol::compression::Compression;
pub use varve_protocol::durability::Durability;
pub use varve_protocol::id::Offset;
pub use varve_protocol::metadata::MetadataError;
pub use varve_protocol::record::{HeaderError, HeaderKind, HeaderValue, Headers, Record};
pub use varve_protocol::retention::Retention;

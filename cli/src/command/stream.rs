//! `varve stream`: streams, which hold topics.

use std::io::IsTerminal as _;

use anyhow::anyhow;
use clap::Subcommand;
use serde::Serialize;
use varve_client::Client;
use varve_protocol::metadata::{MetadataError, StreamEntry};

use crate::connection::connect;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::{self, table};
use crate::topic_name::stream_name;

/// What `varve stream` takes.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Create a stream
    Create {
        /// Its name
        #[arg(value_parser = stream_name)]
        stream: String,
    },
    /// List all streams
    List,
    /// Print a stream and its topics
    Describe {
        /// Its name
        #[arg(value_parser = stream_name)]
        stream: String,
    },
    /// Delete a stream that has no topics any more
    Delete {
        /// Its name
        #[arg(value_parser = stream_name)]
        stream: String,
        #[command(flatten)]
        consent: Consent,
    },
}

/// Whether something may be deleted for good.
#[derive(clap::Args, Debug)]
pub(crate) struct Consent {
    /// Really do it; needed where stdin is a terminal
    #[arg(long)]
    yes: bool,
}

impl Consent {
    /// Refuses to delete what a person has not said twice.
    pub(crate) fn check(&self, what: &str) -> Outcome {
        if self.yes || !std::io::stdin().is_terminal() {
            Ok(())
        } else {
            Err(Failure::usage(anyhow!("deleting {what} cannot be undone; say --yes to do it")))
        }
    }
}

/// What was done, for programs.
#[derive(Serialize)]
pub(crate) struct Done<'a> {
    pub(crate) done: &'static str,
    pub(crate) name: &'a str,
}

/// Prints that something was done.
pub(crate) fn print_done(context: &Context, done: &'static str, name: &str) -> Outcome {
    output::print(context.output, &Done { done, name }, |done| format!("{} {}", done.done, done.name))
}

#[derive(Serialize)]
struct StreamLine {
    name: String,
    topics: Vec<TopicLine>,
}

#[derive(Serialize)]
struct TopicLine {
    name: String,
    partitions: usize,
    replication_factor: u8,
}

impl From<&StreamEntry> for StreamLine {
    fn from(entry: &StreamEntry) -> Self {
        let topics = entry.topics.iter().map(|topic| TopicLine {
            name: topic.name.clone(),
            partitions: topic.partitions.len(),
            replication_factor: topic.replication_factor,
        });
        Self { name: entry.name.clone(), topics: topics.collect() }
    }
}

/// Does what was asked with streams.
pub(crate) async fn run(context: &Context, arguments: Arguments) -> Outcome {
    match arguments.verb {
        Verb::Create { stream } => {
            connect(context).await?.admin().create_stream(&stream).await?;
            print_done(context, "created stream", &stream)
        }
        Verb::List => list(context, &connect(context).await?).await,
        Verb::Describe { stream } => describe(context, &connect(context).await?, &stream).await,
        Verb::Delete { stream, consent } => {
            consent.check(&format!("stream `{stream}`"))?;
            connect(context).await?.admin().delete_stream(&stream).await?;
            print_done(context, "deleted stream", &stream)
        }
    }
}

async fn list(context: &Context, client: &Client) -> Outcome {
    let map = client.admin().map().await?;
    let streams: Vec<StreamLine> = map.streams.iter().map(StreamLine::from).collect();
    output::print(context.output, &streams, |streams| {
        let rows = streams.iter().map(|stream| vec![stream.name.clone(), stream.topics.len().to_string()]);
        table(&["STREAM", "TOPICS"], &[1], rows)
    })
}

async fn describe(context: &Context, client: &Client, name: &str) -> Outcome {
    let map = client.admin().map().await?;
    let stream = map.streams.iter().find(|stream| stream.name == name);
    let stream = stream.ok_or_else(|| Failure::refused(MetadataError::StreamUnknown(name.to_owned())))?;
    output::print(context.output, &StreamLine::from(stream), |stream| {
        let rows = stream.topics.iter().map(|topic| {
            vec![topic.name.clone(), topic.partitions.to_string(), topic.replication_factor.to_string()]
        });
        format!("stream {}\n\n{}", stream.name, table(&["TOPIC", "PARTITIONS", "REPLICAS"], &[1, 2], rows))
    })
}

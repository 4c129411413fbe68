//! A topic that a run makes for itself, and takes away again.

use varve_client::{Client, ClientError, TopicOptions};
use varve_protocol::metadata::MetadataError;

use crate::failure::{Failure, Outcome};
use crate::topic_name::TopicName;

/// A topic that is there until it is deleted, with its stream if that was not there before.
#[derive(Debug)]
pub(crate) struct OwnTopic {
    name: TopicName,
    has_made_stream: bool,
}

impl OwnTopic {
    /// Makes it.
    pub(crate) async fn new(client: &Client, name: &TopicName, options: TopicOptions) -> Outcome<Self> {
        let has_made_stream = match client.admin().create_stream(&name.stream).await {
            Ok(()) => true,
            Err(ClientError::Metadata(MetadataError::StreamExists(_))) => false,
            Err(error) => return Err(error.into()),
        };
        match client.admin().create_topic(&name.stream, &name.topic, options).await {
            Ok(()) => Ok(Self { name: name.clone(), has_made_stream }),
            Err(error) => {
                if has_made_stream {
                    // What counts is why there is no topic.
                    let _ = client.admin().delete_stream(&name.stream).await;
                }
                Err(error.into())
            }
        }
    }

    /// Takes it away.
    pub(crate) async fn delete(self, client: &Client) -> Outcome {
        let Self { name, has_made_stream } = self;
        let left = |error| Failure::from(error).context(format!("topic `{name}` was not deleted again"));
        client.admin().delete_topic(&name.stream, &name.topic).await.map_err(left)?;
        if has_made_stream {
            client.admin().delete_stream(&name.stream).await.map_err(left)?;
        }
        Ok(())
    }
}

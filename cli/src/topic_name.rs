//! Names as users write them: a stream is `STREAM`, a topic is `STREAM/TOPIC`.

use std::fmt;
use std::str::FromStr;

use varve_protocol::limits::NAME_BYTES_MAX;
use varve_protocol::metadata::is_legal_name;

/// The name of a topic with that of its stream.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct TopicName {
    pub(crate) stream: String,
    pub(crate) topic: String,
}

impl FromStr for TopicName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (stream, topic) =
            text.split_once('/').ok_or("a topic is named STREAM/TOPIC, such as `shop/orders`")?;
        Ok(Self { stream: stream_name(stream)?, topic: stream_name(topic)? })
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.stream, self.topic)
    }
}

/// Checks the name of a stream, or of a topic within one.
pub(crate) fn stream_name(text: &str) -> Result<String, String> {
    if is_legal_name(text) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "`{text}` is not a legal name: 1 to {NAME_BYTES_MAX} letters, digits, `-`, `_` or `.`, not starting with `.`"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_has_a_stream_and_a_name() {
        let name: TopicName = "shop/orders.v2".parse().unwrap();
        assert_eq!((name.stream.as_str(), name.topic.as_str()), ("shop", "orders.v2"));
        assert_eq!(name.to_string(), "shop/orders.v2");
        for wrong in ["shop", "shop/", "/orders", "a/b/c", "shop/.x", ""] {
            assert!(wrong.parse::<TopicName>().is_err(), "`{wrong}` is no topic");
        }
    }
}

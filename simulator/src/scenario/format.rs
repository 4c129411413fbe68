//! How the parts of a scenario that are not ours stand in a file: times as people write them (`1s 500ms`, exact to the
//! nanosecond), nodes as numbers, durabilities and compressions by name.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use varve_protocol::retention::Retention;

/// A time span, as `#[serde(with = "..")]`.
pub(super) mod time {
    use std::time::Duration;

    use super::{Deserialize, Deserializer, Serializer, de};

    pub(in crate::scenario) fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&humantime::format_duration(*time))
    }

    pub(in crate::scenario) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        humantime::parse_duration(&String::deserialize(from)?).map_err(de::Error::custom)
    }
}

/// A node, as `#[serde(with = "..")]`.
pub(super) mod node {
    use varve_protocol::id::NodeId;

    use super::{Deserialize, Deserializer, Serializer};

    pub(in crate::scenario) fn serialize<S: Serializer>(node: &NodeId, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u8(node.as_raw())
    }

    pub(in crate::scenario) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<NodeId, D::Error> {
        u8::deserialize(from).map(NodeId::new)
    }
}

/// A durability, as `#[serde(with = "..")]`.
pub(super) mod durability {
    use varve_protocol::durability::Durability;

    use super::{Deserialize, Deserializer, Serializer, de};

    pub(in crate::scenario) fn serialize<S: Serializer>(
        durability: &Durability,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_str(durability.name())
    }

    pub(in crate::scenario) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Durability, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

/// A compression, as `#[serde(with = "..")]`.
pub(super) mod compression {
    use varve_protocol::compression::Compression;

    use super::{Deserialize, Deserializer, Serializer, de};

    pub(in crate::scenario) fn serialize<S: Serializer>(
        compression: &Compression,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_str(compression.name())
    }

    pub(in crate::scenario) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Compression, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

/// The mirror of [`Retention`], as `#[serde(with = "..")]`.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Retention", deny_unknown_fields)]
pub(super) struct RetentionFormat {
    bytes: Option<u64>,
    age_ms: Option<u64>,
}

//! What it takes for an append to a topic to count as done. Chosen when the topic is made, and never changed.

#![allow(
    missing_docs,
    reason = "rkyv derives undocumented mirrors of variants with fields; ours are documented"
)]

use std::fmt;
use std::str::FromStr;

use rkyv::{Archive, Deserialize, Serialize};

/// Where a quorum of the replicas must hold a prepare before it commits. Archived: the order of variants is the format.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug, Archive, Serialize, Deserialize)]
pub enum Durability {
    /// On its disks, synced. What was acknowledged survives any number of power failures.
    #[default]
    QuorumDisk,
    /// In its memory; the disks follow within a bounded time. What was acknowledged survives as long as no more than a
    /// minority of the replicas stop uncleanly before they have recovered from each other.
    QuorumMemory,
}

impl Durability {
    /// All of them, the default first.
    pub const ALL: &[Self] = &[Self::QuorumDisk, Self::QuorumMemory];

    /// The name on the command line and in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::QuorumDisk => "quorum-disk",
            Self::QuorumMemory => "quorum-memory",
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A word that names no durability.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`{0}` is no durability: it is quorum-disk or quorum-memory")]
pub struct UnknownDurability(String);

impl FromStr for Durability {
    type Err = UnknownDurability;

    fn from_str(name: &str) -> Result<Self, UnknownDurability> {
        let found = Self::ALL.iter().copied().find(|durability| durability.name() == name);
        found.ok_or_else(|| UnknownDurability(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_again() {
        for durability in Durability::ALL {
            assert_eq!(durability.name().parse(), Ok(*durability));
        }
        assert!("memory".parse::<Durability>().is_err());
    }
}

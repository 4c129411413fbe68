//! The numbers that name things. Each is its own type, so that an [`Op`] can never be passed where an
//! [`Offset`] is meant.
//!
//! `Display` is the form used in traces and logs: `v3`, `op42`, `n1`, `g7`, `r0`.
//! All of them start from zero except [`Op`] (the first prepare of a group is `op1`; `op0` is the empty log),
//! [`NodeId`], [`ProducerId`] and [`RequestNumber`] (zero means "none").

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
        pub struct $name($inner);

        impl $name {
            /// The number zero; see the type for what it stands for.
            pub const ZERO: Self = Self(0);

            /// Wraps a raw number.
            #[must_use]
            pub const fn new(number: $inner) -> Self {
                Self(number)
            }

            /// The raw number.
            #[must_use]
            pub const fn as_raw(self) -> $inner {
                self.0
            }

            /// The number after this one.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0.checked_add(1).expect(concat!(stringify!($name), " does not overflow in the life of a cluster")))
            }

            /// The number before this one, or zero.
            #[must_use]
            pub const fn previous(self) -> Self {
                Self(self.0.saturating_sub(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

number! {
    /// One process of the cluster, from 1 to [`crate::limits::NODES_MAX`]; zero means "no node".
    NodeId(u8), "n"
}
number! {
    /// The place of a replica in its group's member list, from 0.
    ReplicaIndex(u8), "r"
}
number! {
    /// One replicated log: zero is the metadata, every partition has its own. Never reused.
    GroupId(u64), "g"
}
number! {
    /// A numbered period of a group with one primary.
    View(u64), "v"
}
number! {
    /// A position in a group's log; the first prepare is 1, zero is the empty log.
    Op(u64), "op"
}
number! {
    /// A record's place in its partition, from 0, without gaps.
    Offset(u64), "offset "
}
number! {
    /// The version of a group's member list.
    Epoch(u32), "e"
}
number! {
    /// A registered producer; zero means "the cluster itself".
    ProducerId(u64), "producer "
}
number! {
    /// Counts the requests of one producer to one group, from 1.
    RequestNumber(u64), "request "
}
number! {
    /// One life of a node's process: drawn at every start, so that a restart is seen by its peers.
    Incarnation(u64), "life "
}
number! {
    /// One data directory, drawn when it is formatted: a node that has lost its disk comes back with another. Zero: none.
    DirectoryId(u64), "directory "
}
number! {
    /// A question of a primary to its backups whether they still work in its view; counted from 1 in each view.
    Round(u64), "round "
}
number! {
    /// Wall-clock time in microseconds since 1970-01-01 UTC.
    Timestamp(u64), "t"
}

impl GroupId {
    /// The group that holds the metadata of the cluster.
    pub const METADATA: Self = Self(0);
}

impl Op {
    /// This op moved forward by `count`.
    #[must_use]
    pub const fn plus(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }

    /// How many ops lie above `earlier`, up to and including this one; zero if this one is not later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Offset {
    /// This offset moved forward by `count` records.
    #[must_use]
    pub const fn plus(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }
}

/// The identity of a cluster, drawn once by whoever creates it and carried by every frame and every prepare.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    rkyv::Archive,
    rkyv::Serialize,
    rkyv::Deserialize,
)]
pub struct ClusterId(u128);

impl ClusterId {
    /// Wraps a raw identity.
    #[must_use]
    pub const fn new(raw: u128) -> Self {
        Self(raw)
    }

    /// The raw identity.
    #[must_use]
    pub const fn as_raw(self) -> u128 {
        self.0
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for ClusterId {
    type Err = ClusterIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let well_formed = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match u128::from_str_radix(text, 16) {
            Ok(raw) if well_formed => Ok(Self(raw)),
            Ok(_) | Err(_) => Err(ClusterIdError { text: text.to_owned() }),
        }
    }
}

/// A text is no cluster id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a cluster id: 32 hexadecimal digits are needed")]
pub struct ClusterIdError {
    text: String,
}

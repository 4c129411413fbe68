//! Versions: what a release can speak, and what a cluster speaks.
//!
//! One number stands for all formats that more than one node must read: frames and what is in them, prepares, and the metadata.
//! A release knows a few of them, from the oldest to the newest. **A cluster has one version**, a fact of its metadata like
//! any other, and no node sends or seals anything newer, whatever it knows. So a cluster is upgraded node by node, in any order and for
//! as long as it takes, with a way back: each node is stopped and started with the new release, and speaks as the others do. When
//! all of them know the newer version, the cluster is raised to it (`varve cluster upgrade`); from then on there is none.
//!
//! | version | frame | prepare | since                           |
//! |--------:|------:|--------:|---------------------------------|
//! |       1 |     6 |       1 | 0.1                             |
//! |       2 |     7 |       2 | the next change; no release yet |
//!
//! The rule for a change of a format: the new form belongs to the next version; it is written only where the cluster's version says
//! so, and both forms are read as long as [`Versions::OF_THIS_RELEASE`] has both. What only one node ever reads (segments, superblocks,
//! indexes) has a version of its own, but it follows the same rule: as long as there is a way back, the older release must
//! find what it can read.
//!
//! Version 2 has the form of version 1 under other numbers. It is there so that the simulator can upgrade clusters before the first
//! change does; a release without the feature `next-version` does not know it.

use std::fmt;

use rkyv::{Archive, Deserialize, Serialize};

/// One version of all that nodes must agree on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Archive, Serialize, Deserialize)]
pub struct Version(u8);

impl Default for Version {
    fn default() -> Self {
        Self::FIRST
    }
}

impl Version {
    /// The first one.
    pub const FIRST: Self = Self(1);

    /// A version by its number, from 1.
    #[must_use]
    pub const fn new(number: u8) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub const fn as_raw(self) -> u8 {
        self.0
    }

    /// The one after it.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// What stands in a frame.
    #[must_use]
    pub const fn in_frame(self) -> u8 {
        self.0 + 5
    }

    /// What stands in a prepare.
    pub(crate) const fn in_prepare(self) -> u8 {
        self.0
    }

    /// The version of a frame, if this release can read it.
    pub(crate) fn of_frame(raw: u8) -> Option<Self> {
        raw.checked_sub(5).map(Self).filter(|version| Versions::READABLE.contains(*version))
    }

    /// The version of a prepare, if this release can read it.
    pub(crate) fn of_prepare(raw: u8) -> Option<Self> {
        Some(Self(raw)).filter(|version| Versions::READABLE.contains(*version))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The versions that a release knows, both inclusive.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Archive, Serialize, Deserialize)]
pub struct Versions {
    /// The oldest.
    pub oldest: Version,
    /// The newest.
    pub newest: Version,
}

impl Versions {
    /// Those that this release knows.
    pub const OF_THIS_RELEASE: Self = Self { oldest: Version::FIRST, newest: Version::FIRST };

    /// Those that the next release will know: the simulator has nodes of both.
    pub const OF_THE_NEXT_RELEASE: Self =
        Self { oldest: Self::OF_THIS_RELEASE.oldest, newest: Self::OF_THIS_RELEASE.newest.next() };

    /// Those of which this build can take apart frames and prepares.
    pub(crate) const READABLE: Self =
        if cfg!(feature = "next-version") { Self::OF_THE_NEXT_RELEASE } else { Self::OF_THIS_RELEASE };

    /// Whether a release that knows these can be part of a cluster of this version.
    #[must_use]
    pub fn contains(self, version: Version) -> bool {
        (self.oldest..=self.newest).contains(&version)
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.oldest == self.newest {
            true => write!(f, "version {}", self.newest),
            false => write!(f, "versions {} to {}", self.oldest, self.newest),
        }
    }
}

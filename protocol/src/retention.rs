//! How long the records of a topic are kept.

use rkyv::{Archive, Deserialize, Serialize};

/// What a topic keeps of each partition, at least. Whole segments are let go, the oldest first, as soon as either bound
/// allows; without bounds everything is kept for good.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Archive, Serialize, Deserialize)]
pub struct Retention {
    /// Bytes of newest prepares that are kept; `None`: whatever there is.
    pub bytes: Option<u64>,
    /// Milliseconds for which a record is kept after it was appended; `None`: for ever.
    pub age_ms: Option<u64>,
}

impl Retention {
    /// Everything is kept.
    pub const FOREVER: Self = Self { bytes: None, age_ms: None };

    /// Whether anything is ever let go.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        *self != Self::FOREVER
    }
}

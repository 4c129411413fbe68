//! The lanes between two nodes: streams of their own, so that bulk holds up neither data nor control.

use varve_protocol::id::GroupId;

/// Data lanes per connection; groups are spread over them so that one slow group does not hold up all others.
pub(crate) const DATA_LANES: u8 = 4;

/// One of the streams between two nodes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Lane {
    /// Pulses: before all else, also before what thousands of groups have to say when a node dies.
    Pulse,
    /// View changes, acknowledgements: next in line.
    Control,
    /// Prepares; the number is less than four.
    Data(u8),
    /// Repair: last in line.
    Bulk,
}

impl Lane {
    /// The data lane of a group.
    #[must_use]
    pub fn data(group: GroupId) -> Self {
        let lane = group.as_raw() % u64::from(DATA_LANES);
        Self::Data(u8::try_from(lane).expect("a remainder of a byte fits a byte"))
    }

    /// All lanes, in the order of [`Self::index`].
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        [Self::Pulse, Self::Control].into_iter().chain((0..DATA_LANES).map(Self::Data)).chain([Self::Bulk])
    }

    /// The place of this lane among all.
    pub(crate) fn index(self) -> usize {
        match self {
            Self::Pulse => 0,
            Self::Control => 1,
            Self::Data(number) => 2 + usize::from(number % DATA_LANES),
            Self::Bulk => 2 + usize::from(DATA_LANES),
        }
    }

    /// quinn's stream priority: the higher is sent first.
    pub(crate) fn priority(self) -> i32 {
        match self {
            Self::Pulse => 3,
            Self::Control => 2,
            Self::Data(_) => 1,
            Self::Bulk => 0,
        }
    }

    /// The first byte of a stream, which tells the receiver what it is.
    pub(crate) fn tag(self) -> u8 {
        match self {
            Self::Control => CONTROL_TAG,
            Self::Data(_) => 2,
            Self::Bulk => 3,
            Self::Pulse => PULSE_TAG,
        }
    }
}

/// The tag of the control lane.
pub(crate) const CONTROL_TAG: u8 = 1;

/// The tag of the lane of pulses.
pub(crate) const PULSE_TAG: u8 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lane_has_a_place_of_its_own() {
        let places: Vec<usize> = Lane::all().map(Lane::index).collect();
        assert_eq!(places, (0..places.len()).collect::<Vec<_>>());
        assert_eq!(Lane::Control.tag(), CONTROL_TAG);
    }

    #[test]
    fn a_group_keeps_its_lane() {
        assert_eq!(Lane::data(GroupId::new(6)), Lane::Data(2));
    }
}

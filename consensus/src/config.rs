//! What a replica is told about itself when it is made, and how long it waits for others.

use std::time::Duration;

use varve_protocol::durability::Durability;
use varve_protocol::id::{ClusterId, DirectoryId, Epoch, GroupId, Op, ReplicaIndex, View};
use varve_protocol::limits::REPLICAS_MAX;

/// Who a replica is, in which group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// Identity of the cluster; sealed into every prepare.
    pub cluster: ClusterId,
    /// The group.
    pub group: GroupId,
    /// Version of the group's member list.
    pub epoch: Epoch,
    /// This replica's place.
    pub replica: ReplicaIndex,
    /// Replicas that the group was made with, in its first places.
    pub founders: u8,
    /// Places of the group, vacant ones too; the same in all replicas, for good.
    pub places: u8,
    /// The data directory of this replica.
    pub directory: DirectoryId,
    /// The op of the metadata that brought this replica here; zero if it is here from the start. It may have been here before,
    /// and have forgotten that: an entry of the log that is older does not put it in its place.
    pub arrived: Op,
    /// Whether that directory stood in this replica's place when the group was made. One that did not is mute until an entry
    /// of the log puts it there.
    pub is_original: bool,
    /// What a replica must have done with a prepare before it acknowledges it; the same in all replicas, for good.
    pub durability: Durability,
    /// How long to wait for others.
    pub timeouts: Timeouts,
}

impl Config {
    /// The place whose replica leads `view`: views go round the places, and those of vacant ones are passed over.
    #[must_use]
    pub fn primary(&self, view: View) -> ReplicaIndex {
        let index = view.as_raw() % u64::from(self.places);
        ReplicaIndex::new(u8::try_from(index).expect("a remainder of a byte fits a byte"))
    }

    /// The first view after `view` that is led from `place`.
    #[must_use]
    pub fn next_view_of(&self, place: ReplicaIndex, view: View) -> View {
        let mut next = view.next();
        while self.primary(next) != place {
            next = next.next();
        }
        next
    }

    pub(crate) fn assert_sound(&self) {
        assert!(
            (1..=self.places).contains(&self.founders),
            "a group is made with a replica in each of its first places"
        );
        assert!(usize::from(self.places) <= REPLICAS_MAX, "a group has no more places than its limit");
        assert!(self.replica.as_raw() < self.places, "a replica has a place in its group");
    }
}

/// How long a replica waits. Each wait is lengthened at random by up to one half, so that replicas do not act in step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timeouts {
    /// Between two `StartViewChange`s for the same view.
    pub start_view_change_resend: Duration,
    /// Between two `DoViewChange`s (or `GetStartView`s) for the same view.
    pub view_change_resend: Duration,
    /// Until a view that does not start, or whose log does not come, is given up; doubles with every attempt.
    pub view_change: Duration,
    /// Bound of that doubling.
    pub view_change_max: Duration,
    /// Until an unanswered question for headers or prepares is asked again; doubles if only the primary can be asked.
    pub repair: Duration,
    /// Bound of that doubling.
    pub repair_max: Duration,
    /// Until a backup that the primary has sent one prepare after the other asks for those that it only hears of.
    pub follow: Duration,
    /// Until a primary that commits nothing repeats its prepares, or twice as long as they took to their commit lately, if that is
    /// longer; doubles while nothing commits.
    pub prepare_resend: Duration,
    /// Bound of that doubling.
    pub prepare_resend_max: Duration,
    /// Until a primary that commits nothing, or writes nothing, of what it has sealed gives way to another.
    pub stall: Duration,
    /// Until a primary that nobody has confirmed its view to asks for that again.
    pub confirm_view: Duration,
    /// Until a handover that its target does not take is given up.
    pub handover: Duration,
    /// Until what was acknowledged from memory is synced.
    pub memory_sync: Duration,
    /// Until a group that acknowledges from memory, and was given nothing, says on its disk that all is synced.
    pub memory_rest: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            start_view_change_resend: Duration::from_millis(50),
            view_change_resend: Duration::from_millis(50),
            view_change: Duration::from_millis(300),
            view_change_max: Duration::from_secs(5),
            repair: Duration::from_millis(50),
            repair_max: Duration::from_secs(1),
            follow: Duration::from_millis(500),
            prepare_resend: Duration::from_millis(100),
            prepare_resend_max: Duration::from_secs(2),
            stall: Duration::from_secs(5),
            confirm_view: Duration::from_millis(50),
            handover: Duration::from_secs(1),
            memory_sync: Duration::from_millis(100),
            memory_rest: Duration::from_secs(2),
        }
    }
}

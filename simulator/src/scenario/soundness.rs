//! What a scenario that somebody has edited must still be: one that can be played, and in which nothing happens that no cluster
//! is promised to survive. Else a broken promise would be no finding.

use varve_protocol::durability::Durability;

use super::{Fault, Profile, Rot, Scenario, World};

/// The most nodes there may be.
const NODES_MAX: u8 = 7;

/// The fewest replicas of which one may lose what it had synced.
const REPLICAS_TO_LOSE_FROM: u8 = 3;

/// Why a scenario cannot be played.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unsound {
    /// No nodes, or too many.
    #[error("there are 1 to {NODES_MAX} nodes, not {0}")]
    Nodes(u8),
    /// No replicas, or more than nodes.
    #[error("a partition has a replica, and no more of them than there are nodes: not {0}")]
    ReplicationFactor(u8),
    /// Nothing to write to, or nobody who writes, or nothing that they write.
    #[error("{0} is at least {1}")]
    TooSmall(&'static str, u32),
    /// A fault names a node that there is not.
    #[error("{0} is no node of this scenario")]
    Stranger(varve_protocol::id::NodeId),
    /// A mask of halves names nodes that there are not, or puts all on one side.
    #[error("a mask of {0:#b} does not split the nodes in two")]
    Mask(u32),
    /// A group so small may have no minority that could do what is asked of it.
    #[error("{0}: that takes {REPLICAS_TO_LOSE_FROM} replicas")]
    TooFewReplicas(&'static str),
    /// More nodes are left behind than a group can do without.
    #[error("{0} nodes left behind are the majority of a group")]
    TooManyLeftBehind(usize),
    /// A replica that goes leaves its group without one for a moment.
    #[error("{0} while replicas are moved: that may be more than a group survives")]
    WhileMoved(&'static str),
    /// Replicas cannot be moved.
    #[error(
        "replicas are moved by the others of a group, to nodes that hold none: of {0} that is not possible"
    )]
    Moves(u8),
    /// A world that does not know what the profile is about.
    #[error("{} cannot be played in the {} world", .0.argument().trim_start(), .1.name())]
    ProfileElsewhere(Profile, World),
    /// The faults are not in the order of their times.
    #[error("strike {0} comes before the one that is listed before it")]
    Order(usize),
}

impl Scenario {
    /// Whether it can be played.
    ///
    /// # Errors
    /// When it cannot; why.
    pub fn verify(&self) -> Result<(), Unsound> {
        if !(1..=NODES_MAX).contains(&self.nodes) {
            return Err(Unsound::Nodes(self.nodes));
        }
        if !(1..=self.nodes).contains(&self.replication_factor) {
            return Err(Unsound::ReplicationFactor(self.replication_factor));
        }
        if !self.profile.fits(self.world) {
            return Err(Unsound::ProfileElsewhere(self.profile, self.world));
        }
        let load = &self.load;
        let least = [
            ("the number of partitions", self.partitions, 1),
            ("the window", load.window, 1),
            ("the number of records in a batch", load.batch_records_max, 1),
        ];
        if let Some((name, _, least)) = least.into_iter().find(|(_, value, least)| value < least) {
            return Err(Unsound::TooSmall(name, least));
        }
        let strikes = self.strikes.iter().map(|strike| strike.fault);
        strikes
            .chain(self.left_behind.iter().map(|left| left.fault))
            .try_for_each(|fault| fault.fits(self.nodes))?;
        let mut rollouts = self.rollouts.iter();
        if let Some(stranger) = rollouts.find(|rollout| !(1..=self.nodes).contains(&rollout.node.as_raw())) {
            return Err(Unsound::Stranger(stranger.node));
        }
        self.verify_promises()?;
        let is_late = |pair: &[super::Strike]| pair[0].at > pair[1].at;
        self.strikes.windows(2).position(is_late).map_or(Ok(()), |index| Err(Unsound::Order(index + 1)))
    }

    /// Whether the groups are large enough for what befalls them.
    fn verify_promises(&self) -> Result<(), Unsound> {
        let is_lost = |fault: Fault| matches!(fault, Fault::LoseDisk(_));
        let befalls = [
            ("disks that forget", self.rot != Rot::NONE),
            ("rot in use", self.strikes.iter().any(|strike| matches!(strike.fault, Fault::RotDisk(_)))),
            ("a lost disk", self.strikes.iter().any(|strike| is_lost(strike.fault))),
            ("acknowledging from memory", self.durability == Durability::QuorumMemory),
            ("nodes left behind", !self.left_behind.is_empty()),
        ];
        let may_move = (REPLICAS_TO_LOSE_FROM..self.nodes).contains(&self.replication_factor);
        if self.load.moves && !may_move {
            return Err(Unsound::Moves(self.replication_factor));
        }
        if self.replication_factor < REPLICAS_TO_LOSE_FROM {
            let asked = befalls.into_iter().find(|(_, is_asked)| *is_asked);
            return asked.map_or(Ok(()), |(name, _)| Err(Unsound::TooFewReplicas(name)));
        }
        if let Some((name, _)) = befalls.into_iter().find(|(_, is_asked)| *is_asked && self.load.moves) {
            return Err(Unsound::WhileMoved(name));
        }
        let left_behind = self.left_behind.len();
        let is_too_many = 2 * left_behind >= usize::from(self.replication_factor);
        if is_too_many { Err(Unsound::TooManyLeftBehind(left_behind)) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{LeftBehind, Reach, Strike, Victim};
    use super::*;
    use clap::ValueEnum;
    use std::time::Duration;
    use varve_protocol::id::NodeId;

    #[test]
    fn whatever_is_drawn_is_sound() {
        for (seed, profile) in
            (0..2_000).flat_map(|seed| Profile::value_variants().iter().map(move |profile| (seed, *profile)))
        {
            for world in [World::Fast, World::Quic].into_iter().filter(|world| profile.fits(*world)) {
                let scenario = Scenario::draw_as(profile, seed, world);
                assert_eq!(scenario.verify(), Ok(()), "{} {profile:?} seed {seed}", world.name());
            }
        }
    }

    #[test]
    fn a_profile_is_refused_in_a_world_that_does_not_know_it() {
        let scenario = Scenario { world: World::Quic, ..Scenario::draw_as(Profile::Beyond, 0, World::Fast) };
        let refused = scenario.verify().expect_err("it is unsound");
        assert_eq!(refused, Unsound::ProfileElsewhere(Profile::Beyond, World::Quic));
        assert_eq!(refused.to_string(), "--profile beyond cannot be played in the quic world");
    }

    #[test]
    fn what_cannot_be_played_is_told_apart() {
        let mut sound = Scenario::draw(0, World::Fast);
        sound.load.moves = false;
        let refused = |edit: &dyn Fn(&mut Scenario)| {
            let mut scenario = sound.clone();
            edit(&mut scenario);
            scenario.verify().expect_err("it is unsound")
        };
        assert_eq!(refused(&|scenario| scenario.nodes = 0), Unsound::Nodes(0));
        assert_eq!(refused(&|scenario| scenario.replication_factor = 9), Unsound::ReplicationFactor(9));
        assert_eq!(refused(&|scenario| scenario.load.window = 0), Unsound::TooSmall("the window", 1));
        let strike = |at: u64, fault| Strike { at: Duration::from_secs(at), lasts: Duration::ZERO, fault };
        let far = Victim::Node(NodeId::new(9));
        let faults = [Fault::Crash(far), Fault::Isolate(far, Reach::Nodes)];
        for fault in faults {
            assert_eq!(
                refused(&|scenario| scenario.strikes = vec![strike(1, fault)]),
                Unsound::Stranger(NodeId::new(9))
            );
        }
        let everybody = Fault::Halves { mask: u32::MAX };
        assert_eq!(
            refused(&|scenario| scenario.strikes = vec![strike(1, everybody)]),
            Unsound::Mask(u32::MAX)
        );
        let alone = |scenario: &mut Scenario| {
            (scenario.replication_factor, scenario.durability) = (1, Durability::QuorumDisk);
            (scenario.rot, scenario.strikes, scenario.left_behind) = (Rot::NONE, Vec::new(), Vec::new());
        };
        let first = Victim::Node(NodeId::new(1));
        assert_eq!(
            refused(&|scenario| {
                alone(scenario);
                scenario.strikes = vec![strike(1, Fault::LoseDisk(first))];
            }),
            Unsound::TooFewReplicas("a lost disk")
        );
        assert_eq!(
            refused(&|scenario| {
                alone(scenario);
                scenario.rot.crashes_permille = 300;
            }),
            Unsound::TooFewReplicas("disks that forget")
        );
        let left = |node| LeftBehind { node: NodeId::new(node), fault: Fault::Crash(first) };
        assert_eq!(
            refused(&|scenario| {
                scenario.replication_factor = 3;
                scenario.left_behind = vec![left(1), left(2)];
            }),
            Unsound::TooManyLeftBehind(2)
        );
        let moved = |scenario: &mut Scenario| {
            (scenario.nodes, scenario.replication_factor, scenario.load.moves) = (5, 3, true);
            (scenario.rot, scenario.durability) = (Rot::NONE, Durability::QuorumMemory);
        };
        assert_eq!(refused(&moved), Unsound::WhileMoved("acknowledging from memory"));
        assert_eq!(
            refused(&|scenario| {
                moved(scenario);
                scenario.replication_factor = 5;
            }),
            Unsound::Moves(5)
        );
        let swapped = vec![strike(2, Fault::PowerFailure), strike(1, Fault::PowerFailure)];
        assert_eq!(refused(&|scenario| scenario.strikes = swapped.clone()), Unsound::Order(1));
    }
}

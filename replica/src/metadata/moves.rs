//! Replicas that go from one node to another, come, or leave. The metadata says what is wanted; the group's own log says when it is so.

use varve_protocol::id::{DirectoryId, GroupId, NodeId, Op, ReplicaIndex};
use varve_protocol::limits::REPLICAS_MAX;
use varve_protocol::metadata::{MetadataError, MetadataOutcome, Move, PartitionEntry};

use super::Metadata;

/// Replicas that a group must have for one to be moved: the entry that does it is committed by a quorum of all without that one.
const MOVE_REPLICAS_MIN: usize = 3;

impl Metadata {
    fn partition_mut(&mut self, group: GroupId) -> Option<&mut PartitionEntry> {
        let topics = self.streams.values_mut().flat_map(|topics| topics.values_mut());
        topics.flat_map(|topic| &mut topic.partitions).find(|partition| partition.group == group)
    }

    pub(super) fn move_replica(
        &mut self,
        group: GroupId,
        from: NodeId,
        to: NodeId,
    ) -> Result<MetadataOutcome, MetadataError> {
        let since = self.applied;
        let is_known = to == NodeId::ZERO || self.nodes.contains_key(&to);
        let partition = self.partition_mut(group).ok_or(MetadataError::GroupUnknown(group))?;
        if let Some(moving) = partition.moving {
            let is_opposite = (moving.from, moving.to) == (to, from);
            let (from, to) = (moving.from, moving.to);
            return if is_opposite {
                self.turn_round(group, moving)
            } else {
                Err(MetadataError::MoveUnderWay { group, from, to })
            };
        }
        if from == to {
            return Err(MetadataError::NoWay);
        }
        if !is_known {
            return Err(MetadataError::NodeUnknown(to));
        }
        let holders = partition.replicas();
        if from != NodeId::ZERO && !holders.contains(&from) {
            return Err(MetadataError::NoReplica { group, node: from });
        }
        if holders.contains(&to) {
            return Err(MetadataError::ReplicaExists { group, node: to });
        }
        if to == NodeId::ZERO && holders.len() == 1 {
            return Err(MetadataError::LastReplica(group));
        }
        if from != NodeId::ZERO && to != NodeId::ZERO && holders.len() < MOVE_REPLICAS_MIN {
            return Err(MetadataError::TooFewToMove(group));
        }
        let place = partition.places.iter().position(|holder| *holder == from).unwrap_or_else(|| {
            partition.places.push(NodeId::ZERO);
            partition.directories.push(DirectoryId::ZERO);
            partition.arrived.push(Op::ZERO);
            partition.places.len() - 1
        });
        let place = u8::try_from(place).ok().filter(|place| usize::from(*place) < REPLICAS_MAX);
        let Some(place) = place.map(ReplicaIndex::new) else {
            partition.places.pop();
            partition.directories.pop();
            partition.arrived.pop();
            return Err(MetadataError::NoRoom(group));
        };
        partition.moving = Some(Move { place, from, to, since, arrived: since });
        self.placement_version += 1;
        Ok(MetadataOutcome::Done)
    }

    pub(super) fn cancel_move(&mut self, group: GroupId) -> Result<MetadataOutcome, MetadataError> {
        let partition = self.partition_mut(group).ok_or(MetadataError::GroupUnknown(group))?;
        let moving = partition.moving.ok_or(MetadataError::NoMove(group))?;
        if moving.is_turned() {
            return Err(MetadataError::MoveGivenUp { group, from: moving.from, to: moving.to });
        }
        self.turn_round(group, moving)
    }

    /// The group may have put the new replica in its place by now, or may do so any time, where this is not known yet. So the old
    /// one is put there anew; until it is, both stay.
    fn turn_round(&mut self, group: GroupId, moving: Move) -> Result<MetadataOutcome, MetadataError> {
        let now = self.applied;
        let partition = self.partition_mut(group).ok_or(MetadataError::GroupUnknown(group))?;
        let place = usize::from(moving.place.as_raw());
        let arrived = std::mem::replace(&mut partition.arrived[place], moving.arrived);
        partition.places[place] = moving.to;
        partition.moving = Some(Move { from: moving.to, to: moving.from, since: now, arrived, ..moving });
        self.placement_version += 1;
        Ok(MetadataOutcome::Done)
    }

    /// Whoever stood there at the beginning is forgotten: should it come back, it comes as another.
    pub(super) fn finish_move(
        &mut self,
        group: GroupId,
        since: Op,
    ) -> Result<MetadataOutcome, MetadataError> {
        let partition = self.partition_mut(group).ok_or(MetadataError::GroupUnknown(group))?;
        let moving = partition.moving.take_if(|moving| moving.since == since);
        let Move { place, to, arrived, .. } = moving.ok_or(MetadataError::NoMove(group))?;
        let place = usize::from(place.as_raw());
        partition.places[place] = to;
        partition.arrived[place] = arrived;
        if arrived != Op::ZERO || to == NodeId::ZERO {
            partition.directories[place] = DirectoryId::ZERO;
        }
        self.placement_version += 1;
        Ok(MetadataOutcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use varve_protocol::compression::Compression;
    use varve_protocol::durability::Durability;
    use varve_protocol::metadata::MetadataOp;
    use varve_protocol::retention::Retention;

    use super::*;
    use varve_protocol::version::Versions;

    const GROUP: GroupId = GroupId::new(1);
    const SECOND: ReplicaIndex = ReplicaIndex::new(1);

    fn node(raw: u8) -> NodeId {
        NodeId::new(raw)
    }

    /// Four nodes; group 1 is on 1, 2 and 3, group 2 on 2 alone.
    fn metadata() -> Metadata {
        let mut metadata = Metadata::default();
        for raw in 1..=4 {
            let (address, directory) = (format!("h{raw}:1"), DirectoryId::new(u64::from(raw) + 100));
            apply(
                &mut metadata,
                MetadataOp::RegisterNode {
                    node: node(raw),
                    address,
                    directory,
                    versions: Versions::OF_THIS_RELEASE,
                },
            );
        }
        apply(&mut metadata, MetadataOp::CreateStream { stream: "s".to_owned() });
        for (topic, replicas) in [("three", 3), ("one", 1)] {
            let operation = MetadataOp::CreateTopic {
                stream: "s".to_owned(),
                topic: topic.to_owned(),
                partitions: 1,
                replication_factor: Some(replicas),
                durability: Durability::QuorumDisk,
                retention: Retention::FOREVER,
                compression: Compression::None,
            };
            apply(&mut metadata, operation);
        }
        metadata
    }

    fn apply(metadata: &mut Metadata, operation: MetadataOp) -> MetadataOutcome {
        let op = metadata.applied().next();
        metadata.apply(op, Some(operation));
        metadata.outcome(op).expect("the outcome was just stored").clone()
    }

    fn begin(from: u8, to: u8) -> MetadataOp {
        MetadataOp::MoveReplica { group: GROUP, from: node(from), to: node(to) }
    }

    #[test]
    fn a_move_that_is_finished_changes_who_holds_the_replica() {
        let mut metadata = metadata();
        assert_eq!(apply(&mut metadata, begin(2, 4)), MetadataOutcome::Done);
        let since = metadata.applied();
        let moving = metadata.partition(GROUP).and_then(|partition| partition.moving);
        assert_eq!(moving, Some(Move { place: SECOND, from: node(2), to: node(4), since, arrived: since }));
        apply(&mut metadata, MetadataOp::FinishMove { group: GROUP, since });
        let partition = metadata.partition(GROUP).expect("it is there").clone();
        assert_eq!(partition.places, [1, 4, 3].map(node));
        assert_eq!(partition.directories, [101, 0, 103].map(DirectoryId::new));
        assert_eq!(partition.arrived, [Op::ZERO, since, Op::ZERO]);
        assert_eq!(partition.moving, None);
    }

    #[test]
    fn a_move_that_is_given_up_is_turned_round() {
        let mut metadata = metadata();
        let before = metadata.partition(GROUP).expect("it is there").clone();
        apply(&mut metadata, begin(2, 4));
        let begun = metadata.applied();
        apply(&mut metadata, MetadataOp::CancelMove { group: GROUP });
        let late = apply(&mut metadata, MetadataOp::FinishMove { group: GROUP, since: begun });
        assert_eq!(late, MetadataOutcome::Refused(MetadataError::NoMove(GROUP)));
        let since = metadata.applied().previous();
        let back = Move { place: SECOND, from: node(4), to: node(2), since, arrived: Op::ZERO };
        assert_eq!(metadata.partition(GROUP).and_then(|partition| partition.moving), Some(back));
        apply(&mut metadata, MetadataOp::FinishMove { group: GROUP, since });
        assert_eq!(metadata.partition(GROUP), Some(&before), "it has been there all the time");
    }

    #[test]
    fn who_was_there_from_the_start_and_leaves_comes_back_as_another() {
        let mut metadata = metadata();
        apply(&mut metadata, begin(2, 4));
        // Given up, and gone on with after all.
        let cancel = || MetadataOp::CancelMove { group: GROUP };
        assert_eq!(apply(&mut metadata, cancel()), MetadataOutcome::Done);
        let given_up = MetadataError::MoveGivenUp { group: GROUP, from: node(4), to: node(2) };
        assert_eq!(
            apply(&mut metadata, cancel()),
            MetadataOutcome::Refused(given_up),
            "said twice, meant once"
        );
        assert_eq!(apply(&mut metadata, begin(2, 4)), MetadataOutcome::Done);
        let since = metadata.applied();
        apply(&mut metadata, MetadataOp::FinishMove { group: GROUP, since });
        let partition = metadata.partition(GROUP).expect("it is there").clone();
        assert_eq!(partition.places, [1, 4, 3].map(node));
        assert_eq!(partition.directories, [101, 0, 103].map(DirectoryId::new));
    }

    #[test]
    fn a_move_of_before_does_not_finish_another() {
        let mut metadata = metadata();
        apply(&mut metadata, begin(2, 4));
        let first = metadata.applied();
        apply(&mut metadata, MetadataOp::CancelMove { group: GROUP });
        let back = metadata.applied();
        apply(&mut metadata, MetadataOp::FinishMove { group: GROUP, since: back });
        apply(&mut metadata, begin(2, 4));
        let late = apply(&mut metadata, MetadataOp::FinishMove { group: GROUP, since: first });
        assert_eq!(late, MetadataOutcome::Refused(MetadataError::NoMove(GROUP)));
        assert!(metadata.partition(GROUP).is_some_and(|partition| partition.moving.is_some()));
    }

    #[test]
    fn a_replica_more_takes_the_first_vacant_place() {
        let mut metadata = metadata();
        let finish = |metadata: &mut Metadata| {
            let since = metadata.applied();
            apply(metadata, MetadataOp::FinishMove { group: GROUP, since });
        };
        assert_eq!(apply(&mut metadata, begin(2, 0)), MetadataOutcome::Done);
        finish(&mut metadata);
        let partition = metadata.partition(GROUP).expect("it is there");
        assert_eq!((partition.replicas(), partition.places[1]), ([1, 3].map(node).to_vec(), NodeId::ZERO));
        assert_eq!(apply(&mut metadata, begin(0, 4)), MetadataOutcome::Done);
        let moving = metadata.partition(GROUP).and_then(|partition| partition.moving);
        assert_eq!(moving.map(|moving| moving.place), Some(SECOND));
        finish(&mut metadata);
        assert_eq!(apply(&mut metadata, begin(0, 2)), MetadataOutcome::Done);
        finish(&mut metadata);
        let partition = metadata.partition(GROUP).expect("it is there");
        assert_eq!(partition.places, [1, 4, 3, 2].map(node));
        assert_eq!(partition.directories, [101, 0, 103, 0].map(DirectoryId::new));
        assert_eq!(partition.founders, 3);
    }

    #[test]
    fn a_replica_more_that_is_given_up_leaves() {
        let mut metadata = metadata();
        apply(&mut metadata, begin(0, 4));
        assert_eq!(apply(&mut metadata, begin(4, 0)), MetadataOutcome::Done, "the opposite");
        let since = metadata.applied();
        let moving = metadata.partition(GROUP).and_then(|partition| partition.moving);
        assert!(
            moving.is_some_and(
                |moving| moving.is_turned() && (moving.from, moving.to) == (node(4), NodeId::ZERO)
            )
        );
        apply(&mut metadata, MetadataOp::FinishMove { group: GROUP, since });
        assert_eq!(
            metadata.partition(GROUP).map(PartitionEntry::replicas),
            Some([1, 2, 3].map(node).to_vec())
        );
    }

    #[test]
    fn who_was_to_leave_and_stays_has_been_there_all_the_time() {
        let mut metadata = metadata();
        let before = metadata.partition(GROUP).expect("it is there").clone();
        apply(&mut metadata, begin(2, 0));
        assert_eq!(apply(&mut metadata, MetadataOp::CancelMove { group: GROUP }), MetadataOutcome::Done);
        let since = metadata.applied();
        apply(&mut metadata, MetadataOp::FinishMove { group: GROUP, since });
        assert_eq!(metadata.partition(GROUP), Some(&before));
    }

    #[test]
    fn what_cannot_be_moved_is_refused() {
        let mut metadata = metadata();
        let one = GroupId::new(2);
        let refused = [
            (begin(4, 2), MetadataError::NoReplica { group: GROUP, node: node(4) }),
            (begin(1, 2), MetadataError::ReplicaExists { group: GROUP, node: node(2) }),
            (begin(1, 9), MetadataError::NodeUnknown(node(9))),
            (begin(0, 9), MetadataError::NodeUnknown(node(9))),
            (begin(0, 1), MetadataError::ReplicaExists { group: GROUP, node: node(1) }),
            (begin(4, 0), MetadataError::NoReplica { group: GROUP, node: node(4) }),
            (begin(0, 0), MetadataError::NoWay),
            (
                MetadataOp::MoveReplica { group: one, from: node(2), to: NodeId::ZERO },
                MetadataError::LastReplica(one),
            ),
            (
                MetadataOp::MoveReplica { group: one, from: node(2), to: node(4) },
                MetadataError::TooFewToMove(one),
            ),
            (
                MetadataOp::MoveReplica { group: GroupId::new(7), from: node(2), to: node(4) },
                MetadataError::GroupUnknown(GroupId::new(7)),
            ),
            (MetadataOp::CancelMove { group: GROUP }, MetadataError::NoMove(GROUP)),
        ];
        for (operation, error) in refused {
            assert_eq!(apply(&mut metadata, operation), MetadataOutcome::Refused(error));
        }
        apply(&mut metadata, begin(2, 4));
        let (from, to) = (node(2), node(4));
        let again = MetadataError::MoveUnderWay { group: GROUP, from, to };
        assert_eq!(apply(&mut metadata, begin(3, 4)), MetadataOutcome::Refused(again));
    }
}

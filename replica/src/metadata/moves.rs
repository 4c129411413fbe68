//! Replicas that go from one node to another. The metadata says what is wanted; the group's own log says when it is so.

use varve_protocol::id::{DirectoryId, GroupId, NodeId, Op};
use varve_protocol::metadata::{MetadataError, MetadataOutcome, Move, PartitionEntry};

use super::Metadata;

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
        let is_known = self.nodes.contains_key(&to);
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
        if !is_known {
            return Err(MetadataError::NodeUnknown(to));
        }
        if !partition.replicas.contains(&from) {
            return Err(MetadataError::NoReplica { group, node: from });
        }
        if partition.replicas.contains(&to) {
            return Err(MetadataError::ReplicaExists { group, node: to });
        }
        if partition.replicas.len() == 1 {
            return Err(MetadataError::OneReplica(group));
        }
        partition.moving = Some(Move { from, to, since, arrived: since });
        self.placement_version += 1;
        Ok(MetadataOutcome::Done)
    }

    pub(super) fn cancel_move(&mut self, group: GroupId) -> Result<MetadataOutcome, MetadataError> {
        let partition = self.partition_mut(group).ok_or(MetadataError::GroupUnknown(group))?;
        let moving = partition.moving.ok_or(MetadataError::NoMove(group))?;
        if moving.is_turned() {
            return Err(MetadataError::MoveGivenUp { group, holder: moving.to, other: moving.from });
        }
        self.turn_round(group, moving)
    }

    /// The group may have put the new replica in its place by now, or may do so any time, where this is not known yet. So the old
    /// one is put there anew; until it is, both stay.
    fn turn_round(&mut self, group: GroupId, moving: Move) -> Result<MetadataOutcome, MetadataError> {
        let now = self.applied;
        let partition = self.partition_mut(group).ok_or(MetadataError::GroupUnknown(group))?;
        let place = partition.place_of(moving.from);
        let arrived = std::mem::replace(&mut partition.arrived[place], moving.arrived);
        partition.replicas[place] = moving.to;
        partition.moving = Some(Move { from: moving.to, to: moving.from, since: now, arrived });
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
        let Move { from, to, arrived, .. } = moving.ok_or(MetadataError::NoMove(group))?;
        let place = partition.place_of(from);
        partition.replicas[place] = to;
        partition.arrived[place] = arrived;
        if arrived != Op::ZERO {
            partition.directories[place] = DirectoryId::ZERO;
        }
        self.placement_version += 1;
        Ok(MetadataOutcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use varve_protocol::durability::Durability;
    use varve_protocol::metadata::MetadataOp;
    use varve_protocol::retention::Retention;

    use super::*;

    const GROUP: GroupId = GroupId::new(1);

    fn node(raw: u8) -> NodeId {
        NodeId::new(raw)
    }

    /// Four nodes; group 1 is on 1, 2 and 3, group 2 on 2 alone.
    fn metadata() -> Metadata {
        let mut metadata = Metadata::default();
        for raw in 1..=4 {
            let (address, directory) = (format!("h{raw}:1"), DirectoryId::new(u64::from(raw) + 100));
            apply(&mut metadata, MetadataOp::RegisterNode { node: node(raw), address, directory });
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
        assert_eq!(moving, Some(Move { from: node(2), to: node(4), since, arrived: since }));
        apply(&mut metadata, MetadataOp::FinishMove { group: GROUP, since });
        let partition = metadata.partition(GROUP).expect("it is there").clone();
        assert_eq!(partition.replicas, [1, 4, 3].map(node));
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
        let back = Move { from: node(4), to: node(2), since, arrived: Op::ZERO };
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
        let given_up = MetadataError::MoveGivenUp { group: GROUP, holder: node(2), other: node(4) };
        assert_eq!(
            apply(&mut metadata, cancel()),
            MetadataOutcome::Refused(given_up),
            "said twice, meant once"
        );
        assert_eq!(apply(&mut metadata, begin(2, 4)), MetadataOutcome::Done);
        let since = metadata.applied();
        apply(&mut metadata, MetadataOp::FinishMove { group: GROUP, since });
        let partition = metadata.partition(GROUP).expect("it is there").clone();
        assert_eq!(partition.replicas, [1, 4, 3].map(node));
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
    fn what_cannot_be_moved_is_refused() {
        let mut metadata = metadata();
        let one = GroupId::new(2);
        let refused = [
            (begin(4, 2), MetadataError::NoReplica { group: GROUP, node: node(4) }),
            (begin(1, 2), MetadataError::ReplicaExists { group: GROUP, node: node(2) }),
            (begin(1, 9), MetadataError::NodeUnknown(node(9))),
            (
                MetadataOp::MoveReplica { group: one, from: node(2), to: node(4) },
                MetadataError::OneReplica(one),
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

//! Who is heard in a place, and who is only answered.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use varve_consensus::{Config, RecoveredLog, Timeouts};
use varve_protocol::id::{ClusterId, Epoch, GroupId, Offset, ProducerId, RequestNumber, Timestamp};
use varve_protocol::prepare::{Prepare, PrepareFields, PrepareKind};
use varve_protocol::superblock::Superblock;
use varve_protocol::version::Version;

use super::*;

const GROUP: GroupId = GroupId::new(7);
const FIRST: ReplicaIndex = ReplicaIndex::ZERO;

const fn n(raw: u8) -> NodeId {
    NodeId::new(raw)
}

fn voice(generation: u64) -> Voice {
    Voice { replica: FIRST, generation: Op::new(generation) }
}

/// The replica on node 2 of a group on nodes 1, 2 and 3. Op 1 of its log puts node 4 in the place of node 1, if anything is there.
fn group(has_entry: bool, commit: u64, moving: Option<Move>) -> Group {
    let config = Config {
        cluster: ClusterId::new(1),
        group: GROUP,
        epoch: Epoch::ZERO,
        replica: ReplicaIndex::new(1),
        founders: 3,
        places: PLACES,
        directory: DirectoryId::new(102),
        arrived: Op::ZERO,
        is_original: true,
        durability: Durability::QuorumDisk,
        timeouts: Timeouts::default(),
    };
    let mut log = RecoveredLog::new();
    if has_entry {
        let directory = DirectoryId::new(104);
        let entry = Replacement {
            replica: FIRST,
            change: Change::Seated,
            node: n(4),
            directory,
            known_at: Op::new(9),
        };
        let fields = PrepareFields {
            version: Version::FIRST,
            cluster: ClusterId::new(1),
            group: GROUP,
            view: View::ZERO,
            parent: PrepareId::ROOT,
            epoch: Epoch::ZERO,
            kind: PrepareKind::Replacement,
            base_offset: Offset::ZERO,
            record_count: 0,
            timestamp: Timestamp::new(1),
            producer: ProducerId::ZERO,
            request: RequestNumber::ZERO,
        };
        assert!(log.push(&Prepare::seal(fields, entry.encode())).is_none(), "nothing is committed by it");
    }
    let superblock = Superblock { commit: Op::new(commit), ..Superblock::new(GROUP) };
    let replica = Replica::recover(config, ChaCha8Rng::seed_from_u64(1), superblock, log);
    assert_eq!(replica.commit().op, Op::new(commit));
    let placement = Placement {
        nodes: [1, 2, 3].map(n).to_vec(),
        directories: [101, 102, 103].map(DirectoryId::new).to_vec(),
        arrived: vec![Op::ZERO; 3],
        founders: 3,
        moving,
        retention: Retention::FOREVER,
        durability: Durability::QuorumDisk,
    };
    Group::new(placement, State::Open(Box::new(replica)), Tail::default())
}

fn holders(group: &Group) -> Vec<NodeId> {
    group.holders().map(|(_, node)| node).collect()
}

fn to_node_4() -> Option<Move> {
    Some(Move { place: FIRST, from: n(1), to: n(4), since: Op::new(9), arrived: Op::new(9) })
}

#[test]
fn whose_place_another_has_taken_is_answered_and_not_heard() {
    let group = group(true, 1, to_node_4());
    assert_eq!(holders(&group), [4, 2, 3].map(n));
    assert_eq!(group.standing(n(1), voice(0)), Standing::Listener);
    assert_eq!(group.standing(n(4), voice(1)), Standing::Voice);
}

#[test]
fn who_is_to_take_a_place_is_answered_and_not_heard() {
    let group = group(false, 0, to_node_4());
    assert_eq!(group.standing(n(4), voice(0)), Standing::Listener);
    assert_eq!(group.standing(n(1), voice(0)), Standing::Voice);
    // Others have the entry, and it knows it to be committed.
    assert_eq!(group.standing(n(4), voice(1)), Standing::Voice);
}

#[test]
fn nobody_is_heard_in_a_place_that_is_being_taken() {
    let group = group(true, 0, to_node_4());
    for node in [n(1), n(4)] {
        assert_eq!(group.standing(node, voice(0)), Standing::Listener);
    }
    assert_eq!(group.standing(n(4), voice(1)), Standing::Voice, "it knows what is not known here yet");
}

#[test]
fn who_has_lost_its_disk_again_speaks_for_itself() {
    let group = group(true, 1, to_node_4());
    assert_eq!(group.standing(n(4), voice(0)), Standing::Voice);
}

#[test]
fn strangers_are_not_even_answered() {
    let group = group(false, 0, None);
    assert_eq!(group.standing(n(4), voice(5)), Standing::Stranger);
    assert_eq!(group.standing(n(2), voice(0)), Standing::Stranger, "it stands in another place");
    let nowhere = Voice { replica: ReplicaIndex::new(7), generation: Op::ZERO };
    assert_eq!(group.standing(n(3), nowhere), Standing::Stranger);
}

#[test]
fn of_a_move_that_was_given_up_the_first_holder_stands_there() {
    let mut group = group(false, 0, None);
    group.placement.nodes[0] = n(4);
    group.placement.arrived[0] = Op::new(9);
    let back = Move { place: FIRST, from: n(4), to: n(1), since: Op::new(11), arrived: Op::ZERO };
    group.placement.moving = Some(back);
    group.look_who_is_seated();
    assert_eq!(holders(&group), [1, 2, 3].map(n));
}

#[test]
fn consumers_are_told_nothing_before_a_replica_that_began_anew_knows_as_much_as_before() {
    let mut group = group(true, 1, None);
    for (told, is_told) in [(0, true), (1, true), (2, false)] {
        group.told = Op::new(told);
        assert_eq!(
            (group.reader().is_some(), group.replica().is_some()),
            (is_told, true),
            "op{told} was told"
        );
    }
}

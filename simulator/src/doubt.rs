//! What a group that acknowledges from memory is promised to survive: unclean stops of a minority of its replicas, each of
//! which counts as stopped until it has recovered. With more the group waits for an operator, rightly: that is what a blackout
//! is there for ([`crate::scenario::Fault::Blackout`]).

use varve_protocol::client::{GroupStatus, NodeStatus};
use varve_protocol::id::{GroupId, NodeId};

use crate::actor::Placement;
use crate::fast::takes_part;

/// Those of `victims` that may be stopped now, one after the other, so that a majority of every group stays sound.
pub(crate) fn spared(
    victims: Vec<NodeId>,
    placement: &Placement,
    is_sound: impl Fn(NodeId, GroupId) -> bool,
) -> Vec<NodeId> {
    let mut stopped: Vec<NodeId> = Vec::new();
    for victim in victims {
        let is_lame = |member: NodeId, group: GroupId| {
            member == victim || stopped.contains(&member) || !is_sound(member, group)
        };
        let survives = |(group, members): &(GroupId, Vec<NodeId>)| {
            let lame = members.iter().filter(|member| is_lame(**member, *group)).count();
            !members.contains(&victim) || 2 * lame < members.len()
        };
        if placement.iter().all(survives) {
            stopped.push(victim);
        }
    }
    stopped
}

/// Whether a node says that its replica of a group is there and lacks nothing.
pub(crate) fn is_sound(status: &NodeStatus, group: GroupId) -> bool {
    let is_well = |replica: &GroupStatus| replica.group == group && takes_part(replica);
    status.groups.iter().any(is_well)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_stays() {
        let nodes = [1, 2, 3].map(NodeId::new).to_vec();
        let placement = vec![(GroupId::new(1), nodes.clone())];
        assert_eq!(spared(nodes.clone(), &placement, |_, _| true), nodes[..1]);
        assert_eq!(spared(nodes[..2].to_vec(), &placement, |node, _| node != nodes[2]), []);
        assert_eq!(
            spared(nodes.clone(), &placement, |node, _| node != nodes[2]),
            nodes[2..],
            "it is silent already"
        );
        assert_eq!(spared(nodes.clone(), &Vec::new(), |_, _| true), nodes);
    }
}

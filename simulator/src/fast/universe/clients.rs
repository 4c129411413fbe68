//! The clients of a universe: who they are, what they are told, and what they order.

use std::time::Duration;

use varve_protocol::id::{ClusterId, NodeId};

use super::{Event, Universe};
use crate::actor::balancer::Balancer;
use crate::actor::mover::Mover;
use crate::actor::operator::Operator;
use crate::actor::producer::Producer;
use crate::actor::raiser::Raiser;
use crate::actor::reader::Wanderer;
use crate::actor::rescuer::Rescuer;
use crate::actor::surveyor::Surveyor;
use crate::actor::tinkerer::Tinkerer;
use crate::actor::{Actor, Happening, Orders};
use crate::fast::machine::Machine;
use crate::oracle::Violation;
use crate::random::stream;
use crate::scenario::Scenario;
use crate::trace::Endpoint;

/// A client and its timer.
pub(crate) struct Client {
    pub(super) actor: Box<dyn Actor>,
    pub(super) armed: Option<Duration>,
}

impl<M: Machine> Universe<M> {
    /// Tells a client what happened and carries out what it orders.
    pub(super) fn tell(&mut self, client: u32, happening: Happening) -> Result<(), Violation> {
        if let Happening::Lost(node) = &happening {
            self.oracle.disconnected(client, *node);
        }
        let mut orders = Orders::new(self.heap.now(), client, &mut self.oracle);
        let actor = &mut self.clients[client as usize].actor;
        actor.handle(happening, &mut orders)?;
        self.statistics.add_orders(&orders);
        let Orders { frames, wake_at, .. } = orders;
        for (node, frame) in frames {
            let ends = (Endpoint::Client(client), Endpoint::Node(node));
            let lane = frame.header.group.as_raw();
            self.wire.send(ends, lane, frame, &mut self.heap);
        }
        if let Some(at) = wake_at {
            self.arm_client(client, at);
        }
        self.advance()
    }

    pub(super) fn arm_client(&mut self, client: u32, at: Duration) {
        let at = at.max(self.heap.now());
        let armed = &mut self.clients[client as usize].armed;
        if armed.is_none_or(|armed| at < armed) {
            *armed = Some(at);
            self.heap.push(at, Event::Wake(client, at));
        }
    }

    pub(super) fn tell_all(&mut self, happening: &Happening) -> Result<(), Violation> {
        for client in 0..u32::try_from(self.clients.len()).expect("there are few clients") {
            self.tell(client, happening.clone())?;
        }
        Ok(())
    }
}

/// The clients of a scenario: the operator, the producers, the readers, the surveyor, and others.
pub(super) fn clients(scenario: &Scenario, cluster: ClusterId) -> Vec<Client> {
    let nodes: Vec<NodeId> = scenario.node_ids().collect();
    let load = &scenario.load;
    let mut actors: Vec<Box<dyn Actor>> = vec![Box::new(Operator::new(cluster, scenario))];
    for index in 0..load.producers + load.amnesiacs {
        let client = u32::try_from(actors.len()).expect("there are few clients");
        let rng = stream(scenario.seed, &format!("producer {index}"));
        let cluster = (cluster, nodes.clone());
        actors.push(if index < load.producers {
            Box::new(Producer::new(client, cluster, load.clone(), rng))
        } else {
            Box::new(Producer::without_session(client, cluster, load.clone(), rng))
        });
    }
    for index in 0..load.readers {
        let rng = stream(scenario.seed, &format!("reader {index}"));
        actors.push(Box::new(Wanderer::new(cluster, rng)));
    }
    if load.tinkers {
        let rng = stream(scenario.seed, "tinkerer");
        actors.push(Box::new(Tinkerer::new(cluster, nodes, scenario.replication_factor, rng)));
    }
    if load.balances {
        let rng = stream(scenario.seed, "balancer");
        actors.push(Box::new(Balancer::new(
            cluster,
            scenario.node_ids().collect(),
            scenario.partitions,
            rng,
        )));
    }
    if load.moves {
        let rng = stream(scenario.seed, "mover");
        actors.push(Box::new(Mover::new(cluster, scenario.node_ids().collect(), rng)));
    }
    if !scenario.rollouts.is_empty() {
        let rng = stream(scenario.seed, "raiser");
        actors.push(Box::new(Raiser::new(
            cluster,
            scenario.node_ids().collect(),
            scenario.is_upgraded(),
            rng,
        )));
    }
    actors.push(Box::new(Surveyor::new(cluster, stream(scenario.seed, "surveyor"))));
    if scenario.has_rescuer() {
        actors.push(Box::new(Rescuer::new(cluster, scenario.node_ids().collect(), scenario.reaction())));
    }
    actors.into_iter().map(|actor| Client { actor, armed: None }).collect()
}

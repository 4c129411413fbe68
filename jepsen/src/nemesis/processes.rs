//! What is done to processes: killed, stopped in order, paused, and started again one after the other.

use std::time::Duration;

use super::{BUSY, Fault, Needs, Struck};
use crate::recorder::Phase;

/// How long a rolling restart waits for a node before it goes on with the next.
const NODE_WELL_WITHIN: Duration = Duration::from_secs(15);

impl Fault {
    pub(super) async fn kill(&mut self) -> Struck {
        let nodes = self.some_nodes();
        let needs = Needs { nodes: nodes.clone(), ..Needs::default() };
        let Some(_hold) = self.nemesis.take(needs) else { return Ok(Err(BUSY.to_owned())) };
        self.note(Phase::Begin, format!("kill -9 of nodes {nodes:?}"));
        for node in &nodes {
            self.cluster().kill(*node).await?;
        }
        self.last().await;
        for node in &nodes {
            self.cluster().start(*node).await?;
        }
        self.note(Phase::End, format!("nodes {nodes:?} were started again"));
        Ok(Ok(()))
    }

    pub(super) async fn stop(&mut self) -> Struck {
        let nodes = self.some_nodes();
        let needs = Needs { nodes: nodes.clone(), ..Needs::default() };
        let Some(_hold) = self.nemesis.take(needs) else { return Ok(Err(BUSY.to_owned())) };
        self.note(Phase::Begin, format!("graceful stop of nodes {nodes:?}"));
        for node in &nodes {
            self.cluster().stop(*node).await?;
        }
        self.last().await;
        for node in &nodes {
            self.cluster().start(*node).await?;
        }
        self.note(Phase::End, format!("nodes {nodes:?} were started again"));
        Ok(Ok(()))
    }

    pub(super) async fn pause(&mut self) -> Struck {
        let nodes = self.some_nodes();
        let needs = Needs { nodes: nodes.clone(), ..Needs::default() };
        let Some(_hold) = self.nemesis.take(needs) else { return Ok(Err(BUSY.to_owned())) };
        self.note(Phase::Begin, format!("nodes {nodes:?} were paused"));
        for node in &nodes {
            self.cluster().pause(*node).await?;
        }
        self.last().await;
        for node in &nodes {
            self.cluster().resume(*node).await?;
        }
        self.note(Phase::End, format!("nodes {nodes:?} go on"));
        Ok(Ok(()))
    }

    pub(super) async fn rolling(&mut self) -> Struck {
        let nodes: std::collections::BTreeSet<u8> = self.cluster().ids().collect();
        let needs = Needs { nodes: nodes.clone(), ..Needs::default() };
        let Some(_hold) = self.nemesis.take(needs) else { return Ok(Err(BUSY.to_owned())) };
        self.note(Phase::Begin, "one node after the other is drained, stopped and started again");
        for node in nodes {
            // It may be refused: nobody else may be able to lead at the moment. Then it is stopped all the same.
            let id = node.to_string();
            let _ = self.cluster().varve_on_cluster(&["cluster", "drain", &id], NODE_WELL_WITHIN).await;
            self.cluster().stop(node).await?;
            self.cluster().start(node).await?;
            let well = |status: &crate::cluster::Status| status.is_node_well(node);
            if let Err(complaints) = self.cluster().wait_until(NODE_WELL_WITHIN, well).await {
                self.note(Phase::Note, format!("node {node} is not well yet, going on: {complaints}"));
            }
            if *self.nemesis.over.borrow() {
                break;
            }
        }
        self.note(Phase::End, "all nodes were restarted, or the time was over");
        Ok(Ok(()))
    }
}

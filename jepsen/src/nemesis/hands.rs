//! What operators do by hand: another node shall lead, another node shall hold a replica.

use std::time::Duration;

use rand::seq::{IndexedRandom as _, IteratorRandom as _};

use super::{Fault, Struck};
use crate::recorder::Phase;

/// How long a command may take. One that is given up is no fault: the cluster may be broken in other ways at the time.
const TRANSFER_WITHIN: Duration = Duration::from_secs(12);
const MOVE_WITHIN: Duration = Duration::from_secs(20);

impl Fault {
    pub(super) async fn transfer(&mut self) -> Struck {
        let Some(status) = self.cluster().status() else {
            return Ok(Err("the cluster is not reached".to_owned()));
        };
        let Some(group) = status.groups.choose(&mut self.rng) else { return Ok(Err("no groups".to_owned())) };
        let others = group.working.iter().filter(|node| Some(**node) != group.primary);
        let Some(to) = others.choose(&mut self.rng) else {
            return Ok(Err(format!("nobody else works in {}", group.name)));
        };
        let arguments = ["cluster", "transfer", &group.name, "--to", &to.to_string()];
        self.carry_out(&arguments, TRANSFER_WITHIN).await
    }

    pub(super) async fn move_replica(&mut self) -> Struck {
        let Some(status) = self.cluster().status() else {
            return Ok(Err("the cluster is not reached".to_owned()));
        };
        // All nodes hold the metadata, which cannot be moved.
        let Some(group) = status.groups.iter().skip(1).choose(&mut self.rng) else {
            return Ok(Err("no partitions".to_owned()));
        };
        let from = group.replicas.choose(&mut self.rng);
        let to = self.cluster().ids().filter(|node| !group.replicas.contains(node)).choose(&mut self.rng);
        let (Some(from), Some(to)) = (from, to) else {
            return Ok(Err(format!("all nodes hold {} already", group.name)));
        };
        let (from, to) = (from.to_string(), to.to_string());
        let arguments = ["cluster", "move", &group.name, "--from", &from, "--to", &to];
        self.carry_out(&arguments, MOVE_WITHIN).await
    }

    async fn carry_out(&self, arguments: &[&str], limit: Duration) -> Struck {
        self.note(Phase::Begin, format!("varve {}", arguments.join(" ")));
        match self.cluster().varve_on_cluster(arguments, limit).await {
            Ok(said) if said.code == Some(0) => {
                self.note(Phase::End, "done");
                Ok(Ok(()))
            }
            Ok(said) => {
                self.note(Phase::End, format!("refused: {}", said.stderr));
                Ok(Err(format!("refused: {}", said.stderr)))
            }
            Err(error) => {
                self.note(Phase::End, format!("{error}; it may go on"));
                Ok(Ok(()))
            }
        }
    }
}

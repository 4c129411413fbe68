//! Rolling upgrades: which node is started with which release, from when on.
//!
//! A node runs the release that it was started with until it stops, for whatever reason. So a change of it takes effect when
//! a strike stops the node; the schedule has one for each. Some universes begin with the next release everywhere, some nodes never
//! get it, and some go back and forth until nobody does any more.

use std::time::Duration;

use rand::Rng;
use serde::{Deserialize, Serialize};
use varve_protocol::durability::Durability;
use varve_protocol::id::NodeId;
use varve_protocol::version::Versions;

use super::fault::{Fault, Strike, Victim};
use super::profile::Kind;
use super::{Scenario, format};
use crate::random::{chance, duration_between, pick, stream};

/// Universes in which there are two releases, in a thousand.
const UPGRADES_PERMILLE: u32 = 250;

/// Nodes that never get the next release, in a thousand, in universes that have such nodes.
const STAYING_PERMILLE: u32 = 300;

/// A release.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Release {
    /// This one.
    This,
    /// One that knows a version more.
    Next,
}

impl Release {
    /// What it knows.
    #[must_use]
    pub fn versions(self) -> Versions {
        match self {
            Self::This => Versions::OF_THIS_RELEASE,
            Self::Next => Versions::OF_THE_NEXT_RELEASE,
        }
    }
}

/// From some moment on, whoever starts a node starts it with this release.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollout {
    /// When, since the start.
    #[serde(with = "format::time")]
    pub at: Duration,
    /// Which node.
    #[serde(with = "format::node")]
    pub node: NodeId,
    /// Which release.
    pub release: Release,
}

impl Scenario {
    /// The release that a node is started with at a moment.
    #[must_use]
    pub fn release_at(&self, at: Duration, node: NodeId) -> Release {
        let rollouts = self.rollouts.iter().filter(|rollout| rollout.node == node && rollout.at <= at);
        rollouts.max_by_key(|rollout| rollout.at).map_or(Release::This, |rollout| rollout.release)
    }

    /// Whether all nodes run the next release when the faults are over, and none is spared the stop that it takes or stays away.
    #[must_use]
    pub fn is_upgraded(&self) -> bool {
        self.durability == Durability::QuorumDisk
            && self.left_behind.is_empty()
            && self.node_ids().all(|node| self.release_at(self.safety, node) == Release::Next)
    }

    /// Whether a node has run the next release at some time until then, or could have.
    #[must_use]
    pub fn has_had_next(&self, until: Duration, node: NodeId) -> bool {
        let is_next = |rollout: &Rollout| rollout.node == node && rollout.release == Release::Next;
        self.rollouts.iter().any(|rollout| is_next(rollout) && rollout.at <= until)
    }

    /// Has nodes upgraded one after the other, in some universes. Drawn apart.
    pub(super) fn with_upgrades(mut self) -> Self {
        let rng = &mut stream(self.seed, "upgrades");
        if !chance(rng, self.profile.permille(Kind::Upgrades, UPGRADES_PERMILLE)) {
            return self;
        }
        let nodes: Vec<NodeId> = self.node_ids().collect();
        if chance(rng, 250) {
            let all = nodes.into_iter();
            let begin = |node| Rollout { at: Duration::ZERO, node, release: Release::Next };
            self.rollouts = all.map(begin).collect();
            return self;
        }
        let staying_permille = pick(rng, &[0, 0, 0, STAYING_PERMILLE]);
        let returns_max = if self.durability == Durability::QuorumDisk { pick(rng, &[0, 0, 2]) } else { 0 };
        let lasts_max = Duration::from_millis(pick(rng, &[30, 1_000]));
        for node in nodes {
            if chance(rng, staying_permille) {
                continue;
            }
            let changes = 1 + 2 * rng.random_range(0..=returns_max);
            let mut times: Vec<Duration> = (0..changes)
                .map(|_| duration_between(rng, Duration::from_millis(500), self.safety * 9 / 10))
                .collect();
            times.sort();
            for (place, at) in times.into_iter().enumerate() {
                let release = if place % 2 == 0 { Release::Next } else { Release::This };
                self.rollouts.push(Rollout { at, node, release });
                let lasts = duration_between(rng, Duration::from_millis(5), lasts_max);
                self.strikes.push(Strike { at, lasts, fault: Fault::Kill(Victim::Node(node)) });
            }
        }
        self.strikes.sort_by_key(|strike| strike.at);
        self
    }
}

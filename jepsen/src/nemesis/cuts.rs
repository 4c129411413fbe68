//! Network partitions: which ways between stations are cut, each direction by itself.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context as _;
use rand::Rng as _;
use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha8Rng;

use super::kind::Cut;
use super::{BUSY, Fault, Needs, Struck};
use crate::network::{HARNESS, Way};
use crate::recorder::Phase;

/// How long a flapping link is as it is.
const FLAP_MS: std::ops::Range<u64> = 100..1_500;

/// A partition: what is cut, and in words.
#[derive(Debug)]
struct Partition {
    ways: BTreeSet<Way>,
    words: String,
}

impl Fault {
    pub(super) async fn cut(&mut self, cut: Cut) -> Struck {
        let needs = Needs { network: true, ..Needs::default() };
        let Some(_hold) = self.nemesis.take(needs) else { return Ok(Err(BUSY.to_owned())) };
        let nodes: Vec<u8> = self.cluster().ids().collect();
        let victim = if cut == Cut::IsolatePrimary { self.some_primary() } else { Some(self.some_node()) };
        let Some(victim) = victim else { return Ok(Err("nobody leads the group that was drawn".to_owned())) };
        let partition = draw(cut, &nodes, victim, &mut self.rng);
        if partition.ways.is_empty() {
            return Ok(Err("so few nodes all hear each other all the same".to_owned()));
        }
        let cluster = self.nemesis.cluster.clone();
        let network = cluster.network.faulty().context("links can only be cut between namespaces")?;
        self.note(Phase::Begin, partition.words.clone());
        network.cut(&partition.ways).await?;
        if cut == Cut::Flapping {
            let start = tokio::time::Instant::now();
            let mut is_cut = true;
            while start.elapsed() < Duration::from_millis(self.planned.lasts_ms)
                && !*self.nemesis.over.borrow()
            {
                self.nemesis.wait(Duration::from_millis(self.rng.random_range(FLAP_MS))).await;
                is_cut = !is_cut;
                network.cut(if is_cut { &partition.ways } else { const { &BTreeSet::new() } }).await?;
            }
        } else {
            self.last().await;
        }
        network.cut(&BTreeSet::new()).await?;
        self.note(Phase::End, "all links are whole");
        Ok(Ok(()))
    }
}

/// Both ways between each of these and each of those.
fn between(these: &[u8], those: &[u8]) -> BTreeSet<Way> {
    let pairs = these.iter().flat_map(|one| those.iter().map(move |other| (*one, *other)));
    pairs.flat_map(|(one, other)| [(one, other), (other, one)]).filter(|(one, other)| one != other).collect()
}

fn draw(cut: Cut, nodes: &[u8], victim: u8, rng: &mut ChaCha8Rng) -> Partition {
    let mut order = nodes.to_vec();
    order.shuffle(rng);
    let others: Vec<u8> = nodes.iter().copied().filter(|node| *node != victim).collect();
    let minority = nodes.len().saturating_sub(1) / 2;
    match cut {
        Cut::Halves => {
            let (few, many) = order.split_at(minority);
            // Sometimes the harness, with all its clients, is on the side of the few.
            let mut ways = between(few, many);
            let side = if rng.random() { few } else { many };
            let with_clients = rng.random_ratio(1, 3);
            if with_clients {
                ways.extend(between(&[HARNESS], side));
            }
            let clients =
                if with_clients { format!("; clients do not reach {side:?}") } else { String::new() };
            Partition { ways, words: format!("{few:?} and {many:?} do not hear each other{clients}") }
        }
        Cut::Bridge => {
            let (few, many) = order.split_at(minority);
            let (bridge, many) = many.split_at(1);
            let words = format!("{few:?} and {many:?} do not hear each other, node {} hears all", bridge[0]);
            Partition { ways: between(few, many), words }
        }
        Cut::Ring => {
            let count = order.len();
            // As many neighbours on each side as make a majority with the node itself.
            let reach = (count / 2).div_ceil(2);
            let far = |one: usize, other: usize| {
                let distance = one.abs_diff(other);
                distance.min(count - distance) > reach
            };
            let mut ways = BTreeSet::new();
            for one in 0..count {
                for other in (0..count).filter(|other| far(one, *other)) {
                    ways.extend(between(&[order[one]], &[order[other]]));
                }
            }
            Partition { ways, words: format!("each node hears its neighbours in the ring {order:?} only") }
        }
        Cut::OneWay => {
            let is_deaf: bool = rng.random();
            let ways = others.iter().map(|other| if is_deaf { (*other, victim) } else { (victim, *other) });
            let words = if is_deaf { "hears no other" } else { "is heard by no other" };
            Partition { ways: ways.collect(), words: format!("node {victim} {words}") }
        }
        Cut::IsolateOne | Cut::IsolatePrimary | Cut::Flapping => {
            let mut ways = between(&[victim], &others);
            let with_clients: bool = rng.random();
            if with_clients {
                ways.extend(between(&[victim], &[HARNESS]));
            }
            let words = if with_clients { "nobody, clients neither" } else { "no other node, but clients" };
            Partition { ways, words: format!("node {victim} hears {words}") }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    const FIVE: [u8; 5] = [1, 2, 3, 4, 5];

    fn cut(kind: Cut) -> BTreeSet<Way> {
        draw(kind, &FIVE, 2, &mut ChaCha8Rng::seed_from_u64(7)).ways
    }

    /// How many others each node hears in both directions.
    fn hears(ways: &BTreeSet<Way>) -> Vec<usize> {
        let open = |one: u8, other: u8| !ways.contains(&(one, other)) && !ways.contains(&(other, one));
        FIVE.map(|one| FIVE.iter().filter(|other| **other != one && open(one, **other)).count()).into()
    }

    #[test]
    fn cuts_are_what_they_are_called() {
        assert_eq!(hears(&cut(Cut::IsolateOne)), [3, 0, 3, 3, 3]);
        assert_eq!(hears(&cut(Cut::Ring)), [2, 2, 2, 2, 2], "each hears a majority with itself");
        let mut halves = hears(&cut(Cut::Halves));
        halves.sort_unstable();
        assert_eq!(halves, [1, 1, 2, 2, 2]);
        let mut bridge = hears(&cut(Cut::Bridge));
        bridge.sort_unstable();
        assert_eq!(bridge, [2, 2, 2, 2, 4]);
    }

    #[test]
    fn one_way_is_one_way() {
        let ways = cut(Cut::OneWay);
        assert_eq!(ways.len(), 4);
        assert!(ways.iter().all(|(from, to)| (*from == 2) != (*to == 2)));
        assert!(ways.iter().all(|(from, to)| !ways.contains(&(*to, *from))));
    }

    #[test]
    fn three_nodes_are_cut_as_well() {
        for kind in [Cut::Halves, Cut::Bridge, Cut::IsolatePrimary, Cut::OneWay] {
            let ways = draw(kind, &[1, 2, 3], 3, &mut ChaCha8Rng::seed_from_u64(1)).ways;
            assert!(!ways.is_empty(), "{kind:?}");
        }
    }
}

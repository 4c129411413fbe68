//! How things take their course: what is under way arrives, or is lost, until nothing is.

use super::*;

impl Cluster {
    /// Delivers the oldest message `from` one node `to` another.
    pub(crate) fn pass(&mut self, from: usize, to: usize) {
        let place = self.network.iter().position(|sent| sent.from == from && sent.to == to);
        self.deliver(place.unwrap_or_else(|| panic!("no message is under way from {from} to {to}")));
    }

    /// Loses everything under way `from` one node `to` another.
    pub(crate) fn lose(&mut self, from: usize, to: usize) {
        while let Some(place) = self.network.iter().position(|sent| sent.from == from && sent.to == to) {
            self.drop(place);
        }
    }

    pub(crate) fn sync(&mut self, node: usize) {
        while self.complete_job(node) {}
    }

    /// Delivers and syncs until nothing is under way but messages to or from the nodes `without`, which are lost.
    pub(crate) fn settle_without(&mut self, without: &[usize]) {
        self.settle_until(without, |_| false);
    }

    /// The same, but stops as soon as `is_enough`.
    pub(crate) fn settle_until(&mut self, without: &[usize], is_enough: impl Fn(&Self) -> bool) {
        for _ in 0..100_000 {
            if is_enough(self) {
                return;
            }
            if let Some(sent) = self.network.first() {
                if without.contains(&sent.from) || without.contains(&sent.to) {
                    self.network.remove(0);
                } else {
                    self.deliver(0);
                }
            } else {
                let nodes = (0..self.count()).filter(|node| !without.contains(node));
                let completed = nodes.filter(|node| self.complete_job(*node)).count();
                if completed == 0 {
                    return;
                }
            }
        }
        panic!("the group never comes to rest");
    }

    pub(crate) fn settle(&mut self) {
        self.settle_without(&[]);
    }

    /// Something is committed behind the entries by which replicas leave, so that they are not needed any more.
    fn let_leavers_go(&mut self) {
        let is_leaving = |node| self.is_here(node) && self.has_left(node);
        if (0..self.count()).any(is_leaving) {
            self.newest_primary().map(|primary| self.request(primary));
        }
    }

    /// Everybody is up, the network is whole, time passes: the group must come back by itself.
    pub(crate) fn heal(&mut self) {
        for node in 0..self.count() {
            self.restart(node);
            self.go(node);
        }
        for _ in 0..400 {
            for node in 0..self.count() {
                let is_led = |replica: &Replica| {
                    self.oracle.members.contains(&usize::from(replica.primary().as_raw()))
                };
                let is_led = self.nodes[node].replica.as_ref().is_some_and(is_led);
                let liveness = if is_led { Liveness::Heard } else { Liveness::Suspected };
                self.step(node, Input::PrimaryLiveness(liveness));
                self.pulse(node);
                self.go(node);
            }
            self.settle();
            self.let_leavers_go();
            if self.is_whole() {
                return;
            }
            self.elapse(Duration::from_millis(20));
        }
        let states: Vec<_> = (0..self.count()).map(|node| self.state(node)).collect();
        panic!("the group does not come back: {states:#?}");
    }
}

//! Processes that are frozen: nothing of them happens, and then they go on.

use super::*;
use crate::entropy::with_seed;
use crate::quic::nemesis::find;
use crate::scenario::{Fault, Profile, Strike, Victim, World as Which};
use crate::trace::Event;
use varve_protocol::mark::Mark;

/// When the first fault begins.
const FROM: Duration = Duration::from_secs(3);

/// The primary of the only partition.
const PRIMARY: Victim = Victim::Primary(1);

/// Three nodes with one partition, whom nothing befalls but these faults: from when on, for how long.
fn scenario(faults: &[(Duration, Duration, Fault)]) -> Scenario {
    let mut scenario = Scenario::draw_as(Profile::Calm, 1, Which::Quic);
    (scenario.nodes, scenario.replication_factor, scenario.partitions) = (3, 3, 1);
    scenario.safety = Duration::from_secs(6);
    (scenario.load.moves, scenario.load.balances) = (false, false);
    scenario.strikes =
        faults.iter().map(|(at, lasts, fault)| Strike { at: *at, lasts: *lasts, fault: *fault }).collect();
    scenario
}

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// What a node has done.
#[derive(PartialEq, Eq, Debug)]
struct Deeds {
    packets_sent: usize,
    disk_calls: u64,
    /// What all producers were told of their appends.
    acked: u64,
}

impl World<'_> {
    /// Plays until then, and says what the node did meanwhile.
    fn play_until(&mut self, until: Duration, node: NodeId) -> Deeds {
        let disk_calls = |world: &Self| world.hosts[&node].disk().calls();
        let acked = |world: &Self| world.board.lock().oracle.tally().acked;
        let (calls_before, acked_before) = (disk_calls(self), acked(self));
        let mut packets_sent = 0;
        while self.sim.elapsed() < until {
            let before = self.sim.elapsed();
            assert_eq!(self.turn(), Ok(false), "it goes on");
            let is_sent = |at: Duration, event: &Event| {
                let Event::Packet { from, .. } = event else { return false };
                at >= before && *from == Endpoint::Node(node)
            };
            let last = self.board.lock().trace.last();
            packets_sent += last.iter().filter(|(at, event)| is_sent(*at, event)).count();
        }
        let (disk_calls, acked) = (disk_calls(self) - calls_before, acked(self) - acked_before);
        Deeds { packets_sent, disk_calls, acked }
    }
}

#[test]
fn nothing_of_a_frozen_primary_happens_until_it_goes_on() {
    with_seed(1, || {
        let pause = Fault::Pause(PRIMARY);
        let mut world = World::new(scenario(&[(FROM, millis(1_500), pause)]), Printing::Off);
        world.play_until(FROM - millis(500), NodeId::new(1));
        let victim = find(PRIMARY, &world.board);
        let before = world.play_until(FROM, victim);
        assert!(before.packets_sent > 0 && before.disk_calls > 0 && before.acked > 0, "{before:?}");
        // What it has sent already is on its way.
        world.play_until(FROM + millis(2), victim);
        let frozen = world.play_until(FROM + millis(1_499), victim);
        assert_eq!((frozen.packets_sent, frozen.disk_calls), (0, 0), "{victim}");
        assert!(frozen.acked > 0, "the others go on");
        let after = world.play_until(FROM + millis(1_550), victim);
        assert!(after.packets_sent > 0 && after.disk_calls > 0, "{after:?}");
        let report = world.run();
        assert_eq!((report.verdict, report.statistics.pauses), (Verdict::Pass, 1));
        assert!(report.marks.of(Mark::PauseNoticed) > 0, "it knows that the silence was its own");
    });
}

#[test]
fn a_process_is_frozen_until_the_last_pause_of_it_is_over() {
    with_seed(1, || {
        let node = NodeId::new(2);
        let pause = Fault::Pause(Victim::Node(node));
        let faults = [(FROM, millis(500), pause), (FROM + millis(300), millis(500), pause)];
        let mut world = World::new(scenario(&faults), Printing::Off);
        world.play_until(FROM + millis(2), node);
        assert_eq!(world.play_until(FROM + millis(799), node).packets_sent, 0);
        assert!(world.play_until(FROM + millis(820), node).packets_sent > 0);
        let report = world.run();
        assert_eq!((report.verdict, report.statistics.pauses), (Verdict::Pass, 2));
    });
}

#[test]
fn a_process_that_starts_after_a_frozen_one_was_killed_is_not_frozen() {
    with_seed(1, || {
        let node = NodeId::new(2);
        let faults = [
            (FROM, millis(2_000), Fault::Pause(Victim::Node(node))),
            (FROM + millis(300), millis(200), Fault::Kill(Victim::Node(node))),
        ];
        let mut world = World::new(scenario(&faults), Printing::Off);
        world.play_until(FROM + millis(2), node);
        assert_eq!(world.play_until(FROM + millis(499), node).packets_sent, 0);
        assert!(world.play_until(FROM + millis(600), node).packets_sent > 0);
        let report = world.run();
        assert_eq!((report.verdict, report.statistics.crashes), (Verdict::Pass, 1));
    });
}

#[test]
fn the_heal_ends_a_pause() {
    with_seed(1, || {
        let faults = [(FROM, Duration::from_secs(3600), Fault::Pause(PRIMARY))];
        let report = World::new(scenario(&faults), Printing::Off).run();
        assert_eq!((report.verdict, report.statistics.pauses), (Verdict::Pass, 1));
    });
}

//! A universe that is drawn is the same as one that is not, and the page says what was there to see.

use std::time::Duration;

use simulator::fast::chronicle::{Chronicle, Process};
use simulator::fast::{run, run_with_chronicle};
use simulator::report::Report;
use simulator::scenario::{Fault, Scenario, Strike, Victim, World};
use simulator::trace::Printing;
use simulator::visualize::page;
use varve_protocol::client::Role;
use varve_protocol::id::{GroupId, NodeId};

/// Three nodes; the second is stopped from 3 s to 4 s, the third frozen from 5 s to 6 s.
fn calm_but_for_two_faults() -> Scenario {
    let seeds = (0..).map(|seed| Scenario::draw(seed, World::Fast));
    let is_plain = |scenario: &Scenario| scenario.nodes == 3 && scenario.replication_factor == 3;
    let mut scenario = seeds.into_iter().find(is_plain).expect("most clusters have three nodes");
    let strike =
        |at: u64, fault| Strike { at: Duration::from_secs(at), lasts: Duration::from_secs(1), fault };
    let victim = |node| Victim::Node(NodeId::new(node));
    scenario.left_behind.clear();
    scenario.rot.crashes_permille = 0;
    scenario.strikes = vec![strike(3, Fault::Crash(victim(2))), strike(5, Fault::Pause(victim(3)))];
    scenario.safety = Duration::from_secs(8);
    scenario
}

#[test]
fn looking_changes_nothing() {
    for seed in 0..6 {
        let scenario = Scenario::draw(seed, World::Fast);
        let (watched, chronicle) = run_with_chronicle(scenario.clone());
        assert_eq!(watched, run(scenario, Printing::Off), "seed {seed}");
        assert!(!chronicle.replicas.is_empty() && !chronicle.notes.is_empty());
    }
}

#[test]
fn a_chronicle_knows_who_was_down_and_who_led() {
    let (_, chronicle) = run_with_chronicle(calm_but_for_two_faults());
    let at = |node: u8, process: Process, second: f64| {
        let changes = &chronicle.processes[&NodeId::new(node)];
        let moment = Duration::from_secs_f64(second);
        changes.iter().rev().find(|(from, _)| *from <= moment).is_some_and(|(_, was)| *was == process)
    };
    assert!(at(2, Process::Running, 2.9) && at(2, Process::Down, 3.5) && at(2, Process::Running, 4.5));
    assert!(at(3, Process::Running, 4.9) && at(3, Process::Frozen, 5.5) && at(3, Process::Running, 6.5));
    let leads = |node: u8| {
        let shown = &chronicle.replicas[&(NodeId::new(node), GroupId::METADATA)];
        shown.iter().any(|(_, shown)| matches!(shown, Some((Role::Primary, _))))
    };
    assert!((1..=3).any(leads), "somebody led the metadata");
    let newest = |node: u8| chronicle.commits[&(NodeId::new(node), GroupId::METADATA)].last().copied();
    assert!(newest(1).is_some_and(|(_, op)| op > 3), "the cluster was founded: {:?}", newest(1));
}

fn count(page: &str, what: &str) -> usize {
    page.matches(what).count()
}

#[test]
fn the_page_shows_every_fault_and_needs_nothing_from_elsewhere() {
    let scenario = calm_but_for_two_faults();
    let (report, chronicle) = run_with_chronicle(scenario.clone());
    let drawn = page(&scenario, &report, &chronicle);
    let image = &drawn[drawn.find("<div class=\"scroll\">").expect("there is an image")..];
    assert_eq!(count(image, "<rect class=\"fault\""), 2);
    let labels = &image[image.find("<svg class=\"labels\"").expect("the lanes have names")..];
    let labels = &labels[..labels.find("</svg>").expect("they end")];
    assert!(labels.contains(">n2 g0</text>"), "they stay when the image is scrolled");
    for node in ["n1", "n2", "n3"] {
        assert!(drawn.contains(&format!("commit of {node}")), "the key explains the line of {node}");
    }
    assert!(count(image, "<rect class=\"down\"") >= 1 && count(image, "<rect class=\"frozen\"") == 1);
    assert!(count(image, "<rect class=\"primary\"") >= 2 && count(image, "<polyline") >= 6);
    for tag in ["svg", "rect", "text", "title", "polyline", "details", "pre"] {
        let closed = count(&drawn, &format!("</{tag}>")) + count(&drawn, "/>") * usize::from(tag == "rect");
        assert!(closed >= count(&drawn, &format!("<{tag} ")), "{tag} is closed");
    }
    assert_eq!(count(&drawn, "http"), count(&drawn, "xmlns=\"http://www.w3.org/2000/svg\""));
    assert_eq!(count(&drawn, "<script") + count(&drawn, "<link") + count(&drawn, "src="), 0);
}

/// Words of a universe that look like markup stay words.
#[test]
fn what_was_said_is_no_markup() {
    let scenario = calm_but_for_two_faults();
    let report = Report { last: Vec::new(), ..run(scenario.clone(), Printing::Off) };
    let note = "a <b> & a \"c\"".to_owned();
    let chronicle = Chronicle { notes: vec![(Duration::ZERO, note)], ..Chronicle::default() };
    let drawn = page(&scenario, &report, &chronicle);
    assert!(drawn.contains("a &lt;b&gt; &amp; a &quot;c&quot;"), "{drawn}");
    assert!(!drawn.contains("<b>"));
}

//! Tables of single cases, then every world of a small size: whatever a quorum may have committed is in the merged log.

use varve_protocol::id::{ClusterId, Epoch, GroupId, Offset, ProducerId, RequestNumber, Timestamp};
use varve_protocol::prepare::{PrepareFields, PrepareKind};
use varve_protocol::replacement::Generations;
use varve_protocol::version::Version;

use super::*;
use crate::quorum::quorum;

fn child(parent: PrepareId, view: u64) -> PrepareHeader {
    let fields = PrepareFields {
        version: Version::FIRST,
        cluster: ClusterId::new(1),
        group: GroupId::new(1),
        view: View::new(view),
        parent,
        epoch: Epoch::ZERO,
        kind: PrepareKind::Noop,
        base_offset: Offset::ZERO,
        record_count: 0,
        timestamp: Timestamp::new(parent.op.as_raw() + 1),
        producer: ProducerId::ZERO,
        request: RequestNumber::ZERO,
    };
    PrepareHeader::seal(fields, b"")
}

/// A chain whose entries were prepared in these views.
fn chain(views: &[u64]) -> Vec<PrepareHeader> {
    let mut headers: Vec<PrepareHeader> = Vec::new();
    for view in views {
        let parent = headers.last().map_or(PrepareId::ROOT, PrepareHeader::id);
        headers.push(child(parent, *view));
    }
    headers
}

/// A tale: log view, commit, the log, and the ops that are damaged.
fn told(log_view: u64, commit: usize, log: &[PrepareHeader], damaged: &[usize]) -> Told {
    let slot = |(index, header): (usize, &PrepareHeader)| {
        if damaged.contains(&(index + 1)) {
            SuffixSlot::CannotTell(header.op())
        } else {
            SuffixSlot::Has(*header)
        }
    };
    let id = if commit == 0 { PrepareId::ROOT } else { log[commit - 1].id() };
    let first = commit.max(1) - 1;
    Told {
        log_view: View::new(log_view),
        commit: id,
        head: Op::new(log.len() as u64),
        generations: Generations::default(),
        suffix: log.iter().enumerate().skip(first).map(slot).collect(),
    }
}

fn merged(replica_count: u8, tales: &[Told]) -> Option<Vec<PrepareHeader>> {
    let tales = (0..).map(ReplicaIndex::new).zip(tales.iter().cloned()).collect();
    match merge(replica_count, &tales) {
        Merge::Decided(merged) => {
            Some(merged.headers.into_iter().filter(|header| header.op() > merged.commit.op).collect())
        }
        Merge::Undecided => None,
    }
}

#[test]
fn less_than_a_quorum_decides_nothing() {
    assert_eq!(merged(3, &[told(0, 0, &[], &[])]), None);
    assert_eq!(merged(5, &[told(0, 0, &[], &[]), told(0, 0, &[], &[])]), None);
}

#[test]
fn the_largest_log_view_wins_over_the_longest_log() {
    let (long, short) = (chain(&[1, 1, 1, 1]), chain(&[1, 1, 2]));
    assert_eq!(merged(3, &[told(1, 0, &long, &[]), told(2, 0, &short, &[])]), Some(short));
}

#[test]
fn among_equal_log_views_the_longest_log_is_kept() {
    let log = chain(&[1, 1, 1]);
    assert_eq!(merged(3, &[told(1, 1, &log[..2], &[]), told(1, 0, &log, &[])]), Some(log[1..].to_vec()));
}

#[test]
fn a_damaged_slot_is_filled_from_whoever_has_the_prepare() {
    let log = chain(&[1, 1, 1]);
    let tales = [told(2, 0, &log, &[2]), told(1, 0, &log[..2], &[])];
    assert_eq!(merged(3, &tales), Some(log));
}

#[test]
fn a_damaged_slot_that_nobody_fills_is_undecided_until_enough_lack_it() {
    let log = chain(&[1, 1, 1]);
    let damaged = told(1, 0, &log, &[3]);
    let lacking = told(1, 0, &log[..2], &[]);
    assert_eq!(merged(3, &[damaged.clone(), lacking.clone()]), None);
    assert_eq!(merged(3, &[damaged, lacking.clone(), lacking]), Some(log[..2].to_vec()));
}

#[test]
fn a_hole_below_a_known_child_ends_the_log_if_enough_lack_it() {
    let log = chain(&[1, 1, 1]);
    let damaged = told(1, 0, &log, &[2]);
    let lacking = told(1, 0, &log[..1], &[]);
    assert_eq!(merged(3, &[damaged.clone(), lacking.clone()]), None);
    assert_eq!(merged(3, &[damaged, lacking.clone(), lacking]), Some(log[..1].to_vec()));
}

#[test]
fn another_prepare_in_its_place_does_not_prove_that_an_unnamed_one_is_lacked() {
    let (newer, older) = (chain(&[1, 2]), chain(&[1, 1]));
    let damaged = told(2, 0, &newer, &[2]);
    let other = told(1, 0, &older, &[]);
    assert_eq!(merged(3, &[damaged, other.clone(), other]), None);
}

#[test]
fn the_anchor_is_told_with_the_merged_log() {
    let log = chain(&[1, 1, 1]);
    let tales = BTreeMap::from([
        (ReplicaIndex::new(0), told(1, 2, &log, &[])),
        (ReplicaIndex::new(2), told(1, 1, &log[..2], &[])),
    ]);
    let Merge::Decided(merged) = merge(3, &tales) else { panic!("nothing is damaged") };
    assert_eq!(merged.commit, log[1].id());
    assert_eq!(merged.headers, log[1..]);
    assert_eq!(merged.head(), log[2].id());
}

#[test]
fn tales_that_do_not_fit_themselves_are_unsound() {
    let log = chain(&[1, 1, 1]);
    assert!(told(1, 1, &log, &[2]).is_sound());
    assert!(told(1, 0, &[], &[]).is_sound());
    let mut gap = told(1, 1, &log, &[]);
    gap.suffix.remove(1);
    assert!(!gap.is_sound());
    let mut short = told(1, 1, &log, &[]);
    short.head = Op::new(4);
    assert!(!short.is_sound());
    let mut stranger = told(1, 1, &log, &[]);
    stranger.suffix[1] = SuffixSlot::Has(child(log[2].id().max(log[0].id()), 7));
    assert!(!stranger.is_sound());
}

/// What one replica may hold in a small world.
#[derive(Clone)]
struct Holding {
    log_view: u64,
    log: Vec<PrepareHeader>,
    damaged: Vec<usize>,
}

/// All that one replica may hold if view 1 prepared `old` and view 2 started with `prefix` of it and went on as `new`.
fn holdings(old: &[PrepareHeader], new: &[PrepareHeader], prefix: usize, with_damage: bool) -> Vec<Holding> {
    let of_old = (0..=old.len()).map(|head| (1, old[..head].to_vec()));
    let of_new = (prefix..=new.len()).map(|head| (2, new[..head].to_vec()));
    let damages = |head: usize| if with_damage { 1_usize << head } else { 1 };
    of_old
        .chain(of_new)
        .flat_map(|(log_view, log)| {
            (0..damages(log.len())).map(move |mask| {
                let damaged = (1..=log.len()).filter(|op| mask >> (op - 1) & 1 == 1).collect();
                Holding { log_view, log: log.clone(), damaged }
            })
        })
        .collect()
}

fn copies(world: &[&Holding], header: &PrepareHeader) -> usize {
    world.iter().filter(|one| one.log.contains(header)).count()
}

/// Judges every subset of tales that one world can produce, with commits untold and told.
fn judge(world: &[&Holding], chains: [&[PrepareHeader]; 2]) {
    let n = u8::try_from(world.len()).unwrap();
    let held = |header: &&PrepareHeader| copies(world, header) >= quorum(n.into());
    let committed: Vec<_> = chains[1].iter().take_while(held).collect();
    let old_only = chains[0].iter().filter(|header| !chains[1].contains(header));
    let in_view_2 = world.iter().any(|one| one.log_view == 2);
    let committed = if in_view_2 {
        if old_only.clone().any(|header| copies(world, header) >= quorum(n.into())) {
            return; // View 2 could not have started so.
        }
        committed
    } else {
        chains[0].iter().take_while(held).collect()
    };
    for tellers in 0..1_u32 << n {
        for knows_commit in [false, true] {
            let tale = |(index, one): (usize, &&Holding)| {
                let is_known =
                    one.log.iter().zip(&committed).take_while(|(own, known)| own == *known).count();
                let commit = if knows_commit && index == 0 { is_known } else { 0 };
                (
                    ReplicaIndex::new(u8::try_from(index).unwrap()),
                    told(one.log_view, commit, &one.log, &one.damaged),
                )
            };
            let tales: BTreeMap<_, _> =
                world.iter().enumerate().filter(|(index, _)| tellers >> index & 1 == 1).map(tale).collect();
            let is_sound = world.iter().all(|one| one.damaged.is_empty());
            match merge(n, &tales) {
                Merge::Decided(merged) => {
                    let keeps = |header: &&&PrepareHeader| {
                        header.op() < merged.commit.op
                            || header.id() == merged.commit
                            || merged.headers.contains(header)
                    };
                    assert!(
                        committed.iter().all(|header| keeps(&header)),
                        "{tales:#?} lost one of {committed:#?}"
                    );
                    assert!(merged.headers.windows(2).all(|pair| pair[1].parent() == pair[0].id()));
                }
                Merge::Undecided => {
                    assert!(
                        tales.len() < quorum(n.into()) || !is_sound,
                        "a quorum of sound logs decides: {tales:#?}"
                    );
                }
            }
        }
    }
}

/// Every pair of views: `old_len` prepares in view 1, of which view 2 keeps some and adds up to `new_len`.
fn worlds(old_len: usize, new_len: usize, replica_count: u32, with_damage: bool) {
    for prefix in 0..=old_len {
        for added in 0..=new_len {
            let old = chain(&vec![1; old_len]);
            let views: Vec<u64> = (0..prefix).map(|_| 1).chain((0..added).map(|_| 2)).collect();
            let new = chain(&views);
            let holdings = holdings(&old, &new, prefix, with_damage);
            for world in 0..holdings.len().pow(replica_count) {
                let digits =
                    (0..replica_count).map(|place| world / holdings.len().pow(place) % holdings.len());
                let world: Vec<_> = digits.map(|digit| &holdings[digit]).collect();
                judge(&world, [&old, &new]);
            }
        }
    }
}

#[test]
fn three_replicas_keep_what_may_be_committed_whatever_is_damaged() {
    worlds(2, 1, 3, true);
}

#[test]
fn three_replicas_keep_what_may_be_committed() {
    worlds(3, 3, 3, false);
}

#[test]
fn five_replicas_keep_what_may_be_committed() {
    worlds(1, 1, 5, false);
}

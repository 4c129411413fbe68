//! Which marks were hit, by how many universes and how often; and which of them a world never gets to, and why.
//!
//! A mark is a named point in the code of the nodes (`protocol/src/mark.rs`). One that no universe hits is a hole of the swarm,
//! something that only lasts long or breaks what is promised, or dead code: [`BEYOND`] says which.

use std::collections::BTreeMap;
use std::io::{self, Write};

use varve_protocol::mark::{Hits, Mark};

use crate::scenario::World;

const BOTH: &[World] = &[World::Fast, World::Quic];
const FAST: &[World] = &[World::Fast];
const QUIC: &[World] = &[World::Quic];

/// Who has lost something of its log tells none. So the longest log told has no gap, and nothing is ruled out: what replicas say
/// today does not get there.
const NO_GAP: &str = "nobody tells a log with a gap: who has lost something is silent";
const SAME_LOG: &str = "a broken promise: what is told of one view is of one log";
const MINORITY: &str = "no more than a minority of a group is stopped uncleanly at once in this world";
const NOT_LOST: &str = "simulated disks lose no write that they have synced";
const NOT_FORGED: &str = "simulated disks write nothing that nobody handed in";

/// Marks that worlds do not get to, and why.
pub const BEYOND: &[(&[World], Mark, &str)] = &[
    (BOTH, Mark::LogUndecided, NO_GAP),
    (BOTH, Mark::PrepareRuledOut, NO_GAP),
    (BOTH, Mark::ConflictFound, SAME_LOG),
    (BOTH, Mark::FactsDistrusted, SAME_LOG),
    (QUIC, Mark::RestartUnsafe, MINORITY),
    (QUIC, Mark::ForcedOn, MINORITY),
    (BOTH, Mark::SlotContradicted, NOT_FORGED),
    (BOTH, Mark::ReplicaClosed, NOT_FORGED),
    (BOTH, Mark::BranchFound, NOT_LOST),
    (BOTH, Mark::PatchRefused, NOT_LOST),
    (BOTH, Mark::MendingBranched, NOT_LOST),
    (FAST, Mark::LaneFull, "lanes of this world have no bound"),
];

/// How much is printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Telling {
    /// The marks that were not hit.
    Missing,
    /// All of them, with what they stand for.
    Table,
}

/// What the universes of a world have hit.
#[derive(Clone, Default, Debug)]
struct Sum {
    universes: u64,
    /// The universes that hit a mark, and how often all of them did.
    hits: BTreeMap<Mark, (u64, u64)>,
}

/// What was hit in all worlds.
#[derive(Clone, Default, Debug)]
pub struct Coverage(BTreeMap<World, Sum>);

impl Coverage {
    /// Takes the marks of one universe into account.
    pub fn add(&mut self, world: World, marks: &Hits) {
        let sum = self.0.entry(world).or_default();
        sum.universes += 1;
        for mark in Mark::ALL.iter().filter(|mark| marks.of(**mark) > 0) {
            let (universes, hits) = sum.hits.entry(*mark).or_default();
            *universes += 1;
            *hits += marks.of(*mark);
        }
    }

    /// How many universes of a world have hit a mark.
    #[must_use]
    pub fn universes(&self, world: World, mark: Mark) -> u64 {
        self.0.get(&world).and_then(|sum| sum.hits.get(&mark)).map_or(0, |(universes, _)| *universes)
    }

    /// The marks that no universe of a world has hit although it might.
    pub fn missing(&self, world: World) -> impl Iterator<Item = Mark> {
        let is_missing =
            move |mark: &Mark| self.universes(world, *mark) == 0 && why_beyond(world, *mark).is_none();
        Mark::ALL.iter().copied().filter(is_missing)
    }

    /// Says what was hit and what was not.
    ///
    /// # Errors
    /// When nobody listens any more.
    pub fn print(&self, telling: Telling, out: &mut impl Write) -> io::Result<()> {
        for (world, sum) in &self.0 {
            let beyond = BEYOND.iter().filter(|(worlds, ..)| worlds.contains(world)).count();
            let (hit, all, name) = (sum.hits.len(), Mark::ALL.len(), world.name());
            writeln!(out, "{name} marks: {hit} of {all} were hit, {beyond} are beyond this world")?;
            let missing: Vec<String> = self.missing(*world).map(|mark| format!("{mark:?}")).collect();
            if !missing.is_empty() {
                writeln!(out, "  never hit: {}", missing.join(", "))?;
            }
            if telling == Telling::Table {
                sum.print(*world, out)?;
            }
        }
        Ok(())
    }
}

impl Sum {
    fn print(&self, world: World, out: &mut impl Write) -> io::Result<()> {
        let mut room = "";
        for mark in Mark::ALL {
            if mark.room() != room {
                room = mark.room();
                writeln!(out, "  {room}: of {} universes, and how often", self.universes)?;
            }
            let (universes, hits) = self.hits.get(mark).copied().unwrap_or_default();
            let why = why_beyond(world, *mark).map(|why| format!(" ({why})")).unwrap_or_default();
            let name = format!("{mark:?}");
            writeln!(out, "    {universes:>5} {hits:>9}  {name:<20} {}{why}", mark.sentence())?;
        }
        Ok(())
    }
}

/// Why a world does not get to a mark; `None` if it does.
#[must_use]
pub fn why_beyond(world: World, mark: Mark) -> Option<&'static str> {
    let is_it = |(worlds, beyond, _): &&(&[World], Mark, &str)| *beyond == mark && worlds.contains(&world);
    BEYOND.iter().find(is_it).map(|(.., why)| *why)
}

//! What a run came to: a verdict in one line, numbers that show whether anything happened, and how to see it again.

use std::fmt;
use std::io::{self, Write};
use std::ops::AddAssign;
use std::time::Duration;

use varve_protocol::mark::Hits;

use crate::actor::Orders;
use crate::oracle::{Tally, Violation};
use crate::scenario::{Profile, Scenario, World};
use crate::trace::{Event, line};

/// Events that are told of a universe that failed.
const EVENTS_TOLD: usize = 60;

/// How a universe ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Every promise was kept.
    Pass,
    /// A promise was broken.
    Violation(Violation),
    /// Nothing was acknowledged, so that nothing was tested.
    NothingHappened,
    /// The simulator itself failed.
    HarnessFault(String),
}

impl Verdict {
    /// The exit code of the process: 0 pass, 1 violation, 2 harness fault.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Pass => 0,
            Self::Violation(_) | Self::NothingHappened => 1,
            Self::HarnessFault(_) => 2,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pass => f.write_str("pass"),
            Self::Violation(violation) => write!(f, "VIOLATION {violation}"),
            Self::NothingHappened => f.write_str("VIOLATION nothing happened: no append was acknowledged"),
            Self::HarnessFault(fault) => write!(f, "HARNESS FAULT {fault}"),
        }
    }
}

/// What happened, in numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Statistics {
    /// Universes.
    pub seeds: u64,
    /// Simulated time.
    pub simulated: Duration,
    /// Events of the trace.
    pub events: u64,
    /// How appends ended.
    pub tally: Tally,
    /// Appends acknowledged while faults struck.
    pub acked_under_faults: u64,
    /// Records read.
    pub records_read: u64,
    /// Changes of the metadata that were made by those who had nothing else to do.
    pub changes_made: u64,
    /// Handovers of primaries that somebody asked for and that were begun.
    pub handovers: u64,
    /// Moves of replicas that were begun, or given up.
    pub moves: u64,
    /// Latest ends of partitions that were told.
    pub ends_confirmed: u64,
    /// Answers to a session within its window that it is not remembered.
    pub sessions_forgotten: u64,
    /// Processes stopped at once, those of power failures included.
    pub crashes: u64,
    /// Crashes that interrupted a round of writes.
    pub crashes_in_writes: u64,
    /// Disks lost with all that was on them.
    pub disks_lost: u64,
    /// Times that a disk was filled.
    pub disks_filled: u64,
    /// Failures of the whole cluster's power.
    pub power_failures: u64,
    /// Network partitions.
    pub network_partitions: u64,
    /// Processes frozen.
    pub pauses: u64,
    /// Connections that broke.
    pub connections_lost: u64,
    /// Packets lost, delayed or doubled by the network.
    pub packets_harmed: u64,
    /// Views entered beyond the first, over all groups.
    pub view_changes: u64,
    /// Logs cut at their end.
    pub truncations: u64,
    /// Times that segments were let go.
    pub let_go: u64,
    /// Snapshots taken from other replicas.
    pub snapshots: u64,
    /// Prepares fetched from a peer because they were missing.
    pub repairs: u64,
    /// Logs of which a disk has forgotten something.
    pub damages: u64,
    /// Logs with holes that were mended.
    pub holes_mended: u64,
    /// Those of the damages that befell logs while they were in use.
    pub damages_in_use: u64,
    /// Logs that had lost their end and have it again.
    pub ends_recovered: u64,
    /// Replicas that stopped before all they had acknowledged from memory was synced, and have a voice again.
    pub doubts_resolved: u64,
    /// Groups that an operator had go on with what was left.
    pub forced: u64,
    /// Sessions that were begun anew because such a group had lost what it had acknowledged.
    pub sessions_lost: u64,
}

impl Statistics {
    /// Adds what a client brought about with one step.
    pub(crate) fn add_orders(&mut self, orders: &Orders<'_>) {
        self.records_read += orders.records_read;
        self.sessions_forgotten += orders.sessions_forgotten;
        self.changes_made += orders.changes_made;
        self.handovers += orders.handovers;
        self.moves += orders.moves;
        self.ends_confirmed += orders.ends_confirmed;
        self.forced += orders.forced;
        self.sessions_lost += orders.sessions_lost;
    }
}

impl AddAssign for Statistics {
    fn add_assign(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.simulated += other.simulated;
        self.events += other.events;
        self.tally.acked += other.tally.acked;
        self.tally.records_acked += other.tally.records_acked;
        self.tally.refused += other.tally.refused;
        self.tally.unknown += other.tally.unknown;
        self.tally.lost += other.tally.lost;
        self.acked_under_faults += other.acked_under_faults;
        self.records_read += other.records_read;
        self.changes_made += other.changes_made;
        self.handovers += other.handovers;
        self.moves += other.moves;
        self.ends_confirmed += other.ends_confirmed;
        self.sessions_forgotten += other.sessions_forgotten;
        self.crashes += other.crashes;
        self.crashes_in_writes += other.crashes_in_writes;
        self.disks_lost += other.disks_lost;
        self.disks_filled += other.disks_filled;
        self.power_failures += other.power_failures;
        self.network_partitions += other.network_partitions;
        self.pauses += other.pauses;
        self.connections_lost += other.connections_lost;
        self.packets_harmed += other.packets_harmed;
        self.view_changes += other.view_changes;
        self.truncations += other.truncations;
        self.let_go += other.let_go;
        self.snapshots += other.snapshots;
        self.repairs += other.repairs;
        self.damages += other.damages;
        self.holes_mended += other.holes_mended;
        self.damages_in_use += other.damages_in_use;
        self.ends_recovered += other.ends_recovered;
        self.doubts_resolved += other.doubts_resolved;
        self.forced += other.forced;
        self.sessions_lost += other.sessions_lost;
    }
}

impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tally, .. } = self;
        write!(
            f,
            "seeds={} simulated={:.1}s events={}",
            self.seeds,
            self.simulated.as_secs_f64(),
            self.events
        )?;
        write!(f, " acked={} (under faults {})", tally.acked, self.acked_under_faults)?;
        write!(f, " records={} read={}", tally.records_acked, self.records_read)?;
        write!(f, " ends={}", self.ends_confirmed)?;
        write!(f, " refused={} unknown={}", tally.refused, tally.unknown)?;
        write!(f, " changes={} handovers={} moves={}", self.changes_made, self.handovers, self.moves)?;
        write!(f, " sessions_forgotten={}", self.sessions_forgotten)?;
        write!(f, " crashes={} (in writes {})", self.crashes, self.crashes_in_writes)?;
        write!(f, " disks_lost={} disks_filled={}", self.disks_lost, self.disks_filled)?;
        write!(f, " power_failures={} pauses={}", self.power_failures, self.pauses)?;
        write!(f, " network_partitions={}", self.network_partitions)?;
        write!(f, " connections_lost={} packets_harmed={}", self.connections_lost, self.packets_harmed)?;
        write!(
            f,
            " view_changes={} truncations={} repairs={} let_go={} snapshots={}",
            self.view_changes, self.truncations, self.repairs, self.let_go, self.snapshots
        )?;
        write!(
            f,
            " damages={} (holes mended {}, ends recovered {}, in use {})",
            self.damages, self.holes_mended, self.ends_recovered, self.damages_in_use
        )?;
        write!(f, " doubts_resolved={}", self.doubts_resolved)?;
        write!(f, " forced={} (appends lost {}, sessions {})", self.forced, tally.lost, self.sessions_lost)
    }
}

/// What one universe came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// Its world.
    pub world: World,
    /// What it was about.
    pub profile: Profile,
    /// How it ended.
    pub verdict: Verdict,
    /// What happened, in numbers.
    pub statistics: Statistics,
    /// The digest of all events.
    pub trace: u64,
    /// The marks that it hit.
    pub marks: Hits,
    /// The last events.
    pub last: Vec<(Duration, Event)>,
}

impl Report {
    /// The line of this universe and, if it failed, all that helps to understand why.
    ///
    /// # Errors
    /// When nobody listens any more.
    pub fn print(&self, out: &mut impl Write) -> io::Result<()> {
        self.print_outcome(out)?;
        if self.verdict == Verdict::Pass {
            return Ok(());
        }
        let (seed, world, profile) = (self.seed, self.world.name(), self.profile.argument());
        writeln!(out, "  {}", Scenario::draw_as(self.profile, seed, self.world).summary())?;
        writeln!(
            out,
            "  repeat with: cargo run --release -p simulator -- --world {world}{profile} --seed {seed}"
        )?;
        if self.world == World::Fast {
            writeln!(
                out,
                "  make it smaller with: cargo run --release -p simulator -- minimize{profile} --seed {seed}"
            )?;
        }
        Ok(())
    }

    /// The same without where it came from.
    ///
    /// # Errors
    /// When nobody listens any more.
    pub fn print_outcome(&self, out: &mut impl Write) -> io::Result<()> {
        let Self { seed, verdict, statistics, .. } = self;
        let world = self.world.name();
        writeln!(out, "{world} seed {seed}: {verdict}")?;
        writeln!(out, "  {statistics}")?;
        writeln!(out, "  trace {:016x}", self.trace)?;
        if *verdict == Verdict::Pass {
            return Ok(());
        }
        writeln!(out, "  at {:.6}s of simulated time; the last events:", statistics.simulated.as_secs_f64())?;
        for (at, event) in &self.last[self.last.len().saturating_sub(EVENTS_TOLD)..] {
            writeln!(out, "    {}", line(*at, event))?;
        }
        Ok(())
    }
}

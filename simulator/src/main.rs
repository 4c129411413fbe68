//! Plays seeds and says what they came to.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand, ValueEnum};
use simulator::case;
use simulator::explore;
use simulator::marks::Telling;
use simulator::minimize;
#[cfg(feature = "mutants")]
use simulator::mutants;
use simulator::run::{AfterFailure, Outcome, Plan, play_all};
use simulator::scenario::{Profile, World};
use simulator::trace::Printing;
use simulator::visualize;

/// One seed, one universe: plays Varve's real nodes on simulated networks and disks, breaks things, and checks that no
/// promise is broken. Exit code: 0 all promises kept, 1 one broken, 2 the simulator itself failed.
#[derive(Parser, Debug)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Which world to play.
    #[arg(long, value_enum, default_value_t = Choice::Both)]
    world: Choice,
    /// What the universes are about.
    #[arg(long, value_enum, default_value_t, value_name = "P")]
    profile: Profile,
    /// Play this seed only.
    #[arg(long, conflicts_with_all = ["runs", "start", "minutes"])]
    seed: Option<u64>,
    /// Play this many seeds; without --minutes the default is 10.
    #[arg(long)]
    runs: Option<u64>,
    /// The first seed of many.
    #[arg(long, default_value_t = 0)]
    start: u64,
    /// Begin no further seed after this many minutes.
    #[arg(long)]
    minutes: Option<f64>,
    /// Print every event.
    #[arg(long)]
    trace: bool,
    /// Go on after a failure, and list all failures at the end.
    #[arg(long)]
    keep_going: bool,
    /// Seeds played at the same time.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Print every mark: what it stands for, and how many universes hit it.
    #[arg(long)]
    marks: bool,
    /// Make this mistake while playing.
    #[cfg(feature = "mutants")]
    #[arg(long, value_parser = mutants::named, value_name = "NAME")]
    mutant: Option<varve_protocol::mutant::Mutant>,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// All states of a small group: searches every order of deliveries, disk jobs, crashes, time-outs and view changes
    /// within bounds, breadth first, with the real consensus core. Exit code: 0 all promises kept in every state visited, 1
    /// one broken, with a shortest story of how.
    Explore(explore::Plan),
    /// Makes a failing seed of the fast world smaller: takes faults, nodes, clients and time away as long as it breaks the
    /// same promise, writes what is left to a file, and tells it. Exit code: 0 it did, 1 the seed breaks no promise.
    Minimize(minimize::Plan),
    /// Plays a scenario from a file, and says whether it is the same universe as when the file was written. Exit code: as
    /// without a command.
    Replay(case::Plan),
    /// Draws a universe of the fast world as a page: what each replica was and when, faults and commits. Exit code: as without a
    /// command.
    Visualize(visualize::Plan),
    /// Plays deliberate mistakes, each until a check finds it. Exit code: 0 all were found, 1 one was not, 2 one could not
    /// be judged.
    #[cfg(feature = "mutants")]
    Mutants(mutants::Plan),
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Choice {
    /// Deterministic nodes on an event heap.
    Fast,
    /// The server with real QUIC.
    Quic,
    /// Every seed in one world after the other.
    Both,
}

impl Arguments {
    fn plan(&self) -> Plan {
        let minutes = self.minutes.map(|minutes| Duration::from_secs_f64(minutes.max(0.0) * 60.0));
        let seeds = match (self.seed, self.runs, minutes) {
            (Some(_), _, _) => Some(1),
            (None, Some(runs), _) => Some(runs),
            (None, None, Some(_)) => None,
            (None, None, None) => Some(10),
        };
        Plan {
            worlds: match self.world {
                Choice::Fast => vec![World::Fast],
                Choice::Quic => vec![World::Quic],
                Choice::Both => vec![World::Fast, World::Quic],
            },
            profile: self.profile,
            start: self.seed.unwrap_or(self.start),
            seeds,
            deadline: minutes.map(|minutes| Instant::now() + minutes),
            jobs: if self.trace { 1 } else { self.jobs },
            after_failure: if self.keep_going { AfterFailure::GoOn } else { AfterFailure::Stop },
            printing: if self.trace { Printing::On } else { Printing::Off },
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    #[cfg(feature = "mutants")]
    if let Some(mutant) = arguments.mutant {
        mutant.choose();
    }
    match arguments.command {
        Some(Command::Explore(plan)) => return explore(plan),
        Some(Command::Minimize(plan)) => return exit_code(minimize::run_aloud(&plan)),
        Some(Command::Replay(plan)) => {
            return exit_code(case::replay(&plan).map(|verdict| verdict.exit_code()));
        }
        Some(Command::Visualize(plan)) => {
            return exit_code(visualize::run(&plan).map(|verdict| verdict.exit_code()));
        }
        #[cfg(feature = "mutants")]
        Some(Command::Mutants(plan)) => return mutants::run(&plan),
        None => {}
    }
    let telling = if arguments.marks { Telling::Table } else { Telling::Missing };
    let plan = arguments.plan();
    if let Some(world) = plan.worlds.iter().find(|world| !plan.profile.fits(**world)) {
        let (profile, name) = (plan.profile.argument(), world.name());
        eprintln!("error:{profile} cannot be played in the {name} world; add --world fast");
        return ExitCode::from(2);
    }
    let began = Instant::now();
    let out = &mut std::io::stdout();
    // Who stops listening misses the rest; the seeds are played to the end all the same.
    let outcome = play_all(&plan, |report| report.print(out).unwrap_or_default());
    summarise(&outcome, telling, began.elapsed(), out).unwrap_or_default();
    let worst = outcome.failures.iter().map(|(_, _, verdict)| verdict.exit_code()).max();
    ExitCode::from(worst.unwrap_or_default())
}

fn exit_code(outcome: anyhow::Result<impl Into<ExitCode>>) -> ExitCode {
    match outcome {
        Ok(outcome) => outcome.into(),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn explore(plan: explore::Plan) -> ExitCode {
    println!("{plan}");
    let mut told = Instant::now();
    let finding = explore::search(plan, |progress| {
        if told.elapsed() >= Duration::from_secs(10) {
            eprintln!("{progress}");
            told = Instant::now();
        }
    });
    print!("{finding}");
    ExitCode::from(finding.exit_code())
}

fn summarise(outcome: &Outcome, telling: Telling, elapsed: Duration, out: &mut impl Write) -> io::Result<()> {
    let elapsed = elapsed.as_secs_f64();
    for (world, sum) in &outcome.sums {
        let speed = sum.simulated.as_secs_f64() / elapsed;
        writeln!(out, "{} in all: {sum}", world.name())?;
        writeln!(out, "  {speed:.1} simulated seconds per second ({elapsed:.1} s for all worlds)")?;
    }
    outcome.coverage.print(telling, out)?;
    for (world, seed, verdict) in &outcome.failures {
        writeln!(out, "FAILED {} seed {seed}: {verdict}", world.name())?;
    }
    Ok(())
}

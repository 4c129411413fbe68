//! Proves that the checks find mistakes: plays every mutant until some check kills it.
//!
//! The switch of a mutant holds for a whole process, so each is played in a process of its own: seeds of the fast world, one
//! after the other, until one breaks a promise. A kill counts only if the same seed passes without the mutant.
//! Some mistakes cannot be seen from outside as long as everything around them is right, because two guards keep the same
//! rule; a few more take the seeds many hundreds of universes. They are judged by the tests of the package that they are in.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, ExitCode, Output};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use varve_protocol::mutant::{Mutant, VARIABLE};

use crate::report::Verdict;
use crate::run::play_scenario;
use crate::scenario::{Profile, Scenario, World};
use crate::trace::Printing;

/// Mutants that are judged by tests: the package, and the words that choose its tests.
const JUDGED_BY_TESTS: &[(Mutant, &str, &[&str])] = &[
    (Mutant::AnyPrepareOkCounts, CONSENSUS, &["golden"]),
    (Mutant::OldPrepareOkCounts, CONSENSUS, &["golden"]),
    (Mutant::WrongParentTaken, CONSENSUS, &["golden"]),
    (Mutant::ConflictOverwritten, CONSENSUS, &["golden"]),
    (Mutant::OkInViewChange, CONSENSUS, &["golden"]),
    (Mutant::CutWithoutNeed, CONSENSUS, &["golden"]),
    (Mutant::CutUnderWrites, CONSENSUS, &["golden"]),
    (Mutant::HandOverUnready, CONSENSUS, &["golden"]),
    (Mutant::RepairUnverified, CONSENSUS, &["golden"]),
    (Mutant::ReadOldRoundCounts, CONSENSUS, &["golden"]),
    (Mutant::ReadBeforeStartLog, CONSENSUS, &["golden"]),
    (Mutant::LongestLogWins, CONSENSUS, &["log_merge"]),
    (Mutant::SilentLacks, CONSENSUS, &["log_merge"]),
    (Mutant::CannotTellLacks, CONSENSUS, &["log_merge"]),
    (Mutant::ProposalNeverOld, CONSENSUS, &["golden"]),
    (Mutant::VoiceNotSaved, CONSENSUS, &["golden"]),
    (Mutant::ReplacedTaleCounts, CONSENSUS, &["golden"]),
    (Mutant::ResumePointAhead, CONSENSUS, &["schedule"]),
    (Mutant::ResumePointUnmet, STORAGE, &["resume"]),
    (Mutant::SnapshotNotAwaited, CONSENSUS, &["golden"]),
    (Mutant::KeepsTooLittle, REPLICA, &["retention"]),
    (Mutant::PreparesNotRepeated, CONSENSUS, &["golden"]),
    (Mutant::RepeatsOneOnly, CONSENSUS, &["golden"]),
    (Mutant::AwaitsForEver, CONSENSUS, &["golden"]),
    (Mutant::AsksInStep, CONSENSUS, &["golden"]),
    (Mutant::CutNotOnDisk, STORAGE, &["crash"]),
    (Mutant::FormerHeard, REPLICA, &["group"]),
    (Mutant::SuccessorHeard, REPLICA, &["group"]),
    (Mutant::PendingHeard, REPLICA, &["group"]),
    (Mutant::ReplacedCounts, CONSENSUS, &["golden"]),
    (Mutant::SealedBehindChange, CONSENSUS, &["golden"]),
    (Mutant::ChangeAtOnce, CONSENSUS, &["golden"]),
    (Mutant::LeaverNotMissed, CONSENSUS, &["golden"]),
    (Mutant::PendingForEver, CONSENSUS, &["golden"]),
    (Mutant::VacantPlaceLeads, CONSENSUS, &["golden"]),
    (Mutant::OthersNotAsked, REPLICA, &["changes"]),
    (Mutant::CountedWithoutVoice, REPLICA, &["changes"]),
    (Mutant::OldWishObeyed, REPLICA, &["changes"]),
    (Mutant::EarlierVoiceTold, REPLICA, &["moves"]),
    (Mutant::EarlierStayKept, REPLICA, &["moves"]),
    (Mutant::NoWayMade, REPLICA, &["moves"]),
    (Mutant::RebirthForgiven, REPLICA, &["mend"]),
    (Mutant::FormerDiskReturns, REPLICA, &["lost_disks"]),
    (Mutant::TornTakesOldLog, CONSENSUS, &["golden"]),
    (Mutant::MemoryMarkNotSaved, CONSENSUS, &["golden"]),
    (Mutant::MendedUnverified, REPLICA, &["mending"]),
    (Mutant::SuperblockOvertaken, STORAGE, &["crash"]),
    (Mutant::FullDiskAcknowledges, STORAGE, &["full"]),
    (Mutant::TornTailKept, STORAGE, &["rot"]),
    (Mutant::JournalNotSynced, STORAGE, &["crash"]),
    (Mutant::JournalNotReplayed, STORAGE, &["crash"]),
    (Mutant::JournalNotRenewed, STORAGE, &["crash"]),
    (Mutant::SpareNotSynced, STORAGE, &["spares"]),
    (Mutant::OldKeyWritten, STORAGE, &["sealed"]),
    (Mutant::NonceRepeated, STORAGE, &["nonces"]),
    (Mutant::ScrubTrustsHeaders, STORAGE, &["scrub"]),
    (Mutant::PatchNotWritten, STORAGE, &["scrub"]),
    (Mutant::SnapshotUnlinked, STORAGE, &["let_go_with"]),
    (Mutant::AnswersNotSummedUp, REPLICA, &["summing_up"]),
    (Mutant::RottenLeavesAlone, REPLICA, &["mending"]),
    (Mutant::RotTakenForTear, STORAGE, &["recovery"]),
    (Mutant::BombTaken, PROTOCOL, &["compressed"]),
    (Mutant::CompressedUnverified, PROTOCOL, &["compressed"]),
    (Mutant::HeadersUnordered, PROTOCOL, &["headers"]),
];

/// Mutants that are hardly ever found as long as no more is harmed than is promised to be survived: their seeds are of the profile that
/// goes beyond that.
const JUDGED_BEYOND: &[Mutant] = &[Mutant::TornTellsLog];

const PROTOCOL: &str = "varve-protocol";
const CONSENSUS: &str = "varve-consensus";
const STORAGE: &str = "varve-storage";
const REPLICA: &str = "varve-replica";

/// The most that is told of what was seen.
const DETAIL_CHARS_MAX: usize = 240;

/// Which mutants to play, and for how long.
#[derive(clap::Args, Clone, Debug)]
pub struct Plan {
    /// Play this mutant only.
    #[arg(long, value_parser = named, value_name = "NAME")]
    only: Option<Mutant>,
    /// Seeds of which one must kill.
    #[arg(long, default_value_t = 1000)]
    runs: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    start: u64,
    /// Mutants played at the same time.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Play it in this process.
    #[arg(long, hide = true, requires = "only")]
    here: bool,
}

/// Reads the name of a mutant on a command line.
///
/// # Errors
/// When there is no such mutant; the message lists all.
pub fn named(name: &str) -> Result<Mutant, String> {
    let list = || Mutant::ALL.iter().map(|mutant| format!("  {} ({mutant:?})", mutant.name()));
    Mutant::from_name(name)
        .ok_or_else(|| format!("the mutants are\n{}", list().collect::<Vec<_>>().join("\n")))
}

/// What became of a mutant.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Fate {
    /// A check found it; in words, by which.
    Killed(String),
    /// No check found it; in words, what was tried.
    Survived(String),
    /// It could not be judged.
    Unjudged(String),
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Killed(how) => write!(f, "killed    {how}"),
            Self::Survived(what) => write!(f, "SURVIVED  {what}"),
            Self::Unjudged(why) => write!(f, "UNJUDGED  {why}"),
        }
    }
}

/// Plays a plan. Exit code: 0 all mutants were killed, 1 one survived, 2 one could not be judged.
#[must_use]
pub fn run(plan: &Plan) -> ExitCode {
    match plan.only {
        Some(mutant) if plan.here => play_here(mutant, plan),
        Some(_) | None => play_all(plan),
    }
}

fn play_all(plan: &Plan) -> ExitCode {
    let chosen = |mutant: &Mutant| plan.only.is_none_or(|only| only == *mutant);
    let queue: Mutex<VecDeque<Mutant>> = Mutex::new(Mutant::ALL.iter().copied().filter(chosen).collect());
    let (sender, receiver) = mpsc::channel();
    let mut fates = Vec::new();
    std::thread::scope(|scope| {
        for _ in 0..plan.jobs.max(1) {
            let (sender, queue) = (sender.clone(), &queue);
            scope.spawn(move || {
                while let Some(mutant) = take(queue) {
                    // Who listens has gone only if this process is about to end.
                    sender.send((mutant, judge(mutant, plan))).unwrap_or_default();
                }
            });
        }
        drop(sender);
        for (mutant, fate) in receiver {
            tell(&format!("{:<30}{fate}", mutant.name()));
            fates.push(fate);
        }
    });
    let count = |is: fn(&Fate) -> bool| fates.iter().filter(|fate| is(fate)).count();
    let survived = count(|fate| matches!(fate, Fate::Survived(_)));
    let unjudged = count(|fate| matches!(fate, Fate::Unjudged(_)));
    tell(&format!("{} mutants: {survived} survived, {unjudged} could not be judged", fates.len()));
    ExitCode::from(if unjudged > 0 { 2 } else { u8::from(survived > 0) })
}

fn take(queue: &Mutex<VecDeque<Mutant>>) -> Option<Mutant> {
    queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
}

fn judge(mutant: Mutant, plan: &Plan) -> Fate {
    let by_tests = JUDGED_BY_TESTS.iter().find(|(judged, ..)| *judged == mutant);
    let fate = match by_tests {
        Some((_, package, words)) => run_tests(mutant, package, words),
        None => run_seeds(mutant, plan),
    };
    fate.unwrap_or_else(|error| Fate::Unjudged(error.to_string()))
}

/// What the universes are about that a mutant is played in.
fn profile_of(mutant: Mutant) -> Profile {
    if JUDGED_BEYOND.contains(&mutant) { Profile::Beyond } else { Profile::Swarm }
}

fn run_seeds(mutant: Mutant, plan: &Plan) -> io::Result<Fate> {
    let this = std::env::current_exe()?;
    let (runs, start) = (plan.runs.to_string(), plan.start.to_string());
    let mut child = Command::new(&this);
    child.args(["mutants", "--here", "--only", mutant.name(), "--runs", &runs, "--start", &start]);
    let Output { status, stdout, stderr } = child.env_remove(VARIABLE).output()?;
    let told = String::from_utf8_lossy(&stdout);
    let words = told.trim().to_owned();
    match (status.code(), words.split_once(' ')) {
        (Some(0), _) => Ok(Fate::Survived(words)),
        (Some(1), Some((seed, how))) => {
            let mut without = Command::new(&this);
            without
                .args(["--world", "fast", "--seed", seed])
                .args(profile_of(mutant).argument().split_whitespace());
            let is_innocent = without.env_remove(VARIABLE).output()?.status.success();
            let unjust = || Fate::Unjudged(format!("seed {seed} fails without the mutant, too"));
            Ok(if is_innocent { Fate::Killed(format!("seed {seed}, {how}")) } else { unjust() })
        }
        _ => {
            Ok(Fate::Unjudged(format!("{status}: {words} {}", shortened(&String::from_utf8_lossy(&stderr)))))
        }
    }
}

fn run_tests(mutant: Mutant, package: &str, words: &[&str]) -> io::Result<Fate> {
    let began = Instant::now();
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut tests = Command::new("cargo");
    tests.args([
        "test",
        "--quiet",
        "--locked",
        "--features",
        "mutants",
        "-p",
        package,
        "--no-fail-fast",
        "--",
    ]);
    tests.args(words).current_dir(workspace);
    let sound = tests.env_remove(VARIABLE).output()?;
    if !sound.status.success() {
        let told = String::from_utf8_lossy(&sound.stderr).into_owned();
        return Ok(Fate::Unjudged(format!("the tests fail without the mutant, too: {}", shortened(&told))));
    }
    // What a mutant fails with is no case to be kept.
    tests.env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1");
    let told = tests.env(VARIABLE, mutant.name()).output()?;
    let text = String::from_utf8_lossy(&told.stdout).into_owned();
    let failed: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("---- ")).collect();
    let failed: Vec<&str> = failed.into_iter().filter_map(|line| line.strip_suffix(" stdout ----")).collect();
    let seconds = began.elapsed().as_secs_f64();
    Ok(match failed.first() {
        Some(first) => {
            Fate::Killed(format!("{} tests of {package}, one is {first}, in {seconds:.1} s", failed.len()))
        }
        None => Fate::Survived(format!("the tests of {package} about {}", words.join(", "))),
    })
}

/// Plays seeds in this process until one kills; tells the seed and how.
fn play_here(mutant: Mutant, plan: &Plan) -> ExitCode {
    mutant.choose();
    let began = Instant::now();
    let (mut events, mut simulated) = (0, Duration::ZERO);
    for (count, seed) in (1_u64..).zip(plan.start..plan.start + plan.runs) {
        let scenario = Scenario::draw_as(profile_of(mutant), seed, World::Fast);
        let report = play_scenario(scenario, Printing::Off);
        events += report.statistics.events;
        simulated += report.statistics.simulated;
        if report.verdict == Verdict::Pass {
            continue;
        }
        let seconds = began.elapsed().as_secs_f64();
        let verdict = shortened(&report.verdict.to_string());
        tell(&format!("{seed} number {count}, after {events} events in {seconds:.1} s: {verdict}"));
        return ExitCode::from(report.verdict.exit_code());
    }
    let (seconds, simulated) = (began.elapsed().as_secs_f64(), simulated.as_secs_f64());
    tell(&format!(
        "{} seeds, {events} events, {simulated:.0} simulated seconds in {seconds:.1} s",
        plan.runs
    ));
    ExitCode::SUCCESS
}

/// Prints a line. Who stops listening misses the rest.
fn tell(line: &str) {
    writeln!(io::stdout(), "{line}").unwrap_or_default();
}

fn shortened(text: &str) -> String {
    text.chars().take(DETAIL_CHARS_MAX).collect()
}

//! A run from beginning to end: the topic, the workers, the wait, the report.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tokio::task::JoinSet;
use varve_client::From;
use varve_protocol::metadata::TopicEntry;

use super::load::{CATCH_UP_MAX, Sending, Shared, follow, produce, read_up_to};
use super::options::{Common, Load, Readers};
use super::page::page;
use super::raw::Raw;
use super::recorder::Recorder;
use super::report::{Report, Side};
use super::schedule::Share;
use crate::command::produce::partition_count;
use crate::command::topic::find;
use crate::connection::connect;
use crate::context::Context;
use crate::entropy;
use crate::failure::{Failure, Outcome};
use crate::measure::attendants::Attendants;
use crate::measure::clock::Clock;
use crate::measure::own_topic::OwnTopic;
use crate::measure::payload::Payloads;
use crate::measure::report_file;
use crate::measure::setting::{Setting, setting};
use crate::output;

/// How often it is looked whether consumers have everything.
const POLL_EVERY: Duration = Duration::from_millis(5);

/// Of a rate that was asked for, how much counts as reached.
const RATE_REACHED: f64 = 0.99;

/// Which benchmark appends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Produce,
    EndToEnd,
    Mixed,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Produce => "produce",
            Self::EndToEnd => "end-to-end",
            Self::Mixed => "mixed",
        }
    }
}

/// Runs a benchmark that appends, in a topic of its own if that was asked for.
pub(super) async fn append(context: &Context, kind: Kind, load: &Load, readers: Option<Readers>) -> Outcome {
    load.check(readers.is_some())?;
    check_files(&load.common)?;
    let client = connect(context).await?;
    let raw = measure_raw(&load.common).await?;
    let topic = &load.common.topic;
    let made = match load.created.create {
        true => Some(OwnTopic::new(&client, topic, load.created.options()).await?),
        false => None,
    };
    let measured = measure(context, load, readers).await;
    let deleted = match made {
        Some(made) => made.delete(&client).await,
        None => Ok(()),
    };
    let (sides, entry) = measured?;
    let mut settings = load.settings(load.rate);
    settings.extend(readers.map(|readers| setting("consumers", readers.consumers)));
    settings.extend(topic_settings(&entry));
    let mut report = new_report(kind.name(), topic.to_string(), settings, sides);
    report.raw = raw.map(|raw| raw.relate(&report.sides, u32::from(entry.replication_factor)));
    let notes = report.sides.first().map(|side| notes_on_rate(load.rate, side));
    report.notes.extend(notes.unwrap_or_default());
    conclude(context, &load.common, &report).and(deleted)
}

/// What to know if a cluster did not keep up with the rate that was asked for.
fn notes_on_rate(rate: Option<f64>, side: &Side) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(rate) =
        rate.filter(|rate| side.seconds > 0.0 && side.records_per_second < rate * RATE_REACHED)
    {
        notes.push(format!(
            "{rate} records/s were asked for and {:.0} acknowledged: latencies grew with the backlog",
            side.records_per_second
        ));
    }
    if side.not_sent > 0 {
        notes.push(format!(
            "{} records that were due were not sent {CATCH_UP_MAX:?} after the end: with theirs, latencies would be higher",
            side.not_sent
        ));
    }
    notes
}

/// Reads what a topic holds.
pub(super) async fn consume(
    context: &Context,
    common: &Common,
    duration: Option<Duration>,
    readers: Readers,
) -> Outcome {
    check_files(common)?;
    let client = connect(context).await?;
    let raw = measure_raw(common).await?;
    let topic = common.topic.to_string();
    let map = client.admin().map().await?;
    let entry = find(&map, &common.topic)?;
    let mut ends = Vec::new();
    let mut count = 0;
    for partition in &entry.partitions {
        let offsets = client.admin().offsets(partition.group).await?;
        count += offsets.high_watermark.as_raw() - offsets.log_start.as_raw();
        ends.push(offsets.high_watermark);
    }
    if count == 0 {
        return Err(Failure::refused(anyhow!(
            "topic `{topic}` is empty; `varve bench produce {topic}` makes records to read"
        )));
    }
    let mut consumers = Vec::new();
    for _ in 0..readers.consumers {
        let client = connect(context).await?;
        for (partition, end) in (0..).zip(&ends) {
            consumers.push((client.consumer(&topic, partition, From::First).await?, *end));
        }
    }
    let until = duration.unwrap_or(Duration::MAX);
    let recorder = Shared::new(Recorder::new(Duration::ZERO, until));
    let clock = Clock::start();
    let attendants = Attendants::start(&clock, progress(vec![("read", recorder.clone())]));
    let mut readers_running = JoinSet::new();
    for (consumer, end) in consumers {
        readers_running.spawn(read_up_to(consumer, (end, until), clock.clone(), recorder.clone()));
    }
    while readers_running.join_next().await.is_some() {}
    attendants.end().await;
    let last_done = recorder.lock().last_done();
    recorder.lock().end_at(last_done + Duration::from_nanos(1));
    let side = take(&recorder, &clock).finish("consumed", "from asking for records until they are there");
    let mut settings = vec![setting("consumers", readers.consumers)];
    settings.extend(topic_settings(entry));
    settings.extend(
        duration.map(|duration| setting("duration", humantime::format_duration(duration).to_string())),
    );
    let mut report = new_report("consume", topic, settings, vec![side]);
    report.raw = raw.map(|raw| raw.relate(&report.sides, u32::from(entry.replication_factor)));
    conclude(context, common, &report)
}

/// What of the topic matters for how fast it is.
fn topic_settings(entry: &TopicEntry) -> [Setting; 4] {
    [
        setting("partitions", entry.partitions.len()),
        setting("replicas", entry.replication_factor),
        setting("durability", entry.durability().name()),
        setting("compression", entry.compression),
    ]
}

/// Runs the load and adds up; tells of the topic, too, which may be gone soon.
async fn measure(
    context: &Context,
    load: &Load,
    readers: Option<Readers>,
) -> Outcome<(Vec<Side>, TopicEntry)> {
    let topic = load.common.topic.to_string();
    let client = connect(context).await?;
    let map = client.admin().map().await?;
    let hint = "no topic to append to; --create makes one for the run";
    let entry = find(&map, &load.common.topic).map_err(|failure| failure.context(hint))?.clone();
    let partitions = partition_count(&entry.partitions);
    let run = u64::from_le_bytes(entropy::draw()?);
    let mut producers = Vec::new();
    for _ in 0..load.producers {
        producers.push(connect(context).await?.producer(&topic, load.producer_config()).await?);
    }
    let mut consumers = Vec::new();
    for _ in 0..readers.map_or(0, |readers| readers.consumers) {
        let client = connect(context).await?;
        for partition in 0..partitions {
            consumers.push(client.consumer(&topic, partition, From::Last).await?);
        }
    }
    let end = load.warm_up + load.duration;
    let new = || Shared::new(Recorder::new(load.warm_up, end));
    let (produced, consumed) = (new(), new());
    let payloads = Payloads::new(load.seed, load.record_size()).compressible(load.compressible);
    let clock = Clock::start();
    let mut watched = vec![("acknowledged", produced.clone())];
    watched.extend(readers.map(|_| ("read", consumed.clone())));
    let attendants = Attendants::start(&clock, progress(watched));
    let mut following = JoinSet::new();
    for consumer in consumers {
        following.spawn(follow(consumer, run, clock.clone(), consumed.clone()));
    }
    let mut sending = JoinSet::new();
    for (producer, handle) in (0..).zip(producers) {
        let share = Share { rate: load.rate, producer, producers: u64::from(load.producers) };
        let common = Sending {
            clock: clock.clone(),
            end,
            payloads: payloads.clone(),
            run: readers.map(|_| run),
            partitions,
            in_flight: load.in_flight,
            recorder: produced.clone(),
        };
        sending.spawn(produce(handle, share, common));
    }
    while sending.join_next().await.is_some() {}
    if let Some(readers) = readers {
        wait_for_readers(&produced, &consumed, (readers, load.timeout)).await;
    }
    attendants.end().await;
    following.shutdown().await;
    let since = if load.rate.is_some() { "when it was due" } else { "handing it over" };
    let mut sides = vec![
        take(&produced, &clock).finish("produced", &format!("from {since} until a record is acknowledged")),
    ];
    if readers.is_some() {
        let latency_is = format!("from {since} until a consumer has a record");
        sides.push(take(&consumed, &clock).finish("consumed", &latency_is));
    }
    Ok((sides, entry))
}

/// Waits until every consumer has read all that was acknowledged; what is missing after a while is an error.
async fn wait_for_readers(produced: &Shared, consumed: &Shared, (readers, limit): (Readers, Duration)) {
    let expected = produced.lock().records_in_all() * u64::from(readers.consumers);
    let give_up = tokio::time::Instant::now() + limit;
    loop {
        let missing = expected.saturating_sub(consumed.lock().records_in_all());
        if missing == 0 {
            return;
        }
        if tokio::time::Instant::now() > give_up {
            let error = format!("acknowledged records were not read within {limit:?}");
            return consumed.lock().failed(missing, &error);
        }
        tokio::time::sleep(POLL_EVERY).await;
    }
}

/// The recorder, when nobody writes to it any more. What was told to end was measured until then.
fn take(recorder: &Shared, clock: &Clock) -> Recorder {
    let mut recorder = recorder.lock();
    if let Some(stopped_at) = clock.stopped_at() {
        recorder.end_at(stopped_at);
    }
    std::mem::replace(&mut *recorder, Recorder::new(Duration::ZERO, Duration::ZERO))
}

/// What was done since the last time, in words.
fn progress(watched: Vec<(&'static str, Shared)>) -> impl FnMut(Duration) -> String + Send + 'static {
    let mut before = vec![0; watched.len()];
    move |since| {
        let words = watched.iter().zip(&mut before).map(|((name, recorder), before)| {
            let now = recorder.lock().records_in_all();
            let rate = (now - *before) as f64 / since.as_secs_f64();
            *before = now;
            format!("{now} {name}, {rate:.0}/s")
        });
        words.collect::<Vec<String>>().join("; ")
    }
}

fn new_report(benchmark: &str, topic: String, settings: Vec<Setting>, sides: Vec<Side>) -> Report {
    let mut notes = Vec::new();
    if cfg!(debug_assertions) {
        notes.push("this `varve` was built without optimisation; measure with a release build".to_owned());
    }
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Report { benchmark: benchmark.to_owned(), version, topic, settings, sides, notes, raw: None }
}

/// What cannot be written is told before the run, not after it.
fn check_files(common: &Common) -> Outcome {
    report_file::check(common.save.iter().chain(&common.html))?;
    match common.raw.as_deref().filter(|dir| !dir.is_dir()) {
        Some(dir) => Err(Failure::usage(anyhow!("--raw needs a directory, and {} is none", dir.display()))),
        None => Ok(()),
    }
}

/// The limits of this machine, if they were asked for.
async fn measure_raw(common: &Common) -> Outcome<Option<Raw>> {
    let Some(dir) = common.raw.clone() else { return Ok(None) };
    let clock = Clock::start();
    let attendants = Attendants::start(&clock, progress(Vec::new()));
    let measured = {
        let (dir, clock) = (dir.clone(), clock.clone());
        tokio::task::spawn_blocking(move || Raw::measure(&dir, &clock)).await
    };
    attendants.end().await;
    let measured = measured.context("the thread that measures has ended").map_err(Failure::refused)?;
    let failed = || format!("cannot measure what this machine can do in {}", dir.display());
    let raw = measured.with_context(failed).map_err(Failure::refused)?;
    match clock.stopped_at() {
        Some(_) => Err(Failure::refused(anyhow!("interrupted before the load began"))),
        None => Ok(Some(raw)),
    }
}

/// Saves and prints; errors within the run are a failure, but not before the report is out.
fn conclude(context: &Context, common: &Common, report: &Report) -> Outcome {
    if let Some(path) = &common.save {
        report_file::write_json(path, report)?;
    }
    if let Some(path) = &common.html {
        report_file::write(path, &page(report))?;
    }
    output::print(context.output, report, Report::text)?;
    match report.sides.iter().find(|side| side.errors > 0) {
        Some(Side { name, errors, first_error, .. }) => Err(Failure::refused(anyhow!(
            "{errors} records or fetches failed and are not among the {name}: {}",
            first_error.as_deref().unwrap_or_default()
        ))),
        None => Ok(()),
    }
}

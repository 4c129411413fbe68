//! Knows what clients were promised, and says so when a promise is broken.
//!
//! Per partition it keeps the history of every append:
//!
//! ```text
//!             invoked ──▶ pending ──▶ acked(offset)     must be there, at that offset, on every replica, once
//!                            ├──────▶ refused           must not be there
//!                            └──────▶ unknown ──▶ acked may be there, once
//! ```
//!
//! An acknowledged one is *lost* if the power of everybody failed, its group acknowledges from memory, and an operator had the group
//! go on with less ([`Oracle::forced`]): then it must not be there.
//!
//! and the one log that all acknowledgements and all reads must be pieces of. A batch is placed in that log as soon as one
//! of its records is seen or its acknowledgement comes; whatever is seen later has to fit. Checked at once, with every
//! event:
//! * one offset holds one record, and one record has one offset, whoever says so;
//! * nothing is read that nobody appended, or whose append was refused;
//! * an append that was invoked after another was acknowledged comes after it;
//! * one op of a group is the same prepare at every replica;
//! * a replica's high watermark does not go back as long as a client's connection with its node lasts;
//! * nothing is let go where everything is to be kept, and no log starts behind its end;
//! * who asks for the latest end of a partition is told no less than anybody knew when he asked, and no more than was appended.
//!
//! Checked at the end: every acknowledged record is there, the log has no holes, all replicas hold the same, the requests
//! of a session stand in order and none is skipped.

mod end;
mod loss;

use std::collections::BTreeMap;

use varve_protocol::id::{GroupId, NodeId, ProducerId};
use varve_protocol::prepare::PrepareId;
use varve_protocol::retention::Retention;

use crate::workload::Value;

pub use loss::LogEnd;
use loss::Loss;

/// A broken promise.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{property}: {detail}")]
pub struct Violation {
    /// Which promise, in a few stable words.
    pub property: &'static str,
    /// What was seen.
    pub detail: String,
}

impl Violation {
    /// A broken promise.
    #[must_use]
    pub fn new(property: &'static str, detail: String) -> Self {
        Self { property, detail }
    }
}

/// Names an append in the oracle.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct AppendId(usize);

/// A client wants to know where a partition ends now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EndQuestion {
    group: GroupId,
    /// What anybody knew to be there when it was asked.
    floor: u64,
    /// How often something had been lost by then.
    losses: u64,
}

/// What a client is about to append.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Invocation {
    /// Where.
    pub group: GroupId,
    /// The session, and the request number in it; `None` for clients without one.
    pub session: Option<(ProducerId, u64)>,
    /// The first record.
    pub first: Value,
    /// How many records.
    pub count: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Pending,
    Acked,
    Refused,
    Unknown,
    Lost,
}

#[derive(Debug)]
struct Append {
    invocation: Invocation,
    state: State,
    /// The end of the newest append that had been acknowledged when this one was invoked.
    floor: u64,
    placed: Option<u64>,
}

impl Append {
    fn count(&self) -> u64 {
        u64::from(self.invocation.count)
    }

    fn describe(&self) -> String {
        let Invocation { group, first, count, .. } = self.invocation;
        format!("the append of {count} records from {first} to {group}")
    }
}

/// The log of one partition, as far as anybody has seen it.
#[derive(Debug, Default)]
struct Log {
    /// The appends by base offset.
    slots: BTreeMap<u64, AppendId>,
    /// The end of the newest acknowledged append.
    acked_end: u64,
    /// The largest end that anybody knows of: from an acknowledgement, a read, a high watermark or an answer.
    known_end: u64,
    /// The largest log start that anybody was told: what is below was let go.
    start: u64,
    /// Where it would end if everything that was not refused were there.
    possible_end: u64,
    /// The prepares by op.
    prepares: BTreeMap<u64, PrepareId>,
    loss: Loss,
}

/// How many appends ended how.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Acknowledged.
    pub acked: u64,
    /// Records in those.
    pub records_acked: u64,
    /// Refused for good.
    pub refused: u64,
    /// Never answered.
    pub unknown: u64,
    /// Acknowledged, and given up by an operator.
    pub lost: u64,
}

/// The histories of all partitions.
#[derive(Debug, Default)]
pub struct Oracle {
    appends: Vec<Append>,
    by_value: BTreeMap<Value, AppendId>,
    logs: BTreeMap<GroupId, Log>,
    producers: BTreeMap<ProducerId, u32>,
    /// The last high watermark that each reader was told on its present connection with a node.
    high_watermarks: BTreeMap<(u32, NodeId, GroupId), u64>,
    /// Nothing is ever let go.
    keeps_everything: bool,
}

impl Oracle {
    /// An oracle of a universe in which nothing was promised yet, and everything is kept.
    #[must_use]
    pub fn new() -> Self {
        Self { keeps_everything: true, ..Self::default() }
    }

    /// An oracle of a universe in which records are kept as long as that.
    #[must_use]
    pub fn with_retention(retention: Retention) -> Self {
        Self { keeps_everything: !retention.is_bounded(), ..Self::default() }
    }

    /// A client is about to send an append.
    pub fn invoked(&mut self, invocation: Invocation) -> AppendId {
        let id = AppendId(self.appends.len());
        let log = self.logs.entry(invocation.group).or_default();
        log.possible_end += u64::from(invocation.count);
        let floor = log.acked_end;
        self.by_value.insert(invocation.first, id);
        self.appends.push(Append { invocation, state: State::Pending, floor, placed: None });
        id
    }

    /// A node said that the append is done and where its first record is.
    ///
    /// # Errors
    /// When that contradicts what is known.
    pub fn acked(&mut self, id: AppendId, base_offset: u64) -> Result<(), Violation> {
        let append = &self.appends[id.0];
        if append.state == State::Refused {
            let detail = format!("{} was refused, and acknowledged afterwards", append.describe());
            return Err(Violation::new("two outcomes of one append", detail));
        }
        self.place(id, base_offset, "its acknowledgement")?;
        let append = &mut self.appends[id.0];
        append.state = State::Acked;
        let end = base_offset + append.count();
        let log = self.logs.entry(append.invocation.group).or_default();
        log.acked_end = log.acked_end.max(end);
        Ok(())
    }

    /// A node said that the append was not done, and the client will not try again.
    ///
    /// # Errors
    /// When it was done.
    pub fn refused(&mut self, id: AppendId) -> Result<(), Violation> {
        let append = &mut self.appends[id.0];
        if let Some(offset) = append.placed {
            let detail = format!("{} stands at offset {offset} and was refused", append.describe());
            return Err(Violation::new("refused append stored", detail));
        }
        if append.state != State::Refused {
            append.state = State::Refused;
            self.logs.entry(append.invocation.group).or_default().possible_end -= append.count();
        }
        Ok(())
    }

    /// The client gave up without an answer. An answer that comes later is still welcome.
    pub fn unknown(&mut self, id: AppendId) {
        let append = &mut self.appends[id.0];
        if append.state == State::Pending {
            append.state = State::Unknown;
        }
    }

    /// A record was read at a replica.
    ///
    /// # Errors
    /// When it should not be there.
    pub fn observed(
        &mut self,
        (group, node): (GroupId, NodeId),
        offset: u64,
        value: Value,
    ) -> Result<(), Violation> {
        let seen = || format!("{node} gave {value} at offset {offset} of {group}");
        let found = self.by_value.range(..=value).next_back().map(|(first, id)| (*first, *id));
        let Some((first, id)) = found else {
            return Err(Violation::new("phantom record", format!("{}; nobody appended it", seen())));
        };
        let append = &self.appends[id.0];
        let index = value.counter.wrapping_sub(first.counter);
        if first.producer != value.producer || index >= append.count() {
            return Err(Violation::new("phantom record", format!("{}; nobody appended it", seen())));
        }
        if append.invocation.group != group {
            let detail = format!("{}; it was appended to {}", seen(), append.invocation.group);
            return Err(Violation::new("record in the wrong partition", detail));
        }
        let Some(base_offset) = offset.checked_sub(index) else {
            return Err(Violation::new(
                "torn batch",
                format!("{}; its batch does not fit before it", seen()),
            ));
        };
        self.place(id, base_offset, &format!("a read at {node}"))
    }

    /// Something that cannot be read as a record of ours was read at a replica.
    #[must_use]
    pub fn unreadable(&self, (group, node): (GroupId, NodeId), offset: u64) -> Violation {
        let detail = format!("{node} gave bytes at offset {offset} of {group} that nobody appended");
        Violation::new("phantom record", detail)
    }

    /// A prepare was read at a replica.
    ///
    /// # Errors
    /// When another replica holds another one at that op.
    pub fn observed_prepare(
        &mut self,
        (group, node): (GroupId, NodeId),
        id: PrepareId,
    ) -> Result<(), Violation> {
        let log = self.logs.entry(group).or_default();
        let known = *log.prepares.entry(id.op.as_raw()).or_insert(id);
        if known == id {
            return Ok(());
        }
        let detail = format!("{group}: {node} committed {id} and another replica {known}");
        Err(Violation::new("replicas disagree", detail))
    }

    /// A replica told its high watermark to a reader, which asks it one thing at a time.
    ///
    /// # Errors
    /// When it told the same reader a higher one before, on the same connection.
    pub fn observed_high_watermark(
        &mut self,
        reader: u32,
        (group, node): (GroupId, NodeId),
        high_watermark: u64,
    ) -> Result<(), Violation> {
        self.know_end(group, high_watermark);
        let before = self.high_watermarks.insert((reader, node, group), high_watermark).unwrap_or_default();
        if before <= high_watermark {
            return Ok(());
        }
        let detail = format!("{group} at {node}: from {before} to {high_watermark}");
        Err(Violation::new("high watermark went back", detail))
    }

    /// A replica refused a read of what was let go, for its log starts at `start` and ends at `end`.
    ///
    /// # Errors
    /// When everything is to be kept, or it starts behind its end.
    pub fn log_start_told(
        &mut self,
        (group, node): (GroupId, NodeId),
        start: u64,
        end: u64,
    ) -> Result<(), Violation> {
        let seen = || format!("{node} said that {group} starts at {start} and ends at {end}");
        if self.keeps_everything {
            return Err(Violation::new("kept record let go", seen()));
        }
        if start > end {
            return Err(Violation::new("log starts behind its end", seen()));
        }
        self.know_end(group, end);
        let log = self.logs.entry(group).or_default();
        log.start = log.start.max(start);
        Ok(())
    }

    /// A client is about to ask for the latest end of a partition.
    #[must_use]
    pub fn end_asked(&self, group: GroupId) -> EndQuestion {
        let known_end = self.logs.get(&group).map_or(0, |log| log.known_end);
        EndQuestion { group, floor: known_end, losses: self.losses(group) }
    }

    /// A node told the latest end of a partition.
    ///
    /// # Errors
    /// When it told less than was known when it was asked, or more than can be there.
    pub fn end_told(&mut self, question: EndQuestion, node: NodeId, end: u64) -> Result<(), Violation> {
        let EndQuestion { group, floor, losses } = question;
        let floor = if losses == self.losses(group) { floor } else { 0 };
        let possible = self.logs.get(&group).map_or(0, |log| log.possible_end);
        if end < floor {
            let detail =
                format!("{node} said that {group} ends at {end}; {floor} was known before it was asked");
            return Err(Violation::new("late read", detail));
        }
        if end > possible {
            let detail =
                format!("{node} said that {group} ends at {end}; only {possible} records were appended");
            return Err(Violation::new("phantom end", detail));
        }
        self.know_end(group, end);
        Ok(())
    }

    fn know_end(&mut self, group: GroupId, end: u64) {
        let log = self.logs.entry(group).or_default();
        log.known_end = log.known_end.max(end);
    }

    /// A reader lost its connection with a node, which may have begun a new life and know less at first.
    pub fn disconnected(&mut self, reader: u32, node: NodeId) {
        self.high_watermarks.retain(|(other, with, _), _| (*other, *with) != (reader, node));
    }

    /// A client was given a producer id.
    ///
    /// # Errors
    /// When another client has it.
    pub fn registered(&mut self, producer: ProducerId, client: u32) -> Result<(), Violation> {
        let owner = *self.producers.entry(producer).or_insert(client);
        if owner == client {
            return Ok(());
        }
        let detail = format!("client {owner} and client {client} both have {producer}");
        Err(Violation::new("producer id given twice", detail))
    }

    /// The end of the newest acknowledged append of a partition.
    #[must_use]
    pub fn acked_end(&self, group: GroupId) -> u64 {
        self.logs.get(&group).map_or(0, |log| log.acked_end)
    }

    /// How many appends ended how, so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for append in &self.appends {
            match append.state {
                State::Acked => {
                    tally.acked += 1;
                    tally.records_acked += append.count();
                }
                State::Refused => tally.refused += 1,
                State::Pending | State::Unknown => tally.unknown += 1,
                State::Lost => tally.lost += 1,
            }
        }
        tally
    }

    /// Notes where an append stands, or checks that it stands where it should.
    fn place(&mut self, id: AppendId, base_offset: u64, source: &str) -> Result<(), Violation> {
        let append = &self.appends[id.0];
        let fail = |property, detail: String| {
            Err(Violation::new(property, format!("{}, by {source}: {detail}", append.describe())))
        };
        match append.placed {
            Some(placed) if placed == base_offset => return Ok(()),
            Some(placed) => {
                return fail("record stored twice", format!("at offset {base_offset} and at {placed}"));
            }
            None => {}
        }
        match append.state {
            State::Refused => return fail("refused append stored", format!("at offset {base_offset}")),
            State::Lost => return fail("lost record came back", format!("at offset {base_offset}")),
            State::Pending | State::Acked | State::Unknown => {}
        }
        if base_offset < append.floor {
            let floor = append.floor;
            let detail = format!("at offset {base_offset}, before {floor}, which was acknowledged earlier");
            return fail("records reordered", detail);
        }
        let log = self.logs.entry(append.invocation.group).or_default();
        let end = base_offset + append.count();
        if let Some((other_base, other)) = log.slots.range(..end).next_back() {
            let other = &self.appends[other.0];
            if other_base + other.count() > base_offset {
                let detail = format!("at offset {base_offset}, where {} stands", other.describe());
                return fail("two records at one offset", detail);
            }
        }
        log.slots.insert(base_offset, id);
        log.known_end = log.known_end.max(end);
        self.appends[id.0].placed = Some(base_offset);
        Ok(())
    }
}

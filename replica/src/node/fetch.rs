//! Reads: what is below the high watermark is handed out at once, from memory or from disk; what is not there yet is
//! waited for, as long as the consumer wishes.
//!
//! Any replica may serve: below its high watermark everything is committed and immutable. A replica that is behind knows
//! less, never anything else.

use std::collections::BTreeMap;
use std::time::Duration;

use varve_consensus::Replica;
use varve_protocol::client::{FetchOptions, Refusal};
use varve_protocol::frame::{Body, Command, Frame, FrameHeader};
use varve_protocol::id::{GroupId, Offset};
use varve_protocol::limits::{FETCH_BYTES_MAX, FETCH_WAIT_MS_MAX};
use varve_protocol::prepare::Prepare;
use varve_protocol::time::Moment;
use varve_storage::ReadFrom;

use crate::event::Session;
use crate::group::Group;
use crate::node::Node;
use crate::node::disk::PendingRead;
use crate::timers::Due;

/// Fetches that wait for records on one node.
const WAITING_MAX: usize = 65_536;

/// Names a waiting fetch.
pub(crate) type FetchId = u64;

/// One fetch under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fetch {
    session: Session,
    correlation: u64,
    group: GroupId,
    offset: Offset,
    bytes_max: usize,
}

impl Fetch {
    /// The first record that is wanted.
    pub(crate) fn offset(&self) -> Offset {
        self.offset
    }
}

/// The fetches that wait for records.
#[derive(Debug, Default)]
pub(crate) struct Fetches {
    waiting: BTreeMap<FetchId, (Moment, Fetch)>,
    by_group: BTreeMap<GroupId, Vec<FetchId>>,
    next_id: FetchId,
}

impl Node {
    pub(super) fn on_fetch(&mut self, session: Session, frame: &Frame) {
        let header = &frame.header;
        let options = varve_protocol::client::decode_archive(Command::Fetch, &frame.body.to_bytes());
        let Ok(FetchOptions { bytes_max, wait_ms }) = options else {
            let reason = "the options of the fetch are no sound archive".to_owned();
            return self.refuse(session, header.correlation, Refusal::Malformed { reason });
        };
        let fetch = Fetch {
            session,
            correlation: header.correlation,
            group: header.group,
            offset: Offset::new(header.op.as_raw()),
            bytes_max: (bytes_max as usize).min(FETCH_BYTES_MAX),
        };
        // One that has no voice yet may hold less than this node did in an earlier stay.
        let replica = self.groups.get(&fetch.group).and_then(Group::reader);
        let Some(replica) = replica.filter(|replica| replica.is_admitted()) else {
            let refusal = self.why_no_replica(fetch.group);
            return self.refuse(session, fetch.correlation, refusal);
        };
        let earliest = replica.log_start().offset;
        if fetch.offset < earliest {
            let refusal = Refusal::OffsetOutOfRange { earliest, next: replica.next_offset_committed() };
            self.refuse(session, fetch.correlation, refusal);
        } else if fetch.offset < replica.next_offset_committed() {
            self.serve_fetch(fetch);
        } else if is_beyond_log(replica, fetch.offset) {
            let refusal = Refusal::OffsetOutOfRange { earliest, next: replica.next_offset_committed() };
            self.refuse(session, fetch.correlation, refusal);
        } else if wait_ms == 0 {
            self.answer_fetch(&fetch, Vec::new());
        } else if self.fetches.waiting.len() >= WAITING_MAX {
            self.refuse(session, fetch.correlation, Refusal::Busy);
        } else {
            self.park(fetch, Duration::from_millis(wait_ms.min(FETCH_WAIT_MS_MAX).into()));
        }
    }

    pub(super) fn on_fetch_due(&mut self, id: FetchId) {
        if let Some(fetch) = self.unpark(id) {
            self.answer_fetch(&fetch, Vec::new());
        }
    }

    /// Serves the fetches that waited for what has just been committed.
    pub(super) fn wake_fetches(&mut self, group: GroupId) {
        let Some(replica) = self.groups.get(&group).and_then(Group::replica) else { return };
        let high_watermark = replica.next_offset_committed();
        let Some(ids) = self.fetches.by_group.get(&group) else { return };
        let is_ready =
            |id: &FetchId| self.fetches.waiting.get(id).is_some_and(|(_, f)| f.offset < high_watermark);
        let ready: Vec<FetchId> = ids.iter().copied().filter(is_ready).collect();
        for id in ready {
            if let Some(fetch) = self.unpark(id) {
                self.serve_fetch(fetch);
            }
        }
    }

    /// Forgets the fetches of a client that went away.
    pub(super) fn drop_fetches_of(&mut self, session: Session) {
        let of_session = |(_, (_, fetch)): &(&FetchId, &(Moment, Fetch))| fetch.session == session;
        let ids: Vec<FetchId> = self.fetches.waiting.iter().filter(of_session).map(|(id, _)| *id).collect();
        for id in ids {
            self.unpark(id);
        }
    }

    /// Refuses the fetches that wait on a group whose replica is gone.
    pub(super) fn refuse_fetches_of(&mut self, group: GroupId, refusal: &Refusal) {
        for id in self.fetches.by_group.get(&group).cloned().unwrap_or_default() {
            if let Some(fetch) = self.unpark(id) {
                self.refuse(fetch.session, fetch.correlation, refusal.clone());
            }
        }
    }

    /// What is asked for cannot be read here.
    pub(super) fn refuse_unreadable(&mut self, fetch: &Fetch) {
        let refusal = self.why_unreadable(fetch.group);
        self.refuse(fetch.session, fetch.correlation, refusal);
    }

    /// Hands out prepares that hold records at or behind the offset asked for.
    pub(super) fn answer_fetch(&mut self, fetch: &Fetch, prepares: Vec<Prepare>) {
        let Some(replica) = self.groups.get(&fetch.group).and_then(Group::replica) else {
            let refusal = self.why_no_replica(fetch.group);
            return self.refuse(fetch.session, fetch.correlation, refusal);
        };
        assert!(
            prepares.last().is_none_or(|last| last.op() <= replica.commit().op),
            "nothing above the commit is handed out"
        );
        let is_gone = prepares.first().is_some_and(|first| first.header().base_offset() > fetch.offset);
        if is_gone {
            // It was let go while it was read.
            let (earliest, next) = (replica.log_start().offset, replica.next_offset_committed());
            return self.refuse(
                fetch.session,
                fetch.correlation,
                Refusal::OffsetOutOfRange { earliest, next },
            );
        }
        let mut header = FrameHeader::new(Command::FetchOk, self.config.cluster);
        header.group = fetch.group;
        header.view = replica.view();
        header.commit = replica.next_offset_committed().as_raw();
        header.correlation = fetch.correlation;
        let body = Body::from_chunks(prepares.iter().flat_map(Prepare::chunks).collect());
        self.answer(fetch.session, Frame { header, body });
    }

    fn serve_fetch(&mut self, fetch: Fetch) {
        let Some(group) = self.groups.get(&fetch.group) else { return };
        let Some(replica) = group.replica() else { return };
        match group.tail.read(fetch.offset, fetch.bytes_max) {
            Some(prepares) => self.answer_fetch(&fetch, prepares),
            None => {
                let bounds = (fetch.bytes_max, replica.commit().op);
                let from = ReadFrom::Offset(fetch.offset);
                self.read(fetch.group, from, bounds, PendingRead::Fetch(fetch));
            }
        }
    }

    fn park(&mut self, fetch: Fetch, wait: Duration) {
        let id = self.fetches.next_id;
        self.fetches.next_id += 1;
        let until = self.now.plus(wait);
        self.fetches.waiting.insert(id, (until, fetch));
        self.fetches.by_group.entry(fetch.group).or_default().push(id);
        self.timers.set(until, Due::Fetch(id));
    }

    fn unpark(&mut self, id: FetchId) -> Option<Fetch> {
        let (until, fetch) = self.fetches.waiting.remove(&id)?;
        self.timers.clear(until, Due::Fetch(id));
        if let Some(ids) = self.fetches.by_group.get_mut(&fetch.group) {
            ids.retain(|waiting| *waiting != id);
            if ids.is_empty() {
                self.fetches.by_group.remove(&fetch.group);
            }
        }
        Some(fetch)
    }
}

/// Whether no record can have this offset: the primary knows the log's end; a backup may be behind, and waits.
fn is_beyond_log(replica: &Replica, offset: Offset) -> bool {
    replica.is_primary() && offset > replica.log_end()
}

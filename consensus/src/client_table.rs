//! The client table: what makes a retried request happen once.
//!
//! It is a function of the committed log and of nothing else: every replica that has applied the same ops holds the same
//! table, and a new primary need not be told it. Per producer it remembers the last [`CLIENT_TABLE_REQUESTS_MAX`] request
//! numbers with the place of each in the log. It remembers [`CLIENT_TABLE_PRODUCERS_MAX`] producers; the one whose last op
//! is lowest is evicted first, on all replicas alike.
//!
//! Source: VRR section 4.1; the window of several requests is ours, so that a pipeline can be retried in full.

use std::collections::{BTreeMap, VecDeque};

use varve_protocol::id::{Offset, Op, ProducerId, RequestNumber};
use varve_protocol::limits::{CLIENT_TABLE_PRODUCERS_MAX, CLIENT_TABLE_REQUESTS_MAX};
use varve_protocol::prepare::PrepareHeader;

/// Where a request ended up.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Place {
    pub(crate) op: Op,
    pub(crate) base_offset: Offset,
}

/// What the table knows of one request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Known {
    /// The producer is not in the table: never seen here, or evicted.
    Nobody,
    /// The request is later than all that are committed; `last` is the newest of those.
    Later {
        /// Newest committed request of this producer.
        last: RequestNumber,
    },
    /// It is committed.
    Committed(Place),
    /// It is older than what the table remembers.
    Forgotten,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Session {
    last: RequestNumber,
    last_op: Op,
    places: VecDeque<(RequestNumber, Place)>,
}

/// Sessions of one group.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub(crate) struct ClientTable {
    sessions: BTreeMap<ProducerId, Session>,
    /// Sessions by their last op: who is evicted next.
    by_last_op: BTreeMap<Op, ProducerId>,
}

/// Whether a prepare belongs to a session.
pub(crate) fn has_session(producer: ProducerId, request: RequestNumber) -> bool {
    producer != ProducerId::ZERO && request != RequestNumber::ZERO
}

impl ClientTable {
    /// Takes the next committed prepare into account.
    pub(crate) fn apply(&mut self, header: &PrepareHeader) {
        let (producer, request) = (header.producer(), header.request());
        if !has_session(producer, request) {
            return;
        }
        self.note(producer, request, Place { op: header.op(), base_offset: header.base_offset() });
    }

    /// Remembers where a producer's newest request stands.
    pub(crate) fn note(&mut self, producer: ProducerId, request: RequestNumber, place: Place) {
        let session = self.sessions.entry(producer).or_insert_with(|| Session {
            last: request,
            last_op: Op::ZERO,
            places: VecDeque::new(),
        });
        self.by_last_op.remove(&session.last_op);
        session.last = request;
        session.last_op = place.op;
        session.places.push_back((request, place));
        if session.places.len() > CLIENT_TABLE_REQUESTS_MAX {
            session.places.pop_front();
        }
        self.by_last_op.insert(place.op, producer);
        if self.sessions.len() > CLIENT_TABLE_PRODUCERS_MAX
            && let Some((_, evicted)) = self.by_last_op.pop_first()
        {
            self.sessions.remove(&evicted);
        }
    }

    /// All that is remembered, producers in the order of their last ops.
    pub(crate) fn sessions(&self) -> impl Iterator<Item = (ProducerId, &VecDeque<(RequestNumber, Place)>)> {
        self.by_last_op.values().map(|producer| (*producer, &self.sessions[producer].places))
    }

    /// What is known of a request.
    pub(crate) fn look_up(&self, producer: ProducerId, request: RequestNumber) -> Known {
        let Some(session) = self.sessions.get(&producer) else { return Known::Nobody };
        if request > session.last {
            return Known::Later { last: session.last };
        }
        match session.places.iter().find(|(number, _)| *number == request) {
            Some((_, place)) => Known::Committed(*place),
            None => Known::Forgotten,
        }
    }
}

#[cfg(test)]
mod tests {
    use varve_protocol::id::{ClusterId, Epoch, GroupId, Timestamp, View};
    use varve_protocol::prepare::{PrepareFields, PrepareId, PrepareKind};
    use varve_protocol::version::Version;

    use super::*;

    fn header(op: u64, producer: u64, request: u64) -> PrepareHeader {
        let fields = PrepareFields {
            version: Version::FIRST,
            cluster: ClusterId::new(1),
            group: GroupId::new(1),
            view: View::ZERO,
            parent: PrepareId { op: Op::new(op - 1), view: View::ZERO, checksum: 0 },
            epoch: Epoch::ZERO,
            kind: PrepareKind::Records,
            base_offset: Offset::new(op * 10),
            record_count: 10,
            timestamp: Timestamp::new(op),
            producer: ProducerId::new(producer),
            request: RequestNumber::new(request),
        };
        PrepareHeader::seal(fields, b"")
    }

    fn look_up(table: &ClientTable, producer: u64, request: u64) -> Known {
        table.look_up(ProducerId::new(producer), RequestNumber::new(request))
    }

    #[test]
    fn the_last_requests_are_remembered_with_their_places() {
        let mut table = ClientTable::default();
        let last = CLIENT_TABLE_REQUESTS_MAX as u64 + 1;
        for request in 1..=last {
            table.apply(&header(request, 7, request));
        }
        assert_eq!(look_up(&table, 7, 1), Known::Forgotten);
        let place = Place { op: Op::new(2), base_offset: Offset::new(20) };
        assert_eq!(look_up(&table, 7, 2), Known::Committed(place));
        assert_eq!(look_up(&table, 7, last + 5), Known::Later { last: RequestNumber::new(last) });
        assert_eq!(look_up(&table, 8, 1), Known::Nobody);
    }

    #[test]
    fn a_prepare_without_a_session_leaves_no_trace() {
        let mut table = ClientTable::default();
        table.apply(&header(1, 0, 0));
        assert_eq!(table, ClientTable::default());
    }

    #[test]
    fn the_producer_idle_for_the_most_ops_is_evicted() {
        let mut table = ClientTable::default();
        let count = CLIENT_TABLE_PRODUCERS_MAX as u64;
        for producer in 1..=count {
            table.apply(&header(producer, producer, 1));
        }
        table.apply(&header(count + 1, 1, 2));
        table.apply(&header(count + 2, count + 1, 1));
        assert_eq!(look_up(&table, 2, 1), Known::Nobody);
        assert_eq!(look_up(&table, 1, 3), Known::Later { last: RequestNumber::new(2) });
        assert_eq!(table.sessions.len(), CLIENT_TABLE_PRODUCERS_MAX);
        assert_eq!(table.by_last_op.len(), CLIENT_TABLE_PRODUCERS_MAX);
    }
}

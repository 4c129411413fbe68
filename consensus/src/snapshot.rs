//! The state of a group that its log has brought about: what a snapshot holds, and how the prepares that are let go become one.
//!
//! Little-endian:
//!
//! | size | name           | meaning                                                          |
//! |-----:|----------------|------------------------------------------------------------------|
//! |    4 | sessions       | number of producers that follow                                  |
//! |      |                | for each producer, in the order of their last ops:               |
//! |    8 | producer       |                                                                  |
//! |    4 | requests       | number of its requests that follow, the newest one last          |
//! |   24 | request        | for each: number, op, offset of the first record (8 bytes each)  |
//! |    4 | replacements   | number of entries that follow                                    |
//! |   32 | replacement    | for each: op (8 bytes), body of the prepare (24 bytes)           |
//! |    4 | size           | bytes that follow; absent if none do                             |
//! | size | beside         | what the driver keeps beside it: the metadata have no other state |
//!
//! A snapshot is a function of the prepares up to its op: two replicas that make one at the same op make the same.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use varve_protocol::id::{Offset, Op, ProducerId, RequestNumber};
use varve_protocol::limits::{CLIENT_TABLE_PRODUCERS_MAX, CLIENT_TABLE_REQUESTS_MAX, FRAME_BODY_BYTES_MAX};
use varve_protocol::prepare::{Prepare, PrepareHeader};
use varve_protocol::replacement::Replacement;
use varve_protocol::snapshot::Snapshot;

use crate::client_table::{ClientTable, Place};
use crate::replacements::Replacements;

const PLACE_SIZE: usize = 24;
const REPLACEMENT_SIZE: usize = 32;

const _: () = assert!(
    CLIENT_TABLE_PRODUCERS_MAX * (12 + CLIENT_TABLE_REQUESTS_MAX * PLACE_SIZE) < FRAME_BODY_BYTES_MAX / 2,
    "a snapshot fits a frame"
);

/// What a snapshot holds.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct State {
    pub(crate) client_table: ClientTable,
    pub(crate) replacements: Replacements,
}

impl State {
    pub(crate) fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        let sessions: Vec<_> = self.client_table.sessions().collect();
        bytes.put_u32_le(count(sessions.len()));
        for (producer, places) in sessions {
            bytes.put_u64_le(producer.as_raw());
            bytes.put_u32_le(count(places.len()));
            for (request, place) in places {
                bytes.put_u64_le(request.as_raw());
                bytes.put_u64_le(place.op.as_raw());
                bytes.put_u64_le(place.base_offset.as_raw());
            }
        }
        let replacements: Vec<_> = self.replacements.iter().collect();
        bytes.put_u32_le(count(replacements.len()));
        for (op, replacement) in replacements {
            bytes.put_u64_le(op.as_raw());
            bytes.extend_from_slice(&replacement.encode());
        }
        bytes.freeze()
    }

    /// `None` if the bytes are no state.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        Self::split(bytes).map(|(state, _)| state)
    }

    /// The state, and what the driver keeps beside it.
    fn split(mut bytes: &[u8]) -> Option<(Self, &[u8])> {
        let mut state = Self::default();
        for _ in 0..bytes.try_get_u32_le().ok()? {
            let producer = ProducerId::new(bytes.try_get_u64_le().ok()?);
            let requests = bytes.try_get_u32_le().ok()? as usize;
            if requests == 0 || bytes.len() / PLACE_SIZE < requests {
                return None;
            }
            for _ in 0..requests {
                let request = RequestNumber::new(bytes.get_u64_le());
                let op = Op::new(bytes.get_u64_le());
                let base_offset = Offset::new(bytes.get_u64_le());
                state.client_table.note(producer, request, Place { op, base_offset });
            }
        }
        for _ in 0..bytes.try_get_u32_le().ok()? {
            let (entry, rest) = bytes.split_at_checked(REPLACEMENT_SIZE)?;
            let (op, body) = entry.split_at_checked(8)?;
            let op = Op::new(u64::from_le_bytes(op.try_into().ok()?));
            state.replacements.push(op, Replacement::decode(body)?);
            bytes = rest;
        }
        if bytes.is_empty() {
            return Some((state, bytes));
        }
        let size = bytes.try_get_u32_le().ok()? as usize;
        (size > 0 && size == bytes.len()).then_some((state, bytes))
    }
}

fn count(len: usize) -> u32 {
    u32::try_from(len).expect("tables are bounded")
}

/// What the driver keeps in a snapshot beside the state of the group; empty if there is none. `None` if the snapshot's state cannot be
/// read.
#[must_use]
pub fn beside(snapshot: &Snapshot) -> Option<&[u8]> {
    State::split(&snapshot.state).map(|(_, beside)| beside)
}

/// Makes a snapshot of the prepares that are let go.
#[derive(Debug)]
pub struct SnapshotBuilder {
    state: State,
    last: Option<PrepareHeader>,
}

impl SnapshotBuilder {
    /// Goes on from the snapshot that the log builds on; `None`: from the empty log. `None` is returned for a snapshot whose
    /// state cannot be read.
    #[must_use]
    pub fn new(before: Option<&Snapshot>) -> Option<Self> {
        match before {
            None => Some(Self { state: State::default(), last: None }),
            Some(snapshot) => {
                Some(Self { state: State::decode(&snapshot.state)?, last: Some(snapshot.header) })
            }
        }
    }

    /// Takes the header of the next prepare; the prepare too unless its body is records.
    ///
    /// # Panics
    /// If it is not the next one.
    pub fn push(&mut self, header: &PrepareHeader, prepare: Option<&Prepare>) {
        let is_next = self.last.is_none_or(|last| header.parent() == last.id());
        assert!(is_next, "prepares become a snapshot in their order");
        self.state.client_table.apply(header);
        if let Some(prepare) = prepare {
            self.state.replacements.note(prepare);
        }
        self.last = Some(*header);
    }

    /// The snapshot, with what the driver keeps beside it; `None` if nothing was taken.
    #[must_use]
    pub fn finish(&self, beside: &[u8]) -> Option<Snapshot> {
        let mut state = BytesMut::from(self.state.encode());
        if !beside.is_empty() {
            state.put_u32_le(count(beside.len()));
            state.extend_from_slice(beside);
        }
        Some(Snapshot { header: self.last?, state: state.freeze() })
    }
}

#[cfg(test)]
mod tests {
    use varve_protocol::id::{DirectoryId, NodeId, ReplicaIndex};
    use varve_protocol::replacement::Change;

    use super::*;

    fn state() -> State {
        let mut state = State::default();
        let place = |op: u64| Place { op: Op::new(op), base_offset: Offset::new(op * 10) };
        for (producer, request, op) in [(7, 1, 1), (9, 5, 2), (7, 2, 3)] {
            state.client_table.note(ProducerId::new(producer), RequestNumber::new(request), place(op));
        }
        let replacement = Replacement {
            replica: ReplicaIndex::new(2),
            change: Change::Seated,
            node: NodeId::new(3),
            directory: DirectoryId::new(77),
            known_at: Op::new(5),
        };
        state.replacements.push(Op::new(4), replacement);
        state
    }

    #[test]
    fn a_state_survives_the_trip() {
        for state in [State::default(), state()] {
            assert_eq!(State::decode(&state.encode()), Some(state));
        }
    }

    #[test]
    fn what_is_cut_short_or_too_long_is_refused() {
        let bytes = state().encode();
        for size in 0..bytes.len() {
            assert_eq!(State::decode(&bytes[..size]), None, "cut at {size}");
        }
        assert_eq!(State::decode(&[&bytes[..], &[0]].concat()), None);
        assert_eq!(State::decode(&[0xff; 64]), None, "counts are not believed");
    }

    #[test]
    fn a_state_has_these_bytes() {
        let hex: String = state().encode().iter().map(|byte| format!("{byte:02x}")).collect();
        let fields = [
            "02000000",
            "0900000000000000",
            "01000000",
            "0500000000000000",
            "0200000000000000",
            "1400000000000000",
            "0700000000000000",
            "02000000",
            "0100000000000000",
            "0100000000000000",
            "0a00000000000000",
            "0200000000000000",
            "0300000000000000",
            "1e00000000000000",
            "01000000",
            "0400000000000000",
            "02",
            "03",
            "000000000000",
            "4d00000000000000",
            "0500000000000000",
        ];
        assert_eq!(hex, fields.concat());
    }
}

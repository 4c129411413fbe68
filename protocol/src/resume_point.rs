//! Where a start may go on reading a log: what all prepares up to a committed op have brought about, kept beside the segments
//! so that those before need not be read again.
//!
//! It is this replica's own and replaces nothing: whoever does not find it, or does not trust it, reads the log from its
//! beginning. Little-endian:
//!
//! | offset | size | name     | meaning                                                  |
//! |-------:|-----:|----------|----------------------------------------------------------|
//! |      0 |    4 | checksum | CRC-32 of all that follows                               |
//! |      4 |    4 | magic    | `VRVQ`                                                   |
//! |      8 |    4 | version  | 1                                                        |
//! |     12 |    4 | reserved | zero                                                     |
//! |     16 |   16 | start    | where the log starts for consumers, see [`LogStart`]     |
//! |     32 |    . | snapshot | the state as of that op, see [`Snapshot`]                |

use bytes::{BufMut, Bytes, BytesMut};

use crate::checksum::checksum;
use crate::id::Op;
use crate::log_start::LogStart;
use crate::snapshot::Snapshot;

const MAGIC: u32 = u32::from_le_bytes(*b"VRVQ");
const VERSION: u32 = 1;
const START_AT: usize = 16;
const SNAPSHOT_AT: usize = 32;

/// Applied state as of a committed op in the midst of a log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ResumePoint {
    /// Where the log starts, as its entries up to that op say.
    pub log_start: LogStart,
    /// The state, and the header of the op.
    pub snapshot: Snapshot,
}

impl ResumePoint {
    /// The op as of which the state is.
    #[must_use]
    pub fn op(&self) -> Op {
        self.snapshot.op()
    }

    /// The bytes as stored.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut rest = BytesMut::new();
        rest.put_u32_le(MAGIC);
        rest.put_u32_le(VERSION);
        rest.put_u32_le(0);
        rest.extend_from_slice(&self.log_start.encode());
        rest.extend_from_slice(&self.snapshot.encode());
        let mut bytes = BytesMut::with_capacity(4 + rest.len());
        bytes.put_u32_le(checksum(&rest));
        bytes.extend_from_slice(&rest);
        bytes.freeze()
    }

    /// Reads and verifies the bytes; `None` if they are no sound resume point of this version.
    #[must_use]
    pub fn decode(bytes: &Bytes) -> Option<Self> {
        let u32_at = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let is_sound =
            u32_at(0)? == checksum(bytes.get(4..)?) && u32_at(4)? == MAGIC && u32_at(8)? == VERSION;
        if !is_sound || u32_at(12)? != 0 || bytes.len() < SNAPSHOT_AT {
            return None;
        }
        let log_start = LogStart::decode(&bytes[START_AT..SNAPSHOT_AT])?;
        let snapshot = Snapshot::decode(&bytes.slice(SNAPSHOT_AT..))?;
        (log_start <= snapshot.log_start()).then_some(Self { log_start, snapshot })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ClusterId, Epoch, GroupId, Offset, ProducerId, RequestNumber, Timestamp, View};
    use crate::prepare::{PrepareFields, PrepareHeader, PrepareId, PrepareKind};
    use crate::version::Version;

    fn point() -> ResumePoint {
        let fields = PrepareFields {
            version: Version::FIRST,
            cluster: ClusterId::new(1),
            group: GroupId::new(2),
            view: View::new(3),
            parent: PrepareId { op: Op::new(41), view: View::new(2), checksum: 7 },
            epoch: Epoch::ZERO,
            kind: PrepareKind::Records,
            base_offset: Offset::new(100),
            record_count: 5,
            timestamp: Timestamp::new(9),
            producer: ProducerId::ZERO,
            request: RequestNumber::ZERO,
        };
        let header = PrepareHeader::seal(fields, b"body");
        ResumePoint {
            log_start: LogStart { op: Op::new(0x0102), offset: Offset::new(0x0a) },
            snapshot: Snapshot { header, state: Bytes::from_static(b"state") },
        }
    }

    #[test]
    fn a_resume_point_has_these_bytes() {
        let point =
            ResumePoint { log_start: LogStart { op: Op::new(7), offset: Offset::new(10) }, ..point() };
        let bytes = point.encode();
        let hex: String = bytes[4..SNAPSHOT_AT].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "565256510100000000000000".to_owned() + "07000000000000000a00000000000000");
        assert_eq!(bytes[SNAPSHOT_AT..], point.snapshot.encode());
        assert_eq!(ResumePoint::decode(&bytes), Some(point));
    }

    #[test]
    fn no_damage_passes() {
        let sound = ResumePoint { log_start: LogStart::FIRST, ..point() }.encode();
        for size in 0..sound.len() {
            assert_eq!(ResumePoint::decode(&sound.slice(..size)), None, "cut at {size}");
        }
        for bit in 0..sound.len() * 8 {
            let mut rotten = sound.to_vec();
            rotten[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(ResumePoint::decode(&rotten.into()), None, "bit {bit}");
        }
    }

    #[test]
    fn a_log_does_not_start_behind_what_is_known_of_it() {
        assert_eq!(ResumePoint::decode(&point().encode()), None);
    }
}

//! What a log builds on that does not begin with op 1: the state that all prepares up to an op have brought about, and the
//! header of that op, to which the next prepare is chained.
//!
//! A replica that has let go of old segments keeps it beside the others, and sends it to whoever lacks something older.
//! Little-endian:
//!
//! | offset | size | name     | meaning                                          |
//! |-------:|-----:|----------|--------------------------------------------------|
//! |      0 |    4 | checksum | CRC-32 of all that follows                       |
//! |      4 |    4 | magic    | `VRVN`                                           |
//! |      8 |    4 | version  | 1                                                |
//! |     12 |    4 | size     | bytes of the state                               |
//! |     16 |  128 | header   | of the last prepare that the state contains      |
//! |    144 | size | state    | what it means is known to `varve_consensus` only |

use bytes::{BufMut, Bytes, BytesMut};

use crate::checksum::checksum;
use crate::id::{Offset, Op};
use crate::log_start::LogStart;
use crate::prepare::{PREPARE_HEADER_SIZE, PrepareHeader, PrepareId};

const MAGIC: u32 = u32::from_le_bytes(*b"VRVN");
const VERSION: u32 = 1;
const STATE_AT: usize = 16 + PREPARE_HEADER_SIZE;

/// Applied state as of an op.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// The last prepare that the state contains.
    pub header: PrepareHeader,
    /// The state.
    pub state: Bytes,
}

impl Snapshot {
    /// The name of the last prepare that the state contains.
    #[must_use]
    pub fn id(&self) -> PrepareId {
        self.header.id()
    }

    /// The last op that the state contains.
    #[must_use]
    pub fn op(&self) -> Op {
        self.header.op()
    }

    /// Offset of the first record behind it.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.header.next_offset()
    }

    /// Where a log starts that builds on it.
    #[must_use]
    pub fn log_start(&self) -> LogStart {
        LogStart { op: self.op().next(), offset: self.next_offset() }
    }

    /// The bytes as stored and sent.
    ///
    /// # Panics
    /// If the state is larger than 4 GiB: what it is made of is bounded far below that.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut rest = BytesMut::with_capacity(STATE_AT + self.state.len());
        rest.put_u32_le(MAGIC);
        rest.put_u32_le(VERSION);
        rest.put_u32_le(u32::try_from(self.state.len()).expect("a snapshot is small"));
        rest.extend_from_slice(self.header.as_bytes());
        rest.extend_from_slice(&self.state);
        let mut bytes = BytesMut::with_capacity(4 + rest.len());
        bytes.put_u32_le(checksum(&rest));
        bytes.extend_from_slice(&rest);
        bytes.freeze()
    }

    /// Reads and verifies the bytes; `None` if they are no sound snapshot of this version.
    #[must_use]
    pub fn decode(bytes: &Bytes) -> Option<Self> {
        let u32_at = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let is_sound = u32_at(0)? == checksum(bytes.get(4..)?)
            && u32_at(4)? == MAGIC
            && u32_at(8)? == VERSION
            && bytes.len() == STATE_AT.checked_add(u32_at(12)? as usize)?;
        if !is_sound {
            return None;
        }
        let header = PrepareHeader::decode(&bytes[16..STATE_AT]).ok()?;
        Some(Self { header, state: bytes.slice(STATE_AT..) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ClusterId, Epoch, GroupId, ProducerId, RequestNumber, Timestamp, View};
    use crate::prepare::{PrepareFields, PrepareKind};
    use crate::version::Version;

    fn snapshot() -> Snapshot {
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
        Snapshot { header: PrepareHeader::seal(fields, b"body"), state: Bytes::from_static(b"state") }
    }

    #[test]
    fn a_snapshot_has_these_bytes() {
        let bytes = snapshot().encode();
        let hex: String = bytes[4..16].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "5652564e0100000005000000");
        assert_eq!((&bytes[16..STATE_AT], &bytes[STATE_AT..]), (snapshot().header.as_bytes(), &b"state"[..]));
        assert_eq!(Snapshot::decode(&bytes), Some(snapshot()));
        assert_eq!(snapshot().log_start(), LogStart { op: Op::new(43), offset: Offset::new(105) });
    }

    #[test]
    fn no_damage_passes() {
        let sound = snapshot().encode();
        for size in 0..sound.len() {
            assert_eq!(Snapshot::decode(&sound.slice(..size)), None, "cut at {size}");
        }
        for bit in 0..sound.len() * 8 {
            let mut rotten = sound.to_vec();
            rotten[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Snapshot::decode(&rotten.into()), None, "bit {bit}");
        }
    }
}

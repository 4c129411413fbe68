//! Where a partition's log starts: the entry of a group's own log that lets go of what is older.
//!
//! The body of a prepare of kind `LogStart` is 16 bytes, little-endian:
//!
//! | offset | size | name   | meaning                                                         |
//! |-------:|-----:|--------|-----------------------------------------------------------------|
//! |      0 |    8 | op     | the first prepare that is kept; not zero, below the entry's own |
//! |      8 |    8 | offset | offset of the first record that is kept                         |
//!
//! It is the same on all replicas, for it is in the log. What each of them lets go of on its disk are whole segments below it.

use bytes::{BufMut, Bytes, BytesMut};

use crate::id::{Offset, Op};

/// The beginning of what a partition keeps.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LogStart {
    /// The first prepare that is kept.
    pub op: Op,
    /// Offset of the first record that is kept: consumers are refused what is below.
    pub offset: Offset,
}

impl LogStart {
    /// Nothing was let go yet.
    pub const FIRST: Self = Self { op: Op::new(1), offset: Offset::ZERO };

    /// The body of the prepare.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut body = BytesMut::with_capacity(16);
        body.put_u64_le(self.op.as_raw());
        body.put_u64_le(self.offset.as_raw());
        body.freeze()
    }

    /// Reads the body of a prepare; `None` if it is none.
    #[must_use]
    pub fn decode(body: &[u8]) -> Option<Self> {
        let (op, offset) = body.split_at_checked(8)?;
        let op = Op::new(u64::from_le_bytes(op.try_into().ok()?));
        let offset = Offset::new(u64::from_le_bytes(offset.try_into().ok()?));
        (op > Op::ZERO).then_some(Self { op, offset })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_start_has_these_bytes() {
        let start = LogStart { op: Op::new(0x0102), offset: Offset::new(0x0a) };
        let hex: String = start.encode().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "02010000000000000a00000000000000");
        assert_eq!(LogStart::decode(&start.encode()), Some(start));
    }

    #[test]
    fn what_is_no_log_start_is_refused() {
        let sound = LogStart::FIRST.encode();
        assert!((0..16).all(|size| LogStart::decode(&sound[..size]).is_none()), "cut short");
        assert_eq!(LogStart::decode(&[0; 16]), None, "no op is zero");
        assert_eq!(LogStart::decode(&[1; 17]), None, "bytes are left over");
    }
}

//! The pulse between two nodes: "alive", and news of the groups that have any. Idle groups are not mentioned.
//!
//! Frame fields: op = sequence number of the pulse, commit = the newest sequence number that the sender has heard from the
//! receiver (zero: none), correlation = the sender's incarnation. The body is one entry of 36 bytes per group with news:
//!
//! | offset | size | name            | meaning                          |
//! |-------:|-----:|-----------------|----------------------------------|
//! |      0 |    8 | group           |                                  |
//! |      8 |    8 | view            | the view the sender leads        |
//! |     16 |    8 | commit          | op of the newest committed prepare |
//! |     24 |    8 | commit_view     | its view                         |
//! |     32 |    4 | commit_checksum | its checksum                     |

use bytes::{BufMut, BytesMut};

use crate::frame::{Command, Frame, FrameError, FrameHeader};
use crate::id::{ClusterId, GroupId, Incarnation, Op, View};
use crate::prepare::PrepareId;

const ENTRY_SIZE: usize = 36;

/// News of one group, told by its primary.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PulseEntry {
    /// The group.
    pub group: GroupId,
    /// The view the sender leads.
    pub view: View,
    /// Its newest committed prepare.
    pub commit: PrepareId,
}

/// One pulse.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pulse {
    /// Grows by one with every pulse to the same receiver.
    pub sequence: u64,
    /// The newest sequence number heard from the receiver; zero if none.
    pub echo: u64,
    /// Which life of the sender's process this is.
    pub incarnation: Incarnation,
    /// Groups with news.
    pub entries: Vec<PulseEntry>,
}

impl Pulse {
    /// The frame that carries this pulse.
    #[must_use]
    pub fn to_frame(&self, cluster: ClusterId) -> Frame {
        let mut header = FrameHeader::new(Command::Pulse, cluster);
        header.op = Op::new(self.sequence);
        header.commit = self.echo;
        header.correlation = self.incarnation.as_raw();
        let mut body = BytesMut::with_capacity(self.entries.len() * ENTRY_SIZE);
        for entry in &self.entries {
            body.put_u64_le(entry.group.as_raw());
            body.put_u64_le(entry.view.as_raw());
            body.put_u64_le(entry.commit.op.as_raw());
            body.put_u64_le(entry.commit.view.as_raw());
            body.put_u32_le(entry.commit.checksum);
        }
        Frame { header, body: body.freeze().into() }
    }

    /// Reads a pulse.
    ///
    /// # Errors
    /// When the body is not a row of entries.
    pub fn from_frame(frame: &Frame) -> Result<Self, FrameError> {
        let body = frame.body.to_bytes();
        let pieces = body.chunks_exact(ENTRY_SIZE);
        if !pieces.remainder().is_empty() {
            let reason = "its size is no multiple of an entry's";
            return Err(FrameError::Body { command: Command::Pulse, reason });
        }
        let u64_at = |piece: &[u8], at: usize| {
            u64::from_le_bytes(piece[at..at + 8].try_into().expect("eight bytes make a u64"))
        };
        let entries = pieces.map(|piece| PulseEntry {
            group: GroupId::new(u64_at(piece, 0)),
            view: View::new(u64_at(piece, 8)),
            commit: PrepareId {
                op: Op::new(u64_at(piece, 16)),
                view: View::new(u64_at(piece, 24)),
                checksum: u32::from_le_bytes(piece[32..36].try_into().expect("four bytes make a u32")),
            },
        });
        Ok(Self {
            sequence: frame.header.op.as_raw(),
            echo: frame.header.commit,
            incarnation: Incarnation::new(frame.header.correlation),
            entries: entries.collect(),
        })
    }
}

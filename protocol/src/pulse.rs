//! The pulse between two nodes: "alive", and news of the groups that have any. Idle groups are not mentioned.
//!
//! Frame fields: op = sequence number of the pulse, commit = the newest sequence number that the sender has heard from the
//! receiver (zero: none), correlation = the sender's incarnation. The body starts with who the sender is:
//!
//! | offset | size | name          | meaning                                                           |
//! |-------:|-----:|---------------|-------------------------------------------------------------------|
//! |      0 |    8 | directory     | the sender's data directory                                       |
//! |      8 |    1 | is_fresh      | 1 if that directory belongs to no cluster yet, else 0             |
//! |      9 |    1 | founder_count | founders that follow                                              |
//! |     10 |    8 | sent_at       | when this pulse was sent, by the sender's wall clock, in microseconds since 1970 |
//! |     18 |    4 | held          | microseconds before that, when the pulse came that is echoed; zero if there is none |
//! |     22 |    2 | versions      | the oldest and the newest that the sender's release knows; see [`crate::version`] |
//! |     24 |  9 k | founders      | node (1 byte) and its directory (8 bytes); see [`Pulse::founders`] |
//! |      - |    1 | moving_count  | replicas on their way to the sender that follow                   |
//! |      - | 25 m | moving        | group, the op that began the move, the newest op that is committed and durable here (8 bytes each); how far it is: [`Stage`] (1 byte) |
//!
//! Then comes one entry of 36 bytes per group with news:
//!
//! | offset | size | name            | meaning                          |
//! |-------:|-----:|-----------------|----------------------------------|
//! |      0 |    8 | group           |                                  |
//! |      8 |    8 | view            | the view the sender leads        |
//! |     16 |    8 | commit          | op of the newest committed prepare |
//! |     24 |    8 | commit_view     | its view                         |
//! |     32 |    4 | commit_checksum | its checksum                     |

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{BufMut, BytesMut};

use crate::frame::{Command, Frame, FrameError, FrameHeader};
use crate::id::{ClusterId, DirectoryId, GroupId, Incarnation, NodeId, Op, Timestamp, View};
use crate::prepare::PrepareId;
use crate::version::{Version, Versions};

const SENDER_SIZE: usize = 24;
const FOUNDER_SIZE: usize = 9;
const MOVING_SIZE: usize = 25;
const ENTRY_SIZE: usize = 36;

/// Replicas on their way that one pulse tells of.
pub const PULSE_MOVING_MAX: usize = 32;

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

/// How far a replica is that is on its way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Stage {
    /// It listens.
    Listening,
    /// It stands in its place, and will know that after any restart.
    Seated,
    /// What the move was to bring about is so, for good.
    Done,
}

const STAGES: [Stage; 3] = [Stage::Listening, Stage::Seated, Stage::Done];

/// How far a replica is that is being moved to the sender, or leaves a group that the sender leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PulseMoving {
    /// The group.
    pub group: GroupId,
    /// The op of the metadata that began the move.
    pub since: Op,
    /// The newest op that is committed, and durable there.
    pub reached: Op,
    /// How far that is.
    pub stage: Stage,
}

/// Nodes with their data directories.
pub type Founders = BTreeMap<NodeId, DirectoryId>;

/// One pulse.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pulse {
    /// Grows by one with every pulse to the same receiver.
    pub sequence: u64,
    /// The newest sequence number heard from the receiver; zero if none.
    pub echo: u64,
    /// When it was sent, by the sender's wall clock.
    pub sent_at: Timestamp,
    /// How long before that the pulse came which is echoed, in whole microseconds.
    pub held: Duration,
    /// Which life of the sender's process this is.
    pub incarnation: Incarnation,
    /// The sender's data directory.
    pub directory: DirectoryId,
    /// What the sender's release knows.
    pub versions: Versions,
    /// Whether that directory belongs to no cluster yet: nothing was ever promised in it.
    pub is_fresh: bool,
    /// From a fresh sender: itself and the nodes that it has heard to be fresh. From another, to a fresh receiver: the
    /// directories that the cluster was founded with.
    pub founders: Founders,
    /// Replicas on their way to the sender, at most [`PULSE_MOVING_MAX`].
    pub moving: Vec<PulseMoving>,
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
        let size = SENDER_SIZE
            + self.founders.len() * FOUNDER_SIZE
            + 1
            + self.moving.len() * MOVING_SIZE
            + self.entries.len() * ENTRY_SIZE;
        let mut body = BytesMut::with_capacity(size);
        body.put_u64_le(self.directory.as_raw());
        body.put_u8(self.is_fresh.into());
        body.put_u8(u8::try_from(self.founders.len()).expect("there are fewer nodes than a byte can count"));
        body.put_u64_le(self.sent_at.as_raw());
        body.put_u32_le(u32::try_from(self.held.as_micros()).unwrap_or(u32::MAX));
        body.put_u8(self.versions.oldest.as_raw());
        body.put_u8(self.versions.newest.as_raw());
        for (node, directory) in &self.founders {
            body.put_u8(node.as_raw());
            body.put_u64_le(directory.as_raw());
        }
        body.put_u8(u8::try_from(self.moving.len()).expect("a pulse tells of a few moves"));
        for moving in &self.moving {
            body.put_u64_le(moving.group.as_raw());
            body.put_u64_le(moving.since.as_raw());
            body.put_u64_le(moving.reached.as_raw());
            body.put_u8(moving.stage as u8);
        }
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
    /// When the body is not a sender and a row of entries.
    pub fn from_frame(frame: &Frame) -> Result<Self, FrameError> {
        let body = frame.body.to_bytes();
        let refuse = |reason| FrameError::Body { command: Command::Pulse, reason };
        let (sender, rest) =
            body.split_at_checked(SENDER_SIZE).ok_or_else(|| refuse("it does not say who sent it"))?;
        let (founders, rest) = rest
            .split_at_checked(usize::from(sender[9]) * FOUNDER_SIZE)
            .ok_or_else(|| refuse("it has fewer founders than it says"))?;
        let (moving, rest) = rest
            .split_first()
            .and_then(|(count, rest)| rest.split_at_checked(usize::from(*count) * MOVING_SIZE))
            .ok_or_else(|| refuse("it tells of fewer moves than it says"))?;
        let pieces = rest.chunks_exact(ENTRY_SIZE);
        if !pieces.remainder().is_empty() {
            return Err(refuse("its size is no multiple of an entry's"));
        }
        let u64_at = |piece: &[u8], at: usize| {
            u64::from_le_bytes(piece[at..at + 8].try_into().expect("eight bytes make a u64"))
        };
        let held_us = u32::from_le_bytes(sender[18..22].try_into().expect("four bytes make a u32"));
        let moved = |piece: &[u8]| PulseMoving {
            group: GroupId::new(u64_at(piece, 0)),
            since: Op::new(u64_at(piece, 8)),
            reached: Op::new(u64_at(piece, 16)),
            stage: STAGES.get(usize::from(piece[24])).copied().unwrap_or(Stage::Listening),
        };
        let founder = |piece: &[u8]| (NodeId::new(piece[0]), DirectoryId::new(u64_at(piece, 1)));
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
            sent_at: Timestamp::new(u64_at(sender, 10)),
            held: Duration::from_micros(held_us.into()),
            incarnation: Incarnation::new(frame.header.correlation),
            directory: DirectoryId::new(u64_at(sender, 0)),
            versions: Versions { oldest: Version::new(sender[22]), newest: Version::new(sender[23]) },
            is_fresh: sender[8] == 1,
            founders: founders.chunks_exact(FOUNDER_SIZE).map(founder).collect(),
            moving: moving.chunks_exact(MOVING_SIZE).map(moved).collect(),
            entries: entries.collect(),
        })
    }
}

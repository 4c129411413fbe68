//! The messages of the replication protocol, and how each becomes a frame.
//!
//! Names are those of "Viewstamped Replication Revisited" (Liskov and Cowling, 2012). `view` in an envelope is always the
//! sender's current view; the view inside a prepare header is the one in which that op was first prepared.
//!
//! | message         | frame fields used beside group, view, voice                    | body                              |
//! |-----------------|----------------------------------------------------------------|-----------------------------------|
//! | Prepare         | commit name                                                    | header + body of the prepare      |
//! | PrepareOk       | op, commit_view, commit_checksum: name of the prepare          | -                                 |
//! | Commit          | commit name                                                    | -                                 |
//! | StartViewChange | correlation = the sender's own view                            | -                                 |
//! | DoViewChange    | op = head, commit name, correlation = log view                 | generations, slots of the suffix  |
//! | StartView       | op = head, commit name, correlation = nonce                    | headers of the suffix             |
//! | GetStartView    | correlation = nonce                                            | -                                 |
//! | GetHeaders      | op = first, commit = last                                      | -                                 |
//! | Headers         | -                                                              | headers                           |
//! | GetPrepares     | -                                                              | names (20 bytes each)             |
//! | RepairPrepare   | -                                                              | header + body of the prepare      |
//! | RepairMissing   | op, commit_view, commit_checksum: name of the prepare          | -                                 |
//! | ConfirmView     | correlation = round                                            | -                                 |
//! | ViewConfirmed   | correlation = round                                            | -                                 |
//! | Snapshot        | -                                                              | the snapshot                      |
//!
//! A slot is one tag byte (1 has, 2 cannot tell), then 128 bytes: the header, or op and zeros.

use bytes::{BufMut, Bytes, BytesMut};

use crate::frame::{Body, Command, Frame, FrameError, FrameHeader, Voice};
use crate::id::{ClusterId, GroupId, Op, Round, View};
use crate::limits::HEADERS_PER_MESSAGE_MAX;
use crate::prepare::{PREPARE_HEADER_SIZE, Prepare, PrepareHeader, PrepareId};
use crate::replacement::Generations;
use crate::snapshot::Snapshot;

/// What a replica knows of one op above its commit, as told in a `DoViewChange`. An op of which a replica says nothing
/// although it is above its head is lacked for certain: it was never written there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SuffixSlot {
    /// The prepare is durable and verified here.
    Has(PrepareHeader),
    /// Something was written here and cannot be read: it may or may not be the prepare asked for.
    CannotTell(Op),
}

impl SuffixSlot {
    /// The op this slot speaks of.
    #[must_use]
    pub fn op(&self) -> Op {
        match self {
            Self::Has(header) => header.op(),
            Self::CannotTell(op) => *op,
        }
    }
}

/// A message between two replicas of a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// The primary of `view` asks backups to store a prepare, and tells its commit.
    Prepare {
        /// Sender's view.
        view: View,
        /// Newest committed prepare.
        commit: PrepareId,
        /// What to store.
        prepare: Prepare,
    },
    /// Everything up to `id` is durable and chained at the sender.
    PrepareOk {
        /// Sender's view.
        view: View,
        /// Newest durable prepare.
        id: PrepareId,
    },
    /// The primary tells its commit while it has nothing else to say.
    Commit {
        /// Sender's view.
        view: View,
        /// Newest committed prepare.
        commit: PrepareId,
    },
    /// The sender suspects the primary of the view before `view`, and still works in that one.
    StartViewChange {
        /// The view proposed.
        view: View,
        /// The view that the sender is in: a quorum has agreed to leave all before it.
        current: View,
    },
    /// The sender has left all views before `view` and tells what it holds.
    DoViewChange {
        /// The view entered; durable at the sender.
        view: View,
        /// The last view in which the sender was normal.
        log_view: View,
        /// Sender's newest committed prepare.
        commit: PrepareId,
        /// Newest op ever written at the sender.
        head: Op,
        /// Which replicas the sender knows to have been replaced.
        generations: Generations,
        /// One slot for the commit itself (unless it is the root) and each op above it, ascending, up to `head`.
        suffix: Vec<SuffixSlot>,
    },
    /// The primary of `view` tells the log that the view starts with.
    StartView {
        /// The view that starts.
        view: View,
        /// Primary's newest committed prepare.
        commit: PrepareId,
        /// Primary's newest prepare.
        head: Op,
        /// The header at `commit` (unless it is the root) and all above it, ascending, up to `head`.
        suffix: Vec<PrepareHeader>,
        /// That of the question this answers; zero if it answers none.
        nonce: u64,
    },
    /// The sender asks the primary of `view` for its `StartView`.
    GetStartView {
        /// The view asked for.
        view: View,
        /// Zero; but whoever has lost the end of its log chooses a number by which it knows the answer from older ones.
        nonce: u64,
    },
    /// The sender asks for the headers of `first..=last`.
    GetHeaders {
        /// Sender's view.
        view: View,
        /// First op wanted.
        first: Op,
        /// Last op wanted.
        last: Op,
    },
    /// Answer to `GetHeaders`: headers of the sender's log, ascending without gaps, perhaps fewer than asked for.
    Headers {
        /// Sender's view.
        view: View,
        /// The headers.
        headers: Vec<PrepareHeader>,
    },
    /// The sender asks for exactly these prepares.
    GetPrepares {
        /// Sender's view.
        view: View,
        /// What is wanted.
        ids: Vec<PrepareId>,
    },
    /// Answer to `GetPrepares`, one for each.
    RepairPrepare {
        /// Sender's view.
        view: View,
        /// What was wanted.
        prepare: Prepare,
    },
    /// Answer to `GetPrepares`: the sender does not have this one.
    RepairMissing {
        /// Sender's view.
        view: View,
        /// What was wanted.
        id: PrepareId,
    },
    /// The primary of `view` asks whether its backups still work in that view.
    ConfirmView {
        /// Sender's view.
        view: View,
        /// Names the question.
        round: Round,
    },
    /// Answer to `ConfirmView`: the sender works in `view`, and did not leave it before the question came.
    ViewConfirmed {
        /// Sender's view.
        view: View,
        /// The question that is answered.
        round: Round,
    },
    /// Answer to `GetHeaders` and `GetPrepares`: what is wanted was let go; this is what the sender's log builds on, all of it
    /// committed.
    Snapshot {
        /// Sender's view.
        view: View,
        /// The state before the sender's first prepare.
        snapshot: Box<Snapshot>,
    },
}

impl Message {
    /// Sender's view.
    #[must_use]
    pub fn view(&self) -> View {
        match self {
            Self::Prepare { view, .. }
            | Self::PrepareOk { view, .. }
            | Self::Commit { view, .. }
            | Self::StartViewChange { view, .. }
            | Self::DoViewChange { view, .. }
            | Self::StartView { view, .. }
            | Self::GetStartView { view, .. }
            | Self::GetHeaders { view, .. }
            | Self::Headers { view, .. }
            | Self::GetPrepares { view, .. }
            | Self::RepairPrepare { view, .. }
            | Self::RepairMissing { view, .. }
            | Self::ConfirmView { view, .. }
            | Self::ViewConfirmed { view, .. }
            | Self::Snapshot { view, .. } => *view,
        }
    }

    /// The command of the frame that carries this message.
    #[must_use]
    pub fn command(&self) -> Command {
        match self {
            Self::Prepare { .. } => Command::Prepare,
            Self::PrepareOk { .. } => Command::PrepareOk,
            Self::Commit { .. } => Command::Commit,
            Self::StartViewChange { .. } => Command::StartViewChange,
            Self::DoViewChange { .. } => Command::DoViewChange,
            Self::StartView { .. } => Command::StartView,
            Self::GetStartView { .. } => Command::GetStartView,
            Self::GetHeaders { .. } => Command::GetHeaders,
            Self::Headers { .. } => Command::Headers,
            Self::GetPrepares { .. } => Command::GetPrepares,
            Self::RepairPrepare { .. } => Command::RepairPrepare,
            Self::RepairMissing { .. } => Command::RepairMissing,
            Self::ConfirmView { .. } => Command::ConfirmView,
            Self::ViewConfirmed { .. } => Command::ViewConfirmed,
            Self::Snapshot { .. } => Command::Snapshot,
        }
    }

    /// The frame that carries this message.
    #[must_use]
    pub fn to_frame(&self, cluster: ClusterId, group: GroupId, voice: Voice) -> Frame {
        let mut header = FrameHeader::new(self.command(), cluster);
        header.group = group;
        header.voice = voice;
        header.view = self.view();
        let body = match self {
            Self::Prepare { commit, prepare, .. } => {
                put_commit(&mut header, *commit);
                Body::from_chunks(prepare.chunks().into())
            }
            Self::RepairPrepare { prepare, .. } => Body::from_chunks(prepare.chunks().into()),
            Self::PrepareOk { id, .. } | Self::RepairMissing { id, .. } => {
                put_commit(&mut header, *id);
                Body::default()
            }
            Self::Commit { commit, .. } => {
                put_commit(&mut header, *commit);
                Body::default()
            }
            Self::StartViewChange { current, .. } => {
                header.correlation = current.as_raw();
                Body::default()
            }
            Self::GetStartView { nonce, .. } => {
                header.correlation = *nonce;
                Body::default()
            }
            Self::DoViewChange { log_view, commit, head, generations, suffix, .. } => {
                put_commit(&mut header, *commit);
                header.op = *head;
                header.correlation = log_view.as_raw();
                encode_tale(generations, suffix).into()
            }
            Self::StartView { commit, head, suffix, nonce, .. } => {
                put_commit(&mut header, *commit);
                header.op = *head;
                header.correlation = *nonce;
                encode_headers(suffix).into()
            }
            Self::GetHeaders { first, last, .. } => {
                header.op = *first;
                header.commit = last.as_raw();
                Body::default()
            }
            Self::Headers { headers, .. } => encode_headers(headers).into(),
            Self::GetPrepares { ids, .. } => encode_ids(ids).into(),
            Self::Snapshot { snapshot, .. } => snapshot.encode().into(),
            Self::ConfirmView { round, .. } | Self::ViewConfirmed { round, .. } => {
                header.correlation = round.as_raw();
                Body::default()
            }
        };
        Frame { header, body }
    }

    /// Reads the message in a frame; `None` if its command is not one of the replication protocol.
    ///
    /// # Errors
    /// When the body cannot be read.
    pub fn from_frame(frame: &Frame) -> Option<Result<Self, FrameError>> {
        let header = &frame.header;
        let view = header.view;
        let commit = get_commit(header);
        let body = || frame.body.to_bytes();
        let reading = Reading { command: header.command };
        Some(match header.command {
            Command::Prepare => {
                reading.prepare(&body()).map(|prepare| Self::Prepare { view, commit, prepare })
            }
            Command::RepairPrepare => {
                reading.prepare(&body()).map(|prepare| Self::RepairPrepare { view, prepare })
            }
            Command::PrepareOk => Ok(Self::PrepareOk { view, id: commit }),
            Command::RepairMissing => Ok(Self::RepairMissing { view, id: commit }),
            Command::Commit => Ok(Self::Commit { view, commit }),
            Command::StartViewChange => {
                Ok(Self::StartViewChange { view, current: View::new(header.correlation) })
            }
            Command::GetStartView => Ok(Self::GetStartView { view, nonce: header.correlation }),
            Command::DoViewChange => reading.tale(&body()).map(|(generations, suffix)| Self::DoViewChange {
                view,
                log_view: View::new(header.correlation),
                commit,
                head: header.op,
                generations,
                suffix,
            }),
            Command::StartView => reading.headers(&body()).map(|suffix| Self::StartView {
                view,
                commit,
                head: header.op,
                suffix,
                nonce: header.correlation,
            }),
            Command::GetHeaders => {
                Ok(Self::GetHeaders { view, first: header.op, last: Op::new(header.commit) })
            }
            Command::Headers => reading.headers(&body()).map(|headers| Self::Headers { view, headers }),
            Command::GetPrepares => reading.ids(&body()).map(|ids| Self::GetPrepares { view, ids }),
            Command::ConfirmView => Ok(Self::ConfirmView { view, round: Round::new(header.correlation) }),
            Command::ViewConfirmed => Ok(Self::ViewConfirmed { view, round: Round::new(header.correlation) }),
            Command::Snapshot => reading
                .snapshot(&body())
                .map(|snapshot| Self::Snapshot { view, snapshot: Box::new(snapshot) }),
            Command::Hello
            | Command::Pulse
            | Command::Probe
            | Command::Probed
            | Command::Append
            | Command::AppendOk
            | Command::Fetch
            | Command::FetchOk
            | Command::Request
            | Command::Response
            | Command::Refused => return None,
        })
    }
}

fn put_commit(header: &mut FrameHeader, id: PrepareId) {
    header.commit = id.op.as_raw();
    header.commit_view = id.view;
    header.commit_checksum = id.checksum;
}

fn get_commit(header: &FrameHeader) -> PrepareId {
    PrepareId { op: Op::new(header.commit), view: header.commit_view, checksum: header.commit_checksum }
}

const SLOT_SIZE: usize = 1 + PREPARE_HEADER_SIZE;
const SLOT_HAS: u8 = 1;
const SLOT_CANNOT_TELL: u8 = 2;
const ID_SIZE: usize = 20;

fn encode_tale(generations: &Generations, slots: &[SuffixSlot]) -> Bytes {
    let mut buffer = BytesMut::with_capacity(64 + slots.len() * SLOT_SIZE);
    generations.encode(&mut buffer);
    for slot in slots {
        match slot {
            SuffixSlot::Has(header) => {
                buffer.put_u8(SLOT_HAS);
                buffer.extend_from_slice(header.as_bytes());
            }
            SuffixSlot::CannotTell(op) => {
                buffer.put_u8(SLOT_CANNOT_TELL);
                buffer.put_u64_le(op.as_raw());
                buffer.put_bytes(0, PREPARE_HEADER_SIZE - 8);
            }
        }
    }
    buffer.freeze()
}

fn encode_headers(headers: &[PrepareHeader]) -> Bytes {
    let mut buffer = BytesMut::with_capacity(headers.len() * PREPARE_HEADER_SIZE);
    for header in headers {
        buffer.extend_from_slice(header.as_bytes());
    }
    buffer.freeze()
}

fn encode_ids(ids: &[PrepareId]) -> Bytes {
    let mut buffer = BytesMut::with_capacity(ids.len() * ID_SIZE);
    for id in ids {
        buffer.put_u64_le(id.op.as_raw());
        buffer.put_u64_le(id.view.as_raw());
        buffer.put_u32_le(id.checksum);
    }
    buffer.freeze()
}

/// Reads bodies, and names the command in every error.
struct Reading {
    command: Command,
}

impl Reading {
    fn refuse(&self, reason: &'static str) -> FrameError {
        FrameError::Body { command: self.command, reason }
    }

    fn prepare(&self, body: &Bytes) -> Result<Prepare, FrameError> {
        let prepare = Prepare::decode(body).map_err(|_| self.refuse("it is not a sound prepare"))?;
        if prepare.header().total_size() == body.len() {
            Ok(prepare)
        } else {
            Err(self.refuse("bytes are left over after the prepare"))
        }
    }

    fn snapshot(&self, body: &Bytes) -> Result<Snapshot, FrameError> {
        Snapshot::decode(body).ok_or_else(|| self.refuse("it is not a sound snapshot"))
    }

    fn pieces<'a>(
        &self,
        body: &'a Bytes,
        size: usize,
    ) -> Result<std::slice::ChunksExact<'a, u8>, FrameError> {
        let pieces = body.chunks_exact(size);
        if !pieces.remainder().is_empty() {
            Err(self.refuse("its size is no multiple of an entry's"))
        } else if pieces.len() > HEADERS_PER_MESSAGE_MAX {
            Err(self.refuse("it has more entries than a message may have"))
        } else {
            Ok(pieces)
        }
    }

    fn header(&self, bytes: &[u8]) -> Result<PrepareHeader, FrameError> {
        PrepareHeader::decode(bytes).map_err(|_| self.refuse("it has an unsound prepare header"))
    }

    fn headers(&self, body: &Bytes) -> Result<Vec<PrepareHeader>, FrameError> {
        let headers: Vec<_> = self
            .pieces(body, PREPARE_HEADER_SIZE)?
            .map(|piece| self.header(piece))
            .collect::<Result<_, _>>()?;
        if headers.windows(2).all(|pair| pair[1].parent() == pair[0].id()) {
            Ok(headers)
        } else {
            Err(self.refuse("its headers are no chain"))
        }
    }

    fn tale(&self, body: &Bytes) -> Result<(Generations, Vec<SuffixSlot>), FrameError> {
        let (generations, size) =
            Generations::decode(body).ok_or_else(|| self.refuse("its generations cannot be read"))?;
        Ok((generations, self.slots(&body.slice(size..))?))
    }

    fn slots(&self, body: &Bytes) -> Result<Vec<SuffixSlot>, FrameError> {
        let slots: Vec<_> = self
            .pieces(body, SLOT_SIZE)?
            .map(|piece| match piece[0] {
                SLOT_HAS => self.header(&piece[1..]).map(SuffixSlot::Has),
                SLOT_CANNOT_TELL => {
                    let op = u64::from_le_bytes(piece[1..9].try_into().expect("eight bytes make a u64"));
                    Ok(SuffixSlot::CannotTell(Op::new(op)))
                }
                _ => Err(self.refuse("a slot has an unknown tag")),
            })
            .collect::<Result<_, _>>()?;
        if slots.windows(2).all(|pair| pair[1].op() == pair[0].op().next()) {
            Ok(slots)
        } else {
            Err(self.refuse("its slots are not in a row"))
        }
    }

    fn ids(&self, body: &Bytes) -> Result<Vec<PrepareId>, FrameError> {
        let u64_at = |piece: &[u8], at: usize| {
            u64::from_le_bytes(piece[at..at + 8].try_into().expect("eight bytes make a u64"))
        };
        let ids = self.pieces(body, ID_SIZE)?.map(|piece| PrepareId {
            op: Op::new(u64_at(piece, 0)),
            view: View::new(u64_at(piece, 8)),
            checksum: u32::from_le_bytes(piece[16..20].try_into().expect("four bytes make a u32")),
        });
        Ok(ids.collect())
    }
}

//! A cluster, a node, and groups whose prepares are made here.

use bytes::Bytes;
use varve_protocol::id::{
    ClusterId, DirectoryId, Epoch, GroupId, NodeId, Offset, Op, ProducerId, RequestNumber, Timestamp, View,
};
use varve_protocol::log_start::LogStart;
use varve_protocol::prepare::{Prepare, PrepareFields, PrepareHeader, PrepareId, PrepareKind};
use varve_protocol::resume_point::ResumePoint;
use varve_protocol::snapshot::Snapshot;
use varve_protocol::superblock::Superblock;
use varve_protocol::version::Version;
use varve_storage::{
    Completion, Disk, Identity, Job, KEY_SIZE, Keys, Options, Piece, ReadFrom, RecoveredGroup, Store, Summary,
};

pub(crate) const IDENTITY: Identity =
    Identity { cluster: ClusterId::new(0x0123_4567_89ab_cdef), node: NodeId::new(3) };

pub(crate) const DIRECTORY: DirectoryId = DirectoryId::new(0x5eed);

pub(crate) const GROUP: GroupId = GroupId::new(7);

/// Small segments, so that a few prepares fill one, and a journal that a few rounds fill.
pub(crate) const SMALL_SEGMENTS: Options = Options {
    segment_size_bytes_max: 4096 + 2000,
    journal_bytes_max: 8000,
    reserve_bytes: RESERVE_BYTES,
    ..Options::DEFAULT
};

/// A key file of so many keys; none: nothing is sealed.
pub(crate) fn keys(count: u8) -> Keys {
    let line = |key: u8| format!("{key:02x}").repeat(KEY_SIZE) + "\n";
    let text: String = (1..=count).map(line).collect();
    if count == 0 { Keys::NONE } else { Keys::parse(&text, [count; 32]).unwrap() }
}

/// Room for a few superblocks, prepares and snapshots.
pub(crate) const RESERVE_BYTES: u64 = 8000;

/// Seals prepares that continue each other; a copy is another branch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Branch {
    pub(crate) group: GroupId,
    pub(crate) view: View,
    pub(crate) head: PrepareId,
    pub(crate) next_offset: Offset,
    pub(crate) version: Version,
}

impl Branch {
    pub(crate) fn new(group: GroupId) -> Self {
        Self {
            group,
            view: View::new(1),
            head: PrepareId::ROOT,
            next_offset: Offset::ZERO,
            version: Version::FIRST,
        }
    }

    /// The branch that ends with this prepare.
    pub(crate) fn behind(prepare: &Prepare) -> Self {
        let header = prepare.header();
        Self {
            group: header.group(),
            view: header.view(),
            head: prepare.id(),
            next_offset: header.next_offset(),
            version: header.version(),
        }
    }

    /// Seals the next prepare: `size` bytes; no records if there are no bytes.
    pub(crate) fn seal(&mut self, size: usize) -> Prepare {
        let fill = u8::try_from(self.head.op.next().as_raw() % 251).unwrap() + 1;
        let kind = if size > 0 { PrepareKind::Records } else { PrepareKind::Noop };
        self.seal_body(kind, Bytes::from(vec![fill; size]))
    }

    /// Seals an entry that moves the start of the log.
    pub(crate) fn seal_log_start(&mut self, start: LogStart) -> Prepare {
        self.seal_body(PrepareKind::LogStart, start.encode())
    }

    fn seal_body(&mut self, kind: PrepareKind, body: Bytes) -> Prepare {
        let op = self.head.op.next().as_raw();
        let records = u32::from(kind == PrepareKind::Records) * 3;
        let fields = PrepareFields {
            version: self.version,
            cluster: IDENTITY.cluster,
            group: self.group,
            view: self.view,
            parent: self.head,
            epoch: Epoch::ZERO,
            kind,
            base_offset: self.next_offset,
            record_count: records,
            timestamp: Timestamp::new(1_000_000 + op),
            producer: ProducerId::ZERO,
            request: RequestNumber::ZERO,
        };
        let prepare = Prepare::seal(fields, body);
        *self = Self { view: self.view, ..Self::behind(&prepare) };
        prepare
    }

    pub(crate) fn seal_many(&mut self, sizes: &[usize]) -> Vec<Prepare> {
        sizes.iter().map(|size| self.seal(*size)).collect()
    }
}

pub(crate) fn superblock(group: GroupId, view: u64) -> Superblock {
    Superblock { view: View::new(view), log_view: View::new(view), ..Superblock::new(group) }
}

pub(crate) fn append(group: GroupId, prepares: &[Prepare]) -> Job {
    Job::Append { group, prepares: prepares.to_vec() }
}

pub(crate) fn durable(group: GroupId, prepare: &Prepare) -> Completion {
    Completion::Durable { group, id: prepare.id() }
}

/// What a store answers, without word of segments that were filled.
pub(crate) fn answers<D: Disk>(store: &mut Store<D>, jobs: Vec<Job>) -> Vec<Completion> {
    let mut completions = store.execute(jobs);
    completions.retain(|completion| !matches!(completion, Completion::Sealed { .. }));
    completions
}

/// A store on a disk that is formatted first, with [`GROUP`] on it.
pub(crate) fn new_store<D: Disk>(disk: D, options: Options) -> Store<D> {
    Store::format(&disk, IDENTITY, DIRECTORY).unwrap();
    let (mut store, recovered) = Store::open(disk, IDENTITY, options, &mut |_, _| {}).unwrap();
    assert_eq!(recovered, []);
    let first = superblock(GROUP, 1);
    assert_eq!(store.execute(vec![Job::SaveSuperblock(first)]), [Completion::SuperblockDurable(first)]);
    store
}

/// Opens a store again, and gathers what it shows.
pub(crate) fn reopen<D: Disk>(disk: D, options: Options) -> (Store<D>, Vec<RecoveredGroup>, Vec<Prepare>) {
    let mut shown = Vec::new();
    let (store, recovered) =
        Store::open(disk, IDENTITY, options, &mut |_, piece| shown.extend(prepare_in(piece))).unwrap();
    (store, recovered, shown)
}

/// The prepare that is shown, unless it is a snapshot.
pub(crate) fn prepare_in(piece: Piece<'_>) -> Option<Prepare> {
    match piece {
        Piece::Root | Piece::Snapshot(_) | Piece::ResumePoint(_) => None,
        Piece::Prepare(prepare) => Some(prepare.clone()),
    }
}

/// A summary that can be compared: how many prepares there were, and the sum of their checksums.
#[derive(Default)]
struct Sum {
    last: Option<PrepareHeader>,
    count: u64,
    checksums: u64,
}

impl Summary for Sum {
    fn push(&mut self, header: &PrepareHeader, prepare: Option<&Prepare>) {
        assert_eq!(prepare.is_some(), header.kind() != PrepareKind::Records, "records are not read");
        self.last = Some(*header);
        self.count += 1;
        self.checksums += u64::from(header.id().checksum);
    }

    fn finish(&self) -> Option<Snapshot> {
        let state = [self.count.to_le_bytes(), self.checksums.to_le_bytes()].concat();
        Some(Snapshot { header: self.last?, state: state.into() })
    }
}

pub(crate) fn summarize(before: Option<&Snapshot>) -> Option<Box<dyn Summary>> {
    let number = |at: usize| {
        let state = &before.map(|before| before.state.clone()).unwrap_or(Bytes::from_static(&[0; 16]));
        u64::from_le_bytes(state[at..at + 8].try_into().unwrap())
    };
    let last = before.map(|before| before.header);
    Some(Box::new(Sum { last, count: number(0), checksums: number(8) }))
}

/// The snapshot behind these prepares, which are all there are.
pub(crate) fn snapshot_of(log: &[Prepare]) -> Snapshot {
    let mut sum = Sum::default();
    for prepare in log {
        let is_records = prepare.header().kind() == PrepareKind::Records;
        sum.push(prepare.header(), (!is_records).then_some(prepare));
    }
    sum.finish().unwrap()
}

/// The resume point behind these prepares, which are all that came before.
pub(crate) fn resume_point_of(log: &[Prepare]) -> ResumePoint {
    ResumePoint { log_start: LogStart::FIRST, snapshot: snapshot_of(log) }
}

/// Reads everything from `from` on.
pub(crate) fn read<D: Disk>(store: &mut Store<D>, from: ReadFrom) -> Vec<Prepare> {
    read_some(store, from, usize::MAX, Op::new(u64::MAX))
}

pub(crate) fn read_some<D: Disk>(
    store: &mut Store<D>,
    from: ReadFrom,
    bytes_max: usize,
    last: Op,
) -> Vec<Prepare> {
    let job = Job::Read { group: GROUP, token: 9, from, bytes_max, last };
    let mut completions = store.execute(vec![job]);
    match completions.pop() {
        Some(Completion::Read { group: GROUP, token: 9, result }) => result.unwrap(),
        other => panic!("a read is answered by a read: {other:?}"),
    }
}

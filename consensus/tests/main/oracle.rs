//! What must hold whatever happens: agreement, durability on a quorum, one outcome per request, no late read, and kept
//! promises.

use std::collections::{BTreeMap, BTreeSet};

use varve_consensus::event::{Outcome, ReadHandle, ReadOutcome};
use varve_consensus::snapshot::SnapshotBuilder;
use varve_protocol::id::{Offset, Op, ProducerId, RequestNumber, Timestamp, View};
use varve_protocol::log_start::LogStart;
use varve_protocol::prepare::{Prepare, PrepareHeader, PrepareId, PrepareKind};
use varve_protocol::replacement::{Change, Replacement};
use varve_protocol::snapshot::Snapshot;

use crate::disk::Disk;

/// Remembers everything that was ever promised to anybody.
#[derive(Clone, Default)]
pub(crate) struct Oracle {
    /// What any replica ever applied, by op from 1.
    pub(crate) committed: Vec<PrepareHeader>,
    /// Whose copies count, as is committed.
    pub(crate) members: BTreeSet<usize>,
    /// Where it says that somebody leaves.
    left: BTreeMap<usize, usize>,
    /// Whose copies counted before the newest of them joined, if nobody has left since.
    before: Option<BTreeSet<usize>>,
    /// The only prepare ever sealed as (op, view).
    sealed: BTreeMap<(Op, View), Prepare>,
    /// Where a session's request stands in the log.
    places: BTreeMap<(ProducerId, RequestNumber), Op>,
    /// For each disk that was lost: the copies it held, if it held them, are counted as if they were there.
    lost: Vec<usize>,
    /// What anybody could know to be committed when each read was asked.
    floors: BTreeMap<ReadHandle, usize>,
}

impl Oracle {
    /// Of a group that is made with so many replicas.
    pub(crate) fn new(founders: usize) -> Self {
        Self { members: (0..founders).collect(), ..Self::default() }
    }

    /// The newest commit may say that somebody joins or leaves.
    fn note_change(&mut self, header: &PrepareHeader) {
        if header.kind() != PrepareKind::Replacement {
            return;
        }
        let entry = Replacement::decode(self.prepare(header.op()).body()).unwrap();
        let (members, place) = (self.members.clone(), usize::from(entry.replica.as_raw()));
        match entry.change {
            Change::Seated => {}
            Change::Counted => {
                if self.members.insert(place) {
                    self.before = Some(members);
                }
            }
            Change::Vacated => {
                self.left.insert(place, self.committed.len());
                if self.members.remove(&place) {
                    self.before = None;
                }
            }
        }
    }

    /// Whether somebody who came when so much was committed has left.
    pub(crate) fn has_left(&self, place: usize, came_at: usize) -> bool {
        !self.members.contains(&place) && self.left.get(&place).is_some_and(|left| came_at < *left)
    }

    /// Whether somebody who came when so much was committed has left, and is not needed any more.
    pub(crate) fn may_go(&self, place: usize, came_at: usize) -> bool {
        let has_left = |left: &usize| came_at < *left && *left < self.committed.len();
        !self.members.contains(&place) && self.left.get(&place).is_some_and(has_left)
    }

    /// A disk is lost with all that is on it.
    pub(crate) fn on_disk_lost(&mut self, disk: &Disk) {
        self.lost.push(usize::try_from(disk.log.head().as_raw()).unwrap());
    }

    /// A replica takes the state up to an op: it is that of what was committed.
    pub(crate) fn on_snapshot(&self, snapshot: &Snapshot) {
        let index = usize::try_from(snapshot.op().as_raw()).unwrap() - 1;
        assert_eq!(self.committed.get(index), Some(&snapshot.header), "a snapshot holds what is committed");
        let mut builder = SnapshotBuilder::new(None).unwrap();
        for header in &self.committed[..=index] {
            builder.push(header, Some(&self.prepare(header.op())));
        }
        assert_eq!(builder.finish(&[]).as_ref(), Some(snapshot), "a snapshot is a function of the log");
    }

    /// Offset of the first record at or behind an op that is committed, or is the next one.
    pub(crate) fn offset_of(&self, op: Op) -> Offset {
        let before = usize::try_from(op.as_raw()).unwrap().checked_sub(2);
        before.map_or(Offset::ZERO, |index| self.committed[index].next_offset())
    }

    /// A replica that has committed so far says where its log starts: not before what those commits say, and not behind what any
    /// commit has ever said.
    pub(crate) fn assert_log_start(&self, commit: Op, start: LogStart) {
        let said = |until: usize| {
            let entries =
                self.committed[..until].iter().filter(|header| header.kind() == PrepareKind::LogStart);
            let starts = entries.map(|header| LogStart::decode(self.prepare(header.op()).body()).unwrap());
            starts.max().unwrap_or(LogStart::FIRST)
        };
        let known = usize::try_from(commit.as_raw()).unwrap();
        assert!(start >= said(known), "a committed log start is taken to heart");
        assert!(start <= said(self.committed.len()), "nothing is let go that no committed entry lets go");
    }

    /// What is committed at an op.
    pub(crate) fn prepare(&self, op: Op) -> Prepare {
        let header = &self.committed[usize::try_from(op.as_raw()).unwrap() - 1];
        self.sealed[&(op, header.view())].clone()
    }

    pub(crate) fn on_append(&mut self, prepare: &Prepare) {
        let id = prepare.id();
        let first = self.sealed.entry((id.op, id.view)).or_insert_with(|| prepare.clone());
        assert_eq!(first.id(), id, "an op is sealed once in a view");
    }

    pub(crate) fn on_apply(&mut self, header: &PrepareHeader, disks: &[&Disk]) {
        let index = usize::try_from(header.op().as_raw()).unwrap() - 1;
        if let Some(known) = self.committed.get(index) {
            assert_eq!(known, header, "what is committed at an op never changes");
            return;
        }
        assert_eq!(index, self.committed.len(), "ops are committed in order");
        let parent = self.committed.last();
        assert_eq!(header.parent(), parent.map_or(PrepareId::ROOT, PrepareHeader::id));
        assert_eq!(header.base_offset(), parent.map_or(Offset::ZERO, PrepareHeader::next_offset));
        assert!(header.timestamp() > parent.map_or(Timestamp::ZERO, PrepareHeader::timestamp));
        if header.producer() != ProducerId::ZERO {
            let before = self.places.insert((header.producer(), header.request()), header.op());
            assert_eq!(before, None, "a request is committed once");
        }
        self.committed.push(*header);
        self.note_change(header);
        self.assert_durable(disks);
    }

    pub(crate) fn on_reply(&self, producer: ProducerId, request: RequestNumber, outcome: Outcome) {
        if let Outcome::Committed { op, base_offset } = outcome {
            let header = &self.committed[usize::try_from(op.as_raw()).unwrap() - 1];
            assert_eq!(header.base_offset(), base_offset, "an answer names the true offset");
            assert_eq!((header.producer(), header.request()), (producer, request));
        }
    }

    pub(crate) fn on_read(&mut self, handle: ReadHandle) {
        self.floors.insert(handle, self.committed.len());
    }

    pub(crate) fn on_read_reply(&self, handle: ReadHandle, outcome: ReadOutcome, commit: Op) {
        if outcome == ReadOutcome::Confirmed {
            let floor = self.floors[&handle];
            assert!(commit.as_raw() >= floor as u64, "a read sees what was committed before it was asked");
        }
    }

    /// Everything ever committed is on the disks of a quorum, or in its memories if that is what the group wants, now and for
    /// ever. A disk that says it has lost something, or from which an unclean stop has taken something, may have held it.
    pub(crate) fn assert_durable(&self, disks: &[&Disk]) {
        let Some(from) = self.committed.len().checked_sub(80).or(Some(0)) else { return };
        for (index, header) in self.committed.iter().enumerate().skip(from) {
            let lost = self.lost.iter().filter(|length| index < **length).count();
            let is_on_quorum = |members: &BTreeSet<usize>| {
                let copies = members.iter().filter(|place| disks[**place].may_hold(header.id())).count();
                copies + lost > members.len() / 2
            };
            let is_durable = is_on_quorum(&self.members) || self.before.as_ref().is_some_and(is_on_quorum);
            assert!(is_durable, "{} is committed and not durable on a quorum", header.id());
        }
    }
}

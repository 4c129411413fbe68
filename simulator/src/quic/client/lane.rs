//! The appends of a producer of the QUIC world to one partition, and what became of each.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use tokio::time::Instant;
use varve_client::{ClientError, Outcome, Target};
use varve_protocol::client::Refusal;
use varve_protocol::id::{GroupId, ProducerId};

use super::Surroundings;
use crate::oracle::{AppendId, Invocation};
use crate::quic::board::Board;
use crate::random::long_tail;
use crate::scenario::Phase;
use crate::workload::Value;

/// Records that each partition must take after the faults are over.
const GOAL: u64 = 3;

/// Records on their way to a partition at once.
const PENDING_MAX: usize = 64;

/// A record on its way.
struct Pending {
    append: AppendId,
    ack: tokio::task::JoinHandle<Result<varve_client::Offset, ClientError>>,
    after_heal: bool,
}

/// The appends of one producer to one partition.
pub(super) struct ProducerLane {
    partition: u32,
    group: GroupId,
    session: ProducerId,
    next_request: u64,
    append_at: Instant,
    pending: Vec<Pending>,
    acked_after_heal: u64,
    pub(super) has_failed: bool,
    is_healed: bool,
}

impl ProducerLane {
    pub(super) fn new(partition: u32, group: GroupId) -> Self {
        Self {
            partition,
            group,
            session: ProducerId::ZERO,
            next_request: 1,
            append_at: Instant::now(),
            pending: Vec::new(),
            acked_after_heal: 0,
            has_failed: false,
            is_healed: false,
        }
    }

    pub(super) fn begin_session(&mut self, session: ProducerId) {
        self.session = session;
        self.next_request = 1;
        self.has_failed = false;
    }

    pub(super) fn is_done(&self) -> bool {
        self.is_healed && self.acked_after_heal >= GOAL && self.pending.is_empty()
    }

    pub(super) fn describe(&self) -> String {
        let Self { group, acked_after_heal, pending, .. } = self;
        format!("{acked_after_heal} of {GOAL} new appends to {group}, {} still open", pending.len())
    }

    pub(super) async fn append(
        &mut self,
        producer: &varve_client::Producer,
        (around, rng): (&Surroundings, &mut ChaCha8Rng),
        counter: &mut u64,
    ) {
        self.is_healed = around.board.phase() != Phase::Safety;
        let has_enough = self.is_healed && self.acked_after_heal >= GOAL;
        if self.has_failed
            || has_enough
            || Instant::now() < self.append_at
            || self.pending.len() >= PENDING_MAX
        {
            return;
        }
        let load = &around.scenario.load;
        self.append_at = Instant::now() + long_tail(rng, load.think);
        for _ in 0..rng.random_range(1..=load.batch_records_max) {
            let first = Value { producer: around.client, counter: *counter };
            *counter += 1;
            let size = rng.random_range(0..=load.payload_bytes_max) as usize;
            let session = Some((self.session, self.next_request));
            self.next_request += 1;
            let invocation = Invocation { group: self.group, session, first, count: 1 };
            let append = around.board.lock().oracle.invoked(invocation);
            let record = first.to_record(size, load.compression);
            let sent = producer.send(Target::Partition(self.partition), record);
            let after_heal = self.is_healed;
            match sent.await {
                Ok(ack) => {
                    let ack = tokio::spawn(ack.wait());
                    self.pending.push(Pending { append, ack, after_heal });
                }
                Err(error) => {
                    self.judge(&around.board, append, (Err(error), after_heal));
                    return;
                }
            }
        }
    }

    /// Takes the acknowledgements that have come.
    pub(super) async fn collect(&mut self, board: &Board) {
        while self.pending.first().is_some_and(|pending| pending.ack.is_finished()) {
            let Pending { append, ack, after_heal } = self.pending.remove(0);
            let result = ack.await.unwrap_or(Err(ClientError::Dropped));
            self.judge(board, append, (result, after_heal));
        }
    }

    /// Waits for all acknowledgements.
    pub(super) async fn finish(&mut self, board: &Board) {
        for Pending { append, ack, after_heal } in std::mem::take(&mut self.pending) {
            let result = ack.await.unwrap_or(Err(ClientError::Dropped));
            self.judge(board, append, (result, after_heal));
        }
    }

    fn judge(
        &mut self,
        board: &Board,
        append: AppendId,
        (result, after_heal): (Result<varve_client::Offset, ClientError>, bool),
    ) {
        let state = &mut *board.lock();
        let oracle = &mut state.oracle;
        let judged = match result {
            Ok(offset) => {
                self.acked_after_heal += u64::from(after_heal);
                oracle.acked(append, offset.as_raw())
            }
            Err(error) => {
                self.has_failed = true;
                let is_forgotten = error == ClientError::Refused(Refusal::UnknownOutcome);
                state.statistics.sessions_forgotten += u64::from(is_forgotten);
                match error.outcome() {
                    Outcome::NotDone => oracle.refused(append),
                    Outcome::Unknown => {
                        oracle.unknown(append);
                        Ok(())
                    }
                }
            }
        };
        if let Err(violation) = judged {
            state.violation.get_or_insert(violation);
        }
    }
}

//! What a producer has on its way to one partition.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use varve_protocol::client::Refusal;
use varve_protocol::id::{GroupId, NodeId, ProducerId};

use super::RETRY;
use crate::actor::Orders;
use crate::oracle::{AppendId, Violation};

#[derive(Debug)]
pub(super) struct Flight {
    pub(super) request: u64,
    pub(super) batch: Bytes,
    pub(super) append: AppendId,
    pub(super) is_sent: bool,
    pub(super) is_acked: bool,
    pub(super) after_heal: bool,
}

/// The appends to one partition.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) group: GroupId,
    pub(super) replicas: Vec<NodeId>,
    pub(super) target: NodeId,
    /// Whose session this is; `None` until there is one.
    pub(super) producer: Option<ProducerId>,
    /// The number of the last append before this session. Only nodes and the oracle know numbers in it.
    pub(super) session_begin: u64,
    pub(super) next_request: u64,
    pub(super) flights: VecDeque<Flight>,
    /// Counts the times everything was sent anew, so that answers to earlier tries can be told.
    pub(super) attempt: u64,
    pub(super) append_at: Duration,
    pub(super) resend_at: Option<Duration>,
    pub(super) deadline: Duration,
    pub(super) acked_after_heal: u64,
    /// Appends that were given up, whose answers may still come.
    pub(super) late: BTreeMap<u64, AppendId>,
}

impl Lane {
    pub(super) fn on_acked(
        &mut self,
        request: u64,
        base_offset: u64,
        orders: &mut Orders<'_>,
    ) -> Result<(), Violation> {
        if let Some(append) = self.late.remove(&request) {
            return orders.oracle.acked(append, base_offset);
        }
        let Some(flight) = self.flights.iter_mut().find(|flight| flight.request == request) else {
            return Ok(());
        };
        orders.oracle.acked(flight.append, base_offset)?;
        flight.is_acked = true;
        while self.flights.front().is_some_and(|flight| flight.is_acked) {
            let flight = self.flights.pop_front();
            self.acked_after_heal += u64::from(flight.is_some_and(|flight| flight.after_heal));
        }
        Ok(())
    }

    pub(super) fn on_refused(
        &mut self,
        refusal: &Refusal,
        (elsewhere, resend_at): (usize, Duration),
        orders: &mut Orders<'_>,
    ) -> Result<(), Violation> {
        if self.resend_at.is_none() {
            // Who cannot serve now may have been left behind.
            self.target = self.replicas[elsewhere];
        }
        match refusal {
            Refusal::NotPrimary { primary, .. } if *primary != NodeId::ZERO => self.target = *primary,
            Refusal::NotPrimary { .. }
            | Refusal::NoPrimary { .. }
            | Refusal::Busy
            | Refusal::UnknownGroup { .. }
            | Refusal::OutOfOrder { .. }
            | Refusal::ViewEnded { .. }
            | Refusal::Storage { .. }
            | Refusal::DiskFull { .. } => {}
            // Allowed, since the session may have been evicted; here none is, so that it is counted, and tried again.
            Refusal::UnknownOutcome => orders.sessions_forgotten += 1,
            Refusal::BadBatch { .. }
            | Refusal::BatchTooLarge { .. }
            | Refusal::OffsetOutOfRange { .. }
            | Refusal::Malformed { .. }
            | Refusal::NotPossible { .. }
            | Refusal::WrongCluster => {
                let detail = format!("an append within its session's window to {}: {refusal}", self.group);
                return Err(Violation::new("sound request refused", detail));
            }
        }
        self.resend_at.get_or_insert(resend_at);
        Ok(())
    }

    /// Whether the group lacks something that it had acknowledged, because an operator had it go on with less.
    pub(super) fn has_lost_session(&self, refusal: &Refusal, orders: &Orders<'_>) -> bool {
        let Refusal::OutOfOrder { expected } = refusal else { return false };
        let oldest = self.flights.iter().find(|flight| !flight.is_acked);
        let is_gap = oldest.is_some_and(|flight| flight.request > self.session_begin + expected.as_raw());
        is_gap && orders.oracle.losses(self.group) > 0
    }

    /// Begins a new session as soon as there is a producer id for it.
    pub(super) fn end_session(&mut self, orders: &mut Orders<'_>) {
        orders.sessions_lost += 1;
        self.producer = None;
        self.session_begin = self.next_request - 1;
        self.attempt += 1;
        self.resend_at = None;
        self.give_up(orders);
    }

    pub(super) fn on_refused_for_good(
        &mut self,
        request: u64,
        refusal: &Refusal,
        (elsewhere, orders): (usize, &mut Orders<'_>),
    ) -> Result<(), Violation> {
        let in_flight = self.flights.front().filter(|flight| flight.request == request);
        let Some(append) = self.late.remove(&request).or(in_flight.map(|flight| flight.append)) else {
            return Ok(());
        };
        if self.flights.front().is_some_and(|flight| flight.request == request) {
            self.flights.pop_front();
        }
        self.target = match refusal {
            Refusal::NotPrimary { primary, .. } if *primary != NodeId::ZERO => *primary,
            Refusal::NotPrimary { .. }
            | Refusal::NoPrimary { .. }
            | Refusal::Busy
            | Refusal::UnknownGroup { .. }
            | Refusal::OutOfOrder { .. }
            | Refusal::UnknownOutcome
            | Refusal::ViewEnded { .. }
            | Refusal::BadBatch { .. }
            | Refusal::BatchTooLarge { .. }
            | Refusal::OffsetOutOfRange { .. }
            | Refusal::Malformed { .. }
            | Refusal::NotPossible { .. }
            | Refusal::WrongCluster
            // Anybody: two who were left behind may name each other for ever.
            | Refusal::Storage { .. }
            | Refusal::DiskFull { .. } => self.replicas[elsewhere],
        };
        self.append_at = self.append_at.max(orders.now + RETRY);
        if matches!(refusal, Refusal::UnknownOutcome | Refusal::ViewEnded { .. }) {
            orders.oracle.unknown(append);
            Ok(())
        } else {
            orders.oracle.refused(append)
        }
    }

    /// The replica behind the one that was asked last.
    pub(super) fn next_to_try(&self) -> usize {
        let asked = self.replicas.iter().position(|node| *node == self.target);
        asked.map_or(0, |asked| (asked + 1) % self.replicas.len())
    }

    pub(super) fn try_elsewhere(&mut self, rng: &mut ChaCha8Rng) {
        self.target = self.replicas[rng.random_range(0..self.replicas.len())];
    }

    pub(super) fn send_anew(&mut self) {
        self.attempt += 1;
        self.resend_at = None;
        for flight in &mut self.flights {
            flight.is_sent = flight.is_acked;
        }
    }

    /// Stops waiting for what is on its way.
    pub(super) fn give_up(&mut self, orders: &mut Orders<'_>) {
        for flight in self.flights.drain(..).filter(|flight| !flight.is_acked) {
            orders.oracle.unknown(flight.append);
            self.late.insert(flight.request, flight.append);
        }
    }
}

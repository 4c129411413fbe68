//! What two replicas must have in common to behave alike: for checkers that remember which states they have seen.
//!
//! Everything that a later step can depend on is hashed, but for these:
//!
//! | left out                    | what is hashed instead    | because it decides                                       |
//! |-----------------------------|---------------------------|----------------------------------------------------------|
//! | random numbers              | nothing                   | how long a timer waits                                   |
//! | `resends`, `attempts`       | nothing                   | how long a timer waits                                   |
//! | `commit_delay`              | nothing                   | how long a timer waits                                   |
//! | the clock, when timers fire | which timers are armed    | which of them a `Tick` finds due                         |
//! | when `StartView` was asked  | whether that was lately   | whether it is asked again                                |
//! | `bytes_in_flight`           | the log and the commit    | nothing: it is their sum                                 |
//! | turns of `rotation`         | its place in a whole turn | who is asked next                                        |
//! | `torn_peers`                | nothing                   | what is said of the group, and nothing that it does      |
//! | bodies                      | whether one is here       | nothing: names are hash chained and contain the checksum |
//!
//! So equal fingerprints mean equal behaviour to whoever lets time pass in such a way that only *which* timers are armed
//! matters, never by how little one is due before another: the clock stands still but for ticks, and a tick comes so late
//! that all timers of one kind are due.

use std::hash::{Hash, Hasher};

use varve_protocol::message::SuffixSlot;
use varve_protocol::prepare::PrepareHeader;

use super::{Changing, Leading, Replica};
use crate::log_merge::Told;

impl Replica {
    /// Hashes what this replica's behaviour can depend on, apart from the passing of time; the text of the module
    /// `replica/fingerprint.rs` says exactly what is left out.
    ///
    /// # Panics
    /// If outputs have not been drained.
    pub fn fingerprint<H: Hasher>(&self, state: &mut H) {
        // Named one by one, so that a new field is a question to whoever adds it.
        let Self {
            config,
            rng: _,
            now,
            status,
            view,
            saved,
            requested,
            log,
            replacements,
            listener,
            log_starts,
            commit,
            durable,
            taking,
            vouched,
            syncing,
            is_stopping,
            client_table,
            liveness,
            proposal,
            leading,
            changing,
            catchup,
            start_view_asked,
            nonce,
            torn_peers: _,
            timers,
            outputs,
        } = self;
        assert!(outputs.is_empty(), "outputs are drained before a replica is compared");
        config.replica.hash(state);
        (status, view, commit, durable).hash(state);
        (vouched, syncing, is_stopping).hash(state);
        for superblock in [saved, requested] {
            (superblock.view, superblock.log_view, superblock.commit).hash(state);
            (superblock.is_torn, superblock.is_unsynced).hash(state);
        }
        log.fingerprint(state);
        (replacements, listener, log_starts, taking).hash(state);
        client_table.hash(state);
        (liveness, nonce).hash(state);
        (proposal.view, proposal.votes).hash(state);
        leading.fingerprint(state);
        changing.fingerprint(state);
        catchup.fingerprint(config.places, state);
        let asked_lately = start_view_asked.filter(|(_, at)| now.since(*at) < config.timeouts.repair);
        asked_lately.map(|(view, _)| view).hash(state);
        timers.fingerprint(state);
    }
}

impl Leading {
    fn fingerprint<H: Hasher>(&self, state: &mut H) {
        let Self {
            acknowledged,
            waiting,
            started_with,
            reading,
            bytes_in_flight: _,
            resends: _,
            repeated,
            commit_delay: _,
            seen,
            is_stuck,
            successor,
        } = self;
        (acknowledged, waiting, started_with, repeated, seen, is_stuck, successor).hash(state);
        reading.fingerprint(state);
    }
}

impl Changing {
    fn fingerprint<H: Hasher>(&self, state: &mut H) {
        let Self { stage, has_told, told, attempts: _, repeats: _ } = self;
        (stage, has_told, told.len()).hash(state);
        for (replica, told) in told {
            replica.hash(state);
            told.fingerprint(state);
        }
    }
}

impl Told {
    fn fingerprint<H: Hasher>(&self, state: &mut H) {
        let Self { log_view, commit, head, generations, suffix } = self;
        (log_view, commit, head, generations).hash(state);
        for slot in suffix {
            match slot {
                SuffixSlot::Has(header) => hash_header(header, state),
                SuffixSlot::CannotTell(op) => op.hash(state),
            }
        }
    }
}

/// A header by its name, whose checksum covers all of it.
pub(crate) fn hash_header<H: Hasher>(header: &PrepareHeader, state: &mut H) {
    header.id().hash(state);
}

//! The order of a producer's batches: numbered once, sent ahead of their answers, sent again in order after any trouble.
//!
//! ```text
//!   answered and gone │ answered │ sent │ sent │ unsent │ unsent │  room  │
//!                       oldest                  cursor             window
//! ```
//! Go-back-N: after a loss, everything unanswered is sent again from the oldest on, under the same numbers, and the
//! partition's client table sees to it that nothing is appended twice. An answer to a later batch may come first; acks are
//! handed out in order all the same. Pure, so that every order of events can be tried.

use std::collections::VecDeque;

use varve_protocol::id::{Offset, RequestNumber};

#[derive(Debug)]
struct Entry<B> {
    request: RequestNumber,
    batch: B,
    answer: Option<Offset>,
}

/// Batches on their way.
#[derive(Debug)]
pub(crate) struct Pipeline<B> {
    window: usize,
    last: RequestNumber,
    entries: VecDeque<Entry<B>>,
    /// The first entry not sent since the last rewind.
    cursor: usize,
}

impl<B> Pipeline<B> {
    /// An empty pipeline with room for `window` batches.
    pub(crate) fn new(window: usize) -> Self {
        Self { window, last: RequestNumber::ZERO, entries: VecDeque::new(), cursor: 0 }
    }

    pub(crate) fn has_room(&self) -> bool {
        self.entries.len() < self.window
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether a batch has been sent and not been answered.
    pub(crate) fn awaits_answer(&self) -> bool {
        self.entries.iter().take(self.cursor).any(|entry| entry.answer.is_none())
    }

    pub(crate) fn oldest(&self) -> Option<&B> {
        self.entries.front().map(|entry| &entry.batch)
    }

    /// The number of the oldest batch.
    pub(crate) fn oldest_request(&self) -> Option<RequestNumber> {
        self.entries.front().map(|entry| entry.request)
    }

    /// Adds a batch and gives it the next number.
    pub(crate) fn push(&mut self, batch: B) {
        assert!(self.has_room(), "a batch is added only if there is room");
        self.last = self.last.next();
        self.entries.push_back(Entry { request: self.last, batch, answer: None });
    }

    pub(crate) fn has_unsent(&self) -> bool {
        self.entries.iter().skip(self.cursor).any(|entry| entry.answer.is_none())
    }

    /// The next batch to send, which is sent with that.
    pub(crate) fn send_next(&mut self) -> Option<(RequestNumber, &B)> {
        let place = (self.cursor..self.entries.len()).find(|place| self.entries[*place].answer.is_none())?;
        self.cursor = place + 1;
        let entry = &self.entries[place];
        Some((entry.request, &entry.batch))
    }

    /// Everything unanswered is to be sent again.
    pub(crate) fn rewind(&mut self) {
        self.cursor = 0;
    }

    /// Takes an answer; returns the batches that are thereby acknowledged, in order.
    pub(crate) fn answer(&mut self, request: RequestNumber, offset: Offset) -> Vec<(B, Offset)> {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.request == request) {
            entry.answer = Some(offset);
        }
        let mut done = Vec::new();
        while let Some(offset) = self.entries.front().and_then(|entry| entry.answer) {
            let entry = self.entries.pop_front().expect("there is a first entry");
            self.cursor = self.cursor.saturating_sub(1);
            done.push((entry.batch, offset));
        }
        done
    }

    /// Takes everything out.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = B> {
        self.cursor = 0;
        std::mem::take(&mut self.entries).into_iter().map(|entry| entry.batch)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// A partition's client table, which takes numbers in order and answers repeats with the first offset.
    #[derive(Default)]
    struct Table {
        log: Vec<u32>,
        offsets: BTreeMap<RequestNumber, Offset>,
    }

    impl Table {
        fn append(&mut self, request: RequestNumber, batch: u32) -> Option<Offset> {
            if let Some(offset) = self.offsets.get(&request) {
                return Some(*offset);
            }
            let expected = self.offsets.keys().last().copied().unwrap_or_default().next();
            (request == expected).then(|| {
                let offset = Offset::new(self.log.len() as u64);
                self.log.push(batch);
                self.offsets.insert(request, offset);
                offset
            })
        }
    }

    proptest! {
        /// Whatever is lost, repeated or reordered: each batch is appended once, in order, and acknowledged in order.
        #[test]
        fn order_and_number_survive_any_loss(actions in proptest::collection::vec(0_u8..6, 1..300)) {
            let mut pipeline = Pipeline::new(4);
            let mut table = Table::default();
            let mut answers: Vec<(RequestNumber, Offset)> = Vec::new();
            let mut pushed = 0_u32;
            let mut acknowledged = Vec::new();
            for action in actions {
                match action {
                    0 if pipeline.has_room() => {
                        pushed += 1;
                        pipeline.push(pushed);
                    }
                    // Sent and received.
                    0 | 1 => {
                        if let Some((request, batch)) = pipeline.send_next() {
                            let batch = *batch;
                            answers.extend(table.append(request, batch).map(|offset| (request, offset)));
                        }
                    }
                    // Sent and lost.
                    2 => drop(pipeline.send_next()),
                    3 => pipeline.rewind(),
                    // The newest answer comes first.
                    4 => {
                        if let Some((request, offset)) = answers.pop() {
                            acknowledged.extend(pipeline.answer(request, offset));
                        }
                    }
                    _ => drop(answers.pop()),
                }
            }
            while !pipeline.is_empty() {
                pipeline.rewind();
                while let Some((request, batch)) = pipeline.send_next() {
                    let batch = *batch;
                    answers.extend(table.append(request, batch).map(|offset| (request, offset)));
                }
                for (request, offset) in answers.drain(..) {
                    acknowledged.extend(pipeline.answer(request, offset));
                }
            }
            let expected: Vec<u32> = (1..=pushed).collect();
            prop_assert_eq!(&table.log, &expected);
            let expected: Vec<_> = (1..=pushed).map(|batch| (batch, Offset::new(u64::from(batch) - 1))).collect();
            prop_assert_eq!(acknowledged, expected);
        }
    }

    #[test]
    fn what_is_answered_out_of_turn_is_not_sent_again() {
        let mut pipeline = Pipeline::new(3);
        ['a', 'b', 'c'].into_iter().for_each(|batch| pipeline.push(batch));
        while pipeline.send_next().is_some() {}
        assert!(pipeline.answer(RequestNumber::new(2), Offset::new(5)).is_empty());
        pipeline.rewind();
        let mut again = Vec::new();
        while let Some((request, batch)) = pipeline.send_next() {
            again.push((request.as_raw(), *batch));
        }
        assert_eq!(again, [(1, 'a'), (3, 'c')]);
        assert!(!pipeline.has_unsent());
        assert!(pipeline.awaits_answer());
    }
}

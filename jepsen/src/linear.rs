//! Whether operations that overlapped in time can be put into one order that explains all their answers.
//!
//! An operation takes effect at one moment between its start and its end. The search takes the next operation of the order
//! from those that had started before the first end among those left; a state of the search (which operations are placed, and
//! the state they lead to) is visited once. An operation whose end is not known may take effect at any time after its start,
//! or never. The search is bounded: who runs into the bound is told that it is not known.
//!
//! Sources: Wing and Gong, "Testing and Verifying Concurrent Objects" (1993); Lowe, "Testing for Linearizability" (2017).

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// What operations do to a state, and whether their answers fit it.
pub(crate) trait Model {
    type State: Clone + Ord;
    type Call;

    /// The state after the call; none if the call's answer does not fit the state before it.
    fn step(&self, state: &Self::State, call: &Self::Call) -> Option<Self::State>;
}

/// An operation; times are of any unit that grows.
#[derive(Clone, Debug)]
pub(crate) struct Operation<C> {
    pub(crate) call: C,
    pub(crate) start: u64,
    /// None if nobody knows whether it was done, or ever will be.
    pub(crate) end: Option<u64>,
    /// An operation, by its place, that must come before this one in the order.
    pub(crate) after: Option<usize>,
}

/// What the search found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// There is such an order.
    Linearizable,
    /// There is none: in the farthest attempts, these operations, by place, could not be put anywhere.
    Impossible { stuck: Vec<usize> },
    /// The bound was hit first.
    Unknown,
}

/// How much the search may do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound {
    pub(crate) states: usize,
    pub(crate) time: Duration,
}

/// Which operations are placed, a bit each.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Placed(Vec<u64>);

impl Placed {
    fn none(count: usize) -> Self {
        Self(vec![0; count.div_ceil(64)])
    }

    fn has(&self, place: usize) -> bool {
        self.0[place / 64] >> (place % 64) & 1 == 1
    }

    fn with(&self, place: usize) -> Self {
        let mut more = self.clone();
        more.0[place / 64] |= 1 << (place % 64);
        more
    }
}

/// Looks for an order.
pub(crate) fn search<M: Model>(
    model: &M,
    initial: M::State,
    operations: &[Operation<M::Call>],
    bound: Bound,
) -> Outcome {
    let started = Instant::now();
    let mut seen = BTreeSet::new();
    let mut stack = vec![(Placed::none(operations.len()), initial, 0_usize)];
    let mut farthest = (0, BTreeSet::new());
    let total = operations.iter().filter(|operation| operation.end.is_some()).count();
    while let Some((placed, state, done)) = stack.pop() {
        if done == total {
            return Outcome::Linearizable;
        }
        if seen.len() >= bound.states || (seen.len() % 1024 == 1023 && started.elapsed() > bound.time) {
            return Outcome::Unknown;
        }
        if !seen.insert((placed.clone(), state.clone())) {
            continue;
        }
        let left = || (0..operations.len()).filter(|place| !placed.has(*place));
        let first_end = left().filter_map(|place| Some((operations[place].end?, place))).min();
        if let Some((_, place)) = first_end.filter(|_| done >= farthest.0) {
            if done > farthest.0 {
                farthest = (done, BTreeSet::new());
            }
            farthest.1.insert(place);
        }
        // Unknown ones first, so that they come off the stack last: most of them are not needed.
        let mut next: Vec<usize> = left()
            .filter(|place| first_end.is_none_or(|(end, _)| operations[*place].start <= end))
            .filter(|place| operations[*place].after.is_none_or(|before| placed.has(before)))
            .collect();
        next.sort_by_key(|place| std::cmp::Reverse(operations[*place].end.unwrap_or(u64::MAX)));
        for place in next {
            if let Some(after) = model.step(&state, &operations[place].call) {
                let done = done + usize::from(operations[place].end.is_some());
                stack.push((placed.with(place), after, done));
            }
        }
    }
    Outcome::Impossible { stuck: farthest.1.into_iter().collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A register that is written and read.
    struct Register;

    #[derive(Clone, Copy)]
    enum Call {
        Write(u8),
        Read(u8),
    }
    use Call::{Read, Write};

    impl Model for Register {
        type State = u8;
        type Call = Call;

        fn step(&self, state: &u8, call: &Call) -> Option<u8> {
            match *call {
                Write(value) => Some(value),
                Read(value) => (value == *state).then_some(value),
            }
        }
    }

    const BOUND: Bound = Bound { states: 10_000, time: Duration::from_secs(60) };

    /// A call, its start and its end.
    type Short = (Call, u64, Option<u64>);

    fn judge(operations: &[Short]) -> Outcome {
        let operation =
            |(call, start, end): &Short| Operation { call: *call, start: *start, end: *end, after: None };
        search(&Register, 0, &operations.iter().map(operation).collect::<Vec<_>>(), BOUND)
    }

    #[test]
    fn orders_that_exist_are_found() {
        let table: &[&[Short]] = &[
            &[],
            &[(Write(1), 0, Some(1)), (Read(1), 2, Some(3))],
            // A read during a write sees it or does not.
            &[(Write(1), 0, Some(9)), (Read(1), 1, Some(2)), (Read(1), 3, Some(4))],
            &[(Write(1), 0, Some(9)), (Read(0), 1, Some(2)), (Read(1), 3, Some(4))],
            // Nobody knows of the write; it takes effect late, or never.
            &[(Write(1), 0, None), (Read(0), 1, Some(2)), (Read(1), 5, Some(6))],
            &[(Write(1), 0, None), (Read(0), 1, Some(2))],
            // Two writes at once, in the order that the reads tell.
            &[(Write(1), 0, Some(9)), (Write(2), 0, Some(9)), (Read(2), 1, Some(2)), (Read(1), 3, Some(4))],
        ];
        for (number, operations) in table.iter().enumerate() {
            assert_eq!(judge(operations), Outcome::Linearizable, "case {number}");
        }
    }

    #[test]
    fn what_no_order_explains_is_told() {
        let table: &[(&[Short], usize)] = &[
            // A stale read.
            (&[(Write(1), 0, Some(1)), (Read(0), 2, Some(3))], 1),
            // Seen, and then no more.
            (&[(Write(1), 0, Some(9)), (Read(1), 1, Some(2)), (Read(0), 3, Some(4))], 2),
            // From nowhere.
            (&[(Read(7), 0, Some(1))], 0),
            // An unknown write takes effect once.
            (
                &[
                    (Write(1), 0, None),
                    (Read(1), 1, Some(2)),
                    (Write(2), 3, Some(4)),
                    (Read(2), 5, Some(6)),
                    (Read(1), 7, Some(8)),
                ],
                4,
            ),
        ];
        for (number, (operations, place)) in table.iter().enumerate() {
            let Outcome::Impossible { stuck } = judge(operations) else { panic!("case {number} passed") };
            assert!(stuck.contains(place), "case {number}: {stuck:?}");
        }
    }

    #[test]
    fn an_order_that_is_given_is_kept() {
        let operation = |call, after| Operation { call, start: 0, end: Some(9), after };
        let any = [operation(Read(1), None), operation(Write(1), None)];
        assert_eq!(search(&Register, 0, &any, BOUND), Outcome::Linearizable);
        let fixed = [operation(Read(1), None), operation(Write(1), Some(0))];
        assert_eq!(search(&Register, 0, &fixed, BOUND), Outcome::Impossible { stuck: vec![0] });
    }

    #[test]
    fn a_search_that_takes_too_long_is_given_up() {
        let many: Vec<_> = (0..40).map(|value| (Write(value), 0, Some(100))).collect();
        let mut many = many;
        many.push((Read(99), 200, Some(201)));
        assert_eq!(judge(&many), Outcome::Unknown);
    }
}

//! Delta debugging: of many parts that together fail, finds few that still do.
//!
//! The parts are cut into chunks. A chunk that fails alone is all that is kept; failing that, what fails without a chunk is
//! kept without it; failing that, the chunks are halved, until each is one part. The order of the parts stays.
//!
//! What comes out fails, and passes as soon as any single part of it is taken away (1-minimal): not the smallest there is, but
//! nothing in it is idle. Of `n` parts it asks at most about `n²` times, and about `log n` times where one part is to blame.
//!
//! Source: Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", 2002.

/// The parts that are left when no single one can be taken away any more. `fails` says whether these alone still fail; all of
/// `parts` together are taken to. It is asked about no parts at all first. If it begins to say no to everything, the best known
/// so far comes out.
pub fn ddmin<T: Clone>(parts: &[T], mut fails: impl FnMut(&[T]) -> bool) -> Vec<T> {
    let mut kept = parts.to_vec();
    if kept.is_empty() || fails(&[]) {
        return Vec::new();
    }
    let mut chunks = 2;
    while kept.len() >= 2 {
        let size = kept.len().div_ceil(chunks);
        if let Some(smaller) = chunk_that_fails(&kept, size, &mut fails) {
            kept = smaller;
            chunks = 2;
        } else if let Some(smaller) = rest_that_fails(&kept, size, &mut fails) {
            kept = smaller;
            chunks = (chunks - 1).max(2);
        } else if size == 1 {
            break;
        } else {
            chunks = (2 * chunks).min(kept.len());
        }
    }
    kept
}

fn chunk_that_fails<T: Clone>(
    parts: &[T],
    size: usize,
    fails: &mut impl FnMut(&[T]) -> bool,
) -> Option<Vec<T>> {
    parts.chunks(size).find(|chunk| fails(chunk)).map(<[T]>::to_vec)
}

/// With two chunks, the rest of one is the other, which was asked about already.
fn rest_that_fails<T: Clone>(
    parts: &[T],
    size: usize,
    fails: &mut impl FnMut(&[T]) -> bool,
) -> Option<Vec<T>> {
    if parts.len() <= 2 * size {
        return None;
    }
    let rests = (0..parts.len()).step_by(size).map(|start| {
        let end = (start + size).min(parts.len());
        [&parts[..start], &parts[end..]].concat()
    });
    rests.into_iter().find(|rest| fails(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every subset of ten parts as the one to blame, and what is found: that subset, and nothing else.
    #[test]
    fn what_is_to_blame_is_found_exactly() {
        let parts: Vec<u32> = (0..10).collect();
        for mask in 0..1_u32 << parts.len() {
            let guilty: Vec<u32> = parts.iter().copied().filter(|part| mask >> part & 1 == 1).collect();
            let found = ddmin(&parts, |kept| guilty.iter().all(|part| kept.contains(part)));
            assert_eq!(found, guilty);
        }
    }

    /// Any function of six parts that the full set satisfies, drawn at random: with rules that are not monotonous, too, what
    /// comes out fails, and nothing in it can be taken away.
    #[test]
    fn nothing_that_is_left_can_be_taken_away() {
        let parts: Vec<usize> = (0..6).collect();
        let index = |kept: &[usize]| kept.iter().fold(0, |index, part| index | 1_usize << part);
        for seed in 0..2_000 {
            let rng = &mut crate::random::stream(seed, "ddmin");
            let mut table: Vec<bool> =
                (0..1 << parts.len()).map(|_| crate::random::chance(rng, 300)).collect();
            *table.last_mut().expect("there are subsets") = true;
            let found = ddmin(&parts, |kept| table[index(kept)]);
            assert!(table[index(&found)], "seed {seed}: {found:?} does not fail");
            for left_out in &found {
                let fewer: Vec<usize> = found.iter().copied().filter(|part| part != left_out).collect();
                assert!(!table[index(&fewer)], "seed {seed}: {found:?} fails without {left_out}");
            }
        }
    }

    #[test]
    fn one_of_many_is_found_in_few_questions() {
        let parts: Vec<u32> = (0..1024).collect();
        for guilty in [0, 511, 512, 1023] {
            let mut asked = 0;
            let found = ddmin(&parts, |kept| {
                asked += 1;
                kept.contains(&guilty)
            });
            assert_eq!(found, [guilty]);
            assert!(asked <= 1 + 2 * 10, "{asked} questions for part {guilty}");
        }
    }

    #[test]
    fn who_is_not_answered_any_more_keeps_what_failed_last() {
        let parts: Vec<u32> = (0..64).collect();
        let mut answers = 3;
        let found = ddmin(&parts, |kept| {
            answers -= i32::from(answers > 0);
            answers > 0 && kept.contains(&7)
        });
        assert!(found.contains(&7) && found.len() < parts.len(), "{found:?}");
    }

    #[test]
    fn no_parts_are_left_where_none_is_needed() {
        assert_eq!(ddmin(&[1, 2, 3], |_| true), [0; 0]);
        assert_eq!(ddmin(&[0; 0], |_| false), [0; 0]);
    }
}

//! The smallest part of something that still shows what the whole does.

/// How often the part is tried at most: what is left then is smaller than before, though not the smallest.
const TRIES_MAX: usize = 600;

/// Takes out as much as possible while `shows` holds: halves first, then ever smaller pieces, at last one by one.
pub(crate) fn minimise<T: Clone>(whole: Vec<T>, shows: impl Fn(&[T]) -> bool) -> Vec<T> {
    let mut left = whole;
    let mut tries = 0;
    let mut piece = left.len().div_ceil(2);
    while piece > 0 {
        let mut start = 0;
        let mut is_smaller = false;
        while start < left.len() && tries < TRIES_MAX {
            let end = (start + piece).min(left.len());
            let rest = [&left[..start], &left[end..]].concat();
            tries += 1;
            if shows(&rest) {
                left = rest;
                is_smaller = true;
            } else {
                start = end;
            }
        }
        // What could not be spared before may be now, when something else is gone.
        piece = if piece == 1 && !is_smaller { 0 } else { (piece / 2).max(1) };
        if tries >= TRIES_MAX {
            break;
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_stays_and_nothing_else() {
        let needed = [3, 41, 97];
        let shows = |part: &[i32]| needed.iter().all(|one| part.contains(one));
        assert_eq!(minimise((0..100).collect(), shows), needed);
        assert_eq!(minimise(vec![1, 2, 3], |_| true), [] as [i32; 0]);
        assert_eq!(minimise(vec![1, 2, 3], |part| part.len() == 3), [1, 2, 3]);
    }

    #[test]
    fn one_of_several_is_enough() {
        assert_eq!(minimise((0..50).collect(), |part: &[i32]| part.iter().any(|one| one % 7 == 0)).len(), 1);
    }
}

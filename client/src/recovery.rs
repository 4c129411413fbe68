//! How a group goes on in which so many replicas may lack what they acknowledged that the others are no majority: which of them
//! an operator has go on with what they hold.
//!
//! Of the replicas in doubt no more are forced than the group needs for a majority, those with the newest logs first: the
//! latest log view, and the longest log in it. The next view begins with the newest log of all that take part, so nothing is
//! lost that any replica holds; the others take the log from these. It has to be known what *all* replicas hold: one that
//! was not asked may hold more. One without a voice is no part of any majority, whatever it holds.

use varve_protocol::client::Doubt;
use varve_protocol::id::{Offset, Op, View};

/// What is to be done, and what comes of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recovery {
    /// Who is to be forced, as places in the list of those who were asked; the newest log first.
    pub forced: Vec<usize>,
    /// The newest op that is left.
    pub head: Op,
    /// Where the partition ends then: what was acknowledged from there on is lost.
    pub log_end: Offset,
}

/// Why nobody is to be forced.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoRecovery {
    /// A majority lacks nothing, or somebody works.
    #[error("nothing is to be forced: enough of its replicas hold all that they acknowledged; wait for them")]
    NotNeeded,
    /// There is no majority, whoever is forced.
    #[error("only {reached} of its {replicas} replicas can be reached and have a voice; start more of them")]
    TooFew {
        /// Those who answered, and whose word counts.
        reached: usize,
        /// All there are.
        replicas: usize,
    },
}

impl Recovery {
    /// Chooses among those who said what they hold, of so many replicas.
    ///
    /// # Errors
    /// When nobody is to be forced.
    pub fn plan(doubts: &[Doubt], replicas: usize) -> Result<Self, NoRecovery> {
        let majority = replicas / 2 + 1;
        let reached: Vec<usize> = (0..doubts.len()).filter(|place| doubts[*place].has_voice).collect();
        let (mut forced, sure): (Vec<usize>, Vec<usize>) =
            reached.iter().partition(|place| doubts[**place].is_in_doubt);
        if sure.len() >= majority || doubts.iter().any(|doubt| doubt.is_normal) {
            return Err(NoRecovery::NotNeeded);
        }
        if reached.len() < majority {
            return Err(NoRecovery::TooFew { reached: reached.len(), replicas });
        }
        forced.sort_by_key(|place| std::cmp::Reverse(age(&doubts[*place])));
        forced.truncate(majority - sure.len());
        let part = forced.iter().chain(&sure).map(|place| doubts[*place]);
        let newest = part.max_by_key(age).expect("a majority is not empty");
        Ok(Self { forced, head: newest.head, log_end: newest.log_end })
    }
}

/// Of two logs the one with the larger age is the one that a view begins with.
fn age(doubt: &Doubt) -> (View, Op) {
    (doubt.log_view, doubt.head)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silent(log_view: u64, head: u64) -> Doubt {
        let (log_view, head, log_end) = (View::new(log_view), Op::new(head), Offset::new(10 * head));
        Doubt { is_in_doubt: true, is_normal: false, has_voice: true, log_view, head, log_end }
    }

    fn sure(log_view: u64, head: u64) -> Doubt {
        Doubt { is_in_doubt: false, ..silent(log_view, head) }
    }

    fn plan(forced: &[usize], head: u64) -> Result<Recovery, NoRecovery> {
        Ok(Recovery { forced: forced.to_vec(), head: Op::new(head), log_end: Offset::new(10 * head) })
    }

    #[test]
    fn the_newest_logs_are_chosen_and_no_more_than_needed() {
        assert_eq!(Recovery::plan(&[silent(1, 5), sure(1, 7), silent(1, 6)], 3), plan(&[2], 7));
        assert_eq!(Recovery::plan(&[silent(0, 4)], 1), plan(&[0], 4));
    }

    #[test]
    fn what_is_left_is_the_newest_log_and_not_the_longest() {
        assert_eq!(Recovery::plan(&[silent(1, 5), silent(2, 3), silent(1, 9)], 3), plan(&[1, 2], 3));
        assert_eq!(Recovery::plan(&[silent(1, 5), sure(2, 3), silent(1, 9)], 3), plan(&[2], 3));
    }

    #[test]
    fn who_has_no_voice_does_not_count() {
        let voiceless = Doubt { has_voice: false, ..sure(3, 9) };
        assert_eq!(Recovery::plan(&[silent(1, 5), voiceless, silent(1, 6)], 3), plan(&[2, 0], 6));
        let few = Err(NoRecovery::TooFew { reached: 1, replicas: 3 });
        assert_eq!(Recovery::plan(&[silent(1, 5), voiceless, voiceless], 3), few);
    }

    #[test]
    fn nothing_is_forced_without_need_or_without_a_majority() {
        let needless = Err(NoRecovery::NotNeeded);
        assert_eq!(Recovery::plan(&[silent(1, 5), sure(1, 7), sure(1, 6)], 3), needless);
        let primary = Doubt { is_normal: true, ..sure(1, 7) };
        assert_eq!(Recovery::plan(&[silent(1, 5), primary, silent(1, 6)], 3), needless);
        let few = Err(NoRecovery::TooFew { reached: 1, replicas: 3 });
        assert_eq!(Recovery::plan(&[silent(1, 5)], 3), few);
    }
}

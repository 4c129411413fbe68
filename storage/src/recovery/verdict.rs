//! Whether the end of a log is to be believed: the decision table for the newest segment, which the parent module explains.

use varve_protocol::id::Op;
use varve_protocol::mutant::Mutant;

use crate::segment::Slots;

/// Where the sound prepares of a segment end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scan {
    pub(super) position: u64,
    pub(super) size: u64,
    /// There is nothing behind, or only zeros.
    pub(super) tail_is_zero: bool,
    /// The op of the slot was met where the slot says, or not met.
    pub(super) slot_fits: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    Sound,
    Torn,
    EndLost,
    Contradicted,
}

/// The decision table for the newest segment.
pub(super) fn judge(slots: Slots, scan: &Scan, next_op: Op) -> Verdict {
    let Some(newest) = slots.newest else { return Verdict::EndLost };
    if newest.is_sealed || next_op < newest.op {
        return Verdict::EndLost;
    }
    if !scan.slot_fits {
        return Verdict::Contradicted;
    }
    match (scan.tail_is_zero, slots.are_sound) {
        (true, _) => Verdict::Sound,
        (false, true) => Verdict::Torn,
        (false, false) if !Mutant::RotTakenForTear.is_on() => Verdict::EndLost,
        (false, false) => Verdict::Torn,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::RoundSlot;

    const OLD: RoundSlot = RoundSlot { round: 4, op: Op::new(10), position: 5000, is_sealed: false };

    #[test]
    fn the_newest_segment_is_judged_by_the_table() {
        use Verdict::{Contradicted, EndLost, Sound, Torn};
        let sound = Slots { newest: Some(OLD), are_sound: true };
        let sealed = Slots { newest: Some(RoundSlot { is_sealed: true, ..OLD }), are_sound: true };
        let one_rotten = Slots { newest: Some(OLD), are_sound: false };
        let none = Slots { newest: None, are_sound: false };
        let at_slot = |tail_is_zero| Scan { position: 5000, size: 9000, tail_is_zero, slot_fits: true };
        let elsewhere = |tail_is_zero| Scan { slot_fits: false, ..at_slot(tail_is_zero) };
        let cases = [
            (none, at_slot(true), 10, EndLost),
            (none, at_slot(false), 10, EndLost),
            (sealed, at_slot(true), 10, EndLost),
            (sound, at_slot(true), 9, EndLost),
            (sound, at_slot(false), 9, EndLost),
            (sound, elsewhere(true), 10, Contradicted),
            (sound, elsewhere(false), 10, Contradicted),
            (sound, at_slot(true), 10, Sound),
            (sound, at_slot(true), 12, Sound),
            (sound, at_slot(false), 10, Torn),
            (sound, at_slot(false), 12, Torn),
            (one_rotten, at_slot(true), 9, EndLost),
            (one_rotten, at_slot(true), 12, Sound),
            (one_rotten, at_slot(false), 12, EndLost),
        ];
        for (slots, scan, next_op, verdict) in cases {
            assert_eq!(judge(slots, &scan, Op::new(next_op)), verdict, "{slots:?} {scan:?} {next_op}");
        }
    }
}

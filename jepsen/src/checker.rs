//! What a log promises, checked against what clients saw. Sends whose outcome nobody knows may be there or not, once.
//!
//! First everything that anybody was told of a partition is collected: which value stands at which offset, from
//! acknowledgements and from reads. Then each promise is looked at by itself; one fault may well break several.
//!
//! The checks follow what is usual for logs of this kind (G1a and the names around it come from Adya's thesis); offsets here
//! have no gaps, which makes some of them sharper.

mod anomaly;
mod evidence;
mod explain;
mod order;
mod presence;
mod real_time;
mod report;

pub(crate) use self::anomaly::Anomaly;
pub(crate) use self::explain::explain;
pub(crate) use self::report::{Report, Verdict};

use self::evidence::Evidence;
use crate::history::History;

/// Judges a history.
pub(crate) fn check(history: &History) -> Report {
    let evidence = Evidence::collect(history);
    let mut anomalies = evidence.contradictions();
    anomalies.extend(presence::check(history, &evidence));
    anomalies.extend(order::check(history, &evidence));
    anomalies.extend(real_time::check(history));
    Report::new(history, anomalies)
}

#[cfg(test)]
mod tests;

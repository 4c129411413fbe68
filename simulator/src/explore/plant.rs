//! Mistakes that the harness makes on purpose, each of them one that drivers have made: the search must find them.

/// A mistake.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Plant {
    /// A disk says that a prepare is durable when it is not: a crash takes the newest one on it.
    DurableTooEarly,
    /// A restart finds an older superblock: the view promised in a view change is forgotten (P1).
    ViewForgotten,
    /// A restart takes the view that it was about to enter for one that it has worked in (P2).
    LogViewAhead,
    /// A `PrepareOk` counts for a replica that has not sent it, too.
    VoteForged,
    /// A `DoViewChange` tells nothing above the commit.
    LogHidden,
    /// Whoever is asked confirms a view, whatever he does.
    ViewConfirmedBlindly,
}

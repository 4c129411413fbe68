//! The leader-aware client of Varve.

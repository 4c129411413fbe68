//! Viewstamped Replication as a pure function of its inputs.
pub mod event;

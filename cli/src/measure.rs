//! What measuring takes, whoever measures: `varve bench` throughput and latency, `varve drill` what a failure costs.

pub(crate) mod attendants;
pub(crate) mod clock;
pub(crate) mod disk;
pub(crate) mod drawing;
pub(crate) mod latency;
pub(crate) mod own_topic;
pub(crate) mod payload;
pub(crate) mod rate;
pub(crate) mod report_file;
pub(crate) mod setting;

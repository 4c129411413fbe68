//! The language that nodes and clients of Varve speak. Depends on nothing else of the project.
//!
//! * [`id`], [`time`]: the numbers that name things.
//! * [`prepare`]: the unit of replication, of the segment file and of what consumers receive.
//! * [`record`], [`compression`]: what users store, and the batch they append.
//! * [`frame`], [`message`]: what travels between nodes.
//! * [`client`], [`metadata`]: what travels between clients and nodes.
//! * [`durability`]: when an append counts as done.
//! * [`superblock`]: what a replica must never forget.
//! * [`log_start`], [`snapshot`]: how a log lets go of what is old.
//! * [`resume_point`]: where a start goes on reading.
//! * [`version`]: what a release can speak, and what a cluster speaks.
//! * [`limits`]: every bound of the system.
//! * [`mark`]: points of the code that tests are to get to.
//! * [`mutant`]: mistakes that tests can switch on.

pub mod checksum;
pub mod client;
pub mod compression;
pub mod durability;
pub mod frame;
pub mod id;
pub mod limits;
pub mod log_start;
pub mod mark;
pub mod message;
pub mod metadata;
pub mod mutant;
pub mod prepare;
pub mod pulse;
pub mod record;
pub mod replacement;
pub mod resume_point;
pub mod retention;
pub mod snapshot;
pub mod superblock;
pub mod time;
pub mod version;

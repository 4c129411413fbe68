//! What a cluster of nodes does for its clients, without sockets, threads or luck: nodes, memory disks, a queue.

mod anew;
mod cluster;

mod appends;
mod balance;
mod catching_up;
mod changes;
mod full;
mod liveness;
mod lost_disks;
mod memory;
mod mend;
mod metadata;
mod moves;
mod peers;
mod reads;
mod restarts;
mod retention;
mod scrub;
mod summing_up;
mod versions;

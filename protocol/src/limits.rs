//! Every limit of the system in one place, each with its reason. `_MAX` is inclusive.

/// Nodes in a cluster. Node ids fit a byte and a vote set fits a `u32`.
pub const NODES_MAX: usize = 31;

/// Replicas of one group. Seven survive three failures; more only slow the quorum down.
pub const REPLICAS_MAX: usize = 7;

/// Bytes in the body of one prepare: one record batch. Bounds the memory of a window and the time one
/// batch can hold a disk or a lane.
pub const BATCH_BYTES_MAX: usize = 16 << 20;

/// Bytes in one record batch as a producer builds it unless told otherwise: large enough that a sync is shared by
/// many records, small enough that its latency stays in single milliseconds.
pub const BATCH_BYTES_DEFAULT: usize = 1 << 20;

/// Bytes in one record (key, payload and framing). Fits a default batch.
pub const RECORD_BYTES_MAX: usize = BATCH_BYTES_DEFAULT - 64;

/// Bytes in the key of a header. One byte tells its size.
pub const HEADER_KEY_BYTES_MAX: usize = 255;

/// Headers of one record. They are looked up one after the other, and each insertion copies those that are there.
pub const HEADERS_PER_RECORD_MAX: usize = 256;

/// Bytes of all headers of one record, framing included. Headers are for those who route and trace; content is the payload's.
pub const HEADERS_BYTES_MAX: usize = 64 << 10;

/// Records in one batch; a batch of the smallest records stays below it.
pub const BATCH_RECORDS_MAX: u32 = 1 << 20;

/// Prepares above the commit that a primary keeps in flight for one group. Covers the bandwidth-delay product of a
/// LAN with 1 MiB batches, and bounds the suffix that a view change carries.
pub const PREPARES_IN_FLIGHT_MAX: u64 = 64;

/// Bytes of prepares above the commit that a primary keeps in flight for one group, whatever their number.
pub const PREPARES_IN_FLIGHT_BYTES_MAX: usize = 16 << 20;

/// Reads of one group that wait until a quorum confirms the primary's view. One round answers all of them, so a full list
/// means that rounds take long.
pub const READS_WAITING_MAX: usize = 1024;

/// Prepares that a backup sets aside while it waits for the ones before them.
pub const PREPARES_ASIDE_MAX: usize = 64;

/// Headers in one message: a suffix of uncommitted prepares with room for a window of committed ones.
pub const HEADERS_PER_MESSAGE_MAX: usize = 512;

/// Prepares asked for in one repair request.
pub const REPAIR_PREPARES_MAX: u64 = 16;

/// Requests of one producer that the client table remembers per group; a producer's pipeline is no deeper.
pub const CLIENT_TABLE_REQUESTS_MAX: usize = 32;

/// Producers that the client table of one group remembers; the one idle for the most ops is evicted first.
pub const CLIENT_TABLE_PRODUCERS_MAX: usize = 4096;

/// Bytes in the body of a frame: a full batch with its prepare header, and room for a fetch that carries several.
pub const FRAME_BODY_BYTES_MAX: usize = BATCH_BYTES_MAX + (64 << 10);

/// Bytes in the name of a stream or a topic. Names appear in paths of tools and in URLs.
pub const NAME_BYTES_MAX: usize = 255;

/// Partitions of one topic.
pub const PARTITIONS_PER_TOPIC_MAX: u32 = 1024;

/// Partitions hosted by one node (a design target, and the bound of a node's group table).
pub const GROUPS_PER_NODE_MAX: usize = 10_000;

/// Bytes of records in one answer to a fetch unless the consumer asks for less.
pub const FETCH_BYTES_MAX: usize = 8 << 20;

/// Milliseconds a fetch may wait for records.
pub const FETCH_WAIT_MS_MAX: u32 = 30_000;

/// Bytes in a frame of filler that measures what a way takes, frames in a row, and bytes of them that a node sends in a second:
/// two megabytes in an eighth of a second, which a cluster in use does not feel and a good network carries with ease.
pub const PROBE_BYTES: usize = 64 << 10;
/// See [`PROBE_BYTES`].
pub const PROBES_PER_ROW: u64 = 32;
/// See [`PROBE_BYTES`].
pub const PROBE_BYTES_PER_SECOND_MAX: u64 = 16 << 20;

const _: () = {
    assert!(RECORD_BYTES_MAX < BATCH_BYTES_DEFAULT, "a record of the largest size fits a default batch");
    assert!(HEADERS_BYTES_MAX < RECORD_BYTES_MAX, "a record has room for its headers");
    assert!(BATCH_BYTES_DEFAULT <= BATCH_BYTES_MAX, "the default batch is a legal one");
    assert!(
        PREPARES_IN_FLIGHT_MAX < HEADERS_PER_MESSAGE_MAX as u64,
        "a view change carries the whole window"
    );
    assert!(BATCH_BYTES_MAX < FRAME_BODY_BYTES_MAX, "a prepare with a full batch fits a frame");
    assert!(FETCH_BYTES_MAX < FRAME_BODY_BYTES_MAX, "a full fetch fits a frame");
    assert!(PREPARES_IN_FLIGHT_BYTES_MAX >= BATCH_BYTES_MAX, "a full batch fits the window");
};

/// Views, ops, offsets and timestamps above this are refused where they come from a network or a disk: nobody counts that far, and
/// whoever counts on from there must not overflow.
pub const NUMBER_MAX: u64 = 1 << 62;

//! Bytes that survive: segments, journal recovery, superblocks.

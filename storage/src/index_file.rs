//! What is known of a sealed segment, in a file beside it, so that it need not be read again at a start.
//!
//! `<name of the segment, without .log>.index`, little-endian:
//!
//! | offset | size | name          | meaning                                                       |
//! |-------:|-----:|---------------|---------------------------------------------------------------|
//! |      0 |    4 | checksum      | CRC-32 of all that follows                                    |
//! |      4 |    4 | magic         | `VRVX`                                                        |
//! |      8 |    4 | version       | 1                                                             |
//! |     12 |    4 | count         | entries that follow the fields                                |
//! |     16 |    8 | group         | whose segment it is                                           |
//! |     24 |    8 | first_op      | op of the first prepare in the segment                        |
//! |     32 |    8 | end           | position behind the last prepare                              |
//! |     40 |    8 | newest        | the newest timestamp in it, microseconds                      |
//! |     48 |    8 | next_offset   | offset of the first record behind it                          |
//! |     56 |    8 | last_op       | op of the last prepare                                        |
//! |     64 |    8 | last_view     | its view                                                      |
//! |     72 |    4 | last_checksum | its checksum                                                  |
//! |     76 |    4 | reserved      | zero                                                          |
//! |     80 |   32 | entry         | for each: op, base offset, position, timestamp (8 bytes each) |
//!
//! It is made when the segment is sealed. One that is lost, torn or rotten is made again from the segment when that is read. The last prepare is that which the next segment names as its parent. Its checksum is one over the whole
//! log up to there, so an index that fits is the index of these very bytes, whenever it was made.

use std::path::{Path, PathBuf};

use bytes::{BufMut, Bytes, BytesMut};
use varve_protocol::checksum::checksum;
use varve_protocol::id::{Offset, Op, Timestamp, View};
use varve_protocol::prepare::PrepareId;

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{IoContext, StorageError};
use crate::identity::Owner;
use crate::index::{IndexEntry, SparseIndex};
use crate::reader::Chain;
use crate::sealed_file;
use crate::segment::{FIRST_POSITION, Segment, parse_file_name};

const MAGIC: u32 = u32::from_le_bytes(*b"VRVX");
const VERSION: u32 = 1;
const ENTRIES_AT: usize = 80;
const ENTRY_SIZE: usize = 32;
/// Far more than a segment of the largest size has.
const FILE_BYTES_MAX: u64 = 64 << 20;
const SUFFIX: &str = "index";

/// The index file of a segment file.
pub(crate) fn path_of(segment: &Path) -> PathBuf {
    segment.with_extension(SUFFIX)
}

/// The segment file whose index has this name; none if it is not the name of an index.
pub(crate) fn segment_name(name: &str) -> Option<String> {
    let segment = format!("{}.log", name.strip_suffix(".index")?);
    parse_file_name(&segment).is_some().then_some(segment)
}

fn encode(segment: &Segment, end: &Chain) -> Bytes {
    let entries = segment.index.entries();
    let mut rest = BytesMut::with_capacity(ENTRIES_AT + entries.len() * ENTRY_SIZE);
    rest.put_u32_le(MAGIC);
    rest.put_u32_le(VERSION);
    rest.put_u32_le(u32::try_from(entries.len()).expect("a segment has fewer entries"));
    for field in [
        segment.header.group.as_raw(),
        segment.header.first_op().as_raw(),
        segment.end,
        segment.newest.as_raw(),
        end.next_offset.as_raw(),
        end.head.op.as_raw(),
        end.head.view.as_raw(),
    ] {
        rest.put_u64_le(field);
    }
    rest.put_u32_le(end.head.checksum);
    rest.put_u32_le(0);
    for IndexEntry { op, base_offset, position, timestamp } in entries {
        rest.put_u64_le(op.as_raw());
        rest.put_u64_le(base_offset.as_raw());
        rest.put_u64_le(*position);
        rest.put_u64_le(timestamp.as_raw());
    }
    let mut bytes = BytesMut::with_capacity(4 + rest.len());
    bytes.put_u32_le(checksum(&rest));
    bytes.extend_from_slice(&rest);
    bytes.freeze()
}

/// Fills in what is known of a segment; returns the end of the log as of its last prepare. `None` if the bytes are not sound, or
/// not of this segment.
fn decode(bytes: &[u8], segment: &mut Segment, chain: Chain) -> Option<Chain> {
    let u32_at = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let u64_at = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let count = u32_at(12)? as usize;
    let is_sound = u32_at(0)? == checksum(bytes.get(4..)?)
        && (u32_at(4)?, u32_at(8)?) == (MAGIC, VERSION)
        && bytes.len() == ENTRIES_AT.checked_add(count.checked_mul(ENTRY_SIZE)?)?;
    let header = &segment.header;
    let is_its = (u64_at(16)?, u64_at(24)?) == (header.group.as_raw(), header.first_op().as_raw());
    if !is_sound || !is_its || count == 0 {
        return None;
    }
    let entry = |at: usize| {
        Some(IndexEntry {
            op: Op::new(u64_at(at)?),
            base_offset: Offset::new(u64_at(at + 8)?),
            position: u64_at(at + 16)?,
            timestamp: Timestamp::new(u64_at(at + 24)?),
        })
    };
    let entries: Vec<_> =
        (0..count).map(|number| entry(ENTRIES_AT + number * ENTRY_SIZE)).collect::<Option<_>>()?;
    let end = u64_at(32)?;
    let starts = entries
        .first()
        .is_some_and(|first| (first.op, first.position) == (header.first_op(), FIRST_POSITION));
    let ascends = entries.windows(2).all(|two| two[0].op < two[1].op && two[0].position < two[1].position);
    if !starts || !ascends || entries.last().is_none_or(|last| last.position >= end) {
        return None;
    }
    segment.index = SparseIndex::of(entries);
    segment.end = end;
    segment.newest = Timestamp::new(u64_at(40)?);
    let head = PrepareId { op: Op::new(u64_at(56)?), view: View::new(u64_at(64)?), checksum: u32_at(72)? };
    Some(Chain { head, next_offset: Offset::new(u64_at(48)?), ..chain })
}

/// Reads the index of a sealed segment, and fills in what it says; returns the end of the log as of the segment's last prepare.
/// `None` if there is none that is sound, of this segment, and of a file of this size.
pub(crate) fn read<D: Disk>(
    disk: &D,
    owner: &Owner,
    segment: &mut Segment,
    size: u64,
    chain: Chain,
) -> Result<Option<Chain>, StorageError> {
    let path = path_of(&segment.path);
    let file = match disk.open(&path, OpenMode::Existing) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        opened => opened.or_failed_to("open", &path)?,
    };
    let bytes = file.size().or_failed_to("read the size of", &path)?.min(FILE_BYTES_MAX);
    let mut bytes = vec![0; usize::try_from(bytes).expect("the file is small")];
    let read = file.read_at(&mut bytes, 0).or_failed_to("read", &path)?;
    bytes.truncate(read);
    let bytes = sealed_file::open(owner, chain.group, &path, bytes)?;
    Ok(decode(&bytes, segment, chain).filter(|_| segment.end == size))
}

/// Removes the indexes of segments that are gone. One that is left behind says nothing about anything.
pub(crate) fn remove<'a, D: Disk>(disk: &D, segments: impl Iterator<Item = &'a PathBuf>) {
    for path in segments.map(|segment| path_of(segment)) {
        match disk.remove(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "an index cannot be removed");
            }
            Ok(()) | Err(_) => {}
        }
    }
}

/// Writes the index of a segment that ends as `end` says. It is no loss if that fails: the segment is read again then.
pub(crate) fn write<D: Disk>(disk: &D, owner: &Owner, segment: &Segment, end: &Chain) {
    let path = path_of(&segment.path);
    let bytes = sealed_file::seal(owner, end.group, &path, encode(segment, end));
    let written = disk
        .remove(&path)
        .or_else(|error| if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
        .and_then(|()| disk.open(&path, OpenMode::CreateNew))
        .and_then(|file| {
            file.write_at(std::slice::from_ref(&bytes), 0)?;
            file.sync()
        });
    if let Err(error) = written {
        tracing::warn!(path = %path.display(), %error, "no index was written; the segment will be read again");
    }
}

#[cfg(test)]
mod tests {
    use varve_protocol::id::{ClusterId, GroupId, NodeId};

    use super::*;
    use crate::identity::Identity;
    use crate::keys::Keys;
    use crate::segment::SegmentHeader;

    fn segment() -> Segment {
        let header = SegmentHeader {
            identity: Identity { cluster: ClusterId::new(1), node: NodeId::new(3) },
            group: GroupId::new(7),
            parent: PrepareId { op: Op::new(41), view: View::new(5), checksum: 0xaabb_ccdd },
            base_offset: Offset::new(1000),
            key: None,
        };
        Segment::new(Path::new("groups/0000000007"), header, &Keys::NONE).unwrap()
    }

    fn known_segment() -> Segment {
        let entry = |number: u64| IndexEntry {
            op: Op::new(42 + number),
            base_offset: Offset::new(1000 + number),
            position: 4096 + number * 0x0001_0000,
            timestamp: Timestamp::new(0x10 + number),
        };
        let index = SparseIndex::of(vec![entry(0), entry(9)]);
        Segment { index, end: 0x0010_0000, newest: Timestamp::new(0x30), ..segment() }
    }

    fn chain() -> Chain {
        let head = PrepareId { op: Op::new(60), view: View::new(6), checksum: 0x0102_0304 };
        Chain { head, next_offset: Offset::new(1020), ..Chain::root(ClusterId::new(1), GroupId::new(7)) }
    }

    #[test]
    fn an_index_has_these_bytes() {
        let bytes = encode(&known_segment(), &chain());
        let hex: String = bytes[4..].iter().map(|byte| format!("{byte:02x}")).collect();
        let fields = [
            "56525658",
            "01000000",
            "02000000",
            "0700000000000000",
            "2a00000000000000",
            "0000100000000000",
            "3000000000000000",
            "fc03000000000000",
            "3c00000000000000",
            "0600000000000000",
            "04030201",
            "00000000",
            "2a00000000000000e80300000000000000100000000000001000000000000000",
            "3300000000000000f10300000000000000100900000000001900000000000000",
        ];
        assert_eq!(hex, fields.concat());
    }

    #[test]
    fn no_damage_passes() {
        let sound = encode(&known_segment(), &chain());
        let mut read = segment();
        assert_eq!(decode(&sound, &mut read, Chain::root(ClusterId::new(1), GroupId::new(7))), Some(chain()));
        assert_eq!(format!("{read:?}"), format!("{:?}", known_segment()));
        let refuses = |bytes: &[u8]| decode(bytes, &mut segment(), chain()).is_none();
        assert!((0..sound.len()).all(|size| refuses(&sound[..size])), "cut short");
        for bit in 0..sound.len() * 8 {
            let mut rotten = sound.to_vec();
            rotten[bit / 8] ^= 1 << (bit % 8);
            assert!(refuses(&rotten), "bit {bit}");
        }
    }

    #[test]
    fn the_index_of_another_segment_is_refused() {
        let sound = encode(&known_segment(), &chain());
        let header = SegmentHeader { group: GroupId::new(8), ..segment().header };
        assert!(decode(&sound, &mut Segment { header, ..segment() }, chain()).is_none());
    }

    #[test]
    fn an_index_is_named_after_its_segment() {
        let segment = "00000000000000001000-00000000000000000042.log";
        let index = "00000000000000001000-00000000000000000042.index";
        assert_eq!(path_of(Path::new(segment)), Path::new(index));
        assert_eq!(segment_name(index), Some(segment.to_owned()));
        assert_eq!([segment_name(segment), segment_name("12.index")], [None, None]);
    }
}

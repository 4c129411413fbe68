//! The nodes that founded the cluster, each with its data directory: the file `founders`, written once, before anything is
//! promised in the data directory.
//!
//! Little-endian; 16 bytes, and 16 for each founder:
//!
//! | offset | size | name      | meaning                         |
//! |-------:|-----:|-----------|---------------------------------|
//! |      0 |    4 | checksum  | CRC-32 of all that follows      |
//! |      4 |    4 | magic     | `VRVF`                          |
//! |      8 |    1 | count     | founders that follow            |
//! |      9 |    7 | reserved  | zero                            |
//! |     16 |    1 | node      |                                 |
//! |     17 |    7 | reserved  | zero                            |
//! |     24 |    8 | directory | its data directory at that time |

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use bytes::{BufMut, Bytes, BytesMut};
use varve_protocol::checksum::checksum;
use varve_protocol::id::{DirectoryId, NodeId};

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{IoContext, StorageError};
use crate::file;

/// The name of the file.
pub(crate) const FOUNDERS_NAME: &str = "founders";

const MAGIC: u32 = u32::from_le_bytes(*b"VRVF");
const PIECE: usize = 16;

/// Writes the file, durably and at once.
pub(crate) fn write<D: Disk>(disk: &D, founders: &BTreeMap<NodeId, DirectoryId>) -> Result<(), StorageError> {
    file::create_whole(disk, Path::new(FOUNDERS_NAME), encode(founders))?;
    Ok(())
}

/// Reads the file; `None` if there is none, which is so until the cluster is founded.
pub(crate) fn read<D: Disk>(disk: &D) -> Result<Option<BTreeMap<NodeId, DirectoryId>>, StorageError> {
    let path = Path::new(FOUNDERS_NAME);
    let file = match disk.open(path, OpenMode::Existing) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StorageError::io("open", path, error)),
    };
    let size = file.size().or_failed_to("read the size of", path)?;
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(0).min(PIECE * 256)];
    let read = file.read_at(&mut bytes, 0).or_failed_to("read", path)?;
    decode(&bytes[..read]).map(Some).ok_or_else(|| StorageError::IdentityDamaged { path: path.to_owned() })
}

fn encode(founders: &BTreeMap<NodeId, DirectoryId>) -> Bytes {
    let mut rest = BytesMut::new();
    rest.put_u32_le(MAGIC);
    rest.put_u8(u8::try_from(founders.len()).expect("there are fewer nodes than a byte can count"));
    rest.put_bytes(0, 7);
    for (node, directory) in founders {
        rest.put_u8(node.as_raw());
        rest.put_bytes(0, 7);
        rest.put_u64_le(directory.as_raw());
    }
    let mut bytes = BytesMut::with_capacity(4 + rest.len());
    bytes.put_u32_le(checksum(&rest));
    bytes.extend_from_slice(&rest);
    bytes.freeze()
}

fn decode(bytes: &[u8]) -> Option<BTreeMap<NodeId, DirectoryId>> {
    let (sum, rest) = bytes.split_at_checked(4)?;
    let is_sound = sum == checksum(rest).to_le_bytes()
        && rest.get(..4)? == MAGIC.to_le_bytes()
        && bytes.len() == PIECE * (1 + usize::from(*rest.get(4)?));
    let founder = |piece: &[u8]| {
        let directory = u64::from_le_bytes(piece[8..].try_into().expect("eight bytes make a u64"));
        (NodeId::new(piece[0]), DirectoryId::new(directory))
    };
    is_sound.then(|| bytes[PIECE..].chunks_exact(PIECE).map(founder).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn founders() -> BTreeMap<NodeId, DirectoryId> {
        [(1, 0x0a0b), (3, 77)].map(|(node, raw)| (NodeId::new(node), DirectoryId::new(raw))).into()
    }

    #[test]
    fn founders_have_these_bytes() {
        let hex: String = encode(&founders()).iter().map(|byte| format!("{byte:02x}")).collect();
        let fields = [
            "80252dd1",
            "56525646",
            "02",
            "00000000000000",
            "01",
            "00000000000000",
            "0b0a000000000000",
            "03",
            "00000000000000",
            "4d00000000000000",
        ];
        assert_eq!(hex, fields.concat());
        assert_eq!(decode(&encode(&founders())), Some(founders()));
    }

    #[test]
    fn no_flipped_bit_and_no_cut_passes() {
        let sound = encode(&founders());
        for bit in 0..sound.len() * 8 {
            let mut bytes = sound.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&bytes), None);
        }
        assert!((0..sound.len()).all(|size| decode(&sound[..size]).is_none()));
    }
}

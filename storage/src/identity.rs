//! Whose data directory this is: the file `identity`, written last when a directory is formatted, never changed.
//!
//! 64 bytes, little-endian:
//!
//! | offset | size | name      | meaning                             |
//! |-------:|-----:|-----------|-------------------------------------|
//! |      0 |    4 | checksum  | CRC-32 of bytes 4..64               |
//! |      4 |    4 | magic     | `VRVI`                              |
//! |      8 |    4 | version   | of the whole directory: 6           |
//! |     12 |    1 | node      | the node this directory belongs to  |
//! |     13 |    3 | reserved  | zero                                |
//! |     16 |   16 | cluster   | the cluster that node is of         |
//! |     32 |    8 | directory | drawn when it was formatted         |
//! |     40 |   24 | reserved  | zero                                |

use std::io;
use std::path::Path;

use bytes::Bytes;
use varve_protocol::checksum::checksum;
use varve_protocol::id::{ClusterId, DirectoryId, NodeId};
use zerocopy::byteorder::little_endian::{U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{IoContext, StorageError};
use crate::file;
use crate::keys::Keys;

/// The name of the identity file.
pub(crate) const IDENTITY_NAME: &str = "identity";

const MAGIC: u32 = u32::from_le_bytes(*b"VRVI");
const VERSION: u32 = 6;
const SIZE: usize = 64;

/// Which node of which cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
}

/// Whose files these are, and the keys that they are sealed with.
#[derive(Clone, Debug)]
pub(crate) struct Owner {
    pub(crate) identity: Identity,
    pub(crate) keys: Keys,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Layout {
    checksum: U32,
    magic: U32,
    version: U32,
    node: u8,
    reserved: [u8; 3],
    cluster: U128,
    directory: U64,
    reserved_end: [u8; 24],
}

const _: () = assert!(size_of::<Layout>() == SIZE, "the byte table is the struct");

impl Identity {
    /// Writes the identity file, durably and at once: it is there whole or not at all.
    pub(crate) fn write<D: Disk>(&self, disk: &D, directory: DirectoryId) -> Result<(), StorageError> {
        file::create_whole(disk, Path::new(IDENTITY_NAME), Bytes::from(self.encode(directory)))?;
        Ok(())
    }

    fn encode(self, directory: DirectoryId) -> Vec<u8> {
        let mut layout = Layout {
            checksum: U32::ZERO,
            magic: U32::new(MAGIC),
            version: U32::new(VERSION),
            node: self.node.as_raw(),
            reserved: [0; 3],
            cluster: U128::new(self.cluster.as_raw()),
            directory: U64::new(directory.as_raw()),
            reserved_end: [0; 24],
        };
        layout.checksum = U32::new(checksum(&layout.as_bytes()[4..]));
        layout.as_bytes().to_vec()
    }

    /// Whose data directory this is.
    ///
    /// # Errors
    /// When it is not formatted, or damaged.
    pub fn of<D: Disk>(disk: &D) -> Result<Self, StorageError> {
        Self::read(disk).map(|(identity, _)| identity)
    }

    fn read<D: Disk>(disk: &D) -> Result<(Self, DirectoryId), StorageError> {
        let path = Path::new(IDENTITY_NAME);
        let file = match disk.open(path, OpenMode::Existing) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(StorageError::NotFormatted),
            Err(error) => return Err(StorageError::io("open", path, error)),
        };
        let mut bytes = [0; SIZE];
        if file.read_at(&mut bytes, 0).or_failed_to("read", path)? < SIZE {
            return Err(StorageError::IdentityDamaged { path: path.to_owned() });
        }
        Self::decode(&bytes, path)
    }

    /// Checks that the data directory is this node's, and says which one it is.
    pub(crate) fn check<D: Disk>(&self, disk: &D) -> Result<DirectoryId, StorageError> {
        let (found, directory) = Self::read(disk)?;
        if found.cluster != self.cluster {
            return Err(StorageError::WrongCluster { found: found.cluster, expected: self.cluster });
        }
        if found.node != self.node {
            return Err(StorageError::WrongNode { found: found.node, expected: self.node });
        }
        Ok(directory)
    }

    fn decode(bytes: &[u8; SIZE], path: &Path) -> Result<(Self, DirectoryId), StorageError> {
        let layout: Layout = zerocopy::transmute!(*bytes);
        if layout.checksum.get() != checksum(&bytes[4..]) || layout.magic.get() != MAGIC {
            return Err(StorageError::IdentityDamaged { path: path.to_owned() });
        }
        let found = layout.version.get();
        if found != VERSION {
            return Err(StorageError::WrongVersion { path: path.to_owned(), found, expected: VERSION });
        }
        let identity = Self { cluster: ClusterId::new(layout.cluster.get()), node: NodeId::new(layout.node) };
        Ok((identity, DirectoryId::new(layout.directory.get())))
    }
}

//! A file that is read around what its disk cannot read: there it has zeros, which no checksum is of.

use std::io;

use bytes::Bytes;

use crate::disk::DiskFile;

/// What disks read at once, at least.
const BLOCK_BYTES: usize = 4096;

/// See the module's text.
pub(super) struct Tolerant<F>(pub(super) F);

/// Reads as if there were zeros where the disk cannot read.
pub(super) fn read_around(file: &impl DiskFile, buffer: &mut [u8], position: u64) -> io::Result<usize> {
    let error = match file.read_at(buffer, position) {
        Err(error) => error,
        read => return read,
    };
    tracing::error!(position, bytes = buffer.len(), %error, "the disk cannot read this; read around it");
    let left = usize::try_from(file.size()?.saturating_sub(position)).unwrap_or(usize::MAX);
    let count = left.min(buffer.len());
    for (place, block) in buffer[..count].chunks_mut(BLOCK_BYTES).enumerate() {
        let at = position + (place * BLOCK_BYTES) as u64;
        if file.read_at(block, at).is_err() {
            block.fill(0);
        }
    }
    Ok(count)
}

impl<F: DiskFile> DiskFile for Tolerant<F> {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        read_around(&self.0, buffer, position)
    }

    fn write_at(&self, chunks: &[Bytes], position: u64) -> io::Result<()> {
        self.0.write_at(chunks, position)
    }

    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.0.set_size(size)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn drop_cached(&self, position: u64, size: u64) {
        self.0.drop_cached(position, size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of sevens, of which one byte cannot be read.
    struct Bad {
        size: usize,
        bad: u64,
    }

    impl DiskFile for Bad {
        fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
            let left = (self.size as u64).saturating_sub(position);
            let count = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            if (position..position + count as u64).contains(&self.bad) {
                return Err(io::Error::other("a bad sector"));
            }
            buffer[..count].fill(7);
            Ok(count)
        }

        fn write_at(&self, _: &[Bytes], _: u64) -> io::Result<()> {
            Ok(())
        }

        fn size(&self) -> io::Result<u64> {
            Ok(self.size as u64)
        }

        fn set_size(&self, _: u64) -> io::Result<()> {
            Ok(())
        }

        fn sync(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_is_around_a_bad_sector_is_read() {
        let file = Tolerant(Bad { size: 20_000, bad: 9_000 });
        let mut buffer = vec![1; 30_000];
        assert_eq!(file.read_at(&mut buffer, 100).ok(), Some(19_900));
        let zeros = buffer[..19_900].iter().filter(|byte| **byte == 0).count();
        let sevens = buffer[..19_900].iter().filter(|byte| **byte == 7).count();
        assert_eq!((zeros, sevens), (BLOCK_BYTES, 19_900 - BLOCK_BYTES));
        assert_eq!(buffer[8_900], 0, "the bad one is among them");
        assert_eq!(file.read_at(&mut buffer, 100).ok(), Some(19_900));
    }
}

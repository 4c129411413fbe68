//! Lines of an input as slices of the blocks it was read in: nothing is copied or allocated per line.
//!
//! A line ends with `\n`, which is not part of it; the last one may do without. Bytes are taken as they are. A block is a
//! row of whole lines; what follows its last newline opens the next block, and is the only thing that is moved.

use std::io::{self, Read};

use bytes::{Bytes, BytesMut};
use varve_protocol::limits::RECORD_BYTES_MAX;

/// Bytes that the buffer grows by.
const GROWTH: usize = 1 << 20;

/// Bytes of room for a read at least: what a pipe holds.
const READ_SIZE_MIN: usize = 64 << 10;

/// Why there is no next block.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinesError {
    /// The input cannot be read.
    #[error("cannot read the input after line {line}: {source}")]
    Read {
        /// The last line that was read whole.
        line: u64,
        /// What the system says.
        source: io::Error,
    },
    /// A line that fits no record.
    #[error(
        "line {line} is too long: a record holds at most {RECORD_BYTES_MAX} bytes with its framing; split it"
    )]
    TooLong {
        /// Which line, from 1.
        line: u64,
    },
}

/// Whole lines of the input.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Block {
    bytes: Bytes,
    first_line: u64,
}

impl Block {
    /// The lines with their numbers.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (u64, Bytes)> + '_ {
        let mut start = 0;
        (self.first_line..).map_while(move |number| {
            let rest = self.bytes.get(start..).filter(|rest| !rest.is_empty())?;
            let end = start + memchr::memchr(b'\n', rest).unwrap_or(rest.len());
            let line = self.bytes.slice(start..end);
            start = end + 1;
            Some((number, line))
        })
    }
}

/// Reads an input block by block.
#[derive(Debug)]
pub(crate) struct Blocks<R> {
    input: R,
    /// What was read, and then room that is initialised already.
    buffer: BytesMut,
    /// Bytes of what was read.
    filled: usize,
    next_line: u64,
    ended: bool,
}

impl<R: Read> Blocks<R> {
    pub(crate) fn new(input: R) -> Self {
        Self { input, buffer: BytesMut::new(), filled: 0, next_line: 1, ended: false }
    }

    /// The next block; none at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Block>, LinesError> {
        let mut searched = 0;
        loop {
            let newline =
                memchr::memrchr(b'\n', &self.buffer[searched..self.filled]).map(|at| searched + at + 1);
            let end = newline.or((self.ended && self.filled > 0).then_some(self.filled));
            match end {
                Some(end) => return Ok(Some(self.take(end))),
                None if self.ended => return Ok(None),
                None if self.filled > RECORD_BYTES_MAX => {
                    return Err(LinesError::TooLong { line: self.next_line });
                }
                None => {}
            }
            searched = self.filled;
            self.read()?;
        }
    }

    fn take(&mut self, end: usize) -> Block {
        let bytes = self.buffer.split_to(end).freeze();
        self.filled -= end;
        let first_line = self.next_line;
        let lines = memchr::memchr_iter(b'\n', &bytes).count() + usize::from(!bytes.ends_with(b"\n"));
        self.next_line += lines as u64;
        Block { bytes, first_line }
    }

    fn read(&mut self) -> Result<(), LinesError> {
        if self.buffer.len() < self.filled + READ_SIZE_MIN {
            self.buffer.resize(self.filled + GROWTH, 0);
        }
        let read = loop {
            match self.input.read(&mut self.buffer[self.filled..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        let read = read.map_err(|source| LinesError::Read { line: self.next_line - 1, source })?;
        self.filled += read;
        self.ended = read == 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives its bytes in pieces of a size that changes with every read.
    struct Dribble<'a> {
        rest: &'a [u8],
        piece: usize,
    }

    impl Read for Dribble<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.piece = 1 + self.piece * 7 % 11;
            let size = self.piece.min(self.rest.len()).min(buffer.len());
            buffer[..size].copy_from_slice(&self.rest[..size]);
            self.rest = &self.rest[size..];
            Ok(size)
        }
    }

    fn lines_of(input: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let mut blocks = Blocks::new(Dribble { rest: input, piece: 3 });
        let mut lines = Vec::new();
        while let Some(block) = blocks.next().unwrap() {
            lines.extend(block.lines().map(|(number, line)| (number, line.to_vec())));
        }
        lines
    }

    #[test]
    fn lines_are_what_stands_between_newlines() {
        let table: &[(&[u8], &[&[u8]])] = &[
            (b"", &[]),
            (b"\n", &[b""]),
            (b"\n\n", &[b"", b""]),
            (b"one", &[b"one"]),
            (b"one\n", &[b"one"]),
            (b"one\n\ntwo", &[b"one", b"", b"two"]),
            (b"\r\n\xff\x00\nend of it, some way off\n", &[b"\r", b"\xff\x00", b"end of it, some way off"]),
        ];
        for (input, expected) in table {
            let expected: Vec<(u64, Vec<u8>)> =
                (1..).zip(expected.iter().map(|line| line.to_vec())).collect();
            assert_eq!(lines_of(input), expected, "for {:?}", String::from_utf8_lossy(input));
        }
    }

    #[test]
    fn every_byte_of_a_text_comes_back() {
        let text: String = (0..5_000).map(|number| format!("{}\n", "x".repeat(number % 97))).collect();
        let mut blocks = Blocks::new(text.as_bytes());
        let mut back = Vec::new();
        while let Some(block) = blocks.next().unwrap() {
            for (_, line) in block.lines() {
                back.extend_from_slice(&line);
                back.push(b'\n');
            }
        }
        assert_eq!(back.as_slice(), text.as_bytes());
    }

    #[test]
    fn a_line_without_end_is_refused_by_its_number() {
        let input = [b"short\n".as_slice(), &vec![b'x'; RECORD_BYTES_MAX + GROWTH]].concat();
        let mut blocks = Blocks::new(input.as_slice());
        assert_eq!(blocks.next().unwrap().unwrap().lines().count(), 1);
        let error = blocks.next().unwrap_err().to_string();
        assert!(error.starts_with("line 2 is too long"), "{error}");
    }
}

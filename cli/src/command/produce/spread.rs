//! Which partition a line goes to.
//!
//! Without a key, a partition is filled with a batch's worth of lines before the next one has its turn: spreading record by
//! record would cut every batch into as many small ones as there are partitions.

use bytes::Bytes;
use varve_protocol::record::Record;

/// How lines are spread over the partitions of a topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Spread {
    /// All to one partition.
    One(u32),
    /// A batch to each in turn.
    Turns { partitions: u32, current: u32, room: usize, batch_bytes: usize, framing: usize },
    /// By the key in front of this byte.
    Keys(u8),
}

/// Where a record goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// To this partition.
    Partition(u32),
    /// To the partition of its key.
    Key,
}

impl Spread {
    /// Turns over this many partitions, a batch of this many bytes to each; a record takes so many beside its line.
    pub(crate) fn turns(partitions: u32, (batch_bytes, framing): (usize, usize)) -> Self {
        Self::Turns { partitions, current: 0, room: batch_bytes, batch_bytes, framing }
    }

    /// The record that a line is, and where it goes; none if it should have a key and does not.
    pub(crate) fn place(&mut self, line: Bytes) -> Option<(Place, Record)> {
        match self {
            Self::One(partition) => Some((Place::Partition(*partition), unkeyed(line))),
            Self::Keys(separator) => {
                let at = memchr::memchr(*separator, &line)?;
                let record = Record {
                    key: Some(line.slice(..at)),
                    payload: line.slice(at + 1..),
                    ..Record::default()
                };
                Some((Place::Key, record))
            }
            Self::Turns { partitions, current, room, batch_bytes, framing } => {
                let size = line.len() + *framing;
                if size > *room {
                    *current = (*current + 1) % *partitions;
                    *room = *batch_bytes;
                }
                *room = room.saturating_sub(size);
                Some((Place::Partition(*current), unkeyed(line)))
            }
        }
    }
}

fn unkeyed(line: Bytes) -> Record {
    Record { payload: line, ..Record::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partitions(spread: &mut Spread, sizes: &[usize]) -> Vec<u32> {
        let place = |size: &usize| match spread.place(Bytes::from(vec![b'x'; *size])).unwrap().0 {
            Place::Partition(partition) => partition,
            Place::Key => panic!("there is no key"),
        };
        sizes.iter().map(place).collect()
    }

    #[test]
    fn a_partition_gets_a_batch_before_the_next_has_its_turn() {
        let mut spread = Spread::turns(3, (300, 24));
        assert_eq!(
            partitions(&mut spread, &[76, 76, 76, 76, 76, 500, 0, 176, 76]),
            [0, 0, 0, 1, 1, 2, 0, 0, 1]
        );
        assert_eq!(partitions(&mut Spread::turns(1, (300, 24)), &[276, 276, 276]), [0, 0, 0]);
        assert_eq!(partitions(&mut Spread::One(7), &[276, 276, 276]), [7, 7, 7]);
    }

    #[test]
    fn a_key_ends_at_the_first_separator() {
        let mut spread = Spread::Keys(b':');
        let (place, record) = spread.place(Bytes::from_static(b"a:b:c")).unwrap();
        assert_eq!(
            (place, record.key.as_deref(), &record.payload[..]),
            (Place::Key, Some(&b"a"[..]), &b"b:c"[..])
        );
        let (_, record) = spread.place(Bytes::from_static(b":")).unwrap();
        assert_eq!((record.key.as_deref(), &record.payload[..]), (Some(&b""[..]), &b""[..]));
        assert!(spread.place(Bytes::from_static(b"abc")).is_none());
    }
}

//! A stream of octets as records, one at a time.
//!
//! Holds one record, never the file. Over a slice it is a pure function of it.

use std::io::{self, Read};

use bytes::Bytes;

use super::{HEADER_LEN, ReadError, Record};

/// Longest record read or written, header excluded. A table of 65,535 peers, or a prefix that every
/// one of them knows with 200 octets of attributes, is below it.
pub const MAX_RECORD_LEN: usize = 16 << 20;

/// Octets reserved before any have been seen: a length field alone must not cost memory.
const RESERVE: usize = 64 << 10;

/// The records of a file, in order.
///
/// A record that is wrong inside is told as [`ReadError::Record`] and the next one follows; any
/// other error is the last item.
///
/// ```
/// use bgp::mrt::{Body, Reader};
///
/// let file = [0, 0, 0, 1, 0, 99, 0, 7, 0, 0, 0, 1, 0xab];
/// let record = Reader::new(&file[..]).next().unwrap().unwrap();
/// assert!(matches!(record.body, Body::Other { kind: 99, subtype: 7, .. }));
/// ```
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    offset: u64,
    ended: bool,
}

impl<R: Read> Reader<R> {
    /// Reads from here on. Small reads are made: wrap a file in a [`std::io::BufReader`].
    pub fn new(input: R) -> Reader<R> {
        Reader {
            input,
            offset: 0,
            ended: false,
        }
    }

    /// Octets read so far: where the next record starts.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Up to `wanted` octets, fewer only at the end of the input.
    fn fetch(&mut self, wanted: usize) -> Result<Vec<u8>, ReadError> {
        let mut octets = Vec::with_capacity(wanted.min(RESERVE));
        let read = self
            .input
            .by_ref()
            .take(wanted as u64)
            .read_to_end(&mut octets);
        self.offset += octets.len() as u64;
        read.map_err(|source: io::Error| ReadError::Io {
            offset: self.offset,
            source,
        })?;
        Ok(octets)
    }

    fn record(&mut self) -> Result<Option<Record>, ReadError> {
        let offset = self.offset;
        let truncated = |wanted: usize, available: usize| ReadError::Truncated {
            offset,
            wanted: wanted as u64,
            available: available as u64,
        };
        let header = self.fetch(HEADER_LEN)?;
        if header.is_empty() {
            return Ok(None);
        }
        let &[s0, s1, s2, s3, k0, k1, t0, t1, l0, l1, l2, l3] = header.as_slice() else {
            return Err(truncated(HEADER_LEN, header.len()));
        };
        let seconds = u32::from_be_bytes([s0, s1, s2, s3]);
        let kind = u16::from_be_bytes([k0, k1]);
        let subtype = u16::from_be_bytes([t0, t1]);
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        let wanted = usize::try_from(length).unwrap_or(usize::MAX);
        if wanted > MAX_RECORD_LEN {
            return Err(ReadError::TooLong {
                offset,
                kind,
                subtype,
                length,
                max: MAX_RECORD_LEN,
            });
        }
        let octets = self.fetch(wanted)?;
        if octets.len() < wanted {
            return Err(truncated(HEADER_LEN + wanted, HEADER_LEN + octets.len()));
        }
        Record::parse(seconds, kind, subtype, Bytes::from(octets))
            .map(Some)
            .map_err(|error| ReadError::Record {
                offset,
                kind,
                subtype,
                error,
            })
    }
}

impl<R: Read> Iterator for Reader<R> {
    type Item = Result<Record, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let record = self.record();
        self.ended = !matches!(&record, Ok(Some(_)) | Err(ReadError::Record { .. }));
        record.transpose()
    }
}

//! How many octets etcd's messages take: protobuf as in etcd's `rpc.proto` and `kv.proto`, in a gRPC message and an
//! HTTP/2 frame. TLS, TCP and IP come on top (some 3 % for messages of this size) and are not counted.

/// A gRPC message begins with 5 octets, its HTTP/2 DATA frame with 9.
const FRAME: u64 = 5 + 9;
/// The header of an answer but for its revision: ids of cluster and member are of 64 bits, the term is small.
const HEADER: u64 = 2 + 11 + 11 + 2;

fn varint(number: u64) -> u64 {
    u64::from((64 - number.max(1).leading_zeros()).div_ceil(7))
}

fn number(value: u64) -> u64 {
    match value {
        0 => 0,
        _ => 1 + varint(value),
    }
}

fn field(octets: u64) -> u64 {
    1 + varint(octets) + octets
}

/// A key and its value as etcd tells or keeps them.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyValue {
    pub(super) key: u64,
    pub(super) value: u64,
    pub(super) created: u64,
    pub(super) modified: u64,
    pub(super) version: u64,
    pub(super) lease: u64,
}

impl KeyValue {
    pub(super) fn octets(self) -> u64 {
        let numbers = [self.created, self.modified, self.version, self.lease];
        let numbers: u64 = numbers.into_iter().map(number).sum();
        let value = match self.value {
            0 => 0,
            octets => field(octets),
        };
        field(self.key) + value + numbers
    }

    /// As part of the answer to a range request.
    pub(super) fn in_range(self) -> u64 {
        field(self.octets())
    }

    /// As an event of a watch that says it was put.
    pub(super) fn as_put(self) -> u64 {
        field(field(self.octets()))
    }
}

/// An event of a watch that says a key was deleted.
pub(super) fn deleted(key: u64, revision: u64) -> u64 {
    field(2 + field(field(key) + number(revision)))
}

/// What a watch says of one revision, whose events have so many octets.
pub(super) fn watch_response(revision: u64, events: u64) -> u64 {
    FRAME + HEADER + number(revision) + 2 + events
}

/// The answer to a range request, whose records have so many octets.
pub(super) fn range_response(revision: u64, records: u64, count: u64) -> u64 {
    FRAME + HEADER + number(revision) + records + 2 + number(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_take_seven_bits_an_octet() {
        for (value, octets) in [(0, 1), (127, 1), (128, 2), (16_383, 2), (16_384, 3)] {
            assert_eq!(varint(value), octets, "{value}");
        }
        assert_eq!(varint(u64::MAX), 10);
    }

    /// Put together by hand from the protocol's definition.
    #[test]
    fn a_key_value_has_the_size_of_its_parts() {
        let kv = KeyValue {
            key: 30,
            value: 130,
            created: 200,
            modified: 20_000,
            version: 3,
            lease: 0,
        };
        assert_eq!(kv.octets(), 32 + 133 + 3 + 4 + 2);
        assert_eq!(kv.in_range(), 174 + 3);
        assert_eq!(kv.as_put(), 174 + 3 + 3);
        assert_eq!(deleted(30, 200), 2 + 2 + 2 + 32 + 3);
    }
}

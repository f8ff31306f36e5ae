//! As much of BGP's messages as injector and sink need: they shall not share a mistake with the
//! subject `ours`, so nothing of the `bgp` crate is used.

use std::net::Ipv4Addr;

use super::prefix_set::PrefixId;

/// KEEPALIVE (RFC 4271 section 4.4).
pub const KEEPALIVE: [u8; 19] = [
    255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0, 19, 4,
];
/// Octets of a header (RFC 4271 section 4.1).
const HEADER: usize = 19;

/// One message.
#[derive(Debug)]
pub enum Message<'a> {
    /// OPEN.
    Open,
    /// UPDATE.
    Update(Update<'a>),
    /// NOTIFICATION: code and subcode.
    Notification(u8, u8),
    /// KEEPALIVE.
    Keepalive,
    /// Another type: ROUTE-REFRESH.
    Other,
}

/// The prefixes of an UPDATE.
#[derive(Debug)]
pub struct Update<'a> {
    withdrawn: &'a [u8],
    announced: &'a [u8],
}

/// What a subject sent is no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// No marker, or a length that none can have.
    #[error("no BGP header")]
    Header,
    /// Lengths that do not fit into the message, or a prefix over /24.
    #[error("an UPDATE that does not add up")]
    Update,
}

impl<'a> Update<'a> {
    fn parse(body: &'a [u8]) -> Option<Update<'a>> {
        let (length, rest) = body.split_first_chunk::<2>()?;
        let (withdrawn, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
        let (length, rest) = rest.split_first_chunk::<2>()?;
        let (_, announced) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
        Some(Update {
            withdrawn,
            announced,
        })
    }

    /// The withdrawn prefixes.
    pub fn withdrawn(&self) -> Prefixes<'a> {
        Prefixes(self.withdrawn)
    }

    /// The announced prefixes.
    pub fn announced(&self) -> Prefixes<'a> {
        Prefixes(self.announced)
    }
}

/// The prefixes of a field; ends with an error if it does not add up.
#[derive(Debug)]
pub struct Prefixes<'a>(&'a [u8]);

impl Iterator for Prefixes<'_> {
    type Item = Result<PrefixId, WireError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let (length, rest) = self.0.split_first()?;
        let octets = usize::from(length.div_ceil(8));
        if octets > 3 || rest.len() < octets {
            self.0 = &[];
            return Some(Err(WireError::Update));
        }
        let (prefix, rest) = rest.split_at(octets);
        self.0 = rest;
        let mut address = [0; 4];
        address[..octets].copy_from_slice(prefix);
        Some(Ok(PrefixId::new(address.into(), *length)))
    }
}

/// The first message, and what is behind it; `None` if it is not there completely.
///
/// # Errors
/// It is none, or its UPDATE does not add up.
#[inline]
pub fn split(octets: &[u8]) -> Result<Option<(Message<'_>, &[u8])>, WireError> {
    let Some(header) = octets.first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes([header[16], header[17]]));
    if header[..16] != [0xff; 16] || length < HEADER {
        return Err(WireError::Header);
    }
    let Some((message, rest)) = octets.split_at_checked(length) else {
        return Ok(None);
    };
    let body = &message[HEADER..];
    let message = match header[18] {
        1 => Message::Open,
        2 => Message::Update(Update::parse(body).ok_or(WireError::Update)?),
        3 => match body {
            [code, subcode, ..] => Message::Notification(*code, *subcode),
            _ => return Err(WireError::Header),
        },
        4 => Message::Keepalive,
        _ => Message::Other,
    };
    Ok(Some((message, rest)))
}

/// An OPEN with the capabilities IPv4 unicast (RFC 4760) and 4-octet AS (RFC 6793).
pub fn open(asn: u32, router_id: Ipv4Addr, hold_time: u16) -> Vec<u8> {
    let mut capabilities = vec![1, 4, 0, 1, 0, 1, 65, 4];
    capabilities.extend_from_slice(&asn.to_be_bytes());
    let mut octets = vec![0xff; 16];
    let optional = capabilities.len() + 2;
    octets.extend_from_slice(&((HEADER + 10 + optional) as u16).to_be_bytes());
    octets.extend_from_slice(&[1, 4]);
    // AS_TRANS where two octets are too few.
    let short = u16::try_from(asn).unwrap_or(23_456);
    octets.extend_from_slice(&short.to_be_bytes());
    octets.extend_from_slice(&hold_time.to_be_bytes());
    octets.extend_from_slice(&router_id.octets());
    octets.extend_from_slice(&[optional as u8, 2, capabilities.len() as u8]);
    octets.append(&mut capabilities);
    octets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cut_where_they_end() {
        let mut octets = open(65_010, Ipv4Addr::new(10, 99, 0, 10), 180);
        octets.extend_from_slice(&KEEPALIVE);
        assert!(split(&octets[..18]).expect("not yet").is_none());
        assert!(split(&octets[..40]).expect("not yet").is_none());
        let (message, rest) = split(&octets).expect("a message").expect("whole");
        assert!(matches!(message, Message::Open), "{message:?}");
        let (message, rest) = split(rest).expect("a message").expect("whole");
        assert!(matches!(message, Message::Keepalive) && rest.is_empty());
        octets[3] = 0;
        assert_eq!(split(&octets).err(), Some(WireError::Header));
    }

    #[test]
    fn an_update_that_does_not_add_up_is_an_error() {
        let mut octets = vec![0xff; 16];
        octets.extend_from_slice(&[0, 25, 2, 0, 9, 0, 0, 24, 10]);
        assert_eq!(split(&octets).err(), Some(WireError::Update));
        let mut octets = vec![0xff; 16];
        octets.extend_from_slice(&[0, 25, 2, 0, 0, 0, 0, 24, 10]);
        let (message, _) = split(&octets).expect("a message").expect("whole");
        let Message::Update(update) = message else {
            panic!("{message:?}")
        };
        let prefixes: Vec<_> = update.announced().collect();
        assert_eq!(prefixes, [Err(WireError::Update)]);
    }
}

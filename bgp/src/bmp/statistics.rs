//! Counters of a peer (RFC 7854 section 4.8).

use bytes::{BufMut, Bytes, BytesMut};

use super::error::u16_field;
use super::{BmpError, PutError};
use crate::cursor::Cursor;
use crate::wire::AfiSafi;

/// One counter or gauge of a peer. Counters start with the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statistic {
    /// 0: prefixes that the import policy refused.
    Rejected(u32),
    /// 4: routes refused because our AS is in their AS_PATH.
    AsPathLoops(u32),
    /// 7: routes in the Adj-RIB-In.
    AdjRibIn(u64),
    /// 8: routes in the Loc-RIB.
    LocRib(u64),
    /// 9: routes of one family in the Adj-RIB-In.
    AdjRibInOf(AfiSafi, u64),
    /// 10: routes of one family in the Loc-RIB.
    LocRibOf(AfiSafi, u64),
    /// 11: UPDATEs treated as a withdrawal (RFC 7606).
    UpdatesAsWithdrawals(u32),
    /// 12: prefixes treated as withdrawn (RFC 7606).
    PrefixesAsWithdrawals(u32),
    /// Any other, as received.
    Other(u16, Bytes),
}

impl Statistic {
    /// Its type (RFC 7854 section 4.8).
    pub const fn kind(&self) -> u16 {
        match self {
            Statistic::Rejected(_) => 0,
            Statistic::AsPathLoops(_) => 4,
            Statistic::AdjRibIn(_) => 7,
            Statistic::LocRib(_) => 8,
            Statistic::AdjRibInOf(..) => 9,
            Statistic::LocRibOf(..) => 10,
            Statistic::UpdatesAsWithdrawals(_) => 11,
            Statistic::PrefixesAsWithdrawals(_) => 12,
            Statistic::Other(kind, _) => *kind,
        }
    }

    pub(super) fn parse(cursor: &mut Cursor) -> Result<Statistic, BmpError> {
        let kind = cursor.u16("statistic type")?;
        let length = usize::from(cursor.u16("statistic length")?);
        let offset = cursor.offset();
        let value = cursor.take("statistic", length)?;
        let wanted = match kind {
            0 | 4 | 11 | 12 => 4,
            7 | 8 => 8,
            9 | 10 => 11,
            _ => length,
        };
        if length != wanted {
            return Err(BmpError::ValueLength {
                field: "statistic",
                offset,
                length,
                wanted,
            });
        }
        let mut value = Cursor::new(value, offset);
        Ok(match kind {
            0 => Statistic::Rejected(value.u32("counter")?),
            4 => Statistic::AsPathLoops(value.u32("counter")?),
            7 => Statistic::AdjRibIn(value.u64("gauge")?),
            8 => Statistic::LocRib(value.u64("gauge")?),
            9 => Statistic::AdjRibInOf(family(&mut value)?, value.u64("gauge")?),
            10 => Statistic::LocRibOf(family(&mut value)?, value.u64("gauge")?),
            11 => Statistic::UpdatesAsWithdrawals(value.u32("counter")?),
            12 => Statistic::PrefixesAsWithdrawals(value.u32("counter")?),
            _ => Statistic::Other(kind, value.rest()),
        })
    }

    pub(super) fn put(&self, out: &mut BytesMut) -> Result<(), PutError> {
        out.put_u16(self.kind());
        match self {
            Statistic::Rejected(count)
            | Statistic::AsPathLoops(count)
            | Statistic::UpdatesAsWithdrawals(count)
            | Statistic::PrefixesAsWithdrawals(count) => {
                out.put_u16(4);
                out.put_u32(*count);
            }
            Statistic::AdjRibIn(gauge) | Statistic::LocRib(gauge) => {
                out.put_u16(8);
                out.put_u64(*gauge);
            }
            Statistic::AdjRibInOf(family, gauge) | Statistic::LocRibOf(family, gauge) => {
                out.put_u16(11);
                out.put_u16(family.afi);
                out.put_u8(family.safi);
                out.put_u64(*gauge);
            }
            Statistic::Other(_, value) => {
                out.put_u16(u16_field("statistic", value.len())?);
                out.put_slice(value);
            }
        }
        Ok(())
    }
}

fn family(value: &mut Cursor) -> Result<AfiSafi, BmpError> {
    Ok(AfiSafi {
        afi: value.u16("AFI")?,
        safi: value.u8("SAFI")?,
    })
}

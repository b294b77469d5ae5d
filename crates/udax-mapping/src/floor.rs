//! The floor of a mapping: a promise that it is made of folios that large.
//!
//! Owns the look before the promise. A fault that cannot keep it later fails with the reason, too.

use crate::fault::{FaultError, FaultGuard};
use crate::iomap::Iomap;
use crate::run::{Bounds, Run};
use crate::stats::Fallback;
use crate::user::User;
use udax_mm::{Access, FileIndex, Order};

impl FaultGuard<'_> {
    /// Refuses a mapping that cannot be made of folios of its floor: not there, or not of what the
    /// file has at this moment. A hole may be given such a folio later.
    pub(crate) fn check_floor(&self, user: &User) -> Result<(), FaultError> {
        let (floor, range) = (user.floor(), user.range());
        if floor == Order::Base {
            return Ok(());
        }
        let below = |index, reason| FaultError::BelowFloor { index, floor, reason };
        let mut at = range.start;
        while at < range.end {
            user.block_around(at, floor).map_err(|reason| below(at, reason))?;
            if self.mapping().index().has_smaller(at, floor) {
                return Err(below(at, Fallback::Conflict));
            }
            at =
                self.check_block(at, floor, range.end).map_err(|(at, reason)| below(at, reason))?;
        }
        Ok(())
    }

    /// Looks at what begins at `at`. Returns the first block of the floor that it says nothing of.
    fn check_block(
        &self,
        at: FileIndex,
        floor: Order,
        limit: FileIndex,
    ) -> Result<FileIndex, (FileIndex, Fallback)> {
        let next = at + floor.pages();
        let Ok(owner) = self.owner() else { return Ok(limit) };
        match owner.iomap(at, Access::Read) {
            Ok(Iomap::Data { span, start, is_shared, .. }) => {
                let run = Run::new(span, start, is_shared);
                if run.fixed_order().is_some_and(|fixed| fixed < floor) {
                    return Err((at, Fallback::DeviceOrder));
                }
                if is_shared {
                    return Err((at, Fallback::Shared));
                }
                run.block(at, floor, || owner.end()).map_err(|reason| (at, reason))?;
                Ok(next)
            }
            Ok(Iomap::Hole { pages }) if at + pages < next => Err((at, Fallback::ExtentTooShort)),
            // What cannot be known is for the fault to say.
            Ok(Iomap::Hole { .. } | Iomap::PastEnd) | Err(_) => Ok(next),
        }
    }
}

//! Folios: handles that count.
use crate::*;
use std::marker::PhantomData;
use std::ops::Range;
/// A counted reference to one folio. Clone = get, Drop = put. Holds a PgmapRef.
#[derive(Clone, Debug)]
pub struct Folio(());
/// `nr` adjacent folios of one order
#[derive(Debug)]
pub struct FolioSpan(());
/// A folio borrowed from whoever counts it. Copy.
#[derive(Clone, Copy, Debug)]
pub struct FolioRef<'a>(PhantomData<&'a Folio>);
#[allow(unused_variables)]
impl Folio {
    /// head page
    pub fn head(&self) -> PgmapOff { todo!() }
    /// x
    pub fn order(&self) -> Order { todo!() }
    /// x
    pub fn pages(&self) -> Range<PgmapOff> { todo!() }
    /// x
    pub fn pgmap(&self) -> &PgmapRef { todo!() }
    /// borrow
    pub fn borrow(&self) -> FolioRef<'_> { todo!() }
    /// A reference that truncation waits for. Registered in the pgmap's pins.
    pub fn pin(&self, info: PinInfo) -> PinnedFolio { todo!() }
    /// whether any pin is held
    pub fn is_pinned(&self) -> bool { todo!() }
}
#[allow(unused_variables)]
impl FolioSpan {
    /// x
    pub fn into_folios(self) -> impl Iterator<Item = Folio> { std::iter::empty() }
    /// x
    pub fn pages(&self) -> Range<PgmapOff> { todo!() }
}
#[allow(unused_variables)]
impl<'a> FolioRef<'a> {
    /// x
    pub fn head(&self) -> PgmapOff { todo!() }
    /// x
    pub fn order(&self) -> Order { todo!() }
    /// takes a counted reference of its own
    pub fn to_folio(&self) -> Folio { todo!() }
}

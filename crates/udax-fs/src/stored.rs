//! Objects written out of place, and how far on their way to the medium they are.
//!
//! This file owns the three states `Dirty -> Flushed -> Durable`. A transaction publishes only what
//! is [`Durable`], and that state only comes out of the fence that made it so.

use crate::store::{Fresh, Store};
use crate::FsError;
use std::marker::PhantomData;

/// Stores were made; they may reach the medium in any order, or never.
#[derive(Debug)]
pub enum Dirty {}

/// The cache lines are on their way.
#[derive(Debug)]
pub enum Flushed {}

/// A fence came after the flush: a power loss keeps the object.
#[derive(Debug)]
pub enum Durable {}

/// An object `T` in state `S`. Dropping it before it is published gives its pages back.
#[must_use]
#[derive(Debug)]
pub struct Stored<T, S> {
    object: T,
    state: PhantomData<S>,
}

/// Pages of file data (also of directories and of the inode table).
#[derive(Debug)]
pub struct Data {
    fresh: Fresh,
}

/// What knows the pages it was written to.
pub trait Object {
    /// Calls `flush` for each range of bytes written.
    fn fresh(&self) -> Box<dyn Iterator<Item = &Fresh> + '_>;
}

#[allow(unused_variables, missing_docs)]
impl Stored<Data, Dirty> {
    /// Writes `bytes` at byte `offset` of the pages, and zeros everywhere else.
    pub(crate) fn data(store: &Store, fresh: Fresh, offset: u64, bytes: &[u8]) -> Result<Stored<Data, Dirty>, FsError> { todo!() }
    pub(crate) fn zeros(store: &Store, fresh: Fresh) -> Result<Stored<Data, Dirty>, FsError> { todo!() }
}

#[allow(unused_variables)]
impl<T: Object> Stored<T, Dirty> {
    /// Starts every line of the object on its way.
    #[track_caller]
    pub(crate) fn flush(self, store: &Store) -> Result<Stored<T, Flushed>, FsError> { todo!() }
}

/// Fences once for all `objects` (and not at all if none wrote anything).
#[track_caller]
#[allow(unused_variables)]
pub(crate) fn fence_all<T: Object>(store: &Store, objects: Vec<Stored<T, Flushed>>) -> Result<Vec<Stored<T, Durable>>, FsError> { todo!() }

#[allow(unused_variables)]
impl<T: Object> Stored<T, Flushed> {
    /// Fences for this object alone.
    #[track_caller]
    pub(crate) fn fence(self, store: &Store) -> Result<Stored<T, Durable>, FsError> { todo!() }
}

//! Objects written out of place, and how far on their way to the medium they are.
//!
//! This file owns the three states `Dirty -> Flushed -> Durable`. A transaction publishes only what
//! is [`Durable`], and that state only comes out of the fence that made it so.

use crate::FsError;
use crate::num::to_u64;
use crate::store::{Fresh, Store};
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

/// Pages of file data (of directories and of the inode table, too).
#[derive(Debug)]
pub struct Data {
    fresh: Fresh,
}

/// What was written to pages of its own.
pub trait Object {
    /// The pages; all their bytes were written.
    fn fresh(&self) -> &[Fresh];
}

impl Stored<Data, Dirty> {
    /// Writes `bytes` at byte `offset` of the pages, and zeros everywhere else.
    ///
    /// # Errors
    ///
    /// The device's; the pages are given back.
    ///
    /// # Panics
    ///
    /// Panics if the bytes do not fit.
    pub(crate) fn data(
        store: &Store,
        fresh: Fresh,
        offset: u64,
        bytes: &[u8],
    ) -> Result<Stored<Data, Dirty>, FsError> {
        let len = fresh.extent().pages.bytes();
        let end = offset + to_u64(bytes.len());
        assert!(end <= len, "the bytes of an object fit in its pages");
        store.zero_fresh(&fresh, 0..offset)?;
        store.write_fresh(&fresh, offset, bytes)?;
        store.zero_fresh(&fresh, end..len)?;
        Ok(Stored::dirty(Data { fresh }))
    }

    /// Writes zeros everywhere.
    ///
    /// # Errors
    ///
    /// The device's; the pages are given back.
    pub(crate) fn zeros(store: &Store, fresh: Fresh) -> Result<Stored<Data, Dirty>, FsError> {
        Stored::data(store, fresh, 0, &[])
    }

    /// The pages, which become part of a larger object.
    pub(crate) fn into_fresh(self) -> Fresh {
        self.object.fresh
    }
}

impl<T> Stored<T, Dirty> {
    /// An object all of whose pages were just written.
    pub(crate) fn dirty(object: T) -> Stored<T, Dirty> {
        Stored { object, state: PhantomData }
    }
}

impl<T: Object> Stored<T, Dirty> {
    /// An object for which nothing was stored: as it is, a power loss keeps it.
    ///
    /// # Panics
    ///
    /// Panics if it has pages of its own.
    pub(crate) fn without_stores(self) -> Stored<T, Durable> {
        assert!(self.object.fresh().is_empty(), "rule 22: what was stored is flushed and fenced");
        Stored { object: self.object, state: PhantomData }
    }

    /// Starts every line of the object on its way.
    ///
    /// # Errors
    ///
    /// The device's; the pages are given back.
    #[track_caller]
    pub(crate) fn flush(self, store: &Store) -> Result<Stored<T, Flushed>, FsError> {
        for fresh in self.object.fresh() {
            store.flush(fresh.extent().start.byte(), fresh.extent().pages.bytes())?;
        }
        Ok(Stored { object: self.object, state: PhantomData })
    }
}

impl<T: Object> Stored<T, Flushed> {
    /// Fences for this object alone.
    ///
    /// # Errors
    ///
    /// The device's; the pages are given back.
    #[track_caller]
    pub(crate) fn fence(self, store: &Store) -> Result<Stored<T, Durable>, FsError> {
        if !self.object.fresh().is_empty() {
            store.fence_all()?;
        }
        Ok(Stored { object: self.object, state: PhantomData })
    }
}

impl<T> Stored<T, Durable> {
    /// The object, for the transaction that publishes it.
    pub(crate) fn into_object(self) -> T {
        self.object
    }
}

impl<T, S> Stored<T, S> {
    /// The object.
    pub(crate) fn object(&self) -> &T {
        &self.object
    }
}

impl Object for Data {
    fn fresh(&self) -> &[Fresh] {
        std::slice::from_ref(&self.fresh)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use udax_mm::Pages;

    #[test]
    fn everything_beside_the_bytes_is_zero() {
        let store = testing::store(Pages(1024));
        let fresh = store.allocate_page().unwrap();
        let at = fresh.extent().start.byte();
        testing::bytes(&store).write(at, &[7; 4096]).unwrap();
        let _stored = Stored::data(&store, fresh, 100, b"bytes").unwrap();
        let mut found = vec![0; 4096];
        store.read(at, &mut found).unwrap();
        let mut expected = vec![0; 4096];
        expected[100..105].copy_from_slice(b"bytes");
        assert_eq!(found, expected);
    }
}

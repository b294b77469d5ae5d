//! Guards of locks whose order nobody records: those of the standard library, loom or shuttle.

use super::imp;

pub use super::imp::{MutexGuard, RwLockReadGuard, RwLockWriteGuard};

/// Nothing is noted.
pub(super) struct Noted;

pub(super) fn note<T>() -> Noted {
    Noted
}

pub(super) fn mutex<T>(guard: imp::MutexGuard<'_, T>, _: Noted) -> MutexGuard<'_, T> {
    guard
}

pub(super) fn read<T>(guard: imp::RwLockReadGuard<'_, T>, _: Noted) -> RwLockReadGuard<'_, T> {
    guard
}

pub(super) fn write<T>(guard: imp::RwLockWriteGuard<'_, T>, _: Noted) -> RwLockWriteGuard<'_, T> {
    guard
}

/// Takes a guard apart, for a wait that gives the lock back and takes it again.
pub(super) fn open<T>(guard: MutexGuard<'_, T>) -> (imp::MutexGuard<'_, T>, Noted) {
    (guard, Noted)
}

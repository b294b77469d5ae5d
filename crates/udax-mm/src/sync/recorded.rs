//! Guards that note which locks their thread holds, for [`lock_order`](super::lock_order).

use super::imp;
use super::lock_order::Held;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::panic::Location;

/// The lock of a [`Mutex`](super::Mutex), held.
pub struct MutexGuard<'a, T> {
    guard: imp::MutexGuard<'a, T>,
    // Dropped last: a lock counts as held until it is not.
    held: Held,
}

/// The shared lock of a [`RwLock`](super::RwLock), held.
pub struct RwLockReadGuard<'a, T> {
    guard: imp::RwLockReadGuard<'a, T>,
    _held: Held,
}

/// The exclusive lock of a [`RwLock`](super::RwLock), held.
pub struct RwLockWriteGuard<'a, T> {
    guard: imp::RwLockWriteGuard<'a, T>,
    _held: Held,
}

/// Notes that the thread is about to wait for a lock around a `T`.
#[track_caller]
pub(super) fn note<T>() -> Held {
    Held::new(std::any::type_name::<T>(), Location::caller())
}

pub(super) fn mutex<T>(guard: imp::MutexGuard<'_, T>, held: Held) -> MutexGuard<'_, T> {
    MutexGuard { guard, held }
}

pub(super) fn read<T>(guard: imp::RwLockReadGuard<'_, T>, held: Held) -> RwLockReadGuard<'_, T> {
    RwLockReadGuard { guard, _held: held }
}

pub(super) fn write<T>(guard: imp::RwLockWriteGuard<'_, T>, held: Held) -> RwLockWriteGuard<'_, T> {
    RwLockWriteGuard { guard, _held: held }
}

/// Takes a guard apart, for a wait that gives the lock back and takes it again.
pub(super) fn open<T>(guard: MutexGuard<'_, T>) -> (imp::MutexGuard<'_, T>, Held) {
    guard.held.note_again();
    (guard.guard, guard.held)
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

impl<T> Deref for RwLockReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for RwLockWriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

impl<T: fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.guard.fmt(f)
    }
}

impl<T: fmt::Debug> fmt::Debug for RwLockReadGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.guard.fmt(f)
    }
}

impl<T: fmt::Debug> fmt::Debug for RwLockWriteGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.guard.fmt(f)
    }
}

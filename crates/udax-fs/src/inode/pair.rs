//! Two ranges of files, or of one file, whose layouts are held at once.
//!
//! This file owns the order of the locks of two inodes: the lower number first, at each level of
//! docs/protocol.md. Nobody waits for a pin with the locks of two files held (rule 7): whoever finds
//! one lets everything go, waits, and begins again (F-37).

use std::ops::Range;

use udax_mapping::{BreakError, FaultGuard, LayoutBroken};
use udax_mm::sync::MutexGuard;
use udax_mm::{FileIndex, Patience, Wait};

use super::{Inode, Writer};
use crate::FsError;

/// A range of a file whose layout is to be held.
#[derive(Clone)]
pub(super) struct Side<'a> {
    pub(super) inode: &'a Inode,
    pub(super) pages: Range<FileIndex>,
    pub(super) role: Role,
}

/// Which of two files one is, for who has to be told what is in the way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Role {
    Source,
    Target,
}

/// Two ranges, held.
///
/// # Invariants
///
/// 1. Nobody stores to either range, by any way, while this exists.
/// 2. The later of two inodes is let go first: its eager mappings are filled with the layout of the
///    other still held, which is the order of the locks. No claim is held by then: what the target
///    has come to show are pages of the source.
pub(super) struct Pair<'a> {
    later: Option<Held<'a>>,
    earlier: Held<'a>,
    is_target_later: bool,
    _writers: [Option<MutexGuard<'a, Writer>>; 2],
}

/// A layout that is held.
enum Held<'a> {
    Broken(LayoutBroken<'a>),
    /// Nobody can store to a frozen file; holding off whoever frees its pages is enough.
    Frozen {
        _faults: FaultGuard<'a>,
    },
}

impl Drop for Pair<'_> {
    fn drop(&mut self) {
        for held in self.later.iter_mut().chain([&mut self.earlier]) {
            if let Held::Broken(broken) = held {
                drop(broken.take_idle());
            }
        }
    }
}

impl<'a> Side<'a> {
    /// Breaks the layout of the range. What was stored to it is durable then, because with the
    /// entries the break removes the knowledge of that, and some of the pages stay.
    fn break_layout(&self, patience: Patience<'_>) -> Result<LayoutBroken<'a>, FsError> {
        let broken = self.inode.mapping.break_layout(self.pages.clone(), patience);
        let broken = broken.map_err(|error| match self.role {
            Role::Source => FsError::Source(error),
            Role::Target => FsError::Layout(error),
        })?;
        self.inode.node.flush_runs(&self.inode.node.read(), broken.range())?;
        Ok(broken)
    }
}

impl<'a> Pair<'a> {
    /// Takes writers, writable translations and pins away from two ranges. What was stored to them is
    /// durable then.
    ///
    /// # Blocking
    ///
    /// Waits for pins as `patience` says, without any lock.
    ///
    /// # Errors
    ///
    /// Those of breaking the layout of either; nothing has changed then.
    pub(super) fn hold(
        from: &Side<'a>,
        to: &Side<'a>,
        patience: Patience<'_>,
    ) -> Result<Pair<'a>, FsError> {
        loop {
            match Pair::try_hold(from, to) {
                Ok(pair) => return Ok(pair),
                Err((side, error)) if is_held_up(&error) && patience.wait() != Wait::Never => {
                    drop(side.break_layout(patience)?);
                }
                Err((_, error)) => return Err(error),
            }
        }
    }

    /// The layout of the range that changes.
    pub(super) fn target(&mut self) -> &mut LayoutBroken<'a> {
        let held = match &mut self.later {
            Some(later) if self.is_target_later => later,
            _ => &mut self.earlier,
        };
        match held {
            Held::Broken(broken) => broken,
            Held::Frozen { .. } => unreachable!("only a source is held frozen"),
        }
    }

    /// Takes the locks without waiting for pins. What is in the way comes back with its side.
    fn try_hold(from: &Side<'a>, to: &Side<'a>) -> Result<Pair<'a>, (Side<'a>, FsError)> {
        let break_side = |side: &Side<'a>| {
            let broken = side.break_layout(Wait::Never.into());
            broken.map(Held::Broken).map_err(|error| (side.clone(), error))
        };
        if from.inode.ino() == to.inode.ino() {
            let writers = [Some(to.inode.writer.lock()), None];
            let start = from.pages.start.min(to.pages.start);
            let hull = start..from.pages.end.max(to.pages.end);
            let earlier = break_side(&Side { pages: hull, ..to.clone() })?;
            return Ok(Pair { later: None, earlier, is_target_later: true, _writers: writers });
        }
        let is_target_later = from.inode.ino() < to.inode.ino();
        let (first, second) = if is_target_later { (from, to) } else { (to, from) };
        let hold = |side: &Side<'a>| {
            if side.role == Role::Source && side.inode.node.read().record.is_frozen() {
                return Ok(Held::Frozen { _faults: side.inode.mapping.faults() });
            }
            break_side(side)
        };
        let writers = [first, second].map(|side| Some(side.inode.writer.lock()));
        let earlier = hold(first)?;
        let later = Some(hold(second)?);
        Ok(Pair { later, earlier, is_target_later, _writers: writers })
    }
}

/// Whether it helps to wait.
pub(super) fn is_held_up(error: &FsError) -> bool {
    let (FsError::Layout(why) | FsError::Source(why)) = error else { return false };
    matches!(why, BreakError::Pinned { .. } | BreakError::Busy(_))
}

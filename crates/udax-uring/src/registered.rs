//! Registered buffers: transfers between them and files.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::os::fd::AsFd;

use udax::Pin;
use udax_mm::sync::Arc;

use crate::buffer::Layout;
use crate::error::{TransferError, UnregisterError};
use crate::table::{Direction, Request, Table};
use crate::transfer::{Completion, Progress, TransferId};

/// Buffers that the kernel reads and writes files with, and the requests under way.
///
/// It owns the buffers. They come back from [`unregister`](Registered::unregister); dropping this
/// drops them, once the kernel uses none.
///
/// ```
/// # use udax::{PinKind, PinOptions, Pool};
/// # use udax_uring::{Registered, Ring};
/// # let pool = Pool::create_in_memory("example", 8 << 20)?;
/// # let file = pool.create_file("/data")?;
/// # file.set_len(4096)?;
/// # let pin = file.pin(0..4096, &PinOptions::new("example").kind(PinKind::Write))?;
/// # let Ok(ring) = Ring::new(8) else { return Ok(()) };
/// let buffers: Registered = ring.register(vec![pin])?;
/// pool.remove_file("/data")?;
/// # drop(file);
/// assert_eq!(pool.usage().limbo.0, 1, "the kernel has the page");
/// drop(buffers);
/// assert_eq!(pool.usage().limbo.0, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Blocking
///
/// Dropping it, and [`unregister`](Registered::unregister), cancel what waits (for a pipe, say) and
/// wait for what has reached a disk.
#[derive(Debug)]
pub struct Registered<B = Pin> {
    table: Table<B>,
    layout: Layout,
    /// Of each buffer, whether the kernel may store to it.
    writable: Vec<bool>,
    transfers: BTreeMap<TransferId, Progress>,
    /// The transfer, and the piece of it, of each request that is under way or waits.
    requests: BTreeMap<u64, (TransferId, usize)>,
    /// Requests that the queue had no room for.
    waiting: VecDeque<Request>,
    next: u64,
}

impl<B> Registered<B> {
    pub(crate) fn new(table: Table<B>, layout: Layout, writable: Vec<bool>) -> Registered<B> {
        Registered {
            table,
            layout,
            writable,
            transfers: BTreeMap::new(),
            requests: BTreeMap::new(),
            waiting: VecDeque::new(),
            next: 0,
        }
    }

    /// What is registered.
    pub fn buffers(&self) -> &[B] {
        self.table.buffers()
    }

    /// How many transfers have not been reported by [`wait`](Registered::wait).
    pub fn under_way(&self) -> usize {
        self.transfers.len()
    }

    /// Has the kernel read bytes of `file`, from byte `at` on, into `range` of the buffer `buffer`.
    ///
    /// The file may be closed meanwhile. A file without positions (a pipe, a socket) is read from
    /// where it is; there a range should lie in one run of addresses, because the requests for
    /// several run side by side.
    ///
    /// # Errors
    ///
    /// [`TransferError`] if the buffer has no such range, is pinned for reading, no file can have these
    /// bytes, or the process has no descriptor left. What the transfer comes to, [`wait`](Registered::wait) tells.
    pub fn read_fixed(
        &mut self,
        file: impl AsFd,
        at: u64,
        buffer: usize,
        range: Range<u64>,
    ) -> Result<TransferId, TransferError> {
        self.begin(Direction::Read, &file, at, buffer, &range)
    }

    /// Has the kernel write `range` of the buffer `buffer` into `file`, from byte `at` on.
    ///
    /// # Errors
    ///
    /// As [`read_fixed`](Registered::read_fixed).
    pub fn write_fixed(
        &mut self,
        file: impl AsFd,
        at: u64,
        buffer: usize,
        range: Range<u64>,
    ) -> Result<TransferId, TransferError> {
        self.begin(Direction::Write, &file, at, buffer, &range)
    }

    /// Waits for the end of a transfer; none if none is under way.
    ///
    /// # Blocking
    ///
    /// As long as the file takes; for ever, if it is a pipe that nobody writes to.
    ///
    /// # Errors
    ///
    /// [`TransferError::Host`] if the kernel cannot be asked. Transfers stay under way then.
    pub fn wait(&mut self) -> Result<Option<Completion>, TransferError> {
        if self.transfers.is_empty() {
            return Ok(None);
        }
        loop {
            while let Some((id, result)) = self.table.pop() {
                if let Some(completion) = self.note(id, result) {
                    return Ok(Some(completion));
                }
            }
            self.fill();
            self.table.enter(1)?;
        }
    }

    /// Has the kernel forget the buffers, and gives them back.
    ///
    /// Transfers that were not waited for are cancelled or completed, and not reported.
    ///
    /// # Errors
    ///
    /// [`UnregisterError`] if the kernel cannot be asked; the buffers are never dropped then.
    pub fn unregister(self) -> Result<Vec<B>, UnregisterError> {
        self.table.close().map_err(UnregisterError)
    }

    fn begin(
        &mut self,
        direction: Direction,
        file: &impl AsFd,
        at: u64,
        buffer: usize,
        range: &Range<u64>,
    ) -> Result<TransferId, TransferError> {
        let count = self.buffers().len();
        let len = self.layout.len(buffer).ok_or(TransferError::NoSuchBuffer { buffer, count })?;
        if range.start >= range.end || range.end > len {
            return Err(TransferError::OutOfRange { range: range.clone(), len });
        }
        if direction == Direction::Read && !self.writable[buffer] {
            return Err(TransferError::ReadOnly(buffer));
        }
        let wanted = range.end - range.start;
        if at.checked_add(wanted).is_none_or(|end| i64::try_from(end).is_err()) {
            return Err(TransferError::PastLastByte { at, len: wanted });
        }
        // The kernel takes its own reference only when it sees the request.
        let file = Arc::new(file.as_fd().try_clone_to_owned()?);
        let pieces = self.layout.pieces(buffer, range);
        let transfer = TransferId(self.next);
        self.transfers.insert(transfer, Progress::new(pieces.iter().map(|piece| piece.len)));
        for (part, piece) in pieces.into_iter().enumerate() {
            let id = self.next;
            self.next += 1;
            self.requests.insert(id, (transfer, part));
            let at = at.checked_add(piece.from).expect("the last byte was looked at");
            let file = Arc::clone(&file);
            self.waiting.push_back(Request { id, direction, file, at, piece });
        }
        self.fill();
        // If the kernel takes none now, `wait` hands them over.
        let _ = self.table.enter(0);
        Ok(transfer)
    }

    /// Moves what waits into the queue.
    fn fill(&mut self) {
        while self.table.has_room() {
            let Some(request) = self.waiting.pop_front() else { return };
            self.table.push(&request);
        }
    }

    /// Notes the end of a request. Returns the transfer if it was the last of its requests.
    fn note(&mut self, id: u64, result: i32) -> Option<Completion> {
        let (transfer, part) = self.requests.remove(&id).expect("it was begun here");
        let progress = self.transfers.get_mut(&transfer).expect("it has not ended");
        if !progress.note(part, result) {
            return None;
        }
        let result = progress.result();
        self.transfers.remove(&transfer);
        Some(Completion { transfer, result })
    }
}

//! The redo journal: one transaction at a time.
//!
//! This file owns the journal's pages and the moment a transaction is committed: the fence after
//! its record. It knows nothing of what the bytes mean. docs/format.md tells the protocol and what
//! recovery sees after a crash at each of its steps.

use crate::format::{Geometry, JournalHeader, JournalWrite};
use crate::num::to_usize;
use std::ops::Range;
use udax_dev::{DaxBytes, IoError};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// Bytes of the header, before the writes.
const HEADER_BYTES: usize = size_of::<JournalHeader>();

/// Bytes in front of each write.
const WRITE_BYTES: usize = size_of::<JournalWrite>();

/// Writes that happen all or not at all, as the journal keeps them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Writes {
    encoded: Vec<u8>,
}

/// One of [`Writes`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Write<'w> {
    /// These bytes go to this byte of the device.
    Bytes(u64, &'w [u8]),
    /// As many zeros as the second number go to this byte of the device.
    Zeros(u64, u64),
}

/// The journal of a store.
///
/// # Invariants
///
/// 1. The record on the medium is that of the last transaction, or it is not valid.
/// 2. `unsettled` covers every byte that this transaction wrote and that is not durable at home.
///    The record is not overwritten before it is empty.
#[derive(Debug)]
pub(crate) struct Journal {
    start: u64,
    len: u64,
    uuid: [u8; 16],
    sequence: u64,
    unsettled: Vec<Range<u64>>,
}

/// How far a commit that failed came.
#[derive(Debug)]
pub(crate) enum CommitError {
    /// The transaction has more bytes than the journal takes. Nothing was written.
    TooLarge {
        /// Bytes of the transaction.
        bytes: u64,
        /// Bytes that fit.
        max: u64,
    },
    /// The device failed; the transaction may be committed or not.
    Io(IoError),
}

impl Writes {
    /// Adds a write. Writes happen in the order in which they were added.
    pub(crate) fn bytes(&mut self, at: u64, bytes: &[u8]) {
        self.head(at, len_of(bytes), KIND_BYTES);
        self.encoded.extend_from_slice(bytes);
        self.encoded.resize(self.encoded.len().next_multiple_of(8), 0);
    }

    /// Adds a write of zeros.
    pub(crate) fn zeros(&mut self, at: u64, len: u64) {
        self.head(at, u32::try_from(len).expect("a write stays in one page"), KIND_ZEROS);
    }

    /// The bytes that they take in the journal.
    pub(crate) fn len(&self) -> u64 {
        u64::from(len_of(&self.encoded))
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.encoded.is_empty()
    }

    /// The writes, in order. Ends early if the bytes are not writes.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Write<'_>> {
        let mut rest = self.encoded.as_slice();
        std::iter::from_fn(move || {
            let (head, after) = JournalWrite::read_from_prefix(rest).ok()?;
            if head.kind.get() == KIND_ZEROS {
                rest = after;
                return Some(Write::Zeros(head.at.get(), head.length.get().into()));
            }
            let len = usize::try_from(head.length.get()).ok()?;
            let bytes = after.get(..len)?;
            rest = after.get(len.next_multiple_of(8)..)?;
            Some(Write::Bytes(head.at.get(), bytes))
        })
    }

    fn head(&mut self, at: u64, length: u32, kind: u32) {
        let head = JournalWrite { at: at.into(), length: length.into(), kind: kind.into() };
        self.encoded.extend_from_slice(head.as_bytes());
    }
}

impl Write<'_> {
    /// The bytes of the device that it overwrites.
    pub(crate) fn range(&self) -> Range<u64> {
        match *self {
            Write::Bytes(at, bytes) => at..at + u64::from(len_of(bytes)),
            Write::Zeros(at, len) => at..at + len,
        }
    }

    fn apply(&self, device: &DaxBytes) -> Result<(), IoError> {
        match *self {
            Write::Bytes(at, bytes) => device.write(at, bytes),
            Write::Zeros(at, len) => device.zero(at, len),
        }
    }

    fn is_applied(&self, device: &DaxBytes) -> Result<bool, IoError> {
        let range = self.range();
        let mut found = vec![0; to_usize(range.end - range.start)];
        device.read(range.start, &mut found)?;
        Ok(match *self {
            Write::Bytes(_, bytes) => found == bytes,
            Write::Zeros(..) => found.iter().all(|&byte| byte == 0),
        })
    }
}

impl Journal {
    /// The journal of a pool that nobody has written to since it was opened.
    pub(crate) fn new(geometry: &Geometry, uuid: [u8; 16]) -> Journal {
        Journal {
            start: geometry.journal.byte(),
            len: geometry.journal_pages.bytes(),
            uuid,
            sequence: 0,
            unsettled: Vec::new(),
        }
    }

    /// The bytes of [`Writes`] that one transaction may have.
    pub(crate) fn capacity(&self) -> u64 {
        self.len - u64::from(HEADER_LEN)
    }

    /// Makes `writes` durable as one, then visible at their home.
    ///
    /// They are durable at home only when the next commit, or [`Journal::settle`], made them so;
    /// until then recovery repeats them from the record.
    pub(crate) fn commit(&mut self, device: &DaxBytes, writes: &Writes) -> Result<(), CommitError> {
        if writes.len() > self.capacity() {
            return Err(CommitError::TooLarge { bytes: writes.len(), max: self.capacity() });
        }
        self.settle(device)?;
        let record = self.encode(writes);
        device.write(self.start, &record)?;
        device.flush(self.start, u64::from(len_of(&record)))?;
        device.fence()?;
        self.apply(device, writes)?;
        Ok(())
    }

    /// Makes the last transaction durable at home, if it is not.
    pub(crate) fn settle(&mut self, device: &DaxBytes) -> Result<(), IoError> {
        if !self.unsettled.is_empty() {
            self.flush_unsettled(device)?;
            device.fence()?;
            self.unsettled.clear();
        }
        Ok(())
    }

    /// Fences for the caller, and for the last transaction with it.
    #[track_caller]
    pub(crate) fn fence(&mut self, device: &DaxBytes) -> Result<(), IoError> {
        self.flush_unsettled(device)?;
        device.fence()?;
        self.unsettled.clear();
        Ok(())
    }

    /// Repeats the transaction on the medium, if it is valid. Returns whether that changed
    /// anything.
    pub(crate) fn recover(&mut self, device: &DaxBytes) -> Result<bool, IoError> {
        let Some((header, writes)) = self.load(device)? else { return Ok(false) };
        self.sequence = header.sequence.get();
        // A process may have died between writing the record and the fence, and its stores live on
        // in the CPU's or the host's cache: the record must be durable before home changes.
        device.flush(self.start, u64::from(HEADER_LEN) + writes.len())?;
        device.fence()?;
        let is_applied = is_applied(device, &writes)?;
        self.apply(device, &writes)?;
        Ok(!is_applied)
    }

    /// Whether recovery would change anything.
    pub(crate) fn needs_recovery(&self, device: &DaxBytes) -> Result<bool, IoError> {
        let Some((_, writes)) = self.load(device)? else { return Ok(false) };
        Ok(!is_applied(device, &writes)?)
    }

    fn apply(&mut self, device: &DaxBytes, writes: &Writes) -> Result<(), IoError> {
        self.unsettled = writes.iter().map(|write| write.range()).collect();
        writes.iter().try_for_each(|write| write.apply(device))
    }

    // Not the committing thread's own flush: a fence waits only for the flushes of its thread, and
    // the next transaction may be another thread's. So that one flushes, and fences, for this one.
    fn flush_unsettled(&self, device: &DaxBytes) -> Result<(), IoError> {
        for range in &self.unsettled {
            device.flush(range.start, range.end - range.start)?;
        }
        Ok(())
    }

    fn encode(&mut self, writes: &Writes) -> Vec<u8> {
        self.sequence += 1;
        let mut header = JournalHeader::new_zeroed();
        header.length = len_of(&writes.encoded).into();
        header.sequence = self.sequence.into();
        header.uuid = self.uuid;
        header.checksum = checksum(&header, writes).into();
        [header.as_bytes(), &writes.encoded].concat()
    }

    /// The transaction on the medium, if it is one of this pool and complete.
    fn load(&self, device: &DaxBytes) -> Result<Option<(JournalHeader, Writes)>, IoError> {
        let mut header = JournalHeader::new_zeroed();
        device.read(self.start, header.as_mut_bytes())?;
        let len = u64::from(header.length.get());
        if header.uuid != self.uuid || len > self.capacity() {
            return Ok(None);
        }
        let mut writes = Writes { encoded: vec![0; to_usize(len)] };
        device.read(self.start + u64::from(HEADER_LEN), &mut writes.encoded)?;
        Ok((header.checksum.get() == checksum(&header, &writes)).then_some((header, writes)))
    }
}

impl From<IoError> for CommitError {
    fn from(error: IoError) -> CommitError {
        CommitError::Io(error)
    }
}

const KIND_BYTES: u32 = 1;
const KIND_ZEROS: u32 = 2;
const HEADER_LEN: u32 = 64;
const _: () = assert!(HEADER_BYTES == 64 && WRITE_BYTES == 16);

fn is_applied(device: &DaxBytes, writes: &Writes) -> Result<bool, IoError> {
    for write in writes.iter() {
        if !write.is_applied(device)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn checksum(header: &JournalHeader, writes: &Writes) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header.as_bytes()[4..]);
    hasher.update(&writes.encoded);
    hasher.finalize()
}

fn len_of(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("a transaction is smaller than 4 GiB")
}

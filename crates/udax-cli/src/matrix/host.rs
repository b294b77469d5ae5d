//! The cells of files of the host: a mapped file, and its pages as a fixed buffer.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use anyhow::Context;
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, memfd_create};
use udax_mm::Media;
use udax_mm::media::{Durability, FileMedia};
use udax_uring::{Registered, Ring};

use super::cell::{CellArgs, at, refused};
use super::device::Source;
use super::facts::{Action, Backing, Outcome, Verdict};
use super::plain::Plain;
use crate::tour::pattern;

/// A file of the host with known bytes.
pub(super) struct HostFile {
    pub(super) file: File,
    path: Option<PathBuf>,
    len: usize,
}

/// Performs the cell: registers, acts, transfers, looks.
pub(super) fn run(cell: &CellArgs) -> anyhow::Result<Outcome> {
    let source = Source::new(&cell.disk, cell.len)?;
    let target = HostFile::new(cell, "target", 1)?;
    let media = FileMedia::from_file(target.file.try_clone()?, Durability::Process)?;
    let plain = Plain::new(&target.file)?;
    at("the buffer is registered");
    let mut buffers = match Ring::new(8)?.register(vec![media]) {
        Ok(buffers) => buffers,
        Err(error) => return Ok(refused("register", error)),
    };
    at(format_args!("{} of the file", cell.action.name()));
    if let Err(error) = target.act(cell.action) {
        return Ok(refused(&cell.action.name(), error));
    }
    // Takes the pages that the action gave back, if it gave any.
    let neighbour = HostFile::new(cell, "neighbour", 2).ok();
    if let Err(error) = source.read_into(&mut buffers)? {
        return Ok(refused("transfer", error));
    }
    if neighbour.is_some_and(|neighbour| !neighbour.has_bytes_of(2)) {
        return Ok(Outcome::new(Verdict::Lost, "they are in another file, over its own bytes"));
    }
    match cell.action {
        Action::Shrink => load(plain, &source),
        _ => look(&target, &buffers, &source),
    }
}

/// Loads a byte as the holder would who was told that it is there.
fn load(plain: Plain, source: &Source) -> anyhow::Result<Outcome> {
    at("success was reported, and the holder loads a byte of its buffer");
    let found = plain.load(0)?;
    Ok(match source.bytes().first() {
        Some(&byte) if byte == found => {
            Outcome::new(Verdict::Safe, "the holder has its mapping and finds the bytes there")
        }
        _ => Outcome::new(Verdict::Lost, "success was reported, and the holder loads other bytes"),
    })
}

/// Looks for the bytes in the holder's mapping and, by reading, in the file.
fn look(
    target: &HostFile,
    buffers: &Registered<FileMedia>,
    source: &Source,
) -> anyhow::Result<Outcome> {
    at("somebody looks for the bytes");
    let mut mapped = vec![0; source.bytes().len()];
    buffers.buffers()[0].read(0, &mut mapped)?;
    let mut read = vec![0; source.bytes().len()];
    target.file.read_exact_at(&mut read, 0)?;
    let is_there = |bytes: &[u8]| bytes == source.bytes();
    Ok(match (is_there(&mapped), is_there(&read)) {
        (true, true) => Outcome::new(Verdict::Safe, "the holder finds the bytes in its mapping"),
        (true, false) => Outcome::new(Verdict::Safe, "the bytes are with the holder alone"),
        (false, true) => Outcome::new(Verdict::Lost, "the holder's mapping shows other bytes"),
        (false, false) => Outcome::new(
            Verdict::Lost,
            "success was reported; the file, and the holder's own mapping, show other bytes",
        ),
    })
}

impl HostFile {
    /// Makes a file of the cell's backing, with the bytes of `seed`.
    pub(super) fn new(cell: &CellArgs, name: &str, seed: u64) -> anyhow::Result<HostFile> {
        let named = |dir: PathBuf| -> anyhow::Result<_> {
            let path = dir.join(name);
            let mut options = File::options();
            options.read(true).write(true).create(true).truncate(true);
            let file = options.open(&path).with_context(|| path.display().to_string())?;
            Ok((file, Some(path)))
        };
        let memfd = |flags| -> anyhow::Result<_> {
            let flags = flags | MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
            let file = memfd_create(name, flags).context("memfd_create")?;
            Ok((File::from(file), None))
        };
        let (file, path) = match cell.backing {
            Backing::Disk => named(cell.disk.clone())?,
            Backing::Tmpfs => named(cell.shm()?.to_owned())?,
            Backing::Memfd | Backing::Sealed | Backing::Udax => memfd(MemfdFlags::empty())?,
            Backing::Huge => memfd(MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB)?,
        };
        let len = cell.len;
        file.set_len(u64::try_from(len)?)?;
        let made = HostFile { file, path, len };
        made.fill(seed)?;
        if cell.backing == Backing::Sealed {
            fcntl_add_seals(&made.file, SealFlags::SHRINK).context("F_SEAL_SHRINK")?;
        }
        Ok(made)
    }

    /// Writes the bytes of `seed`, by a mapping: a file of huge pages has no write.
    pub(super) fn fill(&self, seed: u64) -> anyhow::Result<()> {
        let media = FileMedia::from_file(self.file.try_clone()?, Durability::Process)?;
        Ok(media.write(0, &pattern::bytes(seed, self.len))?)
    }

    /// Whether all of its bytes are those of `seed`.
    pub(super) fn has_bytes_of(&self, seed: u64) -> bool {
        let mut bytes = vec![0; self.len];
        self.file.read_exact_at(&mut bytes, 0).is_ok() && bytes == pattern::bytes(seed, self.len)
    }

    /// Where another process of this user opens it.
    pub(super) fn path(&self) -> PathBuf {
        use std::os::fd::AsRawFd;
        let process = std::process::id();
        let by_descriptor = || format!("/proc/{process}/fd/{}", self.file.as_raw_fd()).into();
        self.path.clone().unwrap_or_else(by_descriptor)
    }

    /// Does what somebody else would do.
    pub(super) fn act(&self, action: Action) -> anyhow::Result<()> {
        let len = u64::try_from(self.len)?;
        match action {
            Action::Truncate => {
                self.file.set_len(0)?;
                self.file.set_len(len)?;
                self.fill(3)
            }
            Action::Punch => {
                let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                Ok(fallocate(&self.file, punch, 0, len)?)
            }
            // A memfd has none; it lives by the mapping then.
            Action::Unlink => Ok(self.path.iter().try_for_each(std::fs::remove_file)?),
            Action::Shrink => Ok(self.file.set_len(0)?),
            Action::Dies => self.act(Action::Punch),
        }
    }
}

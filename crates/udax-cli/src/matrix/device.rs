//! The device of the matrix: the kernel, which reads a file into a registered buffer.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::Context;
use rustix::fs::{Mode, OFlags};
use udax_uring::Registered;

use crate::tour::pattern;

/// The seed of the bytes that the device brings.
const SEED: u64 = 0xdea1;

/// A file on the disk with bytes that nothing else has.
pub(super) struct Source {
    file: OwnedFd,
    bytes: Vec<u8>,
}

impl Source {
    /// Makes a file of `len` bytes in `dir`.
    pub(super) fn new(dir: &Path, len: usize) -> anyhow::Result<Source> {
        let path = dir.join("source");
        let bytes = pattern::bytes(SEED, len);
        fs::write(&path, &bytes).with_context(|| path.display().to_string())?;
        // What is not on the disk yet is not read from there.
        fs::File::open(&path)?.sync_all()?;
        let file = match open(&path, OFlags::DIRECT) {
            Ok(file) => file,
            Err(_) => open(&path, OFlags::empty()).with_context(|| path.display().to_string())?,
        };
        fs::remove_file(&path)?;
        Ok(Source { file, bytes })
    }

    /// What the device brings.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Reads all of it into the first buffer. The inner error is what the kernel reported.
    pub(super) fn read_into<B>(
        &self,
        buffers: &mut Registered<B>,
    ) -> anyhow::Result<Result<(), String>> {
        super::cell::at("the kernel reads into the buffer");
        let len = u64::try_from(self.bytes.len())?;
        buffers.read_fixed(&self.file, 0, 0, 0..len)?;
        let done = buffers.wait()?.context("a transfer is under way")?;
        Ok(match done.result {
            Ok(read) if read == len => Ok(()),
            Ok(read) => Err(format!("the transfer ended after {read} of {len} bytes")),
            Err(error) => Err(format!("the transfer failed: {error}")),
        })
    }
}

/// Whether a file in `dir` can be read without the page cache.
pub(super) fn is_direct(dir: &Path) -> bool {
    let path = dir.join("probe");
    let is_direct = fs::write(&path, b"").is_ok() && open(&path, OFlags::DIRECT).is_ok();
    // It is one of a directory that is removed with all it holds.
    let _ = fs::remove_file(&path);
    is_direct
}

fn open(path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | flags, Mode::empty())
}

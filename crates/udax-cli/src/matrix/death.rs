//! The cells in which the holder is killed while a transfer into its buffer is under way, and others
//! use the space before the bytes come.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};

use anyhow::Context;
use rustix::pipe::{PipeFlags, pipe_with};
use udax::{CreateOptions, Pool};
use udax_uring::{Foreign, Registered, Ring};

use super::cell::{CellArgs, at, refused};
use super::facts::{Action, Backing, Outcome, Verdict};
use super::holder::Said;
use super::host::HostFile;
use super::pooled;
use crate::tour::pattern;

/// The most bytes that are under way: as many as a pipe takes.
const LATE: usize = 64 << 10;

/// A transfer into the buffer of a process that is dead.
struct Late {
    buffers: Registered<Foreign>,
    /// What the device still has to bring.
    writer: std::fs::File,
    bytes: Vec<u8>,
    /// The pages of the pool's device that were pinned.
    extents: Vec<(u64, u64)>,
}

/// Performs the cell.
pub(super) fn run(cell: &CellArgs) -> anyhow::Result<Outcome> {
    match cell.backing {
        Backing::Udax => in_a_pool(cell),
        _ => in_a_file(cell),
    }
}

/// A file of the host: its pages are given back, and other files take what is free.
fn in_a_file(cell: &CellArgs) -> anyhow::Result<Outcome> {
    let target = HostFile::new(cell, "target", 1)?;
    let late = match begin(&["--file".as_ref(), target.path().as_os_str()], cell.len)? {
        Ok(late) => late,
        Err(why) => return Ok(refused("register", why)),
    };
    at("others use the space");
    target.act(Action::Dies).context("give the pages back")?;
    let names: Vec<String> = (0..4).map(|number| format!("neighbour {number}")).collect();
    let made = names.iter().zip(10..).map(|(name, seed)| (HostFile::new(cell, name, seed), seed));
    let neighbours: Vec<_> = made.filter_map(|(file, seed)| Some((file.ok()?, seed))).collect();
    let seen = match late.land()? {
        Ok(seen) => seen,
        Err(why) => return Ok(refused("transfer", why)),
    };
    let changed = neighbours.iter().find(|(file, seed)| !file.has_bytes_of(*seed));
    Ok(match changed {
        Some(_) => Outcome::new(Verdict::Lost, format!("{seen}, over the bytes of another file")),
        None => Outcome::new(Verdict::Safe, format!("{seen}, in pages that nobody else was given")),
    })
}

/// A pool in memory: opened again at once, the file removed, and filled to the last block.
fn in_a_pool(cell: &CellArgs) -> anyhow::Result<Outcome> {
    let path = cell.shm()?.join("pool.udax");
    let pool = Pool::create(&path, pooled::POOL, &CreateOptions::new())?;
    pool.write(pooled::HELD, pattern::bytes(1, cell.len))?;
    pool.close()?;
    let late = match begin(&["--pool".as_ref(), path.as_os_str()], cell.len)? {
        Ok(late) => late,
        Err(why) => return Ok(refused("register", why)),
    };
    at("the pool is opened again, the file removed, and every free block used");
    let pool = Pool::open(&path)?;
    pool.remove_file(pooled::HELD)?;
    let fillers = pooled::fill(&pool)?;
    let given = given_again(&pool, fillers, &late.extents)?;
    let seen = match late.land()? {
        Ok(seen) => seen,
        Err(why) => return Ok(refused("transfer", why)),
    };
    if let Err(wrong) = pooled::check_fillers(&pool, fillers)? {
        return Ok(wrong);
    }
    drop(pool);
    std::fs::remove_file(&path)?;
    Ok(match given {
        Some(name) => Outcome::new(
            Verdict::Lost,
            format!("{seen}, in pages that another file, {name}, was given meanwhile"),
        ),
        None => Outcome::new(Verdict::Safe, format!("{seen}, in pages that no file was given")),
    })
}

/// The file that got pages which the device may still write, if one did.
fn given_again(pool: &Pool, fillers: u64, pinned: &[(u64, u64)]) -> anyhow::Result<Option<String>> {
    for name in (0..fillers).map(pooled::filler) {
        let extents = pool.open_file(&name)?.extents()?;
        let overlaps = |(start, len): &(u64, u64)| {
            extents.iter().any(|e| e.device.0 < start + len && *start < e.device.0 + e.pages.0)
        };
        if pinned.iter().any(overlaps) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// Has a process hold a buffer, begins a transfer into it, and kills the process. The inner error is
/// why the buffer was not registered.
fn begin(what: &[&OsStr; 2], len: usize) -> anyhow::Result<Result<Late, String>> {
    at("another process registers the buffer");
    let ring = Ring::new(8)?;
    let mut holder = hold(&ring, what, len)?;
    let out = holder.stdout.take().context("its output is a pipe")?;
    let mut line = String::new();
    BufReader::new(out).read_line(&mut line)?;
    let said = serde_json::from_str(&line);
    let (runs, extents) = match said {
        Ok(Said::Registered { runs, extents }) => (runs, extents),
        Ok(Said::Refused(why)) => {
            end(holder)?;
            return Ok(Err(why));
        }
        Err(_) => {
            let said = holder.wait_with_output()?.stderr;
            anyhow::bail!("the holder: {}", String::from_utf8_lossy(&said).trim_end());
        }
    };
    let mut buffers = ring.adopt(Foreign::at(runs))?;
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    let bytes = pattern::bytes(7, LATE.min(len));
    buffers.read_fixed(&reader, 0, 0, 0..u64::try_from(bytes.len())?)?;
    at("the holder is killed");
    end(holder)?;
    Ok(Ok(Late { buffers, writer: writer.into(), bytes, extents }))
}

/// Starts the holder, whose stdin is the ring.
fn hold(ring: &Ring, what: &[&OsStr; 2], len: usize) -> anyhow::Result<Child> {
    let program = std::env::current_exe().context("the path of this program")?;
    let mut command = Command::new(program);
    command.arg("matrix-holder").args(what).args(["--len", &len.to_string()]);
    command.stdin(ring.as_fd().try_clone_to_owned()?);
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().context("start the process that holds the buffer")
}

fn end(mut holder: Child) -> anyhow::Result<()> {
    holder.kill().context("kill the holder")?;
    holder.wait()?;
    Ok(())
}

impl Late {
    /// Brings the bytes, and waits for the end of the transfer. Returns what was seen; the inner error
    /// is that not all of them came, so that nothing is shown.
    fn land(mut self) -> anyhow::Result<Result<String, String>> {
        at("the bytes come");
        self.writer.write_all(&self.bytes)?;
        let done = self.buffers.wait()?.context("a transfer is under way")?;
        Ok(match done.result {
            Ok(count) if count == u64::try_from(self.bytes.len())? => {
                Ok(format!("{count} bytes came after its death"))
            }
            Ok(count) => Err(format!("it ended with the holder, after {count} bytes")),
            Err(error) => Err(format!("it ended with the holder ({error})")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_in_pinned_pages_is_found() {
        let pool = Pool::create_in_memory("test", 8 << 20).unwrap();
        pool.write(pooled::filler(0), [1; 4096]).unwrap();
        pool.write(pooled::filler(1), [2; 4096]).unwrap();
        let page = pool.open_file(pooled::filler(1)).unwrap().extents().unwrap()[0].device.0;
        let given = |start, len| given_again(&pool, 2, &[(start, len)]).unwrap();
        assert_eq!(given(page, 1), Some(pooled::filler(1)));
        assert!(given(0, page + 1).is_some());
        assert_eq!(given(0, 1), None);
    }
}

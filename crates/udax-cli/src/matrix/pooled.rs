//! The cells of udax: a pinned file of a pool in memory, and its pages as a fixed buffer.

use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::Context;
use udax::{ErrorKind, File, OpenOptions, Pin, PinKind, PinOptions, Pool, Wait};
use udax_uring::{Registered, Ring};

use super::cell::{CellArgs, at, refused};
use super::device::Source;
use super::facts::{Action, Outcome, Verdict};
use crate::tour::pattern;

/// The file whose bytes are a buffer.
pub(super) const HELD: &str = "/held";
/// Who holds it.
pub(super) const LABEL: &str = "matrix: a device";
/// The bytes of the pool.
pub(super) const POOL: u64 = 16 << 20;
/// How long a removal of the device waits before it says who holds a pin.
const PATIENCE: Duration = Duration::from_millis(20);

/// What a check found to be wrong.
type Wrong = Outcome;

/// Performs the cell: pins, registers, acts, fills the pool, transfers, looks, lets go, looks.
pub(super) fn run(cell: &CellArgs) -> anyhow::Result<Outcome> {
    let source = Source::new(&cell.disk, cell.len)?;
    let pool = Pool::create_in_memory("matrix", POOL)?;
    pool.write(HELD, pattern::bytes(1, cell.len))?;
    at("the file is pinned, and the buffer registered");
    let buffers = match Ring::new(8)?.register(vec![pin(&pool, cell.len)?]) {
        Ok(buffers) => buffers,
        Err(error) => return Ok(refused("register", error)),
    };
    at(format_args!("{} of the file", cell.action.name()));
    let held = Held { pool, buffers, source };
    let verdict = match cell.action {
        Action::Shrink => held.lose_the_device()?,
        action => held.lose_the_file(action)?,
    };
    Ok(match verdict {
        Ok(seen) => Outcome::new(Verdict::Safe, seen),
        Err(wrong) => wrong,
    })
}

/// Pins all of the file for the kernel to write.
pub(super) fn pin(pool: &Pool, len: usize) -> anyhow::Result<Pin> {
    let options = PinOptions::new(LABEL).kind(PinKind::Write).registrable();
    Ok(open(pool)?.pin(0..u64::try_from(len)?, &options)?)
}

fn open(pool: &Pool) -> udax::Result<File> {
    OpenOptions::new().read(true).write(true).open(pool, HELD)
}

/// Fills the pool with files whose bytes are known. Returns how many.
pub(super) fn fill(pool: &Pool) -> anyhow::Result<u64> {
    for number in 0.. {
        let path = filler(number);
        match pool.write(&path, pattern::bytes(100 + number, FILLER)) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Full => {
                if pool.exists(&path)? {
                    pool.remove_file(&path)?;
                }
                return Ok(number);
            }
            Err(error) => return Err(error.into()),
        }
    }
    anyhow::bail!("a pool has an end")
}

/// Compares every byte of the files that fill the pool.
pub(super) fn check_fillers(pool: &Pool, count: u64) -> anyhow::Result<Result<(), Wrong>> {
    for number in 0..count {
        let found = pool.read(filler(number))?;
        let wanted = pattern::bytes(100 + number, FILLER);
        let changed = found.iter().zip(&wanted).filter(|(a, b)| a != b).count();
        if changed > 0 || found.len() != wanted.len() {
            let name = filler(number);
            return Ok(Err(lost(format_args!("{changed} bytes of another file, {name}, changed"))));
        }
    }
    Ok(Ok(()))
}

/// The name of a file that fills the pool.
pub(super) fn filler(number: u64) -> String {
    format!("/filler {number}")
}

const FILLER: usize = 64 << 10;

fn lost(why: impl Display) -> Wrong {
    Outcome::new(Verdict::Lost, why.to_string())
}

/// A buffer of the kernel that is pinned in a pool.
struct Held {
    pool: Pool,
    buffers: Registered<Pin>,
    source: Source,
}

impl Held {
    /// The file gives up the pinned bytes. Returns what was seen.
    fn lose_the_file(mut self, action: Action) -> anyhow::Result<Result<&'static str, Wrong>> {
        let is_there = self.act(action)?;
        at("other files take every block that is free");
        let fillers = fill(&self.pool)?;
        if let Err(error) = self.source.read_into(&mut self.buffers)? {
            return Ok(Err(refused("transfer", error)));
        }
        at("somebody looks for the bytes");
        if !self.holder_has_them()? {
            return Ok(Err(lost("the pinned pages hold other bytes")));
        }
        if is_there.is_some_and(|wanted| self.pool.read(HELD).ok() != Some(wanted)) {
            return Ok(Err(lost("they are in the file that gave the pages up")));
        }
        if let Err(wrong) = check_fillers(&self.pool, fillers)? {
            return Ok(Err(wrong));
        }
        self.let_go()
    }

    /// Takes the pinned bytes from the file. Returns what it holds afterwards, if it is there.
    fn act(&self, action: Action) -> anyhow::Result<Option<Vec<u8>>> {
        let len = self.source.bytes().len();
        Ok(match action {
            Action::Truncate => {
                let anew = pattern::bytes(3, len);
                let file = open(&self.pool)?;
                file.set_len(0)?;
                file.write_all_at(&anew, 0)?;
                Some(anew)
            }
            Action::Punch => {
                open(&self.pool)?.punch_hole(0..u64::try_from(len)?)?;
                Some(vec![0; len])
            }
            Action::Unlink | Action::Shrink | Action::Dies => {
                self.pool.remove_file(HELD)?;
                None
            }
        })
    }

    /// Whether the holder reads by its pin what the device brought.
    fn holder_has_them(&self) -> anyhow::Result<bool> {
        let mut bytes = vec![0; self.source.bytes().len()];
        self.buffers.buffers()[0].read(&mut bytes, 0)?;
        Ok(bytes == self.source.bytes())
    }

    /// Unregisters and unpins, and looks whether the blocks come back.
    fn let_go(self) -> anyhow::Result<Result<&'static str, Wrong>> {
        at("the buffer is unregistered, and the pin dropped");
        let len = u64::try_from(self.source.bytes().len())?;
        let before = self.pool.usage();
        let pins = self.buffers.unregister()?;
        if before.limbo.bytes() != len || self.pool.usage().limbo != before.limbo {
            return Ok(Err(lost("the pages were not in limbo while they were pinned")));
        }
        drop(pins);
        let after = self.pool.usage();
        if !after.limbo.is_empty() || after.free.bytes() != before.free.bytes() + len {
            return Ok(Err(lost("the blocks did not come back with the last unpin")));
        }
        self.pool.verify().map_err(anyhow::Error::msg).context("verify")?;
        Ok(Ok("the file lost the range at once; the pinned pages stayed with the holder and have \
               the bytes, no other file changed, and the blocks came back with the unpin"))
    }

    /// The device goes away. Returns what was seen.
    fn lose_the_device(mut self) -> anyhow::Result<Result<&'static str, Wrong>> {
        let soon = Wait::Until(Instant::now() + PATIENCE);
        match self.pool.remove_device(soon) {
            Ok(()) => return Ok(Err(lost("the device went away under its pinned pages"))),
            Err(error) if !error.to_string().contains(LABEL) => return Err(error.into()),
            Err(_) => {}
        }
        if self.pool.read(HELD).is_ok() {
            return Ok(Err(lost("a device that is going away is still read")));
        }
        if let Err(error) = self.source.read_into(&mut self.buffers)? {
            return Ok(Err(refused("transfer", error)));
        }
        if !self.holder_has_them()? {
            return Ok(Err(lost("the pinned pages hold other bytes")));
        }
        at("the buffer is unregistered, and the pin dropped");
        drop(self.buffers.unregister()?);
        self.pool.remove_device(Wait::Forever)?;
        Ok(Ok("everybody else was refused at once; the removal named the holder, waited for it, \
               and ended with the unpin"))
    }
}

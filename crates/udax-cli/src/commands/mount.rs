//! `udax mount`: a pool as a directory of the host.

use std::io::{self, Write};
use std::path::PathBuf;
use std::thread;

use clap::Args;
use serde::Serialize;
use udax_fuse::{MountOptions, Unmounted, Unmounter, mount};

use crate::interrupt::Interrupt;
use crate::opening::Opener;
use crate::output::{Human, Name, Output, note};

/// Mount a pool at an empty directory, for programs that know nothing of udax.
///
/// Runs until Ctrl-C or SIGTERM, or until somebody unmounts the directory; files that are open then
/// are served until they are closed, and a second Ctrl-C ends that at once. Needs /dev/fuse, and
/// root or fusermount3. The pool is closed to other commands while it is mounted.
///
/// What `fsync` and `sync` promise over the mount is what --durability says: unless it is `power`,
/// the bytes survive the death of programs and of udax itself, but not that of the host.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  udax mount data.udax /mnt/data              until Ctrl-C
  udax mount --read-only data.udax /mnt/data
  udax mount --durability power data.udax /mnt/data      fsync is safe against power loss
  udax mount data.udax /mnt/data &            and later: umount /mnt/data")]
pub(crate) struct MountArgs {
    /// Refuse every change.
    #[arg(long)]
    read_only: bool,

    /// The pool.
    pool: PathBuf,

    /// The directory.
    dir: PathBuf,
}

/// What is mounted where; printed when it can be used.
#[derive(Debug, Serialize)]
struct Mounted {
    #[serde(flatten)]
    pool: Name,
    dir: Name,
}

impl MountArgs {
    /// Mounts, serves, and unmounts on Ctrl-C or SIGTERM.
    ///
    /// # Blocking
    ///
    /// Returns when the directory is unmounted and the pool closed.
    ///
    /// # Errors
    ///
    /// Returns why it cannot be mounted.
    pub(crate) fn run(&self, pools: Opener, out: &mut Output) -> anyhow::Result<()> {
        let interrupt = Interrupt::install()?;
        let pool = pools.to_read(&self.pool)?;
        let session =
            mount(pool.clone(), &self.dir, &MountOptions::new().read_only(self.read_only))?;
        let unmounter = session.unmounter();
        thread::spawn(move || unmount_on(&interrupt, &unmounter));
        out.facts(&Mounted {
            pool: Name::new(self.pool.as_os_str()),
            dir: Name::new(session.dir().as_os_str()),
        })?;
        session.run()?;
        Ok(super::close(pool)?)
    }
}

/// Unmounts when somebody asks for it.
fn unmount_on(interrupt: &Interrupt, unmounter: &Unmounter) {
    interrupt.wait();
    match unmounter.unmount() {
        Ok(Unmounted::Ended) => {}
        Ok(Unmounted::InUse) => {
            note("unmounted; files that are still open are served until they are closed");
        }
        Err(error) => note(error),
    }
}

impl Human for Mounted {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        self.pool.write(out)?;
        write!(out, " is mounted on ")?;
        self.dir.write(out)?;
        writeln!(out, "; Ctrl-C unmounts it")
    }
}

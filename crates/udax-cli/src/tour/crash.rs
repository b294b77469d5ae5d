//! Step: kill a process in the middle of writing, and recover.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use udax::{ErrorKind, Pool};

use super::stage::{Stage, refused};
use super::writer::{self, DIR, UNFINISHED};

/// The promise after which the process is killed.
const ENOUGH: u64 = 300;

/// SIGKILL has this number on every Linux.
const SIGKILL: i32 = 9;

pub(crate) fn run(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    stage.story().step(
        "kill -9 a process that writes",
        "It writes files and renames them into place. What it was told is done must be there.",
    )?;
    stage.pool()?.create_dir(DIR)?;
    stage.close()?;
    let (pid, promised) = write_and_kill(stage)?;
    stage.saw(format!("process {pid} was killed after it reported file {promised}"))?;

    let report = Pool::check(stage.path())?;
    ensure!(report.problems.is_empty(), "check before recovery: {:?}", report.problems);
    let time = stage.reopen()?;
    stage.story().once("open and recover after kill -9", time);
    let pool = stage.pool()?;
    let recovered = pool.recovered().clone();
    ensure!(recovered.unclean == Some(pid), "recovery does not name process {pid}: {recovered:?}");
    let replayed = if recovered.replayed { "a transaction replayed" } else { "nothing to replay" };
    let orphans = recovered.orphans;
    stage.saw(format!("recovered in {time:.1?}: {replayed}, {orphans} orphans freed"))?;
    let found = check_files(&pool, promised)?;
    stage.saw(format!("all {} files it reported are complete; {found} in all", promised + 1))?;
    pool.verify().map_err(anyhow::Error::msg).context("the recovered pool contradicts itself")?;
    pool.remove_dir_all(DIR)?;
    drop(pool);
    stage.close()?;

    let report = Pool::check(stage.path())?;
    ensure!(report.problems.is_empty(), "check after recovery: {:?}", report.problems);
    let (files, dirs) = (report.files, report.dirs);
    stage.saw(format!("check is clean: {files} files, {dirs} directories"))?;
    stage.reopen()?;
    Ok(())
}

/// Starts the writer, and kills it in the middle; returns its pid and the last file it reported.
fn write_and_kill(stage: &mut Stage<'_>) -> anyhow::Result<(u32, u64)> {
    let program = std::env::current_exe().context("the path of this program")?;
    let mut command = Command::new(program);
    command.arg("tour-writer").arg(stage.path()).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().context("start the process that writes")?;
    let pid = child.id();
    let mut lines = BufReader::new(child.stdout.take().expect("its output is a pipe")).lines();
    let mut promised = None;
    let mut is_killed = false;
    // Goes on after the kill: the pipe may still hold promises.
    for line in &mut lines {
        promised = Some(line?.parse::<u64>()?);
        if promised == Some(ENOUGH / 2) {
            let message = refused("opening the pool twice", Pool::open(stage.path()), IN_USE)?;
            stage.saw(format!("meanwhile a second open is refused: {message}"))?;
        }
        if promised >= Some(ENOUGH) && !is_killed {
            child.kill().context("kill the process that writes")?;
            is_killed = true;
        }
    }
    let status = child.wait()?;
    ensure!(status.signal() == Some(SIGKILL), "the writer was not killed, it ended: {status}");
    Ok((pid, promised.context("the writer reported nothing")?))
}

const IN_USE: ErrorKind = ErrorKind::InUse;

/// Checks that every file that was reported is there, that every file is complete, and counts
/// them.
fn check_files(pool: &Pool, promised: u64) -> anyhow::Result<u64> {
    for number in 0..=promised {
        let path = Path::new(DIR).join(number.to_string());
        ensure!(pool.read(&path)? == writer::content(number), "{} is torn", path.display());
    }
    let mut found = 0;
    for entry in pool.read_dir(DIR)? {
        let entry = entry?;
        if entry.file_name() == UNFINISHED {
            continue;
        }
        let name = entry.file_name().to_str().context("a name of the writer")?;
        let number = name.parse().with_context(|| format!("a name nobody gave: {name}"))?;
        let path = entry.path();
        ensure!(pool.read(&path)? == writer::content(number), "{} is torn", path.display());
        found += 1;
    }
    Ok(found)
}

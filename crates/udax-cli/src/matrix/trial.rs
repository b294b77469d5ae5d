//! One cell, performed in a process of its own, so that a hang and a SIGBUS are observations.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

use super::cell::{CellArgs, STAGE};
use super::facts::{Outcome, Verdict};
use super::places::Places;

/// How long a process that was killed may take to go.
const GRACE: Duration = Duration::from_secs(2);

/// Performs a cell, and says what became of it.
///
/// # Blocking
///
/// As long as `deadline`, and a moment more.
///
/// # Errors
///
/// Returns the host's error if no process can be started.
pub(super) fn run(cell: &CellArgs, places: &Places, deadline: Duration) -> anyhow::Result<Outcome> {
    let program = std::env::current_exe().context("the path of this program")?;
    let mut command = Command::new(program);
    command.args(cell.to_arguments());
    observe(command, places.disk(), deadline)
}

/// Runs a command that tells its stages and its outcome, with files in `dir` for what it says.
fn observe(mut command: Command, dir: &Path, deadline: Duration) -> anyhow::Result<Outcome> {
    let (said, error) = (dir.join("said"), dir.join("error"));
    // Files and no pipes: a process that hangs holds its end of a pipe.
    command.stdin(Stdio::null()).stdout(File::create(&said)?).stderr(File::create(&error)?);
    let mut child = command.spawn().context("start the process of a cell")?;
    let status = wait(&mut child, deadline)?;
    if status.is_none() {
        child.kill().context("kill the process of a cell")?;
        wait(&mut child, GRACE)?;
    }
    Ok(judge(status, &fs::read_to_string(&said)?, &fs::read_to_string(&error)?))
}

/// Waits until the child ends; none if it does not in time.
fn wait(child: &mut Child, deadline: Duration) -> anyhow::Result<Option<ExitStatus>> {
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let mut polled = [PollFd::new(&pidfd, PollFlags::IN)];
    let deadline = Timespec::try_from(deadline)?;
    Ok(match poll(&mut polled, Some(&deadline))? {
        0 => None,
        _ => Some(child.wait()?),
    })
}

/// What a process came to that ended as `status` says, or that was killed because it did not end.
fn judge(status: Option<ExitStatus>, said: &str, error: &str) -> Outcome {
    let mut stages = said.lines().filter_map(|line| line.strip_prefix(STAGE));
    let stage = stages.next_back().unwrap_or("nothing was done yet");
    let Some(status) = status else {
        return Outcome::new(Verdict::Hung, format!("it did not return: {stage}"));
    };
    if let Some(signal) = status.signal() {
        let signal = match Signal::from_named_raw(signal) {
            Some(Signal::BUS) => "SIGBUS".to_owned(),
            _ => format!("signal {signal}"),
        };
        return Outcome::new(Verdict::Killed, format!("{signal}: {stage}"));
    }
    let outcome = said.lines().next_back().and_then(|line| serde_json::from_str(line).ok());
    outcome.filter(|_| status.success()).unwrap_or_else(|| {
        let error = error.lines().next_back().unwrap_or("it said nothing");
        let error = error.strip_prefix("udax: ").unwrap_or(error);
        Outcome::new(Verdict::Unavailable, format!("{stage}: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_process_is_an_observation() {
        let outcome = "{\"verdict\":\"lost\",\"why\":\"w\"}";
        let said = format!("{STAGE}first\n{STAGE}second\n");
        let whole = format!("{said}{outcome}\n");
        let (exited, failed, bus) = (Some(0), Some(1 << 8), Some(7));
        let cases = [
            (None, &said, Verdict::Hung, "it did not return: second"),
            (bus, &said, Verdict::Killed, "SIGBUS: second"),
            (bus, &whole, Verdict::Killed, "SIGBUS: second"),
            (Some(9), &said, Verdict::Killed, "signal 9: second"),
            (exited, &whole, Verdict::Lost, "w"),
            (exited, &said, Verdict::Unavailable, "second: a cause"),
            (failed, &whole, Verdict::Unavailable, "second: a cause"),
        ];
        for (status, said, verdict, why) in cases {
            let found = judge(status.map(ExitStatus::from_raw), said, "udax: a cause\n");
            assert_eq!(found, Outcome::new(verdict, why), "{status:?} {said}");
        }
    }

    /// What is observed of a shell that runs `script`.
    fn shell(script: &str) -> (Verdict, String) {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let outcome = observe(command, dir.path(), Duration::from_secs(1)).unwrap();
        let value = serde_json::to_value(&outcome).unwrap();
        (serde_json::from_value(value["verdict"].clone()).unwrap(), value["why"].to_string())
    }

    #[test]
    fn a_process_that_does_not_end_is_hung_and_gone_afterwards() {
        let (verdict, why) = shell("echo at: $$; exec 1>&-; kill -STOP $$");
        assert_eq!(verdict, Verdict::Hung);
        let pid: String = why.chars().filter(char::is_ascii_digit).collect();
        assert!(!Path::new("/proc").join(pid).exists(), "{why}");
    }

    #[test]
    fn a_process_that_dies_of_a_sigbus_is_killed() {
        assert_eq!(shell("kill -BUS $$").0, Verdict::Killed);
    }
}

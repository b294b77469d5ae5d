//! What a command says on stdout: facts, for people or as one JSON value; notes go to stderr.
//!
//! Names are bytes. For people they are written as they are, except that control characters are
//! escaped on a terminal; in JSON a name that is not UTF-8 is shown with replacement characters
//! and its bytes follow in hexadecimal.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};
use std::os::unix::ffi::OsStrExt;

use serde::Serialize;

/// The two ways in which facts can be written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Format {
    /// Lines for people.
    Human,
    /// One JSON value with stable field names.
    Json,
}

/// Facts that can be shown to people.
pub(crate) trait Human {
    /// Writes the facts as lines.
    fn human(&self, out: &mut dyn Write) -> io::Result<()>;
}

/// The standard output of a command.
pub(crate) struct Output {
    format: Format,
    out: BufWriter<StdoutLock<'static>>,
}

/// A name of a file, safe to show and complete in JSON.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub(crate) struct Name {
    #[serde(rename = "name")]
    text: String,
    #[serde(rename = "name_hex", skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
    #[serde(skip)]
    bytes: Vec<u8>,
}

impl Output {
    /// The process's stdout.
    pub(crate) fn stdout(format: Format) -> Output {
        Output { format, out: BufWriter::new(io::stdout().lock()) }
    }

    /// How facts are written.
    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// Writes `facts` in the chosen format.
    ///
    /// # Errors
    ///
    /// Returns the error of stdout, a broken pipe among them.
    pub(crate) fn facts<T: Human + Serialize>(&mut self, facts: &T) -> io::Result<()> {
        match self.format {
            Format::Human => facts.human(&mut self.out)?,
            Format::Json => {
                serde_json::to_writer_pretty(&mut self.out, facts)?;
                writeln!(self.out)?;
            }
        }
        self.out.flush()
    }

    /// The stream itself, for bytes that are no facts (`cat`) and for lines as they come (`tour`).
    pub(crate) fn stream(&mut self) -> &mut dyn Write {
        &mut self.out
    }
}

impl Name {
    /// The name `name`.
    pub(crate) fn new(name: &OsStr) -> Name {
        let bytes = name.as_bytes();
        let hex = std::str::from_utf8(bytes).is_err().then(|| hex(bytes));
        Name { text: name.to_string_lossy().into_owned(), hex, bytes: bytes.to_vec() }
    }

    /// The name as the host writes it.
    pub(crate) fn as_os_str(&self) -> &OsStr {
        OsStr::from_bytes(&self.bytes)
    }

    /// Writes the bytes of the name; escaped where they would drive a terminal.
    pub(crate) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        if io::stdout().is_terminal() {
            out.write_all(self.text.escape_debug().to_string().as_bytes())
        } else {
            out.write_all(&self.bytes)
        }
    }
}

/// Tells people something on stderr that is no error.
pub(crate) fn note(text: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "udax: {text}");
}

/// The message of `error` and of each cause that says more than the one before.
pub(crate) fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Whether the reader of our output went away.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        let json =
            cause.downcast_ref::<serde_json::Error>().and_then(serde_json::Error::io_error_kind);
        kind.or(json) == Some(io::ErrorKind::BrokenPipe)
    })
}

/// Two digits a byte.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_that_the_message_ends_with_is_not_repeated() {
        let error = anyhow::anyhow!("no such file").context("open p: no such file").context("cp");
        assert_eq!(chain(&error), "cp: open p: no such file");
    }

    #[test]
    fn a_name_that_is_not_utf8_keeps_its_bytes_in_json() {
        let name = serde_json::to_string(&Name::new(OsStr::from_bytes(b"a\xff"))).unwrap();
        assert_eq!(name, "{\"name\":\"a\u{fffd}\",\"name_hex\":\"61ff\"}");
        let name = serde_json::to_string(&Name::new(OsStr::new("é"))).unwrap();
        assert_eq!(name, "{\"name\":\"é\"}");
    }
}

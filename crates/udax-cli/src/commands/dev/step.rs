//! The steps of `udax dev`, as they are written.

use std::collections::VecDeque;
use std::path::PathBuf;

use crate::size::Size;

/// One thing that is done with a device.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Step {
    /// Map a range for stores, and touch every folio of it.
    Map { at: u64, len: u64 },
    /// Copy bytes to a file of the host.
    Read { at: u64, len: u64, file: PathBuf },
    /// Copy a file of the host to the device.
    Write { at: u64, file: PathBuf },
    /// Pin a range under a label.
    Pin { label: String, at: u64, len: u64 },
    /// Let a pin go.
    Unpin { label: String },
    /// List what is pinned.
    Pins,
    /// Take the device away.
    Kill,
}

/// How each step is written.
const FORMS: [&str; 7] = [
    "map AT LENGTH",
    "read AT LENGTH FILE",
    "write AT FILE",
    "pin LABEL AT LENGTH",
    "unpin LABEL",
    "pins",
    "kill",
];

/// The words that are still to be read.
struct Words<'w> {
    rest: VecDeque<&'w str>,
}

impl Step {
    /// Reads all steps of a command line.
    ///
    /// # Errors
    ///
    /// Says which word is wrong, and how the step is written.
    pub(super) fn parse(words: &[String]) -> anyhow::Result<Vec<Step>> {
        let mut words = Words { rest: words.iter().map(String::as_str).collect() };
        let mut steps = Vec::new();
        while let Some(name) = words.rest.pop_front() {
            steps.push(words.step(name)?);
        }
        Ok(steps)
    }
}

impl Words<'_> {
    fn step(&mut self, name: &str) -> anyhow::Result<Step> {
        let is_named = |form: &&&str| form.split(' ').next() == Some(name);
        let Some(form) = FORMS.iter().find(is_named) else {
            anyhow::bail!("`{name}` is no step; there are: {}", FORMS.join(", "));
        };
        Ok(match name {
            "map" => Step::Map { at: self.offset(form)?, len: self.size(form)? },
            "read" => Step::Read {
                at: self.offset(form)?,
                len: self.size(form)?,
                file: self.word(form)?.into(),
            },
            "write" => Step::Write { at: self.offset(form)?, file: self.word(form)?.into() },
            "pin" => {
                Step::Pin { label: self.word(form)?, at: self.offset(form)?, len: self.size(form)? }
            }
            "unpin" => Step::Unpin { label: self.word(form)? },
            "pins" => Step::Pins,
            _ => Step::Kill,
        })
    }

    fn word(&mut self, form: &str) -> anyhow::Result<String> {
        let word = self.rest.pop_front();
        word.map(str::to_owned).ok_or_else(|| anyhow::anyhow!("a step ends early; it is `{form}`"))
    }

    /// A size that may be zero.
    fn offset(&mut self, form: &str) -> anyhow::Result<u64> {
        if self.rest.front() == Some(&"0") {
            self.rest.pop_front();
            return Ok(0);
        }
        self.size(form)
    }

    fn size(&mut self, form: &str) -> anyhow::Result<u64> {
        let word = self.word(form)?;
        let size: Result<Size, _> = word.parse();
        size.map(Size::bytes).map_err(|error| anyhow::anyhow!("`{word}` in `{form}`: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> anyhow::Result<Vec<Step>> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Step::parse(&words)
    }

    #[test]
    fn steps_are_read_one_after_the_other() {
        let steps = parse("map 0 4M pin nic 2MiB 1 pins kill unpin nic read 4K 8 out write 0 in");

        let pin = Step::Pin { label: "nic".into(), at: 2 << 20, len: 1 };
        let read = Step::Read { at: 4096, len: 8, file: "out".into() };
        let expected = vec![
            Step::Map { at: 0, len: 4 << 20 },
            pin,
            Step::Pins,
            Step::Kill,
            Step::Unpin { label: "nic".into() },
            read,
            Step::Write { at: 0, file: "in".into() },
        ];
        assert_eq!(steps.unwrap(), expected);
    }

    #[test]
    fn what_is_no_step_is_named_with_what_would_be_one() {
        let error = |line| parse(line).unwrap_err().to_string();

        assert!(error("maap 0 1").starts_with("`maap` is no step; there are: map AT LENGTH, read"));
        assert_eq!(error("pin nic 0"), "a step ends early; it is `pin LABEL AT LENGTH`");
        assert!(error("map 0 many").starts_with("`many` in `map AT LENGTH`: "));
    }
}

//! What the tour tells: its steps, what each saw, and the figures it measured.

use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;

use crate::output::{Format, Human, Output};
use crate::rate::{self, Elapsed};
use crate::size::human;

/// The tour as it is told.
pub(crate) struct Story<'a> {
    out: &'a mut Output,
    tale: Tale,
}

/// Everything that was told.
#[derive(Debug, Default, Serialize)]
struct Tale {
    steps: Vec<Step>,
    figures: Vec<Figure>,
}

/// One step and what it saw.
#[derive(Debug, Serialize)]
struct Step {
    title: &'static str,
    saw: Vec<String>,
}

/// Something measured.
#[derive(Debug, Serialize)]
struct Figure {
    name: &'static str,
    value: u64,
    unit: &'static str,
}

impl<'a> Story<'a> {
    /// Begins, on `out`.
    pub(crate) fn new(out: &'a mut Output) -> Story<'a> {
        Story { out, tale: Tale::default() }
    }

    /// Begins the next step, and says in one sentence what it is about.
    pub(crate) fn step(&mut self, title: &'static str, about: &str) -> anyhow::Result<()> {
        self.tale.steps.push(Step { title, saw: Vec::new() });
        let number = self.tale.steps.len();
        self.line(format_args!("\n{number}. {title}\n   {about}"))
    }

    /// Tells one thing that the step saw.
    pub(crate) fn saw(&mut self, text: impl Into<String>) -> anyhow::Result<()> {
        let text = text.into();
        self.line(format_args!("   - {text}"))?;
        let step = self.tale.steps.last_mut().expect("a step sees nothing before it begins");
        step.saw.push(text);
        Ok(())
    }

    /// The step that is being told, as an error names it.
    pub(crate) fn here(&self) -> String {
        let title = self.tale.steps.last().map_or("before the first step", |step| step.title);
        format!("tour, step {} ({title})", self.tale.steps.len())
    }

    /// Notes that `bytes` went by in `time`.
    pub(crate) fn throughput(&mut self, name: &'static str, bytes: u64, time: Duration) {
        self.figure(name, rate::per_second(bytes, time) / 1_000_000, "MB/s");
    }

    /// Notes that something happened `count` times in `time`.
    pub(crate) fn frequency(&mut self, name: &'static str, count: u64, time: Duration) {
        self.figure(name, rate::per_second(count, time), "/s");
    }

    /// Notes how long each of `count` things took that took `time` together.
    pub(crate) fn each(&mut self, name: &'static str, count: u64, time: Duration) {
        self.figure(name, rate::nanos_each(count, time), "ns");
    }

    /// Notes how long something took once.
    pub(crate) fn once(&mut self, name: &'static str, time: Duration) {
        self.figure(name, u64::try_from(time.as_micros()).unwrap_or(u64::MAX), "us");
    }

    /// Ends with the table of figures.
    pub(crate) fn end(self, time: Duration) -> anyhow::Result<()> {
        let Story { out, tale } = self;
        match out.format() {
            Format::Json => out.facts(&tale)?,
            Format::Human => {
                out.facts(&tale)?;
                let steps = tale.steps.len();
                writeln!(out.stream(), "\nAll {steps} steps held, in {}.", Elapsed(time))?;
                out.stream().flush()?;
            }
        }
        Ok(())
    }

    fn figure(&mut self, name: &'static str, value: u64, unit: &'static str) {
        self.tale.figures.push(Figure { name, value, unit });
    }

    fn line(&mut self, text: std::fmt::Arguments<'_>) -> anyhow::Result<()> {
        if self.out.format() == Format::Human {
            let stream = self.out.stream();
            writeln!(stream, "{text}")?;
            stream.flush()?;
        }
        Ok(())
    }
}

impl Human for Tale {
    /// The figures only: the steps were told as they came.
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "\nFigures of this run")?;
        for Figure { name, value, unit } in &self.figures {
            writeln!(out, "   {name:<44} {value:>10} {unit}")?;
        }
        Ok(())
    }
}

/// A count of bytes with its exact number, where that says more.
pub(crate) fn size(bytes: u64) -> String {
    if bytes < 1024 { format!("{bytes} bytes") } else { human(bytes) }
}

//! What is done with one device, and what came of it.

use std::fs::File as HostFile;
use std::io::{self, Read, Write};
use std::path::Path;

use anyhow::Context;
use serde::Serialize;
use udax::{
    Access, DevDax, ErrorKind, MapOptions, Mapping, OpenDevDax, Pin, PinOptions, Stats, Wait,
};

use super::step::Step;
use crate::output::{Human, Name};
use crate::size::human;

/// Bytes that are copied at a time.
const CHUNK: u64 = 1 << 20;

/// A device in use.
pub(super) struct Session {
    device: DevDax,
    /// Kept to the end, so that a removal finds them.
    maps: Vec<Mapping>,
    pins: Vec<(String, Pin)>,
    facts: DevFacts,
}

/// What `dev` prints; sizes in bytes.
#[derive(Debug, Serialize)]
pub(super) struct DevFacts {
    #[serde(flatten)]
    path: Name,
    size: u64,
    alignment: u64,
    host_page: usize,
    registrable: bool,
    steps: Vec<Done>,
}

/// What came of one step.
#[derive(Debug, Serialize)]
#[serde(tag = "step", rename_all = "snake_case")]
enum Done {
    Map {
        at: u64,
        length: u64,
        address: usize,
        /// Folios that faults brought in, by size.
        folios: Vec<(u64, u64)>,
    },
    Read {
        at: u64,
        length: u64,
    },
    Write {
        at: u64,
        length: u64,
    },
    Pin {
        label: String,
        /// What the pin covers: whole folios.
        at: u64,
        length: u64,
    },
    Unpin {
        label: String,
    },
    Pins {
        pins: Vec<Pinned>,
    },
    Kill {
        killed: bool,
        /// Who has pages of it still.
        #[serde(skip_serializing_if = "Option::is_none")]
        busy: Option<String>,
    },
}

#[derive(Debug, Serialize)]
struct Pinned {
    label: String,
    process: u32,
    at: u64,
    length: u64,
    seconds: f64,
}

impl Session {
    pub(super) fn open(path: &Path, options: &OpenDevDax) -> anyhow::Result<Session> {
        let device = DevDax::open(path, options)?;
        let facts = device.facts();
        let facts = DevFacts {
            path: Name::new(path.as_os_str()),
            size: device.size(),
            alignment: device.alignment().pages().bytes(),
            host_page: facts.host_page,
            registrable: facts.is_registrable,
            steps: Vec::new(),
        };
        Ok(Session { device, maps: Vec::new(), pins: Vec::new(), facts })
    }

    /// Fails if there is a pool that a store would destroy.
    pub(super) fn refuse_pool(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            !self.device.holds_pool(),
            "{}: a pool is on the device; `udax cp` writes files into it, and `--force` loses it",
            self.device.path().display()
        );
        Ok(())
    }

    pub(super) fn facts(&self) -> &DevFacts {
        &self.facts
    }

    /// Does one step, and notes what came of it.
    pub(super) fn take(&mut self, step: &Step) -> anyhow::Result<()> {
        let done = match step {
            Step::Map { at, len } => self.map(*at, *len)?,
            Step::Read { at, len, file } => self.read(*at, *len, file)?,
            Step::Write { at, file } => self.write(*at, file)?,
            Step::Pin { label, at, len } => self.pin(label, *at, *len)?,
            Step::Unpin { label } => self.unpin(label)?,
            Step::Pins => self.pins(),
            Step::Kill => self.kill()?,
        };
        self.facts.steps.push(done);
        Ok(())
    }

    fn map(&mut self, at: u64, length: u64) -> anyhow::Result<Done> {
        let before = self.device.stats();
        let options = MapOptions::new().access(Access::Write);
        let map = self.device.map(at..at.saturating_add(length), &options)?;
        for folio in (0..length).step_by(usize::try_from(self.facts.alignment)?) {
            map.load(folio)?;
        }
        let address = map.addr();
        self.maps.push(map);
        let folios = folios(&before, &self.device.stats());
        Ok(Done::Map { at, length, address, folios })
    }

    fn read(&self, at: u64, length: u64, path: &Path) -> anyhow::Result<Done> {
        let end = at.saturating_add(length);
        self.check_end(end)?;
        let mut file = create(path).with_context(|| path.display().to_string())?;
        let mut from = at;
        while from < end {
            let mut bytes = vec![0; usize::try_from(CHUNK.min(end - from))?];
            self.device.read_at(&mut bytes, from)?;
            file.write_all(&bytes).with_context(|| path.display().to_string())?;
            from += CHUNK.min(end - from);
        }
        Ok(Done::Read { at, length })
    }

    fn write(&self, at: u64, path: &Path) -> anyhow::Result<Done> {
        let mut file = HostFile::open(path).with_context(|| path.display().to_string())?;
        self.check_end(at.saturating_add(file.metadata()?.len()))?;
        let mut bytes = vec![0; usize::try_from(CHUNK)?];
        let mut to = at;
        loop {
            let read = file.read(&mut bytes).with_context(|| path.display().to_string())?;
            if read == 0 {
                break;
            }
            self.device.write_at(&bytes[..read], to)?;
            to += u64::try_from(read)?;
        }
        if to > at {
            self.device.flush(at..to)?;
        }
        Ok(Done::Write { at, length: to - at })
    }

    /// Refuses what goes past the end before anything is changed.
    fn check_end(&self, end: u64) -> anyhow::Result<()> {
        let size = self.facts.size;
        anyhow::ensure!(end <= size, "the bytes end at {end}, and the device has {size}");
        Ok(())
    }

    fn pin(&mut self, label: &str, at: u64, length: u64) -> anyhow::Result<Done> {
        anyhow::ensure!(
            self.pins.iter().all(|(other, _)| other != label),
            "there is a pin `{label}` already; give this one another label"
        );
        let pin = self.device.pin(at..at.saturating_add(length), &PinOptions::new(label))?;
        self.pins.push((label.to_owned(), pin));
        let folio = self.facts.alignment;
        let (start, end) = (at / folio * folio, (at + length).next_multiple_of(folio));
        Ok(Done::Pin { label: label.to_owned(), at: start, length: end - start })
    }

    fn unpin(&mut self, label: &str) -> anyhow::Result<Done> {
        let place = self.pins.iter().position(|(other, _)| other == label);
        let place = place.with_context(|| format!("there is no pin `{label}`; see `pins`"))?;
        drop(self.pins.remove(place));
        Ok(Done::Unpin { label: label.to_owned() })
    }

    fn pins(&self) -> Done {
        let pins = self.device.pins().into_iter().map(|pin| Pinned {
            label: pin.owner().label.to_string(),
            process: pin.owner().process,
            at: pin.range().start,
            length: pin.range().end - pin.range().start,
            seconds: pin.age().as_secs_f64(),
        });
        Done::Pins { pins: pins.collect() }
    }

    fn kill(&self) -> anyhow::Result<Done> {
        match self.device.kill(Wait::Never) {
            Ok(()) => Ok(Done::Kill { killed: true, busy: None }),
            Err(busy) if busy.kind() == ErrorKind::Pinned => {
                Ok(Done::Kill { killed: false, busy: Some(busy.to_string()) })
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Makes a file for bytes of a device. One that is there is not emptied, because it may be a device or
/// a pool; a pipe or a terminal is written to.
fn create(path: &Path) -> io::Result<HostFile> {
    match HostFile::create_new(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let file = HostFile::options().write(true).open(path)?;
            let is_empty = !file.metadata()?.is_file() || file.metadata()?.len() == 0;
            let full = "the file exists and is not empty; give another name, or remove it";
            if is_empty { Ok(file) } else { Err(io::Error::new(error.kind(), full)) }
        }
        file => file,
    }
}

/// What faults brought in between two looks: bytes of a folio, and how many.
fn folios(before: &Stats, after: &Stats) -> Vec<(u64, u64)> {
    let count =
        |order: udax::Order| (order.pages().bytes(), after.faults(order) - before.faults(order));
    udax::Order::ALL.into_iter().map(count).filter(|(_, count)| *count > 0).collect()
}

impl Human for DevFacts {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        self.path.write(out)?;
        let registrable = if self.registrable { "registrable" } else { "not registrable" };
        let (size, folio) = (human(self.size), human(self.alignment));
        writeln!(out, ": {size} in folios of {folio}, {registrable}")?;
        self.steps.iter().try_for_each(|step| step.human(out))
    }
}

impl Human for Done {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Done::Map { at, length, address, folios } => {
                write!(out, "map    {} +{} at {address:#x}:", human(*at), human(*length))?;
                for (bytes, count) in folios {
                    write!(out, " {count} folios of {}", human(*bytes))?;
                }
                writeln!(out)
            }
            Done::Read { at, length } => {
                writeln!(out, "read   {} +{}", human(*at), human(*length))
            }
            Done::Write { at, length } => {
                writeln!(out, "write  {} +{}", human(*at), human(*length))
            }
            Done::Pin { label, at, length } => {
                writeln!(out, "pin    {} +{} {label}", human(*at), human(*length))
            }
            Done::Unpin { label } => writeln!(out, "unpin  {label}"),
            Done::Pins { pins } if pins.is_empty() => writeln!(out, "pins   none"),
            Done::Pins { pins } => pins.iter().try_for_each(|pin| {
                let (at, length) = (human(pin.at), human(pin.length));
                let (label, process, seconds) = (&pin.label, pin.process, pin.seconds);
                writeln!(out, "pins   {at} +{length} {label}, process {process}, {seconds:.1} s")
            }),
            Done::Kill { busy: Some(busy), .. } => writeln!(out, "kill   refused: {busy}"),
            Done::Kill { .. } => writeln!(out, "kill   done"),
        }
    }
}

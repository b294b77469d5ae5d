//! Tables as text, in the notation of `dmsetup`.
//!
//! Text is read in two steps: everything that can be wrong without a device is found before the
//! first one is opened.

use super::{Field, Line, Problem, Table, TableError, check_place};
use crate::targets::{Delay, Linear, LogWrites, Member, Striped};
use crate::{DaxDevice, EventSink, Target};
use std::collections::HashMap;
use std::error::Error;
use std::time::Duration;
use udax_mm::sync::Arc;
use udax_mm::units::PAGE_BYTES;
use udax_mm::{DeviceOff, Pages};

const SECTOR: u64 = 512;

/// A table as it was written, before any device is opened.
///
/// A line is `START LENGTH TARGET ARGUMENT...`. Sizes are sectors of 512 bytes, or have a unit
/// (`4KiB`, `2MiB`, `1GiB`, `1TiB`). What follows `#` is a comment. A space or `#` in a name is
/// written with a backslash before it.
///
/// # Examples
///
/// ```
/// use udax_dev::TableText;
/// let text = b"0 2MiB linear /dev/dax0.0 0\n2MiB 2MB zero";
/// let error = TableText::parse(text).unwrap_err();
/// assert_eq!((error.line, error.column), (2, 6));
/// ```
#[derive(Clone, Debug)]
pub struct TableText {
    lines: Vec<Parsed>,
}

/// Why a text is no table: where, and what would be right.
#[derive(Debug, thiserror::Error)]
#[error("line {line}, column {column}: {problem}")]
pub struct TextError {
    /// The line of the text, counted from 1.
    pub line: usize,
    /// The character of the line, counted from 1.
    pub column: usize,
    /// What is wrong.
    pub problem: Problem,
}

/// Opens what a table names. Asked once for each name of a device, and for each of a log.
pub trait Opener {
    /// Opens the device `name`.
    ///
    /// # Errors
    ///
    /// Why it cannot be.
    fn device(&mut self, name: &str) -> Result<Arc<dyn DaxDevice>, Box<dyn Error + Send + Sync>>;

    /// Opens the log `name` of a `log-writes` line.
    ///
    /// # Errors
    ///
    /// Why it cannot be.
    fn log(&mut self, name: &str) -> Result<Arc<dyn EventSink>, Box<dyn Error + Send + Sync>>;
}

/// One line, with the places of its words.
#[derive(Clone, Debug)]
struct Parsed {
    start: DeviceOff,
    pages: Pages,
    target: Named,
    line: usize,
    /// Where each word starts, and where the line ends.
    columns: Vec<usize>,
}

/// A target with names in the place of devices.
#[derive(Clone, Debug)]
enum Named {
    Linear(String, DeviceOff),
    Striped(Pages, Vec<(String, DeviceOff)>),
    Error,
    Zero,
    Delay(String, DeviceOff, Duration),
    LogWrites(String, String),
}

/// What was opened, by name.
struct Opened<'o> {
    opener: &'o mut dyn Opener,
    devices: HashMap<String, Arc<dyn DaxDevice>>,
    logs: HashMap<String, Arc<dyn EventSink>>,
}

/// What is wrong with a word of the line that is read.
type Wrong = (Field, Problem);

impl TableText {
    /// Reads a table.
    ///
    /// # Errors
    ///
    /// [`TextError`] for the first line that is wrong, whatever is there.
    pub fn parse(text: &[u8]) -> Result<TableText, TextError> {
        let text = std::str::from_utf8(text).map_err(|error| {
            let (good, bad) = text.split_at(error.valid_up_to());
            let before = String::from_utf8_lossy(good);
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
            TextError { line, column, problem: Problem::NotText { byte: bad[0] } }
        })?;
        let (mut lines, mut end) = (Vec::new(), DeviceOff(0));
        for (number, line) in text.lines().enumerate() {
            let words = Words::of(line);
            if words.words.is_empty() {
                continue;
            }
            let parsed = words.parse(number + 1, end)?;
            end = parsed.start + parsed.pages;
            lines.push(parsed);
        }
        if lines.is_empty() {
            return Err(TextError { line: 1, column: 1, problem: Problem::Empty });
        }
        Ok(TableText { lines })
    }

    /// Opens the devices, and makes the table of them.
    ///
    /// # Errors
    ///
    /// [`TextError`] if one cannot be opened, or does not fit.
    pub fn open(&self, opener: &mut dyn Opener) -> Result<Table, TextError> {
        let mut opened = Opened { opener, devices: HashMap::new(), logs: HashMap::new() };
        let mut lines = Vec::new();
        for parsed in &self.lines {
            let target = parsed.open(&mut opened).map_err(|wrong| parsed.wrong(wrong))?;
            lines.push(Line { start: parsed.start, pages: parsed.pages, target });
        }
        Table::new(lines).map_err(|error| self.located(error))
    }

    /// The place of an error in the text.
    pub fn located(&self, error: TableError) -> TextError {
        self.lines[error.line - 1].wrong((error.field, error.problem))
    }
}

/// The words of a line, and where they are.
struct Words {
    words: Vec<String>,
    columns: Vec<usize>,
}

impl Words {
    fn of(line: &str) -> Words {
        let (mut words, mut columns) = (Vec::new(), Vec::new());
        let (mut word, mut is_escaped, mut end): (Option<String>, _, _) = (None, false, 0);
        for (column, char) in line.chars().enumerate() {
            let is_space = char.is_whitespace() && !is_escaped;
            if char == '#' && word.is_none() {
                break;
            }
            end = column + 1;
            if is_space {
                words.extend(word.take());
                continue;
            }
            let word = word.get_or_insert_with(|| {
                columns.push(column + 1);
                String::new()
            });
            if char == '\\' && !is_escaped {
                is_escaped = true;
            } else {
                word.push(char);
                is_escaped = false;
            }
        }
        words.extend(word);
        columns.push(end + 1);
        Words { words, columns }
    }

    fn parse(self, line: usize, end: DeviceOff) -> Result<Parsed, TextError> {
        let parsed = self.parts(end);
        let columns = self.columns;
        let (start, pages, target) = parsed.map_err(|wrong| located(line, &columns, wrong))?;
        Ok(Parsed { start, pages, target, line, columns })
    }

    fn parts(&self, end: DeviceOff) -> Result<(DeviceOff, Pages, Named), Wrong> {
        let start = DeviceOff(self.size(0, Field::Start, "start", ANY)?.0);
        let pages = self.size(1, Field::Length, "length", ANY)?;
        check_place(start, pages, end)?;
        let Some(name) = self.words.get(2) else {
            return Err((Field::Target, Problem::Missing { what: "target", form: ANY }));
        };
        let target = match name.as_str() {
            "linear" => Named::Linear(self.name(1, LINEAR)?, self.from(2, LINEAR)?),
            "striped" => self.striped(pages)?,
            "error" => Named::Error,
            "zero" => Named::Zero,
            "delay" => Named::Delay(self.name(1, DELAY)?, self.from(2, DELAY)?, self.delay(3)?),
            "log-writes" => Named::LogWrites(self.name(1, LOG)?, self.word(2, "log", LOG)?),
            other => {
                return Err((Field::Target, Problem::UnknownTarget { found: other.to_owned() }));
            }
        };
        let (arguments, form) = target.form();
        match self.words.get(3 + arguments) {
            Some(word) => {
                let problem = Problem::TooMany { word: word.clone(), form };
                Err((Field::Argument(arguments + 1), problem))
            }
            None => Ok((start, pages, target)),
        }
    }

    fn striped(&self, pages: Pages) -> Result<Named, Wrong> {
        let count = self.number(1, "number of devices", STRIPED)?;
        let chunk = self.size(4, Field::Argument(2), "chunk", STRIPED)?;
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        if count > Striped::MOST {
            return Err((Field::Argument(1), Problem::StripeCount { count }));
        }
        let member =
            |n: usize| Ok((self.name(3 + 2 * n, STRIPED)?, self.from(4 + 2 * n, STRIPED)?));
        let members = (0..count).map(member).collect::<Result<Vec<_>, Wrong>>()?;
        Striped::check_shape(count, chunk, pages)?;
        Ok(Named::Striped(chunk, members))
    }

    fn word(&self, n: usize, what: &'static str, form: &'static str) -> Result<String, Wrong> {
        let missing = || (Field::Argument(n), Problem::Missing { what, form });
        self.words.get(2 + n).cloned().ok_or_else(missing)
    }

    fn name(&self, n: usize, form: &'static str) -> Result<String, Wrong> {
        self.word(n, "device", form)
    }

    fn from(&self, n: usize, form: &'static str) -> Result<DeviceOff, Wrong> {
        let from = self.size(2 + n, Field::Argument(n), "start on the device", form)?;
        Ok(DeviceOff(from.0))
    }

    fn delay(&self, n: usize) -> Result<Duration, Wrong> {
        let millis = self.number(n, "number of milliseconds", DELAY)?;
        let delay = Duration::from_millis(millis);
        Delay::check_delay(delay)?;
        Ok(delay)
    }

    fn number(&self, n: usize, what: &'static str, form: &'static str) -> Result<u64, Wrong> {
        let word = self.word(n, what, form)?;
        word.parse().map_err(|_| (Field::Argument(n), Problem::NotANumber { what, found: word }))
    }

    fn size(
        &self,
        word: usize,
        field: Field,
        what: &'static str,
        form: &'static str,
    ) -> Result<Pages, Wrong> {
        let Some(word) = self.words.get(word) else {
            return Err((field, Problem::Missing { what, form }));
        };
        let bytes = bytes(word, what).map_err(|problem| (field, problem))?;
        if !bytes.is_multiple_of(PAGE_BYTES) {
            return Err((field, Problem::Unaligned { what, bytes }));
        }
        Ok(Pages(bytes / PAGE_BYTES))
    }
}

const ANY: &str = "TARGET ARGUMENT...";
const LINEAR: &str = "linear DEVICE START";
const STRIPED: &str = "striped COUNT CHUNK DEVICE START...";
const DELAY: &str = "delay DEVICE START MILLISECONDS";
const LOG: &str = "log-writes DEVICE LOG";

impl Named {
    /// How many arguments it has, and how it is written.
    fn form(&self) -> (usize, &'static str) {
        match self {
            Named::Linear(..) => (2, LINEAR),
            Named::Striped(_, members) => (2 + 2 * members.len(), STRIPED),
            Named::Error => (0, "error"),
            Named::Zero => (0, "zero"),
            Named::Delay(..) => (3, DELAY),
            Named::LogWrites(..) => (2, LOG),
        }
    }
}

impl Parsed {
    fn open(&self, opened: &mut Opened<'_>) -> Result<Target, Wrong> {
        Ok(match &self.target {
            Named::Linear(name, from) => {
                Target::Linear(Linear::new(opened.device(1, name)?, *from))
            }
            Named::Striped(chunk, names) => {
                let mut members = Vec::new();
                for (n, (name, from)) in names.iter().enumerate() {
                    let device = opened.device(3 + 2 * n, name)?;
                    members.push(Member { device, from: *from });
                }
                Target::Striped(Striped::new(*chunk, members))
            }
            Named::Error => Target::Error,
            Named::Zero => Target::Zero,
            Named::Delay(name, from, delay) => {
                Target::Delay(Delay::new(opened.device(1, name)?, *from, *delay))
            }
            Named::LogWrites(name, log) => {
                Target::LogWrites(LogWrites::new(opened.device(1, name)?, opened.log(2, log)?))
            }
        })
    }

    fn wrong(&self, wrong: Wrong) -> TextError {
        located(self.line, &self.columns, wrong)
    }
}

impl Opened<'_> {
    fn device(&mut self, argument: usize, name: &str) -> Result<Arc<dyn DaxDevice>, Wrong> {
        if let Some(device) = self.devices.get(name) {
            return Ok(Arc::clone(device));
        }
        let device =
            self.opener.device(name).map_err(|source| not_opened(argument, name, source))?;
        self.devices.insert(name.to_owned(), Arc::clone(&device));
        Ok(device)
    }

    fn log(&mut self, argument: usize, name: &str) -> Result<Arc<dyn EventSink>, Wrong> {
        if let Some(log) = self.logs.get(name) {
            return Ok(Arc::clone(log));
        }
        let log = self.opener.log(name).map_err(|source| not_opened(argument, name, source))?;
        self.logs.insert(name.to_owned(), Arc::clone(&log));
        Ok(log)
    }
}

fn not_opened(argument: usize, name: &str, source: Box<dyn Error + Send + Sync>) -> Wrong {
    (Field::Argument(argument), Problem::Open { name: name.to_owned(), source })
}

/// The place of a word in the text; the end of the line for one that is missing.
fn located(line: usize, columns: &[usize], (field, problem): Wrong) -> TextError {
    let word = match field {
        Field::Start => 0,
        Field::Length => 1,
        Field::Target => 2,
        Field::Argument(n) => 2 + n,
    };
    let end = columns.last().expect("the end of a line is known");
    TextError { line, column: *columns.get(word).unwrap_or(end), problem }
}

/// A size in bytes: sectors, or with a unit.
fn bytes(word: &str, what: &'static str) -> Result<u64, Problem> {
    let digits = word.find(|char: char| !char.is_ascii_digit()).unwrap_or(word.len());
    let (number, unit) = word.split_at(digits);
    let unit = match unit.to_ascii_lowercase().as_str() {
        "" | "s" => SECTOR,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        _ => return Err(Problem::NotASize { what, found: word.to_owned() }),
    };
    if number.is_empty() {
        return Err(Problem::NotASize { what, found: word.to_owned() });
    }
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    bytes.filter(|bytes| *bytes <= u64::MAX / 2).ok_or(Problem::TooLarge { what })
}

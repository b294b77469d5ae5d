//! What the matrix is made of, and how it is shown.

use std::collections::BTreeMap;
use std::io::{self, Write};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::output::Human;

/// What the mapped file is made of.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Backing {
    /// A file of the filesystem on the disk.
    Disk,
    /// A file of tmpfs, in /dev/shm.
    Tmpfs,
    /// A memfd.
    Memfd,
    /// A memfd that cannot be made shorter.
    Sealed,
    /// A memfd of huge pages.
    Huge,
    /// A file of a udax pool in memory.
    Udax,
}

/// What somebody else does while the buffer is registered.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Action {
    /// Truncates the file to nothing, and writes it anew.
    Truncate,
    /// Punches a hole over the whole file.
    Punch,
    /// Removes its name.
    Unlink,
    /// Takes the memory away from under the holder.
    Shrink,
    /// Kills the holder, and uses the space again.
    Dies,
}

/// What became of the transfer.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// The bytes are where the holder finds them, and nobody else was touched.
    Safe,
    /// The kernel, or the backing, said no.
    Refused,
    /// The action did not return.
    Hung,
    /// Success was reported and the bytes are nowhere, or over those of another file.
    Lost,
    /// A load of its own buffer killed the holder.
    Killed,
    /// The cell could not be performed here.
    Unavailable,
}

/// What a cell came to, and what was seen.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Outcome {
    verdict: Verdict,
    why: String,
}

/// What `matrix` prints.
#[derive(Debug, Serialize)]
pub(crate) struct Matrix {
    /// How the device reads its file.
    source: String,
    rows: Vec<Row>,
    /// Whether every cell of udax is, if there are any.
    udax_is_safe: Option<bool>,
}

/// The cells of one backing.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    backing: String,
    #[serde(skip)]
    is_udax: bool,
    /// The bytes of the registered buffer.
    buffer: usize,
    cells: Vec<Cell>,
}

#[derive(Debug, Serialize)]
struct Cell {
    action: Action,
    /// What was done by that name: not the same to each kind of file.
    done: &'static str,
    /// The same, if it is not what is done to a file with a name.
    #[serde(skip)]
    note: Option<&'static str>,
    #[serde(flatten)]
    outcome: Outcome,
}

impl Action {
    fn title(self) -> &'static str {
        match self {
            Action::Truncate => "truncate",
            Action::Punch => "punch",
            Action::Unlink => "unlink",
            Action::Shrink => "shrink",
            Action::Dies => "holder dies",
        }
    }

    /// What is done to a file of that kind.
    fn done(self, backing: Backing) -> &'static str {
        match (self, backing) {
            (Action::Truncate, _) => "the file is truncated to nothing, extended and written anew",
            (Action::Punch, _) => "a hole is punched over all of the file",
            (Action::Unlink, Backing::Memfd | Backing::Sealed | Backing::Huge) => {
                "nothing: a memfd has no name"
            }
            (Action::Unlink, _) => "the name of the file is removed",
            (Action::Shrink, Backing::Udax) => {
                "the device of the pool is removed, and the file keeps its size"
            }
            (Action::Shrink, _) => "the file is truncated to nothing, and stays so",
            (Action::Dies, Backing::Udax) => {
                "the holder is killed, the pool opened again, the file removed, and every free block \
                 used"
            }
            (Action::Dies, _) => {
                "the holder is killed, a hole punched over all of the file, and other files written"
            }
        }
    }

    /// The name on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().expect("no action is hidden").get_name().to_owned()
    }
}

impl Backing {
    /// The name on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().expect("no backing is hidden").get_name().to_owned()
    }
}

impl Verdict {
    const ALL: [(Verdict, &'static str); 6] = [
        (Verdict::Safe, "the bytes are where the holder finds them, and no other file has changed"),
        (Verdict::Refused, "the buffer was not registered, or the action was not done"),
        (Verdict::Hung, "the action did not return before the deadline"),
        (
            Verdict::Lost,
            "the kernel reported success and the bytes are nowhere, or in another file",
        ),
        (Verdict::Killed, "the holder died of touching its own buffer"),
        (Verdict::Unavailable, "not available here"),
    ];

    fn word(self) -> &'static str {
        match self {
            Verdict::Safe => "safe",
            Verdict::Refused => "refused",
            Verdict::Hung => "HUNG",
            Verdict::Lost => "LOST",
            Verdict::Killed => "KILLED",
            Verdict::Unavailable => "-",
        }
    }
}

impl Outcome {
    pub(crate) fn new(verdict: Verdict, why: impl Into<String>) -> Outcome {
        Outcome { verdict, why: why.into() }
    }
}

impl Row {
    /// The row of `backing`, which is shown under `title`, with a buffer of so many bytes.
    pub(crate) fn new(
        backing: Backing,
        title: String,
        buffer: usize,
        cells: impl IntoIterator<Item = (Action, Outcome)>,
    ) -> Row {
        let cell = |(action, outcome): (Action, Outcome)| {
            let (done, usual) = (action.done(backing), action.done(Backing::Tmpfs));
            Cell { action, done, note: (done != usual).then_some(done), outcome }
        };
        let cells = cells.into_iter().map(cell).collect();
        Row { backing: title, is_udax: backing == Backing::Udax, buffer, cells }
    }

    /// The actions of each outcome that has to be explained.
    fn explained(&self) -> BTreeMap<(Verdict, &str), Vec<&'static str>> {
        let mut explained: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for Cell { action, outcome, .. } in &self.cells {
            if outcome.verdict != Verdict::Safe {
                let key = (outcome.verdict, outcome.why.as_str());
                explained.entry(key).or_default().push(action.title());
            }
        }
        explained
    }
}

impl Matrix {
    pub(crate) fn new(source: String, rows: Vec<Row>) -> Matrix {
        let mut matrix = Matrix { source, rows, udax_is_safe: None };
        if matrix.of_udax().next().is_some() {
            let is_safe = matrix.of_udax().all(|cell| cell.outcome.verdict == Verdict::Safe);
            matrix.udax_is_safe = Some(is_safe);
        }
        matrix
    }

    /// The cells of udax that are not safe, as an error tells them.
    pub(crate) fn unsafe_of_udax(&self) -> Vec<String> {
        let not_safe = self.of_udax().filter(|cell| cell.outcome.verdict != Verdict::Safe);
        not_safe.map(|cell| format!("{}: {}", cell.action.title(), cell.outcome.why)).collect()
    }

    fn of_udax(&self) -> impl Iterator<Item = &Cell> {
        self.rows.iter().filter(|row| row.is_udax).flat_map(|row| &row.cells)
    }
}

/// The number of a note, which is added if it is not there yet.
fn number<T: PartialEq>(notes: &mut Vec<T>, note: T) -> usize {
    let at = notes.iter().position(|other| *other == note);
    at.unwrap_or_else(|| {
        notes.push(note);
        notes.len() - 1
    }) + 1
}

/// Columns of the first word of a row.
const TITLE: usize = 26;

impl Human for Matrix {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "The pages of a mapped file are registered with io_uring. Somebody else acts"
        )?;
        writeln!(out, "on that file; then the kernel reads another ({}) into them.", self.source)?;
        if let Some(first) = self.rows.first() {
            write!(out, "\n{:TITLE$}", "")?;
            for cell in &first.cells {
                write!(out, "{:<12}", cell.action.title())?;
            }
        }
        let mut notes = Vec::new();
        for row in &self.rows {
            write!(out, "\n{:TITLE$}", row.backing)?;
            for cell in &row.cells {
                let word = cell.outcome.verdict.word();
                let mark = cell.note.map(|note| number(&mut notes, (cell.action, note)));
                let word = mark.map_or(word.to_owned(), |mark| format!("{word} [{mark}]"));
                write!(out, "{word:<12}")?;
            }
        }
        writeln!(out, "\n")?;
        for ((action, note), mark) in notes.iter().zip(1..) {
            writeln!(out, "[{mark}] {}: {note}", action.title())?;
        }
        if !notes.is_empty() {
            writeln!(out)?;
        }
        for (verdict, meaning) in Verdict::ALL {
            writeln!(out, "{:<8} {meaning}", verdict.word())?;
        }
        writeln!(out)?;
        for row in &self.rows {
            for ((verdict, why), actions) in row.explained() {
                let actions = match actions.len() {
                    all if all == row.cells.len() => "every action".to_owned(),
                    _ => actions.join(", "),
                };
                writeln!(out, "{}, {actions}: {}: {why}", row.backing, verdict.word())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(backing: Backing, verdicts: [Verdict; 2]) -> Row {
        let cells = [Action::Truncate, Action::Punch].into_iter().zip(verdicts);
        let outcome = |verdict| Outcome::new(verdict, "what was seen");
        Row::new(backing, "title".to_owned(), 4096, cells.map(|(a, v)| (a, outcome(v))))
    }

    #[test]
    fn udax_is_safe_only_if_each_of_its_cells_is() {
        let lost = [Verdict::Lost, Verdict::Lost];
        for (udax, expected) in [
            ([Verdict::Safe, Verdict::Safe], true),
            ([Verdict::Safe, Verdict::Refused], false),
            ([Verdict::Unavailable, Verdict::Safe], false),
        ] {
            let rows = vec![row(Backing::Tmpfs, lost), row(Backing::Udax, udax)];
            let matrix = Matrix::new(String::new(), rows);
            assert_eq!(matrix.udax_is_safe, Some(expected), "{udax:?}");
            assert_eq!(matrix.unsafe_of_udax().is_empty(), expected);
        }
        let others = Matrix::new(String::new(), vec![row(Backing::Tmpfs, lost)]);
        assert_eq!(others.udax_is_safe, None);
    }

    #[test]
    fn what_is_done_to_udax_is_told_where_it_is_something_else() {
        let all = Action::value_variants();
        let safe = || all.iter().map(|&action| (action, Outcome::new(Verdict::Safe, "seen")));
        let row = |backing, title: &str| Row::new(backing, title.to_owned(), 4096, safe());
        let rows = vec![row(Backing::Tmpfs, "file"), row(Backing::Memfd, "memfd")];
        let rows = rows.into_iter().chain([row(Backing::Udax, "udax")]).collect();
        let matrix = Matrix::new(String::new(), rows);
        let json = serde_json::to_value(&matrix).unwrap();
        let done = |row: usize| json["rows"][row]["cells"][3]["done"].as_str().unwrap().to_owned();
        assert!(done(0).contains("truncated to nothing"), "{json}");
        assert!(done(2).contains("device of the pool is removed"), "{json}");

        let mut text = Vec::new();
        matrix.human(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let line = |start: &str| {
            let line = text.lines().find(|line| line.starts_with(start)).unwrap();
            line.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(line("file"), ["safe", "safe", "safe", "safe", "safe"], "{text}");
        assert_eq!(line("memfd"), ["safe", "safe", "safe", "[1]", "safe", "safe"], "{text}");
        assert_eq!(line("udax"), ["safe", "safe", "safe", "safe", "[2]", "safe", "[3]"], "{text}");
        assert!(text.contains("[2] shrink: the device of the pool is removed"), "{text}");
    }

    #[test]
    fn cells_alike_are_explained_together_and_safe_ones_not_at_all() {
        let show = |verdicts| {
            let mut text = Vec::new();
            let rows = vec![row(Backing::Tmpfs, verdicts)];
            Matrix::new(String::new(), rows).human(&mut text).unwrap();
            String::from_utf8(text).unwrap()
        };
        let explained = show([Verdict::Lost, Verdict::Lost]);
        assert!(explained.ends_with("title, every action: LOST: what was seen\n"), "{explained}");
        let explained = show([Verdict::Safe, Verdict::Killed]);
        assert!(explained.ends_with("\n\ntitle, punch: KILLED: what was seen\n"), "{explained}");
    }
}

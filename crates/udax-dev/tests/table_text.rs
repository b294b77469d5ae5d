//! Tables as text: what is read, and how what is wrong is named.

mod common;

use common::device;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;
use udax_dev::{
    Advice, Cure, DaxDevice, EventSink, Line, Linear, Mapped, Opener, Run, Table, TableText,
    Target, TextError,
};
use udax_mm::recorder::Event;
use udax_mm::sync::{Arc, Mutex};
use udax_mm::{DeviceOff, Order, Pages};

/// Devices by name, and how often each was asked for.
#[derive(Default)]
struct Names {
    devices: BTreeMap<&'static str, Arc<dyn DaxDevice>>,
    asked: BTreeMap<String, usize>,
}

impl Names {
    fn new(devices: &[(&'static str, u64)]) -> Names {
        let devices = devices.iter().map(|(name, pages)| (*name, device(*pages))).collect();
        Names { devices, asked: BTreeMap::new() }
    }
}

impl Opener for Names {
    fn device(&mut self, name: &str) -> Result<Arc<dyn DaxDevice>, Box<dyn Error + Send + Sync>> {
        *self.asked.entry(name.to_owned()).or_default() += 1;
        self.devices.get(name).cloned().ok_or_else(|| "no such device".into())
    }

    fn log(&mut self, name: &str) -> Result<Arc<dyn EventSink>, Box<dyn Error + Send + Sync>> {
        *self.asked.entry(name.to_owned()).or_default() += 1;
        let log: Arc<Mutex<Vec<Event>>> = Arc::default();
        Ok(log)
    }
}

fn open(text: &str, names: &mut Names) -> Result<Table, TextError> {
    TableText::parse(text.as_bytes())?.open(names)
}

/// A text is refused at a place, before any device is opened.
#[track_caller]
fn check_refused(text: &str, place: (usize, usize), message: &str) {
    let error = TableText::parse(text.as_bytes()).expect_err("the text is bad");
    assert_eq!((error.line, error.column), place, "{error}");
    assert_eq!(error.problem.to_string(), message);
    assert_eq!(error.to_string(), format!("line {}, column {}: {message}", place.0, place.1));
}

/// A text is refused at a place once its devices are known.
#[track_caller]
fn check_misfit(text: &str, place: (usize, usize), message: &str) {
    let mut names = Names::new(&[("a", 8), ("b", 8)]);
    let error = open(text, &mut names).expect_err("the devices do not fit");
    assert_eq!((error.line, error.column), place, "{error}");
    assert_eq!(error.problem.to_string(), message);
}

#[test]
fn a_text_is_a_table_in_sectors_or_with_units_with_comments_and_spaces_in_names() {
    let text = "# two halves\n\n0 32 linear a 0   # in sectors\n16KiB\t16K linear my\\ disk\\# 4kib\n\
                64 8 error\n72 8 zero\n80 8 delay b 0 3\n88 64s log-writes c log\n\
                152 16 striped 2 1s d 0 e 8";
    let error = TableText::parse(text.as_bytes()).unwrap_err();
    assert_eq!((error.line, error.column), (9, 18), "a chunk of one sector is no page: {error}");

    let text = text.replace("2 1s", "2 4K");
    let sizes = [("a", 8), ("my disk#", 8), ("b", 8), ("c", 8), ("d", 8), ("e", 8)];
    let mut names = Names::new(&sizes);
    let table = open(&text, &mut names).unwrap();

    let lines: Vec<_> =
        table.lines().iter().map(|line| (line.start.0, line.pages.0, line.target.name())).collect();
    let expected = [
        (0, 4, "linear"),
        (4, 4, "linear"),
        (8, 1, "error"),
        (9, 1, "zero"),
        (10, 1, "delay"),
        (11, 8, "log-writes"),
        (19, 2, "striped"),
    ];
    assert_eq!(lines, expected);
    let members = table.lines()[6].target.members();
    assert_eq!([members[0].from, members[1].from], [DeviceOff(0), DeviceOff(1)]);
    assert_eq!(table.lines()[1].target.members()[0].from, DeviceOff(1));
}

#[test]
fn what_is_named_twice_is_opened_once() {
    let mut names = Names::new(&[("a", 8), ("b", 8), ("c", 8)]);
    let text = "0 8 linear a 0\n8 8 log-writes b log\n16 8 linear a 32\n24 8 log-writes c log";

    open(text, &mut names).unwrap();

    let asked = ["a", "b", "c", "log"].map(|name| (name.to_owned(), 1));
    assert_eq!(names.asked, BTreeMap::from(asked));
}

#[test]
fn what_is_wrong_is_named_with_its_place_and_what_would_be_right() {
    let empty = "a table needs at least one line: `START LENGTH TARGET ARGUMENT...`";
    check_refused("", (1, 1), empty);
    check_refused("# nothing\n\n", (1, 1), empty);
    let missing = "the length is missing; the line would be `START LENGTH TARGET ARGUMENT...`";
    check_refused("0", (1, 2), missing);
    let what = "the target is missing; the line would be `START LENGTH TARGET ARGUMENT...`";
    check_refused("0 8", (1, 4), what);
    let what = "the device is missing; the line would be `START LENGTH linear DEVICE START`";
    check_refused("0 8 linear # a 0", (1, 12), what);
    let what = "\"9\" is one word too many; the line would be `START LENGTH error`";
    check_refused("0 8 error 9", (1, 11), what);
    let what = "there is no target \"lienar\"; there are linear, striped, error, zero, delay and log-writes";
    check_refused("0 8 error\n  8 8 lienar a 0", (2, 7), what);
    let what = "\"eight\" is no length; it would be a number of sectors such as 2048, or 1MiB";
    check_refused("0 eight error", (1, 3), what);
    check_refused("0 8MB error", (1, 3), &what.replace("eight", "8MB"));
    check_refused("0 -8 error", (1, 3), &what.replace("eight", "-8"));
    let what = "length of 6144 bytes is no multiple of 4 KiB (8 sectors); 8 or 16 sectors would be";
    check_refused("0 12 error", (1, 3), what);
    let what = "length of 512 bytes is no multiple of 4 KiB (8 sectors); 8 sectors would be";
    check_refused("0 1 error", (1, 3), what);
    let what = "length reaches beyond 2^63 bytes, and no device is that large";
    check_refused("0 99999999999999999999 error", (1, 3), what);
    check_refused("0 9999999999T error", (1, 3), what);
    let what = "the line has length 0; leave it out, or give it 8 sectors (4 KiB) at least";
    check_refused("0 0 error", (1, 3), what);
    let what = "sectors 8..16 are in no line; start this one at 8";
    check_refused("0 8 error\n16 8 error", (2, 1), what);
    let what = "sectors 0..8 are in the line before already; start this one at 8";
    check_refused("0 8 error\n0 8 error", (2, 1), what);
    let what = "a striped line has 1 to 16 devices, and this one has 17";
    check_refused("0 8 striped 17 8 a 0", (1, 13), what);
    check_refused("0 8 striped 0 8", (1, 13), &what.replace("17", "0"));
    let what = "a chunk has 8 sectors (4 KiB) at least; with 2 MiB huge folios fit";
    check_refused("0 8 striped 1 0 a 0", (1, 15), what);
    let what = "a length of 24 sectors is no multiple of 16 (2 chunks of 8 sectors); 16 would be";
    check_refused("0 24 striped 2 8 a 0 b 0", (1, 3), what);
    let what = "\"soon\" is no number of milliseconds; it would be a number from 0 on";
    check_refused("0 8 delay a 0 soon", (1, 15), what);
    let what = "a delay of 60001 ms would look like a hang; 60000 is the most";
    check_refused("0 8 delay a 0 60001", (1, 15), what);
}

#[test]
fn bytes_that_are_no_text_are_named_with_their_place() {
    let error = TableText::parse(b"0 8 error\n8 8 \xff").unwrap_err();

    assert_eq!((error.line, error.column), (2, 5));
    assert_eq!(error.problem.to_string(), "byte 0xff is no text; a table is a text file");
}

#[test]
fn a_device_that_does_not_fit_is_named_with_its_place() {
    let what = "the line takes sectors 8..72 of a device that has 64; from there on it has 56";
    check_misfit("0 64 linear a 8", (1, 15), what);
    let what = "the line takes sectors 64..72 of a device that has 64; it ends before that, so take \
                it from an earlier sector on";
    check_misfit("0 8 error\n8 16 striped 2 8 a 0 b 64", (2, 24), what);
    let what = "line 1 takes sectors 32..64 of this device already; take others";
    check_misfit("0 64 linear a 0\n64 32 linear a 32", (2, 16), what);
    check_misfit("0 8 linear c 0", (1, 12), "c: no such device");
}

#[test]
fn a_line_that_loses_huge_folios_is_told_with_what_would_help() {
    let sizes = [("a", 4096), ("b", 4096), ("c", 4096), ("d", 4096)];
    let mut names = Names::new(&sizes);
    let text = "0 8MiB linear a 4KiB\n8MiB 8MiB linear b 2MiB\n16MiB 4MiB striped 2 64K c 0 d 0";
    let table = open(text, &mut names).unwrap();

    let from =
        Cure::From { member: 1, from: DeviceOff(1), better: DeviceOff(512), missing: Pages(0) };
    let chunk = Cure::Chunk { chunk: Pages(16), better: Pages(512), length: None };
    let expected = [
        Advice { line: 1, lost: Order::Pmd, cure: from },
        Advice { line: 3, lost: Order::Pmd, cure: chunk },
    ];
    assert_eq!(table.advice(), expected);
    let text: Vec<String> = table.advice().iter().map(ToString::to_string).collect();
    let first = "line 1: no folio of 2 MiB fits, because sector 8 of device 1 lies where it is not \
                 aligned; take the device from sector 4096 on";
    let second = "line 3: no folio of 2 MiB fits, because chunks have 128 sectors; make them 4096";
    assert_eq!(text, [first, second]);
    let largest = [Some(Order::Base), Some(Order::Pmd), Some(Order::Base)];
    assert_eq!(largest_of(&table), largest);

    let better = text_with_advice_taken();
    let table = open(&better, &mut Names::new(&sizes)).unwrap();
    assert!(table.advice().is_empty());
    assert_eq!(largest_of(&table), [Some(Order::Pmd); 3]);
}

/// The largest folio of each line.
fn largest_of(table: &Table) -> Vec<Option<Order>> {
    let of_line = |runs: &Vec<Run>| runs.iter().filter_map(|run| run.largest).max();
    table.layout().iter().map(of_line).collect()
}

/// Segments of a line are told apart, and adjacent ones alike are one.
#[test]
fn a_line_over_several_segments_says_how_each_of_them_lies() {
    let lower = "0 2MiB linear a 0\n2MiB 2MiB linear a 4MiB\n4MiB 2MiB linear b 4KiB";
    let mut names = Names::new(&[("a", 2048), ("b", 1024)]);
    let lower: Arc<dyn DaxDevice> =
        Arc::new(Mapped::new(open(lower, &mut names).unwrap()).unwrap());
    let line = |start, pages, from| Line {
        start: DeviceOff(start),
        pages: Pages(pages),
        target: Target::Linear(Linear::new(Arc::clone(&lower), DeviceOff(from))),
    };
    let table = Table::new(vec![line(0, 1536, 0)]).unwrap();

    let run = |pages, alignment, largest| Run { pages, alignment, largest };
    let (base, huge) = (Some(Order::Base), Some(Order::Pmd));
    // The first is aligned to 1 GiB, as page 0 is to everything.
    let expected = [
        run(DeviceOff(0)..DeviceOff(512), Some(Order::Pud), huge),
        run(DeviceOff(512)..DeviceOff(1024), huge, huge),
        run(DeviceOff(1024)..DeviceOff(1536), base, base),
    ];
    assert_eq!(table.layout(), [expected]);
}

/// A line of few pages has no huge folios, whatever lies below.
#[test]
fn no_folio_is_larger_than_the_line_that_has_it() {
    for lower in ["0 16MiB striped 2 2MiB a 0 b 0", "0 8MiB delay a 0 0", "0 8MiB linear a 0"] {
        let mut names = Names::new(&[("a", 2048), ("b", 2048)]);
        let lower = Mapped::new(open(lower, &mut names).unwrap()).unwrap();
        names.devices.insert("low", Arc::new(lower));

        let few = open("0 8 linear low 0\n8 4088 error", &mut names).unwrap();
        let many = open("0 4MiB linear low 0", &mut names).unwrap();

        assert_eq!(largest_of(&few), [Some(Order::Base), None]);
        assert_eq!(largest_of(&many), [Some(Order::Pmd)]);
    }
}

fn text_with_advice_taken() -> String {
    "0 8MiB linear a 4096\n8MiB 8MiB linear b 2MiB\n16MiB 4MiB striped 2 4096 c 0 d 0".to_owned()
}

#[test]
fn a_delay_is_that_of_the_line() {
    let mut names = Names::new(&[("a", 8)]);
    let mapped = Mapped::new(open("0 64 delay a 0 20", &mut names).unwrap()).unwrap();

    let before = std::time::Instant::now();
    mapped.direct_access(DeviceOff(3), Pages(1)).unwrap();

    assert!(before.elapsed() >= Duration::from_millis(20), "a lower bound, which no load breaks");
}

/// A table of a million lines of garbage is refused at its first bad word.
#[test]
fn a_million_lines_of_garbage_are_refused() {
    let garbage = "0 8 error\n".to_owned() + &"\u{1f4a9} 77 ~~ # % \\ \n".repeat(1_000_000);
    let error = TableText::parse(garbage.as_bytes()).unwrap_err();
    assert_eq!((error.line, error.column), (2, 1));

    let mut lines: Vec<String> = (0..1_000_000).map(|n| format!("{} 8 error", n * 8)).collect();
    assert!(TableText::parse(lines.join("\n").as_bytes()).is_ok());
    lines[999_999] = "7999993 8 error".to_owned();
    let error = TableText::parse(lines.join("\n").as_bytes()).unwrap_err();
    assert_eq!((error.line, error.column), (1_000_000, 1));
}

/// Words that tables are made of, so that random lines come near to good ones.
fn word() -> impl Strategy<Value = String> {
    let known = [
        "0",
        "8",
        "16",
        "64",
        "4KiB",
        "1MiB",
        "2MiB",
        "linear",
        "striped",
        "error",
        "zero",
        "delay",
        "log-writes",
        "a",
        "b",
        "#",
        "\\",
        "18446744073709551615",
        "9223372036854775807",
        "-1",
    ];
    prop_oneof![
        8 => prop::sample::select(known.to_vec()).prop_map(str::to_owned),
        1 => any::<String>(),
        1 => any::<u64>().prop_map(|number| number.to_string()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

    /// Whatever is read, the answer is a table that covers its pages, or an error at a place that
    /// exists.
    #[test]
    fn any_text_is_a_table_or_an_error_at_a_place(
        lines in prop::collection::vec(prop::collection::vec(word(), 0..9), 0..6),
    ) {
        let text: Vec<String> = lines.iter().map(|line| line.join(" ")).collect();
        let text = text.join("\n");
        let mut names = Names::new(&[("a", 8), ("b", 300)]);
        match open(&text, &mut names) {
            Ok(table) => prop_assert!(table.size() > Pages(0)),
            Err(error) => {
                let line = text.lines().nth(error.line - 1).unwrap_or("");
                prop_assert!(error.column <= line.chars().count() + 1, "{error} in {text:?}");
            }
        }
    }

    /// The same for bytes.
    #[test]
    fn any_bytes_are_a_table_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Err(error) = TableText::parse(&bytes) {
            let lines = bytes.split(|byte| *byte == b'\n').count();
            prop_assert!(error.line <= lines && error.column <= bytes.len() + 1, "{error}");
        }
    }
}

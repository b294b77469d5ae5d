//! Long-term pins beside changes of the files that they hold, and sessions after a death with pins.

use super::{append, base, create, truncate, unlink, write};
use crate::workload::{Op, Workload};

/// Pages of a file that lie apart, more than the pin table has places without growing.
const SCATTERED: u64 = 40;

/// All of them.
pub(super) fn all() -> Vec<Workload> {
    let mut all = pins();
    all.extend(growth());
    all.extend(deaths());
    all
}

fn pins() -> Vec<Workload> {
    vec![
        Workload::new(
            "a pin of a device",
            &base(),
            // Open, for the last handle of a file makes durable what was flushed.
            &[
                Op::Open("foo".to_owned()),
                pin("@foo", 0, 3, "nic"),
                truncate("@foo", 100),
                append("A/bar", 9000, 9),
                unpin("nic"),
                append("A/bar", 9000, 8),
            ],
        ),
        Workload::new(
            "a pin of a file that is removed",
            &base(),
            &[
                pin("foo", 1, 3, "nic"),
                unlink("foo"),
                create("new"),
                write("new", 0, 20_000, 9),
                unpin("nic"),
                write("new", 20_000, 20_000, 8),
            ],
        ),
        Workload::new(
            "a pin of holes",
            &base(),
            &[pin("sparse", 0, 7, "nic"), truncate("sparse", 0), unpin("nic")],
        ),
        Workload::new(
            "two pins of one page",
            &base(),
            &[
                pin("foo", 0, 2, "nic"),
                pin("foo", 1, 3, "gpu"),
                unpin("nic"),
                pin("foo", 0, 1, "nic"),
                unpin("gpu"),
                Op::Remount,
                append("foo", 5000, 9),
            ],
        ),
    ]
}

/// A file in pieces takes many records.
fn growth() -> Vec<Workload> {
    let mut setup = vec![create("a"), create("b")];
    for page in 0..SCATTERED {
        let [fill, ..] = page.to_le_bytes();
        setup.extend([append("a", 4096, fill), append("b", 4096, fill)]);
    }
    // What is free holds bytes that are no page of a table.
    setup.extend([create("old"), write("old", 0, 80_000, 0xee), unlink("old")]);
    let ops = [
        Op::Open("a".to_owned()),
        pin("@a", 0, SCATTERED, "nic"),
        unpin("nic"),
        append("b", 9000, 9),
        Op::Remount,
        append("b", 9000, 8),
    ];
    let grown = Workload::new("the pin table grows", &setup, &ops);
    setup.push(pin("a", 0, SCATTERED, "nic"));
    let ops = [unlink("a"), Op::Release, append("b", 30_000, 9), Op::Remount];
    let died = Workload::new("death with a pin table that grew", &setup, &ops);
    vec![grown, died]
}

/// The process before died with pins.
fn deaths() -> Vec<Workload> {
    let mut setup = base();
    setup.extend([pin("foo", 0, 2, "nic"), pin("A/bar", 0, 1, "gpu")]);
    vec![
        Workload::new(
            "death with pins",
            &setup,
            &[
                truncate("foo", 100),
                unlink("A/bar"),
                unlink("twin"),
                create("new"),
                append("new", 20_000, 9),
                Op::Remount,
                Op::Release,
                append("new", 20_000, 8),
            ],
        ),
        Workload::new(
            "a pin of what is in quarantine",
            &setup,
            &[
                pin("foo", 0, 3, "nic"),
                unlink("foo"),
                unpin("nic"),
                append("A/bar", 9000, 9),
                Op::Release,
            ],
        ),
        Workload::new(
            "format over pins",
            &setup,
            &[Op::Format, Op::Remount, create("new"), append("new", 9000, 9)],
        ),
    ]
}

fn pin(path: &str, from: u64, to: u64, name: &str) -> Op {
    Op::Pin { path: path.to_owned(), from, to, name: name.to_owned() }
}

fn unpin(name: &str) -> Op {
    Op::Unpin(name.to_owned())
}

//! Workloads of files that share data: each operation on one of two sharers, and short histories.

use crate::workload::{Op, Workload};
use crate::workloads::{append, base, create, punch, truncate, unlink, write};

/// The history that runs with every build.
pub(crate) const SMOKE: &str = "sharers go one after the other";

/// F-27: whoever flushes by itself needs no call.
pub const SYNC: &str = "stores of a program that flushes by itself";

/// All of them.
pub(crate) fn workloads() -> Vec<Workload> {
    let mut all = clones();
    all.push(synchronous());
    all.extend(changes());
    all.extend(histories());
    all.extend(big());
    all
}

/// A small tree with two files that share their three pages, another one with the same bytes, and an
/// empty one.
fn sharers() -> Vec<Op> {
    let mut ops = base();
    ops.extend([create("copy"), clone("foo", 0, 9000, "copy", 0)]);
    ops.extend([create("same"), write("same", 0, 9000, 1), create("empty")]);
    ops
}

fn each(name: &str, ops: Vec<Op>) -> Vec<Workload> {
    let workload = |op: Op| Workload::new(format!("{name}: {op}"), &sharers(), &[op]);
    ops.into_iter().map(workload).collect()
}

/// Stores through a synchronous mapping to holes, to data, and to what is shared.
fn synchronous() -> Workload {
    let store = |path: &str, at, len, fill| Op::SyncStore { path: path.to_owned(), at, len, fill };
    // Open, for the last handle of a file makes durable what was stored.
    let open = ["sparse", "foo", "same"].map(|path| Op::Open(path.to_owned()));
    let stores = [
        store("@sparse", 100, 50, 9),
        store("@sparse", 8180, 40, 8),
        store("@foo", 4090, 24, 7),
        store("@same", 8, 24, 6),
        append("@sparse", 10, 5),
        store("@sparse", 30_000, 16, 4),
    ];
    let ops: Vec<Op> = open.into_iter().chain(stores).collect();
    Workload::new(SYNC, &sharers(), &ops)
}

/// What may become shared, over what may be there.
fn clones() -> Vec<Workload> {
    let ops = vec![
        clone("foo", 0, 9000, "empty", 0),
        clone("foo", 0, 8192, "empty", 4096),
        clone("foo", 4096, 9000, "A/bar", 0),
        clone("foo", 0, 8192, "sparse", 20_480),
        clone("sparse", 0, 40_960, "foo", 0),
        clone("sparse", 16_384, 24_576, "same", 0),
        // Past the end of a file that shares the page in which it ends.
        clone("foo", 0, 9000, "copy", 20_480),
        clone("copy", 4096, 8192, "foo", 4096),
        clone("copy", 0, 8192, "copy", 12_288),
        Op::Dedupe { source: "foo".to_owned(), path: "same".to_owned() },
        Op::Dedupe { source: "foo".to_owned(), path: "copy".to_owned() },
        Op::Dedupe { source: "foo".to_owned(), path: "sparse".to_owned() },
    ];
    each("clones", ops)
}

/// What moves a file away from shared pages, or gives them up.
fn changes() -> Vec<Workload> {
    let copy = || "copy".to_owned();
    let ops = vec![
        write("copy", 0, 24, 9),
        write("copy", 4090, 20, 9),
        write("copy", 4096, 4096, 9),
        write("foo", 0, 9000, 9),
        write("copy", 8990, 100, 9),
        write("copy", 8192, 8192, 9),
        write("copy", 20_000, 10, 9),
        append("copy", 10, 9),
        append("foo", 5000, 9),
        truncate("copy", 0),
        truncate("copy", 100),
        truncate("foo", 4096),
        truncate("copy", 8999),
        truncate("copy", 9100),
        truncate("foo", 40_000),
        punch("copy", 0, 4096),
        punch("copy", 100, 200),
        punch("foo", 100, 8500),
        punch("copy", 0, 9000),
        Op::Allocate { path: copy(), from: 8192, to: 30_000 },
        Op::Unshare(copy()),
        Op::Freeze(copy()),
        unlink("foo"),
        unlink("copy"),
    ];
    each("shared", ops)
}

/// Short histories that no single operation covers.
fn histories() -> Vec<Workload> {
    let open = || Op::Open("foo".to_owned());
    let close = || Op::Close("foo".to_owned());
    let ops: [(&str, Vec<Op>); 7] = [
        (
            SMOKE,
            vec![
                write("copy", 4090, 20, 9),
                unlink("foo"),
                write("copy", 8, 64, 8),
                unlink("copy"),
                create("new"),
                write("new", 0, 9000, 7),
            ],
        ),
        (
            "a clone of a removed file",
            vec![open(), unlink("foo"), clone("@foo", 0, 9000, "empty", 0), close()],
        ),
        (
            "a clone of what was stored",
            vec![
                open(),
                Op::Store { path: "@foo".to_owned(), at: 4090, len: 12, fill: 9 },
                clone("@foo", 0, 9000, "empty", 0),
            ],
        ),
        (
            "a deduplication of what was stored, that finds nothing",
            vec![
                open(),
                Op::Store { path: "@foo".to_owned(), at: 4090, len: 12, fill: 9 },
                Op::Dedupe { source: "@foo".to_owned(), path: "same".to_owned() },
                Op::Sync("@foo".to_owned()),
            ],
        ),
        (
            "shared by three, and by one",
            vec![
                clone("copy", 0, 8192, "empty", 0),
                write("foo", 0, 16, 9),
                truncate("copy", 5000),
                write("empty", 4096, 16, 8),
            ],
        ),
        (
            "a frozen file and its clone",
            vec![
                Op::Freeze("same".to_owned()),
                clone("same", 0, 9000, "empty", 0),
                write("empty", 100, 16, 9),
                unlink("same"),
                write("empty", 5000, 16, 8),
            ],
        ),
        (
            "shared, alone, and shared again",
            vec![
                Op::Unshare("copy".to_owned()),
                write("copy", 8, 8, 9),
                clone("copy", 0, 9000, "foo", 0),
                Op::Remount,
                append("foo", 10, 7),
            ],
        ),
    ];
    ops.into_iter().map(|(name, ops)| Workload::new(name, &sharers(), &ops)).collect()
}

/// Files with entries of 2 MiB, and a clone of more entries than one step adds.
fn big() -> Vec<Workload> {
    const LEN: u64 = (2 << 20) + 8192;
    let setup =
        [create("big"), write("big", 0, LEN, 1), create("two"), clone("big", 0, LEN, "two", 0)];
    let ops = [
        write("two", 100, 16, 9),
        write("big", (2 << 20) - 8, 16, 9),
        truncate("two", (1 << 20) + 100),
        punch("two", 100, (1 << 20) + 100),
        clone("big", 0, 2 << 20, "two", 4096),
        unlink("big"),
    ];
    let two = |op: Op| Workload::new(format!("2 MiB shared: {op}"), &setup, &[op]);
    let mut all: Vec<Workload> = ops.into_iter().map(two).collect();
    let long = 1030 * 4096;
    let setup = [create("big"), write("big", 0, long, 1), create("two")];
    all.push(Workload::new("a clone in steps", &setup, &[clone("big", 0, long, "two", 4096)]));
    all.into_iter().map(|workload| Workload { pages: 4096, ..workload }).collect()
}

pub(crate) fn clone(source: &str, from: u64, to: u64, path: &str, at: u64) -> Op {
    Op::Clone { source: source.to_owned(), from, to, path: path.to_owned(), at }
}

//! The workloads: each operation alone in many variants, growth, big files, and pairs.
//!
//! The pairs follow ACE's rule (bounded, exhaustive): every ordered pair of a list of operations on
//! a small tree. Most bugs of this kind known from other filesystems need one or two operations.

use crate::probe::FILLER;
use crate::sharing;
use crate::workload::{Op, Workload};
use udax_fs::RenameMode;

pub use crate::sharing::SYNC as SYNCHRONOUS;

mod pins;

/// Pages of a pool that is full.
const FULL_PAGES: u64 = 1536;

/// Pages of the file that fills it, with which and the nodes of whose tree no page is free.
const FILLER_PAGES: u64 = 998;

/// Pages of the pool of [`clones_alone`], and of the file that leaves one of them free.
const ALONE_PAGES: (u64, u64) = (512, 480);

/// All workloads of a full run.
pub fn full() -> Vec<Workload> {
    let mut all = quick();
    all.extend(pairs());
    all
}

/// The workloads of a test that runs with every build: a few histories with most kinds of change.
pub fn smoke() -> Vec<Workload> {
    let names = [
        "unlink of an open file",
        "pages change owner",
        "stores through a pin",
        "a pin of a device",
        sharing::SMOKE,
        sharing::SYNC,
    ];
    let is_wanted = |workload: &Workload| names.contains(&workload.name.as_str());
    let all = sequences().into_iter().chain(pins::all()).chain(sharing::workloads());
    all.filter(is_wanted).chain(clones_alone()).collect()
}

/// The workloads without the pairs.
pub fn quick() -> Vec<Workload> {
    let mut all = singles();
    all.extend(sequences());
    all.extend(past_the_end());
    all.extend(growth());
    all.extend(big());
    all.extend(full_pools());
    all.extend(sharing::workloads());
    all.push(Workload::new("format over a pool", &base(), &[Op::Format, Op::Remount]));
    all.extend(pins::all());
    all
}

/// A small tree: files with and without holes, with two names, in directories, and a link. Free
/// pages hold what a removed file left there.
pub(crate) fn base() -> Vec<Op> {
    vec![
        create("old"),
        write("old", 0, 80_000, 0xee),
        unlink("old"),
        mkdir("A"),
        mkdir("B"),
        create("foo"),
        write("foo", 0, 9000, 1),
        create("A/bar"),
        write("A/bar", 0, 100, 2),
        create("sparse"),
        write("sparse", 20_480, 4096, 3),
        truncate("sparse", 40_960),
        link("A/bar", "twin"),
        symlink("foo", "way"),
    ]
}

/// Each operation alone on the small tree.
fn singles() -> Vec<Workload> {
    let mut ops = names();
    ops.extend(bytes());
    ops.push(Op::Remount);
    ops.into_iter().map(|op| Workload::new(op.to_string(), &base(), &[op])).collect()
}

fn names() -> Vec<Op> {
    vec![
        create("new"),
        create("A/new"),
        mkdir("new"),
        mkdir("A/new"),
        symlink("A/bar", "A/new"),
        symlink(&"long/".repeat(40), "new"),
        link("foo", "A/new"),
        link("A/bar", "B/new"),
        rename("foo", "new"),
        rename("foo", "A/new"),
        rename("foo", "A/bar"),
        rename("foo", "twin"),
        rename("A/bar", "twin"),
        rename("A", "new"),
        rename("A", "B"),
        rename("A", "B/new"),
        rename("A", "A/new"),
        rename("way", "A/bar"),
        with(rename("foo", "A/new"), RenameMode::NoReplace),
        with(rename("foo", "A/bar"), RenameMode::NoReplace),
        with(rename("foo", "A/bar"), RenameMode::Exchange),
        with(rename("foo", "twin"), RenameMode::Exchange),
        with(rename("A", "foo"), RenameMode::Exchange),
        with(rename("A/bar", "B"), RenameMode::Exchange),
        unlink("foo"),
        unlink("A/bar"),
        unlink("way"),
        Op::Rmdir("B".to_owned()),
        Op::Rmdir("A".to_owned()),
        Op::SetAttr { path: "foo".to_owned(), mode: 0o600, uid: 7, mtime: 1_234_567 },
        Op::SetAttr { path: "A".to_owned(), mode: 0o700, uid: 7, mtime: 1_234_567 },
        Op::Freeze("foo".to_owned()),
    ]
}

fn bytes() -> Vec<Op> {
    vec![
        write("foo", 0, 24, 9),
        write("foo", 4090, 20, 9),
        write("foo", 8, 64, 9),
        write("foo", 4096, 4096, 9),
        write("foo", 8990, 100, 9),
        write("foo", 8192, 8192, 9),
        write("foo", 20_000, 10, 9),
        write("sparse", 0, 10, 9),
        write("sparse", 20_470, 30, 9),
        write("sparse", 24_570, 30, 9),
        write("sparse", 16_384, 16_384, 9),
        append("foo", 10, 9),
        append("foo", 5000, 9),
        append("A/bar", 1, 9),
        truncate("foo", 0),
        truncate("foo", 100),
        truncate("foo", 4096),
        truncate("foo", 8999),
        truncate("foo", 9100),
        truncate("foo", 40_000),
        truncate("sparse", 22_000),
        truncate("sparse", 10_000),
        punch("foo", 0, 4096),
        punch("foo", 100, 200),
        punch("foo", 100, 8500),
        punch("foo", 0, 9000),
        punch("sparse", 20_000, 30_000),
        Op::Allocate { path: "sparse".to_owned(), from: 0, to: 8192 },
        Op::Allocate { path: "foo".to_owned(), from: 8192, to: 30_000 },
        Op::Sync("foo".to_owned()),
    ]
}

/// Short histories that no pair of the list covers.
fn sequences() -> Vec<Workload> {
    let open = || "foo".to_owned();
    let mut all = vec![
        Workload::new(
            "unlink of an open file",
            &base(),
            &[
                Op::Open(open()),
                unlink("foo"),
                append("@foo", 5000, 9),
                create("foo"),
                truncate("@foo", 10),
                Op::Close(open()),
            ],
        ),
        Workload::new(
            "replace an open file",
            &base(),
            &[
                Op::Open(open()),
                rename("sparse", "foo"),
                write("@foo", 0, 16, 9),
                Op::Close(open()),
            ],
        ),
        Workload::new(
            "pages change owner",
            &base(),
            &[
                truncate("foo", 0),
                append("A/bar", 9000, 9),
                unlink("sparse"),
                create("new"),
                write("new", 0, 9000, 8),
                mkdir("dir"),
                create("dir/file"),
            ],
        ),
        Workload::new(
            "frozen",
            &base(),
            &[Op::Freeze(open()), write("foo", 0, 8, 9), rename("foo", "A/bar"), unlink("A/bar")],
        ),
        Workload::new(
            "remount between changes",
            &base(),
            &[create("new"), Op::Remount, append("new", 100, 9), Op::Remount, unlink("new")],
        ),
    ];
    all.extend(stores_and_sizes());
    all
}

/// Short histories of stores beside changes of the size.
fn stores_and_sizes() -> Vec<Workload> {
    let open = || "foo".to_owned();
    vec![
        Workload::new(
            "stores through a pin",
            &base(),
            &[
                Op::Store { path: "foo".to_owned(), at: 4090, len: 12, fill: 9 },
                Op::Sync("foo".to_owned()),
                append("foo", 100, 9),
                Op::Store { path: "foo".to_owned(), at: 8, len: 8, fill: 8 },
                Op::Sync("foo".to_owned()),
            ],
        ),
        Workload::new(
            "an open file",
            &base(),
            &[
                Op::Open(open()),
                write("@foo", 0, 24, 9),
                Op::Store { path: "@foo".to_owned(), at: 4090, len: 12, fill: 9 },
                Op::Sync("@foo".to_owned()),
                punch("@foo", 100, 200),
                append("@foo", 10, 7),
            ],
        ),
        Workload::new(
            "stores to a hole",
            &base(),
            &[
                Op::Open("sparse".to_owned()),
                Op::Store { path: "@sparse".to_owned(), at: 9000, len: 16, fill: 9 },
                Op::Sync("@sparse".to_owned()),
            ],
        ),
        Workload::new(
            "freezing what was stored",
            &base(),
            &[
                Op::Open(open()),
                Op::Store { path: "@foo".to_owned(), at: 4090, len: 12, fill: 9 },
                Op::Freeze("@foo".to_owned()),
            ],
        ),
        Workload::new(
            "shrink and grow",
            &base(),
            &[truncate("foo", 100), truncate("foo", 9000), append("foo", 8, 9)],
        ),
    ]
}

/// Files with other bytes than zeros past their end, which must not show when they grow.
fn past_the_end() -> Vec<Workload> {
    let mut setup = base();
    setup.push(Op::Store { path: "foo".to_owned(), at: 9000, len: 300, fill: 5 });
    let ops = [
        truncate("foo", 9100),
        truncate("foo", 40_000),
        truncate("foo", 8000),
        append("foo", 10, 9),
        write("foo", 9050, 10, 9),
        write("foo", 20_000, 10, 9),
        Op::Allocate { path: "foo".to_owned(), from: 8192, to: 30_000 },
        Op::Freeze("foo".to_owned()),
        // With the page in which it ends, and behind it.
        sharing::clone("foo", 0, 9000, "A/bar", 0),
        sharing::clone("sparse", 16_384, 24_576, "foo", 12_288),
    ];
    let name = |op: &Op| format!("bytes past the end: {op}");
    let mut all: Vec<Workload> =
        ops.into_iter().map(|op| Workload::new(name(&op), &setup, &[op])).collect();
    all.extend(clones_alone());
    all
}

/// Clones before whose commit no fence comes but the one for the zeros: the source says already that
/// it may share, the tree gets no node, and what was committed before is at home. A symbolic link
/// that was refused halfway has made that so: for its page, the one that is free, and not for the
/// page of its directory.
fn clones_alone() -> Vec<Workload> {
    let store = |path: &str, at| Op::Store { path: path.to_owned(), at, len: 300, fill: 5 };
    let mut setup = base();
    setup.extend([
        create("other"),
        sharing::clone("sparse", 16_384, 24_576, "other", 0),
        create("copy"),
        sharing::clone("A/bar", 0, 100, "copy", 0),
        Op::Unshare("A/bar".to_owned()),
        create("empty"),
        create(FILLER),
        Op::Allocate { path: FILLER.to_owned(), from: 0, to: ALONE_PAGES.1 * 4096 },
        store("foo", 9000),
        store("A/bar", 100),
    ]);
    let clones = [
        sharing::clone("sparse", 16_384, 24_576, "foo", 12_288),
        sharing::clone("A/bar", 0, 100, "empty", 0),
    ];
    let workload = |op: Op| {
        let name = format!("bytes past the end, alone: {op}");
        let ops = [Op::Full(Box::new(symlink("foo", "B/new"))), op];
        Workload { pages: ALONE_PAGES.0, ..Workload::new(name, &setup, &ops) }
    };
    clones.into_iter().map(workload).collect()
}

/// Directories and the inode table getting longer.
fn growth() -> Vec<Workload> {
    let file = |number: u64| create(&format!("file{number}"));
    let long = |number: u64| create(&format!("{number}{}", "x".repeat(240)));
    let few: Vec<Op> = (0..56).map(file).collect();
    let more: Vec<Op> = (56..68).map(file).collect();
    let many: Vec<Op> = (0..14).map(long).collect();
    vec![
        Workload::new("a directory and the inode table grow", &few, &more),
        Workload::new("long names", &[], &many),
        Workload::new(
            "a hole in a directory is filled",
            &few,
            &[unlink("file3"), long(1), file(99)],
        ),
    ]
}

/// A pool without the page for the node that splits a 2 MiB entry: what needs it is refused, and
/// leaves bytes that were stored before it as they are, to be made durable later.
fn full_pools() -> Vec<Workload> {
    let mut setup = vec![create("big"), write("big", 0, (2 << 20) + 8192, 1), create(FILLER)];
    setup.push(Op::Allocate { path: FILLER.to_owned(), from: 0, to: FILLER_PAGES * 4096 });
    let open = || "@big".to_owned();
    let refused = [punch(&open(), 100, (2 << 20) + 4096), truncate(&open(), 12_388)];
    let workload = |op: Op| {
        // To the page behind the 2 MiB, all of whose entry the refused operation breaks.
        let store = Op::Store { path: open(), at: (2 << 20) + 100, len: 12, fill: 9 };
        let name = format!("full pool: {op}");
        let ops = [Op::Open("big".to_owned()), store, Op::Full(Box::new(op)), Op::Sync(open())];
        Workload { pages: FULL_PAGES, ..Workload::new(name, &setup, &ops) }
    };
    refused.into_iter().map(workload).collect()
}

/// Files with 2 MiB entries.
fn big() -> Vec<Workload> {
    let setup = [create("big"), write("big", 0, (2 << 20) + 8192, 1)];
    let ops = [
        truncate("big", (1 << 20) + 100),
        truncate("big", 0),
        truncate("big", 2 << 20),
        punch("big", 8192, 12_288),
        punch("big", 100, (2 << 20) + 100),
        write("big", 100, 16, 9),
        append("big", 10_000, 9),
        unlink("big"),
    ];
    let mut all: Vec<Workload> =
        ops.into_iter().map(|op| Workload::new(format!("2 MiB: {op}"), &setup, &[op])).collect();
    let ops = [create("big"), write("big", 0, 2 << 20, 1), write("big", 4096, 8, 2)];
    all.push(Workload::new("2 MiB: written at once", &[], &ops));
    all.into_iter().map(|workload| Workload { pages: 4096, ..workload }).collect()
}

/// Every ordered pair of a list of operations; the images of the second are enumerated, those of
/// the first are those of a single operation.
fn pairs() -> Vec<Workload> {
    let mut all = Vec::new();
    for first in &paired() {
        for second in &paired() {
            let ops = [first.clone(), second.clone()];
            let workload = Workload::new(format!("{first}; {second}"), &base(), &ops);
            all.push(Workload { from: 1, ..workload });
        }
    }
    all
}

fn paired() -> Vec<Op> {
    vec![
        create("new"),
        create("A/new"),
        mkdir("new"),
        symlink("foo", "new"),
        link("foo", "new"),
        link("foo", "A/new"),
        rename("foo", "new"),
        rename("foo", "A/bar"),
        rename("A", "B"),
        rename("new", "foo"),
        with(rename("foo", "A/bar"), RenameMode::Exchange),
        unlink("foo"),
        unlink("A/bar"),
        unlink("new"),
        Op::Rmdir("B".to_owned()),
        write("foo", 4090, 20, 9),
        write("sparse", 12_288, 100, 9),
        append("foo", 5000, 9),
        truncate("foo", 100),
        truncate("foo", 20_000),
        punch("foo", 100, 8500),
        Op::SetAttr { path: "foo".to_owned(), mode: 0o600, uid: 7, mtime: 1_234_567 },
        Op::Freeze("foo".to_owned()),
        Op::Remount,
    ]
}

pub(crate) fn create(path: &str) -> Op {
    Op::Create(path.to_owned())
}

fn mkdir(path: &str) -> Op {
    Op::Mkdir(path.to_owned())
}

fn symlink(target: &str, path: &str) -> Op {
    Op::Symlink { target: target.to_owned(), path: path.to_owned() }
}

fn link(from: &str, to: &str) -> Op {
    Op::Link { from: from.to_owned(), to: to.to_owned() }
}

fn rename(from: &str, to: &str) -> Op {
    Op::Rename { from: from.to_owned(), to: to.to_owned(), mode: RenameMode::Replace }
}

fn with(op: Op, mode: RenameMode) -> Op {
    match op {
        Op::Rename { from, to, .. } => Op::Rename { from, to, mode },
        other => other,
    }
}

pub(crate) fn unlink(path: &str) -> Op {
    Op::Unlink(path.to_owned())
}

pub(crate) fn write(path: &str, at: u64, len: u64, fill: u8) -> Op {
    Op::Write { path: path.to_owned(), at, len, fill }
}

pub(crate) fn append(path: &str, len: u64, fill: u8) -> Op {
    Op::Append { path: path.to_owned(), len, fill }
}

pub(crate) fn truncate(path: &str, size: u64) -> Op {
    Op::Truncate { path: path.to_owned(), size }
}

pub(crate) fn punch(path: &str, from: u64, to: u64) -> Op {
    Op::Punch { path: path.to_owned(), from, to }
}

//! Random workloads: longer histories than the pairs, each from one seed.
//!
//! Bugs of this kind that need several operations were found in other filesystems by random
//! histories only. A failing seed is kept as a workload.

use crate::rng::Rng;
use crate::workload::{Op, Workload};
use udax_fs::RenameMode;

/// Operations in a random workload.
const LENGTH: usize = 12;

/// Names that meet often enough for replaced, linked and removed files.
const PATHS: [&str; 10] = ["a", "b", "c", "D", "E", "D/a", "D/b", "E/a", "D/F", "D/F/a"];

/// Sizes and offsets at which something changes: pages, units, ends.
const OFFSETS: [u64; 10] = [0, 1, 8, 100, 4088, 4096, 5000, 8192, 12_000, 20_480];

/// The random workload of `seed`, on an empty pool.
pub fn random(seed: u64) -> Workload {
    let mut rng = Rng::new(seed);
    let ops: Vec<Op> = (0..LENGTH).map(|_| operation(&mut rng)).collect();
    let setup = [Op::Mkdir("D".to_owned()), Op::Create("a".to_owned()), fill("a")];
    Workload::new(format!("random {seed}"), &setup, &ops)
}

fn operation(rng: &mut Rng) -> Op {
    let path = name(rng);
    let (from, len) = (*pick(rng, &OFFSETS), *pick(rng, &OFFSETS) + 1);
    let [fill, ..] = rng.next_u64().to_le_bytes();
    match rng.below(24) {
        0..=2 => Op::Create(path),
        3 | 4 => Op::Mkdir(path),
        5 => Op::Symlink { target: "a".to_owned(), path },
        6..=8 => Op::Write { path, at: from, len, fill },
        9 | 10 => Op::Append { path, len, fill },
        11 => Op::Truncate { path, size: from },
        12 => Op::Punch { path, from, to: from + len },
        13 => Op::Allocate { path, from, to: from + len },
        14 => Op::Link { from: path, to: name(rng) },
        15 | 16 => {
            let modes = [RenameMode::Replace, RenameMode::NoReplace, RenameMode::Exchange];
            Op::Rename { from: path, to: name(rng), mode: *pick(rng, &modes) }
        }
        17 => Op::Unlink(path),
        18 => Op::Rmdir(path),
        // Refused unless the source reaches that far.
        19 | 20 => {
            let (from, at) = (from / 4096 * 4096, *pick(rng, &OFFSETS) / 4096 * 4096);
            let to = from + *pick(rng, &[4096, 6000, 8192]);
            Op::Clone { source: name(rng), from, to, path, at }
        }
        21 => Op::Clone { source: "a".to_owned(), from: 0, to: 4096, path, at: 0 },
        22 => Op::Dedupe { source: name(rng), path },
        _ => Op::SetAttr { path, mode: 0o640, uid: 3, mtime: 5 },
    }
}

fn fill(path: &str) -> Op {
    Op::Write { path: path.to_owned(), at: 0, len: 6000, fill: 1 }
}

fn name(rng: &mut Rng) -> String {
    (*pick(rng, &PATHS)).to_owned()
}

fn pick<'a, T>(rng: &mut Rng, items: &'a [T]) -> &'a T {
    &items[rng.below(items.len())]
}

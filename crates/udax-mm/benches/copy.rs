//! Copies through a file medium, beside the same copies in plain memory.
//!
//! The medium is a memfd whose pages are there, so that the difference is what safety costs: the
//! checks, the guard, and copies in whole words. First a table of ratios, measured in turns; then
//! the small sizes one by one.

use std::time::{Duration, Instant};

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use udax_mm::Media;
use udax_mm::media::FileMedia;

/// The sizes of the table.
const TABLE: [usize; 7] = [4 << 10, 16 << 10, 64 << 10, 1 << 20, 4 << 20, 16 << 20, 256 << 20];

/// Bytes that a round of the table moves, at least.
const ROUND: usize = 16 << 20;

/// Rounds of the table; each measures the medium and plain memory once.
const ROUNDS: usize = 21;

/// The sizes measured one by one.
const SIZES: [usize; 5] = [8, 64, 256, 4096, 1 << 20];

const PAGE: usize = 4096;

fn main() {
    // Without this argument it is a test run, which asks only whether the benchmark works.
    if std::env::args().any(|argument| argument == "--bench") {
        print_table();
    }
    divan::main();
}

/// Prints how long copies through the medium take, relative to plain memory.
fn print_table() {
    let largest = TABLE.into_iter().max().expect("the table has rows");
    let medium = medium(largest);
    let (mut one, mut other) = (Plain::new(largest), Plain::new(largest));
    println!("time of the medium / time of plain memory, fastest of {ROUNDS} rounds (median):");
    println!("{:>12} {:>16} {:>16} {:>16}", "bytes", "read", "write", "zero");
    for size in TABLE {
        let (plain, buffer) = (&mut one.bytes()[..size], &mut other.bytes()[..size]);
        let len = u64::try_from(size).expect("usize has at most 64 bits");
        let read = ratio(
            size,
            plain,
            buffer,
            |_, buffer| medium.read(black_box(0), buffer).expect("the medium has the bytes"),
            |plain, buffer| buffer.copy_from_slice(plain),
        );
        let write = ratio(
            size,
            plain,
            buffer,
            |_, buffer| medium.write(black_box(0), buffer).expect("the medium has the bytes"),
            |plain, buffer| plain.copy_from_slice(buffer),
        );
        let zero = ratio(
            size,
            plain,
            buffer,
            |_, _| medium.zero(black_box(0), len).expect("the medium has the bytes"),
            |plain, _| plain.fill(0),
        );
        println!("{size:>12} {read:>16} {write:>16} {zero:>16}");
    }
}

/// Measures two ways to do the same in turns, and says the ratio of their times.
fn ratio(
    size: usize,
    plain: &mut [u8],
    buffer: &mut [u8],
    through_medium: impl Fn(&mut [u8], &mut [u8]),
    in_memory: impl Fn(&mut [u8], &mut [u8]),
) -> String {
    let mut times = [Vec::new(), Vec::new()];
    let mut round = |ways: &mut Vec<Duration>, copy: &dyn Fn(&mut [u8], &mut [u8])| {
        let start = Instant::now();
        for _ in 0..ROUND.div_ceil(size) {
            copy(black_box(&mut *plain), black_box(&mut *buffer));
        }
        ways.push(start.elapsed());
    };
    for _ in 0..ROUNDS {
        round(&mut times[0], &through_medium);
        round(&mut times[1], &in_memory);
    }
    for ways in &mut times {
        ways.sort();
    }
    let of = |rank: usize| times[0][rank].as_secs_f64() / times[1][rank].as_secs_f64();
    format!("{:.2} ({:.2})", of(0), of(ROUNDS / 2))
}

/// Plain memory that starts at a page, as a medium does, and whose pages are there.
struct Plain {
    memory: Vec<u8>,
    first: usize,
    len: usize,
}

impl Plain {
    fn new(len: usize) -> Plain {
        let memory = vec![1; len + PAGE];
        let first = memory.as_ptr().align_offset(PAGE);
        Plain { memory, first, len }
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.first..self.first + self.len]
    }
}

fn medium(len: usize) -> FileMedia {
    let size = u64::try_from(len).expect("usize has at most 64 bits");
    let media = FileMedia::memfd("bench", size).expect("the host gives the memory");
    media.write(0, &vec![1; len]).expect("the medium is that long");
    media
}

#[divan::bench(args = SIZES)]
fn read(bencher: Bencher<'_, '_>, size: usize) {
    let media = medium(1 << 20);
    let mut into = vec![0; size];
    bencher
        .counter(BytesCount::new(size))
        .bench_local(|| media.read(black_box(0), black_box(&mut into)));
}

#[divan::bench(args = SIZES)]
fn write(bencher: Bencher<'_, '_>, size: usize) {
    let media = medium(1 << 20);
    let bytes = vec![2; size];
    bencher.counter(BytesCount::new(size)).bench_local(|| media.write(black_box(0), &bytes));
}

#[divan::bench(args = SIZES)]
fn zero(bencher: Bencher<'_, '_>, size: usize) {
    let media = medium(1 << 20);
    let len = u64::try_from(size).expect("usize has at most 64 bits");
    bencher.counter(BytesCount::new(size)).bench_local(|| media.zero(black_box(0), len));
}

#[divan::bench(args = SIZES)]
fn memcpy(bencher: Bencher<'_, '_>, size: usize) {
    let bytes = vec![2_u8; size];
    let mut into = vec![0_u8; size];
    bencher
        .counter(BytesCount::new(size))
        .bench_local(|| black_box(&mut into).copy_from_slice(black_box(&bytes)));
}

#[divan::bench(args = SIZES)]
fn memset(bencher: Bencher<'_, '_>, size: usize) {
    let mut into = vec![0_u8; size];
    bencher.counter(BytesCount::new(size)).bench_local(|| black_box(&mut into).fill(0));
}

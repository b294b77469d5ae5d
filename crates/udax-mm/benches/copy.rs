//! Copies through a file medium, beside the same copies in plain memory.
//!
//! The medium is a memfd whose pages are there, so that the difference is what safety costs: the
//! checks, the call, and copies in whole words.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use udax_mm::Media;
use udax_mm::media::FileMedia;

const SIZES: [usize; 5] = [8, 64, 256, 4096, 1 << 20];

fn main() {
    divan::main();
}

fn medium() -> FileMedia {
    let media = FileMedia::memfd("bench", 1 << 20).expect("the host gives a megabyte");
    media.write(0, &vec![1; 1 << 20]).expect("the medium has a megabyte");
    media
}

#[divan::bench(args = SIZES)]
fn read(bencher: Bencher<'_, '_>, size: usize) {
    let media = medium();
    let mut into = vec![0; size];
    bencher
        .counter(BytesCount::new(size))
        .bench_local(|| media.read(black_box(0), black_box(&mut into)));
}

#[divan::bench(args = SIZES)]
fn write(bencher: Bencher<'_, '_>, size: usize) {
    let media = medium();
    let bytes = vec![2; size];
    bencher.counter(BytesCount::new(size)).bench_local(|| media.write(black_box(0), &bytes));
}

#[divan::bench(args = SIZES)]
fn zero(bencher: Bencher<'_, '_>, size: usize) {
    let media = medium();
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

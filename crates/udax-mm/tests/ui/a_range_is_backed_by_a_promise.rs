//! Whoever says which file a range maps promises that nobody stores to frozen pages.

fn backed(range: udax_mm::media::RangeMedia, file: std::fs::File) {
    let _ = range.backed_by(file, 0);
}

fn main() {}

//! Truncates a mapped file of 1 GiB, to count the instructions of udax alone:
//!
//! ```sh
//! cargo build --release -p udax --example truncate_cost
//! valgrind --tool=callgrind --toggle-collect='*truncate_now*' \\
//!     target/release/examples/truncate_cost 2m
//! ```
//!
//! `2m` and `4k` say by which pages the file is mapped, `none` maps nothing.

use udax::{Access, File, MapOptions, Pool, Populate};

const GIB: u64 = 1 << 30;
const PAGE: u64 = 4096;

fn main() -> udax::Result<()> {
    let size = std::env::args().nth(1).unwrap_or_else(|| "2m".into());
    let pool = Pool::create_in_memory("truncate", GIB + (GIB >> 2))?;
    let file = pool.create_file("/file")?;
    file.allocate(0..GIB)?;
    let options = MapOptions::new().access(Access::Write).populate(Populate::Eager);
    // A mapping that begins at page 1 is not congruent to any 2 MiB of the file.
    let range = if size == "4k" { PAGE..GIB } else { 0..GIB };
    let map = if size == "none" { None } else { Some(file.map(range, &options)?) };
    truncate_now(&file)?;
    if let Some(map) = map {
        println!("{:?}", map.stats());
    }
    Ok(())
}

#[inline(never)]
fn truncate_now(file: &File) -> udax::Result<()> {
    file.set_len(0)
}

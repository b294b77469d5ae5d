//! Reads a file of the host into a udax file without the processor touching a byte: its pinned pages
//! are fixed buffers of `io_uring`.
//!
//!     cargo run -p udax-uring --example read_into_file -- README.md

use std::fs::File;

use udax::{PinKind, PinOptions, Pool};
use udax_uring::Ring;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let path = std::env::args_os().nth(1).ok_or("which file? read_into_file FILE")?;
    let source = File::open(&path)?;
    let len = source.metadata()?.len();

    let pool = Pool::create_in_memory("example", (4 * len).max(8 << 20))?;
    let file = pool.create_file("/copy")?;
    file.set_len(len)?;
    let options = PinOptions::new("read_into_file").kind(PinKind::Write).registrable();
    let mut buffers = Ring::new(8)?.register(vec![file.pin(0..len, &options)?])?;

    buffers.read_fixed(&source, 0, 0, 0..len)?;
    // The file may go at any time: its pages stay with the pin.
    drop(file);
    pool.remove_file("/copy")?;
    let done = buffers.wait()?.ok_or("nothing was under way")?;
    println!("the kernel read {} bytes into pages that belong to no file", done.result?);
    println!("in limbo: {} pages", pool.usage().limbo);

    let pins = buffers.unregister()?;
    let mut bytes = vec![0; usize::try_from(len)?];
    pins[0].read(&mut bytes, 0)?;
    println!("they are the bytes of {}: {}", path.display(), bytes == std::fs::read(&path)?);
    drop(pins);
    println!("in limbo after the unpin: {} pages", pool.usage().limbo);
    Ok(())
}

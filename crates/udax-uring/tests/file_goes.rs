//! The kernel reads a file of the disk into pinned pages while their udax files are truncated,
//! punched and unlinked, and the pool fills with other files: the bytes land in the pinned pages and
//! nowhere else, and the blocks return when the kernel and the pin let go.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

mod common;

use std::thread;

use common::{PAGE, Source, bytes_of, fill, pattern, pinned, pool, ring};
use udax::{Pin, Pool};
use udax_mm::sync::atomic::{AtomicBool, Ordering};
use udax_uring::Registered;

const LEN: u64 = 1 << 20;
const FILES: [&str; 3] = ["/truncated", "/punched", "/unlinked"];

/// A pool that is full of other files, and buffers whose files are gone.
struct After {
    pool: Pool,
    buffers: Registered<Pin>,
    fillers: u64,
}

/// Reads from the disk into pinned pages, again and again, while their files go and others take
/// every block that is free. None where `io_uring` is not permitted.
fn read_while_the_files_go() -> Option<After> {
    let ring = ring(16)?;
    let pool = pool(16);
    let pins = FILES.iter().map(|path| pinned(&pool, path, LEN)).collect();
    let sources: Vec<Source> = (0..3).map(|seed| Source::new(&pattern(seed, LEN))).collect();
    let mut buffers = ring.register(pins).unwrap();

    let is_done = AtomicBool::new(false);
    let fillers = thread::scope(|scope| {
        begin(&mut buffers, &sources);
        let other = scope.spawn(|| {
            take_away(&pool);
            let fillers = fill(&pool, 100, 16 * PAGE);
            is_done.store(true, Ordering::Release);
            fillers
        });
        while !is_done.load(Ordering::Acquire) {
            finish(&mut buffers);
            begin(&mut buffers, &sources);
        }
        other.join().unwrap()
    });
    finish(&mut buffers);
    // One more time, after every file is gone and every free block taken.
    begin(&mut buffers, &sources);
    finish(&mut buffers);
    Some(After { pool, buffers, fillers })
}

/// Begins one read into each buffer.
fn begin(buffers: &mut Registered<Pin>, sources: &[Source]) {
    for (buffer, source) in sources.iter().enumerate() {
        buffers.read_fixed(&source.file, 0, buffer, 0..LEN).unwrap();
    }
}

/// Waits for the read into each buffer.
fn finish(buffers: &mut Registered<Pin>) {
    while let Some(done) = buffers.wait().unwrap() {
        assert_eq!(done.result.unwrap(), LEN);
    }
}

/// Takes the pinned bytes from each of the files.
fn take_away(pool: &Pool) {
    let [truncated, punched, unlinked] = FILES;
    let open = |path| udax::OpenOptions::new().read(true).write(true).open(pool, path).unwrap();
    open(truncated).set_len(0).unwrap();
    open(punched).punch_hole(0..LEN).unwrap();
    pool.remove_file(unlinked).unwrap();
}

#[test]
fn the_bytes_land_in_the_pinned_pages() {
    let Some(after) = read_while_the_files_go() else { return };
    for (pin, seed) in after.buffers.buffers().iter().zip(0..) {
        assert!(bytes_of(pin) == pattern(seed, LEN), "{}", FILES[usize::try_from(seed).unwrap()]);
    }
}

#[test]
fn no_byte_lands_in_a_file_that_took_the_free_blocks() {
    let Some(after) = read_while_the_files_go() else { return };
    assert!(after.fillers > 100, "{} files filled the pool", after.fillers);
    for number in 0..after.fillers {
        let bytes = after.pool.read(format!("/filler {number}")).unwrap();
        assert!(bytes == pattern(100 + number, 16 * PAGE), "filler {number} was overwritten");
    }
}

#[test]
fn no_byte_lands_in_the_files_that_gave_the_pages_up() {
    let Some(after) = read_while_the_files_go() else { return };
    assert_eq!(after.pool.metadata(FILES[0]).unwrap().len(), 0);
    assert!(after.pool.read(FILES[1]).unwrap().iter().all(|&byte| byte == 0));
    assert!(!after.pool.exists(FILES[2]).unwrap());
}

#[test]
fn the_blocks_stay_in_limbo_while_the_kernel_knows_them() {
    let Some(after) = read_while_the_files_go() else { return };
    assert_eq!(after.pool.usage().limbo.bytes(), 3 * LEN);
    let pins = after.buffers.unregister().unwrap();
    assert_eq!(after.pool.usage().limbo.bytes(), 3 * LEN, "the pins hold them");
    drop(pins);
    assert!(after.pool.usage().limbo.is_empty());
}

#[test]
fn the_blocks_return_when_the_buffers_are_dropped() {
    let Some(after) = read_while_the_files_go() else { return };
    let before = after.pool.usage();
    drop(after.buffers);
    let usage = after.pool.usage();
    assert!(usage.limbo.is_empty());
    assert_eq!(usage.free.bytes(), before.free.bytes() + 3 * LEN);
    after.pool.verify().unwrap();
}

//! How many instructions a page costs, for `valgrind --tool=callgrind`:
//!
//! ```text
//! cargo build --release -p udax-mm --example instructions
//! valgrind --tool=callgrind --collect-atstart=no --toggle-collect='instructions::measured*' \
//!     target/release/examples/instructions put 8192
//! ```
//!
//! Run it for N and for 2 N pages: the difference divided by N is what one page costs. The medium
//! has no bytes, because valgrind does not run what asks the host for the size of its pages.

#[path = "../tests/support/mod.rs"]
mod support;

use std::env;
use std::hint::black_box;
use support::Counter;
use udax_mm::sync::Arc;
use udax_mm::{FolioSpan, MediaRange, MemoryType, Order, Pages, Pgmap, PgmapOff, PgmapRef};

const USAGE: &str = "instructions put|put-shared|acquire|acquire-counted|clone|claim|retire PAGES";

/// What is counted.
#[inline(never)]
fn measured<T>(operation: impl FnOnce() -> T) -> T {
    black_box(operation())
}

fn acquire(pgmap: &PgmapRef, pages: u64) -> FolioSpan {
    pgmap.acquire_folios(PgmapOff(0), Order::Base, pages).expect("nobody claims them")
}

fn main() {
    let arguments: Vec<_> = env::args().collect();
    let [_, operation, pages] = &arguments[..] else { panic!("{USAGE}") };
    let pages: u64 = pages.parse().expect(USAGE);
    let media = Arc::new(Counter::default());
    let range = MediaRange { media, start: 0, pages: Pages(pages + 512) };
    let owner = Pgmap::new(vec![range], MemoryType::FsDax).expect("the range is good");
    let pgmap = owner.try_get_live().expect("nobody killed it");
    let claim = || {
        // Claimed page by page: the claim of a block that is idle as a whole is one step.
        let claim = |page| pgmap.claim(PgmapOff(page).span(Pages(511))).expect("idle");
        (0..pages).step_by(512).map(|block| claim(block + 1)).collect::<Vec<_>>()
    };
    match operation.as_str() {
        "put" => {
            let span = acquire(&pgmap, pages);
            measured(|| drop(span));
        }
        "put-shared" => {
            let span = acquire(&pgmap, pages);
            let _other = span.clone();
            measured(|| drop(span));
        }
        "acquire" => drop(measured(|| acquire(&pgmap, pages))),
        "acquire-counted" => {
            let _held = acquire(&pgmap, pages);
            drop(measured(|| acquire(&pgmap, pages)));
        }
        "clone" => {
            let held = acquire(&pgmap, pages);
            drop(measured(|| held.clone()));
        }
        "claim" => drop(measured(claim)),
        "retire" => {
            let claimed = claim();
            measured(|| drop(claimed));
        }
        _ => panic!("{USAGE}"),
    }
}

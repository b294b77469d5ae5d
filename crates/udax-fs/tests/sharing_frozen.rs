//! Frozen files that share data, and whose bytes are borrowed.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::{
    KIB, MIB, Pool, clone_of, contents, create, file_of, over, pattern, pin_info, shared_pages,
    unlink,
};
use udax_mm::{Pages, PinKind, Wait};

const PAGE: u64 = 4 * KIB;

#[test]
fn a_frozen_file_is_cloned_while_its_bytes_are_borrowed() {
    let pool = Pool::new(8 * MIB);
    let fs = pool.mount();
    let bytes = pattern(1, 9 * PAGE + 123);
    let file = file_of(&fs, "a", &bytes);
    file.freeze(Wait::Never).unwrap();
    let borrowed = file.frozen_bytes(&pin_info("reader", PinKind::Read)).unwrap();
    let clone = clone_of(&fs, &file, "b");
    clone.write_at(&pattern(2, 100), 50).unwrap();
    drop(file);
    unlink(&fs, "a");
    // The clone is the only file that has the pages, and somebody reads them as a slice.
    clone.write_at(&pattern(3, 3 * PAGE), PAGE + 50).unwrap();
    assert!(borrowed[..] == bytes, "the bytes of a frozen file never change");
    let expected = over(&over(&bytes, 50, &pattern(2, 100)), PAGE + 50, &pattern(3, 3 * PAGE));
    assert!(contents(&clone) == expected);
    fs.verify().unwrap();
    drop(borrowed);
    assert_eq!(fs.usage().limbo, Pages(0));
    fs.verify().unwrap();
}

#[test]
fn the_bytes_of_a_frozen_file_that_shares_are_borrowed_from_pages_of_its_own() {
    let pool = Pool::new(8 * MIB);
    let fs = pool.mount();
    let bytes = pattern(1, 9 * PAGE + 123);
    let file = file_of(&fs, "a", &bytes);
    let clone = clone_of(&fs, &file, "b");
    file.freeze(Wait::Never).unwrap();
    let borrowed = file.frozen_bytes(&pin_info("reader", PinKind::Read)).unwrap();
    assert_eq!(shared_pages(&file), 0);
    clone.write_at(&[7; 100], 0).unwrap();
    assert!(borrowed[..] == bytes);
    fs.verify().unwrap();
}

/// The folio that the first file has frozen holds more than the second has of it.
#[test]
fn the_bytes_of_a_part_of_a_frozen_file_are_those_and_not_its_first() {
    let pool = Pool::new(16 * MIB);
    let fs = pool.mount();
    let bytes = pattern(1, 5 * MIB);
    let file = file_of(&fs, "a", &bytes);
    file.freeze(Wait::Never).unwrap();
    let info = pin_info("reader", PinKind::Read);
    let whole = file.frozen_bytes(&info).unwrap();
    assert!(
        whole.folios().iter().any(|folio| folio.pages().end.since(folio.pages().start).0 == 512)
    );
    let part = create(&fs, "b");
    let range = 300 * PAGE..900 * PAGE;
    file.clone_range(range.clone(), &part, 0, Wait::Never).unwrap();
    part.freeze(Wait::Never).unwrap();

    let borrowed = part.frozen_bytes(&info).unwrap();

    let [from, to] = [range.start, range.end].map(|at| usize::try_from(at).unwrap());
    assert!(borrowed[..] == bytes[from..to]);
    assert_eq!(shared_pages(&part), 600, "no copy was made for it");
    drop((whole, file));
    unlink(&fs, "a");
    assert!(borrowed[..] == bytes[from..to]);
    fs.verify().unwrap();
    drop((borrowed, part));
    unlink(&fs, "b");
    assert_eq!((fs.usage().limbo, fs.usage().shared), (Pages(0), Pages(0)));
}

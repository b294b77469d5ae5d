//! Crash images: the bytes a medium may hold after a crash, and a medium over them.
//!
//! This file owns [`Image`] (a copy-on-write value, cheap to copy and to change in a few lines)
//! and [`ImageMedia`] (an image to mount, which knows what was read of it). It does not know which
//! images are possible: the `udax-crash` tool derives them from what a
//! [`Recorder`](crate::recorder::Recorder) saw.

use crate::active::Active;
use crate::media::{Media, MediaError, MediaFacts, Persistence, Site};
use crate::sync::{Arc, Mutex};
use crate::units::PAGE_SIZE;
use std::collections::BTreeMap;
use std::ops::Range;

/// Bytes in a cache line: what one flush moves towards the persistence domain.
pub const LINE_SIZE: usize = 64;

/// Bytes in the largest store that cannot tear.
pub const UNIT_SIZE: usize = 8;

type Page = [u8; PAGE_SIZE];

/// The bytes of a medium, shared with the images it was copied from until they differ.
///
/// A copy costs as much as the pages that differ from the first image, not as the medium.
///
/// ```
/// use udax_mm::image::Image;
/// let before = Image::zeroed(8192);
/// let mut after = before.clone();
/// after.write(4090, b"across pages");
/// let mut bytes = [0; 12];
/// after.read(4090, &mut bytes);
/// assert_eq!(&bytes, b"across pages");
/// before.read(4090, &mut bytes);
/// assert_eq!(bytes, [0; 12]);
/// ```
#[derive(Clone, Debug)]
pub struct Image {
    len: u64,
    base: Arc<Vec<u8>>,
    changed: BTreeMap<u64, Arc<Page>>,
}

/// A medium over an [`Image`]: a crash image to mount.
///
/// Stores change only this medium's own copy. It remembers which lines were read while they still
/// held bytes of the image, because only those can make a difference to what was read.
///
/// ```
/// use udax_mm::Media;
/// use udax_mm::image::{Image, ImageMedia};
/// let media = ImageMedia::new(Image::zeroed(4096));
/// media.store_u64(0, 7)?;
/// assert_eq!(media.load_u64(0)?, 7);
/// assert!(!media.has_read(0), "what was read is not of the image");
/// media.load_u64(8)?;
/// assert!(media.has_read(0));
/// # Ok::<(), udax_mm::MediaError>(())
/// ```
#[derive(Debug)]
pub struct ImageMedia {
    len: u64,
    state: Mutex<State>,
    active: Active,
}

#[derive(Debug)]
struct State {
    image: Image,
    /// For each page and line of it, the units that were stored since the start; none for a page
    /// that was not stored to.
    written: Vec<Option<Box<[u8; LINES]>>>,
    read: LinesRead,
}

/// The lines of an [`ImageMedia`] that were read while they still held bytes of the image.
///
/// ```
/// use udax_mm::Media;
/// use udax_mm::image::{Image, ImageMedia};
/// let media = ImageMedia::new(Image::zeroed(4096));
/// media.load_u64(128)?;
/// let read = media.lines_read();
/// assert!(read.contains(2) && !read.contains(3));
/// # Ok::<(), udax_mm::MediaError>(())
/// ```
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct LinesRead {
    /// For each page, a bit for every line.
    pages: Vec<u64>,
}

/// Lines in a page.
const LINES: usize = PAGE_SIZE / LINE_SIZE;
const _: () = assert!(LINES == 64, "the lines of a page are the bits of a word");

impl Image {
    /// An image that holds `bytes`.
    ///
    /// # Panics
    ///
    /// Panics if that is not a whole number of pages.
    pub fn new(bytes: Vec<u8>) -> Image {
        assert!(bytes.len().is_multiple_of(PAGE_SIZE), "image: a medium consists of whole pages");
        let len = to_u64(bytes.len());
        Image { len, base: Arc::new(bytes), changed: BTreeMap::new() }
    }

    /// An image of `len` zero bytes.
    ///
    /// # Panics
    ///
    /// Panics if that is not a whole number of pages.
    pub fn zeroed(len: u64) -> Image {
        Image::new(vec![0; in_memory(len)])
    }

    /// The number of bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.base.is_empty()
    }

    /// Copies out the bytes from `from` on.
    ///
    /// # Panics
    ///
    /// Panics if they do not all lie inside the image.
    pub fn read(&self, from: u64, into: &mut [u8]) {
        let mut at = in_memory(from);
        let mut rest = into;
        while !rest.is_empty() {
            let (page, inside) = (at / PAGE_SIZE, at % PAGE_SIZE);
            let count = rest.len().min(PAGE_SIZE - inside);
            let (part, after) = rest.split_at_mut(count);
            part.copy_from_slice(&self.page(page)[inside..inside + count]);
            at += count;
            rest = after;
        }
    }

    /// Copies `bytes` in.
    ///
    /// # Panics
    ///
    /// Panics if they do not all fit into the image.
    pub fn write(&mut self, at: u64, bytes: &[u8]) {
        let mut at = in_memory(at);
        let mut rest = bytes;
        while !rest.is_empty() {
            let (page, inside) = (at / PAGE_SIZE, at % PAGE_SIZE);
            let (part, after) = rest.split_at(rest.len().min(PAGE_SIZE - inside));
            self.page_mut(page)[inside..inside + part.len()].copy_from_slice(part);
            at += part.len();
            rest = after;
        }
    }

    /// The bytes of line `line`.
    pub fn line(&self, line: u64) -> [u8; LINE_SIZE] {
        let mut bytes = [0; LINE_SIZE];
        self.read(line * line_bytes(), &mut bytes);
        bytes
    }

    /// The pages that were written since [`Image::new`], in order.
    pub fn changed(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.changed.iter().map(|(page, bytes)| (*page, bytes.as_slice()))
    }

    fn page(&self, page: usize) -> &[u8] {
        let start = page * PAGE_SIZE;
        match self.changed.get(&to_u64(page)) {
            Some(bytes) => bytes.as_slice(),
            None => &self.base[start..start + PAGE_SIZE],
        }
    }

    fn page_mut(&mut self, page: usize) -> &mut Page {
        let base = &self.base[page * PAGE_SIZE..][..PAGE_SIZE];
        let bytes = self
            .changed
            .entry(to_u64(page))
            .or_insert_with(|| Arc::new(base.try_into().expect("the slice is one page long")));
        Arc::make_mut(bytes)
    }
}

impl ImageMedia {
    /// A medium that starts as `image`.
    pub fn new(image: Image) -> ImageMedia {
        let pages = in_memory(image.len()) / PAGE_SIZE;
        let read = LinesRead { pages: vec![0; pages] };
        let state = State { written: vec![None; pages], read, image };
        let (len, active) = (state.image.len(), Active::default());
        ImageMedia { len, state: Mutex::new(state), active }
    }

    /// Whether any byte of line `line` was read as the image had it.
    pub fn has_read(&self, line: u64) -> bool {
        self.state.lock().read.contains(line)
    }

    /// Every line of which [`ImageMedia::has_read`] is true.
    pub fn lines_read(&self) -> LinesRead {
        self.state.lock().read.clone()
    }

    /// What the medium holds: the image and everything stored since.
    pub fn image(&self) -> Image {
        self.state.lock().image.clone()
    }
}

impl LinesRead {
    /// Whether any byte of line `line` was read.
    ///
    /// # Panics
    ///
    /// Panics if the medium has no such line.
    pub fn contains(&self, line: u64) -> bool {
        let line = in_memory(line);
        self.pages[line / LINES] >> (line % LINES) & 1 != 0
    }
}

impl State {
    fn note_read(&mut self, range: Range<u64>) {
        for (line, units) in units_by_line(range) {
            let (page, line) = (line / LINES, line % LINES);
            let written = self.written[page].as_ref().map_or(0, |lines| lines[line]);
            self.read.pages[page] |= u64::from(units & !written != 0) << line;
        }
    }

    fn store(&mut self, at: u64, bytes: &[u8]) {
        let range = at..at + to_u64(bytes.len());
        // A unit that is stored in part keeps bytes of the image, so it does not count as stored.
        let whole =
            range.start.next_multiple_of(unit_bytes())..range.end / unit_bytes() * unit_bytes();
        for (line, units) in units_by_line(whole) {
            let page = self.written[line / LINES].get_or_insert_with(|| Box::new([0; LINES]));
            page[line % LINES] |= units;
        }
        self.image.write(at, bytes);
    }
}

impl Media for ImageMedia {
    fn len(&self) -> u64 {
        self.len
    }

    fn facts(&self) -> MediaFacts {
        simulated_facts()
    }

    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), MediaError> {
        let range = check_range(at, into.len(), self.len)?;
        let mut state = self.state.lock();
        state.note_read(range);
        state.image.read(at, into);
        Ok(())
    }

    fn write(&self, at: u64, bytes: &[u8]) -> Result<(), MediaError> {
        check_range(at, bytes.len(), self.len)?;
        self.state.lock().store(at, bytes);
        Ok(())
    }

    fn zero(&self, at: u64, len: u64) -> Result<(), MediaError> {
        check_range(at, in_memory(len), self.len)?;
        self.state.lock().store(at, &vec![0; in_memory(len)]);
        Ok(())
    }

    fn load_u64(&self, at: u64) -> Result<u64, MediaError> {
        let mut bytes = [0; UNIT_SIZE];
        self.read(at, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn store_u64(&self, at: u64, value: u64) -> Result<(), MediaError> {
        self.write(at, &value.to_le_bytes())
    }

    fn flush(&self, at: u64, len: u64, _site: Site) -> Result<(), MediaError> {
        check_range(at, in_memory(len), self.len).map(|_| ())
    }

    fn fence(&self, _site: Site) -> Result<(), MediaError> {
        Ok(())
    }

    fn active(&self) -> &Active {
        &self.active
    }
}

/// The facts of a medium that exists only in a test: it persists by cache lines, so that nobody
/// above leaves out a flush or a fence.
pub(crate) fn simulated_facts() -> MediaFacts {
    MediaFacts {
        persistence: Persistence::CacheLines,
        host_page: PAGE_SIZE,
        is_registrable: false,
        is_writable: true,
        is_dax: false,
    }
}

/// The byte range of an access, if it lies inside a medium of `total` bytes.
pub(crate) fn check_range(at: u64, len: usize, total: u64) -> Result<Range<u64>, MediaError> {
    let len = to_u64(len);
    match at.checked_add(len) {
        Some(end) if end <= total => Ok(at..end),
        _ => Err(MediaError::OutOfRange { at, len }),
    }
}

/// A byte count or index of a simulated medium, which is an allocation.
pub(crate) fn in_memory(bytes: u64) -> usize {
    usize::try_from(bytes).expect("a simulated medium fits the address space")
}

/// [`LINE_SIZE`] for arithmetic on media.
pub(crate) const fn line_bytes() -> u64 {
    64
}

/// [`UNIT_SIZE`] for arithmetic on media.
pub(crate) const fn unit_bytes() -> u64 {
    8
}

/// The lines that `range` touches, each with a bit for every unit touched.
fn units_by_line(range: Range<u64>) -> impl Iterator<Item = (usize, u8)> {
    let units = range.start / unit_bytes()..range.end.div_ceil(unit_bytes());
    let lines = range.start / line_bytes()..range.end.div_ceil(line_bytes());
    lines.map(move |line| {
        // Two of them are cut, at most: all others are whole.
        let first = units.start.saturating_sub(line * 8);
        let after = ((line + 1) * 8).saturating_sub(units.end);
        (in_memory(line), (u8::MAX << first) & (u8::MAX >> after))
    })
}

fn to_u64(index: usize) -> u64 {
    u64::try_from(index).expect("an index fits 64 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn media() -> ImageMedia {
        ImageMedia::new(Image::zeroed(8192))
    }

    #[test]
    fn a_line_stored_before_it_is_read_does_not_count_as_read() {
        let media = media();
        media.write(64, &[1; 64]).unwrap();
        media.read(64, &mut [0; 64]).unwrap();
        assert!(!media.has_read(1));
    }

    #[test]
    fn a_unit_stored_in_part_still_counts_as_read() {
        let media = media();
        media.write(3, &[1; 5]).unwrap();
        media.read(0, &mut [0; 8]).unwrap();
        assert!(media.has_read(0));
    }

    #[test]
    fn a_read_names_every_line_it_touches_and_no_other() {
        let media = media();
        media.read(100, &mut [0; 100]).unwrap();
        let read: Vec<u64> = (0..128).filter(|line| media.has_read(*line)).collect();
        assert_eq!(read, [1, 2, 3]);
    }

    #[test]
    fn stores_leave_the_image_that_was_copied_alone() {
        let first = Image::zeroed(8192);
        let media = ImageMedia::new(first.clone());
        media.write(4000, &[9; 200]).unwrap();
        assert_eq!(first.changed().count(), 0);
        assert_eq!(media.image().changed().map(|(page, _)| page).collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn an_access_past_the_end_is_refused() {
        let refused = media().read(8190, &mut [0; 3]);
        assert!(matches!(refused, Err(MediaError::OutOfRange { at: 8190, len: 3 })));
        assert!(media().write(u64::MAX, &[0]).is_err());
    }
}

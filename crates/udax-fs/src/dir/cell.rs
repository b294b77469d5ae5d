//! The cells of a directory: an entry is a header and a name in one to five adjacent cells of one
//! page; a cell of zeros is free.

use udax_mm::PAGE_SIZE;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes as _, IntoBytes as _};

use crate::format::DirCell;
use crate::{Ino, Kind, Name};

/// Bytes in a cell.
pub(crate) const CELL_BYTES: usize = 64;

/// Cells in a page. An entry never crosses from one page to the next.
pub(crate) const CELLS_PER_PAGE: usize = PAGE_SIZE / CELL_BYTES;

/// Bytes before the name.
const HEADER_BYTES: usize = size_of::<DirCell>();

/// An entry of a directory.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Cell {
    pub(crate) name: Name,
    pub(crate) ino: Ino,
    pub(crate) kind: Kind,
}

impl Cell {
    /// Writes the entry as the cells from `number` on of directory `dir`.
    pub(crate) fn encode(&self, dir: Ino, number: u64) -> Vec<u8> {
        let name = self.name.as_bytes();
        let mut header = DirCell {
            checksum: U32::ZERO,
            kind: kind_code(self.kind),
            name_length: u8::try_from(name.len()).expect("a Name has at most 255 bytes"),
            reserved: U16::ZERO,
            ino: U64::new(self.ino.0),
        };
        let mut bytes = vec![0; cells_for(&self.name) * CELL_BYTES];
        bytes[..HEADER_BYTES].copy_from_slice(header.as_bytes());
        bytes[HEADER_BYTES..HEADER_BYTES + name.len()].copy_from_slice(name);
        header.checksum = U32::new(checksum(dir, number, &bytes));
        bytes[..4].copy_from_slice(header.checksum.as_bytes());
        bytes
    }
}

/// The cells that an entry of this name takes.
pub(crate) fn cells_for(name: &Name) -> usize {
    cells_of_len(name.as_bytes().len())
}

/// The number of an entry's first cell, with the entry or with what is wrong with it.
pub(crate) type Numbered = (u64, Result<Cell, String>);

/// Reads the entries of one page of directory `dir`, which is page `page` of its file.
pub(crate) fn decode_page(dir: Ino, page: u64, bytes: &[u8]) -> Vec<Numbered> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < CELLS_PER_PAGE {
        let rest = &bytes[at * CELL_BYTES..];
        let number = page * offset(CELLS_PER_PAGE) + offset(at);
        if rest[..CELL_BYTES].iter().all(|byte| *byte == 0) {
            at += 1;
            continue;
        }
        let cell = decode(dir, number, rest);
        at += cell.as_ref().map_or(1, |cell| cells_for(&cell.name));
        found.push((number, cell));
    }
    found
}

/// Reads the entry that starts `bytes`, which reach to the end of its page.
fn decode(dir: Ino, number: u64, bytes: &[u8]) -> Result<Cell, String> {
    let (header, rest) = DirCell::ref_from_prefix(bytes).expect("a cell is larger than its header");
    let name_len = usize::from(header.name_length);
    let len = cells_of_len(name_len) * CELL_BYTES;
    if len > bytes.len() {
        return Err(format!("a name of {name_len} bytes crosses the end of the page"));
    }
    let expected = checksum(dir, number, &bytes[..len]);
    if header.checksum.get() != expected {
        return Err(format!("checksum {:#x}, expected {expected:#x}", header.checksum.get()));
    }
    let kind = kind_of(header.kind).ok_or_else(|| format!("unknown kind {}", header.kind))?;
    let name = Name::from_bytes(&rest[..name_len]).map_err(|error| error.to_string())?;
    Ok(Cell { name, ino: Ino(header.ino.get()), kind })
}

/// The checksum binds an entry to its directory and its place, so that a page of another directory
/// is not taken for one of this.
fn checksum(dir: Ino, number: u64, cells: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&dir.0.to_le_bytes());
    hasher.update(&number.to_le_bytes());
    hasher.update(&cells[4..]);
    hasher.finalize()
}

fn cells_of_len(name_len: usize) -> usize {
    (HEADER_BYTES + name_len).div_ceil(CELL_BYTES)
}

fn kind_code(kind: Kind) -> u8 {
    match kind {
        Kind::File => 1,
        Kind::Dir => 2,
        Kind::Symlink => 3,
    }
}

fn kind_of(code: u8) -> Option<Kind> {
    match code {
        1 => Some(Kind::File),
        2 => Some(Kind::Dir),
        3 => Some(Kind::Symlink),
        _ => None,
    }
}

fn offset(cells: usize) -> u64 {
    u64::try_from(cells).expect("a count of cells in a page fits")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIR: Ino = Ino(7);

    fn entry(len: usize, ino: u64) -> Cell {
        let name = Name::from_bytes(&vec![b'n'; len]).expect("valid");
        Cell { name, ino: Ino(ino), kind: Kind::Symlink }
    }

    fn page_with(page: u64, entries: &[(usize, &Cell)]) -> Vec<u8> {
        let mut bytes = vec![0; PAGE_SIZE];
        for (at, cell) in entries {
            let encoded = cell.encode(DIR, page * offset(CELLS_PER_PAGE) + offset(*at));
            bytes[at * CELL_BYTES..][..encoded.len()].copy_from_slice(&encoded);
        }
        bytes
    }

    #[test]
    fn entries_of_every_length_read_back_at_their_cells() {
        for len in [1, 47, 48, 49, 112, 255] {
            let (first, second) = (entry(len, 3), entry(1, 4));
            let after = 2 + cells_for(&first.name);
            let bytes = page_with(5, &[(2, &first), (after, &second)]);
            let read = decode_page(DIR, 5, &bytes);
            let base = 5 * offset(CELLS_PER_PAGE);
            assert_eq!(read, [(base + 2, Ok(first)), (base + offset(after), Ok(second))]);
        }
    }

    #[test]
    fn any_flipped_bit_of_an_entry_is_found() {
        let cell = entry(60, 9);
        let good = page_with(0, &[(0, &cell)]);
        for bit in 0..cells_for(&cell.name) * CELL_BYTES * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let read = decode_page(DIR, 0, &bytes);
            assert!(read.iter().any(|(_, cell)| cell.is_err()), "bit {bit}");
        }
    }

    #[test]
    fn an_entry_of_another_directory_or_place_is_refused() {
        let bytes = page_with(0, &[(0, &entry(5, 9))]);
        assert!(decode_page(Ino(8), 0, &bytes)[0].1.is_err());
        assert!(decode_page(DIR, 1, &bytes)[0].1.is_err());
    }
}

//! Recovery writes: new bytes for pages whose memory failed.
//!
//! This file owns the one way in which bytes and the mark of their page come back together. How a
//! medium replaces memory that failed is the medium's business ([`Media::recover`]); what the mark
//! means for claims and folios, that of [`table`](crate::table).
//!
//! [`Media::recover`]: crate::Media::recover

use crate::access::len_of;
use crate::media::MediaError;
use crate::pgmap::PgmapRef;
use crate::units::{PAGE_BYTES, PAGE_SIZE, PgmapOff};

impl PgmapRef {
    /// Writes whole pages, poisoned ones too, and then clears their poison.
    ///
    /// What was in the pages is lost, also if this fails. The new bytes are not persistent until
    /// they were flushed and fenced. User mappings that showed the failed memory may go on failing
    /// until they are zapped.
    ///
    /// A page that is poisoned again while this runs may lose that mark. Pages must not be pinned:
    /// a device may go on using the memory that failed, which is not theirs afterwards. One that is
    /// pinned while this runs is not noticed.
    ///
    /// # Blocking
    ///
    /// Waits for what the medium does to replace memory; for a file that is a few system calls.
    ///
    /// # Examples
    ///
    /// ```
    /// # use udax_mm::{MediaError, MediaRange, MemoryType, PAGE_SIZE, Pages, Pgmap, PgmapOff};
    /// # use udax_mm::{media::FileMedia, sync::Arc};
    /// # let media = Arc::new(FileMedia::memfd("example", 1 << 20)?);
    /// # let range = MediaRange { media, start: 0, pages: Pages(256) };
    /// # let pgmap = Pgmap::new(vec![range], MemoryType::FsDax)?.try_get_live().unwrap();
    /// pgmap.poison(PgmapOff(1));
    /// let refused = pgmap.load_u64(4096);
    /// assert!(matches!(refused, Err(MediaError::Poisoned { at: 4096 })));
    ///
    /// pgmap.recover(4096, &[1; PAGE_SIZE])?;
    /// assert_eq!(pgmap.load_u64(4096)?, 0x0101_0101_0101_0101);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`MediaError::PartialRecovery`] if the bytes are no whole pages, [`MediaError::Pinned`],
    /// [`MediaError::OutOfRange`], [`MediaError::Frozen`], and what the medium reports. No poison
    /// is cleared then.
    pub fn recover(&self, at: u64, bytes: &[u8]) -> Result<(), MediaError> {
        let len = len_of(bytes);
        if !at.is_multiple_of(PAGE_BYTES) || !len.is_multiple_of(PAGE_BYTES) {
            return Err(MediaError::PartialRecovery { at, len, page: PAGE_SIZE });
        }
        self.check(at, len)?;
        self.check_not_frozen(at, len)?;
        let pages = PgmapOff::of_byte(at)..PgmapOff::of_byte(at + len);
        if let Some(page) = self.first_pinned(pages.clone()) {
            return Err(MediaError::Pinned { at: page.byte() });
        }
        self.replace(at, bytes)?;
        // Not before the locks of `replace` are released: the end of a poison may call a sink.
        while let Some(page) = self.first_poisoned(pages.clone()) {
            self.clear_poison(page);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::image::Image;
    use crate::media::{Durability, FileMedia, Media};
    use crate::recorder::Recorder;
    use crate::reserve::Uffd;
    use crate::sync::Arc;
    use crate::units::{PAGE_SIZE, Pages};
    use crate::{MediaError, MediaRange, MemoryType, Pgmap, PgmapOff, PgmapRef};
    use std::fs::OpenOptions;
    use std::os::unix::fs::FileExt;

    const PAGE: u64 = 4096;

    /// A page map of one medium.
    fn live(media: Arc<dyn Media>) -> PgmapRef {
        let pages = Pages::holding(media.len());
        let range = MediaRange { media, start: 0, pages };
        Pgmap::new(vec![range], MemoryType::FsDax).unwrap().try_get_live().unwrap()
    }

    /// A medium of four pages whose second page fails when it is touched, as failed memory does.
    /// None where the host cannot do that.
    fn failing() -> Option<(Arc<FileMedia>, Uffd)> {
        let media = Arc::new(FileMedia::memfd("failing", 4 * PAGE).unwrap());
        match media.mapping().fail(PAGE_SIZE..2 * PAGE_SIZE) {
            Ok(uffd) => Some((media, uffd)),
            Err(error) => {
                crate::skipped::skipped(format_args!("no UFFDIO_POISON: {error}"));
                None
            }
        }
    }

    #[test]
    fn memory_that_fails_under_a_copy_is_an_error_with_its_byte() {
        let Some((media, _uffd)) = failing() else { return };
        let mut bytes = vec![0; 3 * PAGE_SIZE];
        let faults = [
            media.read(8, &mut bytes),
            media.write(PAGE - 100, &bytes[..200]),
            media.zero(0, 2 * PAGE),
            media.load_u64(PAGE).map(drop),
            media.store_u64(PAGE, 1),
            live(Arc::<FileMedia>::clone(&media)).read(0, &mut bytes),
        ];
        for fault in faults {
            assert!(matches!(fault, Err(MediaError::Fault { at: PAGE })), "{fault:?}");
        }
        media.read(2 * PAGE, &mut bytes[..PAGE_SIZE]).unwrap();
    }

    #[test]
    fn a_recovery_write_replaces_memory_that_fails() {
        let Some((media, _uffd)) = failing() else { return };
        let pgmap = live(Arc::<FileMedia>::clone(&media));
        pgmap.write(2 * PAGE, b"beside").unwrap();
        pgmap.poison(PgmapOff(1));

        pgmap.recover(PAGE, &[7; PAGE_SIZE]).unwrap();

        assert_eq!(pgmap.first_poisoned(PgmapOff(0)..PgmapOff(4)), None);
        let mut bytes = vec![0; PAGE_SIZE];
        pgmap.read(PAGE, &mut bytes).unwrap();
        assert!(bytes.iter().all(|&byte| byte == 7));
        pgmap.read(2 * PAGE, &mut bytes[..6]).unwrap();
        assert_eq!(&bytes[..6], b"beside");
        pgmap.store_u64(PAGE, 1).unwrap();
        let file = media.backing().unwrap().0.try_clone_to_owned().unwrap();
        let mut word = [0; 8];
        std::fs::File::from(file).read_exact_at(&mut word, PAGE).unwrap();
        assert_eq!(word, 1_u64.to_le_bytes(), "the medium is still its file");
    }

    #[test]
    fn a_recovery_write_extends_a_file_that_was_shortened_to_its_page() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("medium");
        let media = Arc::new(FileMedia::create(&path, 4 * PAGE, Durability::Process).unwrap());
        let pgmap = live(media);
        OpenOptions::new().write(true).open(&path).unwrap().set_len(PAGE).unwrap();
        assert!(pgmap.load_u64(PAGE).is_err());

        pgmap.recover(PAGE, &[3; PAGE_SIZE]).unwrap();

        assert_eq!(pgmap.load_u64(PAGE).unwrap(), 0x0303_0303_0303_0303);
        let beyond = pgmap.load_u64(2 * PAGE);
        assert!(matches!(beyond, Err(MediaError::Fault { at: 8192 })), "{beyond:?}");
    }

    #[test]
    fn a_recovery_write_does_not_turn_lost_bytes_before_it_into_zeros() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("medium");
        let media = Arc::new(FileMedia::create(&path, 4 * PAGE, Durability::Process).unwrap());
        let pgmap = live(media);
        OpenOptions::new().write(true).open(&path).unwrap().set_len(PAGE).unwrap();
        pgmap.poison(PgmapOff(2));

        let refused = pgmap.recover(2 * PAGE, &[3; PAGE_SIZE]);

        assert!(matches!(refused, Err(MediaError::Fault { at: 8192 })), "{refused:?}");
        assert!(pgmap.load_u64(PAGE).is_err(), "the page before is lost, and says so");
        assert_eq!(pgmap.first_poisoned(PgmapOff(0)..PgmapOff(4)), Some(PgmapOff(2)));
    }

    #[test]
    fn an_error_of_the_second_medium_names_the_byte_of_the_page_map() {
        let media = ["first", "second"].map(|name| FileMedia::memfd(name, 2 * PAGE).unwrap());
        let ranges = media.map(|media| {
            let media = Arc::new(media.of_pages(2 * PAGE_SIZE));
            MediaRange { media, start: 0, pages: Pages(2) }
        });
        let pgmap = Pgmap::new(ranges.into(), MemoryType::FsDax).unwrap().try_get_live().unwrap();

        let refused = pgmap.recover(3 * PAGE, &[1; PAGE_SIZE]);

        let expected = matches!(refused, Err(MediaError::PartialRecovery { at: 12288, .. }));
        assert!(expected, "{refused:?}");
    }

    #[test]
    fn a_recovery_write_of_partial_pages_is_refused_whatever_the_medium() {
        let media = Arc::new(Recorder::new(Image::zeroed(4 * PAGE)));
        let pgmap = live(media);
        for (at, len) in [(1, PAGE_SIZE), (PAGE, PAGE_SIZE - 1)] {
            let refused = pgmap.recover(at, &vec![1; len]);
            assert!(matches!(refused, Err(MediaError::PartialRecovery { .. })), "{refused:?}");
        }
        pgmap.recover(PAGE, &[1; PAGE_SIZE]).unwrap();
    }
}

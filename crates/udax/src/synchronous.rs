//! Whether stores to a mapping are durable without a call (I-35), and why not.

use udax_mm::MediaFacts;
use udax_mm::media::Persistence;

/// Why stores to some memory are not durable when the program has flushed its caches.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum NotSynchronous {
    /// Nothing of it is durable.
    #[error(
        "this memory, or some of it if it is that of a table, is gone with its last handle, so it \
         cannot be mapped with sync; use a pool on persistent memory"
    )]
    Volatile,
    /// The host keeps what is stored in its own memory until it is told to write.
    #[error(
        "stores to this memory, or to some of it if it is that of a table, stay in the page cache of \
         the host until a call, so it cannot be mapped with sync; use a pool on persistent memory, \
         or flush"
    )]
    Cached,
    /// Nobody has asked for more.
    #[error(
        "it is open for what survives the process and not for what survives the power, so it cannot \
         be mapped with sync; open it with `Durability::Power`"
    )]
    Process,
}

/// Refuses memory to which a mapping cannot be synchronous.
pub(crate) fn check(facts: MediaFacts) -> Result<(), NotSynchronous> {
    match facts.persistence {
        Persistence::Volatile => Err(NotSynchronous::Volatile),
        _ if !facts.is_dax => Err(NotSynchronous::Cached),
        Persistence::Msync => Err(NotSynchronous::Cached),
        Persistence::Process => Err(NotSynchronous::Process),
        Persistence::CacheLines => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Access, ErrorKind, File, MapOptions, OpenOptions, Pool, Populate, Wait};
    use std::path::Path;
    use udax_dev::{
        AccessError, DaxDevice, Hold, Holder, HolderError, IoError, Line, Linear, Mapped,
        PgmapDevice, Route, Table, Target,
    };
    use udax_fs::{Filesystem, FormatOptions, MountMode};
    use udax_mm::media::{FileMedia, Site};
    use udax_mm::sync::{Arc, Mutex, Weak};
    use udax_mm::{DeviceOff, Media, MediaRange, MemoryType, Pages, Pgmap, PgmapOff, StillBusy};

    const SIZE: u64 = 4 << 20;
    const PAGE: u64 = 4096;

    fn facts(persistence: Persistence, is_dax: bool) -> MediaFacts {
        let (host_page, is_registrable) = (4096, false);
        MediaFacts { persistence, host_page, is_registrable, is_writable: true, is_dax }
    }

    fn synchronous() -> MediaFacts {
        facts(Persistence::CacheLines, true)
    }

    /// A device whose memory promises what the test says, and which knows what it held when it last
    /// said that everything is durable.
    #[derive(Debug)]
    struct Promising {
        inner: PgmapDevice,
        media: Arc<FileMedia>,
        facts: MediaFacts,
        durable: Mutex<Vec<u8>>,
    }

    impl Promising {
        fn new(facts: MediaFacts) -> Arc<Promising> {
            let media = FileMedia::memfd("promising", SIZE).unwrap();
            Promising::of(Arc::new(media), facts)
        }

        fn of(media: Arc<FileMedia>, facts: MediaFacts) -> Arc<Promising> {
            let range = MediaRange { media: media.clone(), start: 0, pages: Pages(SIZE / PAGE) };
            let pgmap = Pgmap::new(vec![range], MemoryType::FsDax).unwrap();
            let (inner, durable) = (PgmapDevice::new(pgmap), Mutex::default());
            Arc::new(Promising { inner, media, facts, durable })
        }

        fn bytes(&self) -> Vec<u8> {
            let mut bytes = vec![0; usize::try_from(SIZE).unwrap()];
            self.media.read(0, &mut bytes).unwrap();
            bytes
        }
    }

    impl DaxDevice for Promising {
        fn size(&self) -> Pages {
            self.inner.size()
        }

        fn route(&self, at: DeviceOff, max: Pages) -> Result<Route, AccessError> {
            self.inner.route(at, max)
        }

        fn fence(&self, site: Site) -> Result<(), IoError> {
            *self.durable.lock() = self.bytes();
            self.inner.fence(site)
        }

        fn facts(&self) -> MediaFacts {
            self.facts
        }

        fn pgmaps(&self) -> Vec<Pgmap> {
            self.inner.pgmaps()
        }

        fn device_off(&self, pgmap: &Pgmap, at: PgmapOff) -> Option<DeviceOff> {
            self.inner.device_off(pgmap, at)
        }

        fn hold(&self, holder: Weak<dyn Holder>) -> Result<Hold, HolderError> {
            self.inner.hold(holder)
        }

        fn kill(&self, wait: Wait) -> Result<(), StillBusy> {
            self.inner.kill(wait)
        }
    }

    fn pool(device: Arc<dyn DaxDevice>) -> Pool {
        Filesystem::format(Arc::clone(&device), &FormatOptions::default()).unwrap();
        mount(device)
    }

    fn mount(device: Arc<dyn DaxDevice>) -> Pool {
        let path = Path::new("promising");
        crate::open::mount(path, device, Vec::new(), MountMode::ReadWrite, false).unwrap()
    }

    fn open(pool: &Pool, path: &str) -> File {
        OpenOptions::new().read(true).write(true).create(true).open(pool, path).unwrap()
    }

    fn for_stores() -> MapOptions {
        MapOptions::new().access(Access::Write)
    }

    /// Maps a file of the pool with and without sync. Returns the kind and text of the refusal.
    fn refusal(pool: &Pool) -> Option<(ErrorKind, String)> {
        let file = open(pool, "/file");
        file.set_len(PAGE).unwrap();
        file.map(0..PAGE, &for_stores()).unwrap();
        let refused = file.map(0..PAGE, &for_stores().sync()).err()?;
        Some((refused.kind(), refused.to_string()))
    }

    #[track_caller]
    fn check_refused(pool: &Pool, reason: &str, cure: &str) {
        let (kind, text) = refusal(pool).unwrap();
        assert_eq!(kind, ErrorKind::NotSynchronous);
        for part in ["/file: ", reason, cure] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn memory_is_synchronous_if_its_lines_are_durable_and_no_cache_of_the_host_is_between() {
        let cases = [
            (facts(Persistence::CacheLines, true), Ok(())),
            (facts(Persistence::CacheLines, false), Err(NotSynchronous::Cached)),
            (facts(Persistence::Msync, false), Err(NotSynchronous::Cached)),
            (facts(Persistence::Msync, true), Err(NotSynchronous::Cached)),
            (facts(Persistence::Process, false), Err(NotSynchronous::Cached)),
            (facts(Persistence::Process, true), Err(NotSynchronous::Process)),
            (facts(Persistence::Volatile, false), Err(NotSynchronous::Volatile)),
            (facts(Persistence::Volatile, true), Err(NotSynchronous::Volatile)),
        ];
        for (facts, expected) in cases {
            assert_eq!(check(facts), expected, "{facts:?}");
        }
    }

    #[test]
    fn a_file_is_mapped_with_sync_or_refused_with_the_reason_and_the_cure() {
        let on = |persistence, is_dax| pool(Promising::new(facts(persistence, is_dax)));
        assert_eq!(refusal(&on(Persistence::CacheLines, true)), None);
        check_refused(&on(Persistence::Process, true), "survives the process", "Durability::Power");
        check_refused(&on(Persistence::Msync, false), "page cache", "or flush");
        check_refused(&Pool::create_in_memory("test", SIZE).unwrap(), "is gone", "use a pool on");
    }

    /// F-27: what a stack promises is what the weakest device below does.
    #[test]
    fn one_device_of_a_stack_that_is_not_synchronous_keeps_sync_out() {
        let stack = |second| {
            let devices: [Arc<dyn DaxDevice>; 2] =
                [Promising::new(synchronous()), Promising::new(second)];
            let line = |(device, start): (Arc<dyn DaxDevice>, u64)| {
                let target = Target::Linear(Linear::new(device, DeviceOff(0)));
                Line { start: DeviceOff(start), pages: Pages(SIZE / PAGE), target }
            };
            let lines = devices.into_iter().zip([0, SIZE / PAGE]).map(line).collect();
            pool(Arc::new(Mapped::new(Table::new(lines).unwrap()).unwrap()))
        };
        assert_eq!(refusal(&stack(synchronous())), None);
        check_refused(&stack(facts(Persistence::Msync, false)), "of a table", "page cache");
        check_refused(&stack(facts(Persistence::Volatile, false)), "of a table", "is gone");
    }

    /// I-35. The power goes right after the store: of what came after the last fence there are the
    /// lines that the program has flushed, and nothing else.
    #[test]
    fn what_a_program_has_flushed_itself_is_in_the_file_after_a_power_cut() {
        for populate in [Populate::Lazy, Populate::Eager] {
            let device = Promising::new(synchronous());
            let pool = pool(device.clone());
            let (file, source) = (open(&pool, "/file"), open(&pool, "/source"));
            source.write_all_at(&vec![7; 4096], 0).unwrap();
            file.set_len(4 * PAGE).unwrap();
            source.clone_range(0..PAGE, &file, 2 * PAGE, Wait::Forever).unwrap();
            let options = for_stores().populate(populate).sync();
            let map = file.map(0..4 * PAGE, &options).unwrap();

            for (page, value) in [(1, 11), (2, 22)] {
                map.store(page * PAGE + 8, value).unwrap();
                let mut left = device.durable.lock().clone();
                let extents = file.extents().unwrap();
                let extent = extents.iter().rfind(|extent| extent.index.0 <= page).unwrap();
                let at = (extent.device.0 + page - extent.index.0) * PAGE + 8;
                left[usize::try_from(at).unwrap()..][..8].copy_from_slice(&value.to_le_bytes());

                let media = FileMedia::memfd("after the cut", SIZE).unwrap();
                media.write(0, &left).unwrap();
                let after = mount(Promising::of(Arc::new(media), synchronous()));
                let mut found = [0; 8];
                let survivor = after.open_file("/file").unwrap();
                survivor.read_exact_at(&mut found, page * PAGE + 8).unwrap();
                assert_eq!(u64::from_le_bytes(found), value, "page {page}, {populate:?}");
                assert_eq!(after.read("/source").unwrap(), vec![7; 4096]);
                assert_eq!(after.verify(), Ok(()));
            }
        }
    }
}

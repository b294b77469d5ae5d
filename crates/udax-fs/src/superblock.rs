//! The superblock, its mirror, and the session record.
//!
//! This file owns how a pool is recognised and who has it open. Reading changes nothing.

use crate::FsError;
use crate::format::{
    FORMAT_VERSION, Geometry, KNOWN_FEATURES, MAGIC, SessionRecord, SuperblockRecord,
};
use std::time::{SystemTime, UNIX_EPOCH};
use udax_dev::{DaxBytes, IoError};
use udax_mm::sync::OnceLock;
use udax_mm::{DeviceOff, Pages};
use zerocopy::{FromZeros, IntoBytes};

/// The facts of a pool that never change.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Superblock {
    /// Where everything lies.
    pub(crate) geometry: Geometry,
    /// The name of the pool for programs.
    pub(crate) uuid: [u8; 16],
    /// The name of the pool for people, at most 64 bytes; longer ones are cut.
    pub(crate) label: String,
    /// Nanoseconds since 1970.
    pub(crate) created: i64,
}

/// Which copy of the superblock was read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Source {
    /// The one in page 0.
    Primary,
    /// The one in the last page, because the primary is bad.
    Mirror,
}

/// How the session before this one ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Session {
    /// It closed the pool.
    Closed,
    /// It did not.
    Open {
        /// Its process; 0 if the record itself is torn.
        pid: u32,
        /// Whether the host was started again since.
        rebooted: bool,
    },
}

/// What one place for a superblock holds.
enum Found {
    Intact(Box<SuperblockRecord>),
    Damaged,
    Foreign,
}

/// The page of the session record.
const SESSION_PAGE: DeviceOff = DeviceOff(1);
/// What stands for the identity of a system that does not tell.
const UNKNOWN_BOOT: [u8; 16] = [0; 16];
const STATE_OPEN: u32 = 1;
const STATE_CLOSED: u32 = 2;

impl Superblock {
    /// Makes the device no pool: wipes both superblocks. Durable at return.
    ///
    /// Formatting starts with this and ends with [`Superblock::write`], so a crash between them
    /// leaves no pool.
    ///
    /// # Errors
    ///
    /// The device's.
    pub(crate) fn wipe(bytes: &DaxBytes, geometry: &Geometry) -> Result<(), FsError> {
        for page in [DeviceOff(0), geometry.end] {
            bytes.zero(page.byte(), Pages(1).bytes())?;
            bytes.flush(page.byte(), Pages(1).bytes())?;
        }
        Ok(bytes.fence()?)
    }

    /// Writes both copies, durable at return: the last step of formatting, or the repair of one.
    ///
    /// # Errors
    ///
    /// The device's.
    pub(crate) fn write(&self, bytes: &DaxBytes) -> Result<(), FsError> {
        let record = self.record();
        for page in [DeviceOff(0), self.geometry.end] {
            bytes.write(page.byte(), record.as_bytes())?;
            bytes.flush(page.byte(), len_of(&record))?;
        }
        Ok(bytes.fence()?)
    }

    /// Reads the superblock, or its mirror if the primary is bad.
    ///
    /// # Errors
    ///
    /// [`FsError::NotAPool`] without a superblock at either end, [`FsError::Corrupt`] if none is
    /// intact, [`FsError::NewerVersion`], [`FsError::UnknownFeatures`], and [`FsError::Truncated`]
    /// if the device is smaller than the pool.
    pub(crate) fn read(bytes: &DaxBytes) -> Result<(Superblock, Source), FsError> {
        let size = bytes.device().size();
        let last = DeviceOff(size.0.saturating_sub(1));
        let (record, source) = match (find(bytes, DeviceOff(0)), find(bytes, last)) {
            (Found::Intact(primary), _) => (primary, Source::Primary),
            (_, Found::Intact(mirror)) if mirror.pages.get() == size.0 => (mirror, Source::Mirror),
            (Found::Foreign, Found::Foreign) => return Err(FsError::NotAPool),
            _ => return Err(FsError::corrupt("the superblock", "neither copy is intact")),
        };
        Ok((Superblock::of(&record, size)?, source))
    }

    /// Whether one of the copies is there, intact or not.
    pub(crate) fn is_there(bytes: &DaxBytes) -> bool {
        let last = bytes.device().size().0.saturating_sub(1);
        [DeviceOff(0), DeviceOff(last)].into_iter().any(|page| {
            let mut record = SuperblockRecord::new_zeroed();
            bytes.read(page.byte(), record.as_mut_bytes()).is_ok() && record.magic == MAGIC
        })
    }

    /// Whether the mirror says the same.
    pub(crate) fn is_mirrored(&self, bytes: &DaxBytes) -> bool {
        matches!(find(bytes, self.geometry.end), Found::Intact(mirror) if *mirror == self.record())
    }

    fn of(record: &SuperblockRecord, size: Pages) -> Result<Superblock, FsError> {
        let version = record.version.get();
        if version > FORMAT_VERSION {
            return Err(FsError::NewerVersion { found: version, known: FORMAT_VERSION });
        }
        let unknown = record.features.get() & !KNOWN_FEATURES;
        if unknown != 0 {
            return Err(FsError::UnknownFeatures(unknown));
        }
        let geometry = geometry(record);
        if geometry.pages > size {
            return Err(FsError::Truncated { expected: geometry.pages, found: size });
        }
        if version != FORMAT_VERSION || !geometry.is_possible() {
            return Err(FsError::corrupt("the superblock", "its areas overlap or lie outside"));
        }
        let label = record.label.split(|&byte| byte == 0).next().unwrap_or_default();
        Ok(Superblock {
            geometry,
            uuid: record.uuid,
            label: String::from_utf8_lossy(label).into_owned(),
            created: record.created.get(),
        })
    }

    fn record(&self) -> SuperblockRecord {
        let mut record = SuperblockRecord::new_zeroed();
        record.magic = MAGIC;
        record.version = FORMAT_VERSION.into();
        record.features = KNOWN_FEATURES.into();
        record.pages = self.geometry.pages.0.into();
        record.journal_start = self.geometry.journal.0.into();
        record.journal_pages = self.geometry.journal_pages.0.into();
        record.itable_page = self.geometry.itable.0.into();
        record.data_start = self.geometry.data.0.into();
        record.data_end = self.geometry.end.0.into();
        record.created = self.created.into();
        record.uuid = self.uuid;
        let label = &self.label[..self.label.floor_char_boundary(record.label.len())];
        record.label[..label.len()].copy_from_slice(label.as_bytes());
        record.pins_start = self.geometry.pins.0.into();
        record.pins_pages = self.geometry.pins_pages.0.into();
        record.checksum = checksum(&record).into();
        record
    }
}

impl Session {
    /// Says how the last session ended. A torn record is an open one.
    ///
    /// # Errors
    ///
    /// The device's.
    pub(crate) fn read(bytes: &DaxBytes) -> Result<Session, FsError> {
        let mut record = SessionRecord::new_zeroed();
        bytes.read(SESSION_PAGE.byte(), record.as_mut_bytes())?;
        let is_intact = record.checksum.get() == crc32fast::hash(&record.as_bytes()[4..]);
        Ok(match record.state.get() {
            STATE_CLOSED if is_intact => Session::Closed,
            _ => Session::Open {
                pid: if is_intact { record.pid.get() } else { 0 },
                rebooted: is_intact && is_other_boot(&record.boot_id),
            },
        })
    }

    /// Whether the last session that wrote to the pool was one of an earlier run of the host: then
    /// no device works for any session before this one.
    ///
    /// # Errors
    ///
    /// The device's.
    pub(crate) fn was_before_boot(bytes: &DaxBytes) -> Result<bool, FsError> {
        let mut record = SessionRecord::new_zeroed();
        bytes.read(SESSION_PAGE.byte(), record.as_mut_bytes())?;
        let is_intact = record.checksum.get() == crc32fast::hash(&record.as_bytes()[4..]);
        Ok(is_intact && is_other_boot(&record.boot_id))
    }

    /// Records that this process has the pool open. Durable at return.
    ///
    /// # Errors
    ///
    /// The device's.
    pub(crate) fn open(bytes: &DaxBytes) -> Result<(), FsError> {
        Session::store(bytes, STATE_OPEN)?;
        Ok(bytes.fence()?)
    }

    /// Records that this process closed the pool. Durable at return.
    ///
    /// # Errors
    ///
    /// The device's.
    pub(crate) fn close(bytes: &DaxBytes) -> Result<(), FsError> {
        Session::store(bytes, STATE_CLOSED)?;
        Ok(bytes.fence()?)
    }

    #[track_caller]
    fn store(bytes: &DaxBytes, state: u32) -> Result<(), IoError> {
        let mut record = SessionRecord::new_zeroed();
        record.state = state.into();
        record.pid = std::process::id().into();
        record.boot_id = boot_id();
        record.time = now().into();
        record.checksum = crc32fast::hash(&record.as_bytes()[4..]).into();
        bytes.write(SESSION_PAGE.byte(), record.as_bytes())?;
        bytes.flush(SESSION_PAGE.byte(), len_of(&record))
    }
}

impl Geometry {
    /// Whether the areas follow each other inside the pool.
    fn is_possible(&self) -> bool {
        let journal_end = self.journal.0.checked_add(self.journal_pages.0);
        let pins_end = self.pins.0.checked_add(self.pins_pages.0);
        SESSION_PAGE < self.journal
            && self.journal_pages > Pages(0)
            && journal_end.is_some_and(|end| end <= self.pins.0)
            && self.pins_pages > Pages(0)
            && pins_end.is_some_and(|end| end <= self.itable.0)
            && self.itable < self.data
            && self.data < self.end
            && self.end.0 < self.pages.0
    }
}

/// Nanoseconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// The identity of the host's running system; zeros where the host does not tell.
pub(crate) fn boot_id() -> [u8; 16] {
    // A process does not outlive the system it runs on.
    static BOOT: OnceLock<[u8; 16]> = OnceLock::new();
    *BOOT.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        uuid::Uuid::parse_str(text.trim()).map_or(UNKNOWN_BOOT, uuid::Uuid::into_bytes)
    })
}

/// Whether the host was started since it had this identity. Where it does not tell: no.
pub(crate) fn is_other_boot(before: &[u8; 16]) -> bool {
    let now = boot_id();
    *before != now && *before != UNKNOWN_BOOT && now != UNKNOWN_BOOT
}

/// Looks for a superblock. A place that cannot be read is damaged.
fn find(bytes: &DaxBytes, page: DeviceOff) -> Found {
    let mut record = SuperblockRecord::new_zeroed();
    if bytes.read(page.byte(), record.as_mut_bytes()).is_err() {
        return Found::Damaged;
    }
    if record.checksum.get() == checksum(&record) && record.magic == MAGIC {
        return Found::Intact(Box::new(record));
    }
    if record.magic == MAGIC { Found::Damaged } else { Found::Foreign }
}

fn geometry(record: &SuperblockRecord) -> Geometry {
    Geometry {
        pages: Pages(record.pages.get()),
        journal: DeviceOff(record.journal_start.get()),
        journal_pages: Pages(record.journal_pages.get()),
        pins: DeviceOff(record.pins_start.get()),
        pins_pages: Pages(record.pins_pages.get()),
        itable: DeviceOff(record.itable_page.get()),
        data: DeviceOff(record.data_start.get()),
        end: DeviceOff(record.data_end.get()),
    }
}

/// Covers everything after the checksum; the magic number before it is compared.
fn checksum(record: &SuperblockRecord) -> u32 {
    crc32fast::hash(&record.as_bytes()[12..])
}

fn len_of(record: &impl IntoBytes) -> u64 {
    u64::try_from(size_of_val(record)).expect("a record fits in a page")
}

#[cfg(test)]
#[path = "superblock_tests.rs"]
mod tests;

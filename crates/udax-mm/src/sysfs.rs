//! What the host tells in sysfs: huge pages that can be had, DAX devices, and disks that are RAM.
//!
//! This file owns the paths and how they are read. It does not know what is made of the answers:
//! [`host`](crate::host) does.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::media::MediaError;

/// The tree below `/sys`.
#[derive(Debug)]
pub(crate) struct Sysfs {
    root: PathBuf,
}

/// The host's huge pages of one size.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct HugePages {
    /// All of them.
    pub(crate) total: u64,
    /// Those that nobody has, and that are promised to nobody.
    pub(crate) free: u64,
}

/// What is to be known of a `/dev/daxX.Y`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct DaxDevice {
    /// Its bytes.
    pub(crate) len: u64,
    /// Mappings start and end at multiples of it.
    pub(crate) align: usize,
    /// Whether its memory survives power loss, as the host tells.
    pub(crate) is_persistent: bool,
}

impl Sysfs {
    /// That of this host.
    pub(crate) fn of_this_host() -> Sysfs {
        Sysfs { root: PathBuf::from("/sys") }
    }

    /// One that a test has made up.
    #[cfg(test)]
    pub(crate) fn of_test(root: &Path) -> Sysfs {
        Sysfs { root: root.to_owned() }
    }

    /// The huge pages of `page` bytes.
    pub(crate) fn huge_pages(&self, page: usize) -> io::Result<HugePages> {
        let pool = self.root.join(format!("kernel/mm/hugepages/hugepages-{}kB", page / 1024));
        let [total, free, promised]: [io::Result<u64>; 3] =
            ["nr_hugepages", "free_hugepages", "resv_hugepages"].map(|name| number(&pool, name));
        // A free page may be promised to a mapping that has not touched it.
        let (total, free, promised) = (total?, free?, promised?);
        Ok(HugePages { total, free: free.saturating_sub(promised) })
    }

    /// The character device with these numbers; None if it is not a DAX device.
    ///
    /// # Errors
    ///
    /// Returns [`MediaError::Device`] if its properties cannot be read.
    pub(crate) fn dax_device(
        &self,
        major: u32,
        minor: u32,
    ) -> Result<Option<DaxDevice>, MediaError> {
        let path = self.root.join(format!("dev/char/{major}:{minor}"));
        let told = || -> io::Result<Option<DaxDevice>> {
            // Some devices, such as /dev/null in a container, have no subsystem to be read.
            let Ok(subsystem) = fs::canonicalize(path.join("subsystem")) else { return Ok(None) };
            if subsystem.file_name().is_none_or(|name| name != "dax") {
                return Ok(None);
            }
            let (len, align) = (number(&path, "size")?, number(&path, "align")?);
            let place = fs::canonicalize(&path)?;
            Ok(Some(DaxDevice { len, align, is_persistent: is_persistent(&place) }))
        };
        told().map_err(|source| MediaError::Device { path: path.clone(), source })
    }

    /// Whether the block device with these numbers is memory (brd, zram), or a part of such a one.
    pub(crate) fn is_ram_disk(&self, major: u32, minor: u32) -> bool {
        const RAMDISK_MAJOR: u32 = 1;
        let place = fs::canonicalize(self.root.join(format!("dev/block/{major}:{minor}")));
        let is_named_so = |place: PathBuf| {
            place.ancestors().any(|part| is_numbered(part, "ram") || is_numbered(part, "zram"))
        };
        major == RAMDISK_MAJOR || place.is_ok_and(is_named_so)
    }
}

/// Whether the region of memory that a device is a part of survives power loss: with what is in the
/// caches (`cpu_cache`), or with what has left them (`memory_controller`). Where the platform
/// promises neither there is no such property; and memory that the firmware set aside, or volatile
/// memory of CXL, hangs on no region that has it.
fn is_persistent(device: &Path) -> bool {
    let mut regions = device.ancestors().filter(|place| is_numbered(place, "region"));
    regions.any(|region| {
        let domain = fs::read_to_string(region.join("persistence_domain"));
        domain.is_ok_and(|domain| ["cpu_cache", "memory_controller"].contains(&domain.trim()))
    })
}

/// Whether the file or directory is called `name` with a number behind.
fn is_numbered(path: &Path, name: &str) -> bool {
    let last = path.file_name().and_then(|last| last.to_str());
    let number = last.and_then(|last| last.strip_prefix(name));
    number.is_some_and(|number| number.parse::<u32>().is_ok())
}

/// Reads a property that is a decimal number.
fn number<N: std::str::FromStr>(directory: &Path, property: &str) -> io::Result<N> {
    let text = fs::read_to_string(directory.join(property))?;
    text.trim().parse().map_err(|_| {
        let message = format!("{property} is {:?}, which is no number", text.trim());
        io::Error::new(io::ErrorKind::InvalidData, message)
    })
}

#[cfg(test)]
mod tests {
    use super::{DaxDevice, HugePages, Sysfs};
    use crate::MediaError;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;
    use tempfile::TempDir;

    /// Writes files, each with its text, below a directory.
    fn write(directory: &Path, files: &[(&str, &str)]) {
        fs::create_dir_all(directory).unwrap();
        for (name, text) in files {
            fs::write(directory.join(name), text).unwrap();
        }
    }

    /// A tree with one character device 252:0 at `place`, which is of `subsystem`.
    fn device(place: &str, subsystem: &str, files: &[(&str, &str)]) -> TempDir {
        let root = TempDir::new().unwrap();
        let device = root.path().join(place);
        write(&device, files);
        let of = root.path().join("bus").join(subsystem);
        fs::create_dir_all(&of).unwrap();
        symlink(of, device.join("subsystem")).unwrap();
        fs::create_dir_all(root.path().join("dev/char")).unwrap();
        symlink(&device, root.path().join("dev/char/252:0")).unwrap();
        root
    }

    const NVDIMM: &str = "devices/LNXSYSTM:00/ACPI0012:00/ndbus0/region0/dax0.0/dax/dax0.0";
    const CXL: &str = "devices/platform/ACPI0017:00/root0/region0/dax_region0/dax0.0";

    #[test]
    fn huge_pages_that_are_promised_are_not_free() {
        let root = TempDir::new().unwrap();
        let pool = root.path().join("kernel/mm/hugepages/hugepages-2048kB");
        let told =
            [("nr_hugepages", "64\n"), ("free_hugepages", "10\n"), ("resv_hugepages", "4\n")];
        write(&pool, &told);
        let sysfs = Sysfs::of_test(root.path());
        assert_eq!(sysfs.huge_pages(2 << 20).unwrap(), HugePages { total: 64, free: 6 });
        assert!(sysfs.huge_pages(1 << 30).is_err(), "the host has no such size");
    }

    #[test]
    fn a_dax_device_tells_its_length_and_alignment() {
        let told = [("size", "4225761280\n"), ("align", "2097152\n")];
        let root = device(CXL, "dax", &told);
        let found = Sysfs::of_test(root.path()).dax_device(252, 0).unwrap();
        let len = 4_225_761_280;
        assert_eq!(found, Some(DaxDevice { len, align: 2 << 20, is_persistent: false }));
    }

    #[test]
    fn a_dax_device_is_persistent_if_its_region_says_that_it_survives_power_loss() {
        let told = [("size", "2097152\n"), ("align", "2097152\n")];
        let check = |place: &str, domain: Option<&str>, is_persistent| {
            let root = device(place, "dax", &told);
            let region = root.path().join(place.split_inclusive("region0").next().unwrap());
            if let Some(domain) = domain {
                write(&region, &[("persistence_domain", domain)]);
            }
            let found = Sysfs::of_test(root.path()).dax_device(252, 0).unwrap().unwrap();
            assert_eq!(found.is_persistent, is_persistent, "{place}: {domain:?}");
        };
        check(NVDIMM, Some("cpu_cache\n"), true);
        check(NVDIMM, Some("memory_controller\n"), true);
        check(NVDIMM, Some("\n"), false);
        check(NVDIMM, None, false);
        check(CXL, None, false);
    }

    #[test]
    fn a_block_device_in_memory_is_told_by_its_number_or_its_name() {
        let root = TempDir::new().unwrap();
        let places = ["zram0", "ram3/ram3p1", "sda/sda1", "zramble0", "nvme0n1"];
        fs::create_dir_all(root.path().join("dev/block")).unwrap();
        for (minor, place) in places.into_iter().enumerate() {
            let device = root.path().join("devices/block").join(place);
            fs::create_dir_all(&device).unwrap();
            symlink(&device, root.path().join(format!("dev/block/253:{minor}"))).unwrap();
        }
        let sysfs = Sysfs::of_test(root.path());
        let found = [0, 1, 2, 3, 4, 5].map(|minor| sysfs.is_ram_disk(253, minor));
        assert_eq!(found, [true, true, false, false, false, false]);
        assert!(sysfs.is_ram_disk(1, 0), "also where sysfs does not show it");
    }

    #[test]
    fn a_device_of_another_subsystem_is_no_dax_device() {
        let root = device("devices/virtual/mem/null", "mem", &[]);
        let sysfs = Sysfs::of_test(root.path());
        assert_eq!(sysfs.dax_device(252, 0).unwrap(), None);
        assert_eq!(sysfs.dax_device(1, 3).unwrap(), None, "there is no such device");
    }

    #[test]
    fn a_property_that_is_no_number_is_an_error_that_shows_it() {
        let root = device(CXL, "dax", &[("size", "0x1000\n"), ("align", "4096\n")]);
        let error = Sysfs::of_test(root.path()).dax_device(252, 0).unwrap_err();
        assert!(matches!(error, MediaError::Device { .. }), "{error:?}");
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(source, "size is \"0x1000\", which is no number");
    }
}

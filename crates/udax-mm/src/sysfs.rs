//! What the host tells in sysfs: huge pages that can be had, and DAX devices.
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
    /// Whether it is an NVDIMM's, and so survives power loss.
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
            Ok(Some(DaxDevice { len, align, is_persistent: is_below_an_nvdimm_bus(&place) }))
        };
        told().map_err(|source| MediaError::Device { path: path.clone(), source })
    }
}

/// Whether a device hangs on an NVDIMM bus. Other DAX devices are memory that the firmware set
/// aside, or volatile memory of CXL.
fn is_below_an_nvdimm_bus(device: &Path) -> bool {
    let mut parts = device.iter().filter_map(|part| part.to_str());
    parts.any(|part| part.strip_prefix("ndbus").is_some_and(|n| n.parse::<u32>().is_ok()))
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
    fn a_dax_device_tells_its_length_and_alignment_and_where_it_hangs() {
        let told = [("size", "4225761280\n"), ("align", "2097152\n")];
        for (place, is_persistent) in [(NVDIMM, true), (CXL, false)] {
            let root = device(place, "dax", &told);
            let found = Sysfs::of_test(root.path()).dax_device(252, 0).unwrap();
            let expected = DaxDevice { len: 4_225_761_280, align: 2 << 20, is_persistent };
            assert_eq!(found, Some(expected), "{place}");
        }
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

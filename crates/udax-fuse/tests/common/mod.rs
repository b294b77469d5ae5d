//! What the tests of the mount share.
#![allow(dead_code, reason = "each test file uses some of it")]

pub(crate) mod served;

use std::fmt::Display;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;

use memmap2::MmapRaw;
use udax_fuse::MountError;

/// Whether this user, or this host, mounts nothing at all.
pub(crate) fn is_impossible(error: &MountError) -> bool {
    use MountError::{DeviceDenied, NoDevice, NotPermitted};
    matches!(error, NoDevice | DeviceDenied(_) | NotPermitted { .. })
}

/// Says that a test shows nothing, past the capture of the test harness, so that it is seen.
pub(crate) fn skipped(why: &dyn Display) {
    let _ = writeln!(std::io::stderr(), "SKIPPED, nothing is shown: {why}");
}

#[track_caller]
pub(crate) fn errno<T>(result: std::io::Result<T>) -> i32 {
    match result {
        Ok(_) => panic!("the call should have failed"),
        Err(error) => error.raw_os_error().unwrap(),
    }
}

/// Copies bytes out of a mapping, by way of the kernel: these tests have no unsafe code.
pub(crate) fn load_mapped(map: &MmapRaw, at: usize, len: usize) -> Vec<u8> {
    let memory = File::open("/proc/self/mem").unwrap();
    let mut bytes = vec![0; len];
    memory.read_exact_at(&mut bytes, address(map, at)).unwrap();
    bytes
}

/// Copies bytes into a mapping, by way of the kernel.
pub(crate) fn store_mapped(map: &MmapRaw, at: usize, bytes: &[u8]) {
    let memory = File::options().write(true).open("/proc/self/mem").unwrap();
    memory.write_all_at(bytes, address(map, at)).unwrap();
}

fn address(map: &MmapRaw, at: usize) -> u64 {
    u64::try_from(map.as_ptr().addr() + at).unwrap()
}

//! A process that has as many addresses as it may have (`RLIMIT_AS`), or has locked as much memory
//! (`RLIMIT_MEMLOCK`). What takes the place of a page that is taken back is mapped before the page
//! goes, and counts beside it; yet a zap cannot be refused. In a program of its own, because the
//! limits are those of the whole process.

mod common;

use common::{PAGE, TestFile, both, data, mode, range};
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};
use std::process::Command;
use udax_mapping::UserMapping;
use udax_mm::{Access, FileIndex, Pages, VmaOff, Wait};

/// The environment variable of the program, which says what is at its limit.
const PROGRAM: &str = "UDAX_TEST_NO_ADDRESSES";

/// Runs this test as a program of its own.
fn run(name: &str) {
    let mut program = Command::new(std::env::current_exe().expect("it runs"));
    let program = program.args(["--exact", name, "--nocapture"]).env(PROGRAM, name);
    assert!(program.status().expect("it can be started").success());
}

fn is_program() -> bool {
    std::env::var_os(PROGRAM).is_some()
}

/// Has no more addresses than there are in use, and a few, while `work` is done.
fn without_addresses(work: &dyn Fn()) {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("procfs");
    let pages = statm.split_whitespace().next().expect("the size of the process");
    let in_use = pages.parse::<u64>().expect("a number") * PAGE;
    let before = getrlimit(Resource::As);
    let limit = Rlimit { current: Some(in_use + (1 << 20)), ..before };
    setrlimit(Resource::As, limit).expect("a limit can be lowered");
    work();
    setrlimit(Resource::As, before).expect("a soft limit can be raised again");
}

/// May lock no memory while `work` is done: less than the process has locked already.
fn without_locks(work: &dyn Fn()) {
    let before = getrlimit(Resource::Memlock);
    let may_all = rustix::thread::capabilities(None).expect("they can be asked for");
    let effective = may_all.effective.difference(CapabilitySet::IPC_LOCK);
    setrlimit(Resource::Memlock, Rlimit { current: Some(PAGE), ..before }).expect("it is lower");
    rustix::thread::set_capabilities(None, CapabilitySets { effective, ..may_all })
        .expect("less is permitted");
    work();
    rustix::thread::set_capabilities(None, may_all).expect("they were permitted");
    setrlimit(Resource::Memlock, before).expect("a soft limit can be raised again");
}

fn loads(mapped: &UserMapping, page: u64) -> Option<u8> {
    mapped.vma().load_u64(page * PAGE).ok().map(|word| word.to_le_bytes()[0])
}

/// A page of a folio of 2 MiB goes at a limit.
fn punch(at_limit: impl Fn(&dyn Fn())) {
    both(1024, &data(0, 512), |file: &TestFile, how| {
        (0..512).for_each(|block| file.fill_block(block, 7));
        let map = file.mapping.map(FileIndex(0), Pages(512), mode(Access::Read, how));
        let mapped = map.expect("there are addresses");
        (0..512).for_each(|page| assert_eq!(loads(&mapped, page), Some(7)));

        at_limit(&|| {
            file.punch(range(5, 6), Wait::Never).expect("nobody pins it");
            let shown = (0..512).filter_map(|page| Some((page, loads(&mapped, page)?)));
            shown.for_each(|(page, byte)| assert_eq!(byte, if page == 5 { 0 } else { 7 }));
        });

        mapped.retry(VmaOff(0)..VmaOff(512));
        for page in 0..512 {
            assert_eq!(loads(&mapped, page), Some(if page == 5 { 0 } else { 7 }), "page {page}");
        }
        file.verify();
    });
}

#[test]
fn pages_are_taken_back_though_there_are_no_more_addresses() {
    if is_program() {
        return punch(without_addresses);
    }
    run("pages_are_taken_back_though_there_are_no_more_addresses");
}

#[test]
fn pages_are_taken_back_though_no_more_memory_may_be_locked() {
    if !is_program() {
        return run("pages_are_taken_back_though_no_more_memory_may_be_locked");
    }
    let may = rustix::thread::capabilities(None).expect("they can be asked for").effective;
    if !may.contains(CapabilitySet::IPC_LOCK) {
        return common::skipped(&std::io::ErrorKind::PermissionDenied.into());
    }
    mlockall(MlockAllFlags::FUTURE).expect("it is permitted");
    punch(without_locks);
}

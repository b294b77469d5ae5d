//! The order in which this process has taken locks, against the table of docs/protocol.md.

use udax_mm::sync::lock_order;

const PROTOCOL: &str = include_str!("../../../../docs/protocol.md");

/// The locks of the table, by their name there and how a recorded one is known.
const LOCKS: &[(&str, &str)] = &[
    ("namespace", "udax_fs::core::Names"),
    ("writer", "udax_fs::inode::Writer"),
    ("layout", "udax_mapping::mapping::Layout"),
    ("entry", "udax_mapping::entry lock"),
    ("tree", "udax_fs::inode::state::State"),
    ("journal", "udax_fs::journal::Journal"),
    ("allocator", "udax_fs::alloc::Allocator"),
    ("shares", "udax_fs::shares::Shares"),
    ("wait queues", "udax_mm::wait::Sleepers"),
    ("pins, wait queues", "udax_mm::pin::List"),
    ("recent directories", "VecDeque<alloc::sync::Arc<udax_fs::inode::Inode"),
    ("inode cache", "HashMap<udax_fs::inode"),
    ("inode cache", "Weak<udax_fs::inode::Inode"),
    ("keepers", "udax_fs::inode::kept::Kept"),
    ("directory index", "Option<udax_fs::dir::index::Index"),
    ("inode table", "udax_fs::itable::Table"),
    ("deferral", "udax_fs::deferral::State"),
    ("pages ahead", "udax_fs::fresh::Fresh"),
    ("limbo", "udax_fs::limbo::Limbo"),
    ("writeback", "udax_mapping::mapping::Writeback"),
    ("leases", "udax_mm::ranges::Lease"),
    ("leases", "udax_mm::active::Lease"),
    ("failure listener", "MemoryFailure"),
    ("active parts", "BTreeMap<u64, u64"),
    ("list of users", "Vec<alloc::sync::Arc<udax_mapping::user::User"),
    ("fault sink", "udax_mapping::user::User"),
    ("translations", "udax_mapping::table::Leaves"),
    ("list of pins", "udax_mapping::pins::List"),
    ("stores", "udax_mm::access::Shard"),
    ("deferred ranges", "udax_mm::limbo::Deferred"),
    ("poisoned pages", "udax_mm::units::PgmapOff"),
    ("phase", "udax_mm::live::Phase"),
    ("index", "udax_mapping::index::State"),
    ("last error", "udax_mapping::fault::FaultError"),
    ("pending faults", "udax_mm::space::Faults"),
    ("pin table", "udax_fs::pin_table::Table"),
    ("quarantine", "udax_fs::quarantine::Ward"),
    ("hold", "udax_dev::holder::Hold>"),
    ("holder", "udax_dev::holder::State"),
    ("sleepers", "udax_mm::wait::Sleeper>"),
    ("wanted ranges", "udax_mapping::holders::Wanted"),
    ("told", "Vec<udax_mm::recall::Lease>"),
    ("recall", "bool"),
    ("fault threads", "udax_mm::faults::"),
    ("fault threads", "Hands<"),
    ("spaces", "udax_mm::space::Space"),
    ("flushed pages", "udax_mm::persist::PendingPages"),
    ("msync", "Errno"),
    ("areas in reserve, own pages", "udax_mm::areas::Spare"),
    ("areas in reserve, own pages", "udax_mm::pagemap::Pagemap"),
    ("position", "u64"),
    ("load of a table", "udax_dev::mapped::Turn"),
    ("change of a table", "udax_dev::change::Change"),
    ("stage of a claim", "udax_dev::failure::Stage"),
    ("table gone", "udax_dev::swap::Users"),
    ("devices that leave", "udax_dev::mapped::Leaving"),
    ("taps", "udax_mm::tap::StoreTap"),
    ("logged line", "udax_dev::targets::log_writes::Turn"),
    ("recorded events", "udax_mm::recorder::Event"),
];

/// Locks of several of these are held at once: of the first by who holds the namespace lock
/// exclusively, of the second and third by who clones, those of the lower inode number first, of the
/// next by who changes a table below others, and of the last by who stores, in the order of the tables.
const NESTS: &[&str] = &[
    "udax_fs::inode::state::State",
    "udax_fs::inode::Writer",
    "udax_mapping::mapping::Layout",
    "udax_dev::change::Change",
    "udax_dev::targets::log_writes::Turn",
];

/// Asserts that the order has no cycle, that the table has every lock, and that each of `taken`, a lock
/// and one that is taken with it held, was recorded. Prints the order.
pub(crate) fn check(taken: &[[&str; 2]]) -> String {
    let edges = lock_order::edges();
    let is_recorded = cfg!(any(debug_assertions, feature = "lock-order"));
    for [outer, inner] in taken.iter().filter(|_| is_recorded) {
        let is_there = edges
            .iter()
            .any(|edge| edge.outer.contains(part_of(outer)) && edge.inner.contains(part_of(inner)));
        assert!(is_there, "nobody saw {inner} taken with {outer} held");
    }
    let all: Vec<_> = edges.iter().map(|edge| format!("  {edge}")).collect();
    let all = all.join("\n");
    if let Err(cycle) = lock_order::check(&edges, NESTS) {
        panic!("locks are taken in a circle:\n{cycle}of\n{all}");
    }
    for class in edges.iter().flat_map(|edge| [edge.outer, edge.inner]) {
        let known = LOCKS.iter().find(|(_, part)| class.contains(part));
        let Some((name, _)) = known else { panic!("the lock of {class} is not in the table") };
        assert!(is_in_table(name), "docs/protocol.md does not name {name}");
    }
    format!("{} edges between locks, no circle:\n{all}", edges.len())
}

/// How a recorded lock is known.
fn part_of(lock: &str) -> &'static str {
    let known = LOCKS.iter().find(|(name, _)| *name == lock);
    known.expect("the table has it").1
}

fn is_in_table(lock: &str) -> bool {
    PROTOCOL.lines().any(|line| line.starts_with('|') && line.contains(lock))
}

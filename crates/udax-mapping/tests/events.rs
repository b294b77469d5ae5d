//! Events: a subscriber sees what the kernel's tracepoints tell, by their names.

mod common;

use common::{TestFile, data, info, mode, range};
use std::collections::BTreeMap;
use std::fmt::Debug;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use udax_mapping::{MapMode, Populate};
use udax_mm::sync::{Arc, Mutex};
use udax_mm::{Access, FileIndex, Pages, PinKind, Wait};

/// An event with the texts of its fields.
type Seen = (&'static str, BTreeMap<&'static str, String>);

/// Remembers every event of the crate, in this thread.
#[derive(Clone, Default)]
struct Witness(Arc<Mutex<Vec<Seen>>>);

#[derive(Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

impl Subscriber for Witness {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "udax_mapping"
    }

    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        self.0.lock().push((event.metadata().name(), fields.0));
    }

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

/// The events of `run`. Faults of an eager mapping are served by the thread that maps.
fn events_of(run: impl FnOnce()) -> Vec<Seen> {
    let witness = Witness::default();
    tracing::subscriber::with_default(witness.clone(), run);
    witness.0.lock().clone()
}

fn names(seen: &[Seen]) -> Vec<&'static str> {
    seen.iter().map(|(name, _)| *name).collect()
}

/// The first event of a name, as `field=value` in the order of `fields`.
fn fields(seen: &[Seen], name: &str, fields: &[&str]) -> Vec<String> {
    let found = seen.iter().find(|(seen, _)| *seen == name);
    let (_, found) = found.unwrap_or_else(|| panic!("no {name} in {seen:?}"));
    let text = |field: &&str| format!("{field}={}", found.get(*field).map_or("-", String::as_str));
    fields.iter().map(text).collect()
}

fn eager(access: Access) -> MapMode {
    mode(access, Populate::Eager)
}

#[test]
fn a_fault_tells_its_index_order_access_and_result() {
    let file = TestFile::new(8, &data(2, 3));
    let seen = events_of(|| {
        file.mapping.map(FileIndex(1), Pages(2), eager(Access::Write)).unwrap();
    });
    assert_eq!(
        fields(&seen, "dax_pte_fault", &["index", "order", "access"]),
        ["index=1", "order=0", "access=write"]
    );
    assert_eq!(
        fields(&seen, "dax_insert_mapping", &["index", "pages", "access"]),
        ["index=1", "pages=2", "access=write"]
    );
    assert_eq!(
        fields(&seen, "dax_pte_fault_done", &["index", "pages", "result"]),
        ["index=1", "pages=2", "result=mapped"]
    );
}

#[test]
fn a_fallback_tells_its_reason() {
    let file = TestFile::new(1536, &data(5, 1024));
    let seen = events_of(|| {
        file.mapping.map(FileIndex(0), Pages(1024), eager(Access::Read)).unwrap();
    });
    assert_eq!(
        fields(&seen, "dax_fallback", &["index", "order", "reason"]),
        ["index=0", "order=0", "reason=alignment"]
    );
}

#[test]
fn a_fault_of_2_mib_goes_by_the_name_of_its_order() {
    let file = TestFile::new(1536, &data(512, 512));
    let seen = events_of(|| {
        file.mapping.map(FileIndex(0), Pages(512), eager(Access::Read)).unwrap();
    });
    let expected = ["dax_pmd_fault", "dax_pmd_insert_mapping", "dax_pmd_fault_done"];
    assert_eq!(names(&seen), expected);
    assert_eq!(fields(&seen, "dax_pmd_fault_done", &["order", "pages"]), ["order=9", "pages=512"]);
}

#[test]
fn a_hole_tells_how_much_of_it_is_shown() {
    let file = TestFile::new(8, &[Some(1), None, None]);
    let seen = events_of(|| {
        file.mapping.map(FileIndex(1), Pages(1), eager(Access::Read)).unwrap();
    });
    assert_eq!(
        fields(&seen, "dax_load_hole", &["index", "order", "pages"]),
        ["index=1", "order=0", "pages=1"]
    );
}

#[test]
fn a_fault_that_fails_says_why() {
    let file = TestFile::new(2, &[Some(0), Some(1), None]);
    let seen = events_of(|| {
        file.mapping.map(FileIndex(2), Pages(1), eager(Access::Write)).unwrap_err();
    });
    let done = fields(&seen, "dax_pte_fault_done", &["index", "pages", "result"]);
    assert_eq!(done, ["index=2", "pages=0", "result=no block is free"]);
}

#[test]
fn writeback_tells_its_range_each_entry_and_the_end() {
    let file = TestFile::new(8, &data(0, 4));
    drop(file.mapping.map(FileIndex(1), Pages(2), eager(Access::Write)).unwrap());
    let seen = events_of(|| file.mapping.writeback(range(0, 4)).unwrap());
    let expected = [
        "dax_writeback_range",
        "dax_writeback_one",
        "dax_writeback_one",
        "dax_writeback_range_done",
    ];
    assert_eq!(names(&seen), expected);
    assert_eq!(fields(&seen, "dax_writeback_range", &["start", "end"]), ["start=0", "end=4"]);
    assert_eq!(
        fields(&seen, "dax_writeback_one", &["index", "pages", "is_clean"]),
        ["index=1", "pages=1", "is_clean=true"]
    );
    assert_eq!(fields(&seen, "dax_writeback_range_done", &["result"]), ["result=durable"]);
}

#[test]
fn a_pin_its_recall_and_its_end_are_told() {
    let file = TestFile::new(8, &data(0, 4));
    let seen = events_of(|| {
        let pin = file.mapping.pin(range(1, 3), info("nic", PinKind::Write)).unwrap();
        let deadline = std::time::Instant::now();
        file.truncate(2, Wait::Until(deadline)).unwrap_err();
        drop(pin);
    });
    assert_eq!(
        fields(&seen, "dax_pin", &["start", "end", "owner", "kind", "term"]),
        ["start=1", "end=3", "owner=nic", "kind=write", "term=long"]
    );
    assert_eq!(fields(&seen, "dax_break_layout", &["start"]), ["start=2"]);
    assert_eq!(
        fields(&seen, "dax_break_layout_blocked", &["index", "is_pinned"]),
        ["index=2", "is_pinned=true"]
    );
    assert_eq!(
        fields(&seen, "dax_recall", &["start", "end", "why"]),
        ["start=2", "end=3", "why=wait"]
    );
    assert_eq!(fields(&seen, "dax_unpin", &["start", "owner"]), ["start=1", "owner=nic"]);
}

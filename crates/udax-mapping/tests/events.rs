//! Spans and events: a subscriber sees what the kernel's tracepoints tell, by their names.

mod common;

use common::{TestFile, data, info, mode, range};
use std::collections::BTreeMap;
use std::fmt::Debug;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use udax_mapping::{MapMode, Populate};
use udax_mm::sync::{Arc, Mutex, OnceLock};
use udax_mm::{Access, FileIndex, Pages, PinKind, Wait};

/// A span or an event with the texts of its fields.
type Seen = (&'static str, BTreeMap<&'static str, String>);

/// Remembers all spans and events of the crate, in this thread, in the order of their beginning. An
/// event has the span that it happens in as the field `in`, a span `closed` when it is.
#[derive(Clone, Default)]
struct Witness(Arc<Mutex<Told>>);

#[derive(Default)]
struct Told {
    seen: Vec<Seen>,
    entered: Vec<usize>,
}

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

/// Where a span is in the list.
fn place(span: &Id) -> usize {
    usize::try_from(span.into_u64() - 1).expect("a short list")
}

impl Subscriber for Witness {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "udax_mapping"
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut fields = Fields::default();
        span.record(&mut fields);
        let seen = &mut self.0.lock().seen;
        seen.push((span.metadata().name(), fields.0));
        Id::from_u64(u64::try_from(seen.len()).expect("a short list"))
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        let mut fields = Fields::default();
        values.record(&mut fields);
        self.0.lock().seen[place(span)].1.extend(fields.0);
    }

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut told = self.0.lock();
        if let Some(&span) = told.entered.last() {
            let name = told.seen[span].0;
            fields.0.insert("in", name.to_owned());
        }
        told.seen.push((event.metadata().name(), fields.0));
    }

    fn enter(&self, span: &Id) {
        self.0.lock().entered.push(place(span));
    }

    fn exit(&self, _span: &Id) {
        self.0.lock().entered.pop();
    }

    fn try_close(&self, span: Id) -> bool {
        self.0.lock().seen[place(&span)].1.insert("closed", "yes".to_owned());
        true
    }
}

/// Remembers how spans and events begin in threads that serve faults.
#[derive(Clone, Default)]
struct Handlers(Arc<Mutex<Vec<Seen>>>);

/// The subscriber of every thread that has none of its own. It is always there: while a subscriber is
/// alone, `tracing` asks the thread that comes to a place first whether it listens, and believes that
/// of all.
fn handlers() -> &'static Handlers {
    static HANDLERS: OnceLock<Handlers> = OnceLock::new();
    HANDLERS.get_or_init(|| {
        let handlers = Handlers::default();
        let set = tracing::subscriber::set_global_default(handlers.clone());
        set.expect("it is the only one");
        handlers
    })
}

impl Handlers {
    fn note(&self, name: &'static str, record: impl FnOnce(&mut Fields)) {
        if std::thread::current().name() == Some("udax-fault") {
            let mut fields = Fields::default();
            record(&mut fields);
            self.0.lock().push((name, fields.0));
        }
    }
}

impl Subscriber for Handlers {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "udax_mapping"
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.note(span.metadata().name(), |fields| span.record(fields));
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, values: &Record<'_>) {
        self.note("recorded", |fields| values.record(fields));
    }

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        self.note(event.metadata().name(), |fields| event.record(fields));
    }

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

/// What is told of `run`. Faults of an eager mapping are served by the thread that maps.
fn told_of(run: impl FnOnce()) -> Vec<Seen> {
    handlers();
    let witness = Witness::default();
    tracing::subscriber::with_default(witness.clone(), run);
    let told = std::mem::take(&mut *witness.0.lock());
    assert!(told.entered.is_empty(), "every span that was entered was left");
    told.seen
}

fn names(seen: &[Seen]) -> Vec<&'static str> {
    seen.iter().map(|(name, _)| *name).collect()
}

/// The first span or event of a name, as `field=value` in the order of `fields`.
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
    let seen = told_of(|| {
        file.mapping.map(FileIndex(1), Pages(2), eager(Access::Write)).unwrap();
    });
    assert_eq!(
        fields(&seen, "dax_pte_fault", &["index", "order", "access", "pages", "result", "closed"]),
        ["index=1", "order=0", "access=write", "pages=2", "result=mapped", "closed=yes"]
    );
    assert_eq!(
        fields(&seen, "dax_insert_mapping", &["index", "pages", "access", "in"]),
        ["index=1", "pages=2", "access=write", "in=dax_pte_fault"]
    );
}

#[test]
fn a_fallback_tells_its_reason() {
    let file = TestFile::new(1536, &data(5, 1024));
    let seen = told_of(|| {
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
    let seen = told_of(|| {
        file.mapping.map(FileIndex(0), Pages(512), eager(Access::Read)).unwrap();
    });
    assert_eq!(names(&seen), ["dax_pmd_fault", "dax_pmd_insert_mapping"]);
    assert_eq!(fields(&seen, "dax_pmd_fault", &["order", "pages"]), ["order=9", "pages=512"]);
}

/// Pages of 1 GiB.
const GIB: u64 = 512 * 512;

#[test]
fn a_fault_of_1_gib_goes_by_the_name_of_its_order() {
    let file = TestFile::new(2 * GIB, &data(GIB, GIB));
    let seen = told_of(|| {
        file.mapping.map(FileIndex(0), Pages(GIB), eager(Access::Read)).unwrap();
    });
    assert_eq!(names(&seen), ["dax_pud_fault", "dax_pud_insert_mapping"]);
    assert_eq!(
        fields(&seen, "dax_pud_fault", &["order", "pages", "result"]),
        ["order=18", "pages=262144", "result=mapped"]
    );
    assert_eq!(
        fields(&seen, "dax_pud_insert_mapping", &["index", "order", "pages", "access"]),
        ["index=0", "order=18", "pages=262144", "access=read"]
    );
}

#[test]
fn a_large_hole_goes_by_the_name_of_its_order() {
    for (pages, fault, hole, order) in [
        (512, "dax_pmd_fault", "dax_pmd_load_hole", 9),
        (GIB, "dax_pud_fault", "dax_pud_load_hole", 18),
    ] {
        let file = TestFile::new(8, &vec![None; usize::try_from(pages).unwrap()]);
        let seen = told_of(|| {
            file.mapping.map(FileIndex(0), Pages(pages), eager(Access::Read)).unwrap();
        });
        assert_eq!(names(&seen), [fault, hole]);
        assert_eq!(
            fields(&seen, hole, &["index", "order", "pages", "in"]),
            [
                "index=0".into(),
                format!("order={order}"),
                format!("pages={pages}"),
                format!("in={fault}")
            ]
        );
    }
}

#[test]
fn a_store_to_what_is_shown_already_tells_that_it_becomes_writable() {
    let file = TestFile::new(8, &data(2, 3));
    let _reader = file.mapping.map(FileIndex(0), Pages(3), eager(Access::Read)).unwrap();
    let seen = told_of(|| {
        file.mapping.map(FileIndex(1), Pages(1), eager(Access::Write)).unwrap();
    });
    assert_eq!(
        names(&seen),
        ["dax_pte_fault", "dax_insert_pfn_mkwrite", "dax_fallback", "dax_insert_mapping"]
    );
    assert_eq!(
        fields(&seen, "dax_insert_pfn_mkwrite", &["index", "order", "in"]),
        ["index=1", "order=0", "in=dax_pte_fault"]
    );

    // A large one by its size.
    let file = TestFile::new(1024, &data(512, 512));
    let _reader = file.mapping.map(FileIndex(0), Pages(512), eager(Access::Read)).unwrap();
    let seen = told_of(|| {
        file.mapping.map(FileIndex(7), Pages(1), eager(Access::Write)).unwrap();
    });
    assert_eq!(
        fields(&seen, "dax_insert_pfn_mkwrite", &["index", "order"]),
        ["index=7", "order=9"]
    );
}

#[test]
fn a_hole_tells_how_much_of_it_is_shown() {
    let file = TestFile::new(8, &[Some(1), None, None]);
    let seen = told_of(|| {
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
    let seen = told_of(|| {
        file.mapping.map(FileIndex(2), Pages(1), eager(Access::Write)).unwrap_err();
    });
    let done = fields(&seen, "dax_pte_fault", &["index", "pages", "result", "closed"]);
    assert_eq!(done, ["index=2", "pages=-", "result=no block is free", "closed=yes"]);
}

#[test]
fn writeback_tells_its_range_each_entry_and_the_end() {
    let file = TestFile::new(8, &data(0, 4));
    drop(file.mapping.map(FileIndex(1), Pages(2), eager(Access::Write)).unwrap());
    let seen = told_of(|| file.mapping.writeback(range(0, 4)).unwrap());
    let expected = ["dax_writeback_range", "dax_writeback_one", "dax_writeback_one"];
    assert_eq!(names(&seen), expected);
    assert_eq!(
        fields(&seen, "dax_writeback_range", &["start", "end", "result", "closed"]),
        ["start=0", "end=4", "result=durable", "closed=yes"]
    );
    assert_eq!(
        fields(&seen, "dax_writeback_one", &["index", "pages", "is_clean", "in"]),
        ["index=1", "pages=1", "is_clean=true", "in=dax_writeback_range"]
    );
}

#[test]
fn a_pin_its_recall_and_its_end_are_told() {
    let file = TestFile::new(8, &data(0, 4));
    let seen = told_of(|| {
        let pin = file.mapping.pin(range(1, 3), info("nic", PinKind::Write)).unwrap();
        let deadline = std::time::Instant::now();
        file.truncate(2, Wait::Until(deadline)).unwrap_err();
        drop(pin);
    });
    assert_eq!(
        fields(&seen, "dax_pin", &["start", "end", "owner", "kind", "term"]),
        ["start=1", "end=3", "owner=nic", "kind=write", "term=long"]
    );
    let broken = fields(&seen, "dax_break_layout", &["start", "result", "closed"]);
    let result = "result=page 2 of the file is pinned by nic";
    assert!(broken[0] == "start=2" && broken[1].starts_with(result), "{broken:?}");
    assert_eq!(broken[2], "closed=yes");
    assert_eq!(
        fields(&seen, "dax_break_layout_blocked", &["index", "is_pinned", "in"]),
        ["index=2", "is_pinned=true", "in=dax_break_layout"]
    );
    assert_eq!(
        fields(&seen, "dax_recall", &["start", "end", "why"]),
        ["start=2", "end=3", "why=wait"]
    );
    assert_eq!(fields(&seen, "dax_unpin", &["start", "owner"]), ["start=1", "owner=nic"]);
}

#[test]
fn a_break_tells_that_it_succeeded() {
    let file = TestFile::new(8, &data(0, 4));
    let seen = told_of(|| file.truncate(2, Wait::Never).unwrap());
    assert_eq!(
        fields(&seen, "dax_break_layout", &["start", "result", "closed"]),
        ["start=2", "result=broken", "closed=yes"]
    );
}

#[test]
fn failed_memory_that_a_mapping_meets_is_told() {
    let file = TestFile::new(8, &data(0, 4));
    let map = file.mapping.map(FileIndex(0), Pages(4), eager(Access::Read)).unwrap();
    let span = file.device.direct_access(udax_mm::DeviceOff(2), Pages(1)).unwrap();
    let seen = told_of(|| {
        span.pgmap().memory_failure(span.range());
        file.mapping.poison(FileIndex(2), &span);
    });
    assert_eq!(fields(&seen, "dax_poison", &["index"]), ["index=2"]);
    let why = &fields(&seen, "dax_pte_fault", &["result"])[0];
    assert_eq!(why, "result=the folio cannot be used: page 2 is poisoned");
    map.vma().load_u64(2 * 4096).unwrap_err();
}

/// The thread that serves the fault tells of it, to who listens in all threads.
#[test]
fn a_fault_of_a_lazy_mapping_is_told_by_who_serves_it() {
    let told = handlers();
    let Some(file) = TestFile::lazy(64, &data(5, 40)) else { return };
    let map = file.mapping.map(FileIndex(0), Pages(40), mode(Access::Read, Populate::Lazy));
    let map = map.unwrap();

    map.vma().load_u64(3 * 4096).unwrap();

    // Waits for the thread to be through.
    drop(map);
    let seen = std::mem::take(&mut *told.0.lock());
    assert_eq!(
        names(&seen),
        ["dax_pte_fault", "dax_fallback", "dax_insert_mapping", "recorded", "recorded"]
    );
    assert_eq!(
        fields(&seen, "dax_pte_fault", &["index", "order", "access"]),
        ["index=3", "order=0", "access=read"]
    );
    assert_eq!(fields(&seen, "dax_fallback", &["reason"]), ["reason=bounds"]);
    assert_eq!(fields(&seen, "dax_insert_mapping", &["index", "pages"]), ["index=3", "pages=13"]);
    assert_eq!(fields(&seen, "recorded", &["result"]), ["result=mapped"]);
}

#[test]
fn a_pin_that_fails_is_not_told() {
    // There is no block for its last page.
    let file = TestFile::new(4, &[data(0, 4), vec![None]].concat());
    let seen = told_of(|| {
        file.mapping.pin(range(2, 5), info("nic", PinKind::Write)).unwrap_err();
    });
    let pins: Vec<_> = names(&seen).into_iter().filter(|name| name.contains("pin")).collect();
    assert!(pins.is_empty(), "{pins:?}");
}

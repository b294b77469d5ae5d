//! What an access through a stack costs, next to the same access of the device below.
//!
//! Compare the rows with `bare`: absolute times say something about the machine only.

use divan::{Bencher, black_box, counter::BytesCount};
use udax_dev::{
    DaxBytes, DaxDevice, Line, Linear, Mapped, Member, PgmapDevice, Striped, Table, Target,
};
use udax_mm::media::FileMedia;
use udax_mm::sync::Arc;
use udax_mm::{DeviceOff, MediaRange, MemoryType, Order, Pages, Pgmap};

/// Operations per sample, so that the clock is not what is measured.
const ROUNDS: u64 = 1000;
/// What is copied in one go.
const COPY: Pages = Pages(64 << 8);

fn main() {
    divan::main();
}

fn device(pages: Pages) -> Arc<dyn DaxDevice> {
    let media = FileMedia::memfd("bench", pages.bytes()).expect("memfd works");
    let range = MediaRange { media: Arc::new(media), start: 0, pages };
    let pgmap = Pgmap::new(vec![range], MemoryType::FsDax).expect("the range is good");
    Arc::new(PgmapDevice::new(pgmap))
}

/// A table of `lines` lines of equal length over one device.
fn table(device: &Arc<dyn DaxDevice>, lines: u64) -> Arc<dyn DaxDevice> {
    let pages = Pages(device.size().0 / lines);
    let line = |number: u64| {
        let start = DeviceOff(number * pages.0);
        let target = Target::Linear(Linear::new(Arc::clone(device), start));
        Line { start, pages, target }
    };
    let table = Table::new((0..lines).map(line).collect()).expect("the table is good");
    Arc::new(Mapped::new(table).expect("nobody has the device"))
}

fn striped(devices: u64, each: Pages, chunk: Pages) -> Arc<dyn DaxDevice> {
    let member = |_| Member { device: device(each), from: DeviceOff(0) };
    let target = Target::Striped(Striped::new(chunk, (0..devices).map(member).collect()));
    let line = Line { start: DeviceOff(0), pages: Pages(each.0 * devices), target };
    let table = Table::new(vec![line]).expect("the table is good");
    Arc::new(Mapped::new(table).expect("nobody has the devices"))
}

/// One access for each of many pages all over the device.
fn accesses(bencher: Bencher<'_, '_>, device: &Arc<dyn DaxDevice>) {
    let size = device.size().0;
    bencher.counter(ROUNDS).bench_local(|| {
        for round in 0..ROUNDS {
            let at = DeviceOff(black_box(round.wrapping_mul(0x9e37_79b9) % size));
            black_box(device.direct_access(at, Pages(1)).expect("it lives"));
        }
    });
}

#[divan::bench]
fn bare(bencher: Bencher<'_, '_>) {
    accesses(bencher, &device(Pages(1 << 18)));
}

#[divan::bench(args = [1, 2, 4, 10])]
fn linear_layers(bencher: Bencher<'_, '_>, layers: u64) {
    let bottom = device(Pages(1 << 18));
    accesses(bencher, &(0..layers).fold(bottom, |below, _| table(&below, 1)));
}

#[divan::bench(args = [1, 100, 10_000])]
fn lines(bencher: Bencher<'_, '_>, lines: u64) {
    accesses(bencher, &table(&device(Pages(1 << 18)), lines));
}

#[divan::bench]
fn striped_over_4(bencher: Bencher<'_, '_>) {
    accesses(bencher, &striped(4, Pages(1 << 16), Order::Pmd.pages()));
}

/// Copies in order, 64 MiB at a time.
fn copies(bencher: Bencher<'_, '_>, device: Arc<dyn DaxDevice>) {
    let bytes = DaxBytes::new(device);
    let mut buffer = vec![0; usize::try_from(COPY.bytes()).expect("a buffer fits in memory")];
    // Once before, so that no page is new.
    bytes.write(0, &buffer).expect("it lives");
    bencher
        .counter(BytesCount::new(COPY.bytes()))
        .bench_local(|| bytes.read(0, black_box(&mut buffer)).expect("it lives"));
}

#[divan::bench]
fn copy_of_one_device(bencher: Bencher<'_, '_>) {
    copies(bencher, device(COPY));
}

#[divan::bench]
fn copy_of_4_stripes(bencher: Bencher<'_, '_>) {
    copies(bencher, striped(4, Pages(COPY.0 / 4), Order::Pmd.pages()));
}

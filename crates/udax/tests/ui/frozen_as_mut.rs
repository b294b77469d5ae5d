//! A frozen file gives out no mutable slice.

fn main() {
    let pool = udax::Pool::create_in_memory("ui", 8 << 20).unwrap();
    let mut frozen = pool.open_file("/file").unwrap().frozen().unwrap();
    let bytes: &mut [u8] = &mut frozen;
    bytes.fill(0);
}

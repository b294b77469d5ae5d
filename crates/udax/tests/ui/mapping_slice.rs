//! A mapping is no slice: its bytes may change at any time.

fn main() {
    let pool = udax::Pool::create_in_memory("ui", 8 << 20).unwrap();
    let file = pool.open_file("/file").unwrap();
    let map = file.map(0..4096, &udax::MapOptions::new()).unwrap();
    let bytes: &[u8] = &map;
    drop(bytes);
}

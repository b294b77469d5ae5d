//! The bytes of a frozen file cannot be written.

fn main() {
    let pool = udax::Pool::create_in_memory("ui", 8 << 20).unwrap();
    let frozen = pool.open_file("/file").unwrap().frozen().unwrap();
    frozen[0] = 1;
}

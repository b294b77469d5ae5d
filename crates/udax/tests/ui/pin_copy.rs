//! A pin is one lease: it is not copied and not cloned.

fn main() {
    let pool = udax::Pool::create_in_memory("ui", 8 << 20).unwrap();
    let file = pool.open_file("/file").unwrap();
    let pin = file.pin(0..4096, &udax::PinOptions::new("ui")).unwrap();
    let second = pin.clone();
    drop((pin, second));
}

//! Mounts a pool until it is unmounted: `cargo run -p udax-fuse --example mount -- POOL DIR
//! [SIZE]`.
//!
//! With a size in MiB, the pool is created.

use std::error::Error;

use udax::{CreateOptions, Pool};
use udax_fuse::{MountOptions, mount};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let pool = match &arguments[..] {
        [path, _dir] => Pool::open(path)?,
        [path, _dir, size] => {
            Pool::create(path, size.parse::<u64>()? << 20, &CreateOptions::new())?
        }
        _ => return Err("usage: mount POOL DIR [SIZE in MiB]".into()),
    };
    let session = mount(pool.clone(), &arguments[1], &MountOptions::new())?;
    println!("mounted on {}; `umount` it to stop", session.dir().display());
    session.run()?;
    Ok(pool.close()?)
}

//! Pinned pages of udax files as fixed buffers of `io_uring`.
//!
//! The kernel takes the addresses of a fixed buffer once, and reads and writes files straight into
//! those pages from then on. So the pages must stay what they are for as long as it knows them:
//! [`Registered`] owns the pins, and gives them back only when the buffers are unregistered and no
//! request is under way. Whatever becomes of the udax file meanwhile, the bytes land in the pinned
//! pages and nowhere else.
//!
//! ```
//! use std::io::Write;
//! use udax::{PinKind, PinOptions, Pool};
//! use udax_uring::Ring;
//!
//! let pool = Pool::create_in_memory("example", 8 << 20)?;
//! let file = pool.create_file("/data")?;
//! file.set_len(8192)?;
//! let options = PinOptions::new("example").kind(PinKind::Write).registrable();
//! let pin = file.pin(0..8192, &options)?;
//!
//! let mut source = tempfile::tempfile()?;
//! source.write_all(b"from the disk")?;
//!
//! # let Ok(_) = Ring::new(8) else { return Ok(()) };
//! let mut buffers = Ring::new(8)?.register(vec![pin])?;
//! buffers.read_fixed(&source, 0, 0, 0..13)?;
//! let done = buffers.wait()?.expect("a transfer is under way");
//! assert_eq!(done.result?, 13);
//! let pins = buffers.unregister()?;
//!
//! let mut bytes = [0; 13];
//! pins[0].read(&mut bytes, 0)?;
//! assert_eq!(&bytes, b"from the disk");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! It is **not** a runtime: it has no thread and no executor, and knows two requests, read and
//! write. And it is no way to the rest of `io_uring`, which needs neither pins nor udax.
#![deny(unsafe_code)]

mod buffer;
mod error;
mod registered;
mod ring;
mod shared;
mod table;
mod transfer;

pub use buffer::FixedBuffer;
pub use error::{RegisterError, SetupError, TransferError, UnregisterError};
pub use registered::Registered;
pub use ring::{Refused, Ring};
pub use shared::{Foreign, lend};
pub use transfer::{Completion, TransferId};

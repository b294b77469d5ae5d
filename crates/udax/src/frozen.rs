//! The bytes of a frozen file as a slice.

use std::ops::Deref;

use bytes::Bytes;
use udax_mm::sync::Arc;
use udax_mm::vma::FrozenBytes;

use crate::pool::Inner;

/// The bytes of a frozen file: they cannot change, shrink or vanish while this exists. A clone
/// shares them.
///
/// ```
/// use udax::{Pool, Wait};
///
/// let pool = Pool::create_in_memory("example", 8 << 20)?;
/// pool.write("/model", b"weights")?;
/// let file = pool.open_file("/model")?;
/// file.freeze(Wait::Forever)?;
///
/// let frozen = file.frozen()?;
/// let tail = frozen.clone().into_bytes().slice(3..);
/// assert_eq!(&tail[..], b"ghts");
/// # Ok::<(), udax::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Frozen {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    // Before the pool: the pages are given back before the pool may close.
    bytes: FrozenBytes,
    _pool: Arc<Inner>,
}

impl Frozen {
    /// The same bytes as [`Bytes`], without a copy.
    pub fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }

    pub(crate) fn new(pool: Arc<Inner>, bytes: FrozenBytes) -> Frozen {
        Frozen { shared: Arc::new(Shared { bytes, _pool: pool }) }
    }
}

impl Deref for Frozen {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.shared.bytes
    }
}

impl AsRef<[u8]> for Frozen {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

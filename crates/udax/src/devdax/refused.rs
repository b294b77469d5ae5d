//! What a device refuses to do, and why a device is none.

use udax_mm::Order;

/// Why something could not be done with a device, or why a device cannot be used as it is.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DevDaxError {
    /// A range to be mapped does not start or end at a folio.
    #[error(
        "byte {at}, the {what} of the range, is not a multiple of {}, the alignment of the device",
        size(*.alignment)
    )]
    Misaligned {
        /// `start` or `end`.
        what: &'static str,
        /// The byte of the device.
        at: u64,
        /// The size of the folios.
        alignment: Order,
    },

    /// A private mapping was asked for: its copies would not be folios of the device.
    #[error("a device with an alignment of {} is mapped shared only, never private", size(*.alignment))]
    Private {
        /// The size of the folios.
        alignment: Order,
    },

    /// The device is memory that gives out folios of any size.
    #[error(
        "pages of the device are memory of a filesystem, in folios of any size; bind it as a device"
    )]
    AnyOrder,

    /// The page maps below have folios of different sizes.
    #[error("the device has folios of {} and of {}; use devices of one alignment", size(*.one), size(*.other))]
    Mixed {
        /// One size.
        one: Order,
        /// The other.
        other: Order,
    },

    /// The host maps the memory in larger pages.
    #[error("the host has pages of {host_page} bytes there; use an alignment of at least as many, not {}", size(*.alignment))]
    HostPage {
        /// Bytes in a page of the host.
        host_page: usize,
        /// The alignment that was asked for.
        alignment: Order,
    },

    /// Bytes are lost because their memory failed.
    #[error(
        "bytes {start}..{end} of the device are lost, because their memory failed; overwrite them"
    )]
    Lost {
        /// The first byte that is lost.
        start: u64,
        /// The first byte behind it that is not.
        end: u64,
    },

    /// A write would leave bytes of a page that are lost.
    #[error(
        "bytes {start}..{end} of the device are lost, and only a write of all of them heals them"
    )]
    PartlyLost {
        /// The first byte of the page.
        start: u64,
        /// The first byte behind it.
        end: u64,
    },
}

/// The size of a folio as people say it.
pub(super) fn size(order: Order) -> &'static str {
    match order {
        Order::Base => "4 KiB",
        Order::Pmd => "2 MiB",
        Order::Pud => "1 GiB",
    }
}

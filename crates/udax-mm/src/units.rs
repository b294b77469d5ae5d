//! Units: every index, count and order is a type of its own, so none can stand for another.
//!
//! All of them count pages of [`PAGE_SIZE`] bytes. Byte counts are plain `u64` (of a file or a
//! medium) or `usize` (of a buffer in memory).

use std::fmt;
use std::ops::{Add, Range, Sub};

/// Bytes in a page: the base page of every supported host.
pub const PAGE_SIZE: usize = 4096;

/// [`PAGE_SIZE`] for arithmetic on files and media.
pub const PAGE_BYTES: u64 = 4096;

/// A number of pages.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Pages(pub u64);

impl Pages {
    /// The pages needed to hold `bytes` bytes, rounded up.
    ///
    /// ```
    /// use udax_mm::Pages;
    /// assert_eq!(Pages::holding(4097), Pages(2));
    /// ```
    pub const fn holding(bytes: u64) -> Pages {
        Pages(bytes.div_ceil(PAGE_BYTES))
    }

    /// The number of bytes in this many pages.
    pub const fn bytes(self) -> u64 {
        self.0 * PAGE_BYTES
    }

    /// Whether there are none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl Add for Pages {
    type Output = Pages;
    fn add(self, more: Pages) -> Pages {
        Pages(self.0 + more.0)
    }
}

impl Sub for Pages {
    type Output = Pages;
    fn sub(self, fewer: Pages) -> Pages {
        Pages(self.0 - fewer.0)
    }
}

impl fmt::Display for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The logarithm of how many times larger each order is than the one below. Loom explores every
/// access to a word, so its blocks are small.
pub(crate) const FANOUT_BITS: u32 = if cfg!(loom) { 2 } else { 9 };

/// The size of a folio: the base-two logarithm of its pages.
///
/// Only the three sizes that hosts map exist: 4 KiB, 2 MiB and 1 GiB.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Order {
    /// 4 KiB, one page.
    #[default]
    Base,
    /// 2 MiB, order 9.
    Pmd,
    /// 1 GiB, order 18.
    Pud,
}

impl Order {
    /// Every order, the smallest first.
    pub const ALL: [Order; 3] = [Order::Base, Order::Pmd, Order::Pud];

    /// The logarithm: 0, 9 or 18.
    #[inline]
    pub const fn get(self) -> u32 {
        match self {
            Order::Base => 0,
            Order::Pmd => FANOUT_BITS,
            Order::Pud => 2 * FANOUT_BITS,
        }
    }

    /// Its place in [`Order::ALL`], as part of a word.
    #[inline]
    pub(crate) const fn level(self) -> u64 {
        match self {
            Order::Base => 0,
            Order::Pmd => 1,
            Order::Pud => 2,
        }
    }

    /// The pages in one folio of this order.
    #[inline]
    pub const fn pages(self) -> Pages {
        Pages(1 << self.get())
    }

    /// The next larger order, if there is one.
    #[inline]
    pub const fn larger(self) -> Option<Order> {
        match self {
            Order::Base => Some(Order::Pmd),
            Order::Pmd => Some(Order::Pud),
            Order::Pud => None,
        }
    }

    /// The next smaller order, if there is one.
    #[inline]
    pub const fn smaller(self) -> Option<Order> {
        match self {
            Order::Base => None,
            Order::Pmd => Some(Order::Base),
            Order::Pud => Some(Order::Pmd),
        }
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.get())
    }
}

macro_rules! page_index {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name(pub u64);

        impl $name {
            /// The byte at which this page starts.
            pub const fn byte(self) -> u64 {
                self.0 * PAGE_BYTES
            }

            /// The page that holds byte `byte`.
            pub const fn of_byte(byte: u64) -> $name {
                $name(byte / PAGE_BYTES)
            }

            /// Rounds down to a multiple of the folio size of `order`.
            #[must_use]
            #[inline]
            pub const fn align_down(self, order: Order) -> $name {
                $name(self.0 & !(order.pages().0 - 1))
            }

            /// Whether this is a multiple of the folio size of `order`.
            #[inline]
            pub const fn is_aligned(self, order: Order) -> bool {
                self.0 & (order.pages().0 - 1) == 0
            }

            /// The `count` pages from here on.
            #[inline]
            pub const fn span(self, count: Pages) -> Range<$name> {
                self..$name(self.0 + count.0)
            }

            /// The pages from `earlier` to here.
            ///
            /// # Panics
            ///
            /// Panics if `earlier` is later.
            pub const fn since(self, earlier: $name) -> Pages {
                assert!(self.0 >= earlier.0, "units: the earlier index comes first");
                Pages(self.0 - earlier.0)
            }
        }

        impl Add<Pages> for $name {
            type Output = $name;
            fn add(self, count: Pages) -> $name {
                $name(self.0 + count.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

page_index! {
    /// A page of a page map, counted over all its ranges in order.
    PgmapOff
}
page_index! {
    /// A page of a DAX device.
    DeviceOff
}
page_index! {
    /// A page of a file.
    FileIndex
}
page_index! {
    /// A page of a user mapping, counted from its first address.
    VmaOff
}

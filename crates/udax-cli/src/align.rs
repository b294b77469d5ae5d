//! The alignment of a device: the one size of its folios.

use clap::ValueEnum;
use udax::Order;

/// The three sizes that hosts map.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Align {
    /// 4 KiB
    #[value(name = "4K", alias = "4KiB")]
    Base,
    /// 2 MiB
    #[value(name = "2M", alias = "2MiB")]
    Pmd,
    /// 1 GiB
    #[value(name = "1G", alias = "1GiB")]
    Pud,
}

impl Align {
    pub(crate) fn order(self) -> Order {
        match self {
            Align::Base => Order::Base,
            Align::Pmd => Order::Pmd,
            Align::Pud => Order::Pud,
        }
    }
}

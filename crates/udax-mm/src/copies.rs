//! How words are copied: which instructions this processor has, and from where on a copy is too
//! large for its caches.
//!
//! This file owns the choice. The instructions are in [`bytes`](crate::bytes), and the figures
//! behind the choice in docs/performance.md.

pub(crate) use processor::Copies;

/// Bytes in the unit that is never torn.
pub(crate) const WORD: usize = size_of::<u64>();

/// What [`Copies::way`] chooses from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Way {
    /// The instruction or the loop that every processor has.
    Words,
    /// Vectors of 32 bytes.
    #[cfg(target_arch = "x86_64")]
    Avx,
    /// Stores that go past the caches.
    #[cfg(target_arch = "x86_64")]
    Streaming,
}

/// A range cut at the boundaries of words.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Parts {
    /// Bytes before the first boundary.
    pub(crate) head: usize,
    /// Whole words.
    pub(crate) words: usize,
    /// Bytes after the last boundary.
    pub(crate) tail: usize,
}

impl Parts {
    pub(crate) fn of(address: usize, len: usize) -> Parts {
        let head = (address.wrapping_neg() % WORD).min(len);
        Parts { head, words: (len - head) / WORD, tail: (len - head) % WORD }
    }
}

/// The choice for x86-64.
#[cfg(target_arch = "x86_64")]
mod processor {
    use super::{WORD, Way};
    use crate::sync::OnceLock;
    use std::arch::x86_64::{__cpuid, __cpuid_count};

    /// Bytes from which on the instruction that stores zeros is as fast as vectors. For large
    /// ranges it goes past the caches by itself.
    pub(super) const MANY_ZEROS: usize = 32 << 10;

    /// The last-level cache of a processor that does not tell: a usual one, so that a copy which
    /// would have stayed in the caches rarely goes past them.
    const USUAL_CACHE: usize = 32 << 20;

    /// What decides how words are copied on this processor.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Copies {
        has_vectors: bool,
        /// Bytes from which on a copy goes past the caches.
        streaming_from: usize,
    }

    impl Copies {
        /// What was found out about this processor.
        pub(crate) fn of_this_processor() -> Copies {
            static FOUND: OnceLock<Copies> = OnceLock::new();
            *FOUND.get_or_init(|| Copies {
                has_vectors: std::arch::is_x86_feature_detected!("avx"),
                streaming_from: streaming_from(last_level_cache()),
            })
        }

        /// Chooses for `bytes` bytes to the address `to`.
        pub(crate) fn way(self, to: usize, bytes: usize) -> Way {
            if bytes >= self.streaming_from && to.is_multiple_of(WORD) {
                return Way::Streaming;
            }
            if self.has_vectors { Way::Avx } else { Way::Words }
        }

        /// Chooses for `bytes` zeros.
        pub(crate) fn way_of_zeros(self, bytes: usize) -> Way {
            if self.has_vectors && bytes < MANY_ZEROS { Way::Avx } else { Way::Words }
        }

        /// What chooses as if the processor had vectors.
        #[cfg(test)]
        pub(crate) fn by_vectors(streaming_from: usize) -> Copies {
            Copies { has_vectors: true, streaming_from }
        }

        /// What chooses as if the processor had no vectors.
        #[cfg(test)]
        pub(crate) fn by_words(streaming_from: usize) -> Copies {
            Copies { has_vectors: false, streaming_from }
        }
    }

    /// Bytes from which on source and target of a copy do not fit into the last-level cache
    /// together.
    ///
    /// A smaller copy leaves its target in the cache, and whoever reads it next gains more than
    /// the stores past the cache save. From half of the cache on, the target of an ordinary copy
    /// drives itself out, and ordinary stores read lines from memory that they then overwrite.
    pub(super) fn streaming_from(last_level_cache: Option<usize>) -> usize {
        last_level_cache.unwrap_or(USUAL_CACHE) / 2
    }

    /// Bytes of the last-level cache, if the processor tells.
    fn last_level_cache() -> Option<usize> {
        // The same table stands in leaf 4 (Intel) or 0x8000_001d (AMD); the other one is empty.
        let tables = [(__cpuid(0).eax, 4), (__cpuid(0x8000_0000).eax, 0x8000_001d)];
        let told = tables.into_iter().filter(|&(last_leaf, leaf)| leaf <= last_leaf);
        let rows = told.flat_map(|(_, leaf)| (0..8).map(move |n| __cpuid_count(leaf, n)));
        let caches = rows.filter_map(|row| cache(row.eax, row.ebx, row.ecx));
        caches.max_by_key(|&(level, _)| level).map(|(_, bytes)| bytes)
    }

    /// Level and bytes of one row of the table of caches; None for instructions and past its end.
    pub(super) fn cache(eax: u32, ebx: u32, ecx: u32) -> Option<(u32, usize)> {
        const DATA: u32 = 1;
        const UNIFIED: u32 = 3;
        let (kind, level) = (eax & 0x1f, eax >> 5 & 7);
        let (ways, partitions) = ((ebx >> 22) + 1, (ebx >> 12 & 0x3ff) + 1);
        let sizes = [ways, partitions, (ebx & 0xfff) + 1, ecx.checked_add(1)?];
        let bytes = sizes
            .into_iter()
            .try_fold(1_usize, |product, size| product.checked_mul(usize::try_from(size).ok()?));
        (kind == DATA || kind == UNIFIED).then_some((level, bytes?))
    }
}

/// The choice for other processors, which have one way to copy.
#[cfg(not(target_arch = "x86_64"))]
mod processor {
    use super::Way;

    /// What decides how words are copied on this processor: nothing.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Copies;

    #[expect(clippy::unused_self, reason = "the choice is made as on other processors")]
    impl Copies {
        /// What was found out about this processor.
        pub(crate) fn of_this_processor() -> Copies {
            Copies
        }

        /// Chooses for `bytes` bytes to the address `to`.
        pub(crate) fn way(self, _to: usize, _bytes: usize) -> Way {
            Way::Words
        }

        /// Chooses for `bytes` zeros.
        pub(crate) fn way_of_zeros(self, _bytes: usize) -> Way {
            Way::Words
        }

        /// What chooses as if the processor had no vectors.
        #[cfg(test)]
        pub(crate) fn by_words(_streaming_from: usize) -> Copies {
            Copies
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Parts;

    #[test]
    fn parts_cut_a_range_at_word_boundaries() {
        let check = |address, len, head, words, tail| {
            assert_eq!(Parts::of(address, len), Parts { head, words, tail });
        };
        check(4096, 0, 0, 0, 0);
        check(4096, 24, 0, 3, 0);
        check(4096, 7, 0, 0, 7);
        check(4099, 3, 3, 0, 0);
        check(4099, 5, 5, 0, 0);
        check(4099, 22, 5, 2, 1);
        check(4103, 9, 1, 1, 0);
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod processor_tests {
    use super::Way;
    use super::processor::{Copies, MANY_ZEROS, cache, streaming_from};

    #[test]
    fn a_row_of_the_table_is_ways_by_partitions_by_line_by_sets() {
        // L3 of 32 MiB in 16 ways, and the same row as an instruction cache and past the end.
        assert_eq!(cache(0x163, 0x03c0_003f, 0x7fff), Some((3, 32 << 20)));
        assert_eq!(cache(0x162, 0x03c0_003f, 0x7fff), None);
        assert_eq!(cache(0, 0, 0), None);
    }

    #[test]
    fn a_copy_streams_when_source_and_target_exceed_the_cache() {
        assert_eq!(streaming_from(Some(32 << 20)), 16 << 20);
        assert_eq!(streaming_from(None), 16 << 20);
    }

    #[test]
    fn only_large_copies_to_aligned_words_stream() {
        let copies = Copies::by_vectors(1 << 20);
        assert_eq!(copies.way(64, 1 << 20), Way::Streaming);
        assert_eq!(copies.way(64, (1 << 20) - 8), Way::Avx);
        assert_eq!(copies.way(65, 1 << 20), Way::Avx);
        assert_eq!(Copies::by_words(1 << 20).way(64, 64), Way::Words);
    }

    #[test]
    fn few_zeros_are_stored_in_vectors() {
        let copies = Copies::by_vectors(0);
        assert_eq!(copies.way_of_zeros(MANY_ZEROS - 8), Way::Avx);
        assert_eq!(copies.way_of_zeros(MANY_ZEROS), Way::Words);
        assert_eq!(Copies::by_words(0).way_of_zeros(64), Way::Words);
    }
}

//! Bytes that are known by their place, so that any that went astray are noticed.

/// `len` bytes that differ from those of any other `seed`, and by place.
pub(crate) fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        // The steps of splitmix64, which never repeats within 2^64 words.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&(word ^ (word >> 31)).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_and_lengths_tell_patterns_apart() {
        assert_eq!(bytes(1, 13), bytes(1, 20)[..13]);
        assert_ne!(bytes(1, 16), bytes(2, 16));
        assert_eq!(bytes(1, 0).len(), 0);
    }
}

//! word

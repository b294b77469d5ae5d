//! A valid name of a directory entry: 1..=255 bytes, no '/', no NUL, not "." or "..".
use crate::*;
use std::ffi::OsStr;
/// x
#[derive(Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Name([u8]);
#[allow(unused_variables)]
impl Name {
    /// x
    pub fn new(name: &OsStr) -> Result<Box<Name>, FsError> { todo!() }
    /// x
    pub fn as_bytes(&self) -> &[u8] { &self.0 }
}
impl Clone for Box<Name> { fn clone(&self) -> Self { todo!() } }

//! x
use crate::*;
/// x
#[derive(Clone, Debug)]
pub struct DirEntry { /// x
    pub name: Name, /// x
    pub ino: Ino, /// x
    pub kind: Kind, /// where reading continues after this entry
    pub next: u64 }
/// x
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RenameMode { /// an existing target is replaced atomically
    Replace, /// an existing target is an error
    NoReplace, /// both names change places
    Exchange }

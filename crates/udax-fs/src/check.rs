//! x
/// What the offline walk found
#[derive(Clone, Debug, Default)]
pub struct CheckReport { /// x
    pub files: u64, /// x
    pub dirs: u64, /// x
    pub symlinks: u64, /// x
    pub used: u64, /// pages
    pub free: u64, /// empty = clean
    pub problems: Vec<Problem> }
/// One thing that is wrong: names the object and what was found
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem { /// "inode 12", "superblock", "directory 3, cell 17"
    pub object: String, /// x
    pub found: String }

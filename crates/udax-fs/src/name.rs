//! Names of directory entries: a [`Name`] is checked once, where it enters, and is valid from then
//! on.

use std::borrow::Borrow;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;

use crate::FsError;

/// A valid name of a directory entry.
///
/// It has 1 to 255 bytes, none of them `/` or NUL, and is neither `.` nor `..`. It need not be
/// UTF-8.
///
/// ```
/// use std::ffi::OsStr;
/// use udax_fs::{FsError, Name};
///
/// let name = Name::new(OsStr::new("notes.txt"))?;
/// assert_eq!(name.as_bytes(), b"notes.txt");
/// assert!(matches!(Name::new(OsStr::new("a/b")), Err(FsError::BadName { .. })));
/// # Ok::<(), FsError>(())
/// ```
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Name(Box<[u8]>);

impl Name {
    /// The most bytes a name has.
    pub const MAX: usize = 255;

    /// Checks `name`.
    ///
    /// # Errors
    ///
    /// Returns [`FsError::NameTooLong`] above [`Name::MAX`] bytes, and [`FsError::BadName`] with
    /// the reason for everything else that cannot be a name.
    pub fn new(name: &OsStr) -> Result<Name, FsError> {
        Name::from_bytes(name.as_bytes())
    }

    /// Checks the bytes of a name.
    pub(crate) fn from_bytes(name: &[u8]) -> Result<Name, FsError> {
        let why = match name {
            b"" => "it is empty",
            b"." => "it is `.`",
            b".." => "it is `..`",
            _ if name.contains(&b'/') => "it contains `/`",
            _ if name.contains(&0) => "it contains a NUL byte",
            _ if name.len() > Name::MAX => return Err(FsError::NameTooLong(name.len())),
            _ => return Ok(Name(name.into())),
        };
        Err(FsError::BadName { why })
    }

    /// The bytes of the name.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The name as the operating system writes it.
    pub fn as_os_str(&self) -> &OsStr {
        OsStr::from_bytes(&self.0)
    }
}

/// Lets maps keyed by names be asked with bytes.
impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_os_str().fmt(f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_os_str().display().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_path_component_of_at_most_255_bytes() {
        let longest = [b'x'; 255];
        let too_long = [b'x'; 256];
        let valid: [&[u8]; 5] = [b"a", b"...", b".hidden", &[0xff, 0xfe], &longest];
        for name in valid {
            assert_eq!(Name::from_bytes(name).expect("valid").as_bytes(), name);
        }
        let invalid: [&[u8]; 6] = [b"", b".", b"..", b"a/b", b"/", b"a\0b"];
        for name in invalid {
            assert!(matches!(Name::from_bytes(name), Err(FsError::BadName { .. })), "{name:?}");
        }
        assert!(matches!(Name::from_bytes(&too_long), Err(FsError::NameTooLong(256))));
    }
}

//! Names of files on the command line: `POOL:/path` in a pool, a plain path on the host.
//!
//! The first `:/` behind the name of a file of the host divides, and that file is the pool; if
//! there is none, the first of all. Names are bytes and need not be UTF-8.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use clap::builder::{OsStringValueParser, TypedValueParser};

/// A path inside a pool.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct PoolPath {
    pool: PathBuf,
    path: PathBuf,
    ends_in_dot: bool,
    ends_in_slash: bool,
}

/// A file in a pool, or on the host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Target {
    /// `POOL:/path`
    Pool(PoolPath),
    /// Anything else.
    Host(PathBuf),
}

/// Why an argument names no file of a pool.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum TargetError {
    /// Nothing at all.
    #[error("the path is empty; write POOL:/path for a file in a pool")]
    Empty,
    /// Nothing before `:/`.
    #[error("no pool is named before `:/`; write POOL:/path")]
    NoPool,
    /// A host path where a path in a pool is wanted.
    #[error("`{}` is a path on the host; write POOL:/path for a file in a pool", .0.display())]
    Host(PathBuf),
}

impl PoolPath {
    /// The pool's file on the host.
    pub(crate) fn pool(&self) -> &Path {
        &self.pool
    }

    /// The absolute path inside the pool, without `.` and `..`.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a slash at the end says that this is a directory.
    pub(crate) fn ends_in_slash(&self) -> bool {
        self.ends_in_slash
    }

    /// The name a copy of this gets inside a directory; none for the root and for `dir/.`, which
    /// stand for what they contain.
    pub(crate) fn copy_name(&self) -> Option<&OsStr> {
        if self.ends_in_dot { None } else { self.path.file_name() }
    }

    /// The parser of arguments that must be `POOL:/path`.
    pub(crate) fn parser() -> impl TypedValueParser<Value = PoolPath> {
        OsStringValueParser::new().try_map(|text| match Target::parse(&text)? {
            Target::Pool(path) => Ok(path),
            Target::Host(path) => Err(TargetError::Host(path)),
        })
    }

    /// The parser of arguments where a bare `POOL` stands for its root directory.
    pub(crate) fn or_root_parser() -> impl TypedValueParser<Value = PoolPath> {
        OsStringValueParser::new().try_map(|text| {
            Ok::<_, TargetError>(match Target::parse(&text)? {
                Target::Pool(path) => path,
                Target::Host(pool) => PoolPath {
                    pool,
                    path: PathBuf::from("/"),
                    ends_in_dot: false,
                    ends_in_slash: true,
                },
            })
        })
    }
}

impl Target {
    /// The name a copy of this gets inside a directory; none for a root, `.`, `..` and `dir/.`,
    /// which stand for what they contain.
    pub(crate) fn copy_name(&self) -> Option<&OsStr> {
        match self {
            Target::Pool(path) => path.copy_name(),
            Target::Host(path) if ends_in_dot(path) => None,
            Target::Host(path) => path.file_name(),
        }
    }

    /// Whether a slash at the end says that this is a directory.
    pub(crate) fn ends_in_slash(&self) -> bool {
        match self {
            Target::Pool(path) => path.ends_in_slash(),
            Target::Host(path) => path.as_os_str().as_bytes().ends_with(b"/"),
        }
    }

    /// The parser of arguments that may be either.
    pub(crate) fn parser() -> impl TypedValueParser<Value = Target> {
        OsStringValueParser::new().try_map(|text| Target::parse(&text))
    }

    /// Divides `text` into a pool and a path in it, if it names both.
    ///
    /// # Errors
    ///
    /// Fails if `text` is empty, or nothing comes before `:/`.
    pub(crate) fn parse(text: &OsStr) -> Result<Target, TargetError> {
        let bytes = text.as_bytes();
        if bytes.is_empty() {
            return Err(TargetError::Empty);
        }
        let Some(colon) = divide(bytes) else {
            return Ok(Target::Host(PathBuf::from(text)));
        };
        if colon == 0 {
            return Err(TargetError::NoPool);
        }
        let (pool, path) = bytes.split_at(colon);
        let path = Path::new(OsStr::from_bytes(path.get(1..).expect("the colon is there")));
        Ok(Target::Pool(PoolPath {
            pool: PathBuf::from(OsString::from_vec(pool.to_vec())),
            path: normal(path),
            ends_in_dot: ends_in_dot(path),
            ends_in_slash: path.as_os_str().as_bytes().ends_with(b"/"),
        }))
    }
}

impl fmt::Display for PoolPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.pool.display(), self.path.display())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Pool(path) => path.fmt(f),
            Target::Host(path) => path.display().fmt(f),
        }
    }
}

/// Where the colon between a pool and a path in it stands in `text`. A file of the host may have
/// `:/` in its path too.
fn divide(text: &[u8]) -> Option<usize> {
    let is_file = |end: usize| {
        let path = Path::new(OsStr::from_bytes(text.get(..end).expect("it ends in the text")));
        path.metadata().is_ok_and(|metadata| !metadata.is_dir())
    };
    let pairs = text.windows(2).enumerate();
    let colons: Vec<usize> = pairs.filter(|(_, pair)| pair == b":/").map(|(n, _)| n).collect();
    let behind_file = colons.iter().copied().find(|&colon| is_file(colon));
    match behind_file {
        None if is_file(text.len()) => None,
        None => colons.first().copied(),
        found => found,
    }
}

/// Whether the last component is `.`, which [`Path`] drops.
fn ends_in_dot(path: &Path) -> bool {
    let bytes = path.as_os_str().as_bytes();
    bytes == b"." || bytes.ends_with(b"/.")
}

/// Resolves `.` and `..` by name alone, as a URL does; `..` at the root stays there.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => normal.push(name),
            Component::ParentDir => {
                normal.pop();
            }
            Component::Prefix(_) | Component::RootDir | Component::CurDir => {}
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(pool: &str, path: &str) -> Target {
        Target::Pool(PoolPath {
            pool: pool.into(),
            path: path.into(),
            ends_in_dot: false,
            ends_in_slash: false,
        })
    }

    #[test]
    fn what_stands_for_its_contents_has_no_name_of_its_own() {
        let cases = [
            ("p:/", None),
            ("p:/a/.", None),
            ("p:/a", Some("a")),
            ("p:/a/", Some("a")),
            ("a/.", None),
            (".", None),
            ("..", None),
            ("/", None),
            ("a/b", Some("b")),
        ];
        for (text, name) in cases {
            let target = Target::parse(OsStr::new(text)).unwrap();
            assert_eq!(target.copy_name(), name.map(OsStr::new), "{text}");
        }
    }

    #[test]
    fn the_first_colon_slash_divides_pool_and_path() {
        let cases = [
            ("p:/", Ok(pool("p", "/"))),
            ("dir/p.udax:/a/b", Ok(pool("dir/p.udax", "/a/b"))),
            ("p:/a:/b", Ok(pool("p", "/a:/b"))),
            ("p:/a/../b/./c/", Ok(pool("p", "/b/c"))),
            ("p:/../..", Ok(pool("p", "/"))),
            ("p:", Ok(Target::Host("p:".into()))),
            ("a:b", Ok(Target::Host("a:b".into()))),
            ("/etc/hosts", Ok(Target::Host("/etc/hosts".into()))),
            (":/a", Err(TargetError::NoPool)),
            ("", Err(TargetError::Empty)),
        ];
        for (text, target) in cases {
            let mut found = Target::parse(OsStr::new(text));
            if let Ok(Target::Pool(path)) = &mut found {
                path.ends_in_slash = false;
            }
            assert_eq!(found, target, "{text}");
        }
    }

    #[test]
    fn names_that_are_not_utf8_are_kept() {
        let target = Target::parse(OsStr::from_bytes(b"p:/\xff")).unwrap();
        let Target::Pool(path) = target else { panic!("a pool path") };
        assert_eq!(path.path().as_os_str().as_bytes(), b"/\xff");
    }
}

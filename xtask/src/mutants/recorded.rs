//! The mutants on record: `xtask/mutants/<crate>.toml`, one file per crate that has them.
//!
//! ```toml
//! package = "udax-mm"
//!
//! [[mutant]]
//! name = "a get revives an idle page"           # unique in all files
//! file = "src/word.rs"                          # in the crate
//! find = "v.is_counted().then(|| v.plus(REF))"  # occurs there exactly once
//! replace = "Some(v.plus(REF))"
//! why = "rule 2, I-13"                          # the rule, invariant, bug or trap it stands for
//! test = "pages::folio::get_folio_never_starts_a_count"
//! ```
//!
//! `test` starts with the target: `lib`, or the name of an integration test. A target whose name
//! starts with `loom` is built with `--cfg loom`; `loom-lib` is the library, built so; `schedules`
//! is built with `--cfg shuttle`, and run from one seed. A mutant
//! that a test of another crate kills says so with `test_package`.

use crate::source;
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::Path;

/// Where the files lie, from the root of the workspace.
pub(crate) const FOLDER: &str = "xtask/mutants";

/// One way to break the code, and who has to notice.
#[derive(Debug, Serialize)]
pub(crate) struct Mutant {
    pub(crate) name: String,
    /// From the root of the workspace.
    pub(crate) file: String,
    find: String,
    replace: String,
    pub(crate) why: String,
    pub(crate) test: TestName,
}

/// One test: package, target and the path that the test program knows it by.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub(crate) struct TestName {
    pub(crate) package: String,
    pub(crate) target: Target,
    pub(crate) path: String,
}

/// What cargo builds the test into.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Target {
    Lib,
    /// The program of a package.
    Bins,
    Test(String),
    /// The library under `--cfg loom`.
    LoomLib,
    /// An integration test under `--cfg loom`.
    Loom(String),
    /// The integration test `schedules`, under `--cfg shuttle`.
    Shuttle,
}

/// A text with a mutant in it, if it has one place for it.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Applied {
    Once(String),
    /// The text to replace was found this often.
    Found(usize),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    package: String,
    mutant: Vec<Record>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    name: String,
    file: String,
    find: String,
    replace: String,
    why: String,
    test: String,
    test_package: Option<String>,
}

/// Every mutant of every file.
pub(crate) fn all() -> Result<Vec<Mutant>> {
    let folder = source::root().join(FOLDER);
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {FOLDER}"))?;
    let mut paths: Vec<_> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    let mut mutants = Vec::new();
    for path in paths {
        mutants.extend(read(&path).with_context(|| format!("cannot use {}", path.display()))?);
    }
    check_names(&mutants)?;
    Ok(mutants)
}

fn read(path: &Path) -> Result<Vec<Mutant>> {
    parse(&fs::read_to_string(path)?)
}

fn parse(text: &str) -> Result<Vec<Mutant>> {
    let File { package, mutant } = toml::from_str(text)?;
    mutant.into_iter().map(|record| Mutant::new(&package, record)).collect()
}

fn check_names(mutants: &[Mutant]) -> Result<()> {
    let mut names = BTreeSet::new();
    match mutants.iter().find(|mutant| !names.insert(&mutant.name)) {
        Some(twice) => bail!("two mutants are named `{}`", twice.name),
        None => Ok(()),
    }
}

impl Mutant {
    fn new(package: &str, record: Record) -> Result<Mutant> {
        let Record { name, file, find, replace, why, test, test_package } = record;
        ensure!(!find.is_empty() && find != replace, "mutant `{name}` changes nothing");
        let (target, path) = test
            .split_once("::")
            .with_context(|| format!("test `{test}` of mutant `{name}` has no target"))?;
        let test = TestName {
            package: test_package.unwrap_or_else(|| package.to_owned()),
            target: Target::named(target),
            path: path.to_owned(),
        };
        Ok(Mutant { name, file: format!("crates/{package}/{file}"), find, replace, why, test })
    }

    /// `text` with the mutant in it.
    pub(crate) fn apply(&self, text: &str) -> Applied {
        match text.matches(&self.find).count() {
            1 => Applied::Once(text.replacen(&self.find, &self.replace, 1)),
            times => Applied::Found(times),
        }
    }

    /// Whether one of the facts recorded contains `text`.
    pub(crate) fn mentions(&self, text: &str) -> bool {
        let test = self.test.to_string();
        [&self.name, &self.file, &self.why, &test].into_iter().any(|fact| fact.contains(text))
    }
}

impl TestName {
    /// The name of the test's function.
    pub(crate) fn function(&self) -> &str {
        self.path.rsplit("::").next().expect("a split text has a part")
    }

    /// Where the source of the test lies: a file `<this>.rs`, or files below `<this>/`.
    pub(crate) fn place(&self) -> String {
        let package = &self.package;
        match &self.target {
            Target::Lib | Target::Bins | Target::LoomLib => format!("crates/{package}/src"),
            Target::Test(name) | Target::Loom(name) => format!("crates/{package}/tests/{name}"),
            Target::Shuttle => format!("crates/{package}/tests/schedules"),
        }
    }
}

impl Target {
    fn named(name: &str) -> Target {
        match name {
            "lib" => Target::Lib,
            "bins" => Target::Bins,
            "loom-lib" => Target::LoomLib,
            "schedules" => Target::Shuttle,
            loom if loom.starts_with("loom") => Target::Loom(loom.to_owned()),
            test => Target::Test(test.to_owned()),
        }
    }
}

impl fmt::Display for TestName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = match &self.target {
            Target::Lib => "lib",
            Target::Bins => "bins",
            Target::LoomLib => "loom-lib",
            Target::Shuttle => "schedules",
            Target::Test(name) | Target::Loom(name) => name,
        };
        write!(f, "{} {target}::{}", self.package, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(find: &str, test: &str) -> String {
        format!(
            "package = 'udax-mm'\n[[mutant]]\nname = 'n'\nfile = 'src/word.rs'\nfind = '{find}'\n\
             replace = 'b'\nwhy = 'rule 2'\ntest = '{test}'\n"
        )
    }

    fn one(find: &str, test: &str) -> Mutant {
        parse(&record(find, test)).unwrap().remove(0)
    }

    #[test]
    fn a_record_names_its_file_from_the_root_and_its_test_by_target() {
        let test = |test| {
            let mutant = one("a", test);
            assert_eq!(mutant.file, "crates/udax-mm/src/word.rs");
            (mutant.test.target.clone(), mutant.test.path.clone(), mutant.test.place())
        };
        let place = |rest| format!("crates/udax-mm/{rest}");
        let lib = (Target::Lib, "word::tests::x".into(), place("src"));
        assert_eq!(test("lib::word::tests::x"), lib);
        let bins = (Target::Bins, "word::tests::x".into(), place("src"));
        assert_eq!(test("bins::word::tests::x"), bins);
        let pages = (Target::Test("pages".into()), "claim::x".into(), place("tests/pages"));
        assert_eq!(test("pages::claim::x"), pages);
        let loom = (Target::Loom("loom_live".into()), "x".into(), place("tests/loom_live"));
        assert_eq!(test("loom_live::x"), loom);
        let loom_lib = (Target::LoomLib, "live::races::x".into(), place("src"));
        assert_eq!(test("loom-lib::live::races::x"), loom_lib);
        let schedules = (Target::Shuttle, "x".into(), place("tests/schedules"));
        assert_eq!(test("schedules::x"), schedules);
    }

    #[test]
    fn a_record_that_changes_nothing_or_names_no_target_is_refused() {
        for bad in [record("b", "lib::x"), record("", "lib::x"), record("a", "x")] {
            assert!(parse(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_key_that_is_not_known_is_refused() {
        assert!(parse(&(record("a", "lib::x") + "because = 'typo'\n")).is_err());
    }

    #[test]
    fn a_test_may_belong_to_another_crate() {
        let text = record("a", "user::x") + "test_package = 'udax-mapping'\n";
        let mutant = parse(&text).unwrap().remove(0);
        assert_eq!(mutant.test.place(), "crates/udax-mapping/tests/user");
        assert_eq!(mutant.file, "crates/udax-mm/src/word.rs");
    }

    #[test]
    fn a_mutant_applies_where_its_text_occurs_once() {
        let mutant = one("a", "lib::x");
        assert_eq!(mutant.apply("x a y"), Applied::Once("x b y".into()));
        assert_eq!(mutant.apply("x y"), Applied::Found(0));
        assert_eq!(mutant.apply("a a"), Applied::Found(2));
    }

    #[test]
    fn names_are_unique() {
        assert!(check_names(&[one("a", "lib::x"), one("c", "lib::x")]).is_err());
        assert!(check_names(&[one("a", "lib::x")]).is_ok());
    }

    #[test]
    fn a_mutant_is_found_by_any_of_its_facts() {
        let mutant = one("a", "pages::claim::x");
        for text in ["n", "word.rs", "rule 2", "claim::x"] {
            assert!(mutant.mentions(text), "{text}");
        }
        assert!(!mutant.mentions("rule 3"));
    }
}

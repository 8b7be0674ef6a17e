//! The corpus as the tests read it, and cases made up beside it.
#![allow(clippy::disallowed_methods, reason = "reads its own files, none of the user's")]
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use kometa_authd::provider::{MAL, Provider, TRAKT};
use kometa_authd::splice::{Change, Edit, Refused, Spliced, splice};
use kometa_authd::token::{Grant, Secret};
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;

pub mod generate;

/// One folder of the corpus, or a case like it.
pub struct Case {
    pub name: String,
    pub folder: PathBuf,
    pub before: String,
    pub provider: &'static Provider,
    pub empty: bool,
    pub grant: Grant,
}

/// What a person needs to see of a failing case. Its tokens are made up.
impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} for {}, empty: {}", self.name, self.provider.name, self.empty)?;
        let refresh_token = self.grant.refresh_token.as_ref().map(Secret::expose);
        writeln!(f, "tokens {:?} {refresh_token:?}", self.grant.access_token.expose())?;
        write!(f, "{:?}\n{}", self.before, self.before)
    }
}

impl Case {
    /// Makes the case's edit in a text.
    pub fn splice(&self, text: &str) -> Result<Spliced, Refused> {
        let change = if self.empty { Change::Empty } else { Change::Write(&self.grant) };
        splice(text, &Edit { provider: self.provider, change, clear_once_key: true })
    }

    /// The reason why the case is refused, where it is.
    pub fn refusal(&self) -> Option<String> {
        fs::read_to_string(self.folder.join("refused.txt")).ok()
    }
}

/// That many made-up cases, the same ones every time.
pub fn generated(count: usize) -> Vec<Case> {
    let mut runner = TestRunner::deterministic();
    let case = |number| Case {
        name: format!("generated {number}"),
        ..generate::case().new_tree(&mut runner).expect("a strategy that always gives").current()
    };
    (0..count).map(case).collect()
}

/// Every folder of the corpus, by name.
pub fn cases() -> Vec<Case> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut folders: Vec<PathBuf> = fs::read_dir(&corpus)
        .expect("the corpus")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    folders.into_iter().map(|folder| case(&corpus, folder)).collect()
}

fn case(corpus: &Path, folder: PathBuf) -> Case {
    let name = folder.file_name().expect("a name").to_string_lossy().into_owned();
    let empty = name.starts_with("empty-");
    let provider = if name.trim_start_matches("empty-").starts_with("mal") { &MAL } else { &TRAKT };
    let own = folder.join("grant.json");
    let grant_path = if own.exists() { own } else { corpus.join(format!("{}.json", provider.name)) };
    let grant = Grant::from_json(&fs::read(&grant_path).expect("a grant file")).expect("a grant");
    let before = fs::read_to_string(folder.join("before.yml")).expect("before.yml");
    Case { name, folder, before, provider, empty, grant }
}

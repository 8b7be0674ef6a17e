//! What an edit costs, beside reading the same file from the disk.
//!
//! `cargo bench --bench splice`. The figures are in `DESIGN.md`.
#![allow(clippy::disallowed_methods, reason = "reads its own files, none of the user's")]

use std::fs;
use std::path::PathBuf;

use divan::{Bencher, black_box};
use kometa_authd::provider::TRAKT;
use kometa_authd::splice::{Change, Edit, splice};
use kometa_authd::token::Grant;
use kometa_authd::yaml::Document;

/// A usual config, a large one, and one far larger than any.
const SIZES: [usize; 3] = [8 << 10, 100 << 10, 1 << 20];

fn main() {
    divan::main();
}

#[divan::bench(args = SIZES)]
fn edit(bencher: Bencher<'_, '_>, bytes: usize) {
    let text = config(bytes);
    let answer = br#"{"access_token":"4f3c9e","token_type":"bearer","expires_in":604800,"refresh_token":"77ab","scope":"public","created_at":1763820000}"#;
    let grant = Grant::from_json(answer).expect("a grant");
    bencher.bench(|| {
        let edit = Edit { provider: &TRAKT, change: Change::Write(&grant), clear_once_key: true };
        splice(black_box(&text), &edit).map(|spliced| spliced.text.len())
    });
}

#[divan::bench(args = SIZES)]
fn parse(bencher: Bencher<'_, '_>, bytes: usize) {
    let text = config(bytes);
    bencher.bench(|| Document::parse(black_box(&text)).map(|document| document.root.span.end));
}

#[divan::bench(args = SIZES)]
fn read_the_file(bencher: Bencher<'_, '_>, bytes: usize) {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-{bytes}.yml"));
    fs::write(&path, config(bytes)).expect("the target folder is writable");
    bencher.bench(|| fs::read_to_string(black_box(&path)).map(|text| text.len()));
}

/// A config as people write them: comments, libraries, and the section in the middle.
fn config(bytes: usize) -> String {
    let library = |number: usize| {
        format!(
            "  Library {number}:          # shelf {number}\n    collection_files:\n      - default: basic   # the usual\n      \
             - file: config/collections-{number}.yml\n    # overlays come later\n    operations:\n      \
             mass_genre_update: tmdb\n      delete_collections:\n        managed: true\n    schedule: \"weekly(sunday)\"\n"
        )
    };
    let mut numbers = 0..;
    let mut fill = |from: usize| {
        let mut text = String::new();
        while text.len() < from {
            text += &numbers.next().map(library).unwrap_or_default();
        }
        text
    };
    let section = "trakt:\n  client_id: 0123abcd      # from the application's page\n  client_secret: 4567ef\n  pin: 123456\n  \
                   authorization:\n    # filled in by hand once\n    access_token: old\n    token_type: bearer\n    \
                   expires_in: 1\n    refresh_token: old\n    scope:\n    created_at: 1\n";
    format!("# my config\nlibraries:\n{}{section}more:\n{}", fill(bytes / 2), fill(bytes / 2 - section.len()))
}

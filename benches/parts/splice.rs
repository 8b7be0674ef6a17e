//! What an edit costs, beside reading the same file from the disk.

use std::fs;
use std::path::PathBuf;

use divan::{Bencher, black_box};
use kometa_authd::provider::TRAKT;
use kometa_authd::splice::{Change, Edit, splice};
use kometa_authd::token::Grant;
use kometa_authd::yaml::Document;

use super::{SIZES, config, grant};

#[divan::bench(args = SIZES)]
fn edit(bencher: Bencher<'_, '_>, bytes: usize) {
    let text = config(bytes);
    let grant = Grant::from_json(grant("4f3c9e", "77ab").as_bytes()).expect("a grant");
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

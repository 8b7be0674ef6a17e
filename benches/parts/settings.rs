//! What it costs to find the accounts in a config.

use divan::{Bencher, black_box};
use kometa_authd::settings::{References, parse};

use super::{SIZES, config};

#[divan::bench(args = SIZES)]
fn settings(bencher: Bencher<'_, '_>, bytes: usize) {
    let (text, references) = (config(bytes), References::default());
    bencher.bench(|| parse(black_box(&text), &references).map(|settings| settings.sections.len()));
}

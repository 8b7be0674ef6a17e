//! What a look at an account costs that has forgotten nothing: its journal, read into a history.
//!
//! `cargo bench --bench journal`. The figures are in `DESIGN.md`.

use std::path::Path;

use divan::{Bencher, black_box};
use kometa_authd::disk::{Disk as _, Open, RealDisk};
use kometa_authd::journal::{Journal, Record, replay};
use kometa_authd::token::Fingerprint;

fn main() {
    divan::main();
}

/// Replays a journal with so many spent tokens in it.
#[divan::bench(args = [0, 100, 1000])]
fn replay_spent(bencher: Bencher<'_, '_>, tokens: u32) {
    let disk = RealDisk;
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-{tokens}.journal"));
    let _ = disk.remove(&path);
    let spent = (0..tokens).map(|n| Fingerprint::of(&n.to_le_bytes())).collect();
    let mut journal = Journal::open(&disk, &path).expect("the target folder is writable");
    journal.add(&disk, &Record::Spent(spent)).expect("the target folder is writable");
    let file = disk.open(&path, Open::Read).expect("it is there");
    let bytes = disk.read(&file, 1 << 20).expect("it is there").0;
    bencher.bench(|| replay(black_box(&bytes)).1);
}

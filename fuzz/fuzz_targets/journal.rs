//! Any bytes are a journal: what is whole in them counts, what is torn does not, and what is added stays.
//!
//! The first two bytes say where the file is cut and which bit of it flips. Each further line is one of
//! the file; where it begins with `{` it gets the right checksum, so that any record can be tried:
//! `cargo +nightly fuzz run journal fuzz/corpus/journal -- -dict=fuzz/journal.dict -max_len=4096 -timeout=10`

#![no_main]

mod memory;

use std::path::Path;

use kometa_authd::journal::{History, Intent, Journal, Record, replay};
use kometa_authd::token::{Fingerprint, UnixSeconds};
use libfuzzer_sys::fuzz_target;
use memory::Memory;

fuzz_target!(|data: &[u8]| {
    let (choice, text) = data.split_at(data.len().min(2));
    let choice = choice.iter().fold(0, |choice, byte| choice * 256 + usize::from(*byte));
    // As it is, too.
    let _ = replay(text);

    let lines: Vec<Vec<u8>> = text.split_inclusive(|byte| *byte == b'\n').map(sealed).collect();
    let bytes = lines.concat();
    let (history, end) = replay(&bytes);
    assert!(end == 0 || bytes[..end].ends_with(b"\n"));
    let whole: Vec<&Vec<u8>> = lines.iter().filter(|line| replay(line).1 > 0).collect();
    assert!(history == added_up(&whole), "what is torn or no record counts");

    broken(&bytes, &history, &lines, choice);
    goes_on(&bytes, &history);
});

/// A line as the journal writes it, where it may be a record.
fn sealed(line: &[u8]) -> Vec<u8> {
    match line.strip_suffix(b"\n") {
        Some(json) if json.starts_with(b"{") => [format!("{} ", Fingerprint::of(json)).as_bytes(), line].concat(),
        _ => line.to_vec(),
    }
}

fn added_up(lines: &[&Vec<u8>]) -> History {
    let bytes: Vec<u8> = lines.iter().flat_map(|line| line.iter().copied()).collect();
    replay(&bytes).0
}

/// A cut costs the line that it is in; a flipped bit costs its line, or two where it joins them.
fn broken(bytes: &[u8], history: &History, lines: &[Vec<u8>], choice: usize) {
    if bytes.is_empty() {
        return;
    }
    let at = choice % bytes.len();
    let mut start = 0;
    let hit = lines.iter().position(|line| {
        start += line.len();
        at < start
    });
    let hit = hit.expect("the offset is in a line");
    let all: Vec<&Vec<u8>> = lines.iter().collect();
    assert!(replay(&bytes[..at]).0 == added_up(&all[..hit]), "a cut cost more than its line");

    let mut flipped = bytes.to_vec();
    flipped[at] ^= 1 << (choice % 8);
    let without = |count: usize| {
        let rest = all.get(hit + count..).unwrap_or_default();
        added_up(&[&all[..hit], rest].concat())
    };
    let found = replay(&flipped).0;
    // A hexadecimal digit may be a capital.
    assert!(found == without(1) || found == without(2) || found == *history, "a bit cost more than its line");
}

/// Opened, written on and opened again, a journal adds up to what was said; and so it does written anew.
fn goes_on(bytes: &[u8], history: &History) {
    let (folder, path) = (Path::new("/state"), Path::new("/state/config.yml#trakt.journal"));
    let disk = Memory::default();
    disk.put(path, bytes);
    assert!(Journal::peek(&disk, path).expect("it can be read") == *history);
    let mut journal = Journal::open(&disk, path).expect("it can be opened");
    assert!(journal.history == *history);

    let mut expected = history.clone();
    let intent = Record::Intent(Intent { spends: Fingerprint::of(b"spends"), at: UnixSeconds(1_795_348_800) });
    journal.reserve(&disk, &intent, folder).expect("there is room");
    let size = disk.size(path);
    let edit = Record::Edit(Fingerprint::of(b"before"), Fingerprint::of(b"after"));
    let held = history.current.clone().map_or(Record::Published, Record::Held);
    journal.add(&disk, &held).expect("there is room");
    journal.add(&disk, &edit).expect("there is room");
    assert!(disk.size(path) == size, "the reserved space was not used");
    for record in [&intent, &held, &edit] {
        expected.apply(record);
    }
    assert!(journal.history == expected);
    let again = Journal::open(&disk, path).expect("it can be opened");
    assert!(again.history == expected, "what was added is not there");
    again.compact(&disk, path).expect("it can be written anew");
    assert!(Journal::peek(&disk, path).expect("it can be read") == expected, "written anew it says something else");
}

//! What a decision costs, and what it costs to know the history that it is made from.

use divan::{Bencher, black_box};
use kometa_authd::decision::{Facts, Kometa, Seen, Urgency, decide};
use kometa_authd::journal::{Held, History, Origin, Record};
use kometa_authd::token::{Fingerprint, Grant, UnixSeconds};

use super::grant;

const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

/// A pair in the middle of its life, and so many spent ones before it.
fn history(spent: u32) -> History {
    let grant = Grant::from_json(grant("4f3c9e", "77ab").as_bytes()).expect("a grant");
    let client = Fingerprint::of(b"client");
    let held = Held { grant, origin: Origin::Refreshed, at: NOW, client, draw: 500, published: true };
    let mut history = History::default();
    history.apply(&Record::Held(held));
    history.apply(&Record::Spent((0..spent).map(|number| Fingerprint::of(&number.to_be_bytes())).collect()));
    history
}

#[divan::bench(args = [0, 1000])]
fn decision(bencher: Bencher<'_, '_>, spent: u32) {
    let history = history(spent);
    let refresh = history.current.as_ref().and_then(Held::refresh);
    let seen = Seen { client: Some(Fingerprint::of(b"client")), refresh, ..Seen::default() };
    let facts = Facts { now: NOW, seen, history: &history, kometa: Kometa::default(), urgency: Urgency::Usual };
    bencher.bench(|| decide(black_box(&facts)));
}

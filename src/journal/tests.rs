//! What a journal adds up to, whole, torn and written anew.

use proptest::prelude::*;

use super::pending::Pending;
use super::sign_in::{Code, Ended};
use super::*;
use crate::disk::RealDisk;

fn fingerprint(n: u8) -> Fingerprint {
    Fingerprint::of(&[n])
}

fn held(n: u8, origin: Origin, published: bool) -> Held {
    Held {
        grant: Grant {
            access_token: Secret::new(format!("access-{n}")),
            token_type: n.is_multiple_of(2).then(|| "bearer".to_owned()),
            expires_in: (!n.is_multiple_of(3)).then_some(i64::from(n) * 1000),
            refresh_token: (!n.is_multiple_of(7)).then(|| Secret::new(format!("refresh-{n}"))),
            scope: (!n.is_multiple_of(5)).then(|| "public\nwith \"quotes\"".to_owned()),
            created_at: (!n.is_multiple_of(4)).then_some(UnixSeconds(1_795_000_000 + i64::from(n))),
        },
        origin,
        at: UnixSeconds(1_795_000_100 + i64::from(n)),
        client: fingerprint(n % 2),
        draw: u16::from(n),
        published,
    }
}

/// A record in numbers: a record itself holds secrets and cannot be printed.
type Drawn = (u8, u8, u8, bool);

fn drawn() -> impl Strategy<Value = Drawn> {
    (0..16_u8, 0..20_u8, 0..20_u8, any::<bool>())
}

fn record((kind, n, m, yes): Drawn) -> Record {
    let at = |n: u8| UnixSeconds(1_795_000_000 + i64::from(n));
    let token = |n: u8| Secret::new(format!("refresh-{n}")).fingerprint();
    match kind {
        0 => Record::Intent(Intent { spends: token(n), at: at(m) }),
        1 => Record::Published,
        2 => Record::Spent((0..m % 5).map(|more| token(n + more)).collect()),
        3 => Record::Dead(Dead { token: token(n), at: at(m), lost: yes }),
        4 => Record::Used(fingerprint(n)),
        5 => Record::SignedOut(at(n)),
        6 => Record::Succeeded(at(n)),
        7 => Record::Edit(fingerprint(n), fingerprint(m)),
        10 => Record::LoggedOut(at(n)),
        11 => Record::SignIn(Step::Asked(u32::from(n))),
        12 => Record::SignIn(Step::Polled { at: at(n), interval_s: i64::from(m) }),
        13 => Record::SignIn(Step::Ended([Ended::Denied, Ended::Expired, Ended::Lost][usize::from(m % 3)])),
        14 => Record::SignIn(Step::Link(Secret::new(format!("verifier-{n}")))),
        15 => Record::SignIn(Step::Came(Code {
            device_code: Secret::new(format!("device-{n}")),
            user_code: format!("CODE{m}"),
            page: "https://trakt.tv/activate".to_owned(),
            interval_s: i64::from(n),
            poll_at: at(n),
            expires_at: at(m),
            client: fingerprint(n),
        })),
        8 => {
            let refused = yes.then(|| fingerprint(n));
            let what = "no network".to_owned();
            let trouble =
                Trouble { since: at(n), attempts: u32::from(m), not_before: at(m), what, asked: yes, refused };
            Record::Trouble { trouble, settled: n.is_multiple_of(2) }
        }
        _ => {
            let origin = [Origin::Refreshed, Origin::Authorized, Origin::Adopted][usize::from(m % 3)];
            Record::Held(held(n, origin, yes))
        }
    }
}

fn records(drawn: &[Drawn]) -> Vec<Record> {
    drawn.iter().copied().map(record).collect()
}

fn lines(records: &[Record]) -> Vec<u8> {
    records.iter().flat_map(line).collect()
}

fn applied(records: &[Record]) -> History {
    let mut history = History::default();
    for record in records {
        history.apply(record);
    }
    history
}

proptest! {
    /// Written and read, the records are the same; and what compaction writes adds up to the same state.
    #[test]
    fn round_trip(drawn in proptest::collection::vec(drawn(), 0..30)) {
        let records = records(&drawn);
        let history = applied(&records);
        let bytes = lines(&records);
        let (read, end) = replay(&bytes);
        prop_assert!(read == history);
        prop_assert_eq!(end, bytes.len());
        let (compacted, _) = replay(&lines(&history.records()));
        prop_assert!(compacted == history);
    }

    /// A cut, a flipped bit or blank padding behind: everything before it stands, and the next record
    /// goes right behind the last whole one.
    #[test]
    fn torn(drawn in proptest::collection::vec(drawn(), 1..10), cut: prop::sample::Index, bit in 0..8_u8) {
        let records = records(&drawn);
        let (whole, last) = records.split_at(records.len() - 1);
        let (start, tail) = (lines(whole), lines(last));
        let at = cut.index(tail.len());
        let mut torn = [&start[..], &tail[..at]].concat();
        torn.resize(start.len() + tail.len() + 100, b'\n');
        if at < tail.len() - 1 {
            let (history, end) = replay(&torn);
            prop_assert!(history == applied(whole));
            prop_assert_eq!(end, start.len());
        }
        let mut flipped = [&start[..], &tail[..]].concat();
        flipped[start.len() + at] ^= 1 << bit;
        // A changed line end joins the record with what follows; any other change breaks its checksum.
        let (history, end) = replay(&flipped);
        prop_assert!(history == applied(whole) || history == applied(&records), "{}", end);
    }

    /// Any bytes at all are a journal, at worst an empty one.
    #[test]
    fn any_bytes(bytes: Vec<u8>) {
        let (_, end) = replay(&bytes);
        prop_assert!(end <= bytes.len());
    }
}

fn token(n: u8) -> Fingerprint {
    held(n, Origin::Refreshed, true).refresh().expect("a refresh token")
}

/// A pair that somebody wrote over ours is its refreshed form, which spent it, or another authorization,
/// beside which ours may live on.
#[test]
fn adopted_over_ours() {
    let day = 86_400;
    let made = |at: i64| Some(UnixSeconds(1_795_000_000 + at));
    let old = || Held {
        grant: Grant { created_at: made(0), ..held(1, Origin::Refreshed, true).grant },
        ..held(1, Origin::Refreshed, true)
    };
    let new = |created_at| {
        let theirs = held(2, Origin::Adopted, true);
        let grant = Grant { created_at, expires_in: Some(7 * day), ..theirs.grant };
        Held { grant, at: UnixSeconds(1_795_000_000), client: old().client, ..theirs }
    };
    let with = |change: fn(&mut Held)| {
        let mut theirs = new(made(60));
        change(&mut theirs);
        theirs
    };
    let ours = |change: fn(&mut Held)| {
        let mut ours = old();
        change(&mut ours);
        ours
    };
    for (what, ours, theirs, spent) in [
        ("made later", old(), new(made(60)), true),
        ("made at once", old(), new(made(0)), false),
        ("made before", old(), new(made(-60)), false),
        ("made within a day of now", old(), new(made(day)), true),
        ("made in the future", old(), new(made(day + 1)), false),
        ("made nobody knows when", old(), new(None), false),
        ("of another client", old(), with(|theirs| theirs.client = fingerprint(99)), false),
        ("without a lifetime", old(), with(|theirs| theirs.grant.expires_in = None), false),
        ("of no lifetime", old(), with(|theirs| theirs.grant.expires_in = Some(0)), false),
        ("ours never was in the file", ours(|ours| ours.published = false), new(made(60)), false),
        ("ours was made nobody knows when", ours(|ours| ours.grant.created_at = None), new(made(60)), false),
    ] {
        let history = applied(&[Record::Held(ours.clone()), Record::Held(theirs.clone())]);
        assert!(history.current == Some(theirs), "{what}");
        assert_eq!(history.is_spent(token(1)), spent, "{what}");
        assert_eq!(history.fallback == Some(ours), !spent, "{what}");
    }
    let again = applied(&[Record::Held(old()), Record::Held(Held { origin: Origin::Adopted, ..old() })]);
    assert!(again.fallback.is_none() && !again.is_spent(token(1)), "the same refresh token");
}

/// What our own grant spends: a refresh what its request was about to spend, unless it came back as the
/// new one; an authorization the pair before it.
#[test]
fn ours_spends() {
    let intent = |n| Record::Intent(Intent { spends: token(n), at: UnixSeconds(1_795_000_000) });
    let hold = |n, origin| Record::Held(held(n, origin, true));
    for (what, records, spent) in [
        ("a refresh", vec![intent(1), hold(2, Origin::Refreshed)], vec![token(1)]),
        ("a refresh that kept its token", vec![intent(1), hold(1, Origin::Refreshed)], vec![]),
        ("a refresh of what nobody noted", vec![hold(2, Origin::Refreshed)], vec![]),
        ("an authorization", vec![hold(2, Origin::Authorized)], vec![token(1)]),
        ("a sign-out", vec![Record::LoggedOut(UnixSeconds(1_795_000_000))], vec![token(1)]),
    ] {
        let history = applied(&[vec![hold(1, Origin::Refreshed)], records].concat());
        assert!(history.spent.iter().eq(spent), "{what}");
        assert!(history.intent.is_none() && history.trouble.is_none(), "{what}");
    }
    let twice = applied(&[intent(1), Record::Intent(Intent { spends: token(1), at: UnixSeconds(1_795_000_060) })]);
    assert_eq!(twice.intent.map(|intent| intent.at), Some(UnixSeconds(1_795_000_000)), "the first attempt counts");
    assert_eq!(applied(&[intent(1), intent(2)]).intent.map(|intent| intent.spends), Some(token(2)));
}

/// What is known of tokens: each once, as it was last said, and nothing of the one that is held again.
#[test]
fn known_tokens() {
    let dead = |n, at| Record::Dead(Dead { token: token(n), at: UnixSeconds(at), lost: false });
    let mut history = applied(&[dead(1, 5), dead(2, 6), dead(1, 7)]);
    assert_eq!(
        history.dead.iter().map(|dead| (dead.token, dead.at.0)).collect::<Vec<_>>(),
        [(token(2), 6), (token(1), 7)]
    );
    assert_eq!(history.dead(token(2)).map(|dead| dead.at.0), Some(6));
    assert_eq!(history.dead(token(3)), None);
    history.apply(&Record::Spent(vec![token(1), token(3)]));
    history.apply(&Record::Held(held(1, Origin::Refreshed, true)));
    assert!(history.dead(token(1)).is_none() && history.dead(token(2)).is_some(), "held again");
    assert!(!history.is_spent(token(1)) && history.is_spent(token(3)), "held again");

    let used = |n| Record::Used(fingerprint(n));
    assert_eq!(applied(&[used(1), used(2), used(1)]).used, [fingerprint(2), fingerprint(1)]);
    let many: Vec<Record> = (0..60).map(used).collect();
    assert_eq!(applied(&many).used, (10..60).map(fingerprint).collect::<Vec<_>>(), "the newest");

    let fallback = Record::Fallback(held(1, Origin::Refreshed, true));
    assert!(applied(&[fallback.clone(), Record::Spent(vec![token(2)])]).fallback.is_some());
    assert!(applied(&[fallback, Record::Spent(vec![token(1)])]).fallback.is_none(), "spent, it is none");
}

/// Nothing known is no line; and what waits for a journal says whether a pair is among it that only memory has.
#[test]
fn nothing_and_what_waits() {
    assert!(History::default().records().is_empty());
    let mut pending = Pending::default();
    assert!(pending.is_empty() && !pending.has_the_only_copy());
    pending.push(Record::Held(held(1, Origin::Refreshed, false)));
    assert!(!pending.is_empty() && pending.has_the_only_copy());
    pending.push(Record::Published);
    assert!(!pending.is_empty() && !pending.has_the_only_copy(), "the file has it");
}

/// On a real disk: reserved space is overwritten and not extended, a second writer reads what the first
/// one wrote, and a long journal is written anew without losing anything.
#[test]
fn on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.yml#trakt.journal");
    let disk = RealDisk;
    assert!(Journal::peek(&disk, &path).unwrap() == History::default());
    let mut expected = History::default();
    let mut compacted = false;
    let mut before = 0;
    for round in 0..200_u8 {
        let mut journal = Journal::open(&disk, &path).unwrap();
        assert!(journal.history == expected, "round {round}");
        let spends = Secret::new(format!("refresh-{}", round % 20)).fingerprint();
        let intent = Record::Intent(Intent { spends, at: UnixSeconds(i64::from(round)) });
        journal.reserve(&disk, &intent, folder.path()).unwrap();
        let reserved = disk.meta(&path).unwrap().size;
        let grant = Record::Held(held(round % 20 + 1, Origin::Refreshed, false));
        journal.add(&disk, &grant).unwrap();
        journal.add(&disk, &Record::Published).unwrap();
        assert_eq!(disk.meta(&path).unwrap().size, reserved, "round {round}: the file grew");
        compacted |= reserved < before;
        before = reserved;
        for record in [&intent, &grant, &Record::Published] {
            expected.apply(record);
        }
    }
    assert!(compacted, "200 rounds never reached the limit");
    assert!(before < 32 * 1024, "{before} bytes");
    assert!(Journal::peek(&disk, &path).unwrap() == expected);
}

/// Room is what an earlier reservation left behind the last record: blank lines, and nothing else.
#[test]
fn room() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.yml#trakt.journal");
    for (rest, has_room) in [("", false), ("\n", false), ("\n\n", true), ("\n\nx", false), ("xyz", false)] {
        let disk = RealDisk;
        let file = disk.open(&path, Open::WriteOrCreate).unwrap();
        let bytes = [line(&Record::Published).as_slice(), rest.as_bytes()].concat();
        disk.set_size(&file, 0).unwrap();
        disk.write_at(&file, &bytes, 0).unwrap();
        assert_eq!(Journal::open(&disk, &path).unwrap().has_room, has_room, "{rest:?}");
    }
}

/// A pair that is back after something else stood in its place, half a save for instance, is the one that we
/// knew: where it came from and since when it lives are not forgotten, and it is in the file now.
#[test]
fn back_again() {
    let (ours, half) = (held(1, Origin::Refreshed, true), held(2, Origin::Adopted, false));
    let unpublished = Held { published: false, ..ours.clone() };
    let seen_again = Held { origin: Origin::Adopted, at: ours.at.plus(60), draw: 7, ..ours.clone() };
    let mut known = applied(&[Record::Held(ours.clone()), Record::Held(half.clone())]);
    known.apply(&Record::Held(seen_again.clone()));
    assert!(known.current == Some(ours.clone()));
    assert!(known.fallback == Some(half.clone()));
    let now_in = [&unpublished, &half, &seen_again].map(|held| Record::Held(held.clone()));
    assert!(applied(&now_in).current == Some(ours.clone()));
    let mut other = seen_again;
    other.grant.expires_in = Some(77);
    let changed = applied(&[Record::Held(ours), Record::Held(half), Record::Held(other.clone())]);
    assert!(changed.current == Some(other));
}

/// A pair to fall back on that is called invalid as well is none any more: nothing is left to try at once,
/// whether the history was lived through or read from a journal written anew.
#[test]
fn a_dead_fallback() {
    let at = UnixSeconds(1_795_000_000);
    let dead = |n: u8| Record::Dead(Dead { token: held(n, Origin::Adopted, true).refresh().unwrap(), at, lost: false });
    let adopted = |n: u8| Record::Held(Held { published: false, ..held(n, Origin::Adopted, true) });
    let both = applied(&[adopted(1), adopted(2), dead(2)]);
    assert!(both.fallback.is_some());
    let mut neither = both.clone();
    neither.apply(&dead(1));
    assert!(neither.fallback.is_none());
    let current_died_first = applied(&[adopted(1), dead(1), adopted(2)]);
    assert!(current_died_first.fallback.is_none());
    for history in [both, neither, current_died_first] {
        assert!(replay(&lines(&history.records())).0 == history);
    }
}

/// A journal that has forgotten nothing for years is not written anew at each opening: it holds what
/// matters, as often and as long as it can be, and once more as much before it is.
#[test]
fn the_longest() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.yml#mal.journal");
    let long = |n: u8| {
        let mut held = held(n, Origin::Refreshed, true);
        held.grant.access_token = Secret::new("a".repeat(1200));
        held.grant.refresh_token = Some(Secret::new(format!("{n}").repeat(1200)));
        held
    };
    let token = |n: usize| Fingerprint::of(&n.to_le_bytes());
    let at = UnixSeconds(1_795_000_000);
    let mut journal = Journal::open(&RealDisk, &path).unwrap();
    journal.add(&RealDisk, &Record::Held(long(1))).unwrap();
    journal.add(&RealDisk, &Record::Spent((0..2 * spent::MAX).map(token).collect())).unwrap();
    journal.add(&RealDisk, &Record::Fallback(long(2))).unwrap();
    for n in 0..2 * USED_MAX {
        journal.add(&RealDisk, &Record::Used(token(n))).unwrap();
        journal.add(&RealDisk, &Record::Dead(Dead { token: token(n), at, lost: true })).unwrap();
    }
    let mut history = journal.history.clone();
    let identity = || RealDisk.meta(&path).unwrap().identity;
    let shortest = Journal::open(&RealDisk, &path).unwrap().compact(&RealDisk, &path).unwrap().end;
    assert!(shortest > 2 * COMPACT_ABOVE_BYTES && shortest < 64 * 1024, "{shortest} bytes");
    assert!(Journal::peek(&RealDisk, &path).unwrap() == history);
    let (mut before, mut times) = (shortest, 0);
    for n in 0..100_u8 {
        let old = identity();
        let mut journal = Journal::open(&RealDisk, &path).unwrap();
        assert!(journal.history == history);
        if identity() != old {
            assert!(before > 2 * shortest - 16 * 1024, "written anew at {before} bytes");
            times += 1;
        }
        let held = Record::Held(long(n % 8 + 1));
        journal.add(&RealDisk, &held).unwrap();
        history.apply(&held);
        before = journal.end;
    }
    assert!(times > 1, "a hundred records never reached the limit");
}

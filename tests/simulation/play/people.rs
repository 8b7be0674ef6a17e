//! Who else is there: a person with an editor and a phone, and Kometa.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use kometa_authd::event::{Event, Kind};
use kometa_authd::provider::{MAL, Provider, TRAKT};
use kometa_authd::sandbox::codes::Decision;
use kometa_authd::sandbox::ledger::Ledger;
use kometa_authd::sandbox::message::Request;
use kometa_authd::sandbox::rules::Rotation;
use kometa_authd::sandbox::world::Delivery;
use kometa_authd::token::{Grant, Secret};

use super::disk::Disks;
use super::machine::{DROP_AFTER, KOMETAS};
use super::plan::{Act, KometaSort, Scenario};
use super::run::{CONFIG, Run, START_MS, SWAP, seconds};

const CLIENT: &str = "simulated-client";
const KEYS: [&str; 6] = ["access_token", "token_type", "expires_in", "refresh_token", "scope", "created_at"];

/// What is known of them.
#[derive(Default)]
pub struct People {
    /// How many events they have heard.
    pub events_seen: usize,
    /// Where a person is needed.
    pub called: BTreeSet<&'static str>,
    /// Where the provider has ended a token that looks valid, and nobody can know before it is used.
    pub misled: BTreeSet<&'static str>,
    /// The families of the pairs that a person put into the file last.
    pub given: BTreeMap<&'static str, usize>,
    /// The file was written by somebody who had it open, and may be in two places: until then, and how many
    /// had written before.
    pub settling: Option<(i64, usize)>,
    /// Kometa's run, and the pair that it holds.
    pub kometa: Option<(String, String)>,
    /// Since when it runs.
    pub kometa_since: Option<i64>,
    saving: Option<(u64, String, bool)>,
    /// The file is half of what somebody is saving.
    pub is_torn: bool,
    copy: Option<String>,
    reference: Option<(&'static str, String)>,
    /// The file says something that keeps us from refreshing.
    is_hindered: bool,
    markers: u64,
    user_code: Option<String>,
    link: Option<String>,
}

impl People {
    /// Whether nobody has made the file unfit for a while.
    pub fn is_undisturbed(&self) -> bool {
        self.saving.is_none() && self.settling.is_none() && !self.is_hindered
    }
}

/// The config at first.
pub fn first_text(scenario: &Scenario, ledger: &mut Ledger) -> String {
    let mut text = "# my config\nplex:\n  url: http://192.168.1.12:32400 # the server\n".to_owned();
    let used = [(scenario.trakt, &TRAKT, "pin"), (scenario.mal, &MAL, "localhost_url")];
    for (_, provider, once) in used.iter().filter(|(is_used, ..)| *is_used) {
        let keys = if provider.name == MAL.name { &KEYS[..4] } else { &KEYS[..] };
        let block: String = keys.iter().map(|key| format!("    {key}:\n")).collect();
        let is_forced =
            provider.name == TRAKT.name && scenario.kometa == KometaSort::Eager && scenario.seed.is_multiple_of(3);
        let forced = if is_forced { "  force_refresh: true\n" } else { "" };
        text += &format!(
            "{}:\n  client_id: {CLIENT}\n{forced}  {once}:\n  authorization:\n    # filled in by itself\n{block}",
            provider.name
        );
    }
    text += "settings:\n  cache: true   # often enough\n";
    if !scenario.is_new {
        for (_, provider, _) in used.iter().filter(|(is_used, ..)| *is_used) {
            let half_a_life = scenario.lifetime_s / 2;
            let grant = ledger.issue(seconds(START_MS).plus(-half_a_life), provider, CLIENT);
            text = with_grant(&text, provider.name, &grant);
        }
    }
    text
}

/// The text without what is ours to change.
pub fn around(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    for line in text.lines() {
        let key = line.trim_start().split(':').next().unwrap_or_default();
        if line.starts_with("    ") && KEYS.contains(&key) {
            continue;
        }
        let is_once = line.starts_with("  ") && (key == TRAKT.once_key || key == MAL.once_key);
        kept += if is_once { key } else { line };
        kept.push('\n');
    }
    kept
}

/// A value of a provider's section.
pub fn value<'a>(text: &'a str, provider: &str, key: &str) -> Option<&'a str> {
    let section = &text[text.find(&format!("\n{provider}:\n"))? + 1..];
    let mut lines = section.lines().skip(1).take_while(|line| line.starts_with(' '));
    let found = lines.find_map(|line| line.trim_start().strip_prefix(key)?.strip_prefix(':'))?;
    Some(found.trim().trim_matches(['"', '\''])).filter(|value| !value.is_empty())
}

/// The text with another value in a provider's section.
fn with_value(text: &str, provider: &str, key: &str, value: &str) -> String {
    let mut is_in = false;
    let line = |line: &str| {
        if !line.starts_with([' ', '#']) {
            is_in = line == format!("{provider}:");
        }
        let indent = line.len() - line.trim_start().len();
        if is_in && line.trim_start().strip_prefix(key).is_some_and(|rest| rest.starts_with(':')) {
            format!("{}{key}: {value}", &line[..indent]).trim_end().to_owned() + "\n"
        } else {
            format!("{line}\n")
        }
    };
    text.lines().map(line).collect()
}

fn with_grant(text: &str, provider: &str, grant: &Grant) -> String {
    let values = [
        Some(grant.access_token.expose().to_owned()),
        grant.token_type.clone(),
        grant.expires_in.map(|seconds| seconds.to_string()),
        grant.refresh_token.as_ref().map(|token| token.expose().to_owned()),
        grant.scope.clone(),
        grant.created_at.map(|at| at.0.to_string()),
    ];
    KEYS.iter().zip(values).fold(text.to_owned(), |text, (key, value)| {
        with_value(&text, provider, key, value.as_deref().unwrap_or_default())
    })
}

/// The file as it is, where nobody is in the middle of writing it.
fn text(disks: &Disks) -> Option<String> {
    let text = String::from_utf8(disks.read(Path::new(CONFIG))?.to_vec()).ok()?;
    (text.ends_with('\n') && text.contains("\nsettings:\n")).then_some(text)
}

/// Somebody writes the whole file at once.
fn write(run: &mut Run, text: &str, in_place: bool) {
    let mut disks = run.disks.borrow_mut();
    disks.foreign.push(around(text));
    // A mount point or a hard link is not for renaming over.
    if in_place || disks.sort.is_in_place() {
        disks.write_in_place(Path::new(CONFIG), text.as_bytes());
    } else {
        disks.write_by_rename(Path::new(CONFIG), text.as_bytes());
    }
    drop(disks);
    let no_client = |provider| value(text, provider, "client_id").is_none();
    run.people.is_hindered = text.contains("<<") || text.contains("broken: [") || run.providers().any(no_client);
    run.people.settling = None;
    run.people.given.clear();
    run.disturb(60_000);
}

/// Somebody opens the file, empties it, and writes it in two pieces.
fn save_slowly(run: &mut Run, text: String, cut: usize, ms: i64) {
    let mut disks = run.disks.borrow_mut();
    let Some(id) = disks.inode(Path::new(CONFIG)) else { return };
    disks.write_into(id, &text.as_bytes()[..cut.min(text.len())]);
    disks.interloper = None;
    let before = disks.foreign.len();
    drop(disks);
    run.people.settling = Some((i64::MAX, before));
    run.people.saving = Some((id, text, false));
    run.people.is_torn = true;
    run.disks.borrow_mut().held_open = Some(id);
    run.people.given.clear();
    run.plan_in(ms, Act::SaveStep);
    run.disturb(ms + 120_000);
}

/// What waits for a process in its memory, or behind a handle of it, is gone with it.
pub fn process_died(run: &mut Run) {
    let Some((until, before)) = run.people.settling else { return };
    let mut disks = run.disks.borrow_mut();
    let found = disks.read(Path::new(CONFIG)).map(|bytes| around(&String::from_utf8_lossy(bytes)));
    if until != i64::MAX && found.as_ref() == before.checked_sub(1).and_then(|at| disks.foreign.get(at)) {
        // Written into the file that ours took the place of, a moment before the end.
        disks.foreign.extend(found);
        run.people.settling = None;
    }
}

/// What a person makes of an event.
pub fn listen(run: &mut Run, event: &Event) {
    let provider = if event.subject.ends_with("#mal") { MAL.name } else { TRAKT.name };
    let mut dice = run.machine.borrow_mut().dice();
    match event.kind {
        Kind::NeedsAuthorization
        | Kind::Rejected
        | Kind::RejectedAfterLostAnswer
        | Kind::CodeRejected
        | Kind::BadClient => {
            run.people.called.insert(provider);
            run.people.given.clear();
            if provider == MAL.name {
                if event.kind == Kind::CodeRejected {
                    run.plan_in(dice.i64(60_000..3_600_000), Act::PasteAddress(dice.i64(1000..700_000)));
                }
            } else if !run.scenario.device_login || event.kind == Kind::CodeRejected {
                run.plan_in(dice.i64(60_000..43_200_000), Act::NewPin);
            }
        }
        Kind::EnterCode => {
            run.people.called.insert(provider);
            run.people.user_code =
                event.detail.split_once("enter ").and_then(|(_, rest)| Some(rest.split_once(',')?.0.to_owned()));
            if dice.u8(0..4) > 0 {
                let at = dice.i64(10_000..700_000);
                run.plan_in(at, Act::EnterCode(dice.u8(0..4) > 0));
                if dice.u8(0..6) == 0 {
                    // The answer with the grant is lost on the way.
                    run.plan_in(at, Act::Trouble(120_000, 100, DROP_AFTER));
                }
            }
        }
        Kind::PasteAddress => {
            run.people.called.insert(provider);
            run.people.link = event.link.clone();
            run.plan_in(dice.i64(10_000..40_000_000), Act::PasteAddress(dice.i64(1000..700_000)));
        }
        Kind::CodeDenied | Kind::CodesUnused => run.plan_in(dice.i64(60_000..43_200_000), Act::Reload(0)),
        Kind::Refreshed | Kind::Authorized | Kind::Adopted | Kind::Published => {
            run.people.called.remove(provider);
        }
        _ => {}
    }
}

/// Whether an act has to wait for another one: one hand at a time.
pub fn is_busy(run: &Run, act: Act) -> bool {
    let is_alone = matches!(act, Act::SaveStep | Act::EnterCode(_) | Act::KometaEnds);
    !is_alone && (run.people.saving.is_some() || run.people.settling.is_some())
}

/// What one of them does.
pub fn act(run: &mut Run, act: Act) -> Result<(), String> {
    match act {
        Act::SaveStep => save_rest(run),
        Act::EnterCode(is_yes) => {
            if let Some(code) = run.people.user_code.take() {
                let decision = if is_yes { Decision::Approved } else { Decision::Denied };
                run.machine.borrow_mut().providers.ledger.decide_device(&code, decision);
            }
        }
        Act::KometaEnds => {
            (run.people.kometa, run.people.kometa_since) = (None, None);
            let ended_ms = run.machine.borrow().wall_ms();
            run.disks.borrow_mut().log = Some(("/config/logs/meta.log".into(), ended_ms));
        }
        _ => return act_on_file(run, act),
    }
    Ok(())
}

fn act_on_file(run: &mut Run, act: Act) -> Result<(), String> {
    let Some(text) = text(&run.disks.borrow()) else {
        return if run.disks.borrow().sort.is_in_place() && !run.is_alive() {
            // A write in place was cut off: it is finished at the next start.
            run.plan_in(700_000, act);
            Ok(())
        } else {
            Err("the config is not whole".to_owned())
        };
    };
    let mut dice = run.machine.borrow_mut().dice();
    let now = run.now();
    match act {
        Act::Edit(in_place) => {
            run.people.markers += 1;
            write(run, &format!("{text}# marker {}\n", run.people.markers), in_place);
        }
        Act::EditWhileWeWrite(after, is_in_place) => {
            run.people.markers += 1;
            let marker = run.people.markers;
            let mut disks = run.disks.borrow_mut();
            let at = disks.operations + after;
            disks.interloper = Some((at, Box::new(move |disks| edit_meanwhile(disks, marker, is_in_place))));
        }
        Act::SlowSave(cut, ms) => {
            run.people.markers += 1;
            let text = format!("{text}# marker {}\n", run.people.markers);
            let cut = text.len() * cut / 1000;
            save_slowly(run, text, cut, ms);
        }
        Act::SaveAcross(later, is_contested) => {
            if let Some(copy) = run.people.copy.take() {
                mislead(run, &copy);
                write(run, &copy, true);
                run.people.markers += 1;
                let marker = run.people.markers;
                let text = if is_contested { with_word(&copy, marker) } else { format!("{copy}# marker {marker}\n") };
                let id = run.disks.borrow().inode(Path::new(CONFIG)).unwrap_or_default();
                run.people.saving = Some((id, text, is_contested));
                run.disks.borrow_mut().held_open = Some(id);
                run.plan_in(later, Act::SaveStep);
                run.disturb(later + 180_000);
            }
        }
        Act::Broken(long) => {
            write(run, &format!("{text}broken: [\n"), true);
            run.plan_in(long, Act::IsMended);
        }
        Act::IsMended => write(run, &text.replace("broken: [\n", ""), true),
        // Nobody puts back what was broken; whoever did would mend it, as after `Broken`.
        Act::Copy if run.people.is_hindered => {}
        Act::Copy => run.people.copy = Some(text),
        Act::Restore => {
            if let Some(copy) = run.people.copy.take() {
                mislead(run, &copy);
                write(run, &copy, true);
            }
        }
        Act::SignOut(trakt) => {
            let provider = named(run, trakt);
            let empty = KEYS.iter().fold(text, |text, key| with_value(&text, provider.name, key, ""));
            write(run, &empty, true);
        }
        Act::NewPin if run.scenario.trakt => {
            let pin = run.machine.borrow_mut().providers.ledger.issue_pin(seconds(now));
            let text = with_value(&text, TRAKT.name, "pin", pin.expose());
            write(run, &text, dice.bool());
        }
        Act::NewPair(trakt) => {
            let provider = named(run, trakt);
            let grant = run.machine.borrow_mut().providers.ledger.issue(seconds(now), provider, CLIENT);
            run.people.misled.remove(provider.name);
            write(run, &with_grant(&text, provider.name, &grant), dice.bool());
            let family = run.machine.borrow().providers.ledger.entries().last().map(|entry| entry.family);
            run.people.given.extend(family.map(|family| (provider.name, family)));
        }
        Act::PasteAddress(later) if run.scenario.mal => paste_address(run, &text, later),
        Act::Revoke(trakt) => {
            let provider = named(run, trakt);
            if let Some(token) = value(&text, provider.name, "refresh_token") {
                run.machine.borrow_mut().providers.ledger.revoke(token);
                run.excuse(provider.name);
                run.people.misled.insert(provider.name);
                run.people.given.clear();
            }
        }
        Act::NoClient(long) => {
            let provider = named(run, true);
            write(run, &with_value(&text, provider.name, "client_id", ""), true);
            run.plan_in(long, Act::ClientIsBack);
        }
        Act::ClientIsBack => {
            let text = run.providers().fold(text, |text, name| with_value(&text, name, "client_id", CLIENT));
            write(run, &text, true);
        }
        Act::Reference(long) => {
            let provider = named(run, true);
            if let Some(token) = value(&text, provider.name, "access_token") {
                run.people.reference = Some((provider.name, token.to_owned()));
                write(run, &with_value(&text, provider.name, "access_token", "<<my_token>>"), true);
                run.plan_in(long, Act::ReferenceIsGone);
            }
        }
        Act::ReferenceIsGone => {
            if let Some((provider, token)) = run.people.reference.take().filter(|_| text.contains("<<")) {
                write(run, &with_value(&text, provider, "access_token", &token), true);
            }
        }
        Act::Kometa(long) => kometa_starts(run, &text, long),
        Act::KometaAsks => {
            if let Some((access, refresh)) = run.people.kometa.clone()
                && !lives(run, &access)
            {
                kometa_refreshes(run, &text, &refresh);
            }
        }
        _ => {}
    }
    Ok(())
}

fn named(run: &Run, trakt: bool) -> &'static Provider {
    if (trakt || !run.scenario.mal) && run.scenario.trakt { &TRAKT } else { &MAL }
}

/// The text with another word in a line that somebody else may change as well.
fn with_word(text: &str, word: u64) -> String {
    let line = |line: &str| match line.split_once("cache: true") {
        Some((start, _)) => format!("{start}cache: true   # word {word}\n"),
        None => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

/// An old copy comes back. Where its token was spent by somebody else, nobody can know.
fn mislead(run: &mut Run, copy: &str) {
    let now = run.now();
    for provider in run.providers() {
        let is_dead = {
            let machine = run.machine.borrow();
            let entry = value(copy, provider, "refresh_token").and_then(|old| machine.providers.ledger.find(old));
            entry.is_some_and(|entry| !entry.access_lives(seconds(now)))
        };
        if is_dead && run.was_foreign(provider, copy) {
            run.people.misled.insert(provider);
            run.excuse(provider);
        }
    }
}

fn edit_meanwhile(disks: &mut Disks, marker: u64, is_in_place: bool) {
    let Some(text) = text(disks) else { return };
    // Of two who save the same file at once, one loses without us as well.
    if disks.held_open.is_some() && disks.held_open == disks.inode(Path::new(CONFIG)) {
        return;
    }
    *disks.struck.entry("an edit between two operations").or_default() += 1;
    let text = format!("{text}# marker {marker}\n");
    disks.foreign.push(around(&text));
    if is_in_place || disks.sort.is_in_place() {
        disks.write_in_place(Path::new(CONFIG), text.as_bytes());
    } else {
        disks.write_by_rename(Path::new(CONFIG), text.as_bytes());
    }
}

fn save_rest(run: &mut Run) {
    let Some((id, text, is_contested)) = run.people.saving.take() else { return };
    let was_torn = std::mem::take(&mut run.people.is_torn);
    let mut disks = run.disks.borrow_mut();
    disks.held_open = None;
    // Nor is it known whose lines come first where another edit comes while this one is on its way.
    disks.interloper = None;
    let has_witness = disks.replaced_by.is_some() || disks.inode(Path::new(SWAP)) == Some(id);
    let before = disks.foreign.len();
    let is_moved = disks.inode(Path::new(CONFIG)) != Some(id);
    // Where the file is another one by now, what was added belongs to what the others made of it; of half a text
    // they made nothing.
    let others = self::text(&disks).filter(|_| is_moved && !is_contested && !was_torn);
    let added = text.trim_end().rsplit('\n').next().unwrap_or_default();
    let merged = others.map_or_else(|| text.clone(), |others| format!("{others}{added}\n"));
    disks.foreign.push(around(&merged));
    disks.write_into(id, text.as_bytes());
    if is_moved && is_contested && !disks.sort.is_in_place() {
        run.people.markers += 1;
        let found = self::text(&disks).map(|text| with_word(&text, run.people.markers));
        if let Some(text) = found {
            disks.foreign.push(around(&text));
            disks.write_by_rename(Path::new(CONFIG), text.as_bytes());
        }
    }
    if is_moved {
        *disks.struck.entry("a save into a file that was replaced").or_default() += 1;
    }
    drop(disks);
    let until = run.now() + 120_000;
    run.people.settling = Some((until, before));
    // Nobody has it open any more who would tell of it.
    if is_moved && !has_witness {
        process_died(run);
    }
}

/// A person opens the link, agrees, and pastes the address that the browser ends on.
fn paste_address(run: &mut Run, text: &str, later: i64) {
    let Some(link) = run.people.link.clone() else { return };
    let Some(challenge) = link.split("code_challenge=").nth(1).and_then(|rest| rest.split('&').next()) else { return };
    let now = run.now();
    let code = run.machine.borrow_mut().providers.ledger.issue_code(seconds(now - later), CLIENT, challenge);
    let address = format!("http://localhost/?code={}", code.expose());
    write(run, &with_value(text, MAL.name, "localhost_url", &address), true);
}

fn kometa_starts(run: &mut Run, text: &str, long: i64) {
    let sort = run.scenario.kometa;
    let (Some(access), Some(refresh)) =
        (value(text, TRAKT.name, "access_token"), value(text, TRAKT.name, "refresh_token"))
    else {
        return;
    };
    if sort == KometaSort::Absent || run.people.kometa.is_some() {
        return;
    }
    let now = run.now();
    run.disks.borrow_mut().log = Some(("/config/logs/meta.log".into(), i64::MAX));
    run.people.kometa = Some((access.to_owned(), refresh.to_owned()));
    run.people.kometa_since = Some(now);
    run.plan(now + long, Act::KometaEnds);
    let asks = run.machine.borrow_mut().dice().i64(1..long);
    run.plan(now + asks, Act::KometaAsks);
    if sort == KometaSort::Eager || !lives(run, access) {
        let refresh = refresh.to_owned();
        kometa_refreshes(run, text, &refresh);
    } else if run.machine.borrow_mut().dice().u8(0..4) == 0 {
        // It fills in an attribute, and saves all that it read.
        save_slowly(run, text.to_owned(), 0, 300);
    }
}

fn lives(run: &Run, access: &str) -> bool {
    let machine = run.machine.borrow();
    let now = seconds(machine.now_ms);
    let mut newest = machine.providers.ledger.entries().iter().rev().take(200);
    newest.any(|entry| entry.access_token.expose() == access && entry.access_lives(now))
}

/// Kometa's own refresh, and its save of everything that it read at the start.
fn kometa_refreshes(run: &mut Run, text: &str, refresh: &str) {
    if !run.machine.borrow().reachable {
        return;
    }
    let body = format!(
        r#"{{"refresh_token":"{refresh}","client_id":"{CLIENT}","redirect_uri":"urn:ietf:wg:oauth:2.0:oob","grant_type":"refresh_token"}}"#
    );
    let request = Request::post("/oauth/token", "application/json", body).with("user-agent", KOMETAS);
    let mut machine = run.machine.borrow_mut();
    machine.providers.clear_faults();
    let was_spent = machine.providers.ledger.find(refresh).is_some_and(|entry| entry.spent_at.is_some());
    let now = machine.now_ms;
    let delivery = machine.providers.exchange(now, &request);
    let grant = match &delivery {
        Delivery::Answer(reply) if reply.status == 200 => Grant::from_json(&reply.body).ok(),
        _ => None,
    };
    machine.count(if grant.is_some() { "kometa: refreshed" } else { "kometa: refused" });
    let mut dice = machine.dice();
    drop(machine);
    if was_spent && run.scenario.rotation == Rotation::Family {
        // With that it ended every pair of the family.
        run.excuse(TRAKT.name);
        run.people.misled.insert(TRAKT.name);
    }
    let Some(grant) = grant else { return };
    run.excuse(TRAKT.name);
    run.disturb(120_000);
    let token = |secret: &Secret| secret.expose().to_owned();
    run.people.kometa = Some((token(&grant.access_token), grant.refresh_token.as_ref().map(token).unwrap_or_default()));
    if run.scenario.kometa == KometaSort::ReadOnly {
        run.people.misled.insert(TRAKT.name);
        return;
    }
    run.people.misled.remove(TRAKT.name);
    let text = with_value(&with_grant(text, TRAKT.name, &grant), TRAKT.name, "pin", "");
    save_slowly(run, text, 0, dice.i64(1..1500));
}

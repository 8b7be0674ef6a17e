//! The sandbox's own addresses, for people and scripts: what happened, and what shall happen.
//!
//! Invariant: none of them is an address of a provider, so none of them can be called by a client
//! by mistake. Its pages show tokens plainly: these are worth nothing. This file never does IO.

use super::codes::Decision;
use super::ledger::Entry;
use super::message::{Reply, Request};
use super::world::World;
use crate::provider;
use crate::token::UnixSeconds;
use serde_json::{Value, json};
use std::fmt::Write;

/// The addresses, as the first page shows them.
const ADDRESSES: &str = "\
GET  /ledger.json                 every token, code and request so far
GET  /activate                    say yes or no to a device code
POST /sandbox/pin                 a PIN, for ten minutes
POST /sandbox/issue?provider=trakt&client_id=sandbox[&age_s=0]   a first pair
POST /sandbox/fault?503@3         the next three requests for a token fail
POST /sandbox/clear               nothing fails any more
POST /sandbox/lifetime?20         access tokens live for so many seconds from now on
POST /sandbox/approve?CODE        say yes to a device code
POST /sandbox/deny?CODE           say no
";

/// Answers one of the sandbox's own addresses; none if it is not one.
pub fn answer(world: &mut World, now: UnixSeconds, request: &Request) -> Option<Reply> {
    let path = request.path();
    let query = request.target.split_once('?').map_or("", |(_, query)| query);
    match (request.method.as_str(), path) {
        ("GET", "/") => Some(Reply::text(200, summary(world, now))),
        ("GET", "/ledger.json") => Some(Reply::json(200, &ledger_json(world, now))),
        ("GET", _) if path == "/activate" || path.starts_with("/activate/") => {
            Some(activate(path.trim_start_matches("/activate").trim_start_matches('/')))
        }
        ("POST", _) => path.strip_prefix("/sandbox/").map(|act| control(world, now, act, query, request)),
        _ => None,
    }
}

fn control(world: &mut World, now: UnixSeconds, act: &str, query: &str, request: &Request) -> Reply {
    let decide = |world: &mut World, decision| {
        // The page sends a form, a script the bare code.
        let params = request.params().unwrap_or_default();
        let user_code = params.named("code").unwrap_or(query);
        if world.ledger.decide_device(user_code, decision) {
            Reply::text(200, "done\n")
        } else {
            Reply::text(404, "no such code\n")
        }
    };
    match act {
        "pin" => Reply::text(200, format!("{}\n", world.ledger.issue_pin(now).expose())),
        "issue" => {
            let params = request.query().unwrap_or_default();
            let age_s = params.named("age_s").map_or(Ok(0), str::parse::<i64>);
            match (provider::named(params.named("provider").unwrap_or("trakt")), age_s) {
                (Some(provider), Ok(age_s)) => {
                    let client_id = params.named("client_id").unwrap_or("sandbox");
                    world.ledger.issue(now.plus(age_s.saturating_neg()), provider, client_id);
                    Reply::json(200, &world.ledger.entries().last().map_or(Value::Null, |entry| entry_json(entry, now)))
                }
                _ => Reply::text(400, "provider is trakt or mal, age_s a number of seconds\n"),
            }
        }
        "fault" => match query.parse() {
            Ok(fault) => {
                let text = format!("{fault}\n");
                world.fault(fault);
                Reply::text(200, text)
            }
            Err(error) => Reply::text(400, format!("{error}\n")),
        },
        "clear" => {
            world.clear_faults();
            Reply::text(200, "done\n")
        }
        "lifetime" => match query.parse() {
            Ok(seconds) => {
                world.ledger.rules.lifetime_s = Some(seconds);
                Reply::text(200, "done\n")
            }
            Err(_) => Reply::text(400, "a number of seconds\n"),
        },
        "approve" => decide(world, Decision::Approved),
        "deny" => decide(world, Decision::Denied),
        _ => Reply::text(404, ADDRESSES),
    }
}

fn summary(world: &World, now: UnixSeconds) -> String {
    let ledger = &world.ledger;
    let (spent, reused) = ledger.spent_and_reused();
    let live = ledger.entries().iter().filter(|entry| entry.refresh_lives(now)).count();
    let mut text = format!(
        "A pretend Trakt and MyAnimeList. Nothing here is worth anything elsewhere.\n\n\
         pairs issued          {}\nrefresh tokens live   {live}\nrefresh tokens spent  {spent}, presented again: {reused}\n\
         requests              {}\n",
        ledger.entries().len(),
        world.requests.len(),
    );
    // Writing to a string cannot fail.
    for fault in world.faults() {
        let _ = writeln!(text, "fault waiting         {fault}");
    }
    for visit in world.requests.iter().rev().take(10) {
        let status = visit.status.map_or_else(|| "no answer".to_owned(), |status| status.to_string());
        let grant_type = visit.grant_type.as_deref().unwrap_or_default();
        let _ = writeln!(
            text,
            "request               {} {} {grant_type} {status} {}",
            visit.method,
            visit.path,
            visit.faults.join(" ")
        );
    }
    text.push('\n');
    text.push_str(ADDRESSES);
    text
}

fn ledger_json(world: &World, now: UnixSeconds) -> Value {
    let entries: Vec<Value> = world.ledger.entries().iter().map(|entry| entry_json(entry, now)).collect();
    let codes = world.ledger.codes.once.iter().map(|once| {
        json!({
            "provider": once.provider, "code": once.code.expose(), "client_id": once.client_id,
            "expires_at": once.expires_at.0, "redeemed_at": once.redeemed_at.map(|at| at.0), "refusals": once.refusals,
        })
    });
    let devices = world.ledger.codes.devices.iter().map(|device| {
        json!({
            "user_code": device.user_code, "client_id": device.client_id, "expires_at": device.expires_at.0,
            "decision": device.decision.map(|decision| format!("{decision:?}").to_lowercase()),
            "redeemed_at": device.redeemed_at.map(|at| at.0), "polls": device.polls, "early_polls": device.early_polls,
        })
    });
    let requests = world.requests.iter().map(|visit| {
        json!({
            "at_ms": visit.at_ms, "method": visit.method, "path": visit.path, "grant_type": visit.grant_type,
            "client_id": visit.client_id, "presented": visit.presented.map(|f| f.to_string()),
            "user_agent": visit.user_agent, "acted": visit.acted, "status": visit.status, "faults": visit.faults,
        })
    });
    json!({
        "now": now.0, "tokens": entries, "codes": codes.collect::<Vec<_>>(), "devices": devices.collect::<Vec<_>>(),
        "requests": requests.collect::<Vec<_>>(),
        "faults": world.faults().iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

fn entry_json(entry: &Entry, now: UnixSeconds) -> Value {
    json!({
        "provider": entry.provider, "client_id": entry.client_id, "family": entry.family,
        "access_token": entry.access_token.expose(), "refresh_token": entry.refresh_token.expose(),
        "fingerprint": entry.refresh_token.fingerprint().to_string(),
        "issued_at": entry.issued_at.0, "expires_in": entry.expires_in,
        "used_at": entry.used_at.map(|at| at.0), "spent_at": entry.spent_at.map(|at| at.0),
        "reuses": entry.reuses, "renewals": entry.renewals,
        "superseded_by": entry.superseded_by.map(|fingerprint| fingerprint.to_string()),
        "access_lives": entry.access_lives(now), "refresh_lives": entry.refresh_lives(now),
    })
}

fn activate(user_code: &str) -> Reply {
    // Only what can be a user code gets into the page.
    let value: String = user_code.chars().filter(char::is_ascii_alphanumeric).collect();
    let form = format!(
        "<p>A device wants to use your pretend account.</p><form method=\"post\">\
         <input name=\"code\" value=\"{value}\"> <button formaction=\"/sandbox/approve\">Yes</button> \
         <button formaction=\"/sandbox/deny\">No</button></form>"
    );
    Reply::html(200, "Activate", &form)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::rules::Rules;

    const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

    /// Each act changes the world as it says, and a bad one says what it wants.
    #[test]
    fn acts() {
        let mut world = World::new(Rules::default(), Vec::new());
        let user_code = world.ledger.issue_device(NOW, "c").user_code.clone();
        let mut post = |target: &str| {
            let reply = answer(&mut world, NOW, &Request::post(target, "text/plain", "")).expect("an own address");
            (reply.status, String::from_utf8(reply.body).expect("text"))
        };
        assert_eq!(post("/sandbox/pin").1.trim().len(), 8);
        let (status, pair) = post("/sandbox/issue?provider=mal&client_id=x&age_s=60");
        let pair: Value = serde_json::from_str(&pair).expect("JSON");
        assert_eq!((status, &pair["issued_at"], &pair["provider"]), (200, &json!(1_799_999_940), &json!("mal")));
        assert_eq!(post("/sandbox/issue?provider=plex").0, 400);
        assert_eq!(post("/sandbox/fault?503@3").1, "token:503@3\n");
        assert_eq!(post("/sandbox/fault?nothing").0, 400);
        assert_eq!(post("/sandbox/lifetime?20").0, 200);
        assert_eq!(post("/sandbox/lifetime?x").0, 400);
        assert_eq!(post(&format!("/sandbox/approve?{user_code}")).0, 200);
        assert_eq!(post("/sandbox/deny?nothing").0, 404);
        assert_eq!(post("/sandbox/nothing").0, 404);
        assert_eq!(world.ledger.rules.lifetime_s, Some(20));
        assert_eq!(world.ledger.codes.devices[0].decision, Some(Decision::Approved));
        let page = answer(&mut world, NOW, &Request::get("/")).expect("an own address");
        assert!(String::from_utf8(page.body).expect("text").contains("fault waiting         token:503@3"));
        let json = answer(&mut world, NOW, &Request::get("/ledger.json")).expect("an own address");
        let json: Value = serde_json::from_slice(&json.body).expect("JSON");
        assert_eq!(json["tokens"][0]["refresh_lives"], true);
        let page = answer(&mut world, NOW, &Request::get("/activate/AB<12")).expect("an own address");
        assert!(String::from_utf8(page.body).expect("text").contains("value=\"AB12\""));
        assert!(answer(&mut world, NOW, &Request::get("/oauth/token")).is_none());
    }
}

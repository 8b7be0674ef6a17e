//! A record as a line of a journal, and back: `CHECKSUM JSON`.
//!
//! Written by hand and not derived, because a derive would need secrets that
//! can be serialized anywhere.

use serde_json::{Map, Value, json};

use super::sign_in::Step;
use super::{Dead, Held, Intent, Origin, Record, Trouble};
use crate::token::{Fingerprint, Grant, Secret, UnixSeconds};

/// How many hexadecimal digits a fingerprint has: that of a token, and the checksum before each record.
const FINGERPRINT_DIGITS: usize = 32;

/// The line of a record.
pub(super) fn line(record: &Record) -> Vec<u8> {
    let json = record.to_json().to_string();
    format!("{} {json}\n", Fingerprint::of(json.as_bytes())).into_bytes()
}

/// The record of a whole line, its end apart; an unknown one is from a newer version, and is passed over.
pub(super) fn parse_line(piece: &[u8]) -> Option<Record> {
    let (checksum, json) = std::str::from_utf8(piece).ok()?.split_at_checked(FINGERPRINT_DIGITS)?;
    let json = json.strip_prefix(' ')?;
    if Fingerprint::parse(checksum)? != Fingerprint::of(json.as_bytes()) {
        return None;
    }
    Record::from_json(&serde_json::from_str(json).ok()?)
}

impl Record {
    fn to_json(&self) -> Value {
        match self {
            Self::Intent(intent) => json!({"intent": intent.spends.to_string(), "at": intent.at.0}),
            Self::Held(held) => json!({"held": held_to_json(held)}),
            Self::Published => json!({"published": true}),
            Self::Fallback(held) => json!({"fallback": held_to_json(held)}),
            // One string, because a thousand of them would each be made and thrown away at every look.
            Self::Spent(tokens) => json!({"spent": tokens.iter().map(ToString::to_string).collect::<String>()}),
            Self::Dead(dead) => json!({"dead": dead.token.to_string(), "at": dead.at.0, "lost": dead.lost}),
            Self::Used(token) => json!({"used": token.to_string()}),
            Self::Trouble { trouble, settled } => json!({
                "trouble": trouble.what, "since": trouble.since.0, "attempts": trouble.attempts,
                "not_before": trouble.not_before.0, "asked": trouble.asked, "refused": trouble.refused.map(|c| c.to_string()), "settled": settled,
            }),
            Self::SignedOut(at) => json!({"signed_out": at.0}),
            Self::LoggedOut(at) => json!({"logged_out": at.0}),
            Self::SignIn(step) => step.to_json(),
            Self::Succeeded(at) => json!({"succeeded": at.0}),
            Self::Edit(before, after) => json!({"edit": before.to_string(), "after": after.to_string()}),
        }
    }

    fn from_json(value: &Value) -> Option<Self> {
        let object = value.as_object()?;
        let fingerprint = |key: &str| Fingerprint::parse(object.get(key)?.as_str()?);
        let seconds = |key: &str| object.get(key)?.as_i64().map(UnixSeconds);
        // A line has one key that names it.
        Some(if object.contains_key("intent") {
            Self::Intent(Intent { spends: fingerprint("intent")?, at: seconds("at")? })
        } else if let Some(held) = object.get("held") {
            Self::Held(held_from_json(held.as_object()?)?)
        } else if object.contains_key("published") {
            Self::Published
        } else if let Some(held) = object.get("fallback") {
            Self::Fallback(held_from_json(held.as_object()?)?)
        } else if let Some(tokens) = object.get("spent") {
            let tokens = tokens.as_str().filter(|tokens| tokens.is_ascii())?;
            let starts = (0..tokens.len()).step_by(FINGERPRINT_DIGITS);
            let token = |at| Fingerprint::parse(tokens.get(at..at + FINGERPRINT_DIGITS)?);
            Self::Spent(starts.map(token).collect::<Option<_>>()?)
        } else if object.contains_key("dead") {
            let lost = object.get("lost").and_then(Value::as_bool).unwrap_or_default();
            Self::Dead(Dead { token: fingerprint("dead")?, at: seconds("at")?, lost })
        } else if object.contains_key("used") {
            Self::Used(fingerprint("used")?)
        } else if let Some(what) = object.get("trouble") {
            let trouble = Trouble {
                since: seconds("since")?,
                attempts: u32::try_from(object.get("attempts")?.as_u64()?).ok()?,
                not_before: seconds("not_before")?,
                what: what.as_str()?.to_owned(),
                asked: object.get("asked").and_then(Value::as_bool).unwrap_or_default(),
                refused: fingerprint("refused"),
            };
            Self::Trouble { trouble, settled: object.get("settled")?.as_bool()? }
        } else if object.contains_key("signed_out") {
            Self::SignedOut(seconds("signed_out")?)
        } else if object.contains_key("logged_out") {
            Self::LoggedOut(seconds("logged_out")?)
        } else if object.contains_key("sign_in") {
            Self::SignIn(Step::from_json(object)?)
        } else if object.contains_key("succeeded") {
            Self::Succeeded(seconds("succeeded")?)
        } else if object.contains_key("edit") {
            Self::Edit(fingerprint("edit")?, fingerprint("after")?)
        } else {
            return None;
        })
    }
}

fn held_to_json(held: &Held) -> Value {
    let grant = &held.grant;
    json!({
        "access_token": grant.access_token.expose(), "token_type": grant.token_type,
        "expires_in": grant.expires_in, "refresh_token": grant.refresh_token.as_ref().map(Secret::expose),
        "scope": grant.scope, "created_at": grant.created_at.map(|at| at.0),
        "origin": match held.origin {
            Origin::Refreshed => "refreshed",
            Origin::Authorized => "authorized",
            Origin::Adopted => "adopted",
        },
        "at": held.at.0, "client": held.client.to_string(), "draw": held.draw, "is_published": held.published,
    })
}

fn held_from_json(object: &Map<String, Value>) -> Option<Held> {
    let text = |key: &str| object.get(key).and_then(Value::as_str);
    let number = |key: &str| object.get(key).and_then(Value::as_i64);
    Some(Held {
        grant: Grant {
            access_token: Secret::new(text("access_token")?),
            token_type: text("token_type").map(str::to_owned),
            expires_in: number("expires_in"),
            refresh_token: text("refresh_token").map(Secret::new),
            scope: text("scope").map(str::to_owned),
            created_at: number("created_at").map(UnixSeconds),
        },
        origin: match text("origin")? {
            "refreshed" => Origin::Refreshed,
            "authorized" => Origin::Authorized,
            "adopted" => Origin::Adopted,
            _ => return None,
        },
        at: UnixSeconds(number("at")?),
        client: Fingerprint::parse(text("client")?)?,
        draw: u16::try_from(number("draw")?).ok()?,
        published: object.get("is_published")?.as_bool()?,
    })
}

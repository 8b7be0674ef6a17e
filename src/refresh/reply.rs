//! What an answer means.
//!
//! Pure. Invariant: only a JSON body with one of the provider's own words for
//! it proves a dead token; everything else that is no grant costs nothing but time.

use std::borrow::Cow;

use serde_json::Value;

use crate::provider::Provider;
use crate::token::{Grant, UnixSeconds};

/// A whole answer of a token endpoint.
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// `Retry-After` in seconds (RFC 9110 section 10.2.3).
    pub retry_after_s: Option<i64>,
    /// The body, all of it.
    pub body: Vec<u8>,
}

/// How long an OAuth error is left alone that proves no dead token and no bad client.
const NAMED_ERROR_S: i64 = 3600;

/// What it means.
pub enum Reply {
    /// A grant.
    Grant(Grant),
    /// What was offered is spent, expired or revoked: one of [`Provider::dead_errors`].
    Invalid,
    /// The provider does not know these credentials: `invalid_client`, `unauthorized_client`.
    BadClient,
    /// Try again later.
    Later {
        /// What was answered, for a person.
        what: Cow<'static, str>,
        /// When the provider wants to be asked again.
        retry_after_s: Option<i64>,
        /// Whether the answer shows that nothing was spent. A server error or a page in the place
        /// of a grant may hide a rotation.
        settled: bool,
    },
}

/// Classifies an answer of a provider.
#[must_use]
pub fn classify(provider: &Provider, answer: &Answer) -> Reply {
    let later = |what: Cow<'static, str>, settled| Reply::Later { what, retry_after_s: answer.retry_after_s, settled };
    let status = answer.status;
    if (200..300).contains(&status) {
        return match Grant::from_json(&answer.body) {
            Ok(grant) => Reply::Grant(grant),
            Err(_) if is_page(&answer.body) => later("a web page in the place of a grant".into(), false),
            Err(why) => later(why.to_string().into(), false),
        };
    }
    match error_code(&answer.body).as_deref() {
        // Never on a server error: what fails there knows nothing of tokens.
        Some(code) if (400..500).contains(&status) && provider.dead_errors.contains(&code) => Reply::Invalid,
        Some("invalid_client" | "unauthorized_client") if (400..500).contains(&status) => Reply::BadClient,
        code => {
            let named = code.is_some();
            let settled = (300..500).contains(&status) && status != 408;
            let what = match (status, code) {
                (429, _) => "too many requests (HTTP 429)".into(),
                (403, None) => "refused before it reached the provider (HTTP 403)".into(),
                (_, Some(code)) => format!("HTTP {status}, {code}").into(),
                (300..=399, None) => format!("a redirect to elsewhere (HTTP {status}), not followed").into(),
                (500..=599, None) => format!("the provider has trouble (HTTP {status})").into(),
                _ => format!("HTTP {status}").into(),
            };
            let mut reply = later(what, settled);
            if let (Reply::Later { retry_after_s, .. }, 400 | 401, true) = (&mut reply, status, named) {
                // An error with a name does not go away within minutes.
                retry_after_s.get_or_insert(NAMED_ERROR_S);
            }
            reply
        }
    }
}

/// `Retry-After` is a number of seconds or a date (RFC 9110 section 10.2.3).
#[must_use]
pub fn retry_after_s(text: &str, now: UnixSeconds) -> Option<i64> {
    let seconds = text.trim().parse().ok();
    let date = || jiff::fmt::rfc2822::parse(text).ok().map(|at| UnixSeconds(at.timestamp().as_second()).since(now));
    seconds.or_else(date).map(|seconds| seconds.max(0))
}

/// The OAuth `error` of a JSON body, if it has the form that RFC 6749 section 5.2 allows; nothing
/// else of a body is ever shown.
pub(super) fn error_code(body: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(body).ok()?;
    let code = value.get("error")?.as_str()?;
    let plain = code.len() <= 40 && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    (plain && !code.is_empty()).then(|| code.to_owned())
}

fn is_page(body: &[u8]) -> bool {
    body.trim_ascii_start().first() == Some(&b'<')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::{MAL, TRAKT};

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, retry_after_s: None, body: body.as_bytes().to_vec() }
    }

    /// Which answers prove what: the table of everything that has been seen.
    #[test]
    fn table() {
        const GRANT: &str = r#"{"access_token":"a","refresh_token":"b","expires_in":1}"#;
        const DEAD: &str =
            r#"{"error":"invalid_grant","error_description":"The provided authorization grant is invalid"}"#;
        let name = |reply: &Reply| match reply {
            Reply::Grant(_) => "grant".to_owned(),
            Reply::Invalid => "invalid".to_owned(),
            Reply::BadClient => "client".to_owned(),
            Reply::Later { what, settled, .. } => format!("later {settled}: {what}"),
        };
        for (status, body, expected) in [
            (200, GRANT, "grant"),
            (201, GRANT, "grant"),
            (200, "<!DOCTYPE html>", "later false: a web page in the place of a grant"),
            (200, "{", "later false: the answer is not a JSON object"),
            (200, "{}", "later false: the answer has no access token"),
            (400, DEAD, "invalid"),
            (401, DEAD, "invalid"),
            (500, DEAD, "later false: HTTP 500, invalid_grant"),
            (401, r#"{"error":"invalid_client"}"#, "client"),
            (502, r#"{"error":"invalid_client"}"#, "later false: HTTP 502, invalid_client"),
            (400, r#"{"error":"invalid_request"}"#, "later true: HTTP 400, invalid_request"),
            (400, "invalid_grant", "later true: HTTP 400"),
            (400, r#"{"error":"<b>token</b>"}"#, "later true: HTTP 400"),
            (401, "", "later true: HTTP 401"),
            (403, "<html>", "later true: refused before it reached the provider (HTTP 403)"),
            (408, "", "later false: HTTP 408"),
            (429, "slow down", "later true: too many requests (HTTP 429)"),
            (302, "", "later true: a redirect to elsewhere (HTTP 302), not followed"),
            (502, "<html>", "later false: the provider has trouble (HTTP 502)"),
        ] {
            assert_eq!(name(&classify(&TRAKT, &answer(status, body))), expected, "{status} {body}");
        }
        // MyAnimeList has a word more.
        let other = r#"{"error":"invalid_request","message":"The refresh token is invalid."}"#;
        for (status, body, expected) in [
            (400, DEAD, "invalid"),
            (401, other, "invalid"),
            (500, other, "later false: HTTP 500, invalid_request"),
            (400, r#"{"error":"unsupported_grant_type"}"#, "later true: HTTP 400, unsupported_grant_type"),
        ] {
            assert_eq!(name(&classify(&MAL, &answer(status, body))), expected, "{status} {body}");
        }
    }

    /// Seconds and dates are understood, the rest is not; what lies in the past is now.
    #[test]
    fn retry_after() {
        let now = UnixSeconds(1_795_348_800);
        for (text, expected) in [
            (" 120 ", Some(120)),
            ("-5", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(0)),
            ("Sun, 22 Nov 2026 12:01:30 GMT", Some(90)),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(retry_after_s(text, now), expected, "{text}");
        }
    }
}

//! The device flow's two requests and what their answers mean (RFC 8628).
//!
//! Pure. Trakt says it by the status alone, the RFC by an `error` code with
//! status 400; both are understood.

use serde_json::Value;

use super::is_secure;
use super::reply::{Answer, Reply, classify, error_code};
use super::request::{Credentials, Endpoint, Request, encode};
use crate::journal::sign_in::Code;
use crate::provider::{Login, Provider};
use crate::token::{Grant, Secret, UnixSeconds};

/// Where an answer has no `interval` (RFC 8628 section 3.2).
const INTERVAL_DEFAULT_S: i64 = 5;
/// What "slow down" adds to it (RFC 8628 section 3.5).
pub const SLOW_DOWN_S: i64 = 5;
/// Longer intervals, and what a series of failures stretches one to.
pub const INTERVAL_MAX_S: i64 = 60;
/// No code seen lives longer than 10 minutes.
const LIFETIME_MAX_S: i64 = 3600;
/// What is shown to a person is short.
const SHOWN_MAX_BYTES: usize = 200;

/// The request for a code; none for a provider without that flow.
#[must_use]
pub fn code_request(endpoint: &Endpoint, credentials: &Credentials) -> Option<Request> {
    let Login::Device { code_path, .. } = endpoint.provider.login else { return None };
    Some(encode(endpoint, code_path, &[("client_id", credentials.client_id.expose())]))
}

/// The request that asks whether it was entered.
#[must_use]
pub fn poll_request(endpoint: &Endpoint, credentials: &Credentials, device_code: &Secret) -> Option<Request> {
    let Login::Device { token_path, .. } = endpoint.provider.login else { return None };
    let mut fields = vec![("code", device_code.expose()), ("client_id", credentials.client_id.expose())];
    fields.extend(credentials.client_secret.as_ref().map(|secret| ("client_secret", secret.expose())));
    Some(encode(endpoint, token_path, &fields))
}

/// Reads the answer with a code; none where it is not one.
#[must_use]
pub fn parse_code(endpoint: &Endpoint, credentials: &Credentials, answer: &Answer, now: UnixSeconds) -> Option<Code> {
    let Login::Device { page, .. } = endpoint.provider.login else { return None };
    let value: Value = serde_json::from_slice(&answer.body).ok()?;
    let text = |key: &str| value.get(key)?.as_str().map(str::trim).filter(|text| is_plain(text));
    let number = |key: &str| value.get(key)?.as_i64().filter(|number| *number > 0);
    let interval_s = number("interval").unwrap_or(INTERVAL_DEFAULT_S).min(INTERVAL_MAX_S);
    Some(Code {
        device_code: Secret::new(value.get("device_code")?.as_str().filter(|code| code.len() <= 1000)?),
        user_code: text("user_code")?.to_owned(),
        page: text("verification_url")
            .or(text("verification_uri"))
            .filter(|url| is_secure(url))
            .unwrap_or(page)
            .to_owned(),
        interval_s,
        poll_at: now.plus(interval_s),
        expires_at: now.plus(number("expires_in").unwrap_or(600).min(LIFETIME_MAX_S)),
        client: credentials.client_id.fingerprint(),
    })
}

/// Whether a text can be shown to a person as it is.
fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.len() <= SHOWN_MAX_BYTES && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// What the answer to a poll means.
pub enum Polled {
    /// The person said yes.
    Grant(Grant),
    /// Nobody said anything yet.
    Pending,
    /// Ask less often; in seconds where the provider said how long to wait.
    SlowDown(Option<i64>),
    /// The person said no.
    Denied,
    /// Its time is over, or nobody knows it any more.
    Expired,
    /// It brought a grant already.
    Used,
    /// The provider does not know the client.
    BadClient,
    /// Anything else: the network or the provider has trouble.
    Trouble,
}

/// Classifies the answer to a poll.
#[must_use]
pub fn classify_poll(provider: &Provider, answer: &Answer) -> Polled {
    match (answer.status, error_code(&answer.body).as_deref()) {
        (200..=299, _) => match classify(provider, answer) {
            Reply::Grant(grant) => Polled::Grant(grant),
            _ => Polled::Trouble,
        },
        (429, _) | (400..=499, Some("slow_down")) => Polled::SlowDown(answer.retry_after_s),
        (418, _) | (400..=499, Some("access_denied")) => Polled::Denied,
        (404 | 410, _) | (400..=499, Some("expired_token" | "invalid_grant")) => Polled::Expired,
        (409, _) => Polled::Used,
        (400..=499, Some("invalid_client" | "unauthorized_client")) => Polled::BadClient,
        (400, _) => Polled::Pending,
        _ => Polled::Trouble,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::{MAL, TRAKT};

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, retry_after_s: None, body: body.as_bytes().to_vec() }
    }

    /// Which answers to a poll mean what, in Trakt's words and in the RFC's.
    #[test]
    fn polls() {
        let name = |polled: &Polled| match polled {
            Polled::Grant(_) => "grant",
            Polled::Pending => "pending",
            Polled::SlowDown(_) => "slow down",
            Polled::Denied => "denied",
            Polled::Expired => "expired",
            Polled::Used => "used",
            Polled::BadClient => "client",
            Polled::Trouble => "trouble",
        };
        for (status, body, expected) in [
            (200, r#"{"access_token":"a"}"#, "grant"),
            (200, "<html>", "trouble"),
            (400, "", "pending"),
            (400, r#"{"error":"authorization_pending"}"#, "pending"),
            (400, r#"{"error":"slow_down"}"#, "slow down"),
            (400, r#"{"error":"access_denied"}"#, "denied"),
            (400, r#"{"error":"expired_token"}"#, "expired"),
            (401, r#"{"error":"invalid_client"}"#, "client"),
            (404, "<html>", "expired"),
            (409, "", "used"),
            (410, "", "expired"),
            (418, "", "denied"),
            (429, "", "slow down"),
            (403, "<html>", "trouble"),
            (502, "", "trouble"),
        ] {
            assert_eq!(name(&classify_poll(&TRAKT, &answer(status, body))), expected, "{status} {body}");
        }
    }

    /// A code is taken as it comes; absurd numbers are bounded, and what could fool a terminal is no code.
    #[test]
    fn codes() {
        let endpoint = |provider| Endpoint { provider, auth_url: String::new(), redirect_uri: None };
        let credentials = Credentials { client_id: Secret::new("id"), client_secret: None };
        let now = UnixSeconds(1_800_000_000);
        let parse = |body: &str| parse_code(&endpoint(&TRAKT), &credentials, &answer(200, body), now);
        let full = r#"{"device_code":"d","user_code":"AB12","verification_url":"https://trakt.tv/activate","expires_in":600,"interval":5}"#;
        let code = parse(full).unwrap();
        assert_eq!((code.link().as_str(), code.interval_s), ("https://trakt.tv/activate/AB12", 5));
        assert_eq!((code.poll_at, code.expires_at), (now.plus(5), now.plus(600)));
        let odd = parse(
            r#"{"device_code":"d","user_code":"A","verification_url":"ftp://127.0.0.1/x","expires_in":99999999,"interval":-1}"#,
        )
        .unwrap();
        assert_eq!((odd.page.as_str(), odd.interval_s), ("https://trakt.tv/activate", 5));
        assert_eq!(odd.expires_at, now.plus(LIFETIME_MAX_S));
        for none in ["{}", "<html>", r#"{"device_code":"d","user_code":"A\u001b[2J"}"#] {
            assert!(parse(none).is_none(), "{none}");
        }
        assert!(code_request(&endpoint(&MAL), &credentials).is_none());
    }
}

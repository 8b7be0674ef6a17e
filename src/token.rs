//! What a token is: secrets, grants, and the time that they live by.
//!
//! Invariant: a [`Secret`] has neither `Debug` nor `Display`, so that no log
//! line, error or panic can hold one. This file never does IO and never reads
//! a clock.

use std::collections::HashMap;
use std::fmt;

use serde_json::Value;
use serde_json::value::RawValue;

/// A moment in seconds since 1970-01-01 UTC, as RFC 7519 and Trakt's
/// `created_at` count them. Arithmetic saturates: the numbers come from
/// hand-written files and must not be able to overflow anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixSeconds(pub i64);

impl UnixSeconds {
    /// This moment, `seconds` later (or earlier, where negative).
    #[must_use]
    pub const fn plus(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds))
    }

    /// Seconds from `earlier` to this moment; negative where it is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A string that must not be printed: a token, a client secret, a PIN.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret. Surrounding white space is kept: it is the caller's to judge.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// A secret that nobody can guess: 64 characters that need no escaping anywhere.
    #[must_use]
    pub fn random() -> Option<Self> {
        use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
        use ring::rand::SecureRandom as _;
        let mut bytes = [0; 48];
        ring::rand::SystemRandom::new().fill(&mut bytes).ok()?;
        Some(Self(BASE64_URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// The secret itself, for a request body, the journal or the config file; never for a message.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// When a JSON Web Token says that it was made, and for how many seconds (RFC 7519 `iat`, `exp`).
    /// Nothing is verified: it only replaces a `created_at` that `MyAnimeList` does not send.
    #[must_use]
    pub fn claimed_life(&self) -> Option<(UnixSeconds, i64)> {
        use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
        let mut parts = self.0.split('.');
        let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
        let claims = BASE64_URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
        let claims: Value = serde_json::from_slice(&claims).ok()?;
        let seconds = |claim| claims.get(claim).and_then(whole_number);
        let (issued, expires) = (seconds("iat").or_else(|| seconds("nbf"))?, seconds("exp")?);
        Some((UnixSeconds(issued), expires.checked_sub(issued).filter(|life| *life > 0)?))
    }

    /// A name for this secret that says nothing about it.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.0.as_bytes())
    }
}

/// The first 16 bytes of a SHA-256: enough to recognize a text again, useless for finding it out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 16]);

impl Fingerprint {
    /// The fingerprint of some bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
        let mut first = [0; 16];
        first.copy_from_slice(&digest.as_ref()[..16]);
        Self(first)
    }

    /// That of a path, which stands for it in few bytes.
    #[must_use]
    pub fn of_path(path: &std::path::Path) -> Self {
        Self::of(path.as_os_str().as_encoded_bytes())
    }

    /// Reads what `Display` wrote: 32 hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (true, 32) = (text.is_ascii(), text.len()) else {
            return None;
        };
        let mut bytes = [0; 16];
        for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
            *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// What a token endpoint grants (RFC 6749 section 5.1), as far as it said it.
///
/// Only the access token is sure: everything else has been seen missing, and
/// a missing field must not cost the token.
#[derive(Clone, PartialEq, Eq)]
pub struct Grant {
    /// The access token.
    pub access_token: Secret,
    /// `bearer` or `Bearer`: kept as it came.
    pub token_type: Option<String>,
    /// Lifetime of the access token in seconds, counted from `created_at`.
    pub expires_in: Option<i64>,
    /// The next refresh token; where absent, the one that was sent stays valid (RFC 6749 section 6).
    pub refresh_token: Option<Secret>,
    /// The granted scope.
    pub scope: Option<String>,
    /// When the server made it. Trakt says so, `MyAnimeList` does not.
    pub created_at: Option<UnixSeconds>,
}

impl Grant {
    /// Reads a token endpoint's answer. Numbers may come as strings or with a
    /// fraction; anything else that is not of the expected type is left out.
    ///
    /// The token that was sent for it is spent, so that nothing but a missing access token may cost the
    /// answer: not a byte order mark, not what follows the object, not a number or a nesting beyond
    /// what a parser takes, not an unpaired surrogate in a field that nobody asked for.
    ///
    /// # Errors
    /// The body is no JSON object, or it has no non-empty `access_token`.
    pub fn from_json(body: &[u8]) -> Result<Self, NoGrant> {
        let body = String::from_utf8_lossy(body);
        let reader = serde_json::Deserializer::from_str(body.trim_start_matches('\u{feff}'));
        let members = reader.into_iter::<HashMap<String, &RawValue>>().next().and_then(Result::ok);
        let members = members.ok_or(NoGrant::NotJson)?;
        // Each by itself: a value that cannot be read is missing, and the others are not.
        let value = |key| serde_json::from_str::<Value>(members.get(key)?.get()).ok();
        let text = |key| Some(value(key)?.as_str()?.trim().to_owned()).filter(|text| !text.is_empty());
        let number = |key| whole_number(&value(key)?);
        Ok(Self {
            access_token: Secret::new(text("access_token").ok_or(NoGrant::NoAccessToken)?),
            token_type: text("token_type"),
            expires_in: number("expires_in"),
            refresh_token: text("refresh_token").map(Secret::new),
            scope: text("scope"),
            created_at: number("created_at").map(UnixSeconds),
        })
    }
}

/// Why a body is no grant. It holds nothing of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoGrant {
    /// Not a JSON object.
    #[error("the answer is not a JSON object")]
    NotJson,
    /// A JSON object, but without an access token.
    #[error("the answer has no access token")]
    NoAccessToken,
}

#[expect(clippy::cast_possible_truncation, reason = "`as` saturates, which is what is wanted of an absurd number")]
fn whole_number(value: &Value) -> Option<i64> {
    value
        .as_i64()
        .or_else(|| value.as_f64().map(|f| f as i64))
        .or_else(|| value.as_str().and_then(|s| s.trim().parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fingerprint survives being written and read, and says nothing of its text.
    #[test]
    fn fingerprint_round_trip() {
        let fingerprint = Secret::new("refresh-1").fingerprint();
        assert_eq!(Fingerprint::parse(&fingerprint.to_string()), Some(fingerprint));
        assert_ne!(Secret::new("refresh-2").fingerprint(), fingerprint);
        assert_eq!(format!("{fingerprint:?}"), fingerprint.to_string());
        for bad in [
            "",
            "zz",
            "0123456789abcdef0123456789abcde",
            "é123456789abcdef0123456789abcde",
            "+123456789abcdef0123456789abcdeg",
        ] {
            assert_eq!(Fingerprint::parse(bad), None, "{bad}");
        }
    }

    /// A secret of our own is long, of harmless characters, and never the same.
    #[test]
    fn random() {
        let secrets: Vec<String> = (0..9).filter_map(|_| Some(Secret::random()?.expose().to_owned())).collect();
        assert_eq!(secrets.iter().collect::<std::collections::HashSet<_>>().len(), 9);
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        assert!(secrets.iter().all(|secret| secret.len() == 64 && secret.chars().all(plain)));
    }

    /// A JSON Web Token's claims are believed as far as they make sense.
    #[test]
    fn claims() {
        use base64::prelude::{BASE64_URL_SAFE, Engine as _};
        for (claims, life) in [
            (r#"{"iat":100,"exp":160}"#, Some((UnixSeconds(100), 60))),
            (r#"{"nbf":100,"exp":"160"}"#, Some((UnixSeconds(100), 60))),
            (r#"{"iat":100,"exp":100}"#, None),
            (r#"{"iat":100}"#, None),
            ("[]", None),
        ] {
            let token = Secret::new(format!("header.{}.signature", BASE64_URL_SAFE.encode(claims)));
            assert_eq!(token.claimed_life(), life, "{claims}");
        }
        assert_eq!(Secret::new("4f3c9e").claimed_life(), None);
    }

    /// Every field but the access token may be missing or odd, and costs nothing.
    #[test]
    fn odd_answers_are_still_grants() {
        let full = br#"{"access_token":"a","token_type":"bearer","expires_in":604800,"refresh_token":"r","scope":"public","created_at":1763820000}"#;
        let grant = Grant::from_json(full).expect("a grant");
        assert_eq!((grant.expires_in, grant.created_at), (Some(604_800), Some(UnixSeconds(1_763_820_000))));
        let odd = br#"{"access_token":"a","token_type":7,"expires_in":"3600","refresh_token":"","scope":null,"created_at":1.5e9}"#;
        let grant = Grant::from_json(odd).expect("a grant");
        assert!(grant.refresh_token.is_none() && grant.token_type.is_none() && grant.scope.is_none());
        assert_eq!((grant.expires_in, grant.created_at), (Some(3600), Some(UnixSeconds(1_500_000_000))));
    }

    /// Nothing that stands around the tokens costs them.
    #[test]
    fn odd_surroundings_are_still_grants() {
        let deep = [r#"{"deep":"#, &"[".repeat(500), &"]".repeat(500), r#","access_token":"a","refresh_token":"r"}"#];
        for body in [
            &deep.concat(),
            "\u{feff}{\"access_token\":\"a\",\"refresh_token\":\"r\"}",
            r#"{"access_token":"a","refresh_token":"r"}<!-- 12 ms -->"#,
            r#"{"access_token":"a","refresh_token":"r","expires_in":1e999}"#,
            r#"{"expires_in":1,"access_token":"a","refresh_token":"r","scope":"\ud83d"}"#,
        ] {
            let grant = Grant::from_json(body.as_bytes()).expect("a grant");
            assert_eq!((grant.access_token.expose(), grant.refresh_token.unwrap().expose()), ("a", "r"), "{body}");
        }
        let grant = Grant::from_json(b"{\"access_token\":\"a\",\"scope\":\"\xff\"}").expect("a grant");
        assert_eq!(grant.scope.as_deref(), Some("\u{fffd}"));
    }

    /// What has no access token is no grant, and the error names which.
    #[test]
    fn not_a_grant() {
        for (body, why) in [
            (&b"<html>"[..], NoGrant::NotJson),
            (b"[]", NoGrant::NotJson),
            (b"", NoGrant::NotJson),
            (b"{}", NoGrant::NoAccessToken),
            (br#"{"access_token":" "}"#, NoGrant::NoAccessToken),
            (br#"{"error":"invalid_grant"}"#, NoGrant::NoAccessToken),
        ] {
            assert_eq!(Grant::from_json(body).err(), Some(why));
        }
    }
}

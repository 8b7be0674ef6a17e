//! Requests and replies as plain values, and how their bodies are read.
//!
//! Invariant: what a body does not say unambiguously (a name given twice, a
//! value of the wrong type) is refused, because a real server may read it either
//! way. This file never does IO.

use std::collections::BTreeMap;

/// A request that arrived whole.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// `GET`, `POST` …
    pub method: String,
    /// The path with its query, as in the request line.
    pub target: String,
    /// The headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Request {
    /// A GET without headers.
    #[must_use]
    pub fn get(target: &str) -> Self {
        Self { method: "GET".to_owned(), target: target.to_owned(), headers: Vec::new(), body: Vec::new() }
    }

    /// A POST with a body and its `Content-Type`.
    #[must_use]
    pub fn post(target: &str, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        let mut request = Self::get(target).with("content-type", content_type);
        "POST".clone_into(&mut request.method);
        request.body = body.into();
        request
    }

    /// The same request with one more header.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_ascii_lowercase(), value.to_owned()));
        self
    }

    /// The first header of that name (in lower case).
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The path without its query.
    #[must_use]
    pub fn path(&self) -> &str {
        self.target.split_once('?').map_or(self.target.as_str(), |(path, _)| path)
    }

    /// The query's parameters.
    #[must_use]
    pub fn query(&self) -> Option<Params> {
        Params::from_form(self.target.split_once('?').map_or("", |(_, query)| query))
    }

    /// The body's parameters, by its `Content-Type`; none where that is neither JSON nor a form.
    #[must_use]
    pub fn params(&self) -> Option<Params> {
        match self.media_type()?.as_str() {
            "application/json" => Params::from_json(&self.body),
            "application/x-www-form-urlencoded" => Params::from_form(std::str::from_utf8(&self.body).ok()?),
            _ => None,
        }
    }

    /// The `Content-Type` without its parameters, in lower case.
    #[must_use]
    pub fn media_type(&self) -> Option<String> {
        let value = self.header("content-type")?;
        Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
    }
}

/// A reply, whole.
#[derive(Clone, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The headers, without `Content-Length`, which the edge knows.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Reply {
    /// A reply of that status and media type.
    #[must_use]
    pub fn new(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: vec![("content-type", content_type.to_owned())], body: body.into() }
    }

    /// A reply that has a status and nothing else.
    #[must_use]
    pub const fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
    }

    /// A JSON reply. Never stored by caches (RFC 6749 section 5.1).
    #[must_use]
    pub fn json(status: u16, value: &serde_json::Value) -> Self {
        Self::new(status, "application/json; charset=utf-8", value.to_string())
            .with("cache-control", "no-store")
            .with("pragma", "no-cache")
    }

    /// A page for a browser.
    #[must_use]
    pub fn html(status: u16, title: &str, text: &str) -> Self {
        let page = format!("<!DOCTYPE html>\n<html><head><title>{title}</title></head>\n<body>{text}</body></html>\n");
        Self::new(status, "text/html; charset=UTF-8", page)
    }

    /// Plain text.
    #[must_use]
    pub fn text(status: u16, text: impl Into<Vec<u8>>) -> Self {
        Self::new(status, "text/plain; charset=utf-8", text)
    }

    /// The same reply with one more header.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The first header of that name (in lower case).
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str())
    }
}

/// The parameters of a request.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Params(BTreeMap<String, String>);

impl Params {
    /// A JSON object of strings; nulls count as absent.
    #[must_use]
    pub fn from_json(body: &[u8]) -> Option<Self> {
        let serde_json::Value::Object(object) = serde_json::from_slice(body).ok()? else {
            return None;
        };
        let mut params = BTreeMap::new();
        for (name, value) in object {
            match value {
                serde_json::Value::String(text) => drop(params.insert(name, text)),
                serde_json::Value::Null => {}
                _ => return None,
            }
        }
        Some(Self(params))
    }

    /// A query or a form body (RFC 6749 appendix B); none if a name comes twice or an escape is broken.
    #[must_use]
    pub fn from_form(text: &str) -> Option<Self> {
        let mut params = BTreeMap::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if params.insert(unescape(name)?, unescape(value)?).is_some() {
                return None;
            }
        }
        Some(Self(params))
    }

    /// A parameter; an empty one counts as absent (RFC 6749 section 3.2).
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

/// `text` with everything escaped that is not unreserved (RFC 3986 section 2.3).
#[must_use]
pub fn escape(text: &str) -> String {
    use std::fmt::Write;

    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let (high, low) = (hex_digit(rest.next()?)?, hex_digit(rest.next()?)?);
                high * 16 + low
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Forms are read as RFC 6749 appendix B writes them, and what is ambiguous or broken is refused.
    #[test]
    fn forms() {
        let params = Params::from_form("a=1&b=x%2By+z%C3%A9&c=&d").expect("a form");
        assert_eq!((params.named("a"), params.named("b")), (Some("1"), Some("x+y zé")));
        assert_eq!((params.named("c"), params.named("d"), params.named("e")), (None, None, None));
        for bad in ["a=1&a=2", "a=%", "a=%4", "a=%zz", "a=%+1", "a=%ff"] {
            assert!(Params::from_form(bad).is_none(), "{bad}");
        }
        let all: String = (' '..='~').collect();
        assert_eq!(unescape(&escape(&all)), Some(all));
    }

    /// JSON parameters are strings; a PIN sent as a number is refused, a null is absent.
    #[test]
    fn json() {
        let params = Params::from_json(br#"{"code":"12345678","client_secret":null}"#).expect("an object");
        assert_eq!((params.named("code"), params.named("client_secret")), (Some("12345678"), None));
        for bad in [&b"{\"code\":12345678}"[..], b"[]", b"", b"code=1", b"{\"a\":{}}"] {
            assert!(Params::from_json(bad).is_none());
        }
    }
}

//! Where a message can go, and what a service wants to get: one format each.
//!
//! Pure. An address is a secret, because whoever has it can write there; a
//! channel is named by its kind and its host at most.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use idna::punycode;
use reqwest::Url;
use serde_json::{Value, json};

use super::notice::{Notice, Saying};
use crate::token::Secret;

/// What a service wants to get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// An embed. [Discord, "Execute Webhook"]
    Discord,
    /// Blocks. [Slack, "Sending messages using incoming webhooks"]
    Slack,
    /// Publishing as JSON, to the server's root. [docs.ntfy.sh/publish]
    Ntfy,
    /// `POST /message`. [gotify.net, "Push messages"]
    Gotify,
    /// `POST /notify/KEY`. [caronc/apprise-api, README]
    Apprise,
    /// What Kometa sends to Notifiarr. [Kometa `modules/notifiarr.py`]
    Notifiarr,
    /// What Kometa sends to any other address for an error. [Kometa `modules/webhooks.py`, `error_hooks`]
    Kometa,
    /// All that is known, for programs.
    Json,
}

/// One place for messages.
#[derive(Clone, PartialEq, Eq)]
pub struct Channel {
    format: Format,
    /// Where it is posted to.
    url: Secret,
    host: String,
    /// The header that lets us in.
    key: Option<(&'static str, Secret)>,
    /// Ntfy's topic.
    topic: Option<Secret>,
}

/// One request, ready to be sent.
pub struct Parcel {
    /// Kometa's requests to Notifiarr are GET with a body, and so must ours be.
    pub is_get: bool,
    /// The address.
    pub url: Secret,
    /// What lets us in.
    pub key: Option<(&'static str, Secret)>,
    /// JSON.
    pub body: Secret,
}

/// The longest texts that Discord takes are 256 and 4096 characters, Slack's 150 and 3000.
const TITLE_MAX: usize = 150;
const TEXT_MAX: usize = 2900;

impl Channel {
    /// Reads an address: the services by their hosts, `ntfy://`, `gotify://` and `apprise://` (with an `s` at
    /// the end for https anywhere), a format in front as in `slack+https://`, or any https address for JSON.
    ///
    /// # Errors
    /// It is none; the sentence has nothing of it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.trim().split_once("://").ok_or("it has no scheme such as https://")?;
        let (format, scheme) = match scheme.to_ascii_lowercase().as_str() {
            "https" => (None, "https"),
            "http" => (None, "http"),
            "ntfy" => (Some(Format::Ntfy), ""),
            "ntfys" => (Some(Format::Ntfy), "https"),
            "gotify" => (Some(Format::Gotify), ""),
            "gotifys" => (Some(Format::Gotify), "https"),
            "apprise" => (Some(Format::Apprise), ""),
            "apprises" => (Some(Format::Apprise), "https"),
            both => {
                let (name, scheme) = both.split_once('+').ok_or("this scheme is not known")?;
                let format = match name {
                    "discord" => Format::Discord,
                    "slack" => Format::Slack,
                    "ntfy" => Format::Ntfy,
                    "gotify" => Format::Gotify,
                    "apprise" => Format::Apprise,
                    "notifiarr" => Format::Notifiarr,
                    "json" => Format::Json,
                    _ => return Err("the format before the + is not known".to_owned()),
                };
                let scheme = ["http", "https"].into_iter().find(|known| *known == scheme);
                (Some(format), scheme.ok_or("after the + comes http:// or https://")?)
            }
        };
        // Without a word on it, a home server is spoken to as home servers are.
        let guess = if is_private(&host_of(rest)) { "http" } else { "https" };
        let scheme = if scheme.is_empty() { guess } else { scheme };
        let url = url_of(&format!("{scheme}://{rest}"))?;
        let format = format.unwrap_or_else(|| by_host(&url));
        Self::new(format, url)
    }

    /// A channel of Kometa's: the services that Kometa knows by their hosts, and its own JSON for the rest.
    pub(super) fn of_kometa(text: &str) -> Result<Self, String> {
        let url = url_of(text)?;
        let format = match by_host(&url) {
            known @ (Format::Discord | Format::Slack) => known,
            _ => Format::Kometa,
        };
        Self::new(format, url)
    }

    fn new(format: Format, mut url: Url) -> Result<Self, String> {
        let host = url.host_str().map(str::to_owned).ok_or("it names no host")?;
        if url.scheme() == "http" && !is_private(&host) {
            return Err("plain http goes to this machine and to private addresses only; use https".to_owned());
        }
        let decode = |text: &str| {
            form_urlencoded::parse(text.replace('+', "%2B").as_bytes())
                .next()
                .map_or_else(String::new, |(key, _)| key.into_owned())
        };
        let (user, password) = (decode(url.username()), url.password().map(decode));
        let bearer = |token: &str| Some(("authorization", Secret::new(format!("Bearer {token}"))));
        let mut key = match (user.as_str(), password.as_deref()) {
            ("", None | Some("")) => None,
            ("", Some(token)) | (token, None) => bearer(token),
            (user, Some(password)) => {
                let both = BASE64_STANDARD.encode(format!("{user}:{password}"));
                Some(("authorization", Secret::new(format!("Basic {both}"))))
            }
        };
        let _ = (url.set_username(""), url.set_password(None));
        let mut topic = None;
        if matches!(format, Format::Ntfy | Format::Gotify | Format::Notifiarr) {
            let path = url.path().trim_end_matches('/').to_owned();
            let (before, last) = path.rsplit_once('/').unwrap_or_default();
            if last.is_empty() {
                let missing = match format {
                    Format::Ntfy => "the topic is missing at its end",
                    Format::Gotify => "the application's token is missing at its end",
                    _ => "the API key is missing at its end",
                };
                return Err(missing.to_owned());
            }
            let last = Secret::new(decode(last));
            url.set_query(None);
            match format {
                Format::Ntfy => {
                    topic = Some(last);
                    url.set_path(&format!("{before}/"));
                }
                Format::Gotify => {
                    key = Some(("x-gotify-key", last));
                    url.set_path(&format!("{before}/message"));
                }
                _ => {
                    key = Some(("x-api-key", last));
                    url.set_path("/api/v1/notification/pmm/");
                }
            }
        }
        Ok(Self { format, url: Secret::new(url.as_str()), host, key, topic })
    }

    /// A channel whose token comes by itself, as in Kometa's blocks.
    pub(super) fn with_parts(format: Format, url: &str, last: &str, token: Option<&str>) -> Result<Self, String> {
        let mut url = url_of(url.trim_end_matches('/'))?;
        url.path_segments_mut().map_err(|()| "it is no address")?.pop_if_empty().push(last);
        let mut channel = Self::new(format, url)?;
        if let Some(token) = token {
            channel.key = Some(("authorization", Secret::new(format!("Bearer {token}"))));
        }
        Ok(channel)
    }

    /// What it wants to get.
    #[must_use]
    pub const fn format(&self) -> Format {
        self.format
    }

    /// The request that brings a notice.
    #[must_use]
    pub fn parcel(&self, notice: &Notice) -> Parcel {
        Parcel {
            is_get: self.format == Format::Notifiarr,
            url: self.url.clone(),
            key: self.key.clone(),
            body: Secret::new(self.payload(notice).to_string()),
        }
    }

    fn payload(&self, notice: &Notice) -> Value {
        let (title, text) = (short(&notice.title(), TITLE_MAX), short(&notice.body(), TEXT_MAX));
        let is_bad = matches!(notice.saying, Saying::Problem | Saying::Reminder);
        match self.format {
            Format::Discord => json!({
                "username": "kometa-authd",
                "embeds": [{
                    "title": title, "description": text, "color": if is_bad { 0x00D8_3A3A } else { 0x002E_A043 },
                }],
                // A name in a path must not ring anybody.
                "allowed_mentions": { "parse": [] },
            }),
            Format::Slack => json!({
                "text": escaped(&title),
                "blocks": [
                    { "type": "header", "text": { "type": "plain_text", "text": title } },
                    { "type": "section", "text": { "type": "plain_text", "text": text } },
                ],
            }),
            Format::Ntfy => json!({
                "topic": self.topic.as_ref().map_or("", Secret::expose),
                "title": title,
                "message": text,
                "priority": if is_bad { 4 } else { 3 },
                "tags": [if is_bad { "warning" } else { "white_check_mark" }],
            }),
            Format::Gotify => json!({ "title": title, "message": text, "priority": if is_bad { 8 } else { 4 } }),
            Format::Apprise => json!({
                "title": title,
                "body": text,
                "type": if is_bad { "failure" } else { "success" },
                "format": "text",
            }),
            Format::Kometa | Format::Notifiarr => json!({
                "event": "error",
                "error": format!("{title}\n{text}"),
                "critical": is_bad,
                "library_mapping_name": "",
            }),
            Format::Json => notice.json(),
        }
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.format {
            Format::Discord => "Discord",
            Format::Slack => "Slack",
            Format::Ntfy => "ntfy",
            Format::Gotify => "Gotify",
            Format::Apprise => "Apprise",
            Format::Notifiarr => "Notifiarr",
            Format::Kometa | Format::Json => "webhook",
        };
        write!(f, "{name} at {}", self.host)
    }
}

fn by_host(url: &Url) -> Format {
    let host = url.host_str().unwrap_or_default();
    let is_or_below = |name: &str| host == name || host.strip_suffix(name).is_some_and(|sub| sub.ends_with('.'));
    match host {
        _ if (is_or_below("discord.com") || is_or_below("discordapp.com")) && url.path().starts_with("/api/") => {
            Format::Discord
        }
        "hooks.slack.com" => Format::Slack,
        "ntfy.sh" => Format::Ntfy,
        _ => Format::Json,
    }
}

fn url_of(text: &str) -> Result<Url, String> {
    Url::parse(&with_ascii_host(text)).map_err(|error| format!("it is no address: {error}"))
}

/// An address whose host has its letters beyond ASCII as DNS has them (RFC 3492). Of all that UTS 46 does besides, a name
/// that somebody typed needs the small letters alone.
fn with_ascii_host(text: &str) -> Cow<'_, str> {
    let start = text.find("://").map_or(0, |at| at + 3);
    let end = text[start..].find(['/', '?', '#']).map_or(text.len(), |at| start + at);
    let start = text[start..end].rfind('@').map_or(start, |at| start + at + 1);
    let host = &text[start..end];
    if host.is_ascii() {
        return Cow::Borrowed(text);
    }
    let (name, port) = host.split_at(host.rfind(':').unwrap_or(host.len()));
    let ascii = |label: &str| {
        let encoded = || Some(format!("xn--{}", punycode::encode_str(&label.to_lowercase())?));
        if label.is_ascii() { None } else { encoded() }.unwrap_or_else(|| label.to_owned())
    };
    let labels: Vec<_> = name.split('.').map(ascii).collect();
    Cow::Owned(format!("{}{}{port}{}", &text[..start], labels.join("."), &text[end..]))
}

fn host_of(rest: &str) -> String {
    url_of(&format!("http://{rest}")).ok().and_then(|url| Some(url.host_str()?.to_owned())).unwrap_or_default()
}

/// Whether a host is at home: this machine, a private address, or a name that the internet does not have.
/// Home servers run ntfy and Gotify by plain http, and no message has a token of an account in it.
#[must_use]
pub fn is_private(host: &str) -> bool {
    match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => {
            // 100.64.0.0/10 is what Tailscale and providers' own networks use (RFC 6598).
            let [a, b, ..] = ip.octets();
            ip.is_loopback() || ip.is_private() || ip.is_link_local() || (a == 100 && b & 0xC0 == 64)
        }
        Ok(IpAddr::V6(ip)) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
        Err(_) => {
            let endings = [".local", ".lan", ".home", ".internal", ".home.arpa", ".localhost"];
            !host.is_empty() && (!host.contains('.') || endings.iter().any(|ending| host.ends_with(ending)))
        }
    }
}

fn short(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        Some((end, _)) => format!("{}…", text[..end].trim_end()),
        None => text.to_owned(),
    }
}

/// Slack's three control characters. [Slack, "Formatting text for app surfaces"]
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, Kind};
    use crate::token::UnixSeconds;

    /// Each way to write an address: what it becomes, where it posts to, and what lets it in.
    #[test]
    fn addresses() {
        use Format::{Apprise, Discord, Gotify, Json, Notifiarr, Ntfy, Slack};
        for (text, format, url, key) in [
            ("https://discord.com/api/webhooks/1/abc", Discord, "https://discord.com/api/webhooks/1/abc", None),
            (
                "https://canary.discord.com/api/webhooks/1/a",
                Discord,
                "https://canary.discord.com/api/webhooks/1/a",
                None,
            ),
            ("https://hooks.slack.com/services/T/B/x", Slack, "https://hooks.slack.com/services/T/B/x", None),
            ("https://ntfy.sh/topic", Ntfy, "https://ntfy.sh/", None),
            ("ntfy://192.168.1.5:8080/topic", Ntfy, "http://192.168.1.5:8080/", None),
            ("ntfy://ntfy.example.org/topic", Ntfy, "https://ntfy.example.org/", None),
            ("ntfys://tk_abc@ntfy.lan/a/topic", Ntfy, "https://ntfy.lan/a/", Some("Bearer tk_abc")),
            ("ntfys://:tk_abc@ntfy.lan/topic", Ntfy, "https://ntfy.lan/", Some("Bearer tk_abc")),
            ("ntfys://me:p%40ss@ntfy.lan/topic", Ntfy, "https://ntfy.lan/", Some("Basic bWU6cEBzcw==")),
            ("gotify://gotify/Axyz", Gotify, "http://gotify/message", Some("Axyz")),
            ("gotifys://g.example.org/sub/Axyz", Gotify, "https://g.example.org/sub/message", Some("Axyz")),
            ("apprise://apprise:8000/notify/key", Apprise, "http://apprise:8000/notify/key", None),
            (
                "notifiarr+https://notifiarr.com/k",
                Notifiarr,
                "https://notifiarr.com/api/v1/notification/pmm/",
                Some("k"),
            ),
            ("slack+https://mattermost.example.org/hooks/x", Slack, "https://mattermost.example.org/hooks/x", None),
            ("https://Bücher.example:8443/ä", Json, "https://xn--bcher-kva.example:8443/%C3%A4", None),
            ("ntfy://tk@Straße.xn--p1ai/ä", Ntfy, "https://xn--strae-oqa.xn--p1ai/", Some("Bearer tk")),
            ("http://127.0.0.1:9/x?y=z", Json, "http://127.0.0.1:9/x?y=z", None),
            ("https://discord.com.example.org/api/", Json, "https://discord.com.example.org/api/", None),
        ] {
            let channel = Channel::parse(text).unwrap_or_else(|why| panic!("{text}: {why}"));
            assert_eq!((channel.format, channel.url.expose()), (format, url), "{text}");
            assert_eq!(channel.key.as_ref().map(|(_, key)| key.expose()), key, "{text}");
        }
        for bad in [
            "",
            "discord.com/api",
            "http://example.org/hook-secret",
            "ftp://a/hook-secret",
            "https://ntfy.sh/",
            "gotify://gotify",
            "json+ftp://hook-secret/",
            "zzz+https://hook-secret/",
            "https://",
        ] {
            let why = Channel::parse(bad).err().unwrap_or_else(|| panic!("{bad} was taken"));
            assert!(!why.contains("hook-secret"), "{why}");
        }
    }

    /// A name says the kind and the host, and nothing of the rest.
    #[test]
    fn names() {
        let channel = Channel::parse("ntfys://tk_abc@ntfy.example.org/secret-topic").unwrap();
        assert_eq!(channel.to_string(), "ntfy at ntfy.example.org");
    }

    /// The texts stay within what the services take, and cannot ring anybody or become a link.
    #[test]
    fn payloads() {
        let event = Event::new(Kind::EditRefused, "<@everyone>.yml#trakt").detail("x".repeat(9000));
        let notice = Notice::new(UnixSeconds(0), &event, Saying::Problem);
        let payload = |text: &str| Channel::parse(text).unwrap().payload(&notice);
        let discord = payload("https://discord.com/api/webhooks/1/abc");
        assert!(discord["embeds"][0]["description"].as_str().unwrap().chars().count() <= 4096);
        assert_eq!(discord["allowed_mentions"]["parse"], json!([]));
        let slack = payload("https://hooks.slack.com/services/T/B/x");
        assert!(slack["text"].as_str().unwrap().contains("&lt;@everyone&gt;"));
        assert!(slack["blocks"][1]["text"]["text"].as_str().unwrap().chars().count() <= 3000);
        let notifiarr = payload("notifiarr+https://notifiarr.com/k");
        assert_eq!((&notifiarr["event"], &notifiarr["critical"]), (&json!("error"), &json!(true)));
    }
}

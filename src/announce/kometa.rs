//! The channel that the user already gave Kometa: `webhooks.error` in the same
//! config.
//!
//! Pure. A list or one value; each an address, or the name of a service with a
//! block of its own at the root of the file. [Kometa `modules/webhooks.py`,
//! `notifiarr.py`, `gotify.py`, `ntfy.py`, `apprise_notify.py`]

use super::channel::{Channel, Format};
use crate::settings::References;
use crate::yaml::{Document, Kind, Node, Problem};

/// Kometa's base for Notifiarr. [Kometa `modules/notifiarr.py`]
const NOTIFIARR: &str = "https://notifiarr.com";

/// The channels for errors in a config, and what is wrong with those that cannot be used.
#[must_use]
pub fn channels(document: &Document, references: &References) -> (Vec<Channel>, Vec<Problem>) {
    let (mut channels, mut problems) = (Vec::new(), Vec::new());
    let reader = Reader { document, references };
    let error = document.get(&document.root, "webhooks").and_then(|webhooks| document.get(webhooks, "error"));
    let nodes: Vec<&Node<'_>> = match error.map(|node| (node, &document.resolve(node).kind)) {
        Some((_, Kind::Sequence { items, .. })) => items.iter().collect(),
        Some((node, _)) => vec![node],
        None => Vec::new(),
    };
    for node in nodes {
        match reader.channel(node) {
            Ok(found) => channels.extend(found.filter(|found| !channels.contains(found))),
            Err(why) => problems.push(Problem {
                line: node.line,
                column: node.column,
                what: format!("`webhooks: error` cannot be used for messages: {why}"),
            }),
        }
    }
    (channels, problems)
}

struct Reader<'a> {
    document: &'a Document<'a>,
    references: &'a References,
}

impl Reader<'_> {
    fn channel(&self, node: &Node) -> Result<Option<Channel>, String> {
        let Some(value) = self.value(node)? else { return Ok(None) };
        let channel = match value.as_str() {
            "notifiarr" => Channel::with_parts(Format::Notifiarr, NOTIFIARR, &self.field("notifiarr", "apikey")?, None),
            "gotify" => Channel::with_parts(
                Format::Gotify,
                &self.field("gotify", "url")?,
                &self.field("gotify", "token")?,
                None,
            ),
            "ntfy" => {
                let token = self.field("ntfy", "token").ok();
                let (url, topic) = (self.field("ntfy", "url")?, self.field("ntfy", "topic")?);
                Channel::with_parts(Format::Ntfy, &url, &topic, token.as_deref())
            }
            "apprise" => apprise(&self.field("apprise", "config")?),
            url => Channel::of_kometa(url),
        };
        channel.map(Some)
    }

    /// A field of a service's block.
    fn field(&self, block: &str, name: &str) -> Result<String, String> {
        let document = self.document;
        let missing = || format!("`{block}: {name}` is not filled in");
        let node = document.get(&document.root, block).and_then(|block| document.get(block, name));
        self.value(node.ok_or_else(missing)?)?.ok_or_else(missing)
    }

    /// A value with its references in place; null and empty are nothing.
    fn value(&self, node: &Node) -> Result<Option<String>, String> {
        let text = self.document.text(node).map(str::trim).filter(|text| !text.is_empty());
        let resolved = text.map(|text| self.references.resolve(text)).transpose();
        resolved.map_err(|unknown| format!("it refers to a secret that is not set: {unknown}"))
    }
}

/// Kometa reads a configuration of the Apprise library there, which only that library understands. Where it
/// comes from an Apprise API, the same server takes messages for it.
fn apprise(config: &str) -> Result<Channel, String> {
    let is_address = config.starts_with("http://") || config.starts_with("https://");
    let parts = ["/get/", "/cfg/", "/notify/"].iter().find_map(|part| config.split_once(part)).filter(|_| is_address);
    let (server, key) = parts.ok_or(
        "`apprise: config` is a file for the Apprise library, which this program has not; \
         name an Apprise API (http://HOST:8000/get/KEY), or use --notify",
    )?;
    let key = key.split(['/', '?']).next().unwrap_or_default();
    Channel::with_parts(Format::Apprise, &format!("{server}/notify"), key, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Vec<(Format, String)>, Vec<String>) {
        let mut references = References::default();
        references.add([("KOMETA_HOOK".to_owned(), "https://discord.com/api/webhooks/1/x".to_owned())]);
        let (channels, problems) = channels(&Document::parse(text).unwrap(), &references);
        let channels = channels.iter().map(|channel| (channel.format(), channel.to_string())).collect();
        (channels, problems.iter().map(ToString::to_string).collect())
    }

    /// Each form that Kometa takes.
    #[test]
    fn forms() {
        let one = |text: &str| {
            let (channels, problems) = read(text);
            assert!(problems.is_empty(), "{text}: {problems:?}");
            channels
        };
        assert_eq!(one("webhooks:\n  error:\n"), []);
        assert_eq!(one("webhooks:\n"), []);
        assert_eq!(one("plex:\n  url: x\n"), []);
        assert_eq!(one("webhooks:\n  error: <<hook>>\n"), [(Format::Discord, "Discord at discord.com".to_owned())]);
        assert_eq!(
            one("webhooks:\n  error: [notifiarr, https://example.org/kometa]\nnotifiarr:\n  apikey: k\n"),
            [
                (Format::Notifiarr, "Notifiarr at notifiarr.com".to_owned()),
                (Format::Kometa, "webhook at example.org".to_owned())
            ]
        );
        assert_eq!(
            one(
                "gotify:\n  url: http://192.168.1.12:80\n  token: t\nwebhooks:\n  error:\n    - gotify\n    - gotify\n"
            ),
            [(Format::Gotify, "Gotify at 192.168.1.12".to_owned())]
        );
        assert_eq!(
            one("ntfy: {url: https://ntfy.example.org, token: tk, topic: kometa}\nwebhooks: {error: ntfy}\n"),
            [(Format::Ntfy, "ntfy at ntfy.example.org".to_owned())]
        );
        assert_eq!(
            one("apprise: {config: 'http://apprise:8000/get/kometa'}\nwebhooks: {error: apprise}\n"),
            [(Format::Apprise, "Apprise at apprise".to_owned())]
        );
    }

    /// What cannot be used is said with its place, and without its value.
    #[test]
    fn unusable() {
        for (text, part) in [
            ("webhooks:\n  error: <<none>>\n", "secret that is not set: none"),
            ("webhooks:\n  error: gotify\n", "`gotify: url` is not filled in"),
            ("apprise: {config: /config/planted.yml}\nwebhooks: {error: apprise}\n", "Apprise library"),
            ("webhooks:\n  error: http://example.org/planted\n", "plain http"),
            ("webhooks:\n  error: planted\n", "no address"),
        ] {
            let (channels, problems) = read(text);
            assert!(channels.is_empty() && problems.len() == 1, "{text}");
            assert!(problems[0].contains(part) && !problems[0].contains("planted"), "{}", problems[0]);
        }
    }
}

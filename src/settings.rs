//! Text to settings: what Kometa's file says of the accounts.
//!
//! Pure. Reads as Kometa reads: `<<name>>` references come from the
//! environment, an unresolved one counts as null, and so does a placeholder.
//! Invariant: nothing of a value is ever in a [`Problem`].

use std::collections::HashMap;

use crate::announce::channel::Channel;
use crate::announce::kometa;
use crate::decision::Seen;
use crate::journal::{Held, Origin};
use crate::provider::{PROVIDERS, Provider};
use crate::refresh::request::Credentials;
use crate::token::{Fingerprint, Grant, Secret, UnixSeconds};
use crate::yaml::{Document, Kind, Node, Problem};

/// What a file says.
pub struct Settings {
    /// The accounts, in the order of [`PROVIDERS`].
    pub sections: Vec<Section>,
    /// What looks wrong, but leaves the rest readable.
    pub problems: Vec<Problem>,
    /// Where Kometa tells of errors.
    pub channels: Vec<Channel>,
    /// What is wrong with those that cannot be used; the tokens do not need them.
    pub channel_problems: Vec<Problem>,
}

/// One `trakt:` or `mal:` section.
pub struct Section {
    /// Whose it is.
    pub provider: &'static Provider,
    /// Its line, from 1.
    pub line: usize,
    /// `client_id`
    pub client_id: Option<Secret>,
    /// `client_secret`
    pub client_secret: Option<Secret>,
    /// `pin` or `localhost_url`, waiting to be exchanged.
    pub once: Option<Secret>,
    /// Whether Kometa is told to refresh at every start.
    pub force_refresh: bool,
    /// `access_token`
    pub access_token: Option<Secret>,
    /// `refresh_token`
    pub refresh_token: Option<Secret>,
    /// `token_type`
    pub token_type: Option<String>,
    /// `expires_in`, as it stands there
    pub expires_in: Option<i64>,
    /// `scope`
    pub scope: Option<String>,
    /// `created_at`, as it stands there
    pub created_at: Option<UnixSeconds>,
}

impl Section {
    /// The section by fingerprints.
    #[must_use]
    pub fn seen(&self) -> Seen {
        let fingerprint = |secret: &Option<Secret>| secret.as_ref().map(Secret::fingerprint);
        let both = |id: &Secret| [id.expose(), self.client_secret.as_ref().map_or("", Secret::expose)].join("\n");
        Seen {
            client: fingerprint(&self.client_id),
            credentials: self.client_id.as_ref().map(|id| Fingerprint::of(both(id).as_bytes())),
            access: fingerprint(&self.access_token),
            refresh: fingerprint(&self.refresh_token),
            once: fingerprint(&self.once),
        }
    }

    /// The application's credentials, where there is a `client_id`.
    #[must_use]
    pub fn credentials(&self) -> Option<Credentials> {
        let client_id = self.client_id.clone()?;
        Some(Credentials { client_id, client_secret: self.client_secret.clone() })
    }

    /// The pair in the block, as somebody else wrote it.
    #[must_use]
    pub fn adopted(&self, at: UnixSeconds, draw: u16) -> Option<Held> {
        Some(Held {
            grant: Grant {
                // Only the refresh token is needed: with it the rest can be had again.
                access_token: self.access_token.clone().unwrap_or_else(|| Secret::new("")),
                token_type: self.token_type.clone(),
                expires_in: self.access_token.as_ref().and(self.expires_in),
                refresh_token: Some(self.refresh_token.clone()?),
                scope: self.scope.clone(),
                created_at: self.created_at,
            },
            origin: Origin::Adopted,
            at,
            client: self.client_id.as_ref()?.fingerprint(),
            draw,
            published: true,
        })
    }

    /// Whether anything of it is filled in.
    #[must_use]
    pub fn is_used(&self) -> bool {
        self.client_id.is_some() || self.refresh_token.is_some() || self.once.is_some()
    }
}

/// The values that `<<name>>` references stand for, by Kometa's rule: the environment variable
/// `KOMETA_NAME` (formerly `PMM_NAME`), with `-` and `_` the same and case ignored.
#[derive(Clone, Default)]
pub struct References(HashMap<String, Secret>);

impl References {
    /// Takes variables in; what is known already stays, so the most important source comes first.
    pub fn add(&mut self, variables: impl IntoIterator<Item = (String, String)>) {
        let mut older = Vec::new();
        for (name, value) in variables {
            if let Some(name) = name.strip_prefix("KOMETA_") {
                self.0.entry(normal(name)).or_insert_with(|| Secret::new(value));
            } else if let Some(name) = name.strip_prefix("PMM_") {
                older.push((normal(name), value));
            }
        }
        for (name, value) in older {
            self.0.entry(name).or_insert_with(|| Secret::new(value));
        }
    }

    /// Whether Kometa's switch of that name is on, as `KOMETA_NAME` for Kometa in the same environment.
    #[must_use]
    pub fn is_on(&self, name: &str) -> bool {
        let text = self.0.get(&normal(name)).map_or("", Secret::expose).trim();
        ["true", "1", "t", "yes", "y", "on"].iter().any(|yes| text.eq_ignore_ascii_case(yes))
    }

    /// Takes in a `.env` file's text.
    pub fn add_env_file(&mut self, text: &str) {
        // A line that is none does not cost the lines around it.
        self.add(text.lines().filter_map(|line| dotenvy::from_read_iter(line.as_bytes()).next()?.ok()));
    }

    /// Replaces every reference in a text; an error names the first that is not known.
    pub(crate) fn resolve(&self, text: &str) -> Result<String, String> {
        let (mut resolved, mut rest) = (String::new(), text);
        while let Some((before, name, after)) = reference(rest) {
            resolved += before;
            resolved += self.0.get(&normal(name)).ok_or_else(|| name.to_owned())?.expose();
            rest = after;
        }
        Ok(resolved + rest)
    }
}

/// Whether a text has a `<<name>>` in it.
#[must_use]
pub fn has_reference(text: &str) -> bool {
    reference(text).is_some()
}

fn reference(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once("<<")?;
    let (name, after) = rest.split_once(">>")?;
    let plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    plain.then_some((before, name, after))
}

fn normal(name: &str) -> String {
    name.to_ascii_lowercase().replace('_', "-")
}

/// Reads the accounts of a file.
///
/// # Errors
/// The text is no YAML that Kometa could read, or has no content. Both are what a file looks like
/// while somebody writes it.
pub fn parse(text: &str, references: &References) -> Result<Settings, Problem> {
    of(&Document::parse(text)?, references)
}

/// The same of a text that was parsed already.
///
/// # Errors
/// As above.
pub fn of(document: &Document, references: &References) -> Result<Settings, Problem> {
    let problem = |node: &Node, what: String| Problem { line: node.line, column: node.column, what };
    let Kind::Mapping { entries, .. } = &document.root.kind else {
        let what = if document.is_null(&document.root) {
            "the file has no content"
        } else {
            "the file is not a mapping of settings such as `plex:` and `trakt:`"
        };
        return Err(problem(&document.root, what.to_owned()));
    };
    if let Some((first, second)) = document.duplicate_anywhere() {
        let what =
            format!("the same key stands here a second time (first in line {}); Kometa refuses that", first.line);
        return Err(problem(second, what));
    }
    let mut reader = Reader { document, references, problems: Vec::new() };
    let sections = PROVIDERS.iter().filter_map(|provider| {
        let (key, value) = entries.iter().find(|(key, _)| document.text(key) == Some(provider.name))?;
        reader.section(provider, key, value)
    });
    let (sections, problems) = (sections.collect(), reader.problems);
    let (channels, channel_problems) = kometa::channels(document, references);
    Ok(Settings { sections, problems, channels, channel_problems })
}

struct Reader<'a> {
    document: &'a Document<'a>,
    references: &'a References,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn complain(&mut self, node: &Node, what: String) {
        self.problems.push(Problem { line: node.line, column: node.column, what });
    }

    fn section(&mut self, provider: &'static Provider, key: &Node, value: &Node) -> Option<Section> {
        let document = self.document;
        let node = document.resolve(value);
        let Kind::Mapping { entries, .. } = &node.kind else {
            if !document.is_null(node) {
                self.complain(
                    value,
                    format!("`{}` is not a mapping with `client_id` and `authorization`", provider.name),
                );
            }
            return None;
        };
        for (key, _) in entries {
            match document.text(key) {
                Some(name) if provider.known_keys.contains(&name) || name == "<<" => {}
                _ => self.complain(
                    key,
                    format!(
                        "this key of `{}` is not one that Kometa knows: {}",
                        provider.name,
                        provider.known_keys.join(", ")
                    ),
                ),
            }
        }
        let block = document.get(node, "authorization").map(|block| document.resolve(block));
        if let Some(block) = block
            && !matches!(block.kind, Kind::Mapping { .. })
            && !document.is_null(block)
        {
            self.complain(
                block,
                format!("`{}: authorization` is not a mapping; leave it empty to have it filled in", provider.name),
            );
        }
        let mut field = |parent: Option<&Node>, name: &str| {
            let node = parent.and_then(|parent| document.get(parent, name))?;
            self.value(node, name)
        };
        let section = Section {
            provider,
            line: key.line,
            client_id: field(Some(node), "client_id").map(Secret::new),
            client_secret: field(Some(node), "client_secret").map(Secret::new),
            once: field(Some(node), provider.once_key).map(Secret::new),
            force_refresh: field(Some(node), "force_refresh").is_some_and(|text| text.eq_ignore_ascii_case("true")),
            access_token: field(block, "access_token").map(Secret::new),
            refresh_token: field(block, "refresh_token").map(Secret::new),
            token_type: field(block, "token_type"),
            expires_in: field(block, "expires_in").and_then(|text| whole_number(&text)),
            scope: field(block, "scope"),
            created_at: field(block, "created_at").and_then(|text| whole_number(&text)).map(UnixSeconds),
        };
        Some(section)
    }

    /// A value as Kometa would see it; null, empty, a placeholder and an unresolved reference are nothing.
    fn value(&mut self, node: &Node, name: &str) -> Option<String> {
        let document = self.document;
        let Some(text) = document.text(node) else {
            // `[REDACTED]` is what people paste; it is a sequence to YAML.
            if !document.is_null(node) {
                self.complain(node, format!("`{name}` is a list or a mapping where one value is expected"));
            }
            return None;
        };
        let text = text.trim();
        if text.is_empty() || is_placeholder(text) {
            return None;
        }
        match self.references.resolve(text) {
            Ok(resolved) => Some(resolved).filter(|resolved| !resolved.trim().is_empty()),
            Err(unknown) => {
                let variable = unknown.to_ascii_uppercase().replace('-', "_");
                self.complain(
                    node,
                    format!("`{name}` refers to a secret that is not set; set KOMETA_{variable} here as for Kometa, or put it into .env beside the config"),
                );
                None
            }
        }
    }
}

/// `########`, `xxxxxxxx`, `********`: what documentation and redacted pastes have.
fn is_placeholder(text: &str) -> bool {
    let first = text.chars().next().unwrap_or_default();
    text.to_ascii_uppercase().contains("REDACTED")
        || (text.len() >= 4 && "#xX*.-_".contains(first) && text.chars().all(|c| c == first))
}

#[expect(clippy::cast_possible_truncation, reason = "`as` saturates, which is what is wanted of an absurd number")]
fn whole_number(text: &str) -> Option<i64> {
    text.parse()
        .ok()
        .or_else(|| text.parse::<f64>().ok().filter(|number| number.is_finite()).map(|number| number as i64))
}

//! Configs around a block, as people could have written them, and grants to put in.

use kometa_authd::provider::{MAL, TRAKT};
use kometa_authd::token::{Grant, Secret, UnixSeconds};
use proptest::bool::weighted as weighted_bool;
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::Case;

/// A case made up: a text that is YAML, an edit, and no expectation but the rules.
pub fn case() -> impl Strategy<Value = Case> {
    let provider = select(vec![&TRAKT, &MAL]);
    (config(), answer(), provider, weighted_bool(0.2)).prop_map(|(config, answer, provider, empty)| Case {
        name: "generated".to_owned(),
        folder: "generated".into(),
        before: config.text(provider.name),
        provider,
        empty,
        grant: answer.grant(),
    })
}

/// Two orders of one block's entries, and an edit for both.
pub fn reordered() -> impl Strategy<Value = (Case, Case)> {
    let shuffled = |config: Config| {
        let entries = Just(config.entries.clone()).prop_shuffle();
        (Just(config), entries)
    };
    (config().prop_flat_map(shuffled), answer()).prop_map(|((config, entries), answer)| {
        let other = Config { entries, ..config.clone() };
        let case = |config: &Config| Case {
            name: "reordered".to_owned(),
            folder: "generated".into(),
            before: config.text(TRAKT.name),
            provider: &TRAKT,
            empty: false,
            grant: answer.clone().grant(),
        };
        (case(&config), case(&other))
    })
}

/// What a token endpoint could say; a [`Grant`] cannot be printed, and a failing case must be.
#[derive(Clone, Debug)]
struct Answer {
    access_token: String,
    token_type: Option<String>,
    expires_in: Option<i64>,
    refresh_token: Option<String>,
    scope: Option<String>,
    created_at: Option<i64>,
}

impl Answer {
    fn grant(self) -> Grant {
        Grant {
            access_token: Secret::new(self.access_token),
            token_type: self.token_type,
            expires_in: self.expires_in,
            refresh_token: self.refresh_token.map(Secret::new),
            scope: self.scope,
            created_at: self.created_at.map(UnixSeconds),
        }
    }
}

fn answer() -> impl Strategy<Value = Answer> {
    let token = prop_oneof![
        4 => "[a-f0-9]{16,64}",
        2 => "[A-Za-z0-9_-]{5,40}\\.[A-Za-z0-9_-]{40,200}\\.[A-Za-z0-9_-]{10}",
        1 => "[0-9]{1,20}",
        1 => "[0-9]{1,5}[eE][0-9]{1,5}",
        1 => select(ODD_TOKENS.to_vec()).prop_map(str::to_owned),
        1 => "\\PC{1,24}",
        1 => any::<String>(),
    ];
    let number = prop_oneof![Just(604_800), Just(0), any::<i64>()];
    let kind = select(vec!["bearer", "Bearer", "yes", "null"]).prop_map(str::to_owned);
    let scope = select(vec!["public", "public write", "1", "a: b"]).prop_map(str::to_owned);
    (
        token.clone(),
        weighted(0.9, kind),
        weighted(0.9, number.clone()),
        weighted(0.9, token),
        weighted(0.8, scope),
        weighted(0.8, number),
    )
        .prop_map(|(access_token, token_type, expires_in, refresh_token, scope, created_at)| Answer {
            access_token,
            token_type,
            expires_in,
            refresh_token,
            scope,
            created_at,
        })
}

const ODD_TOKENS: [&str; 14] =
    ["null", "~", "true", "No", "*a", "&a", "- a", "a: b", "a #b", "'", "\"\\", " a ", "0x1f", "2026-11-22"];

/// A config in parts.
#[derive(Clone, Debug)]
struct Config {
    start: &'static str,
    others: Vec<&'static str>,
    others_before: usize,
    section_flow: bool,
    section: Vec<Entry>,
    indent: usize,
    block: Block,
    entries: Vec<Entry>,
    end: &'static str,
    line_ends: usize,
    final_newline: bool,
    /// `ruamel.yaml` reads no text that has a tab between its tokens; the others do.
    tabs: bool,
}

#[derive(Clone, Debug)]
enum Block {
    Absent,
    Null(&'static str),
    Flow,
    FlowLines,
    Lines(usize, &'static str),
}

#[derive(Clone, Debug)]
struct Entry {
    key: &'static str,
    quote: &'static str,
    value: usize,
    comment: &'static str,
    line_before: &'static str,
}

/// Whatever else a config has. Each is whole, so that any order is YAML.
const OTHERS: [&str; 9] = [
    "plex:\n  url: http://192.0.2.1 # here\n  token: a\n",
    "# Käse 日本 😀\nlibraries:\n- Movies\n- TV:\n  - a\n",
    "settings: {cache: true, list: [1, 2.5, ~], # in\n  deep: {er: x}}\n",
    "note: |\n  trakt:\n    authorization:\n      access_token: text\n\n",
    "kept: |+\n  text\n\n",
    "'quoted: key': \"a \\u00e9 b\"\n",
    "? complex\n: - a\n  - b: c\n",
    "nested:\n  trakt:\n    authorization: {access_token: other}\n",
    "tagged: !custom [a, !!str 5]\nmerged:\n  <<: {a: 1}\n  b: 2\n",
];

/// Values in lines; `@` is the entry's indentation, `%KEY` its name.
const VALUES: [&str; 22] = [
    "",
    "",
    " ~",
    " null",
    " old",
    " old",
    "\told\t",
    " 'o''ld'",
    " \"o\\\"ld\"",
    " |\n@  old",
    " >-\n\n@  old\n@   er\n",
    " |2-\n@  # old",
    " >+\n@  old\n\n",
    " &%KEY old",
    " !!str old",
    " [a, b]",
    " {a: b}",
    " 123",
    " old\n@  er",
    " *tok",
    "\n@  # why\n@  old",
    " 1e5",
];

/// Values between braces. `{a:}` is left out: `ruamel.yaml` takes the colon for a part of the key.
const FLOW_VALUES: [&str; 12] =
    [" ", " ", " ~", " null", " old", " 'old'", " \"old\"", " [a]", " {a: b}", " 5", " &%KEY old", " *tok"];

fn entries(keys: &'static [&'static str]) -> impl Strategy<Value = Vec<Entry>> {
    let chosen = subsequence(keys, 0..=keys.len()).prop_shuffle();
    chosen.prop_flat_map(|keys| keys.into_iter().map(entry).collect::<Vec<_>>())
}

fn entry(key: &'static str) -> impl Strategy<Value = Entry> {
    let quote = select(vec!["", "", "", "", "\"", "'"]);
    let comment = select(vec!["", "", "  ", " # c", "\t# 'c: d'", "   # é"]);
    let line_before = select(vec!["", "", "", "\n", "@# between\n", "# shallow\n", "@   # deep\n\n"]);
    (quote, 0..VALUES.len(), comment, line_before).prop_map(move |(quote, value, comment, line_before)| Entry {
        key,
        quote,
        value,
        comment,
        line_before,
    })
}

fn config() -> impl Strategy<Value = Config> {
    let start = select(vec!["", "", "", "\u{feff}", "# é\n", "%YAML 1.2\n---\n", "--- # c\n", "\u{feff}# é\n---\n"]);
    let others = subsequence(&OTHERS[..], 0..=4).prop_shuffle();
    let block = prop_oneof![
        1 => Just(Block::Absent),
        1 => select(vec!["", " ~", " null", " # c", " &block", "\t"]).prop_map(Block::Null),
        1 => Just(Block::Flow),
        1 => Just(Block::FlowLines),
        5 => (1..=4_usize, select(vec!["", " # c", " &block", " !!map"])).prop_map(|(i, after)| Block::Lines(i, after)),
    ];
    let section = entries(&["client_id", "client_secret", "pin", "localhost_url", "force_refresh"]);
    let keys = entries(&[
        "access_token",
        "token_type",
        "expires_in",
        "refresh_token",
        "scope",
        "created_at",
        "other",
        "another one",
    ]);
    let end = select(vec!["", "", "# end\n", "...\n", "... # end\n# end\n"]);
    let whole = (start, others, 0..4_usize, weighted_bool(0.1), section, 1..=8_usize);
    (whole, block, keys, end, 0..3_usize, any::<bool>(), weighted_bool(0.1)).prop_map(
        |(
            (start, others, others_before, section_flow, section, indent),
            block,
            entries,
            end,
            line_ends,
            final_newline,
            tabs,
        )| {
            Config {
                start,
                others,
                others_before,
                section_flow,
                section,
                indent,
                block,
                entries,
                end,
                line_ends,
                final_newline,
                tabs,
            }
        },
    )
}

impl Config {
    /// The config with a section of that name.
    fn text(&self, section: &str) -> String {
        let (before, after) = self.others.split_at(self.others_before.min(self.others.len()));
        let mut text = self.start.to_owned() + "tokens: [&tok oldtoken]\n";
        text.extend(before.iter().copied());
        text += &self.section(section);
        text.extend(after.iter().copied());
        text += self.end;
        if !self.tabs {
            text = text.replace('\t', " ");
        }
        if !self.final_newline {
            text.truncate(text.trim_end_matches('\n').len());
        }
        let lines = text.split_inclusive('\n').enumerate();
        let crlf = |(number, line): (usize, &str)| match line.strip_suffix('\n') {
            Some(line) if self.line_ends == 1 || (self.line_ends == 2 && number % 2 == 0) => format!("{line}\r\n"),
            _ => line.to_owned(),
        };
        lines.map(crlf).collect()
    }

    fn section(&self, name: &str) -> String {
        if self.section_flow {
            let mut entries: Vec<_> = self.section.iter().map(Entry::in_flow).collect();
            match self.block {
                Block::Absent => {}
                Block::Null(_) => entries.push("authorization: ".to_owned()),
                _ => entries.push(format!("authorization: {{{}}}", self.flow(", "))),
            }
            return format!("{name}: {{{}}}\n", entries.join(", "));
        }
        let indent = " ".repeat(self.indent);
        let mut text = format!("{name}: # section\n{indent}id: a\n");
        let half = self.section.len() / 2;
        text.extend(self.section[..half].iter().map(|entry| entry.in_lines(&indent)));
        let block = match self.block {
            Block::Absent => String::new(),
            Block::Null(written) => format!("{indent}authorization:{written}\n"),
            Block::Flow => format!("{indent}authorization: {{{}}} # c\n", self.flow(",")),
            Block::FlowLines => {
                format!(
                    "{indent}authorization: {{ # c\n{indent}  {}\n{indent} }}\n",
                    self.flow(format!(", # c\n{indent}  "))
                )
            }
            Block::Lines(step, after) => {
                let deeper = " ".repeat(self.indent + step);
                let lines: String = self.entries.iter().map(|entry| entry.in_lines(&deeper)).collect();
                // Without entries it would be a null with a property that does not fit.
                let after = if self.entries.is_empty() { "" } else { after };
                format!("{indent}authorization:{after}\n{lines}")
            }
        };
        text += &block;
        text.extend(self.section[half..].iter().map(|entry| entry.in_lines(&indent)));
        text
    }

    fn flow(&self, between: impl AsRef<str>) -> String {
        self.entries.iter().map(Entry::in_flow).collect::<Vec<_>>().join(between.as_ref())
    }
}

impl Entry {
    fn in_lines(&self, indent: &str) -> String {
        let Self { key, quote, value, comment, line_before } = self;
        let value = VALUES[*value].replace('@', indent).replace("%KEY", &key.replace(' ', ""));
        // A comment goes on the first line, and not into a plain value over two.
        let (first, rest) = value.split_once('\n').map_or((value.as_str(), None), |(first, rest)| (first, Some(rest)));
        let comment = if first == " old" && rest.is_some() { "" } else { comment };
        let rest = rest.map(|rest| format!("\n{rest}")).unwrap_or_default();
        let line_before = line_before.replace('@', indent);
        format!("{line_before}{indent}{quote}{key}{quote}:{first}{comment}{rest}\n")
    }

    fn in_flow(&self) -> String {
        let Self { key, quote, value, .. } = self;
        let value = FLOW_VALUES[*value % FLOW_VALUES.len()].replace("%KEY", &key.replace(' ', ""));
        // An alias takes a colon or comma that touches it for its own in older readers.
        format!("{quote}{key}{quote}:{value}{}", if value.contains('*') { " " } else { "" })
    }
}

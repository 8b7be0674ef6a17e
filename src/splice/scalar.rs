//! How a value is written, and what a written value says.
//!
//! Invariant: whatever [`written`] gives is read as exactly that string by
//! readers of YAML 1.1 and of YAML 1.2, in a block and between braces. When in
//! doubt it is quoted.

use super::Wanted;
use crate::yaml::{Document, INT_TAG, Kind, Node, STR_TAG, Style};

/// A value as it goes into the file, in the style of the value before it where that is safe.
pub(super) fn written(wanted: &Wanted<'_>, style: Style) -> String {
    match wanted {
        Wanted::Null => "null".to_owned(),
        Wanted::Number(number) => number.to_string(),
        Wanted::Text(text) => match style {
            Style::SingleQuoted if text.chars().all(is_printable) => format!("'{}'", text.replace('\'', "''")),
            Style::Plain | Style::Literal | Style::Folded if is_safe_plain(text) => (*text).to_owned(),
            _ => double_quoted(text),
        },
    }
}

/// Whether a value already says what is wanted, to every reader.
pub(super) fn says(document: &Document, node: &Node, wanted: &Wanted<'_>) -> bool {
    let node = document.resolve(node);
    let Kind::Scalar { value, style } = &node.kind else {
        return false;
    };
    match wanted {
        Wanted::Null => document.is_null(node),
        Wanted::Text(text) => {
            value == text
                && match node.tag() {
                    None => *style != Style::Plain || !is_typed(value),
                    Some(tag) => tag == STR_TAG,
                }
        }
        Wanted::Number(number) => {
            *style == Style::Plain && matches!(node.tag(), None | Some(INT_TAG)) && *value == number.to_string()
        }
    }
}

/// Whether a tag lets a value be what is wanted.
pub(super) fn fits(tag: Option<&str>, wanted: &Wanted<'_>) -> bool {
    match wanted {
        Wanted::Text(_) => matches!(tag, None | Some(STR_TAG)),
        Wanted::Number(_) => matches!(tag, None | Some(INT_TAG)),
        Wanted::Null => true,
    }
}

/// Letters, digits and the few marks that tokens are made of: nothing that means something in YAML.
fn is_safe_plain(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./+=~ ".contains(c))
        && !text.ends_with(' ')
        && !is_typed(text)
}

/// Whether some reader could take a value without quotes for something else than a string: null,
/// true, a number, a date, in YAML 1.1, in YAML 1.2, or as `ruamel.yaml` mixes them (`1_000`).
fn is_typed(plain: &str) -> bool {
    const WORDS: [&str; 16] =
        ["", "~", "null", "true", "false", "yes", "no", "on", "off", "y", "n", ".inf", ".nan", "=", "<<", "-"];
    let lower = plain.to_ascii_lowercase();
    let unsigned = lower.strip_prefix(['-', '+']).unwrap_or(&lower);
    if WORDS.contains(&lower.as_str()) || WORDS.contains(&unsigned) {
        return true;
    }
    let all = |text: &str, set: fn(u8) -> bool| text.bytes().all(|byte| byte == b'_' || set(byte));
    let based = [
        ("0x", (|byte| byte.is_ascii_hexdigit()) as fn(u8) -> bool),
        ("0o", |byte| byte.is_ascii_digit()),
        ("0b", |byte| matches!(byte, b'0' | b'1')),
    ];
    if based.iter().any(|(prefix, set)| unsigned.strip_prefix(prefix).is_some_and(|rest| all(rest, *set))) {
        return true;
    }
    let (mantissa, exponent) = unsigned.split_once('e').unwrap_or((unsigned, "0"));
    let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
    let number = mantissa.contains(|c: char| c.is_ascii_digit())
        && all(mantissa, |byte| byte.is_ascii_digit() || byte == b'.' || byte == b':')
        && all(exponent, |byte| byte.is_ascii_digit());
    let date = lower.bytes().take(6).enumerate().all(|(at, b)| if at == 4 { b == b'-' } else { b.is_ascii_digit() });
    number || date
}

fn double_quoted(text: &str) -> String {
    let escaped = |c: char| match c {
        '"' | '\\' => format!("\\{c}"),
        c if is_printable(c) => c.to_string(),
        c if u32::from(c) <= 0xffff => format!("\\u{:04x}", u32::from(c)),
        c => format!("\\U{:08x}", u32::from(c)),
    };
    let content: String = text.chars().map(escaped).collect();
    format!("\"{content}\"")
}

/// What every reader takes for itself inside quotes; line breaks, marks without width and the like are not.
fn is_printable(c: char) -> bool {
    matches!(c, ' '..='~') || (!c.is_ascii() && c.is_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written says the string again, in every style, to our reader and to `serde_yaml`, in a
    /// block and in braces.
    #[test]
    fn what_is_written_says_it() {
        for text in [
            "abc",
            "4f3c",
            "12345",
            "1e5",
            "1E+5",
            "0x1f",
            "0o17",
            "017",
            "0b11",
            "1_000",
            "1:30",
            "1.5",
            "-1",
            "+1",
            ".5",
            ".inf",
            "-.INF",
            ".nan",
            "null",
            "Null",
            "~",
            "",
            "yes",
            "No",
            "on",
            "OFF",
            "y",
            "true",
            "=",
            "<<",
            "*a",
            "&a",
            "!a",
            "a: b",
            "a:",
            ":a",
            "a #b",
            "#a",
            "[a",
            "a]",
            "{a",
            "a}",
            "a,b",
            "- a",
            "-",
            "?",
            "? a",
            "|",
            ">",
            "@a",
            "`a",
            "%a",
            "'a",
            "a'b",
            "\"a",
            "a\"b",
            "a\\b",
            "a\nb",
            "a\tb",
            " a",
            "a ",
            "a  b",
            "\u{85}",
            "\u{2028}",
            "\u{feff}",
            "é",
            "日本",
            "😀",
            "\0",
            "\u{7f}",
            "2026-11-22",
            "2026-11-22T10:00:00Z",
            "---",
            "...",
            "a/b+c=",
            "aa.bb-cc_dd",
            "12e03",
            "12e3f",
            "infinity",
            "nan",
            "<<a>>",
            "public write",
        ] {
            for style in [Style::Plain, Style::SingleQuoted, Style::DoubleQuoted, Style::Literal, Style::Folded] {
                let wanted = Wanted::Text(text);
                let value = written(&wanted, style);
                for yaml in [format!("k: {value}\nl: m\n"), format!("{{k: {value}, l: m}}")] {
                    let document = Document::parse(&yaml).unwrap_or_else(|problem| panic!("{yaml:?}: {problem}"));
                    let node = document.get(&document.root, "k").expect("the key");
                    assert!(says(&document, node, &wanted), "{text:?} as {yaml:?}");
                    let other: serde_yaml::Value = serde_yaml::from_str(&yaml).expect("YAML");
                    assert_eq!(other["k"].as_str(), Some(text), "{yaml:?}");
                }
            }
        }
    }

    /// The style stays where it can: tokens without quotes stay so, and only what is risky gets them.
    #[test]
    fn the_style_stays() {
        for (text, style, value) in [
            ("abc", Style::Plain, "abc"),
            ("4f3c9e", Style::Plain, "4f3c9e"),
            ("public write", Style::Plain, "public write"),
            ("abc", Style::SingleQuoted, "'abc'"),
            ("it's", Style::SingleQuoted, "'it''s'"),
            ("abc", Style::DoubleQuoted, "\"abc\""),
            ("abc", Style::Literal, "abc"),
            ("12345", Style::Plain, "\"12345\""),
            ("12e45", Style::Plain, "\"12e45\""),
            ("2026-11-22", Style::Plain, "\"2026-11-22\""),
            ("2026-aa-bb", Style::Plain, "2026-aa-bb"),
            ("20261-22a", Style::Plain, "20261-22a"),
            ("a\nb", Style::SingleQuoted, "\"a\\u000ab\""),
        ] {
            assert_eq!(written(&Wanted::Text(text), style), value);
        }
        assert_eq!(written(&Wanted::Number(-5), Style::DoubleQuoted), "-5", "numbers lose their quotes");
    }

    /// A value that looks right but is another type does not say it: digits without quotes, a number in quotes.
    #[test]
    fn types_count() {
        for (yaml, wanted, said) in [
            ("abc", Wanted::Text("abc"), true),
            ("12345", Wanted::Text("12345"), false),
            ("'12345'", Wanted::Text("12345"), true),
            ("!!str 12345", Wanted::Text("12345"), true),
            ("!x abc", Wanted::Text("abc"), false),
            ("1_000", Wanted::Text("1_000"), false),
            ("-.inf", Wanted::Text("-.inf"), false),
            ("7", Wanted::Number(7), true),
            ("'7'", Wanted::Number(7), false),
            ("7.0", Wanted::Number(7), false),
            ("07", Wanted::Number(7), false),
            ("!!int 7", Wanted::Number(7), true),
            ("!!str 7", Wanted::Number(7), false),
            ("~", Wanted::Null, true),
            ("'~'", Wanted::Null, false),
            ("[7]", Wanted::Number(7), false),
        ] {
            let document = Document::parse(yaml).expect("YAML");
            assert_eq!(says(&document, &document.root, &wanted), said, "{yaml}");
        }
    }
}

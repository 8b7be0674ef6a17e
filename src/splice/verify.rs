//! The check of every edit, by a parser that had no part in it.
//!
//! Invariant: an edit passes only where `serde_yaml` reads from the new text
//! what it reads from the old one with the written values in place, and where
//! each byte outside of the replaced ranges is the old one. No edit is taken
//! on the word of the parser that planned it.

use serde_yaml::{Mapping, Value};

use super::plan::{BLOCK, Write};
use super::{Edit, Reason, Refused, Spliced, Wanted, refused};
use crate::yaml::{Document, Kind, Node, Style};

pub(super) fn verify(
    text: &str,
    document: &Document,
    spliced: &Spliced,
    edit: &Edit<'_>,
    writes: &[Write<'_>],
    failed: impl Fn(Reason) -> Refused,
) -> Result<(), Refused> {
    if !same_outside(text, spliced) {
        return Err(failed(Reason::CheckFailed("other bytes would change")));
    }
    let old = read(text).map_err(|error| unreadable(document, &error, &failed))?;
    let why = match read(&spliced.text) {
        Ok(new) if written(old, edit, writes).as_ref() == Some(&new) => return Ok(()),
        Ok(_) => "another value would change",
        Err(_) => "the new text is not YAML",
    };
    // Where the readers did not agree in the first place, the edit is not to blame.
    let disputed = read(text).ok().and_then(|old| disputed(document, &document.root, &old));
    Err(disputed.map_or_else(|| failed(Reason::CheckFailed(why)), |node| refused(node, Reason::Disputed)))
}

/// `serde_yaml` takes a byte order mark before a comment for a document of its own.
fn read(text: &str) -> Result<Value, serde_yaml::Error> {
    serde_yaml::from_str(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// The reader's own words may hold a key or a value: only the place is passed on.
fn unreadable(document: &Document, error: &serde_yaml::Error, failed: &impl Fn(Reason) -> Refused) -> Refused {
    if let Some((first, second)) = document.duplicate_anywhere() {
        return refused(second, Reason::Duplicate { first_line: first.line });
    }
    // serde's words for a number that 64 bits do not hold.
    let is_large = [" as u128", " as i128"].iter().any(|words| error.to_string().contains(words));
    let reason = if is_large { Reason::LargeNumber } else { Reason::Unreadable };
    match error.location() {
        Some(place) => Refused { line: place.line(), column: place.column(), reason },
        None => failed(reason),
    }
}

/// The old value with the written values in it.
fn written(mut root: Value, edit: &Edit<'_>, writes: &[Write<'_>]) -> Option<Value> {
    let section = root.get_mut(edit.provider.name)?.as_mapping_mut()?;
    for write in writes {
        let value = match write.value {
            Wanted::Null => Value::Null,
            Wanted::Text(text) => Value::from(text),
            Wanted::Number(number) => Value::from(number),
        };
        let mapping = if write.in_block {
            let block = section.entry(Value::from(BLOCK)).or_insert(Value::Null);
            if block.is_null() {
                *block = Value::Mapping(Mapping::new());
            }
            block.as_mapping_mut()?
        } else {
            &mut *section
        };
        mapping.insert(Value::from(write.key), value);
    }
    Some(root)
}

fn same_outside(text: &str, spliced: &Spliced) -> bool {
    let new = &spliced.text;
    let (mut old_at, mut new_at) = (0, 0);
    for (old_range, new_range) in &spliced.replaced {
        if text.get(old_at..old_range.start) != new.get(new_at..new_range.start) {
            return false;
        }
        (old_at, new_at) = (old_range.end, new_range.end);
    }
    text.get(old_at..) == new.get(new_at..)
}

/// The first node of which the second parser has something else. Its value is a tree without aliases
/// and no deeper than it allows, so that following it comes to an end.
fn disputed<'d>(document: &'d Document<'d>, node: &'d Node<'d>, value: &Value) -> Option<&'d Node<'d>> {
    let node = document.resolve(node);
    let agreed = match (&node.kind, value) {
        (_, Value::Tagged(tagged)) => return disputed(document, node, &tagged.value),
        (Kind::Mapping { entries, .. }, Value::Mapping(pairs)) if entries.len() == pairs.len() => {
            return entries.iter().zip(pairs).find_map(|((key, value), (other_key, other_value))| {
                disputed(document, key, other_key).or_else(|| disputed(document, value, other_value))
            });
        }
        (Kind::Sequence { items, .. }, Value::Sequence(others)) if items.len() == others.len() => {
            return items.iter().zip(others).find_map(|(item, other)| disputed(document, item, other));
        }
        (Kind::Scalar { value, .. }, Value::String(other)) => value == other,
        (Kind::Scalar { value: text, style }, Value::Null | Value::Bool(_) | Value::Number(_)) => {
            // What a text is without quotes is theirs to say, but they say the same of it elsewhere.
            node.tag().is_some() || *style == Style::Plain && read(text).is_ok_and(|alone| alone == *value)
        }
        _ => false,
    };
    if agreed { None } else { Some(node) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::TRAKT;
    use crate::splice::Change;

    /// A wrong edit does not pass: other bytes, another value, a wrong value, no YAML at all. `splice` makes
    /// no such edit that we know of, so that the check itself is asked.
    #[test]
    fn a_wrong_edit_is_noticed() {
        let text = "trakt:\n  authorization:\n    access_token: old\nplex: a # b\n";
        let document = Document::parse(text).expect("YAML");
        let edit = Edit { provider: &TRAKT, change: Change::Empty, clear_once_key: false };
        let write = Write { in_block: true, key: "access_token", value: Wanted::Text("new") };
        let check = |new: &str, old_range, new_range| {
            let spliced = Spliced { text: new.to_owned(), replaced: vec![(old_range, new_range)] };
            let failed = |reason| Refused { line: 0, column: 0, reason };
            verify(text, &document, &spliced, &edit, std::slice::from_ref(&write), failed)
                .map_err(|refused| refused.reason)
        };
        let right = text.replace("old", "new");
        assert_eq!(check(&right, 42..45, 42..45), Ok(()));
        for (new, why) in [
            (right.replace("# b", "# c"), "other bytes would change"),
            (text.to_owned(), "another value would change"),
            (text.replace("old", "\"new"), "the new text is not YAML"),
        ] {
            let new_end = 42 + new.len() + 3 - text.len();
            assert_eq!(check(&new, 42..45, 42..new_end), Err(Reason::CheckFailed(why)));
        }
        assert_eq!(
            check(&right.replace("plex: a", "plex: b"), 42..text.len(), 42..text.len()),
            Err(Reason::CheckFailed("another value would change")),
            "a range that is too wide does not help"
        );
    }

    /// The first place of which two readers have something else is found, and what they agree on is passed
    /// over: tags, sequences, and types, which are the second reader's to say.
    #[test]
    fn the_first_dispute() {
        for (ours, theirs, line) in [
            ("a: 1\nb: [c, ~]\n", "a: 1\nb: [c, ~]\n", None),
            ("a: !x b\nc: 1\nd: e\n", "a: !x b\nc: 1\nd: f\n", Some(3)),
            ("a: !x b\n", "a: !x c\n", Some(1)),
            ("a: [b, c]\nd:\n  e\n", "a: [b, c]\nd:\n  f\n", Some(3)),
            ("a:\n- b\n- c\n", "a:\n- b\n- d\n", Some(3)),
            ("a:\n- b\n", "a:\n- b\n- c\n", Some(2)),
            ("a:\n  b: c\n", "a:\n  b: c\n  d: e\n", Some(2)),
            ("a: b\nc:\n  [d]\n", "a: b\nc: {d: e}\n", Some(3)),
            ("a: ~\nb: 0x10\nc: True\n", "a: ~\nb: 16\nc: true\n", None),
            ("a: 12\nb: 1\n", "a: 12\nb: ~\n", Some(2)),
            ("a: 12\nb: ~\n", "a: 12\nb: 1\n", Some(2)),
            ("a: 12\nb: ~\n", "a: 12\nb: true\n", Some(2)),
            ("a: 12\nb: 1\n", "a: 12\nb: 2\n", Some(2)),
            ("a: !!int 12\nb: x\n", "a: 12\nb: 2\n", Some(2)),
            ("a: 12\nb: '2'\n", "a: 12\nb: 2\n", Some(2)),
        ] {
            let document = Document::parse(ours).expect("YAML");
            let found = disputed(&document, &document.root, &read(theirs).expect("YAML"));
            assert_eq!(found.map(|node| node.line), line, "{ours:?} {theirs:?}");
        }
    }
}

//! The check of every edit, by a parser that had no part in it.
//!
//! Invariant: an edit passes only where `serde_yaml` reads from the new text
//! what it reads from the old one with the written values in place, where our
//! own reader finds every wanted value, and where each byte outside of the
//! replaced ranges is the old one.

use serde_yaml::{Mapping, Value};

use super::plan::{BLOCK, Write};
use super::scalar::says;
use super::{Edit, Reason, Refused, Spliced, Wanted, refused};
use crate::yaml::Document;

pub(super) fn verify(
    text: &str,
    document: &Document,
    spliced: &Spliced,
    edit: &Edit<'_>,
    wanted: &[(&'static str, Wanted<'_>)],
    writes: &[Write<'_>],
    failed: impl Fn(Reason) -> Refused,
) -> Result<(), Refused> {
    let fail = |why| failed(Reason::CheckFailed(why));
    if !same_outside(text, spliced) {
        return Err(fail("other bytes would change"));
    }
    let mut expected = read(text).map_err(|error| unreadable(document, &error, &failed))?;
    let found = read(&spliced.text).map_err(|_| fail("the new text is not YAML"))?;
    write(&mut expected, edit, writes).ok_or_else(|| fail("the block is not where it was"))?;
    if expected != found {
        return Err(fail("another value would change"));
    }
    let again = Document::parse(&spliced.text).map_err(|_| fail("the new text is not YAML"))?;
    let block = again.get(&again.root, edit.provider.name).and_then(|section| again.get(section, BLOCK));
    let right = wanted.iter().all(|(key, value)| match block.and_then(|block| again.get(block, key)) {
        Some(node) => says(&again, node, value),
        None => *value == Wanted::Null,
    });
    if right { Ok(()) } else { Err(fail("the block does not say what it should")) }
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
    match error.location() {
        Some(place) => Refused { line: place.line(), column: place.column(), reason: Reason::Unreadable },
        None => failed(Reason::Unreadable),
    }
}

/// The old value with the written values in it.
fn write(root: &mut Value, edit: &Edit<'_>, writes: &[Write<'_>]) -> Option<()> {
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
    Some(())
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

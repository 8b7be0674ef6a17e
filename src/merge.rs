//! Two people's edits of one text, made at the same moment, in one text.
//!
//! Pure. Line by line, as `diff3` does it. Where both changed the same lines
//! in different ways there is no answer, and this file never invents one.

use std::ops::Range;

use similar::DiffOp;
use similar::algorithms::{Capture, Compact, Replace, myers};

/// The text with both edits in it: `one` and `other` were each made from `base`. Where both added
/// lines at the same place, those of `one` come first; what one of them has of the other already is not
/// done twice. `None` where they contradict each other.
#[must_use]
pub fn merge(base: &str, one: &str, other: &str) -> Option<String> {
    let [base, one, other] = [base, one, other].map(|text| text.split_inclusive('\n').collect::<Vec<_>>());
    let (mut ones, mut others) = (changes(&base, &one), changes(&base, &other));
    others.retain(|theirs| !ones.iter().any(|mine| has(mine, &one, theirs, &other, &base)));
    ones.retain(|mine| !others.iter().any(|theirs| has(theirs, &other, mine, &one, &base)));
    let (mut ones, mut others) = (ones.into_iter().peekable(), others.into_iter().peekable());
    let mut merged = String::new();
    let mut at = 0;
    loop {
        let (mine, theirs) = (ones.peek(), others.peek());
        let is_mine = match (mine, theirs) {
            (None, None) => break,
            (Some(mine), Some(theirs)) => {
                if mine.from.start < theirs.from.end && theirs.from.start < mine.from.end {
                    return None;
                }
                if mine.from == theirs.from {
                    // Both added lines; what they begin with alike is one addition.
                    let (mine, theirs) = (&one[mine.to.clone()], &other[theirs.to.clone()]);
                    let alike = mine.iter().zip(theirs).take_while(|(mine, theirs)| mine == theirs).count();
                    let place = ones.next()?.from.start;
                    merged.extend(base[at..place].iter().copied());
                    at = place;
                    merged.extend(mine.iter().chain(&theirs[alike..]).copied());
                    others.next();
                    continue;
                }
                (mine.from.start, mine.from.end) <= (theirs.from.start, theirs.from.end)
            }
            (mine, _) => mine.is_some(),
        };
        let (change, lines) = if is_mine { (ones.next()?, &one) } else { (others.next()?, &other) };
        merged.extend(base[at..change.from.start].iter().copied());
        merged.extend(lines[change.to].iter().copied());
        at = change.from.end;
    }
    merged.extend(base[at..].iter().copied());
    Some(merged)
}

/// Whether a text may be no more than the start of an edit of `base`: it lacks the end of it.
#[must_use]
pub fn is_cut_off(base: &str, text: &str) -> bool {
    let [base, lines] = [base, text].map(|text| text.split_inclusive('\n').collect::<Vec<_>>());
    let lacks_end = |last: &Change| last.from.end == base.len() && !last.from.is_empty();
    !text.ends_with('\n') || changes(&base, &lines).last().is_some_and(lacks_end)
}

/// How many lines were removed and added to get from one text to another.
#[must_use]
pub fn distance(base: &str, text: &str) -> usize {
    let [base, text] = [base, text].map(|text| text.split_inclusive('\n').collect::<Vec<_>>());
    changes(&base, &text).iter().map(|change| change.from.len() + change.to.len()).sum()
}

/// Whether a change of some lines has another one in it.
fn has(outer: &Change, outer_lines: &[&str], inner: &Change, inner_lines: &[&str], base: &[&str]) -> bool {
    let (outer_to, inner_to) = (&outer_lines[outer.to.clone()], &inner_lines[inner.to.clone()]);
    if inner.from.start < outer.from.start || outer.from.end < inner.from.end {
        return false;
    }
    match (inner_to.len(), inner.from.len()) {
        // Lines that are gone are gone, unless they were only moved.
        (0, len) => outer_to.windows(len).all(|lines| *lines != base[inner.from.clone()]),
        (len, _) => outer_to.windows(len).any(|lines| lines == inner_to),
    }
}

/// Lines of the base, and what became of them.
pub(crate) struct Change {
    pub(crate) from: Range<usize>,
    pub(crate) to: Range<usize>,
}

/// In order, with at least one unchanged line between any two.
pub(crate) fn changes(base: &[&str], edited: &[&str]) -> Vec<Change> {
    // The algorithm by its own name: the choice of one at run time is 150 KB of the others.
    let mut hook = Compact::new(Replace::new(Capture::new()), base, edited);
    let Ok(()) = myers::diff(&mut hook, base, 0..base.len(), edited, 0..edited.len());
    let ops = hook.into_inner().into_inner().into_ops();
    let changed = ops.iter().filter(|op| !matches!(op, DiffOp::Equal { .. }));
    changed.map(|op| Change { from: op.old_range(), to: op.new_range() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What each of two edits does to the other, case by case.
    #[test]
    fn table() {
        let base = "a\nb\nc\nd\n";
        for (what, one, other, expected) in [
            ("nothing", base, base, Some(base)),
            ("one of them", "a\nB\nc\nd\n", base, Some("a\nB\nc\nd\n")),
            ("the other", base, "a\nb\nc\n", Some("a\nb\nc\n")),
            ("different lines", "A\nb\nc\nd\n", "a\nb\nc\nD\n", Some("A\nb\nc\nD\n")),
            ("between two of the other's", "A\nb\nc\nD\n", "a\nB\nc\nd\n", Some("A\nB\nc\nD\n")),
            ("neighbours", "a\nB\nc\nd\n", "a\nb\nC\nd\n", Some("a\nB\nC\nd\n")),
            ("neighbours, the later one first", "a\nb\nC\nd\n", "a\nB\nc\nd\n", Some("a\nB\nC\nd\n")),
            ("both at the end", "a\nb\nc\nd\n1\n", "a\nb\nc\nd\n2\n", Some("a\nb\nc\nd\n1\n2\n")),
            ("the same addition", "a\nb\nc\nd\n1\n", "a\nb\nc\nd\n1\n", Some("a\nb\nc\nd\n1\n")),
            ("one began as the other", "a\nb\nc\nd\n1\n", "a\nb\nc\nd\n1\n2\n", Some("a\nb\nc\nd\n1\n2\n")),
            ("the same change", "a\nX\nc\nd\n", "a\nX\nc\nd\n", Some("a\nX\nc\nd\n")),
            ("added before what the other changed", "a\n1\nb\nc\nd\n", "a\nB\nc\nd\n", Some("a\n1\nB\nc\nd\n")),
            ("one line, two ways", "a\nX\nc\nd\n", "a\nY\nc\nd\n", None),
            ("changed in what the other removed", "a\nX\nc\nd\n", "a\nd\n", None),
            ("an addition in a larger one", "a\nb\nc\nd\n1\n2\n3\n", "a\nb\nc\nd\n2\n", Some("a\nb\nc\nd\n1\n2\n3\n")),
            ("an addition in a larger change", "a\nb\nc\nD\n1\n", "a\nb\nc\nd\n1\n", Some("a\nb\nc\nD\n1\n")),
            ("a change in a larger one", "a\nB\nC\nd\n", "a\nB\nc\nd\n", Some("a\nB\nC\nd\n")),
            ("a removal in a larger one", "a\nd\n", "a\nb\nd\n", Some("a\nd\n")),
            ("removed in what the other changed", "a\nX\nd\n", "a\nb\nd\n", Some("a\nX\nd\n")),
            ("added in what the other removed", "a\nb\n1\nc\nd\n", "a\nd\n", None),
        ] {
            assert_eq!(merge(base, one, other).as_deref(), expected, "{what}");
        }
    }

    /// What lacks the end may be the start of something; what was added to, or changed before the end, is not.
    #[test]
    fn cut_off() {
        let base = "a\nb\nc\n";
        for (text, expected) in [
            (base, false),
            ("a\nb\nc\nd\n", false),
            ("a\nB\nc\n", false),
            ("a\nc\n", false),
            ("a\nb\n", true),
            ("", true),
            ("a\nb\nc\nd", true),
            ("a\nb\nC\n", true),
        ] {
            assert_eq!(is_cut_off(base, text), expected, "{text:?}");
        }
    }

    /// A changed line is one removed and one added.
    #[test]
    fn distances() {
        for (text, lines) in [("a\nb\nc\n", 0), ("a\nB\nc\n", 2), ("a\nc\n", 1), ("A\nb\nc\nd\ne\n", 4), ("", 3)] {
            assert_eq!(distance("a\nb\nc\n", text), lines, "{text:?}");
        }
    }

    proptest! {
        /// An edit that is in a text already changes nothing, whatever was added around it since.
        #[test]
        fn an_edit_is_made_once(
            base in "([ab]{0,2}\n){1,6}", edit in 0..6_usize, later in 0..8_usize, where_ in any::<bool>(),
        ) {
            let insert = |text: &str, at: usize, line: &str| {
                let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
                lines.insert(at.min(lines.len()), line);
                lines.concat()
            };
            let edited = insert(&base, edit, "edit\n");
            let at = edited.lines().position(|line| line == "edit").unwrap() + usize::from(where_);
            for at in [later, at] {
                let current = insert(&edited, at, "later\n");
                prop_assert_eq!(merge(&base, &current, &edited), Some(current));
            }
        }

        /// One edit alone comes through whole, and the same edit twice is one edit.
        #[test]
        fn one_edit_alone(base in "([ab]{0,2}\n){0,8}", edited in "([ab]{0,2}\n){0,8}") {
            prop_assert_eq!(merge(&base, &edited, &base), Some(edited.clone()));
            prop_assert_eq!(merge(&base, &base, &edited), Some(edited.clone()));
            prop_assert_eq!(merge(&base, &edited, &edited), Some(edited));
        }

        /// Lines that either added are all there, wherever both left the base alone.
        #[test]
        fn additions_stay(base in "(x\n){1,6}", one in 0..6_usize, other in 0..6_usize) {
            let add = |at: usize, line: &str| {
                let mut lines: Vec<&str> = base.split_inclusive('\n').collect();
                lines.insert(at.min(lines.len()), line);
                lines.concat()
            };
            let merged = merge(&base, &add(one, "one\n"), &add(other, "other\n")).unwrap_or_default();
            prop_assert!(merged.contains("one\n") && merged.contains("other\n"));
            prop_assert_eq!(merged.len(), base.len() + 10);
        }
    }
}

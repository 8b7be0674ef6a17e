//! YAML text to one tree of nodes, each with its bytes in the original text.
//!
//! Invariant: every span lies on character boundaries of the text that was
//! parsed, byte order mark included, and no [`Problem`] holds anything of the
//! file but its structure: a value may be a secret. This file never writes
//! YAML, never copies an aliased node, and never panics on any text.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

use granit_parser::Parser;

use build::Builder;

mod build;

/// Where a text is not the YAML that was hoped for, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {what}")]
pub struct Problem {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// What is wrong, without any of the file's values.
    pub what: String,
}

/// One YAML document.
pub struct Document<'t> {
    /// The document's node; a null for a text without content.
    pub root: Node<'t>,
    collections: Vec<Place>,
    anchors: HashMap<usize, Place>,
    referenced: HashSet<usize>,
}

/// One node.
pub struct Node<'t> {
    /// The node's bytes. Quotes and brackets belong to it, the anchor and the
    /// tag do not. A block scalar starts at its `|` or `>` and ends with its
    /// last line break; a block collection ends with its last leaf (and one whose
    /// dashes are not indented starts after the first of them); the span of a null without text is empty and lies where a value would go.
    pub span: Range<usize>,
    /// The line of its first byte, from 1.
    pub line: usize,
    /// The column of its first byte in characters, from 1.
    pub column: usize,
    /// Its anchor and its tag; hardly any node has one.
    properties: Option<Box<Properties>>,
    /// What it is.
    pub kind: Kind<'t>,
}

/// What stands before a node.
#[derive(Default)]
struct Properties {
    /// Their bytes, from the first to the last.
    span: Option<Range<usize>>,
    anchor: Option<usize>,
    tag: Option<String>,
}

impl Node<'_> {
    /// The bytes of its anchor and its tag, from the first to the last.
    #[must_use]
    pub fn properties(&self) -> Option<&Range<usize>> {
        self.properties.as_ref()?.span.as_ref()
    }

    /// The anchor that aliases name.
    #[must_use]
    pub fn anchor(&self) -> Option<usize> {
        self.properties.as_ref()?.anchor
    }

    /// The resolved tag, such as `tag:yaml.org,2002:str`.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.properties.as_ref()?.tag.as_deref()
    }
}

/// What a node is.
pub enum Kind<'t> {
    /// A scalar.
    Scalar {
        /// The text after quotes and escapes; empty for a null without text.
        value: Cow<'t, str>,
        /// How it is written.
        style: Style,
    },
    /// A mapping.
    Mapping {
        /// Keys and values in the file's order.
        entries: Vec<(Node<'t>, Node<'t>)>,
        /// Whether it is written with braces.
        flow: bool,
    },
    /// A sequence.
    Sequence {
        /// The items in the file's order.
        items: Vec<Node<'t>>,
        /// Whether it is written with brackets.
        flow: bool,
    },
    /// A reference to the node with this anchor.
    Alias(usize),
}

/// How a scalar is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Without quotes.
    Plain,
    /// `'…'`
    SingleQuoted,
    /// `"…"`
    DoubleQuoted,
    /// `|`
    Literal,
    /// `>`
    Folded,
}

/// The tag of YAML's own strings.
pub const STR_TAG: &str = "tag:yaml.org,2002:str";
/// The tag of YAML's own nulls.
pub const NULL_TAG: &str = "tag:yaml.org,2002:null";
/// The tag of YAML's own whole numbers.
pub const INT_TAG: &str = "tag:yaml.org,2002:int";

impl<'t> Document<'t> {
    /// Parses a text that holds exactly one document, or nothing but comments.
    ///
    /// # Errors
    /// The text is not YAML, holds two documents, indents with tabs, or nests
    /// deeper than 128 levels.
    pub fn parse(text: &'t str) -> Result<Self, Problem> {
        let start = if text.starts_with(BOM) { BOM.len_utf8() } else { 0 };
        let mut options = granit_parser::options! { emit_anchor_events: true };
        // Another crate may have switched the parser's comment events on; a hundred in a row would fail.
        options.set_emit_comments(false);
        let mut builder = Builder::new(text, start);
        for event in Parser::new_from_str_with_options(&text[start..], options) {
            let (event, span) = event.map_err(|error| builder.syntax(&error))?;
            builder.take(event, span)?;
        }
        Ok(builder.finish())
    }

    /// The value of a key in a mapping, through aliases and `<<` merge keys;
    /// a key of the mapping itself wins over a merged one. `None` where the
    /// node is no mapping.
    #[must_use]
    pub fn get<'a>(&'a self, node: &'a Node<'t>, key: &str) -> Option<&'a Node<'t>> {
        let mut seen = HashSet::new();
        let mut waiting = vec![node];
        while let Some(next) = waiting.pop() {
            if let Kind::Alias(id) = next.kind {
                // A second visit finds nothing that the first did not, and could go round for ever.
                if !seen.insert(id) {
                    continue;
                }
            }
            match &self.resolve(next).kind {
                Kind::Mapping { entries, .. } => {
                    if let Some((_, value)) = self.own_entry(next, key) {
                        return Some(value);
                    }
                    waiting.extend(entries.iter().rev().filter(|(key, _)| is_merge(key)).map(|(_, value)| value));
                }
                // Only below a merge key: the earlier mapping wins.
                Kind::Sequence { items, .. } if !std::ptr::eq(next, node) => waiting.extend(items.iter().rev()),
                _ => {}
            }
        }
        None
    }

    /// The entry of a key that stands in the mapping itself, not in a merged one.
    #[must_use]
    pub fn own_entry<'a>(&'a self, node: &'a Node<'t>, key: &str) -> Option<(&'a Node<'t>, &'a Node<'t>)> {
        let Kind::Mapping { entries, .. } = &self.resolve(node).kind else {
            return None;
        };
        // A tag of one's own makes another key of it.
        let is_key =
            |name: &Node| matches!(self.resolve(name).tag(), None | Some(STR_TAG)) && self.text(name) == Some(key);
        entries.iter().find(|(name, _)| is_key(name)).map(|(name, value)| (name, value))
    }

    /// The node itself, or the node that an alias names.
    #[must_use]
    pub fn resolve<'a>(&'a self, node: &'a Node<'t>) -> &'a Node<'t> {
        let Kind::Alias(id) = node.kind else {
            return node;
        };
        // Every alias was seen after its anchor, and an alias has no anchor of its own: one step is all.
        self.anchors.get(&id).and_then(|place| self.at(*place)).unwrap_or(node)
    }

    /// A scalar's text exactly as it was meant (digits stay digits); `None` for nulls and collections.
    #[must_use]
    pub fn text<'a>(&'a self, node: &'a Node<'t>) -> Option<&'a str> {
        let node = self.resolve(node);
        match &node.kind {
            Kind::Scalar { value, .. } if !self.is_null(node) => Some(value),
            _ => None,
        }
    }

    /// Whether the node is a null: nothing, `~`, `null`, `Null`, `NULL`, or tagged as one.
    #[must_use]
    pub fn is_null(&self, node: &Node) -> bool {
        let node = self.resolve(node);
        let Kind::Scalar { value, style } = &node.kind else {
            return false;
        };
        match node.tag() {
            None => *style == Style::Plain && matches!(&**value, "" | "~" | "null" | "Null" | "NULL"),
            Some(tag) => tag == NULL_TAG,
        }
    }

    /// Whether any alias names this anchor.
    #[must_use]
    pub fn is_referenced(&self, anchor: usize) -> bool {
        self.referenced.contains(&anchor)
    }

    /// The first key of a mapping that repeats an earlier one: the earlier, then the later.
    #[must_use]
    pub fn duplicate<'a>(&'a self, node: &'a Node<'t>) -> Option<(&'a Node<'t>, &'a Node<'t>)> {
        let Kind::Mapping { entries, .. } = &self.resolve(node).kind else {
            return None;
        };
        // Sorted, because a mapping for each of them would be most of what reading a config costs.
        let key = |(position, (key, _)): (usize, &'a (Node<'t>, Node<'t>))| {
            let node = self.resolve(key);
            let Kind::Scalar { value, .. } = &node.kind else { return None };
            Some((&**value, node.tag().filter(|tag| *tag != STR_TAG), position))
        };
        let mut keys: Vec<_> = entries.iter().enumerate().filter_map(key).collect();
        keys.sort_unstable();
        let repeated = keys.windows(2).filter(|pair| (pair[0].0, pair[0].1) == (pair[1].0, pair[1].1));
        let (earlier, later) = repeated.map(|pair| (pair[0].2, pair[1].2)).min_by_key(|(_, later)| *later)?;
        Some((&entries[earlier].0, &entries[later].0))
    }

    /// The first duplicate key in any mapping of the document, as [`Self::duplicate`] gives it.
    #[must_use]
    pub fn duplicate_anywhere(&self) -> Option<(&Node<'t>, &Node<'t>)> {
        let mut waiting = vec![&self.root];
        while let Some(node) = waiting.pop() {
            if !matches!(node.kind, Kind::Alias(_))
                && let Some(found) = self.duplicate(node)
            {
                return Some(found);
            }
            match &node.kind {
                Kind::Mapping { entries, .. } => {
                    waiting.extend(entries.iter().rev().flat_map(|(key, value)| [value, key]));
                }
                Kind::Sequence { items, .. } => waiting.extend(items.iter().rev()),
                Kind::Scalar { .. } | Kind::Alias(_) => {}
            }
        }
        None
    }

    fn at(&self, place: Place) -> Option<&Node<'t>> {
        let mut steps = Vec::new();
        let mut here = place;
        while let Some(collection) = here.collection {
            steps.push(here.position);
            here = *self.collections.get(collection)?;
        }
        steps.into_iter().rev().try_fold(&self.root, |node, position| match &node.kind {
            Kind::Mapping { entries, .. } => {
                let (key, value) = entries.get(position / 2)?;
                Some(if position % 2 == 0 { key } else { value })
            }
            Kind::Sequence { items, .. } => items.get(position),
            Kind::Scalar { .. } | Kind::Alias(_) => None,
        })
    }
}

/// Whether a key is the merge key of YAML 1.1, which `ruamel.yaml` honours in 1.2 as well.
fn is_merge(key: &Node) -> bool {
    key.tag().is_none() && matches!(&key.kind, Kind::Scalar { value, style: Style::Plain } if value == "<<")
}

const BOM: char = '\u{feff}';

/// Which child of which collection: anchors are found by these, so that an
/// alias costs a few bytes whatever it stands for.
#[derive(Clone, Copy)]
struct Place {
    collection: Option<usize>,
    position: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Document<'_> {
        Document::parse(text).unwrap_or_else(|problem| panic!("{text:?}: {problem}"))
    }

    /// The span of a value is what a reader would point at, whatever its style, with and without a byte order mark.
    #[test]
    fn spans_are_what_is_written() {
        for (text, span, line, column) in [
            ("k: abc # c\n", "abc", 1, 4),
            ("# é\nk:\t'a b' \t\n", "'a b'", 2, 4),
            ("k: \"a\\tb\"\r\n", "\"a\\tb\"", 1, 4),
            ("k: a\n  b\nl: m\n", "a\n  b", 1, 4),
            ("k: {a: b, c} # c\n", "{a: b, c}", 1, 4),
            ("k: [] # }\n", "[]", 1, 4),
            ("k: |2- # | >\n\n    a\n   # b\n\n # c\nl: m\n", "|2- # | >\n\n    a\n   # b\n\n", 1, 4),
            ("k:\n  &a # |\n  !!str\n  >\n  a\n  b", ">\n  a\n  b", 4, 3),
            ("k: |\nl: m\n", "|\n", 1, 4),
            ("k:\r\n  l:\r\n    m: n # c\r\n# c\r\no: p\r\n", "l:\r\n    m: n", 2, 3),
            ("k:\n- a\n- b: # c\n\nl: m", "a\n- b:", 2, 3),
            ("k:\n  - a\n", "- a", 2, 3),
            ("k:\n  ? a\n  : b\n", "? a\n  : b", 2, 3),
            ("? k\n# c\n: v\n", "v", 3, 3),
        ] {
            for bom in ["", "\u{feff}"] {
                let text = format!("{bom}{text}");
                let document = parsed(&text);
                let node = document.get(&document.root, "k").expect("the key");
                assert_eq!(&text[node.span.clone()], span, "{text:?}");
                assert_eq!((node.line, node.column), (line, column), "{text:?}");
            }
        }
    }

    /// A null without text lies where its value would go: the text up to there says so.
    #[test]
    fn nulls_lie_where_a_value_would_go() {
        for (text, before) in [
            ("k: # c\n", "k:"),
            ("k :\n\n# c\n", "k :"),
            ("? k\n# c\n: # c\n", "? k\n# c\n:"),
            ("? k # c\n? l\n", "? k"),
            ("{k, l}", "{k"),
            ("{\"k\":, l: m}", "{\"k\":"),
            ("k: &a !!null # c\n", "k: &a !!null"),
            ("? k\n:,: a\n", "? k"),
            ("? k\n:k: a\n", "? k"),
            ("? k\n: # c\n", "? k\n:"),
        ] {
            let document = parsed(text);
            let node = document.get(&document.root, "k").expect("the key");
            assert!(document.is_null(node) && node.span.is_empty(), "{text:?}");
            assert_eq!(&text[..node.span.start], before, "{text:?}");
        }
    }

    /// Aliases and merge keys are followed, also where they go in circles.
    #[test]
    fn aliases_and_merges() {
        let text =
            "a: &a {x: 1, y: 2}\nb: &b {y: 3, z: 4}\nc:\n  <<: [*a, *b]\n  x: '5'\nd: *a\ne: &e {<<: *e}\nf: &f [*f]\n";
        let document = parsed(text);
        let find = |path: [&str; 2]| {
            let node = document.get(&document.root, path[0])?;
            document.text(document.get(node, path[1])?)
        };
        assert_eq!(find(["c", "x"]), Some("5"), "the mapping's own key wins");
        assert_eq!(find(["c", "y"]), Some("2"), "the earlier merged mapping wins");
        assert_eq!(find(["c", "z"]), Some("4"));
        assert_eq!(find(["d", "y"]), Some("2"));
        assert_eq!((find(["e", "x"]), find(["f", "x"])), (None, None), "circles end");
        let quoted = parsed("a: {'<<': {x: 1}}");
        let a = quoted.get(&quoted.root, "a").expect("the key");
        assert!(quoted.get(a, "x").is_none(), "a quoted << is a key like any other");
    }

    /// What is null and what is text, by style and tag.
    #[test]
    fn nulls_and_texts() {
        for (value, text) in [
            ("", None),
            ("~", None),
            ("null", None),
            ("NULL", None),
            ("!!null x", None),
            ("[a]", None),
            ("'null'", Some("null")),
            ("!!str null", Some("null")),
            ("!!str", Some("")),
            ("''", Some("")),
            ("nULL", Some("nULL")),
            ("007", Some("007")),
            ("<<trakt>>", Some("<<trakt>>")),
        ] {
            let yaml = format!("k: {value}\n");
            let document = parsed(&yaml);
            assert_eq!(document.get(&document.root, "k").and_then(|node| document.text(node)), text, "{value}");
        }
    }

    /// Empty texts are a null; a problem says where it is and nothing of what is there.
    #[test]
    fn problems() {
        for text in ["", "\u{feff}", "# c\n", "---\n", "--- # c\n...\n"] {
            let document = parsed(text);
            assert!(document.is_null(&document.root), "{text:?}");
        }
        for (text, position, part) in [
            ("trakt:\n\tclient_id: hush\n", (2, 1), "tab"),
            ("trakt:\n  a: hush\n\tb: hush\n", (3, 1), "tab"),
            ("trakt:\n  \ta: hush\n", (2, 3), "tab"),
            ("a:\n  - hush\n\t- hush\n", (3, 1), "tab"),
            ("\u{feff}\ttrakt: hush\n", (1, 1), "tab"),
            ("a: b\n---\nhush: d\n", (2, 1), "second document"),
            ("a: hush\n...\nhush", (3, 1), "second document"),
            ("é: *hush\n", (1, 4), "alias"),
            ("a: @hush\n", (1, 4), "quotes"),
            ("a: \"hush\n", (1, 4), "never closed"),
            ("a: hush: b\n", (1, 8), "`: `"),
            ("a: {hush: b\n", (1, 4), "bracket"),
        ] {
            let problem = Document::parse(text).err().unwrap_or_else(|| panic!("{text:?} is no YAML"));
            assert_eq!((problem.line, problem.column), position, "{text:?}: {problem}");
            assert!(problem.what.contains(part), "{text:?}: {problem}");
            assert!(!problem.to_string().contains("hush"), "{text:?}: {problem}");
        }
    }

    /// Depth and doubling cost nothing: a bracket tower is refused, and aliases are not copied.
    #[test]
    fn bombs() {
        for (open, close) in [("[", "]"), ("{a: ", "}"), ("- ", ""), ("? ", "")] {
            let text = format!("{}x{}", open.repeat(100_000), close.repeat(100_000));
            assert!(Document::parse(&text).is_err(), "{open}");
        }
        let depth = build::DEPTH_MAX;
        parsed(&format!("{}x{}", "[".repeat(depth), "]".repeat(depth)));
        let deeper = format!("{}x{}", "[".repeat(depth + 1), "]".repeat(depth + 1));
        assert!(Document::parse(&deeper).is_err_and(|problem| problem.what.contains("128")));
        let laugh = |level: usize| {
            let items = vec![format!("*a{level}"); 10].join(", ");
            format!("a{}: &a{} [{items}]\n", level + 1, level + 1)
        };
        let laughs: String = std::iter::once("a0: &a0 [x]\n".to_owned()).chain((0..59).map(laugh)).collect();
        let text = format!("{laughs}<<: *a59\n");
        let document = parsed(&text);
        assert!(document.get(&document.root, "y").is_none());
    }

    /// A repeated key is found with both its places, and only where it repeats.
    #[test]
    fn duplicates() {
        let document = parsed("a:\n  b: 1\n  'b': 2\nc: {a: 1}\n");
        let a = document.get(&document.root, "a").expect("the key");
        let (first, second) = document.duplicate(a).expect("a duplicate");
        assert_eq!((first.line, second.line), (2, 3));
        assert!(document.duplicate(&document.root).is_none());
        assert!(document.duplicate_anywhere().is_some());
        assert!(parsed("a: {b: 1}\nc: {b: 1}\n").duplicate_anywhere().is_none());
    }
}

//! The edits that make an old text say what is wanted, found on the tree and made on the text.
//!
//! Invariant: an edit replaces a value, removes one, or adds whole entries,
//! and never reaches beyond them; comments stay where they are. Nothing here
//! is trusted: `verify` reads the result again.

use std::ops::Range;

use super::scalar::{fits, says, written};
use super::{Change, Edit, Reason, Refused, Spliced, Wanted, check_mapping, is_reference, refused};
use crate::yaml::{Document, Kind, Node, Style};

/// The block's key in its section.
pub(super) const BLOCK: &str = "authorization";

/// A value that the edit wrote, for the check.
pub(super) struct Write<'w> {
    pub(super) in_block: bool,
    pub(super) key: &'static str,
    pub(super) value: Wanted<'w>,
}

/// Entries to add to the section: the block where it has none, the once-key where it is merged in.
type Added<'w> = Option<Vec<(&'static str, Wanted<'w>)>>;

pub(super) struct Plan<'d, 'w> {
    text: &'d str,
    document: &'d Document,
    /// Old bytes and what comes in their place.
    edits: Vec<(Range<usize>, String)>,
    writes: Vec<Write<'w>>,
    rewritten: Vec<&'d Node>,
}

impl<'d, 'w> Plan<'d, 'w> {
    pub(super) fn new(text: &'d str, document: &'d Document) -> Self {
        Self { text, document, edits: Vec::new(), writes: Vec::new(), rewritten: Vec::new() }
    }

    /// Plans the block's values; gives back the whole block where the section has none to write into.
    pub(super) fn authorization(
        &mut self,
        section: &'d Node,
        edit: &Edit<'_>,
        wanted: &[(&'static str, Wanted<'w>)],
    ) -> Result<Added<'w>, Refused> {
        let own = self.document.own_entry(section, BLOCK).map(|(_, block)| block);
        let block = own.or_else(|| self.document.get(section, BLOCK)).filter(|block| !self.document.is_null(block));
        if let Some(block) = block {
            let right = wanted.iter().all(|(key, value)| self.already(block, key, value));
            match own {
                Some(own) if !matches!(own.kind, Kind::Alias(_)) => {
                    return self.write_block(own, wanted).map(|()| None);
                }
                _ if right => return Ok(None),
                Some(own) => return Err(refused(own, Reason::Alias("`authorization`"))),
                // A block of our own hides the merged one: only where it says all that the other one did.
                None if wanted.len() < edit.provider.keys.len() => return Err(refused(section, Reason::Inherited)),
                None => {}
            }
        }
        if matches!(edit.change, Change::Empty) {
            return match block {
                Some(_) => Err(refused(section, Reason::Inherited)),
                None => Ok(None),
            };
        }
        self.note(true, wanted);
        match own {
            Some(null) => self.fill(section, null, wanted).map(|()| None),
            None => Ok(Some(wanted.to_vec())),
        }
    }

    /// Plans what belongs to the section itself: the block that it lacks and the once-key.
    pub(super) fn section(&mut self, section: &'d Node, edit: &Edit<'_>, added: Added<'w>) -> Result<(), Refused> {
        let mut entries = Vec::new();
        if let Some(block) = added {
            entries.push((BLOCK, self.rendered_block(section, &block)));
        }
        let once = edit.provider.once_key;
        if edit.clear_once_key && !self.already(section, once, &Wanted::Null) {
            match self.document.own_entry(section, once) {
                Some((_, value)) if is_reference(self.document, value) => {}
                Some((_, value)) => {
                    self.set(section, value, &Wanted::Null)?;
                    self.note(false, &[(once, Wanted::Null)]);
                }
                None => {
                    entries.push((once, Rendered::Value("null".to_owned())));
                    self.note(false, &[(once, Wanted::Null)]);
                }
            }
        }
        self.add(section, &entries);
        if self.edits.is_empty() { Ok(()) } else { self.touch(section) }
    }

    /// Whether there is nothing to do.
    pub(super) fn is_empty(&self) -> bool {
        self.edits.is_empty()
    }

    /// Makes the edits.
    pub(super) fn apply(mut self) -> Result<(Spliced, Vec<Write<'w>>), Reason> {
        // By position only, and stably: a null's new value and the entries after it may share an offset.
        self.edits.sort_by_key(|(range, _)| range.start);
        let mut new = String::with_capacity(self.text.len() + 1024);
        let mut replaced = Vec::with_capacity(self.edits.len());
        let mut at = 0;
        for (range, with) in self.edits {
            let kept = self.text.get(at..range.start).ok_or(Reason::CheckFailed("two changes overlap"))?;
            new.push_str(kept);
            let start = new.len();
            new.push_str(&with);
            at = range.end;
            replaced.push((range, start..new.len()));
        }
        new.push_str(self.text.get(at..).ok_or(Reason::CheckFailed("a change is outside of the text"))?);
        Ok((Spliced { text: new, replaced }, self.writes))
    }

    fn write_block(&mut self, block: &'d Node, wanted: &[(&'static str, Wanted<'w>)]) -> Result<(), Refused> {
        check_mapping(self.document, block, "`authorization`")?;
        let planned = self.edits.len();
        let mut missing = Vec::new();
        for (key, value) in wanted {
            if self.already(block, key, value) {
                continue;
            }
            self.note(true, &[(key, value.clone())]);
            match self.document.own_entry(block, key) {
                Some((_, node)) => self.set(block, node, value)?,
                None => missing.push((*key, Rendered::Value(written(value, Style::Plain)))),
            }
        }
        self.add(block, &missing);
        if self.edits.len() > planned { self.touch(block) } else { Ok(()) }
    }

    /// Whether the mapping's key says this already, be it through a merge key.
    fn already(&self, mapping: &Node, key: &str, wanted: &Wanted<'_>) -> bool {
        match self.document.get(mapping, key) {
            Some(node) => says(self.document, node, wanted),
            None => *wanted == Wanted::Null,
        }
    }

    fn note(&mut self, in_block: bool, values: &[(&'static str, Wanted<'w>)]) {
        let writes = values.iter().map(|(key, value)| Write { in_block, key, value: value.clone() });
        self.writes.extend(writes);
    }

    /// That no alias repeats what is about to change.
    fn touch(&self, node: &Node) -> Result<(), Refused> {
        match node.anchor {
            Some(anchor) if self.document.is_referenced(anchor) => Err(refused(node, Reason::Shared)),
            _ => Ok(()),
        }
    }

    /// Writes one value over another.
    fn set(&mut self, mapping: &Node, node: &'d Node, wanted: &Wanted<'_>) -> Result<(), Refused> {
        if is_reference(self.document, node) {
            return Err(refused(node, Reason::Reference));
        }
        if !fits(node.tag.as_deref(), wanted) {
            return Err(refused(node, Reason::Tag));
        }
        let mut inside = vec![node];
        while let Some(node) = inside.pop() {
            self.touch(node)?;
            match &node.kind {
                Kind::Mapping { flow: false, .. } | Kind::Sequence { flow: false, .. } => {
                    return Err(refused(node, Reason::Block));
                }
                Kind::Mapping { entries, .. } => inside.extend(entries.iter().flat_map(|(key, value)| [key, value])),
                Kind::Sequence { items, .. } => inside.extend(items),
                Kind::Scalar { .. } | Kind::Alias(_) => {}
            }
        }
        self.rewritten.push(node);
        let style = match node.kind {
            Kind::Scalar { style, .. } => style,
            _ => Style::Plain,
        };
        match wanted {
            Wanted::Null if !is_flow(mapping) => self.remove(node, true),
            Wanted::Null => self.replace(node, true, written(wanted, style)),
            _ if node.span.is_empty() => self.insert(mapping, node, &written(wanted, style)),
            _ => self.replace(node, false, written(wanted, style)),
        }
        Ok(())
    }

    /// Puts a value where another one is written, with or without the anchor and the tag before it.
    fn replace(&mut self, node: &Node, properties: bool, mut value: String) {
        let Range { mut start, end } = self.head(node);
        if let (true, Some(before)) = (properties, &node.properties) {
            start = start.min(before.start);
        }
        // Without a blank before it, only what starts with a quote is surely a value.
        if self.text[..start].ends_with(':') && !value.starts_with(['"', '\'']) {
            value.insert(0, ' ');
        }
        self.edits.push((start..end, value));
        self.cut_content(node);
    }

    /// Puts a value where nothing is written.
    fn insert(&mut self, mapping: &Node, null: &Node, value: &str) {
        let at = null.span.start;
        if self.text[..at].ends_with(':') || null.properties.is_some() {
            self.edits.push((at..at, format!(" {value}")));
        } else if is_flow(mapping) {
            self.edits.push((at..at, format!(": {value}")));
        } else {
            let at = self.line_end(at);
            self.edits.push((at..at, format!("{}{}: {value}", self.line_break(at), indent(mapping))));
        }
    }

    /// Takes a value away, from its colon on where both are on one line.
    fn remove(&mut self, node: &Node, properties: bool) {
        let Range { mut start, end } = self.head(node);
        if let (true, Some(before)) = (properties, &node.properties) {
            start = start.min(before.start);
        }
        let blanks = self.text[..start].trim_end_matches([' ', '\t']).len();
        let starts_line = self.text[..blanks].ends_with(['\n', '\r']);
        let start = if starts_line { start } else { blanks };
        if start < end {
            self.edits.push((start..end, String::new()));
        }
        self.cut_content(node);
    }

    /// The bytes of a value that are to go; of a block scalar the indicator, for its comment stays.
    fn head(&self, node: &Node) -> Range<usize> {
        if !is_block_scalar(node) {
            return node.span.clone();
        }
        let header = &self.text[node.span.clone()];
        let indicator = header.len() - header.trim_start_matches(['|', '>']).trim_start_matches(is_header).len();
        node.span.start..node.span.start + indicator
    }

    /// Takes a block scalar's lines away.
    fn cut_content(&mut self, node: &Node) {
        if is_block_scalar(node) {
            let content = self.line_end(node.span.start)..self.content_end(node);
            if !content.is_empty() {
                self.edits.push((content, String::new()));
            }
        }
    }

    /// Writes a block where `authorization` is null.
    fn fill(
        &mut self,
        section: &'d Node,
        null: &'d Node,
        wanted: &[(&'static str, Wanted<'w>)],
    ) -> Result<(), Refused> {
        if null.tag.is_some() {
            return Err(refused(null, Reason::Tag));
        }
        if let Kind::Alias(_) = null.kind {
            return Err(refused(null, Reason::Alias("`authorization`")));
        }
        self.touch(null)?;
        self.rewritten.push(null);
        let block = self.rendered_block(section, wanted);
        if is_flow(section) {
            let block = block.in_flow();
            if null.span.is_empty() {
                self.insert(section, null, &block);
            } else {
                self.replace(null, false, block);
            }
            return Ok(());
        }
        let at = self.line_end(null.span.end);
        let line_break = self.line_break(at);
        let has_colon = self.text[..null.span.start].ends_with(':') || null.properties.is_some();
        if !null.span.is_empty() {
            self.remove(null, false);
        } else if !has_colon {
            self.edits.push((at..at, format!("{line_break}{}:", indent(section))));
        }
        let lines = block.lines().iter().fold(String::new(), |lines, line| lines + line_break + line);
        self.edits.push((at..at, lines));
        Ok(())
    }

    fn rendered_block(&self, section: &Node, wanted: &[(&'static str, Wanted<'_>)]) -> Rendered {
        let root = self.document.root.column;
        // As deep in the section as the section is in the file.
        let step = if is_flow(section) { 0 } else { section.column.saturating_sub(root).max(1) };
        let values = wanted.iter().map(|(key, value)| (*key, written(value, Style::Plain))).collect();
        Rendered::Block { column: section.column - 1 + step, values }
    }

    /// Adds entries after a mapping's last one.
    fn add(&mut self, mapping: &Node, entries: &[(&'static str, Rendered)]) {
        if entries.is_empty() {
            return;
        }
        let Kind::Mapping { entries: present, flow } = &mapping.kind else {
            return;
        };
        if *flow {
            let rendered: Vec<_> = entries.iter().map(|(key, value)| format!("{key}: {}", value.in_flow())).collect();
            let rendered = rendered.join(", ");
            let Some((_, last)) = present.last() else {
                let at = mapping.span.start + 1;
                return self.edits.push((at..at, rendered));
            };
            let at = last.span.end;
            // `a:,` is a key to some readers, `a: ,` to none.
            let bare = self.text[..at].ends_with(':') && !self.is_rewritten(last);
            self.edits.push((at..at, format!("{}, {rendered}", if bare { " " } else { "" })));
            return;
        }
        let indentation = indent(mapping);
        let mut lines = Vec::new();
        for (key, value) in entries {
            match value {
                Rendered::Value(value) => lines.push(format!("{indentation}{key}: {value}")),
                Rendered::Block { .. } => {
                    lines.push(format!("{indentation}{key}:"));
                    lines.extend(value.lines());
                }
            }
        }
        let (at, opens_line) = self.end_of_entries(mapping);
        let line_break = self.line_break(at);
        let join = |line: String| if opens_line { line + line_break } else { line_break.to_owned() + &line };
        self.edits.push((at..at, lines.into_iter().map(join).collect()));
    }

    /// Where entries are added to a block mapping, and whether a line starts there.
    fn end_of_entries(&self, mapping: &Node) -> (usize, bool) {
        let leaf = last_leaf(mapping);
        if !is_block_scalar(leaf) {
            return (self.line_end(leaf.span.end), false);
        }
        let keeps = self.text[self.head(leaf)].contains('+') && !self.is_rewritten(leaf);
        let after = leaf.span.end;
        if keeps && self.text[..after].ends_with(['\n', '\r']) {
            // The blank lines below it are part of its value.
            return (after, true);
        }
        (self.content_end(leaf), false)
    }

    fn is_rewritten(&self, node: &Node) -> bool {
        self.rewritten.iter().any(|rewritten| std::ptr::eq(*rewritten, node))
    }

    /// The end of the last line of a block scalar that is not blank; of its header where all are.
    fn content_end(&self, node: &Node) -> usize {
        let written = self.text[node.span.clone()].trim_end_matches([' ', '\t', '\n', '\r']).len();
        self.line_end(node.span.start + written)
    }

    fn line_end(&self, at: usize) -> usize {
        self.text[at..].find(['\n', '\r']).map_or(self.text.len(), |length| at + length)
    }

    /// The line break at an offset, or the one before it where the file ends without one.
    fn line_break(&self, at: usize) -> &'static str {
        let kind = |text: &str| match text.as_bytes() {
            [b'\r', b'\n', ..] => Some("\r\n"),
            [b'\r', ..] => Some("\r"),
            [b'\n', ..] => Some("\n"),
            _ => None,
        };
        let before = || {
            let last = self.text[..at].rfind(['\n', '\r'])?;
            kind(if self.text[..last].ends_with('\r') { "\r\n" } else { &self.text[last..] })
        };
        kind(&self.text[at..]).or_else(before).unwrap_or("\n")
    }
}

/// An entry's value as text.
enum Rendered {
    Value(String),
    Block { column: usize, values: Vec<(&'static str, String)> },
}

impl Rendered {
    fn in_flow(&self) -> String {
        match self {
            Self::Value(value) => value.clone(),
            Self::Block { values, .. } => {
                let entries: Vec<_> = values.iter().map(|(key, value)| format!("{key}: {value}")).collect();
                format!("{{{}}}", entries.join(", "))
            }
        }
    }

    fn lines(&self) -> Vec<String> {
        match self {
            Self::Value(_) => Vec::new(),
            Self::Block { column, values } => {
                values.iter().map(|(key, value)| format!("{}{key}: {value}", " ".repeat(*column))).collect()
            }
        }
    }
}

fn last_leaf(node: &Node) -> &Node {
    let mut leaf = node;
    loop {
        leaf = match &leaf.kind {
            Kind::Mapping { entries, flow: false } => match entries.last() {
                Some((_, value)) => value,
                None => return leaf,
            },
            Kind::Sequence { items, flow: false } => match items.last() {
                Some(item) => item,
                None => return leaf,
            },
            _ => return leaf,
        };
    }
}

fn indent(mapping: &Node) -> String {
    " ".repeat(mapping.column - 1)
}

fn is_flow(node: &Node) -> bool {
    matches!(node.kind, Kind::Mapping { flow: true, .. })
}

fn is_block_scalar(node: &Node) -> bool {
    matches!(node.kind, Kind::Scalar { style: Style::Literal | Style::Folded, .. })
}

/// The marks after a block scalar's `|`: how deep it is, and what becomes of its last line breaks.
fn is_header(c: char) -> bool {
    matches!(c, '+' | '-' | '0'..='9')
}

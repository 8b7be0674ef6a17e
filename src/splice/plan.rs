//! The edits that make an old text say what is wanted, found on the tree and made on the text.
//!
//! Invariant: an edit replaces a value, removes one, or adds whole entries,
//! and never reaches beyond them; comments stay where they are. Nothing here
//! is trusted: `verify` reads the result again.

use std::ops::Range;

use super::entries::Rendered;
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
    pub(super) text: &'d str,
    pub(super) document: &'d Document<'d>,
    /// Old bytes and what comes in their place.
    pub(super) edits: Vec<(Range<usize>, String)>,
    writes: Vec<Write<'w>>,
    pub(super) rewritten: Vec<&'d Node<'d>>,
}

impl<'d, 'w> Plan<'d, 'w> {
    pub(super) fn new(text: &'d str, document: &'d Document<'d>) -> Self {
        Self { text, document, edits: Vec::new(), writes: Vec::new(), rewritten: Vec::new() }
    }

    /// Plans the block's values; gives back the whole block where the section has none to write into.
    pub(super) fn authorization(
        &mut self,
        section: &'d Node<'d>,
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
    pub(super) fn section(&mut self, section: &'d Node<'d>, edit: &Edit<'_>, added: Added<'w>) -> Result<(), Refused> {
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
        self.add(section, &entries)?;
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

    fn write_block(&mut self, block: &'d Node<'d>, wanted: &[(&'static str, Wanted<'w>)]) -> Result<(), Refused> {
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
        self.add(block, &missing)?;
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
    pub(super) fn touch(&self, node: &Node) -> Result<(), Refused> {
        match node.anchor() {
            Some(anchor) if self.document.is_referenced(anchor) => Err(refused(node, Reason::Shared)),
            _ => Ok(()),
        }
    }

    /// Writes one value over another.
    fn set(&mut self, mapping: &Node, node: &'d Node<'d>, wanted: &Wanted<'_>) -> Result<(), Refused> {
        if is_reference(self.document, node) {
            return Err(refused(node, Reason::Reference));
        }
        if !fits(node.tag(), wanted) {
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
    pub(super) fn replace(&mut self, node: &Node, properties: bool, mut value: String) {
        let Range { mut start, end } = self.head(node);
        if let (true, Some(before)) = (properties, node.properties()) {
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
    pub(super) fn insert(&mut self, mapping: &Node, null: &Node, value: &str) {
        let at = null.span.start;
        if self.text[..at].ends_with(':') || null.properties().is_some() {
            self.edits.push((at..at, format!(" {value}")));
        } else if is_flow(mapping) {
            self.edits.push((at..at, format!(": {value}")));
        } else {
            let at = self.line_end(at);
            self.edits.push((at..at, format!("{}{}: {value}", self.line_break(at), indent(mapping))));
        }
    }

    /// Takes a value away, from its colon on where both are on one line.
    pub(super) fn remove(&mut self, node: &Node, properties: bool) {
        let Range { mut start, end } = self.head(node);
        if let (true, Some(before)) = (properties, node.properties()) {
            start = start.min(before.start);
        }
        let blanks = self.text[..start].trim_end_matches([' ', '\t']).len();
        let starts_line = self.text[..blanks].ends_with(['\n', '\r']);
        let start = if starts_line { start } else { blanks };
        self.edits.push((start..end, String::new()));
        self.cut_content(node);
    }

    /// The bytes of a value that are to go; of a block scalar the indicator, for its comment stays.
    pub(super) fn head(&self, node: &Node) -> Range<usize> {
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

    pub(super) fn is_rewritten(&self, node: &Node) -> bool {
        self.rewritten.iter().any(|rewritten| std::ptr::eq(*rewritten, node))
    }

    /// The end of the last line of a block scalar that is not blank; of its header where all are.
    pub(super) fn content_end(&self, node: &Node) -> usize {
        let written = self.text[node.span.clone()].trim_end_matches([' ', '\t', '\n', '\r']).len();
        self.line_end(node.span.start + written)
    }

    pub(super) fn line_end(&self, at: usize) -> usize {
        self.text[at..].find(['\n', '\r']).map_or(self.text.len(), |length| at + length)
    }

    /// The line break at an offset, or the one before it where the file ends without one.
    pub(super) fn line_break(&self, at: usize) -> &'static str {
        let kind = |text: &str| match text.as_bytes() {
            [b'\r', b'\n', ..] => Some("\r\n"),
            [b'\r', ..] => Some("\r"),
            [b'\n', ..] => Some("\n"),
            _ => None,
        };
        let before = || {
            let last = self.text[..at].rfind(['\n', '\r'])?;
            let pair = self.text[..last].ends_with('\r') && self.text[last..].starts_with('\n');
            kind(&self.text[last - usize::from(pair)..])
        };
        kind(&self.text[at..]).or_else(before).unwrap_or("\n")
    }
}

pub(super) fn indent(mapping: &Node) -> String {
    " ".repeat(mapping.column - 1)
}

pub(super) fn is_flow(node: &Node) -> bool {
    matches!(node.kind, Kind::Mapping { flow: true, .. })
}

pub(super) fn is_block_scalar(node: &Node) -> bool {
    matches!(node.kind, Kind::Scalar { style: Style::Literal | Style::Folded, .. })
}

/// The marks after a block scalar's `|`: how deep it is, and what becomes of its last line breaks.
fn is_header(c: char) -> bool {
    matches!(c, '+' | '-' | '0'..='9')
}

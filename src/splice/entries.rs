//! Whole entries: the keys that a block lacks, and the block that a section lacks.
//!
//! Invariant: what is added comes after everything that belongs to the
//! mapping's last entry and before everything that does not, in the mapping's
//! own indentation and with the line break of the line before it.

use super::plan::{Plan, indent, is_block_scalar, is_flow};
use super::scalar::written;
use super::{Reason, Refused, Wanted, refused};
use crate::yaml::{Kind, Node, Style};

/// An entry's value as text.
pub(super) enum Rendered {
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

impl<'d, 'w> Plan<'d, 'w> {
    /// Adds entries after a mapping's last one.
    pub(super) fn add(&mut self, mapping: &Node, entries: &[(&'static str, Rendered)]) -> Result<(), Refused> {
        let Kind::Mapping { entries: present, flow } = &mapping.kind else {
            return Ok(());
        };
        if entries.is_empty() {
            return Ok(());
        }
        if *flow {
            let rendered: Vec<_> = entries.iter().map(|(key, value)| format!("{key}: {}", value.in_flow())).collect();
            let rendered = rendered.join(", ");
            let Some((_, last)) = present.last() else {
                let at = mapping.span.start + 1;
                self.edits.push((at..at, rendered));
                return Ok(());
            };
            let at = last.span.end;
            // `a:,` is a key to some readers, `a: ,` to none.
            let bare = self.text[..at].ends_with(':') && !self.is_rewritten(last);
            self.edits.push((at..at, format!("{}, {rendered}", if bare { " " } else { "" })));
            return Ok(());
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
        let (at, opens_line) = self.end_of_entries(mapping)?;
        let line_break = self.line_break(at);
        let join = |line: String| if opens_line { line + line_break } else { line_break.to_owned() + &line };
        self.edits.push((at..at, lines.into_iter().map(join).collect()));
        Ok(())
    }

    /// Where entries are added to a block mapping, and whether a line starts there.
    fn end_of_entries(&self, mapping: &Node) -> Result<(usize, bool), Refused> {
        let (leaf, bare) = last_leaf(mapping);
        if bare {
            // What follows a bare `?` could become its key.
            return Err(refused(mapping, Reason::Disputed));
        }
        if !is_block_scalar(leaf) {
            return Ok((self.line_end(leaf.span.end), false));
        }
        if self.is_rewritten(leaf) {
            return Ok((self.content_end(leaf), false));
        }
        let after = leaf.span.end;
        if !self.text[..after].ends_with(['\n', '\r']) {
            // A line break after it would become a part of its value.
            return Err(refused(leaf, Reason::Unfinished));
        }
        // The blank lines below it are a part of its value where it keeps them, or where they hold blanks.
        let content_end = self.content_end(leaf);
        let keeps = self.text[self.head(leaf)].contains('+') || self.text[content_end..after].contains([' ', '\t']);
        Ok(if keeps { (after, true) } else { (content_end, false) })
    }

    /// Writes a block where `authorization` is null.
    pub(super) fn fill(
        &mut self,
        section: &'d Node<'d>,
        null: &'d Node<'d>,
        wanted: &[(&'static str, Wanted<'w>)],
    ) -> Result<(), Refused> {
        if null.tag().is_some() {
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
        let has_colon = self.text[..null.span.start].ends_with(':') || null.properties().is_some();
        if !null.span.is_empty() {
            self.remove(null, false);
        } else if !has_colon {
            self.edits.push((at..at, format!("{line_break}{}:", indent(section))));
        }
        let lines = block.lines().iter().fold(String::new(), |lines, line| lines + line_break + line);
        self.edits.push((at..at, lines));
        Ok(())
    }

    pub(super) fn rendered_block(&self, section: &Node, wanted: &[(&'static str, Wanted<'_>)]) -> Rendered {
        let root = self.document.root.column;
        // As deep in the section as the section is in the file.
        let step = if is_flow(section) { 0 } else { section.column.saturating_sub(root).max(1) };
        let values = wanted.iter().map(|(key, value)| (*key, written(value, Style::Plain))).collect();
        Rendered::Block { column: section.column - 1 + step, values }
    }
}

/// The node that is written last in a mapping, and whether the way there goes by a key without text.
fn last_leaf<'d>(node: &'d Node<'d>) -> (&'d Node<'d>, bool) {
    let (mut leaf, mut bare) = (node, false);
    loop {
        leaf = match &leaf.kind {
            Kind::Mapping { entries, flow: false } => match entries.last() {
                Some((key, value)) => {
                    bare |= key.span.is_empty();
                    // Without a colon, nothing comes after the key.
                    if value.span.start > key.span.end { value } else { key }
                }
                None => return (leaf, bare),
            },
            Kind::Sequence { items, flow: false } => match items.last() {
                Some(item) => item,
                None => return (leaf, bare),
            },
            _ => return (leaf, bare),
        };
    }
}

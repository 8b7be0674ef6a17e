//! The parser's events to the tree.
//!
//! Invariant: the parser's spans are repaired here and nowhere else, so that
//! the tree's readers need not know where it reports a null or a block scalar.
//! No recursion, and nothing of the file's text in an error.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

use granit_parser::{ErrorKind, Event, ScalarStyle, ScanError, Span, StructureStyle, Tag};

use super::{BOM, Document, Kind, Node, Place, Problem, Properties, Style};

/// Collections in collections: as deep as `serde_yaml` reads. A config is five deep.
pub(super) const DEPTH_MAX: usize = 128;

/// Makes the tree out of the parser's events. No recursion: the depth is the length of `open`.
pub(super) struct Builder<'t> {
    text: &'t str,
    /// What the parser does not see: the byte order mark.
    shift: usize,
    /// Hardly any config has one.
    has_tabs: bool,
    root: Option<Node<'t>>,
    open: Vec<Open<'t>>,
    collections: Vec<Place>,
    anchors: HashMap<usize, Place>,
    referenced: HashSet<usize>,
    /// Where the last token ended: the next one is looked for from here.
    last_end: usize,
    documents: usize,
}

/// A collection whose end has not come yet.
struct Open<'t> {
    node: Node<'t>,
    id: usize,
    /// The key whose value comes next.
    key: Option<Node<'t>>,
}

impl<'t> Open<'t> {
    fn push(&mut self, node: Node<'t>) {
        match &mut self.node.kind {
            Kind::Sequence { items, .. } => items.push(node),
            Kind::Mapping { entries, .. } => match self.key.take() {
                Some(key) => entries.push((key, node)),
                None => self.key = Some(node),
            },
            Kind::Scalar { .. } | Kind::Alias(_) => {}
        }
    }

    fn last_mut(&mut self) -> Option<&mut Node<'t>> {
        self.key.as_mut().or(match &mut self.node.kind {
            Kind::Sequence { items, .. } => items.last_mut(),
            Kind::Mapping { entries, .. } => entries.last_mut().map(|(_, value)| value),
            Kind::Scalar { .. } | Kind::Alias(_) => None,
        })
    }

    /// How many nodes it has so far.
    fn len(&self) -> usize {
        match &self.node.kind {
            Kind::Sequence { items, .. } => items.len(),
            Kind::Mapping { entries, .. } => 2 * entries.len() + usize::from(self.key.is_some()),
            Kind::Scalar { .. } | Kind::Alias(_) => 0,
        }
    }
}

impl<'t> Builder<'t> {
    pub(super) fn new(text: &'t str, shift: usize) -> Self {
        Self {
            text,
            shift,
            has_tabs: text.contains('\t'),
            root: None,
            open: Vec::new(),
            collections: Vec::new(),
            anchors: HashMap::new(),
            referenced: HashSet::new(),
            last_end: shift,
            documents: 0,
        }
    }

    pub(super) fn take(&mut self, event: Event<'t>, span: Span) -> Result<(), Problem> {
        let range = self.range(span);
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(problem(span, "a second document starts here, and a config is one"));
                }
                self.last_end = self.last_end.max(range.start);
            }
            Event::Scalar(value, style, anchor, tag) => {
                let mut node = self.node(span, anchor, tag.as_deref());
                node.kind = Kind::Scalar { value, style: style_of(style) };
                match style {
                    ScalarStyle::Literal | ScalarStyle::Folded => self.place_block_scalar(&mut node),
                    ScalarStyle::Plain if range.is_empty() => self.place_null(&mut node),
                    _ => {}
                }
                self.check_indentation(&node)?;
                self.last_end = node.span.end;
                self.add(node, anchor);
            }
            Event::Alias(id) => {
                self.referenced.insert(id);
                let mut node = self.node(span, 0, None);
                node.kind = Kind::Alias(id);
                self.check_indentation(&node)?;
                self.last_end = range.end;
                self.add(node, 0);
            }
            Event::UnresolvedAlias(_) => return Err(problem(span, UNKNOWN_ANCHOR)),
            Event::SequenceStart(style, anchor, tag) => {
                let kind = Kind::Sequence { items: Vec::new(), flow: style == StructureStyle::Flow };
                self.begin(span, anchor, tag.as_deref(), kind)?;
            }
            Event::MappingStart(style, anchor, tag) => {
                let kind = Kind::Mapping { entries: Vec::new(), flow: style == StructureStyle::Flow };
                self.begin(span, anchor, tag.as_deref(), kind)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(range),
            Event::Anchor(id, _) => {
                if let Some(node) = self.node_mut(id) {
                    let properties = node.properties.get_or_insert_default();
                    let known = properties.span.take().unwrap_or(range.clone());
                    properties.span = Some(known.start.min(range.start)..known.end.max(range.end));
                }
            }
            // Comments are switched off, and are not data if another version sends them all the same.
            _ => {}
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Document<'t> {
        let end = self.text.len();
        let nothing = Node {
            span: end..end,
            line: 1,
            column: 1,
            properties: None,
            kind: Kind::Scalar { value: Cow::Borrowed(""), style: Style::Plain },
        };
        Document {
            root: self.root.unwrap_or(nothing),
            collections: self.collections,
            anchors: self.anchors,
            referenced: self.referenced,
        }
    }

    fn node(&self, span: Span, anchor: usize, tag: Option<&Tag>) -> Node<'t> {
        let tag_span = span.tag_span().map(|tag| self.range(tag));
        let properties = || Properties {
            span: tag_span.clone(),
            anchor: (anchor != 0).then_some(anchor),
            tag: tag.map(ToString::to_string),
        };
        let has_any = anchor != 0 || tag.is_some() || tag_span.is_some();
        Node {
            span: self.range(span),
            line: span.start.line(),
            column: span.start.col() + 1,
            properties: has_any.then(|| Box::new(properties())),
            kind: Kind::Alias(0),
        }
    }

    fn begin(&mut self, span: Span, anchor: usize, tag: Option<&Tag>, kind: Kind<'t>) -> Result<(), Problem> {
        if self.open.len() >= DEPTH_MAX {
            return Err(problem(span, "nested deeper than 128 levels"));
        }
        let mut node = self.node(span, anchor, tag);
        node.kind = kind;
        self.check_indentation(&node)?;
        self.last_end = self.last_end.max(node.span.end);
        let place = self.place();
        if anchor != 0 {
            self.anchors.insert(anchor, place);
        }
        self.collections.push(place);
        self.open.push(Open { node, id: self.collections.len() - 1, key: None });
        Ok(())
    }

    fn end(&mut self, range: Range<usize>) {
        let Some(Open { mut node, .. }) = self.open.pop() else {
            return;
        };
        // A block collection's end is reported at the next token, past comments that are not its own.
        let written_end = matches!(self.text.get(range.clone()), Some("}" | "]"));
        node.span.end = if written_end { range.end } else { self.last_end };
        self.last_end = node.span.end;
        self.push(node);
    }

    fn add(&mut self, node: Node<'t>, anchor: usize) {
        if anchor != 0 {
            self.anchors.insert(anchor, self.place());
        }
        self.push(node);
    }

    fn push(&mut self, node: Node<'t>) {
        match self.open.last_mut() {
            Some(open) => open.push(node),
            None => self.root = self.root.take().or(Some(node)),
        }
    }

    /// The place of the node that comes next.
    fn place(&self) -> Place {
        match self.open.last() {
            Some(open) => Place { collection: Some(open.id), position: open.len() },
            None => Place { collection: None, position: 0 },
        }
    }

    /// The node that has just come, to which the parser sends the anchor afterwards.
    fn node_mut(&mut self, anchor: usize) -> Option<&mut Node<'t>> {
        let last = match self.open.last_mut() {
            Some(open) if open.len() == 0 => Some(&mut open.node),
            Some(open) => open.last_mut(),
            None => self.root.as_mut(),
        };
        last.filter(|node| node.anchor() == Some(anchor))
    }

    fn in_flow(&self) -> bool {
        self.open.iter().any(|open| is_flow(&open.node))
    }

    fn range(&self, span: Span) -> Range<usize> {
        let range = span.byte_range().unwrap_or(0..0);
        let (start, end) = (range.start + self.shift, range.end + self.shift);
        start..end.max(start)
    }

    /// The parser reports a null at the colon before it, or at whatever comes next. Here it lies after the
    /// colon, after its own anchor or tag, or (without any of these) after its key.
    fn place_null(&mut self, node: &mut Node) {
        if let Kind::Scalar { value, .. } = &mut node.kind {
            *value = Cow::Borrowed("");
        }
        let at = node.span.start;
        let mapping = self.open.last().filter(|open| open.key.is_some());
        if let Some(mapping) = mapping
            && node.anchor().is_none()
            && node.tag().is_none()
        {
            let in_flow = self.in_flow();
            let key_end = self.last_end.min(at);
            // The next key may start with a colon as well, or be one without text in a mapping around this one.
            let rest = self.text[at..].strip_prefix(':');
            let ends = |rest: &str| {
                rest.is_empty()
                    || rest.starts_with([' ', '\t', '\n', '\r'])
                    || in_flow && rest.starts_with([',', ']', '}'])
            };
            let is_own =
                in_flow || node.column == mapping.node.column || !self.text[key_end..at].contains(['\n', '\r']);
            let after = if is_own && rest.is_some_and(ends) { at + 1 } else { key_end };
            node.span = after..after;
        }
    }

    /// The parser reports a block scalar at its content, and as far as the next line's indentation.
    fn place_block_scalar(&self, node: &mut Node) {
        let Range { start, end } = node.span.clone();
        let text = self.text;
        let indicator = header(text, self.last_end.min(start), start).unwrap_or(start);
        if indicator != start {
            let between = &text[indicator..start];
            node.line -= line_breaks(between).min(node.line - 1);
            let line_start = text[..indicator].rfind(['\n', '\r']).map_or(self.shift, |at| at + 1);
            node.column = text[line_start..indicator].chars().count() + 1;
        }
        let trimmed = text[..end].trim_end_matches(' ');
        // Blanks at the end of the file are the scalar's own.
        let is_indent = trimmed.ends_with(['\n', '\r']) && end < text.len();
        let end = if is_indent { trimmed.len().max(start) } else { end };
        node.span = indicator..end;
    }

    /// The parser counts a tab as one column of indentation; `ruamel.yaml` and `libyaml` refuse it.
    fn check_indentation(&self, node: &Node) -> Result<(), Problem> {
        if !self.has_tabs || self.in_flow() {
            return Ok(());
        }
        let before = &self.text[..node.span.start];
        let line = before.trim_end_matches([' ', '\t']);
        let indentation = &before[line.len()..];
        let starts_line = line.is_empty() || line.ends_with(['\n', '\r', BOM]);
        match indentation.find('\t') {
            Some(tab) if starts_line && !is_flow(node) && !node.span.is_empty() => {
                Err(Problem { line: node.line, column: tab + 1, what: TAB.to_owned() })
            }
            _ => Ok(()),
        }
    }

    pub(super) fn syntax(&self, error: &ScanError) -> Problem {
        let (line, column) = (error.marker().line(), error.marker().col() + 1);
        let tab = |lines: Range<usize>| {
            let after = self.text[self.shift..].split('\n').enumerate().skip(lines.start.max(1) - 1);
            after.take(lines.len()).find_map(|(index, text)| {
                let indentation = &text[..text.len() - text.trim_start_matches([' ', '\t']).len()];
                indentation.find('\t').map(|at| Problem { line: index + 1, column: at + 1, what: TAB.to_owned() })
            })
        };
        let at = |what: String| Problem { line, column, what };
        match error.kind() {
            ErrorKind::TabNotAllowed
            | ErrorKind::TabInBlockIndentation
            | ErrorKind::TabInIndentation
            | ErrorKind::TabAtBlockScalarStart
            | ErrorKind::TabInPlainScalar => {
                tab(line..line + 3).unwrap_or_else(|| at("a tab stands where YAML wants spaces".to_owned()))
            }
            kind => tab(line.saturating_sub(1)..line + 1).unwrap_or_else(|| at(sentence(kind))),
        }
    }
}

const TAB: &str = "a tab is used for indentation; YAML wants spaces";
const UNKNOWN_ANCHOR: &str = "an alias names an anchor that is not defined before it";

/// The parser's own words where they hold none of the file's, and ours where they could.
fn sentence(kind: &ErrorKind) -> String {
    match kind {
        ErrorKind::UnexpectedCharacter { .. } => "a value that starts with this character needs quotes".to_owned(),
        ErrorKind::UnknownAnchor => UNKNOWN_ANCHOR.to_owned(),
        ErrorKind::RecursionLimitExceeded => "nested deeper than YAML readers follow".to_owned(),
        ErrorKind::SimpleKeyExpected => "a key without its `:`".to_owned(),
        ErrorKind::MappingValueNotAllowed => "a `: ` inside a value that has no quotes".to_owned(),
        ErrorKind::UnclosedQuotedScalar => "a quote that is opened here is never closed".to_owned(),
        ErrorKind::InvalidIndentation => "this line is indented unlike the lines it belongs to".to_owned(),
        ErrorKind::InputIo { .. } | ErrorKind::InputDecoding { .. } | ErrorKind::Custom(_) => "not YAML".to_owned(),
        kind => kind.to_string(),
    }
}

fn problem(span: Span, what: &str) -> Problem {
    Problem { line: span.start.line(), column: span.start.col() + 1, what: what.to_owned() }
}

fn is_flow(node: &Node) -> bool {
    matches!(node.kind, Kind::Mapping { flow: true, .. } | Kind::Sequence { flow: true, .. })
}

fn style_of(style: ScalarStyle) -> Style {
    match style {
        ScalarStyle::Plain => Style::Plain,
        ScalarStyle::SingleQuoted => Style::SingleQuoted,
        ScalarStyle::DoubleQuoted => Style::DoubleQuoted,
        ScalarStyle::Literal => Style::Literal,
        ScalarStyle::Folded => Style::Folded,
    }
}

fn line_breaks(text: &str) -> usize {
    let bytes = text.as_bytes();
    let lone = |at: usize| bytes[at] == b'\r' && bytes.get(at + 1) != Some(&b'\n');
    (0..bytes.len()).filter(|&at| bytes[at] == b'\n' || lone(at)).count()
}

/// Where a block scalar's `|` or `>` stands, between the token before it and its content: past
/// blanks, comments, indicators, anchor and tag.
fn header(text: &str, from: usize, content: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = from;
    loop {
        match *bytes.get(at)? {
            b'|' | b'>' => return Some(at),
            b'#' => at += text[at..].find(['\n', '\r'])?,
            b'&' | b'!' => at += text[at..].find([' ', '\t', '\n', '\r'])?,
            _ if at >= content => return None,
            _ => at += 1,
        }
    }
}

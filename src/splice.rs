//! Text and grant in, new text out: the values of one `authorization` block, and no other byte.
//!
//! Invariant: a text that comes out of [`splice`] was read by a second parser
//! (`serde_yaml`) and says what the old text said, the block apart; every byte
//! outside the replaced ranges is the old one. What cannot be edited that way
//! is refused with a place and a reason, and neither holds a value of the
//! file. This file never reads or writes a file, and never reformats.

use std::ops::Range;

use crate::provider::{Key, Provider};
use crate::token::Grant;
use crate::yaml::{Document, Kind, Node, Problem, STR_TAG};
use plan::Plan;

mod entries;
mod plan;
mod scalar;
mod verify;

/// What to change.
pub struct Edit<'a> {
    /// Whose section.
    pub provider: &'static Provider,
    /// What becomes of its `authorization` block.
    pub change: Change<'a>,
    /// Whether the key with something to exchange once (`pin`, `localhost_url`) becomes null.
    pub clear_once_key: bool,
}

/// What becomes of the block.
pub enum Change<'a> {
    /// The provider's keys get the grant's values. A field that the grant
    /// lacks keeps what the file has.
    Write(&'a Grant),
    /// The provider's keys become null where they are present: a logout.
    Empty,
}

/// A text with the edit in it.
pub struct Spliced {
    /// The new text; the old one where nothing differed.
    pub text: String,
    /// The bytes that were replaced, in the old text and in the new one, in
    /// order. Everything between them is the same in both.
    pub replaced: Vec<(Range<usize>, Range<usize>)>,
}

/// Why a text was left alone, and what to look at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {reason}")]
pub struct Refused {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// Why.
    pub reason: Reason,
}

/// Why a text was left alone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The text is not one YAML document.
    #[error("{0}")]
    NotYaml(String),
    /// The file has no section for the provider.
    #[error("there is no `{0}` section")]
    NoSection(&'static str),
    /// Something on the way to the values is not a mapping.
    #[error("{0} is not a mapping of keys to values")]
    NotAMapping(&'static str),
    /// A key stands twice in one mapping; readers disagree about which one counts.
    #[error("the same key stands in line {first_line} already")]
    Duplicate {
        /// The earlier one's line.
        first_line: usize,
    },
    /// The section or the block is an alias: its values belong to another place of the file.
    #[error("{0} is an alias, and writing there would change the place that it names")]
    Alias(&'static str),
    /// The block comes through a merge key, and the grant does not say all of it.
    #[error("the values come through a merge key, and writing there would change others")]
    Inherited,
    /// An alias elsewhere names what would change.
    #[error("an alias elsewhere repeats this, and would change with it")]
    Shared,
    /// The value is a secret by reference, which Kometa fills in from its environment.
    #[error("the value is a `<<reference>>`, and nothing can be written through it")]
    Reference,
    /// The value is a list or a mapping over several lines.
    #[error("the value is a block of its own, where one value was expected")]
    Block,
    /// The value has a tag that makes something else of it.
    #[error("the value has a tag that does not fit what belongs here")]
    Tag,
    /// A block scalar ends the file without a line break: nothing can follow it without changing it.
    #[error("this text ends the file without a line break; add one")]
    Unfinished,
    /// The two parsers read the text differently as it is, from here on.
    #[error("YAML readers do not agree about what this says, so no edit can be checked")]
    Disputed,
    /// The second parser cannot read the text as it is.
    #[error("a second YAML reader does not accept this text, so no edit can be checked")]
    Unreadable,
    /// The second parser has no room for a number of the text.
    #[error("this number is larger than a second YAML reader takes, so no edit can be checked; put it in quotes")]
    LargeNumber,
    /// The edit came out wrong and was thrown away.
    #[error("the edit failed its check ({0}) and was thrown away")]
    CheckFailed(&'static str),
}

/// Makes the edit, checks it, and gives it back.
///
/// Values that already say what they should are not touched, whatever they
/// look like; the others keep their quotes where the new value allows it.
/// Missing keys are added after the block's last one, in its own indentation.
/// A once-key that is a `<<reference>>` stays: it is not ours to cut, and the
/// caller must remember by itself what it has exchanged.
///
/// # Errors
/// Where the edit cannot be made or does not pass its check. The text is then to be left as it is.
pub fn splice(text: &str, edit: &Edit<'_>) -> Result<Spliced, Refused> {
    splice_parsed(text, &Document::parse(text).map_err(not_yaml)?, edit)
}

/// The same for a text that was parsed already.
///
/// # Errors
/// As above.
pub fn splice_parsed(text: &str, document: &Document, edit: &Edit<'_>) -> Result<Spliced, Refused> {
    let section = section(document, edit.provider)?;
    let wanted = wanted(edit);
    let mut plan = Plan::new(text, document);
    let added = plan.authorization(section, edit, &wanted)?;
    plan.section(section, edit, added)?;
    if plan.is_empty() {
        return Ok(Spliced { text: text.to_owned(), replaced: Vec::new() });
    }
    let failed = |reason| refused(section, reason);
    let (spliced, writes) = plan.apply().map_err(failed)?;
    verify::verify(text, document, &spliced, edit, &writes, failed)?;
    Ok(spliced)
}

/// What a key of the block should say.
#[derive(Clone, PartialEq, Eq)]
enum Wanted<'a> {
    Text(&'a str),
    Number(i64),
    Null,
}

/// The keys that the edit has a say in, in Kometa's order.
fn wanted<'a>(edit: &Edit<'a>) -> Vec<(&'static str, Wanted<'a>)> {
    let value = |key: Key| match edit.change {
        Change::Empty => Some(Wanted::Null),
        Change::Write(grant) => match key {
            Key::AccessToken => Some(Wanted::Text(grant.access_token.expose())),
            Key::TokenType => grant.token_type.as_deref().map(Wanted::Text),
            Key::ExpiresIn => grant.expires_in.map(Wanted::Number),
            Key::RefreshToken => grant.refresh_token.as_ref().map(|token| Wanted::Text(token.expose())),
            Key::Scope => grant.scope.as_deref().map(Wanted::Text),
            Key::CreatedAt => grant.created_at.map(|at| Wanted::Number(at.0)),
        },
    };
    edit.provider.keys.iter().filter_map(|key| Some((key.name(), value(*key)?))).collect()
}

/// The provider's section, where it can be edited: a mapping that is written in its own place.
fn section<'d>(document: &'d Document<'d>, provider: &'static Provider) -> Result<&'d Node<'d>, Refused> {
    let root = &document.root;
    if document.is_null(root) {
        return Err(refused(root, Reason::NoSection(provider.name)));
    }
    check_mapping(document, root, "the file")?;
    let Some((_, section)) = document.own_entry(root, provider.name) else {
        return Err(refused(root, Reason::NoSection(provider.name)));
    };
    check_mapping(document, section, "the section")?;
    Ok(section)
}

/// That a node is a mapping of its own, with keys that can be told apart.
fn check_mapping(document: &Document, node: &Node, name: &'static str) -> Result<(), Refused> {
    match &node.kind {
        Kind::Alias(_) => return Err(refused(node, Reason::Alias(name))),
        Kind::Mapping { entries, .. } if matches!(node.tag(), None | Some(MAP_TAG)) => {
            // A tag of one's own, with one `!`, makes another key of it; what the others make of it, readers disagree.
            let is_odd = |tag: &str| tag != STR_TAG && !tag.starts_with('!');
            if let Some((key, _)) = entries.iter().find(|(key, _)| document.resolve(key).tag().is_some_and(is_odd)) {
                return Err(refused(key, Reason::Disputed));
            }
        }
        Kind::Mapping { .. } => return Err(refused(node, Reason::Tag)),
        _ if is_reference(document, node) => return Err(refused(node, Reason::Reference)),
        _ => return Err(refused(node, Reason::NotAMapping(name))),
    }
    match document.duplicate(node) {
        Some((first, second)) => Err(refused(second, Reason::Duplicate { first_line: first.line })),
        None => Ok(()),
    }
}

const MAP_TAG: &str = "tag:yaml.org,2002:map";

/// Whether Kometa would fill the value in from its environment: `<<name>>`, alone or inside a text.
fn is_reference(document: &Document, node: &Node) -> bool {
    document
        .text(node)
        .and_then(|text| text.split_once("<<"))
        .is_some_and(|(_, rest)| rest.find(">>").is_some_and(|end| end > 0))
}

fn refused(node: &Node, reason: Reason) -> Refused {
    Refused { line: node.line, column: node.column, reason }
}

fn not_yaml(problem: Problem) -> Refused {
    Refused { line: problem.line, column: problem.column, reason: Reason::NotYaml(problem.what) }
}

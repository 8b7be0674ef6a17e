//! Keeps the `authorization` blocks of Kometa's `config.yml` valid.
//!
//! # One token's walk
//!
//! A pulse of [`watch`] or a deadline of [`clock`] wakes the loop in
//! [`daemon`]. It takes a snapshot of the [`file`](mod@file), which [`settings`] turns
//! into accounts; [`decision`] looks at an account and at its [`journal`] and
//! says what to do, and why. Where that is a refresh, [`store`] first proves
//! that the answer can be kept, [`refresh`] makes the one exchange, the
//! journal gets the grant before anything else, and [`splice`] puts it into
//! the text of that moment, which replaces the file. [`event`] has the
//! sentence for it, [`announce`] tells it, and the loop goes back to sleep.

// edges that start and end it
pub mod command;
pub mod options;
pub mod daemon;
pub mod world;
pub mod terminal;
// read
pub mod watch;
pub mod file;
pub mod yaml;
pub mod settings;
// nouns
pub mod provider;
pub mod token;
// decide
pub mod decision;
pub mod kometa;
pub mod backoff;
// refresh
pub mod refresh;
// store
pub mod splice;
pub mod merge;
pub mod journal;
pub mod store;
pub mod disk;
// tell
pub mod event;
pub mod announce;
pub mod health;
pub mod check;
// time and signals
pub mod clock;
pub mod signals;

#[cfg(feature = "sandbox")]
pub mod sandbox;

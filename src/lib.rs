//! Keeps the `authorization` blocks of Kometa's `config.yml` valid.

pub mod provider;
#[cfg(feature = "sandbox")]
pub mod sandbox;
pub mod splice;
pub mod token;
pub mod yaml;

//! What the parts cost, timed one by one. Ratios within one run are what counts: a machine is never idle.
//!
//! `cargo bench --bench parts`, or with a name behind `--` only what has that name. The figures are in
//! `DESIGN.md`, and those of the whole program in `docs/performance.md`.
#![allow(clippy::disallowed_methods, reason = "reads its own files, none of the user's")]

mod commit;
mod decide;
mod settings;
mod splice;

/// A usual config, a large one, and one far larger than any.
const SIZES: [usize; 3] = [8 << 10, 100 << 10, 1 << 20];

fn main() {
    divan::main();
}

/// What a provider answers.
fn grant(access: &str, refresh: &str) -> String {
    format!(
        r#"{{"access_token":"{access}","token_type":"bearer","expires_in":604800,"refresh_token":"{refresh}","scope":"public","created_at":1763820000}}"#
    )
}

/// A config as people write them: comments, libraries, and the section in the middle.
fn config(bytes: usize) -> String {
    let library = |number: usize| {
        format!(
            "  Library {number}:          # shelf {number}\n    collection_files:\n      - default: basic   # the usual\n      \
             - file: config/collections-{number}.yml\n    # overlays come later\n    operations:\n      \
             mass_genre_update: tmdb\n      delete_collections:\n        managed: true\n    schedule: \"weekly(sunday)\"\n"
        )
    };
    let mut numbers = 0..;
    let mut fill = |from: usize| {
        let mut text = String::new();
        while text.len() < from {
            text += &numbers.next().map(library).unwrap_or_default();
        }
        text
    };
    let section = "trakt:\n  client_id: 0123abcd      # from the application's page\n  client_secret: 4567ef\n  pin: 123456\n  \
                   authorization:\n    # filled in by hand once\n    access_token: old\n    token_type: bearer\n    \
                   expires_in: 1\n    refresh_token: old\n    scope:\n    created_at: 1\n";
    format!("# my config\nlibraries:\n{}{section}more:\n{}", fill(bytes / 2), fill(bytes / 2 - section.len()))
}

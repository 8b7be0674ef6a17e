//! Writes what is made from the description of the command line: the man page,
//! the completions, and the tables in the README.
//!
//! `cargo run --example generate` puts the tables into the README, and
//! `cargo run --example generate -- FOLDER` writes the files for a package.
//! Without the feature `sandbox`, because a released binary has none.
#![allow(clippy::disallowed_methods, reason = "writes the project's own files")]
#![allow(dead_code, reason = "tests/docs.rs takes the tables from here")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use clap::{Arg, Command, CommandFactory as _};
use clap_complete::Shell;
use kometa_authd::options::Cli;

fn main() -> io::Result<()> {
    if let Some(folder) = std::env::args_os().nth(1) {
        return package_files(&PathBuf::from(folder));
    }
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = fs::read_to_string(&readme)?;
    fs::write(&readme, with_tables(&text).map_err(io::Error::other)?)
}

/// The man page and the completions.
fn package_files(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    clap_mangen::generate_to(Cli::command(), folder)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut Cli::command(), "kometa-authd", folder)?;
    }
    Ok(())
}

/// The README with its tables as the code has them.
///
/// # Errors
/// The README has no place for a table.
pub fn with_tables(readme: &str) -> Result<String, String> {
    let mut text = readme.to_owned();
    for (name, table) in [("commands", commands()), ("settings", settings())] {
        let (open, close) = (format!("<!-- {name}: made by examples/generate.rs -->\n"), format!("<!-- /{name} -->"));
        let place = text.find(&open).map(|at| at + open.len()).zip(text.find(&close));
        let (start, end) = place.filter(|(start, end)| start <= end).ok_or_else(|| format!("no place for {name}"))?;
        text.replace_range(start..end, &table);
    }
    Ok(text)
}

/// The commands of a released binary.
fn released() -> Vec<Command> {
    let command = Cli::command();
    let all = command.get_subcommands().filter(|command| !["sandbox", "demo"].contains(&command.get_name()));
    all.cloned().collect()
}

/// One row a command, and one for each option that only it has.
fn commands() -> String {
    let mut table = "| Command | What it does |\n|---|---|\n".to_owned();
    let common: Vec<String> = options_of(&run()).iter().map(|arg| arg.get_id().to_string()).collect();
    for command in released() {
        let name = command.get_name();
        let _ = writeln!(table, "| `{name}` | {} |", help(command.get_about()));
        for arg in options_of(&command) {
            if !common.contains(&arg.get_id().to_string()) {
                let _ = writeln!(table, "| `{name} {}` | {} |", flag(&arg), help(arg.get_help()));
            }
        }
    }
    table
}

/// One row an option that every command takes.
fn settings() -> String {
    let mut table = "| Option | Variable | Without it | What it is |\n|---|---|---|---|\n".to_owned();
    for arg in options_of(&run()) {
        let variable = arg.get_env().map(|name| format!("`{}`", name.to_string_lossy())).unwrap_or_default();
        let default = arg.get_default_values().first().map(|value| format!("`{}`", value.to_string_lossy()));
        let default = default.unwrap_or_default();
        let _ = writeln!(table, "| `{}` | {variable} | {default} | {} |", flag(&arg), help(arg.get_help()));
    }
    table
}

fn run() -> Command {
    released().into_iter().find(|command| command.get_name() == "run").unwrap_or_default()
}

fn options_of(command: &Command) -> Vec<Arg> {
    command.get_arguments().filter(|arg| arg.get_id() != "help").cloned().collect()
}

/// `--config FILE`, `--force`, or `ACCOUNT`.
fn flag(arg: &Arg) -> String {
    let value = arg.get_value_names().and_then(|names| names.first()).filter(|_| arg.get_action().takes_values());
    match (arg.get_long(), value) {
        (Some(long), Some(value)) => format!("--{long} {value}"),
        (Some(long), None) => format!("--{long}"),
        (None, value) => value.map(ToString::to_string).unwrap_or_default(),
    }
}

fn help(text: Option<&clap::builder::StyledStr>) -> String {
    text.map(|text| text.to_string().replace('|', "\\|")).unwrap_or_default()
}

//! The command line of kometa-authd.

use std::process::ExitCode;

use clap::Parser as _;
use kometa_authd::options::{Cli, EXIT_USAGE};

fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => kometa_authd::command::run(cli.command),
        Err(error) => {
            // Help and version are errors to clap, too.
            let _ = error.print();
            ExitCode::from(if error.use_stderr() { EXIT_USAGE } else { 0 })
        }
    }
}

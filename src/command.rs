//! The commands: each wires the edges it needs, and ends with an exit status.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use crate::daemon::facts::look;
use crate::daemon::{Daemon, Setup};
use crate::decision::Urgency;
use crate::disk::RealDisk;
use crate::health::{Report, State};
use crate::options::{Command, EXIT_USAGE, Options, Switch, pasted};
use crate::refresh::Https;
use crate::settings::References;
use crate::terminal::Terminal;
use crate::world::Real;
use crate::{announce, check, clock};

/// Runs a command to its end.
#[must_use]
pub fn run(command: Command) -> ExitCode {
    let variable = |name: &str| std::env::var(name).ok();
    let complete = |options: Options| {
        let options = options.complete(variable, Path::exists)?;
        https(&options).check()?;
        Ok::<Options, String>(options)
    };
    let done = match command {
        Command::Run(options) => complete(options).map(|options| daemon(&options)),
        Command::Refresh { force, options } => complete(options).map(|options| refresh(&options, force)),
        Command::Status { json, options } => complete(options).map(|options| status(&options, json)),
        Command::Check { diff, options } => complete(options).map(|options| check_all(&options, diff)),
        Command::Login { provider, pin, url, options } => complete(options)
            .and_then(|options| Ok((options, pasted(provider, pin, url)?)))
            .map(|(options, given)| at_terminal(&options, async |daemon| daemon.login(provider, given).await)),
        Command::Logout { provider, yes, options } => {
            complete(options).map(|options| at_terminal(&options, async |daemon| daemon.logout(provider, yes).await))
        }
        #[cfg(feature = "sandbox")]
        Command::Sandbox(args) => Ok(crate::sandbox::cli::serve(args).map(|()| 0)),
        #[cfg(feature = "sandbox")]
        Command::Demo => Ok(crate::sandbox::demo::show()),
    };
    match done {
        Ok(Ok(status)) => ExitCode::from(status),
        Ok(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            eprintln!("kometa-authd: {error}");
            ExitCode::FAILURE
        }
        Err(usage) => {
            eprintln!("kometa-authd: {usage}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn daemon(options: &Options) -> io::Result<u8> {
    announce::log::start(options.log_format, options.log_level);
    block_on(async {
        Daemon::new(Real::new(https(options))?, setup(options)).run().await;
        Ok(0)
    })
}

fn refresh(options: &Options, force: bool) -> io::Result<u8> {
    announce::log::start(options.log_format, options.log_level);
    let urgency = if force { Urgency::Forced } else { Urgency::Asked };
    // Nobody would be there to poll for a code.
    let setup = Setup { device_login: false, ..setup(options) };
    let reached = block_on(async { Ok(Daemon::new(Real::new(https(options))?, setup).once(urgency).await) })?;
    // What cannot be read is in the log already.
    let (reports, unreadable) = reports(options, &mut |_, _| {});
    Ok(exit_status(&reports, unreadable).max(reached.exit_status()))
}

fn at_terminal(options: &Options, act: impl AsyncFnOnce(&mut Daemon<Terminal>) -> u8) -> io::Result<u8> {
    block_on(async {
        // Whoever runs this wants to be asked, whatever the daemon does.
        let setup = Setup { device_login: true, ..setup(options) };
        let mut daemon = Daemon::new(Terminal::new(Real::new(https(options))?), setup);
        Ok(act(&mut daemon).await)
    })
}

fn status(options: &Options, json: bool) -> io::Result<u8> {
    let (reports, unreadable) = reports(options, &mut |path, why| eprintln!("{}: {why}", path.display()));
    let mut out = io::stdout().lock();
    if json {
        let all: Vec<_> = reports.iter().map(Report::json).collect();
        writeln!(out, "{:#}", serde_json::Value::from(all))?;
    } else {
        for report in &reports {
            writeln!(out, "{}", report.text(clock::now()))?;
        }
        if reports.is_empty() && !unreadable {
            writeln!(out, "there is no trakt: or mal: section in the config, so there is nothing to keep valid")?;
        }
    }
    Ok(exit_status(&reports, unreadable))
}

fn check_all(options: &Options, diff: bool) -> io::Result<u8> {
    let setup = setup(options);
    let mut out = io::stdout().lock();
    let mut worst = 0;
    for path in &setup.configs {
        worst = worst.max(check::check(&RealDisk, &setup, path, diff, &mut out)?);
    }
    Ok(worst)
}

/// The state of every account, from the files alone: no daemon and no network is needed.
fn reports(options: &Options, say: &mut dyn FnMut(&Path, &str)) -> (Vec<Report>, bool) {
    let setup = setup(options);
    let (mut reports, mut unreadable) = (Vec::new(), false);
    for path in &setup.configs {
        match look(&RealDisk, &setup, path, clock::now()) {
            Ok(found) => reports.extend(found),
            Err(why) => {
                say(path, &why);
                unreadable = true;
            }
        }
    }
    (reports, unreadable)
}

fn exit_status(reports: &[Report], unreadable: bool) -> u8 {
    let worst = reports.iter().map(|report| report.state).max().unwrap_or(State::Healthy);
    worst.exit_status().max(u8::from(unreadable) * State::NeedsPerson.exit_status())
}

fn https(options: &Options) -> Https {
    Https { ca_file: options.ca_file.clone() }
}

fn setup(options: &Options) -> Setup {
    let mut references = References::default();
    references.add(
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
    );
    Setup {
        configs: options.config.clone(),
        state: options.state_dir.as_deref().map(absolute),
        endpoints: options.endpoints(),
        references,
        times: options.kometa_times.clone().unwrap_or_default(),
        zone: jiff::tz::TimeZone::system(),
        device_login: options.device_login == Switch::On,
        api_url: options.api_url(),
    }
}

fn absolute(path: &Path) -> std::path::PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn block_on<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?.block_on(work)
}

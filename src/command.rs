//! The commands: each wires the edges it needs, and ends with an exit status.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use crate::announce::announcer::Announcer;
use crate::announce::notice::Notice;
use crate::announce::send::Way;
use crate::daemon::facts::{Names, look};
use crate::daemon::{Daemon, Setup, alive};
use crate::decision::Urgency;
use crate::disk::RealDisk;
use crate::health::{Report, State, Whole, unhealthy};
use crate::options::{Command, EXIT_USAGE, Options, Switch, pasted};
use crate::refresh::Https;
use crate::settings::References;
use crate::world::Real;
use crate::{announce, check, clock};

/// Runs a command to its end.
#[must_use]
pub fn run(command: Command) -> ExitCode {
    let variable = |name: &str| std::env::var(name).ok();
    let complete = |options: Options| {
        let options = options.complete(variable, Path::exists)?;
        https(&options).check()?;
        options.channels()?;
        Ok::<Options, String>(options)
    };
    let done = match command {
        Command::Run(options) => complete(options).map(|options| daemon(&options)),
        Command::Refresh { force, options } => complete(options).map(|options| refresh(&options, force)),
        Command::Status { json, options } => complete(options).map(|options| status(&options, json)),
        Command::Healthcheck(options) => complete(options).map(|options| healthcheck(&options)),
        Command::Notify { test: _, options } => complete(options).map(|options| try_all(&options)),
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
    allow_open_files(options.config.len());
    block_on(async {
        let setup = Arc::new(setup(options));
        Daemon::new(real(options, &setup)?, setup).run().await;
        Ok(0)
    })
}

fn refresh(options: &Options, force: bool) -> io::Result<u8> {
    announce::log::start(options.log_format, options.log_level);
    let urgency = if force { Urgency::Forced } else { Urgency::Asked };
    // Nobody would be there to poll for a code.
    let setup = Arc::new(Setup { device_login: false, ..setup(options) });
    let reached = block_on(async { Ok(Daemon::new(real(options, &setup)?, setup).once(urgency).await) })?;
    // What cannot be read is in the log already.
    let (reports, unreadable) = reports(options, &mut |_, _| {});
    Ok(exit_status(&reports, unreadable).max(reached.exit_status()))
}

fn at_terminal(options: &Options, act: impl AsyncFnOnce(&mut Daemon<Real>) -> u8) -> io::Result<u8> {
    block_on(async {
        // Whoever runs this wants to be asked, whatever the daemon does.
        let setup = Setup { device_login: true, ..setup(options) };
        let mut daemon = Daemon::new(Real::new(https(options))?.at_terminal(), setup);
        Ok(act(&mut daemon).await)
    })
}

fn status(options: &Options, json: bool) -> io::Result<u8> {
    let setup = setup(options);
    let (reports, unreadable) = reports(options, &mut |path, why| eprintln!("{}: {why}", path.display()));
    let mut out = io::stdout().lock();
    if json {
        let all: Vec<_> = reports.iter().flat_map(|(whole, all)| all.iter().map(|one| one.json(whole))).collect();
        writeln!(out, "{:#}", serde_json::Value::from(all))?;
        return Ok(exit_status(&reports, unreadable));
    }
    for (whole, all) in &reports {
        writeln!(out, "{}", whole.text())?;
        for report in all {
            writeln!(out, "{}", report.text(whole, clock::now()))?;
        }
    }
    let is_empty = reports.iter().all(|(_, all)| all.is_empty());
    if is_empty && !unreadable && !setup.configs.is_empty() {
        writeln!(out, "there is no trakt: or mal: section in the config, so there is nothing to keep valid")?;
    }
    Ok(exit_status(&reports, unreadable))
}

/// Silent where all is well; otherwise one sentence a config, which `docker inspect` shows, and 1: Docker
/// knows no other status.
fn healthcheck(options: &Options) -> io::Result<u8> {
    let setup = setup(options);
    let mut out = io::stdout().lock();
    let mut worst = 0;
    for path in &setup.configs {
        let why = match look(&RealDisk, &setup, path, clock::now()) {
            Ok(reports) => unhealthy(&whole(&setup, path), &reports, clock::now()),
            Err(why) => Some(format!("{}: {why}", path.display())),
        };
        if let Some(why) = why {
            writeln!(out, "{why}")?;
            worst = 1;
        }
    }
    Ok(worst)
}

/// What is known of a config as a whole.
fn whole(setup: &Setup, path: &Path) -> Whole {
    Whole {
        config: path.display().to_string(),
        running: alive::running(&RealDisk, path, setup.state.as_deref()),
        problems: announce::announcer::load(setup, path).problems().to_vec(),
    }
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
fn reports(options: &Options, say: &mut dyn FnMut(&Path, &str)) -> (Vec<(Whole, Vec<Report>)>, bool) {
    let setup = setup(options);
    let (mut reports, mut unreadable) = (Vec::new(), false);
    for path in &setup.configs {
        match look(&RealDisk, &setup, path, clock::now()) {
            Ok(found) => reports.push((whole(&setup, path), found)),
            Err(why) => {
                say(path, &why);
                unreadable = true;
            }
        }
    }
    (reports, unreadable)
}

fn exit_status(reports: &[(Whole, Vec<Report>)], unreadable: bool) -> u8 {
    let states = reports.iter().flat_map(|(_, all)| all.iter().map(|report| report.state));
    let worst = states.max().unwrap_or(State::Healthy);
    worst.exit_status().max(u8::from(unreadable) * State::NeedsPerson.exit_status())
}

/// Each config has a lock of its own open, and for a while the files that it replaced. Where the usual limit
/// of 1024 is too low for all of them, it is raised as far as the system lets us.
fn allow_open_files(configs: usize) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < 256 + 2 * configs as u64) {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    }
}

/// This machine, and the ways to reach a person.
fn real(options: &Options, setup: &Arc<Setup>) -> io::Result<Real> {
    let announcer = Announcer::new(Arc::clone(setup), https(options), ways(options)?, !options.no_kometa_webhooks);
    Ok(Real::new(https(options))?.announcing(announcer))
}

/// The ways that the options name.
fn ways(options: &Options) -> io::Result<Vec<Way>> {
    let channels = options.channels().map_err(io::Error::other)?;
    let program = options.on_event.as_deref().map(absolute).map(Way::Program);
    Ok(channels.into_iter().map(Way::Channel).chain(program).collect())
}

/// Tries every way to reach a person, once each.
fn try_all(options: &Options) -> io::Result<u8> {
    let setup = setup(options);
    let mut out = io::stdout().lock();
    let mut all = Vec::new();
    for path in &setup.configs {
        let given = ways(options)?;
        if !given.is_empty() {
            all.extend(given.into_iter().map(|way| (way, path)));
            break;
        }
        if options.no_kometa_webhooks {
            continue;
        }
        let Some((channels, problems)) = announce::announcer::kometa_channels(&setup, path) else {
            writeln!(out, "{}: it cannot be read, so Kometa's webhooks are not known", path.display())?;
            continue;
        };
        for problem in problems {
            writeln!(out, "{}: {problem}", path.display())?;
        }
        all.extend(channels.into_iter().map(|channel| (Way::Channel(channel), path)));
    }
    if all.is_empty() {
        writeln!(
            out,
            "there is nobody to tell: give --notify or --on-event, or fill in `webhooks: error` of Kometa's config"
        )?;
        return Ok(1);
    }
    let https = https(options);
    let mut worst = 0;
    for (way, path) in all {
        let notice = Notice::test(clock::now(), &path.display().to_string());
        match block_on(async { Ok(way.deliver(&https, &notice).await) })? {
            Ok(()) => writeln!(out, "{way}: delivered")?,
            Err(failed) => {
                writeln!(out, "{way}: failed: {}", failed.why)?;
                worst = 1;
            }
        }
    }
    Ok(worst)
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
        names: Names::new(&options.config),
        state: options.state_dir.as_deref().map(absolute),
        endpoints: options.endpoints(),
        references,
        times: options.kometa_times.clone().unwrap_or_default(),
        zone: clock::zone(),
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

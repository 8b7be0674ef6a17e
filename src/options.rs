//! Arguments and environment to options.
//!
//! Pure but for clap's own reading of both. The man page, the completions and
//! the table in the README come from this description.

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};
use tracing_subscriber::filter::LevelFilter;

use crate::announce::channel::Channel;
use crate::announce::log::LogFormat;
use crate::kometa::{DEFAULT_TIMES, Times};
use crate::provider::{Login, MAL, PROVIDERS, Provider, TRAKT, named};
use crate::refresh::is_secure;
use crate::refresh::request::Endpoint;
use crate::token::Secret;

/// The exit status for a wrong command line, as sysexits.h has it.
pub const EXIT_USAGE: u8 = 64;

/// Keeps the Trakt and MyAnimeList tokens in Kometa's config.yml valid.
///
/// It watches the file, refreshes each token before it expires, and rewrites nothing but the
/// `authorization` block. Exit status: 0 fine, 1 failed but may work later, 2 a person must act,
/// 64 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "kometa-authd", version, propagate_version = false, subcommand_required = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch the config and keep its tokens valid, until told to stop
    Run(Options),
    /// Look once, refresh what is due, and end (for cron and timers)
    Refresh {
        /// Refresh every token, due or not
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        #[expect(missing_docs, reason = "the options have their own")]
        options: Options,
    },
    /// Show how each account is: valid for how long, next refresh, last result
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        #[expect(missing_docs, reason = "the options have their own")]
        options: Options,
    },
    /// Say in one exit status whether all is well: for Docker's HEALTHCHECK and for monitoring
    Healthcheck(Options),
    /// Try every way to reach a person
    Notify {
        /// Send a test message by each, and print how it went
        #[arg(long, required = true)]
        test: bool,
        #[command(flatten)]
        #[expect(missing_docs, reason = "the options have their own")]
        options: Options,
    },
    /// Read the config and report every problem with its place; change nothing
    Check {
        /// Show what an edit would change
        #[arg(long)]
        diff: bool,
        #[command(flatten)]
        #[expect(missing_docs, reason = "the options have their own")]
        options: Options,
    },
    /// Authorize at this terminal: with a code to enter on a page, a link to open, or what was pasted
    Login {
        /// Whose: trakt or mal
        #[arg(value_name = "ACCOUNT", value_parser = provider)]
        provider: &'static Provider,
        /// A PIN that Trakt's page showed
        #[arg(long, value_name = "PIN", conflicts_with = "url")]
        pin: Option<String>,
        /// The address that the browser ended on after the link of an earlier `login mal`
        #[arg(long, value_name = "ADDRESS")]
        url: Option<String>,
        #[command(flatten)]
        #[expect(missing_docs, reason = "the options have their own")]
        options: Options,
    },
    /// Revoke the tokens at the provider, empty the block, and leave it empty
    Logout {
        /// Whose: trakt or mal
        #[arg(value_name = "ACCOUNT", value_parser = provider)]
        provider: &'static Provider,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        #[expect(missing_docs, reason = "the options have their own")]
        options: Options,
    },
    /// Serve a pretend Trakt and MyAnimeList on this machine
    #[cfg(feature = "sandbox")]
    Sandbox(crate::sandbox::cli::Args),
    /// Show a minute of the daemon's life, against the sandbox
    #[cfg(feature = "sandbox")]
    Demo,
}

/// What every command takes.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Kometa's config file; may be given several times. Without it: `KOMETA_CONFIG`, or /config/config.yml
    #[arg(
        short,
        long,
        value_name = "FILE",
        env = "KOMETA_AUTHD_CONFIG",
        hide_env_values = true,
        value_delimiter = ':'
    )]
    pub config: Vec<PathBuf>,

    /// Folder for the journal, in the place of .kometa-authd beside the config
    #[arg(long, value_name = "FOLDER", env = "KOMETA_AUTHD_STATE_DIR", hide_env_values = true)]
    pub state_dir: Option<PathBuf>,

    /// Where Trakt's OAuth endpoints are
    #[arg(long, value_name = "URL", env = "KOMETA_AUTHD_TRAKT_AUTH_URL", hide_env_values = true, default_value = TRAKT.auth_url, value_parser = origin)]
    pub trakt_auth_url: String,

    /// Where MyAnimeList's OAuth endpoints are
    #[arg(long, value_name = "URL", env = "KOMETA_AUTHD_MAL_AUTH_URL", hide_env_values = true, default_value = MAL.auth_url, value_parser = origin)]
    pub mal_auth_url: String,

    /// Where Trakt's data API is, to say whose account it is. Without it: the real one, unless
    /// --trakt-auth-url names another Trakt
    #[arg(long, value_name = "URL", env = "KOMETA_AUTHD_TRAKT_API_URL", hide_env_values = true, value_parser = origin)]
    pub trakt_api_url: Option<String>,

    /// Whether Trakt is asked for a code to enter where a person must authorize: on or off
    #[arg(
        long,
        value_name = "SWITCH",
        env = "KOMETA_AUTHD_DEVICE_LOGIN",
        hide_env_values = true,
        default_value = "on"
    )]
    pub device_login: Switch,

    /// The redirect URI that the Trakt application was registered with
    #[arg(long, value_name = "URI", env = "KOMETA_AUTHD_TRAKT_REDIRECT_URI", hide_env_values = true, default_value = TRAKT.redirect_uri.unwrap_or_default())]
    pub trakt_redirect_uri: String,

    /// When Kometa starts, as in its own `KOMETA_TIMES`: HH:MM|HH:MM in local time, or off. Without it:
    /// `KOMETA_TIMES`, `KOMETA_TIME`, or Kometa's own 05:00
    #[arg(long, value_name = "TIMES", env = "KOMETA_AUTHD_KOMETA_TIMES", hide_env_values = true)]
    pub kometa_times: Option<Times>,

    /// PEM file with the certificates to trust, in the place of the system's
    #[arg(long, value_name = "FILE", env = "KOMETA_AUTHD_CA_FILE", hide_env_values = true)]
    pub ca_file: Option<PathBuf>,

    /// Where to tell a person what they must do: the address of a Discord or Slack webhook, `ntfy://HOST/TOPIC`,
    /// `gotify://HOST/TOKEN`, `apprise://HOST/notify/KEY` (ntfys, gotifys and apprises for https), or any
    /// other for JSON. May be given several times; other users see it in the process list, so rather set the
    /// variable, with spaces between. Without it: `webhooks: error` of Kometa's config
    #[arg(
        long,
        value_name = "URL",
        env = "KOMETA_AUTHD_NOTIFY",
        hide_env_values = true,
        value_delimiter = ' ',
        value_parser = |text: &str| Ok::<_, std::convert::Infallible>(Address(Secret::new(text)))
    )]
    pub notify: Vec<Address>,

    /// A program to run for each message, with `KOMETA_AUTHD_EVENT`, `_ACCOUNT`, `_MESSAGE`, `_TODO`, `_LINK`,
    /// `_TEXT` and more in its environment and JSON on its standard input (docs/messages.md); no shell, no
    /// arguments, 30 seconds
    #[arg(long, value_name = "PROGRAM", env = "KOMETA_AUTHD_ON_EVENT", hide_env_values = true)]
    pub on_event: Option<PathBuf>,

    /// Leave Kometa's own `webhooks: error` alone
    #[arg(long, env = "KOMETA_AUTHD_NO_KOMETA_WEBHOOKS", hide_env_values = true, value_parser = clap::builder::FalseyValueParser::new())]
    pub no_kometa_webhooks: bool,

    /// Form of the log: journald's or text by itself, text, or JSON
    #[arg(
        long,
        value_name = "FORMAT",
        env = "KOMETA_AUTHD_LOG_FORMAT",
        hide_env_values = true,
        default_value = "auto"
    )]
    pub log_format: LogFormat,

    /// How much to log: off, error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", env = "KOMETA_AUTHD_LOG_LEVEL", hide_env_values = true, default_value = "info")]
    pub log_level: LevelFilter,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Switch {
    /// Yes.
    On,
    /// No.
    Off,
}

/// What was pasted on the command line, if it is of the kind that the provider takes.
///
/// # Errors
/// It is of the other kind; the sentence says which fits.
pub fn pasted(provider: &Provider, pin: Option<String>, url: Option<String>) -> Result<Option<Secret>, String> {
    match (provider.login, pin, url) {
        (Login::Device { .. }, _, Some(_)) => Err(format!("{} takes --pin, not --url", provider.title)),
        (Login::PastedUrl { .. }, Some(_), _) => Err(format!("{} takes --url, not --pin", provider.title)),
        (_, pin, url) => Ok(pin.or(url).map(|text| Secret::new(text.trim()))),
    }
}

/// An address that messages go to. It is a secret, so that no error shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Address(pub Secret);

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

impl Options {
    /// Where Trakt's data API is; a pretend Trakt's tokens are not shown to the real one.
    #[must_use]
    pub fn api_url(&self) -> Option<String> {
        let real = || (self.trakt_auth_url == TRAKT.auth_url).then(|| "https://api.trakt.tv".to_owned());
        self.trakt_api_url.clone().or_else(real)
    }

    /// The channels of the addresses.
    ///
    /// # Errors
    /// One of them is none; the sentence says which and why, and has nothing of it.
    pub fn channels(&self) -> Result<Vec<Channel>, String> {
        let addresses = self.notify.iter().map(|address| address.0.expose().trim()).filter(|text| !text.is_empty());
        let channel =
            |(index, text)| Channel::parse(text).map_err(|why| format!("--notify, address {}: {why}", index + 1));
        addresses.enumerate().map(channel).collect()
    }

    /// Fills in what comes from variables with other programs' names.
    ///
    /// # Errors
    /// There is no config, or a URL would carry tokens in the clear; the sentence says what to do.
    pub fn complete(
        mut self,
        variable: impl Fn(&str) -> Option<String>,
        exists: impl Fn(&Path) -> bool,
    ) -> Result<Self, String> {
        if self.config.is_empty() {
            self.config.extend(variable("KOMETA_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from));
        }
        if self.config.is_empty() {
            // Where Kometa's image has it.
            let usual = PathBuf::from("/config/config.yml");
            self.config.extend(exists(&usual).then_some(usual));
        }
        if self.config.is_empty() {
            return Err(
                "no config file: name Kometa's with --config /path/to/config.yml, or in KOMETA_CONFIG".to_owned()
            );
        }
        if self.kometa_times.is_none() {
            let given = ["KOMETA_TIMES", "KOMETA_TIME"].into_iter().find_map(&variable);
            // What only Kometa understands must not keep us from running beside it.
            let given = given.and_then(|times| times.parse().ok());
            self.kometa_times = given.or_else(|| DEFAULT_TIMES.parse().ok());
        }
        if self.state_dir.is_none() {
            // Several folders come separated by colons (systemd.exec(5)); the first is ours.
            let given = variable("STATE_DIRECTORY").unwrap_or_default();
            self.state_dir = given.split(':').next().filter(|path| !path.is_empty()).map(PathBuf::from);
        }
        Ok(self)
    }

    /// Where each provider is.
    #[must_use]
    pub fn endpoints(&self) -> Vec<Endpoint> {
        let endpoint = |provider: &'static Provider| {
            let trakt = provider.name == TRAKT.name;
            Endpoint {
                provider,
                auth_url: if trakt { self.trakt_auth_url.clone() } else { self.mal_auth_url.clone() },
                redirect_uri: provider.redirect_uri.map(|_| self.trakt_redirect_uri.clone()),
            }
        };
        PROVIDERS.into_iter().map(endpoint).collect()
    }
}

/// A provider by its key in the config.
fn provider(text: &str) -> Result<&'static Provider, String> {
    named(text).ok_or_else(|| "it is trakt or mal".to_owned())
}

/// An address that tokens may be sent to: https, or this machine.
fn origin(text: &str) -> Result<String, String> {
    let url = text.trim_end_matches('/');
    if is_secure(url) {
        Ok(url.to_owned())
    } else {
        Err("tokens go by https only, or by http to this machine".to_owned())
    }
}

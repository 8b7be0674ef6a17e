//! `kometa-authd sandbox`: the sandbox for a person at a terminal.
//!
//! Invariant: what it prints can be pasted as it is, into a config or a shell. This file reads no
//! config and writes none.

use super::faults::Fault;
use super::rules::{Rotation, Rules};
use super::{Options, Sandbox};
use crate::provider::{MAL, TRAKT};
use crate::token::Grant;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;

/// Serve pretend providers on loopback, to try things out without an account
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Where to listen: a loopback address; port 0 for any that is free
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8737")]
    pub listen: SocketAddr,
    /// Lifetime of access tokens, for example 20s, 5m, 1h or 7d [default: what the provider grants]
    #[arg(long, value_name = "TIME", value_parser = read_seconds)]
    pub lifetime: Option<i64>,
    /// What becomes of the old pair when a token is refreshed
    #[arg(long, value_enum, default_value_t)]
    pub rotation: RotationArg,
    /// Something that goes wrong, for example 5xx@3, mal.token:delay=2s@always or drop-after
    ///
    /// Repeatable. The grammar is `[WHERE:]WHAT[=VALUE][@TIMES[~SKIP]]`. WHERE is token (both token
    /// endpoints, the default), trakt.token, mal.token, device-code, device-token, revoke, authorize,
    /// data, elsewhere or any. WHAT is delay=TIME, late=TIME (acts, then waits), hang, drop-before,
    /// drop-after, truncate, reset, garbage, refuse=TIME, a status from 400 to 599 or 5xx,
    /// lost=STATUS (acts, answers an error), 403-html, challenge, 429=SECONDS/json (or text, html;
    /// either part may be left out), huge=BYTES, padded=BYTES, 302=URL (or 301, 303, 307, 308),
    /// invalid-client, invalid-grant, no-KEY or KEY=VALUE for a key of the answer. TIMES is a number
    /// or always; SKIP is how many requests pass first.
    #[arg(long, value_name = "FAULT")]
    pub fault: Vec<Fault>,
    /// Allow one POST a second for each client, as Trakt does
    #[arg(long)]
    pub rate_limit: bool,
}

/// [`Rotation`] as it is written.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RotationArg {
    /// Both old tokens die at once
    #[default]
    Strict,
    /// They live until the new pair is first used
    Grace,
    /// Using a spent token kills every token of its family
    Family,
}

impl From<RotationArg> for Rotation {
    fn from(arg: RotationArg) -> Self {
        match arg {
            RotationArg::Strict => Self::Strict,
            RotationArg::Grace => Self::Grace,
            RotationArg::Family => Self::Family,
        }
    }
}

impl From<Args> for Options {
    fn from(args: Args) -> Self {
        let rules = Rules {
            rotation: args.rotation.into(),
            lifetime_s: args.lifetime,
            post_interval_s: args.rate_limit.then_some(1),
            ..Rules::default()
        };
        Self { listen: args.listen, rules, faults: args.fault }
    }
}

/// Serves until Ctrl-C or SIGTERM, after it has said how to use it.
///
/// # Errors
/// The address cannot be listened on, or standard output is gone.
pub fn serve(args: Args) -> io::Result<()> {
    let (wake, waker) = UnixStream::pair()?;
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::low_level::pipe::register(signal, waker.try_clone()?)?;
    }
    let mut options = Options::from(args);
    // A config from an earlier run must not hold what this run issues for something else.
    options.rules.seed = fastrand::u64(..);
    serve_until(options, io::stdout().lock(), wake)
}

/// Serves until there is something to read.
fn serve_until(options: Options, mut out: impl Write, mut wake: impl Read) -> io::Result<()> {
    let sandbox = Sandbox::start(options)?;
    out.write_all(usage(&sandbox).as_bytes())?;
    out.flush()?;
    wake.read_exact(&mut [0])
}

/// How to use a running sandbox, with a fresh pair of each provider and a PIN.
#[must_use]
pub fn usage(sandbox: &Sandbox) -> String {
    let url = sandbox.url();
    let trakt = block("trakt", &sandbox.issue(&TRAKT, "sandbox", 0));
    let mal = block("mal", &sandbox.issue(&MAL, "sandbox", 0));
    let pin = sandbox.pin();
    let pin = pin.expose();
    format!(
        "\
# A pretend Trakt and MyAnimeList at {url}
# Nothing that it issues is worth anything elsewhere. Ctrl-C stops it.

# Paste this into a config.yml (with the PIN \"{pin}\", good for ten minutes, instead of the
# tokens of trakt, if you like):
{trakt}{mal}
# Then point the daemon at it:
#   kometa-authd run --config config.yml --trakt-auth-url {url} --mal-auth-url {url}
# See what happened:
#   curl {url}/
#   curl {url}/ledger.json
# And break something:
#   curl -X POST '{url}/sandbox/fault?5xx@3'
#   curl -X POST {url}/sandbox/clear
"
    )
}

/// A block of `config.yml` with a grant in it.
fn block(section: &str, grant: &Grant) -> String {
    let mut text = format!(
        "{section}:\n  client_id: sandbox\n  client_secret: sandbox-secret\n  authorization:\n    access_token: {}\n",
        quoted(grant.access_token.expose())
    );
    let mut line = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            text.extend(["    ", key, ": ", &value, "\n"]);
        }
    };
    line("token_type", grant.token_type.clone());
    line("expires_in", grant.expires_in.map(|seconds| seconds.to_string()));
    line("refresh_token", grant.refresh_token.as_ref().map(|token| quoted(token.expose())));
    line("scope", grant.scope.clone());
    line("created_at", grant.created_at.map(|moment| moment.0.to_string()));
    text
}

/// A token of digits only must stay a string. The sandbox's tokens need no escapes.
fn quoted(token: &str) -> String {
    format!("\"{token}\"")
}

/// `20s`, `5m`, `1h`, `7d` or bare seconds.
fn read_seconds(text: &str) -> Result<i64, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let factor = match unit {
        "" | "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3600),
        "d" => Some(86_400),
        _ => None,
    };
    let seconds = number.parse::<i64>().ok().zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
    seconds.filter(|seconds| *seconds > 0).ok_or_else(|| "write it like 20s, 5m, 1h or 7d".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args as _, Command, FromArgMatches};

    /// Arguments become options, and what cannot be meant is refused.
    #[test]
    fn arguments() {
        let read = |line: &str| {
            let command = Args::augment_args(Command::new("sandbox"));
            let matches = command.try_get_matches_from(line.split(' ')).map_err(|error| error.to_string())?;
            Args::from_arg_matches(&matches).map(Options::from).map_err(|error| error.to_string())
        };
        let options = read("sandbox --lifetime 5m --rotation family --fault 5xx@3 --fault mal.token:hang --rate-limit")
            .expect("options");
        assert_eq!((options.rules.lifetime_s, options.rules.rotation), (Some(300), Rotation::Family));
        assert_eq!((options.faults.len(), options.rules.post_interval_s), (2, Some(1)));
        assert_eq!(read("sandbox").expect("options").listen.port(), 8737);
        for bad in ["--lifetime 5w", "--lifetime 0", "--lifetime -1s", "--fault nothing", "--rotation x", "--listen x"]
        {
            assert!(read(&format!("sandbox {bad}")).is_err(), "{bad}");
        }
    }

    /// It says how to use it, serves until it is woken, and then stops without an error.
    #[test]
    fn serves_until_woken() {
        let mut said = Vec::new();
        serve_until(Options::default(), &mut said, &b"x"[..]).expect("it stops");
        assert!(String::from_utf8(said).expect("text").contains("kometa-authd run --config"));
        let busy = Sandbox::start(Options::default()).expect("a sandbox");
        let options = Options { listen: busy.address(), ..Options::default() };
        assert!(serve_until(options, Vec::new(), &b"x"[..]).is_err());
    }

    /// What is printed is a config: each block can be read, and its refresh token lives.
    #[test]
    fn usage_is_a_config() {
        let sandbox = Sandbox::start(Options::default()).expect("a sandbox");
        let config: serde_yaml::Value = serde_yaml::from_str(&usage(&sandbox)).expect("YAML");
        for section in ["trakt", "mal"] {
            let token = config[section]["authorization"]["refresh_token"].as_str().expect("a string");
            assert!(sandbox.is_live(&crate::token::Secret::new(token)), "{section}");
        }
        assert!(config["mal"]["authorization"].get("created_at").is_none());
    }
}

//! Signing in and out with the real program against the sandbox: device codes,
//! PINs beside them, pasted addresses, `login` and `logout`.

#![cfg(feature = "sandbox")]
#![allow(clippy::disallowed_methods, reason = "the tests play the person and the system")]

mod support;

use std::io::{Read as _, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use kometa_authd::disk::RealDisk;
use kometa_authd::provider::{MAL, TRAKT};
use kometa_authd::sandbox::rules::Rules;
use kometa_authd::sandbox::world::World;
use kometa_authd::sandbox::{Options, Sandbox};
use kometa_authd::store::{Place, ensure_state};
use kometa_authd::token::Fingerprint;
use support::{CLIENT, Home, PATIENCE, Running, around, config_with, fault, link, refresh_token, value};

const EMPTY: &str = "## mine\ntrakt:\n  client_id: test-client-id  # keep\n  pin:\n  authorization:\n    access_token:\n    token_type:\n    expires_in:\n    refresh_token:\n    scope:\n    created_at:\n";
const EMPTY_MAL: &str = "mal:\n  client_id: test-client-id\n  localhost_url:\n  authorization:\n    access_token:\n    token_type:\n    expires_in:\n    refresh_token:\n";

/// A sandbox whose codes are polled for every second.
fn sandbox() -> Sandbox {
    let rules = Rules { device_interval_s: 1, ..Rules::default() };
    Sandbox::start(Options { rules, ..Options::default() }).unwrap()
}

/// The program with device login on, and the data API where the sandbox is.
fn command(home: &Home, name: &str, sandbox: &Sandbox) -> Command {
    let mut command = home.command(name, sandbox);
    command.args(["--trakt-api-url", &sandbox.url(), "--device-login", "on"]);
    command
}

fn daemon(home: &Home, sandbox: &Sandbox) -> Running {
    Running::start(command(home, "run", sandbox))
}

/// The newest user code that the sandbox made.
fn user_code(sandbox: &Sandbox) -> String {
    sandbox.ledger().codes.devices.last().unwrap().user_code.clone()
}

/// Waits for so many device codes.
fn wait_codes(sandbox: &Sandbox, count: usize) {
    wait(sandbox, &format!("{count} codes"), |world| world.ledger.codes.devices.len() >= count);
}

/// Waits for so many polls for the newest code.
fn wait_polls(sandbox: &Sandbox, count: u32) {
    wait(sandbox, &format!("{count} polls"), |world| {
        world.ledger.codes.devices.last().is_some_and(|device| device.polls >= count)
    });
}

fn wait(sandbox: &Sandbox, what: &str, holds: impl FnMut(&World) -> bool) {
    assert!(sandbox.wait(PATIENCE, holds), "there were never {what}");
}

/// Reads the QR code in some lines, as a camera would: pixels, several for each module.
fn read_qr(text: &str) -> Option<String> {
    const SCALE: usize = 4;
    let lines: Vec<Vec<char>> = text
        .lines()
        .map(|line| line.trim_end_matches(['\r', '\n']).chars().collect())
        .filter(|line: &Vec<char>| line.len() > 20 && line.iter().all(|c| "█▀▄ ".contains(*c)))
        .collect();
    let width = lines.iter().map(Vec::len).max()?;
    let is_light = |x: usize, y: usize| match lines[y / 2].get(x) {
        Some('█') => true,
        Some('▀') => y.is_multiple_of(2),
        Some('▄') => !y.is_multiple_of(2),
        _ => false,
    };
    // A screen is wider than the picture; its quiet zone is on it.
    let (columns, rows) = (width * SCALE, lines.len() * 2 * SCALE);
    let mut image = rqrr::PreparedImage::prepare_from_bitmap(columns, rows, |x, y| !is_light(x / SCALE, y / SCALE));
    let grids = image.detect_grids();
    Some(grids.first()?.decode().ok()?.1)
}

/// A config without a token: the daemon asks for a code, says where to enter it, shows it as a QR code
/// that decodes to the page with the code filled in, and once that is approved writes the block and
/// says whose account it is. Nothing else of the file changes, no poll came too early, and a second
/// look shows `status` with the code and exit status 2 meanwhile.
#[test]
fn device_approved() {
    let sandbox = sandbox();
    let home = Home::new(EMPTY);
    let daemon = daemon(&home, &sandbox);
    let line = daemon.wait_log(&["config.yml#trakt", "enter the code"]);
    let code = user_code(&sandbox);
    let page = format!("{}/activate", sandbox.url());
    assert!(line.contains(&format!("open {page} and enter {code}, until ")), "{line}");
    assert!(line.contains("there is no token yet"), "{line}");
    wait_polls(&sandbox, 2);
    let status = command(&home, "status", &sandbox).output().unwrap();
    let said = support::said(&status);
    assert_eq!(status.status.code(), Some(2), "{said}");
    assert!(said.contains(&format!("enter {code}")) && said.contains(&format!("{page}/{code}")), "{said}");
    let check = command(&home, "check", &sandbox).output().unwrap();
    let said = support::said(&check);
    assert!(check.status.code() == Some(2) && said.contains(&format!("enter {code}")), "{said}");
    assert!(sandbox.approve_device(&code));
    let line = daemon.wait_log(&["authorized, new pair is in the file"]);
    assert!(line.contains("this is the account of sandbox") && line.contains("expires_in_s=60"), "{line}");
    let log = daemon.log();
    assert_eq!(read_qr(&log).as_deref(), Some(format!("{page}/{code}").as_str()), "{log}");
    assert_eq!(log.matches("enter the code").count(), 1, "{log}");
    let text = home.text();
    let grant = sandbox.live(&TRAKT, CLIENT).unwrap();
    assert_eq!(value(&text, "refresh_token"), refresh_token(&grant).expose());
    assert_eq!(around(&text), around(EMPTY));
    let device = &sandbox.ledger().codes.devices[0];
    assert_eq!((device.early_polls, sandbox.ledger().codes.devices.len()), (0, 1));
    assert_eq!(command(&home, "status", &sandbox).output().unwrap().status.code(), Some(0));
    daemon.stop();
}

/// A no is said and respected: no new code until somebody asks with SIGHUP.
#[test]
fn device_denied() {
    let sandbox = sandbox();
    let home = Home::new(EMPTY);
    let daemon = daemon(&home, &sandbox);
    daemon.wait_log(&["enter the code"]);
    assert!(sandbox.deny_device(&user_code(&sandbox)));
    daemon.wait_log(&["denied on the page, no new code"]);
    // A look at the file brings no new code either.
    home.write(&EMPTY.replace("## mine", "## yours"));
    let status = command(&home, "status", &sandbox).output().unwrap();
    assert_eq!(status.status.code(), Some(2), "{}", support::said(&status));
    assert_eq!(sandbox.ledger().codes.devices.len(), 1);
    daemon.reload();
    wait_codes(&sandbox, 2);
    let from = daemon.log_len();
    assert!(sandbox.approve_device(&user_code(&sandbox)));
    daemon.wait_log_from(from.saturating_sub(1), &["authorized, new pair is in the file"]);
    daemon.stop();
}

/// An expired code is followed by a new one, three times in a row; then it is said that nobody entered
/// any, and only a restart asks again.
#[test]
fn device_expires() {
    let sandbox = sandbox();
    let home = Home::new(EMPTY);
    let daemon = self::daemon(&home, &sandbox);
    for round in 1..=3 {
        wait_codes(&sandbox, round);
        let code = user_code(&sandbox);
        daemon.wait_log(&["enter the code", &code]);
        sandbox.advance(601);
    }
    daemon.wait_log(&["nobody entered any of the last codes"]);
    assert_eq!(sandbox.ledger().codes.devices.len(), 3);
    daemon.stop();
    let daemon = self::daemon(&home, &sandbox);
    wait_codes(&sandbox, 4);
    daemon.wait_log(&["enter the code", &user_code(&sandbox)]);
    assert!(sandbox.approve_device(&user_code(&sandbox)));
    daemon.wait_log(&["authorized, new pair is in the file"]);
    daemon.stop();
}

/// "Slow down" and trouble on the way cost nothing but time, and the interval grows.
#[test]
fn device_slow_down_and_trouble() {
    let sandbox = sandbox();
    fault(&sandbox, "device-code:503");
    fault(&sandbox, "device-token:429@1");
    fault(&sandbox, "device-token:502@1");
    let home = Home::new(EMPTY);
    let daemon = daemon(&home, &sandbox);
    let line = daemon.wait_log(&["config.yml#trakt", "a person must authorize"]);
    assert!(line.contains("503"), "{line}");
    // The round that brought no code does not count, and a reload tries at once.
    daemon.reload();
    daemon.wait_log(&["enter the code"]);
    assert!(sandbox.approve_device(&user_code(&sandbox)));
    daemon.wait_log(&["authorized, new pair is in the file"]);
    let polls: Vec<i64> =
        sandbox.requests().iter().filter(|visit| visit.path.ends_with("device/token")).map(|v| v.at_ms).collect();
    let gaps: Vec<i64> = polls.windows(2).map(|pair| (pair[1] - pair[0]) / 1000).collect();
    assert!(gaps[0] >= 6 && gaps.windows(2).all(|pair| pair[1] >= pair[0]), "{gaps:?}");
    daemon.stop();
}

/// The answer with the grant is lost on the way: the provider says that the code was used, so there is
/// a new one, with the reason.
#[test]
fn device_answer_lost() {
    let sandbox = sandbox();
    let home = Home::new(EMPTY);
    let daemon = daemon(&home, &sandbox);
    daemon.wait_log(&["enter the code"]);
    fault(&sandbox, "device-token:drop-after");
    assert!(sandbox.approve_device(&user_code(&sandbox)));
    wait_codes(&sandbox, 2);
    daemon.wait_log(&["enter the code", &user_code(&sandbox), "the answer to the code before was lost on the way"]);
    assert!(sandbox.approve_device(&user_code(&sandbox)));
    daemon.wait_log(&["authorized, new pair is in the file"]);
    daemon.stop();
}

/// The daemon is killed while a code is open: the next one goes on polling for the same code, not too
/// early, and asks for no other.
#[test]
fn device_over_a_restart() {
    let sandbox = sandbox();
    let home = Home::new(EMPTY);
    let first = daemon(&home, &sandbox);
    first.wait_log(&["enter the code"]);
    wait_polls(&sandbox, 1);
    first.kill();
    let second = daemon(&home, &sandbox);
    let code = user_code(&sandbox);
    second.wait_log(&["enter the code", &code]);
    assert!(sandbox.approve_device(&code));
    second.wait_log(&["authorized, new pair is in the file"]);
    let devices = sandbox.ledger().codes.devices;
    assert_eq!((devices.len(), devices[0].early_polls), (1, 0));
    assert_eq!(value(&home.text(), "access_token"), sandbox.live(&TRAKT, CLIENT).unwrap().access_token.expose());
    second.stop();
}

/// A PIN that is put into the file while a code is open wins, and the code is polled for no more.
#[test]
fn pin_while_a_code_is_open() {
    let sandbox = sandbox();
    let home = Home::new(EMPTY);
    let daemon = daemon(&home, &sandbox);
    daemon.wait_log(&["enter the code"]);
    let pin = sandbox.pin();
    home.write(&EMPTY.replace("pin:", &format!("pin: {}", pin.expose())));
    daemon.wait_log(&["authorized, new pair is in the file"]);
    let polls = sandbox.ledger().codes.devices[0].polls;
    assert!(!home.text().contains(pin.expose()));
    daemon.reload();
    daemon.wait_log(&["token is valid"]);
    assert_eq!(sandbox.ledger().codes.devices[0].polls, polls);
    daemon.stop();
}

/// A rejected token is asked for with a code, and the reason is said; with `--device-login off` it is not.
#[test]
fn rejected_token() {
    let sandbox = sandbox();
    let grant = sandbox.issue(&TRAKT, CLIENT, 8 * 86_400);
    assert!(sandbox.revoke(refresh_token(&grant)));
    let home = Home::new(&config_with(&grant));
    let off = home.daemon(&sandbox);
    off.wait_log(&["the provider rejected the refresh token"]);
    off.stop();
    assert!(sandbox.ledger().codes.devices.is_empty());
    let daemon = daemon(&home, &sandbox);
    let line = daemon.wait_log(&["enter the code", &user_code_later(&sandbox)]);
    assert!(line.contains("rejected the refresh token"), "{line}");
    assert!(sandbox.approve_device(&user_code(&sandbox)));
    daemon.wait_log(&["authorized, new pair is in the file"]);
    assert_eq!(value(&home.text(), "refresh_token"), refresh_token(&sandbox.live(&TRAKT, CLIENT).unwrap()).expose());
    daemon.stop();
}

fn user_code_later(sandbox: &Sandbox) -> String {
    wait_codes(sandbox, 1);
    user_code(sandbox)
}

/// MyAnimeList from the link to the grant: a person opens the announced link and pastes the address into
/// the config; the key is emptied. The link is the same after a restart, and an address that was made
/// with another link is said to be rejected, once.
#[test]
fn mal_link() {
    let sandbox = sandbox();
    let home = Home::new(EMPTY_MAL);
    let first = daemon(&home, &sandbox);
    let opened = link(&first.wait_log(&["config.yml#mal", "open the link"]));
    first.kill();
    let daemon = daemon(&home, &sandbox);
    assert_eq!(link(&daemon.wait_log(&["config.yml#mal", "open the link"])), opened);
    let status = command(&home, "status", &sandbox).output().unwrap();
    assert_eq!(status.status.code(), Some(2));
    assert!(support::said(&status).contains(&opened));
    let foreign = opened.replace("code_challenge=", "code_challenge=another");
    let address = sandbox.authorize(&foreign[..foreign.len().min(400)]).unwrap();
    home.write(&EMPTY_MAL.replace("localhost_url:", &format!("localhost_url: {address}")));
    daemon.wait_log(&["rejected the pin or address"]);
    let address = sandbox.authorize(&opened).unwrap();
    home.write(&EMPTY_MAL.replace("localhost_url:", &format!("localhost_url: {address}")));
    daemon.wait_log(&["authorized, new pair is in the file"]);
    let text = home.text();
    let grant = sandbox.live(&MAL, CLIENT).unwrap();
    assert_eq!(value(&text, "access_token"), grant.access_token.expose());
    assert_eq!(around(&text), around(EMPTY_MAL));
    let posts = support::posts(&sandbox).len();
    daemon.stop();
    assert_eq!(posts, 2);
}

/// An address that stands in the config before there was a link of ours is Kometa's to use: that is said,
/// nothing is sent, and the address stays.
#[test]
fn mal_address_of_kometa() {
    let sandbox = sandbox();
    let home = Home::new(&EMPTY_MAL.replace("localhost_url:", "localhost_url: http://localhost/?code=kometas"));
    let daemon = daemon(&home, &sandbox);
    daemon.wait_log(&["only Kometa can use it"]);
    daemon.wait_log(&["open the link"]);
    daemon.stop();
    assert!(sandbox.requests().is_empty() && home.text().contains("code=kometas"));
}

/// The program at a pseudo-terminal, which `script` of util-linux makes.
struct Terminal {
    child: Child,
    keys: ChildStdin,
    screen: Arc<(Mutex<String>, Condvar)>,
}

impl Terminal {
    fn start(command: &Command) -> Self {
        let quoted = |part: &std::ffi::OsStr| format!("'{}'", part.to_str().unwrap());
        let line: Vec<String> = std::iter::once(command.get_program()).chain(command.get_args()).map(quoted).collect();
        let mut script = Command::new("script");
        // Not one shell more, which Ctrl-C would end with a status of its own.
        script.args(["-qfec", &format!("exec {}", line.join(" ")), "/dev/null"]);
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => script.env(name, value),
                None => script.env_remove(name),
            };
        }
        let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (keys, mut out) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let screen = Arc::new((Mutex::new(String::new()), Condvar::new()));
        let writer = Arc::clone(&screen);
        std::thread::spawn(move || {
            let (mut bytes, mut all) = ([0; 4096], Vec::new());
            while let Ok(length @ 1..) = out.read(&mut bytes) {
                all.extend_from_slice(&bytes[..length]);
                *writer.0.lock().unwrap() = String::from_utf8_lossy(&all).into_owned();
                writer.1.notify_all();
            }
        });
        Self { child, keys, screen }
    }

    /// Waits for a text, and gives all that was shown so far.
    fn wait(&self, text: &str) -> String {
        let end = Instant::now() + PATIENCE;
        let mut screen = self.screen.0.lock().unwrap();
        while !screen.contains(text) {
            let left = end.saturating_duration_since(Instant::now());
            let (next, timeout) = self.screen.1.wait_timeout(screen, left).unwrap();
            screen = next;
            assert!(!timeout.timed_out(), "never shown {text:?}; the screen is:\n{screen}");
        }
        screen.clone()
    }

    fn type_in(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    /// The exit status of the program, which `script` passes on.
    fn end(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

fn login(home: &Home, provider: &str, sandbox: &Sandbox) -> Command {
    let mut command = support::program();
    command.args(["login", provider, "--trakt-auth-url", &sandbox.url(), "--mal-auth-url", &sandbox.url()]);
    command.args(["--trakt-api-url", &sandbox.url(), "--config"]).arg(&home.config);
    command
}

/// `login trakt` at a terminal: the code, a QR code that decodes to the page, the time left in place, and
/// whose account it became. Ctrl-C in the middle leaves the code good, and the next `login` goes on with
/// it.
#[test]
fn login_at_a_terminal() {
    let sandbox = sandbox();
    let home = Home::new(EMPTY);
    let mut first = Terminal::start(&login(&home, "trakt", &sandbox));
    first.wait("waiting for you, 9:5");
    let code = user_code(&sandbox);
    first.type_in("\x03");
    let shown = first.wait("nothing is half done");
    assert!(shown.contains(&format!("enter {code}")), "{shown}");
    assert_eq!(first.end(), Some(1));
    assert_eq!(home.text(), EMPTY);
    let second = Terminal::start(&login(&home, "trakt", &sandbox));
    let shown = second.wait("waiting for you, 9:");
    let link = format!("{}/activate/{code}", sandbox.url());
    assert!(shown.contains(&link), "{shown}");
    assert_eq!(read_qr(&shown).as_deref(), Some(link.as_str()), "{shown}");
    assert!(sandbox.approve_device(&code));
    let shown = second.wait("authorized, the new pair is in");
    assert!(second.wait("this is the account of sandbox").contains("valid until"), "{shown}");
    assert_eq!(second.end(), Some(0));
    let devices = sandbox.ledger().codes.devices;
    assert_eq!((devices.len(), devices[0].early_polls), (1, 0));
    assert_eq!(value(&home.text(), "access_token"), sandbox.live(&TRAKT, CLIENT).unwrap().access_token.expose());
}

/// A `login` that is slowed down, lets a code expire and is then told no: each is shown at the terminal, and the
/// next `login` begins with a new code. Where nobody comes at all, it ends by itself.
#[test]
fn login_denied_and_expired() {
    let sandbox = sandbox();
    fault(&sandbox, "device-token:429@1");
    let home = Home::new(EMPTY);
    let first = Terminal::start(&login(&home, "trakt", &sandbox));
    first.wait("waiting for you, 9:5");
    wait_polls(&sandbox, 1);
    sandbox.advance(601);
    wait_codes(&sandbox, 2);
    let code = user_code(&sandbox);
    let shown = first.wait(&format!("enter {code}"));
    assert!(shown.contains("the code before was not entered in its time"), "{shown}");
    assert!(sandbox.deny_device(&code));
    first.wait("the authorization was denied on the page");
    first.wait("run this again for a new code");
    assert_eq!(first.end(), Some(2));
    let polls: Vec<i64> =
        sandbox.requests().iter().filter(|visit| visit.path.ends_with("device/token")).map(|v| v.at_ms).collect();
    assert!(polls[1] - polls[0] >= 6000, "{polls:?}");
    let second = Terminal::start(&login(&home, "trakt", &sandbox));
    for count in 3..=5 {
        wait_codes(&sandbox, count);
        second.wait(&format!("enter {}", user_code(&sandbox)));
        sandbox.advance(601);
    }
    second.wait("nobody entered any of the last codes");
    assert_eq!(second.end(), Some(2));
    let devices = sandbox.ledger().codes.devices;
    assert!(devices.len() == 5 && devices.iter().all(|device| device.early_polls == 0));
    assert_eq!(home.text(), EMPTY);
}

/// The daemon is killed and started again while a `login` at a terminal waits: all three share one code, and the
/// last of them carries on with the grant.
#[test]
fn login_over_a_restart_of_the_daemon() {
    let sandbox = sandbox();
    let home = Home::new(EMPTY);
    let first = daemon(&home, &sandbox);
    first.wait_log(&["enter the code"]);
    let code = user_code(&sandbox);
    let terminal = Terminal::start(&login(&home, "trakt", &sandbox));
    terminal.wait(&format!("enter {code}"));
    first.kill();
    let second = daemon(&home, &sandbox);
    second.wait_log(&["enter the code", &code]);
    assert!(sandbox.approve_device(&code));
    terminal.wait("authorized, the new pair is in");
    assert_eq!(terminal.end(), Some(0));
    second.reload();
    second.wait_log(&["token is valid"]);
    let ledger = sandbox.ledger();
    assert_eq!((ledger.codes.devices.len(), ledger.codes.devices[0].early_polls, ledger.entries().len()), (1, 0, 1));
    second.stop();
}

/// `login` beside a daemon that waits with a code: both show the same code and share its polls, none of
/// them too early; whoever gets the grant, the other carries on with it, and the next refresh is the
/// daemon's.
#[test]
fn login_beside_a_daemon() {
    let sandbox = sandbox();
    let home = Home::new(EMPTY);
    let daemon = daemon(&home, &sandbox);
    daemon.wait_log(&["enter the code"]);
    let code = user_code(&sandbox);
    let terminal = Terminal::start(&login(&home, "trakt", &sandbox));
    terminal.wait(&format!("enter {code}"));
    wait_polls(&sandbox, 4);
    assert!(sandbox.approve_device(&code));
    terminal.wait("authorized, the new pair is in");
    assert_eq!(terminal.end(), Some(0));
    daemon.reload();
    daemon.wait_log(&["token is valid"]);
    let ledger = sandbox.ledger();
    assert_eq!((ledger.codes.devices.len(), ledger.codes.devices[0].early_polls, ledger.entries().len()), (1, 0, 1));
    sandbox.set_lifetime(600);
    let output = command(&home, "refresh", &sandbox).arg("--force").output().unwrap();
    assert!(output.status.success(), "{}", support::said(&output));
    assert_eq!(sandbox.ledger().entries().len(), 2);
    daemon.stop();
}

/// A disk that fails between the answer and its first copy, and for a while more: `login` does not end before the pair is
/// stored, because memory ends with it. The file then has the pair, and no other was asked for.
#[test]
fn login_on_a_failing_disk() {
    let run = |fault: &str, value: &str| {
        let sandbox = sandbox();
        let home = Home::new(EMPTY);
        let mut command = login(&home, "trakt", &sandbox);
        let output = command.args(["--pin", sandbox.pin().expose()]).env(fault, value).output().unwrap();
        let said = support::said(&output);
        assert!(output.status.success(), "{value}: {said}");
        let live = sandbox.live(&TRAKT, CLIENT).unwrap();
        assert_eq!(support::value(&home.text(), "refresh_token"), refresh_token(&live).expose(), "{value}");
        assert_eq!(support::posts(&sandbox).len(), 1, "{value}");
        said
    };
    let log = tempfile::NamedTempFile::new().unwrap();
    run("KOMETA_AUTHD_FAULT_LOG", log.path().to_str().unwrap());
    let operations = std::fs::read_to_string(log.path()).unwrap();
    let answer: u32 = operations.lines().find_map(|line| line.strip_suffix(" answer")).unwrap().parse().unwrap();
    for error in ["ENOSPC", "EIO", "EROFS"] {
        let said = run("KOMETA_AUTHD_FAULT", &format!("{error}@{}+12", answer + 1));
        assert!(said.contains("is only in memory, trying again"), "{said}");
    }
}

/// The ways without a terminal: `--pin`, `--url` with the link of an earlier `login mal`, a used PIN, and
/// the wrong option for a provider.
#[test]
fn login_with_what_was_pasted() {
    let sandbox = sandbox();
    let home = Home::new(&format!("{EMPTY}{EMPTY_MAL}"));
    let run = |provider: &str, args: &[&str]| {
        let output = login(&home, provider, &sandbox).args(args).output().unwrap();
        (output.status.code(), support::said(&output))
    };
    let pin = sandbox.pin();
    let (status, said) = run("trakt", &["--pin", pin.expose()]);
    assert!(status == Some(0) && said.contains("this is the account of sandbox"), "{said}");
    let (status, said) = run("trakt", &["--pin", "00000000"]);
    assert!(status == Some(2) && said.contains("rejected the pin"), "{said}");
    let (status, said) = run("trakt", &["--pin", "00000000"]);
    assert!(status == Some(2) && said.contains("was sent before"), "{said}");
    assert_eq!(run("trakt", &["--url", "http://localhost/?code=x"]).0, Some(64));
    let (status, said) = run("mal", &["--url", "http://localhost/?code=x"]);
    assert!(status == Some(2) && said.contains("no link yet"), "{said}");
    let (status, said) = run("mal", &[]);
    assert!(status == Some(2) && said.contains("nobody is there to paste it"), "{said}");
    let start = said.find("http://127").unwrap();
    let address = sandbox.authorize(said[start..].lines().next().unwrap()).unwrap();
    let (status, said) = run("mal", &["--url", &address]);
    assert!(status == Some(0), "{said}");
    let text = home.text();
    let mal = &text[text.find("mal:").unwrap()..];
    assert_eq!(value(mal, "access_token"), sandbox.live(&MAL, CLIENT).unwrap().access_token.expose());
    assert_eq!(around(&text), around(&format!("{EMPTY}{EMPTY_MAL}")));
}

/// `login mal` at a terminal, with the address typed in.
#[test]
fn mal_at_a_terminal() {
    let sandbox = sandbox();
    let home = Home::new(EMPTY_MAL);
    let mut terminal = Terminal::start(&login(&home, "mal", &sandbox));
    let shown = terminal.wait("\n> ");
    let start = shown.find("http://127").unwrap();
    let opened = shown[start..].lines().next().unwrap().trim();
    assert_eq!(read_qr(&shown).as_deref(), Some(opened));
    let address = sandbox.authorize(opened).unwrap();
    terminal.type_in(&format!("{address}\n"));
    terminal.wait("authorized, the new pair is in");
    assert_eq!(terminal.end(), Some(0));
    assert_eq!(value(&home.text(), "access_token"), sandbox.live(&MAL, CLIENT).unwrap().access_token.expose());
}

/// Ctrl-C at the prompt of `login mal` leaves everything as it was, and the link good: the address that it ends on
/// works with the next `login`. A wrong one is said to be.
#[test]
fn mal_interrupted_at_a_terminal() {
    let sandbox = sandbox();
    let home = Home::new(EMPTY_MAL);
    let mut first = Terminal::start(&login(&home, "mal", &sandbox));
    let shown = first.wait("\n> ");
    let start = shown.find("http://127").unwrap();
    let address = sandbox.authorize(shown[start..].lines().next().unwrap().trim()).unwrap();
    first.type_in("\x03");
    first.wait("nothing is half done");
    assert_eq!(first.end(), Some(1));
    assert_eq!(home.text(), EMPTY_MAL);
    let mut second = Terminal::start(&login(&home, "mal", &sandbox));
    second.wait("\n> ");
    second.type_in("http://localhost/?code=of-somebody-else\n");
    second.wait("rejected the pin or address");
    assert_eq!(second.end(), Some(2));
    let mut third = Terminal::start(&login(&home, "mal", &sandbox));
    third.wait("\n> ");
    third.type_in(&format!("{address}\n"));
    third.wait("authorized, the new pair is in");
    assert_eq!(third.end(), Some(0));
}

/// `logout` asks, revokes at the provider, empties the block and nothing else, and leaves no token in the
/// state folder; a daemon beside it puts nothing back, not even for a stale copy, and asks for no code.
/// `login` is the way back.
#[test]
fn logout_and_back() {
    let sandbox = sandbox();
    let grant = sandbox.issue(&TRAKT, CLIENT, 0);
    let before = config_with(&grant);
    let home = Home::new(&before);
    let daemon = daemon(&home, &sandbox);
    daemon.wait_log(&["keeping it valid"]);
    let mut logout = command(&home, "logout", &sandbox);
    logout.arg("trakt");
    let output = logout.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", support::said(&output));
    assert_eq!(home.text(), before);
    let mut terminal = Terminal::start(&logout);
    terminal.wait("[y/N]");
    terminal.type_in("y\n");
    terminal.wait("signed out of Trakt");
    assert_eq!(terminal.end(), Some(0));
    daemon.wait_log(&["signed out, nothing to do until"]);
    let text = home.text();
    assert!(value(&text, "access_token").is_empty() && around(&text) == around(&before), "{text}");
    assert!(!sandbox.is_live(refresh_token(&grant)));
    for entry in std::fs::read_dir(home.state()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        let kept = String::from_utf8_lossy(&bytes);
        assert!(!kept.contains(refresh_token(&grant).expose()) && !kept.contains(grant.access_token.expose()));
    }
    home.write(&before);
    daemon.reload();
    let status = command(&home, "status", &sandbox).output().unwrap();
    assert!(support::said(&status).contains("signed out"), "{}", support::said(&status));
    daemon.stop();
    assert!(sandbox.ledger().codes.devices.is_empty());
    assert_eq!(home.text(), before);
    let terminal = Terminal::start(&login(&home, "trakt", &sandbox));
    terminal.wait("waiting for you");
    assert!(sandbox.approve_device(&user_code(&sandbox)));
    terminal.wait("authorized, the new pair is in");
    assert_eq!(terminal.end(), Some(0));
}

/// Whoever had the file open while `logout` replaced it, and saves a moment later, does not lose the edit: it is
/// in the file, and the tokens that stood in their copy are not.
#[test]
fn logout_beside_a_writer() {
    let sandbox = sandbox();
    let attempt = || {
        let grant = sandbox.issue(&TRAKT, CLIENT, 0);
        let before = config_with(&grant);
        let home = Home::new(&before);
        let mut open = std::fs::File::options().write(true).open(&home.config).unwrap();
        let mut logout = command(&home, "logout", &sandbox).args(["trakt", "--yes"]).spawn().unwrap();
        home.wait(|text| value(text, "access_token").is_empty());
        open.set_len(0).unwrap();
        open.write_all(before.replace("cache: true", "cache: false  # mine").as_bytes()).unwrap();
        drop(open);
        // On a machine that was busy elsewhere it may be too late.
        let is_in_time = logout.try_wait().unwrap().is_none();
        assert_eq!(logout.wait().unwrap().code(), Some(0));
        let text = home.text();
        assert!(!text.contains(grant.access_token.expose()) && value(&text, "refresh_token").is_empty(), "{text}");
        is_in_time && text.contains("cache: false  # mine\n")
    };
    assert!((0..5).any(|_| attempt()), "the edit was lost each time");
}

/// A write in place that a kill tore left a file that is no YAML: it is finished before it is read.
#[test]
fn logout_where_a_kill_tore_the_file() {
    let sandbox = sandbox();
    let before = config_with(&sandbox.issue(&TRAKT, CLIENT, 0));
    let after =
        before.replacen("access_token: ", "access_token: '", 1).replacen("\n    token_type", "'\n    token_type", 1);
    let cut = after.find('\'').unwrap() + 5;
    let home = Home::new(&format!("{}{}", &after[..cut], &before[cut..]));
    assert!(serde_yaml::from_str::<serde_yaml::Value>(&home.text()).is_err(), "{}", home.text());
    let place = Place::new(&home.config, None, "trakt");
    ensure_state(&RealDisk, &place.state).unwrap();
    let both = format!("{before}{after}");
    let redo = format!("{} {} {}\n{both}", Fingerprint::of(both.as_bytes()), before.len(), after.len());
    std::fs::write(&place.redo, redo).unwrap();
    let output = command(&home, "logout", &sandbox).args(["trakt", "--yes"]).output().unwrap();
    let said = support::said(&output);
    assert!(output.status.success() && said.contains("signed out of Trakt"), "{said}");
    let text = home.text();
    assert!(value(&text, "access_token").is_empty() && around(&text) == around(&before), "{text}");
}

/// A provider that cannot be reached revokes nothing, so nothing is changed; `MyAnimeList` has no way to
/// revoke, and that is said.
#[test]
fn logout_that_cannot_revoke() {
    let sandbox = sandbox();
    let (trakt, mal) = (sandbox.issue(&TRAKT, CLIENT, 0), sandbox.issue(&MAL, CLIENT, 0));
    let before = config_with(&trakt) + &support::mal_section(&mal);
    let home = Home::new(&before);
    fault(&sandbox, "revoke:503");
    let output = command(&home, "logout", &sandbox).args(["trakt", "--yes"]).output().unwrap();
    let said = support::said(&output);
    assert!(output.status.code() == Some(1) && said.contains("nothing was changed"), "{said}");
    assert_eq!(home.text(), before);
    let output = command(&home, "logout", &sandbox).args(["mal", "--yes"]).output().unwrap();
    let said = support::said(&output);
    assert!(output.status.success() && said.contains("revokes nothing by itself"), "{said}");
    let text = home.text();
    assert!(text.contains(trakt.access_token.expose()) && !text.contains(mal.access_token.expose()), "{text}");
}

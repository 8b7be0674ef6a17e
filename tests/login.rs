//! Signing in and out with the real program against the sandbox: device codes,
//! PINs beside them, pasted addresses, `login` and `logout`.

mod support;

use std::process::Command;

use kometa_authd::provider::{MAL, TRAKT};
use kometa_authd::sandbox::rules::Rules;
use kometa_authd::sandbox::world::World;
use kometa_authd::sandbox::{Options, Sandbox};
use support::{CLIENT, Home, PATIENCE, Running, around, config_with, fault, refresh_token, value};

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

/// The file is put back without a grant while a code is open: a PIN in it wins, and the code is let be.
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
    assert!(line.contains("invalid_grant"), "{line}");
    assert!(sandbox.approve_device(&user_code(&sandbox)));
    daemon.wait_log(&["authorized, new pair is in the file"]);
    assert_eq!(value(&home.text(), "refresh_token"), refresh_token(&sandbox.live(&TRAKT, CLIENT).unwrap()).expose());
    daemon.stop();
}

fn user_code_later(sandbox: &Sandbox) -> String {
    wait_codes(sandbox, 1);
    user_code(sandbox)
}

/// The link of a log line.
fn link(line: &str) -> String {
    let start = line.find("link=").unwrap() + "link=".len();
    line[start..].split(' ').next().unwrap().to_owned()
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

//! The running sandbox, asked byte by byte over plain TCP: each fault arrives as it is described,
//! and the ledger knows whether the token was spent.
#![cfg(feature = "sandbox")]
#![allow(clippy::disallowed_methods, reason = "a loop that ends by an event has a limit on the clock")]

use kometa_authd::provider::{MAL, TRAKT};
use kometa_authd::sandbox::ledger::Ended;
use kometa_authd::sandbox::rules::{Rotation, Rules};
use kometa_authd::sandbox::{Options, Sandbox};
use kometa_authd::token::{Grant, Secret};
use serde_json::{Value, json};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Far beyond what anything here takes; a test that gets here has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// Both providers over the wire, three rotations each; the ledger has every step.
#[test]
fn refreshes_of_both_providers() {
    let sandbox = start(Rotation::Strict);
    for (provider, ask) in [(&TRAKT, trakt as fn(&Secret) -> String), (&MAL, mal)] {
        let mut token = refresh_token(&sandbox.issue(provider, "c", 5));
        for _ in 0..3 {
            let answer = send(sandbox.address(), &ask(&token)).expect("an answer");
            assert_eq!(answer.status, Some(200));
            let grant = Grant::from_json(&answer.body).expect("a grant");
            assert!(!sandbox.is_live(&token));
            token = refresh_token(&grant);
        }
        assert!(sandbox.live(provider, "c").is_some_and(|grant| refresh_token(&grant) == token));
    }
    assert_eq!(sandbox.ledger().spent_and_reused(), (6, 0));
    let visits = sandbox.requests();
    assert_eq!(visits.len(), 6);
    assert!(
        visits.iter().all(|visit| visit.status == Some(200) && visit.grant_type.as_deref() == Some("refresh_token"))
    );
    assert_eq!(visits[0].user_agent.as_deref(), Some("test"));
    assert!(visits.is_sorted_by_key(|visit| visit.at_ms));
}

/// What a client sees of each fault, and whether its token lives afterwards.
#[test]
fn every_fault_over_the_wire() {
    type Sight = fn(&io::Result<Answer>) -> bool;
    fn status(answer: &io::Result<Answer>) -> u16 {
        answer.as_ref().ok().and_then(|answer| answer.status).unwrap_or(0)
    }
    fn json(answer: &io::Result<Answer>) -> Value {
        answer.as_ref().ok().and_then(|answer| serde_json::from_slice(&answer.body).ok()).unwrap_or_default()
    }
    fn html(answer: &io::Result<Answer>) -> bool {
        answer.as_ref().is_ok_and(|answer| answer.header("content-type").contains("text/html"))
    }
    fn header<'a>(answer: &'a io::Result<Answer>, name: &str) -> &'a str {
        answer.as_ref().map_or("", |answer| answer.header(name))
    }
    let silent: Sight = |a| a.as_ref().is_ok_and(|a| a.raw.is_empty());
    let cut = |a: &io::Result<Answer>| {
        let Ok(a) = a else { return false };
        a.status == Some(200) && !a.body.is_empty() && a.body.len() < a.header("content-length").parse().unwrap_or(0)
    };
    let table: [(&str, bool, Sight); 33] = [
        ("delay=1", false, |a| status(a) == 200),
        ("late=1", false, |a| status(a) == 200),
        ("drop-before", true, silent),
        ("drop-after", false, silent),
        ("truncate", false, cut),
        ("reset", false, |a| a.as_ref().is_err_and(|e| e.kind() == ErrorKind::ConnectionReset)),
        ("garbage", true, |a| a.as_ref().is_ok_and(|a| a.status.is_none() && !a.raw.is_empty())),
        ("500", true, |a| status(a) == 500 && html(a)),
        ("502", true, |a| status(a) == 502),
        ("5xx", true, |a| status(a) == 503),
        ("408", true, |a| status(a) == 408),
        ("lost=502", false, |a| status(a) == 502 && html(a)),
        ("403-html", true, |a| status(a) == 403 && html(a)),
        ("challenge", true, |a| status(a) == 200 && html(a)),
        ("429", true, |a| status(a) == 429 && header(a, "retry-after").is_empty()),
        ("429=7/json", true, |a| header(a, "retry-after") == "7" && json(a)["error"].is_string()),
        ("429=7/text", true, |a| header(a, "content-type").starts_with("text/plain")),
        ("429=7/html", true, |a| status(a) == 429 && html(a)),
        ("huge=3000000", true, |a| {
            a.as_ref().is_ok_and(|a| a.raw.len() > 3_000_000) && header(a, "content-length").is_empty()
        }),
        ("padded=70000", false, |a| {
            a.as_ref().is_ok_and(|a| a.body.len() == 70_000) && json(a)["access_token"].is_string()
        }),
        ("302=http://127.0.0.1:1/x", true, |a| status(a) == 302 && header(a, "location") == "http://127.0.0.1:1/x"),
        ("307", true, |a| status(a) == 307 && header(a, "location") == "https://elsewhere.invalid/"),
        ("invalid-client", true, |a| status(a) == 401 && json(a)["error"] == "invalid_client"),
        ("invalid-grant", true, |a| status(a) == 400 && json(a)["error"] == "invalid_grant"),
        ("no-refresh_token", true, |a| json(a)["access_token"].is_string() && json(a)["refresh_token"].is_null()),
        ("no-scope", false, |a| json(a)["scope"].is_null() && json(a)["refresh_token"].is_string()),
        ("no-created_at", false, |a| json(a)["created_at"].is_null()),
        ("token_type=mac", false, |a| json(a)["token_type"] == "mac"),
        ("expires_in=0", false, |a| json(a)["expires_in"] == 0),
        ("expires_in=-1", false, |a| json(a)["expires_in"] == -1),
        ("expires_in=\"1928374655\"", false, |a| json(a)["expires_in"] == "1928374655"),
        ("created_at=137946258", false, |a| json(a)["created_at"] == 137_946_258),
        ("created_at=99999999999999", false, |a| json(a)["created_at"] == 99_999_999_999_999_i64),
    ];
    let sandbox = start(Rotation::Strict);
    for (fault, lives, is_seen) in table {
        let token = refresh_token(&sandbox.issue(&TRAKT, "c", 0));
        sandbox.fault(fault.parse().expect("a fault"));
        let answer = send(sandbox.address(), &trakt(&token));
        assert!(is_seen(&answer), "{fault}: status {}", status(&answer));
        assert_eq!(sandbox.is_live(&token), lives, "{fault}");
        assert_eq!(sandbox.requests().last().map(|visit| visit.faults.len()), Some(1), "{fault}");
        // And then it is over.
        let token = refresh_token(&sandbox.issue(&TRAKT, "c", 0));
        assert_eq!(
            send(sandbox.address(), &trakt(&token)).map(|answer| answer.status).ok(),
            Some(Some(200)),
            "{fault}"
        );
    }
}

/// Requests that get no answer: whether the token was spent is known while the client still waits,
/// and stopping the sandbox ends the wait.
#[test]
fn answers_that_never_come() {
    for (fault, acted) in [("hang", None), ("delay=10m", None), ("late=10m", Some(200))] {
        let sandbox = start(Rotation::Strict);
        let token = refresh_token(&sandbox.issue(&TRAKT, "c", 0));
        sandbox.fault(fault.parse().expect("a fault"));
        let (address, request) = (sandbox.address(), trakt(&token));
        let client = std::thread::spawn(move || send(address, &request));
        let arrived = sandbox.wait(PATIENCE, |world| world.requests.iter().any(|visit| visit.acted == acted));
        assert!(arrived, "{fault}");
        assert_eq!(sandbox.is_live(&token), acted.is_none(), "{fault}");
        assert!(!client.is_finished(), "{fault}");
        drop(sandbox);
        let answer = client.join().expect("no panic");
        assert!(answer.map_or(true, |answer| answer.raw.is_empty()), "{fault}");
    }
}

/// A request that has arrived is acted on, although its client has gone: a timeout is no refusal.
#[test]
fn clients_that_go() {
    let sandbox = start(Rotation::Strict);
    let token = refresh_token(&sandbox.issue(&TRAKT, "c", 0));
    sandbox.fault("delay=50".parse().expect("a fault"));
    let mut client = TcpStream::connect(sandbox.address()).expect("a connection");
    client.write_all(trakt(&token).as_bytes()).expect("sent");
    assert!(sandbox.wait(PATIENCE, |world| world.requests.len() == 1));
    drop(client);
    assert!(sandbox.wait(PATIENCE, |world| world.requests[0].acted == Some(200)));
    assert!(!sandbox.is_live(&token));
}

/// Refused connections: open ones break, new ones are refused, the port stays, and all is well after.
#[test]
fn refused_connections() {
    let sandbox = start(Rotation::Strict);
    let token = refresh_token(&sandbox.issue(&TRAKT, "c", 0));
    let mut idle = TcpStream::connect(sandbox.address()).expect("a connection");
    idle.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    // Once it was answered, the connection is not only waiting to be accepted.
    idle.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    assert!(idle.read(&mut [0; 4096]).is_ok_and(|read| read > 0));
    sandbox.refuse_connections();
    sandbox.refuse_connections();
    assert!(idle.read(&mut [0; 9]).map_or_else(|error| error.kind() == ErrorKind::ConnectionReset, |read| read == 0));
    assert_eq!(refusal(&sandbox), Some(ErrorKind::ConnectionRefused));
    sandbox.accept_connections();
    sandbox.fault("refuse=10m".parse().expect("a fault"));
    let answer = send(sandbox.address(), &trakt(&token));
    assert!(answer.is_ok_and(|answer| answer.raw.is_empty()));
    assert_eq!(refusal(&sandbox), Some(ErrorKind::ConnectionRefused));
    assert!(sandbox.is_live(&token));
    sandbox.accept_connections();
    assert_eq!(send(sandbox.address(), &trakt(&token)).expect("an answer").status, Some(200));
}

/// After `refuse` the sandbox comes back by itself.
#[test]
fn refusing_for_a_while() {
    let sandbox = start(Rotation::Strict);
    let token = refresh_token(&sandbox.issue(&TRAKT, "c", 0));
    sandbox.fault("refuse=1".parse().expect("a fault"));
    assert!(send(sandbox.address(), &trakt(&token)).is_ok_and(|answer| answer.raw.is_empty()));
    let deadline = Instant::now() + PATIENCE;
    while !send(sandbox.address(), &trakt(&token)).is_ok_and(|answer| answer.status == Some(200)) {
        assert!(Instant::now() < deadline, "it never came back");
        std::thread::yield_now();
    }
}

/// A client that presents its token again after a lost answer: what is left under each policy.
#[test]
fn lost_answer_under_each_policy() {
    for (rotation, second, ended) in [
        (Rotation::Strict, 400, Some(Ended::Spent)),
        (Rotation::Grace, 200, None),
        (Rotation::Family, 400, Some(Ended::Spent)),
    ] {
        let sandbox = start(rotation);
        let token = refresh_token(&sandbox.issue(&TRAKT, "c", 0));
        sandbox.fault("drop-after".parse().expect("a fault"));
        assert!(send(sandbox.address(), &trakt(&token)).expect("a close").raw.is_empty());
        assert_eq!(send(sandbox.address(), &trakt(&token)).expect("an answer").status, Some(second), "{rotation:?}");
        let ledger = sandbox.ledger();
        assert_eq!(ledger.spent_and_reused(), (1, 1), "{rotation:?}");
        assert_eq!(ledger.find(token.expose()).and_then(|entry| entry.refresh_ended), ended, "{rotation:?}");
        // Only the family's policy leaves nothing that lives.
        assert_eq!(sandbox.live(&TRAKT, "c").is_some(), rotation != Rotation::Family, "{rotation:?}");
    }
}

/// Two requests on one connection, as HTTP clients like to do it.
#[test]
fn connections_are_kept() {
    let sandbox = start(Rotation::Strict);
    let grant = sandbox.issue(&TRAKT, "c", 0);
    let request = format!(
        "GET /users/settings HTTP/1.1\r\nHost: x\r\nUser-Agent: test\r\nAuthorization: Bearer {}\r\n\r\n",
        grant.access_token.expose()
    );
    let mut stream = BufReader::new(TcpStream::connect(sandbox.address()).expect("a connection"));
    for _ in 0..2 {
        stream.get_mut().write_all(request.as_bytes()).expect("sent");
        let mut length = 0;
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).expect("a header");
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().expect("a number");
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).expect("a body");
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(body["user"]["username"], "sandbox");
    }
}

/// Time passes for the sandbox alone: tokens and PINs expire without anybody waiting.
#[test]
fn time_passes() {
    let sandbox = start(Rotation::Strict);
    sandbox.set_lifetime(20);
    let grant = sandbox.issue(&TRAKT, "c", 0);
    let pin = sandbox.pin();
    let settings = format!(
        "GET /users/settings HTTP/1.1\r\nHost: x\r\nUser-Agent: t\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\r\n",
        grant.access_token.expose()
    );
    let redeem =
        json!({"client_id": "c", "code": pin.expose(), "grant_type": "authorization_code", "redirect_uri": "x"});
    let redeem = post("/oauth/token", "application/json", &redeem.to_string());
    assert_eq!(send(sandbox.address(), &settings).expect("an answer").status, Some(200));
    sandbox.advance(600);
    assert_eq!(send(sandbox.address(), &settings).expect("an answer").status, Some(401));
    assert_eq!(send(sandbox.address(), &redeem).expect("an answer").status, Some(400));
    assert!(sandbox.now() >= sandbox.ledger().entries()[0].issued_at.plus(600));
}

/// The device flow with a person in between, and the pasted address of `MyAnimeList`.
#[test]
fn people_decide() {
    let sandbox = start(Rotation::Strict);
    sandbox.set_rules(|rules| rules.device_interval_s = 0);
    for (decide, status) in [(Sandbox::approve_device as fn(&Sandbox, &str) -> bool, 200), (Sandbox::deny_device, 418)]
    {
        let ask = post("/oauth/device/code", "application/json", r#"{"client_id":"c"}"#);
        let answer = send(sandbox.address(), &ask).expect("an answer");
        let answer: Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert_eq!(answer["verification_url"], format!("{}/activate", sandbox.url()));
        let poll = json!({"client_id": "c", "code": answer["device_code"]}).to_string();
        let poll = post("/oauth/device/token", "application/json", &poll);
        assert_eq!(send(sandbox.address(), &poll).expect("an answer").status, Some(400));
        assert!(decide(&sandbox, answer["user_code"].as_str().expect("a code")));
        assert_eq!(send(sandbox.address(), &poll).expect("an answer").status, Some(status));
    }
    let verifier = "v".repeat(43);
    let page =
        format!("{}/v1/oauth2/authorize?response_type=code&client_id=c&code_challenge={verifier}", sandbox.url());
    let landed = sandbox.authorize(&page).expect("a redirect");
    let code = landed.strip_prefix("http://localhost/?code=").expect("a code");
    let body = format!("client_id=c&grant_type=authorization_code&code={code}&code_verifier={verifier}");
    let answer = send(sandbox.address(), &post("/v1/oauth2/token", "application/x-www-form-urlencoded", &body));
    assert_eq!(answer.expect("an answer").status, Some(200));
    assert!(sandbox.authorize("http://localhost/elsewhere").is_none());
}

/// Its own pages, and what a script can make it do.
#[test]
fn control_pages() {
    let sandbox = start(Rotation::Strict);
    let token = refresh_token(&sandbox.issue(&TRAKT, "c", 0));
    let fault = send(sandbox.address(), &post("/sandbox/fault?503@2", "text/plain", "")).expect("an answer");
    assert_eq!((fault.status, fault.body.as_slice()), (Some(200), &b"token:503@2\n"[..]));
    assert_eq!(send(sandbox.address(), &trakt(&token)).expect("an answer").status, Some(503));
    send(sandbox.address(), &post("/sandbox/clear", "text/plain", "")).expect("an answer");
    assert_eq!(send(sandbox.address(), &trakt(&token)).expect("an answer").status, Some(200));
    let get = |path| format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let page = send(sandbox.address(), &get("/")).expect("an answer");
    assert!(String::from_utf8_lossy(&page.body).contains("refresh tokens spent  1"));
    let ledger = send(sandbox.address(), &get("/ledger.json")).expect("an answer");
    let ledger: Value = serde_json::from_slice(&ledger.body).expect("JSON");
    assert_eq!(ledger["tokens"][0]["superseded_by"], ledger["tokens"][1]["fingerprint"]);
    assert_eq!(ledger["requests"].as_array().map(Vec::len), Some(2), "its own pages are no requests");
}

/// Loopback only, one sandbox a port, and nothing listens after the drop.
#[test]
fn starting_and_stopping() {
    let at = |listen: SocketAddr| Sandbox::start(Options { listen, ..Options::default() });
    let refused = at(([0, 0, 0, 0], 0).into()).err().expect("a refusal");
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    let sandbox = start(Rotation::Strict);
    let address = sandbox.address();
    assert_eq!(at(address).err().expect("a refusal").kind(), ErrorKind::AddrInUse);
    assert!(!sandbox.wait(Duration::ZERO, |world| !world.requests.is_empty()));
    drop(sandbox);
    assert_eq!(TcpStream::connect(address).err().map(|error| error.kind()), Some(ErrorKind::ConnectionRefused));
}

fn start(rotation: Rotation) -> Sandbox {
    let rules = Rules { rotation, ..Rules::default() };
    Sandbox::start(Options { rules, ..Options::default() }).expect("a sandbox")
}

fn refresh_token(grant: &Grant) -> Secret {
    grant.refresh_token.clone().expect("a refresh token")
}

fn refusal(sandbox: &Sandbox) -> Option<ErrorKind> {
    TcpStream::connect(sandbox.address()).err().map(|error| error.kind())
}

fn trakt(token: &Secret) -> String {
    let body = json!({"client_id": "c", "client_secret": "s", "grant_type": "refresh_token",
        "redirect_uri": "urn:ietf:wg:oauth:2.0:oob", "refresh_token": token.expose()});
    post("/oauth/token", "application/json", &body.to_string())
}

fn mal(token: &Secret) -> String {
    let body = format!("client_id=c&client_secret=s&grant_type=refresh_token&refresh_token={}", token.expose());
    post("/v1/oauth2/token", "application/x-www-form-urlencoded", &body)
}

fn post(path: &str, content_type: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: HOST\r\nUser-Agent: test\r\nConnection: close\r\n\
         Content-Type: {content_type}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// What came back until the connection ended.
struct Answer {
    raw: Vec<u8>,
    status: Option<u16>,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
    }
}

fn send(address: SocketAddr, request: &str) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request.replace("HOST", &address.to_string()).as_bytes())?;
    let mut raw = Vec::new();
    stream.read_to_end(&mut raw)?;
    let end = raw.windows(4).position(|four| four == b"\r\n\r\n").map_or(raw.len(), |at| at + 4);
    let head = String::from_utf8_lossy(&raw[..end]).into_owned();
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    Ok(Answer { body: raw[end..].to_vec(), raw, status, head })
}

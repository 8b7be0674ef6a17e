//! The real program against the sandbox: its main job.
#![cfg(feature = "sandbox")]

mod support;

use kometa_authd::provider::TRAKT;
use kometa_authd::sandbox::{Options, Sandbox};
use support::{CLIENT, Home, around, config_with, value};

/// An expired token at start is refreshed at once, and only the block's values change: the file is
/// compared with those taken out, the ledger says that nothing was spent twice.
#[test]
fn expired_at_start() {
    let sandbox = Sandbox::start(Options::default()).unwrap();
    let before = config_with(&sandbox.issue(&TRAKT, CLIENT, 8 * 86_400));
    let home = Home::new(&before);
    let daemon = home.daemon(&sandbox);
    let line = daemon.wait_log(&["config.yml#trakt", "token refreshed"]);
    assert!(line.contains("expires_in_s=604800"), "{line}");
    let after = home.text();
    let newest = sandbox.live(&TRAKT, CLIENT).unwrap();
    assert_eq!(value(&after, "refresh_token"), newest.refresh_token.unwrap().expose());
    assert_eq!(value(&after, "access_token"), newest.access_token.expose());
    assert_eq!(around(&after), around(&before));
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    assert_eq!(sandbox.ledger().spent_and_reused(), (1, 0));
    assert_eq!(home.names(), [".kometa-authd", "config.yml"]);
}

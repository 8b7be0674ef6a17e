//! What has to have happened in a sweep for it to prove anything, from the
//! code's own lists: one that never happened fails it.

use std::collections::BTreeMap;

use kometa_authd::decision::{Publishing, Refreshing, Waiting};
use kometa_authd::event::Kind;

use super::machine::TROUBLES;

/// Events that no simulated daemon can announce, and why.
const NEVER: [(Kind, &str); 5] = [
    (Kind::Watching, "the program says it before the loop begins"),
    (Kind::LoggedOut, "only `logout` does"),
    (Kind::Due, "only `status` says what is due, the loop does it"),
    (Kind::Expired, "only `status`; the loop refreshes"),
    (Kind::Stranded, "tests/mounts.rs: needs a second mount namespace"),
];

const ACTS: [&str; 45] = [
    "Start",
    "Kill",
    "KillAsking",
    "KillWriting",
    "Stop",
    "Reload",
    "PowerLoss",
    "PowerLossWriting",
    "Outage",
    "OutageEnds",
    "Trouble",
    "TroubleEnds",
    "DiskFails",
    "DiskFull",
    "DiskReadOnly",
    "DiskSlow",
    "DiskIsFast",
    "ClockStep",
    "Suspend",
    "BadBoot",
    "ClockIsSet",
    "Edit",
    "EditWhileWeWrite",
    "SlowSave",
    "SaveStep",
    "Copy",
    "Restore",
    "SignOut",
    "NewPin",
    "NewPair",
    "EnterCode",
    "PasteAddress",
    "Revoke",
    "NoClient",
    "ClientIsBack",
    "Reference",
    "ReferenceIsGone",
    "StateOpen",
    "StateIsClosed",
    "Kometa",
    "KometaAsks",
    "KometaEnds",
    "SaveAcross",
    "Broken",
    "IsMended",
];

const DISK: [&str; 12] = [
    "operations fail",
    "full disk",
    "read-only disk",
    "killed at an operation",
    "power lost at an operation",
    "power loss: name kept",
    "power loss: name dropped",
    "power loss: data kept",
    "power loss: data dropped",
    "power loss: data torn",
    "an edit between two operations",
    "a save into a file that was replaced",
];

const OTHERS: [&str; 11] = [
    "network: no route",
    "network: not sent",
    "network: unknown",
    "network: answered 200",
    "network: answered 400",
    "network: answered 403",
    "network: answered 429",
    "network: answered 503",
    "life: ended",
    "kometa: refreshed",
    "kometa: refused",
];

/// Everything that has to have happened.
pub fn required() -> Vec<String> {
    let events = Kind::ALL.iter().filter(|kind| !NEVER.iter().any(|(never, _)| never == *kind));
    let mut all: Vec<String> = events.map(|kind| format!("event: {kind:?}")).collect();
    all.extend(Waiting::ALL.iter().map(|reason| format!("decision: wait, {reason}")));
    all.extend(
        Refreshing::ALL.iter().filter(|why| **why != Refreshing::Forced).map(|why| format!("decision: refresh, {why}")),
    );
    all.extend(Publishing::ALL.iter().map(|why| format!("decision: publish, {why:?}")));
    all.extend(
        ["adopt", "sign out", "exchange", "ask for a code", "poll", "make a link"]
            .map(|what| format!("decision: {what}")),
    );
    all.extend(ACTS.map(|act| format!("act: {act}")));
    all.extend(DISK.map(|what| format!("disk: {what}")));
    all.extend(TROUBLES.map(|what| format!("network: {what}")));
    all.extend(OTHERS.map(str::to_owned));
    all
}

/// What has to have happened and never did.
pub fn missing(coverage: &BTreeMap<String, u64>) -> Vec<String> {
    required().into_iter().filter(|what| !coverage.contains_key(what)).collect()
}

/// Everything that happened, a line each.
pub fn lines(coverage: &BTreeMap<String, u64>) -> String {
    let mut lines: Vec<String> = coverage.iter().map(|(what, count)| format!("{count:>10}  {what}\n")).collect();
    lines.extend(NEVER.iter().map(|(kind, why)| format!("     never  event: {kind:?} ({why})\n")));
    lines.concat()
}

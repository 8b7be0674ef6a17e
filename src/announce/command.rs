//! `--on-event`: a program of the user's, run for each message.
//!
//! Without a shell and without arguments: the message is in its environment and, as JSON, on its
//! standard input. Its environment has neither our settings nor the secrets that Kometa's references
//! stand for. It has a time limit, and takes its children along when it is killed.

use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use super::notice::Notice;
use crate::disk::explain;

/// How long it may take.
pub const COMMAND_LIMIT: Duration = Duration::from_secs(30);

/// What a pipe takes at once even where the user has too many of them (pipe(7)).
const PIPE_BYTES: usize = 4096;

/// A program that runs, and its children: they are killed where nobody waits for them any more, at the time
/// limit as well as at a stop.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // One that is gone already has ended in this moment.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Runs the program for a notice.
///
/// # Errors
/// It cannot be started, fails, or takes too long; the sentence says which.
pub async fn run(program: &Path, notice: &Notice, limit: Duration) -> Result<(), String> {
    let mut command = tokio::process::Command::new(program);
    for (name, _) in std::env::vars_os() {
        let shown = name.to_string_lossy();
        if shown.starts_with("KOMETA_") || shown.starts_with("PMM_") {
            command.env_remove(&name);
        }
    }
    let expires_at = notice.expires_at.map_or_else(String::new, |at| at.0.to_string());
    for (name, value) in [
        ("EVENT", notice.event.as_str()),
        ("ACCOUNT", &notice.account),
        ("CONFIG", &notice.path),
        ("LEVEL", notice.level_name()),
        ("MESSAGE", &notice.sentence),
        ("DETAIL", &notice.detail),
        ("TODO", &notice.todo),
        ("LINK", notice.link.as_deref().unwrap_or_default()),
        ("TEXT", &notice.body()),
        ("EXPIRES_AT", &expires_at),
    ] {
        // The system takes no NUL in a value.
        command.env(format!("KOMETA_AUTHD_{name}"), value.replace('\0', " "));
    }
    let unstarted = |error: std::io::Error| format!("it cannot be started: {}", explain(&error));
    let (read, mut write) = std::io::pipe().map_err(unstarted)?;
    let mut json = notice.json();
    if let Some(fields) = json.as_object_mut().filter(|_| notice.body().len() > PIPE_BYTES / 4) {
        // The environment has the whole.
        fields.insert("text".to_owned(), notice.title().into());
        fields.insert("detail".to_owned(), "".into());
    }
    let json = json.to_string();
    write.write_all(if json.len() <= PIPE_BYTES { json.as_bytes() } else { b"{}" }).map_err(unstarted)?;
    drop(write);
    command.stdin(Stdio::from(read)).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).kill_on_drop(true);
    let mut child = command.spawn().map_err(unstarted)?;
    let mut group = Group(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
    let Ok(ended) = tokio::time::timeout(limit, child.wait()).await else {
        drop(group);
        let _ = child.wait().await;
        return Err(format!("it did not end within {} seconds and was killed", limit.as_secs()));
    };
    // What it left running on purpose may stay.
    group.0 = None;
    match ended {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("it ended with {status}")),
        Err(error) => Err(explain(&error)),
    }
}

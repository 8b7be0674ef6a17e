//! SIGTERM and SIGINT say stop, SIGHUP says look again.
//!
//! No thread and no polling: a signal writes a byte into a socket that the
//! loop waits on. A second SIGTERM or SIGINT ends the process at once, which
//! loses nothing: everything is made to be killed.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::{flag, low_level};
use tokio::net::UnixStream;

/// The signals that were asked for.
pub struct Signals {
    stop: Arc<AtomicBool>,
    stop_pulse: UnixStream,
    reload_pulse: UnixStream,
}

impl Signals {
    /// Takes the signals over; needs the runtime's context.
    pub fn new() -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (stop_pulse, reload_pulse) = (pulse(&[SIGTERM, SIGINT])?, pulse(&[SIGHUP])?);
        for signal in [SIGTERM, SIGINT] {
            // In this order: the first signal finds the flag unset, and sets it.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&stop))?;
            flag::register(signal, Arc::clone(&stop))?;
        }
        Ok(Self { stop, stop_pulse, reload_pulse })
    }

    /// Ends when the process is told to stop, also where that was before.
    pub async fn stopping(&self) {
        while !self.stop.load(Ordering::SeqCst) {
            drain(&self.stop_pulse).await;
        }
    }

    /// Ends when the process is told to look again.
    pub async fn reload(&self) {
        drain(&self.reload_pulse).await;
    }
}

fn pulse(signals: &[i32]) -> io::Result<UnixStream> {
    let (read, write) = std::os::unix::net::UnixStream::pair()?;
    read.set_nonblocking(true)?;
    for signal in signals {
        low_level::pipe::register(*signal, write.try_clone()?)?;
    }
    UnixStream::from_std(read)
}

/// Waits for at least one byte and takes all that are there.
async fn drain(pulse: &UnixStream) {
    let mut bytes = [0; 64];
    let mut got_one = false;
    loop {
        match pulse.try_read(&mut bytes) {
            Ok(1..) => got_one = true,
            _ if got_one => return,
            // A socket that is gone never says anything again.
            Ok(0) => std::future::pending().await,
            _ => {
                let _ = pulse.readable().await;
            }
        }
    }
}

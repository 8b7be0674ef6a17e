//! A whole refresh with its locks, journal, checks and syncs, with a provider that answers at once; and the
//! least that any program does to replace a file of the same size for good.

use std::cell::Cell;
use std::fs::{self, File};
use std::future::{pending, ready};
use std::path::{Path, PathBuf};
use std::time::Duration;

use divan::{Bencher, black_box};
use kometa_authd::daemon::facts::Names;
use kometa_authd::daemon::{Daemon, Setup, Wake, World};
use kometa_authd::decision::Urgency;
use kometa_authd::disk::RealDisk;
use kometa_authd::event::Event;
use kometa_authd::provider::TRAKT;
use kometa_authd::refresh::reply::Answer;
use kometa_authd::refresh::request::{Endpoint, Request};
use kometa_authd::refresh::{Network, Outcome};
use kometa_authd::settings::References;
use kometa_authd::token::UnixSeconds;

use super::{config, grant};

/// Real disk, pretend everything else: each refresh is a day after the one before.
struct Pretend {
    days: Cell<i64>,
}

impl Network for Pretend {
    async fn post(&self, _: &Request) -> Outcome {
        self.days.set(self.days.get() + 1);
        let body = grant(&format!("{:064}", self.days.get()), &format!("{:064x}", self.days.get())).into_bytes();
        Outcome::Answered(Answer { status: 200, retry_after_s: None, body })
    }
}

impl World for Pretend {
    type Disk = RealDisk;

    fn disk(&self) -> &RealDisk {
        &RealDisk
    }

    fn now(&self) -> UnixSeconds {
        kometa_authd::clock::now().plus(self.days.get() * 86_400)
    }

    fn draw(&self) -> f64 {
        0.5
    }

    fn pause(&self, _: Duration) -> impl Future<Output = ()> {
        ready(())
    }

    fn watch(&mut self, _: usize, _: &Path) -> bool {
        true
    }

    fn wake(&mut self, _: Option<UnixSeconds>, _: &str) -> impl Future<Output = Wake> {
        ready(Wake::Stop)
    }

    fn stopping(&self) -> impl Future<Output = ()> {
        pending()
    }

    fn announce(&mut self, _: Event) {}
}

/// A new folder on the disk that the project is on, with a config in it.
fn folder() -> (PathBuf, PathBuf) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the target folder is writable").keep();
    let path = folder.join("config.yml");
    fs::write(&path, config(8 << 10)).expect("the folder is writable");
    (folder, path)
}

#[divan::bench(sample_count = 200)]
fn bare(bencher: Bencher<'_, '_>) {
    let (folder, path) = folder();
    let text = config(8 << 10);
    bencher.bench_local(|| {
        let new = path.with_extension("new");
        fs::write(&new, black_box(&text)).and_then(|()| File::open(&new)?.sync_all())?;
        fs::rename(&new, &path)?;
        File::open(&folder)?.sync_all()
    });
    let _ = fs::remove_dir_all(folder);
}

#[divan::bench(sample_count = 200)]
fn refresh(bencher: Bencher<'_, '_>) {
    let (folder, path) = folder();
    let endpoint = Endpoint { provider: &TRAKT, auth_url: TRAKT.auth_url.to_owned(), redirect_uri: None };
    let setup = Setup {
        configs: vec![path.clone()],
        names: Names::new(std::slice::from_ref(&path)),
        state: None,
        endpoints: vec![endpoint],
        references: References::default(),
        times: "off".parse().expect("no times"),
        zone: jiff::tz::TimeZone::UTC,
        device_login: false,
        api_url: None,
    };
    let mut daemon = Daemon::new(Pretend { days: Cell::new(0) }, setup);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let before = fs::read_to_string(&path).ok();
    bencher.bench_local(|| runtime.block_on(daemon.once(Urgency::Forced)));
    assert!(fs::read_to_string(&path).ok() != before, "nothing was refreshed");
    let _ = fs::remove_dir_all(folder);
}

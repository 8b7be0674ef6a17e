//! Years of operation in seconds: the real loop, decisions, edit, journal and
//! store, against a pretend disk, network, provider, clock, Kometa and person.
//!
//! A seed decides everything, so the same seed is the same run anywhere. What
//! must hold is checked all the time ([`check`]); what must have happened is
//! counted ([`coverage`]); and a seed that breaks something is made small
//! enough to read ([`shrink`]).

#![allow(dead_code, reason = "the tests and the example each use a part")]
#![allow(
    clippy::too_many_lines,
    clippy::struct_excessive_bools,
    clippy::option_option,
    clippy::cast_sign_loss,
    clippy::cast_possible_truncation,
    clippy::needless_pass_by_value,
    clippy::format_collect,
    clippy::format_push_string,
    clippy::match_same_arms,
    clippy::assigning_clones,
    clippy::trivially_copy_pass_by_ref,
    reason = "a world is a long list of what happens in it"
)]

pub mod check;
pub mod coverage;
pub mod disk;
pub mod machine;
pub mod people;
pub mod plan;
pub mod run;
pub mod shrink;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use plan::Plan;

/// Many seeds, and what came of them.
pub struct Sweep {
    /// How much time was lived, over all seeds.
    pub lived_ms: i64,
    /// How many seeds there were.
    pub seeds: u64,
    /// How often each thing happened.
    pub coverage: BTreeMap<String, u64>,
    /// The first seed that broke something.
    pub broken: Option<u64>,
}

/// Runs as many seeds from `first` on as were planned to live `enough_ms`, each on one thread, until one breaks
/// something. Which seeds these are does not depend on who is faster.
pub fn sweep(first: u64, enough_ms: i64, threads: usize) -> Sweep {
    let (mut end, mut planned_ms) = (first, 0);
    while planned_ms < enough_ms {
        planned_ms += Plan::of(end).scenario.length_ms;
        end += 1;
    }
    let (lived, next) = (AtomicI64::new(0), AtomicU64::new(first));
    let (coverage, broken) = (Mutex::new(BTreeMap::new()), Mutex::new(None));
    let work = || {
        while broken.lock().expect("no panic").is_none() {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return;
            }
            let outcome = run::live(&Plan::of(seed));
            lived.fetch_add(outcome.lived_ms, Ordering::Relaxed);
            let mut coverage = coverage.lock().expect("no panic");
            for (what, count) in outcome.coverage {
                *coverage.entry(what).or_default() += count;
            }
            if outcome.broken.is_some() {
                let mut broken = broken.lock().expect("no panic");
                *broken = broken.map_or(Some(seed), |known: u64| Some(known.min(seed)));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    Sweep {
        lived_ms: lived.into_inner(),
        seeds: next.into_inner().min(end) - first,
        coverage: coverage.into_inner().expect("no panic"),
        broken: broken.into_inner().expect("no panic"),
    }
}

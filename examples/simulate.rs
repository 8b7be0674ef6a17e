//! Years of operation on all cores: what `tests/simulation` does with a few seeds, with as many as make
//! up so many simulated years.
//!
//! `cargo run --release --features sandbox --example simulate -- --years N --seed S`: seeds from S on (0
//! unless given), each a thread's; with `--seed` alone just that one. What happened, and how often, is on
//! standard output. The exit status is 1 where something broke, with the seed made small enough to read,
//! and where something never happened that has to (`--years` of at least a thousand).

#![allow(clippy::disallowed_methods, reason = "says how long it took")]

#[path = "../tests/simulation/play/mod.rs"]
mod play;

use std::process::ExitCode;
use std::time::Instant;

use play::{coverage, plan, shrink};

/// Of fewer years it is not expected that everything happens in them.
const COVERED_YEARS: i64 = 1000;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (mut years, mut seed) = (None, None);
    while let Some(name) = arguments.next() {
        let number = arguments.next().and_then(|number| number.parse::<i64>().ok());
        match (name.as_str(), number) {
            ("--years", Some(number)) => years = Some(number),
            ("--seed", Some(number)) => seed = Some(number.unsigned_abs()),
            _ => {
                eprintln!("usage: simulate [--years N] [--seed S]");
                return ExitCode::FAILURE;
            }
        }
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (enough_ms, threads) = match (years, seed) {
        (None, Some(_)) => (1, 1),
        (years, _) => (years.unwrap_or(COVERED_YEARS) * 365 * plan::DAY_MS, threads),
    };
    if let (None, Some(seed)) = (years, seed) {
        println!("{:?}", plan::Plan::of(seed).scenario);
    }
    let started = Instant::now();
    let sweep = play::sweep(seed.unwrap_or(0), enough_ms, threads);
    let lived_years = sweep.lived_ms / (365 * plan::DAY_MS);
    print!("{}", coverage::lines(&sweep.coverage));
    println!(
        "{lived_years} simulated years, {} seeds, {} threads, {:.1} s",
        sweep.seeds,
        threads,
        started.elapsed().as_secs_f64()
    );
    if let Some(seed) = sweep.broken {
        println!("\n{}", shrink::report(seed));
        return ExitCode::FAILURE;
    }
    let missing = coverage::missing(&sweep.coverage);
    if lived_years >= COVERED_YEARS && !missing.is_empty() {
        println!("\nnever happened, so nothing is proved about it:\n  {}", missing.join("\n  "));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

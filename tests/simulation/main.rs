//! The simulation, as far as it is quick without optimization: the first months of a few seeds.
//! `examples/simulate.rs` runs the years.

#![cfg(feature = "sandbox")]

mod conformance;
mod found;
mod play;

use play::plan::{DAY_MS, Plan};
use play::run;

/// The first months of a seed, with the quiet at the end that every run has.
fn first_months(seed: u64) -> Plan {
    let mut plan = Plan::of(seed);
    plan.acts.retain(|(at, _)| *at < 40 * DAY_MS);
    plan.scenario.length_ms = plan.scenario.length_ms.min(60 * DAY_MS);
    plan
}

/// A few seeds hold, and the same seed is the same run.
#[test]
fn a_few_seeds() {
    for seed in 0..3 {
        let outcome = run::live(&first_months(seed));
        assert!(outcome.lived_ms > DAY_MS);
        if let Some((what, trace)) = outcome.broken {
            panic!("seed {seed}: {what}\n{}", trace.join("\n"));
        }
    }
    let [one, other] = [run::live(&first_months(1)), run::live(&first_months(1))];
    assert_eq!(one.coverage, other.coverage);
}

//! A run that breaks something, made small enough to read: what can be left
//! out without mending it is left out.

use super::plan::{Act, Plan};
use super::run::{self, Outcome};

/// How many runs it may cost.
const RUNS_MAX: usize = 120;

/// The smallest plan found that still breaks something, and its outcome.
pub fn shrink(mut plan: Plan) -> (Plan, Outcome) {
    let mut outcome = run::live(&plan);
    let mut runs = 0;
    let mut attempt = |candidate: &Plan| {
        runs += 1;
        Some(run::live(candidate)).filter(|outcome| outcome.broken.is_some() && runs < RUNS_MAX)
    };
    // Nothing after the breach matters.
    plan.acts.retain(|(at, _)| *at <= outcome.lived_ms);
    plan.scenario.length_ms = plan.scenario.length_ms.min(outcome.lived_ms + 86_400_000);
    let mut piece = plan.acts.len().div_ceil(2).max(1);
    loop {
        let mut from = 0;
        while from < plan.acts.len() {
            let mut candidate = plan.clone();
            let to = (from + piece).min(plan.acts.len());
            let mut index = 0..;
            // Without a start nothing would happen at all.
            candidate.acts.retain(|(_, act)| {
                !(from..to).contains(&index.next().unwrap_or_default()) || matches!(act, Act::Start(0))
            });
            match attempt(&candidate) {
                Some(found) if candidate.acts.len() < plan.acts.len() => (plan, outcome) = (candidate, found),
                _ => from = to,
            }
        }
        if piece == 1 {
            return (plan, outcome);
        }
        piece = piece.div_ceil(2);
    }
}

/// A broken run, for a person.
pub fn report(seed: u64) -> String {
    let (plan, outcome) = shrink(Plan::of(seed));
    let (what, trace) = outcome.broken.unwrap_or_else(|| ("it is well when run again".to_owned(), Vec::new()));
    let acts: Vec<String> =
        plan.acts.iter().map(|(at, act)| format!("  {} {act:?}", run::moment(run::START_MS + at))).collect();
    format!(
        "seed {seed}: {what}\n\n{:?}\n\nwhat was planned, as far as it is needed:\n{}\n\nwhat happened last:\n{}\n\nagain: cargo run --release --features sandbox --example simulate -- --seed {seed}\n",
        plan.scenario,
        acts.join("\n"),
        trace.join("\n"),
    )
}

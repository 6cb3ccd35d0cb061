//! Finds what of a plan is needed for its failure.

use super::plan::Plan;

/// Drops steps and clients as long as `fails` says that what is left fails too; asks at most `attempts` times.
pub fn shorten(plan: &Plan, attempts: usize, mut fails: impl FnMut(&Plan) -> bool) -> Plan {
    let mut shortest = plan.clone();
    let mut left = attempts;
    let mut try_it = |candidate: Plan, shortest: &mut Plan| {
        if left == 0 {
            return false;
        }
        left -= 1;
        let still_fails = fails(&candidate);
        if still_fails {
            *shortest = candidate;
        }
        still_fails
    };
    // Large parts first: most steps have nothing to do with it.
    let mut size = shortest.steps.len().div_ceil(2);
    while size > 0 {
        let mut from = 0;
        while from < shortest.steps.len() {
            let mut candidate = shortest.clone();
            let to = (from + size).min(candidate.steps.len());
            candidate.steps.drain(from..to);
            if !try_it(candidate, &mut shortest) {
                from += size;
            }
        }
        size /= 2;
    }
    for index in (0..shortest.groups.len()).rev() {
        let mut candidate = shortest.clone();
        candidate.groups.remove(index);
        try_it(candidate, &mut shortest);
    }
    for index in (0..shortest.readers.len()).rev() {
        let mut candidate = shortest.clone();
        candidate.readers.remove(index);
        try_it(candidate, &mut shortest);
    }
    for index in (0..shortest.producers.len()).rev() {
        let mut candidate = shortest.clone();
        candidate.producers.remove(index);
        try_it(candidate, &mut shortest);
    }
    let mut candidate = shortest.clone();
    candidate.recreates = false;
    if candidate != shortest {
        try_it(candidate, &mut shortest);
    }
    shortest
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::long_run::plan::{Action, Fault};

    #[test]
    fn only_what_matters_is_left() {
        let plan = Plan::draw(3, Duration::from_secs(600));
        let kills = |plan: &Plan| {
            plan.steps.iter().filter(|step| matches!(step.action, Action::Fault(Fault::Kill(_), ..))).count()
        };
        assert!(kills(&plan) > 1, "the plan tells nothing");
        let shortest = shorten(&plan, 500, |plan| kills(plan) > 0);
        assert_eq!((shortest.steps.len(), kills(&shortest)), (1, 1));
        assert!(shortest.producers.is_empty() && shortest.groups.is_empty());
    }
}

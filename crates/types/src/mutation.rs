//! Rules that the simulator switches off, one in each of its runs with `--without`, to see that it notices.
//!
//! Outside of a simulator's build every rule is in force and asking costs nothing: the answer is a constant.

/// Whether this rule is switched off. Rules of `replication-traps.md` are called by their number.
#[cfg(not(vltava_sim))]
#[inline(always)]
#[must_use]
pub const fn is_off(_rule: &str) -> bool {
    false
}

#[cfg(vltava_sim)]
pub use simulated::{is_off, switch_off};

#[cfg(vltava_sim)]
mod simulated {
    use std::sync::OnceLock;

    static OFF: OnceLock<String> = OnceLock::new();

    /// Whether this rule is switched off.
    #[must_use]
    pub fn is_off(rule: &str) -> bool {
        OFF.get().is_some_and(|off| off == rule)
    }

    /// Switches a rule off for the rest of the process, which has no other one switched off.
    pub fn switch_off(rule: &str) {
        OFF.set(rule.to_owned()).expect("one rule at a time is switched off");
    }
}

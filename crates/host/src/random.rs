//! Randomness: the operating system's, or a seeded generator under the simulator.

/// `N` random bytes.
#[must_use]
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    fill(&mut bytes);
    bytes
}

/// A random 64-bit number.
#[must_use]
pub fn u64() -> u64 {
    u64::from_le_bytes(bytes())
}

#[cfg(not(vltava_sim))]
fn fill(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the operating system provides randomness");
}

#[cfg(vltava_sim)]
use simulated::fill;
#[cfg(vltava_sim)]
pub use simulated::seed;

#[cfg(vltava_sim)]
mod simulated {
    use std::cell::Cell;

    thread_local! {
        static STATE: Cell<u64> = const { Cell::new(0) };
    }

    /// Starts this thread's generator anew. The simulator calls it once, before it creates hosts.
    pub fn seed(seed: u64) {
        STATE.set(seed);
    }

    /// SplitMix64 (Steele, Lea, Flood 2014): any seed, including 0, gives a full-period sequence.
    pub(super) fn fill(bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            STATE.set(STATE.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
            let mut z = STATE.get();
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^= z >> 31;
            chunk.copy_from_slice(&z.to_le_bytes()[..chunk.len()]);
        }
    }
}

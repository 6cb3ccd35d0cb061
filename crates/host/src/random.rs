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
pub use simulated::{Generator, seed};

#[cfg(vltava_sim)]
mod simulated {
    use std::cell::Cell;

    thread_local! {
        static GENERATOR: Cell<Generator> = const { Cell::new(Generator::new(0)) };
    }

    /// Starts this thread's generator anew. The simulator calls it once, before it creates hosts.
    pub fn seed(seed: u64) {
        GENERATOR.set(Generator::new(seed));
    }

    pub(super) fn fill(bytes: &mut [u8]) {
        let mut generator = GENERATOR.get();
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&generator.u64().to_le_bytes()[..chunk.len()]);
        }
        GENERATOR.set(generator);
    }

    /// SplitMix64 (Steele, Lea, Flood 2014): any seed, including 0, gives a full-period sequence. For whoever must not
    /// disturb the thread's own generator, and for the choices of a test.
    #[derive(Clone, Copy, Debug)]
    pub struct Generator(u64);

    impl Generator {
        #[must_use]
        pub const fn new(seed: u64) -> Self {
            Self(seed)
        }

        pub const fn u64(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }

        /// A number below `end`, which is not 0. Even enough for small ends.
        pub const fn below(&mut self, end: u64) -> u64 {
            self.u64() % end
        }
    }
}

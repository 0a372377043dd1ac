//! Random choices: numbers, chances, one of several.

use crate::harness::random::Random;

/// Draws from a random number generator.
pub trait Draw {
    /// Returns a number from 0 to below `end`.
    fn below(&mut self, end: usize) -> usize;

    /// Returns true once in that many times.
    fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// Returns one of these.
    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

impl Draw for Random {
    fn below(&mut self, end: usize) -> usize {
        (self.draw() % end as u64) as usize
    }
}

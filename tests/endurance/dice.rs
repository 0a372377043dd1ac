//! What is drawn: numbers, chances, one of several.

use crate::harness::random::Random;

/// Draws from a generator of random numbers.
pub trait Dice {
    /// From 0 to below `end`.
    fn below(&mut self, end: usize) -> usize;

    /// Whether one of so many times.
    fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// One of these.
    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

impl Dice for Random {
    fn below(&mut self, end: usize) -> usize {
        (self.draw() % end as u64) as usize
    }
}

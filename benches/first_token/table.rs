//! The printed table, and the guarantees among its figures.

use super::account::{Account, quantile};

/// Aims in milliseconds for median and 99th percentile.
const AIMS: [f64; 2] = [1.0, 5.0];

pub(crate) fn head() {
    println!(
        "{:<5} {:>8} {:>9} {:>6} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7}  cores busy  CPU-s per 1000",
        "by", "at once", "in flight", "n", "bias", "min", "p50", "p90", "p99", "max"
    );
}

/// Prints a row. Returns the number of broken guarantees.
pub(crate) fn row(by: &str, wanted: usize, account: &Account) -> usize {
    let Account { errors, bias, most_in_flight, unmatched, failed, busy, cpu } = account;
    let [min, p50, p90, p99, max] = [0.0, 0.5, 0.9, 0.99, 1.0].map(|share| quantile(errors, share));
    let missed = if p50 < AIMS[0] && p99 < AIMS[1] { "" } else { "  (aims: p50 below 1, p99 below 5)" };
    println!(
        "{by:<5} {wanted:>8} {most_in_flight:>9} {:>6} {bias:>7.3} {min:>7.3} {p50:>7.3} {p90:>7.3} {p99:>7.3} \
         {max:>7.3}  {busy:>10.2}  {:>14}{missed}",
        errors.len(),
        cpu.map_or_else(|| "-".to_owned(), |cpu| format!("{cpu:.3}")),
    );
    // A token seen before it was written is no measurement.
    let promises = [
        ("streams that only one side knows", *unmatched),
        ("runs that failed", *failed),
        ("streams missing to as many at once", wanted.saturating_sub(*most_in_flight)),
        ("first tokens seen too early", errors.iter().filter(|error| **error < 0.0).count()),
    ];
    let broken = promises.iter().filter(|(_, count)| *count > 0);
    broken.map(|(what, count)| println!("      {what}: {count}  PROMISE BROKEN")).count()
}

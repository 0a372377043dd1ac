//! Figures and aims in a table for BENCHMARKS.md.

/// One row for each aim that was measured, in the order of the measurements.
#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<String>,
}

impl Table {
    /// Adds a figure and its upper limit. A figure that is not a number was not measured, and
    /// misses.
    pub(crate) fn at_most(&mut self, what: &str, figure: f64, aim: f64, unit: &str) {
        let word = if figure <= aim { "met" } else { "**missed**" };
        let figure = if figure.is_nan() { "not measured".to_owned() } else { format!("{figure:.2} {unit}") };
        self.rows.push(format!("| {what} | {} | {aim} {unit} | {word} |", figure.trim_end()));
    }

    pub(crate) fn print(&self) {
        println!("\n| what | figure | aim, at most | |\n|---|---|---|---|");
        for row in &self.rows {
            println!("{row}");
        }
    }
}

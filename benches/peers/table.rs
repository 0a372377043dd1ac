//! The figures beside their aims, in one table that BENCHMARKS.md can take as it is.

/// One row for each aim that was measured, in the order of the measurements.
#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<String>,
}

impl Table {
    /// A figure, and what it has to be under or equal to. A figure that is not a number was not measured, and misses.
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

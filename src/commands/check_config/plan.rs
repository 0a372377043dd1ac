//! The table of probes, within 80 columns.

use std::iter;

use crate::{
    commands::table::{self, WIDTH, wrap},
    config::{
        BYTES_PER_TOKEN, Budget, Comparison, Config, Pool, PoolMember, Probe, Shard, Spending, duration,
    },
};

/// Columns of the table. The first two are aligned to the left.
const COLUMNS: [&str; 7] = ["PROBE", "CHECK", "INTERVAL", "REQUESTS", "INPUT", "OUTPUT", "USD"];

/// Space between two columns.
const GAP: usize = 2;

/// Cells of a row.
type Cells = [String; COLUMNS.len()];

/// Returns the probes by provider with the totals, the notes, the comparisons and the pools.
pub(super) fn render(config: &Config) -> String {
    format!("{}{}{}{}", probes(config), notes(config), comparisons(config), pools(config))
}

/// Returns the sum of all probes per day.
pub(super) fn total(config: &Config) -> Spending {
    config.probes.iter().fold(Spending::default(), |sum, probe| sum.plus(Spending::per_day(probe)))
}

/// Returns the table of probes, below a line for each provider.
fn probes(config: &Config) -> String {
    let rows: Vec<Cells> = config.probes.iter().map(|probe| row(probe)).collect();
    let day = total(config);
    let totals = [("total per day", day), ("total per 31 days", day.month())]
        .map(|(title, sum)| cells([title.to_owned(), String::new(), String::new()], sum));
    let head = COLUMNS.map(str::to_owned);
    let layout = Layout::of(iter::once(&head).chain(&rows).chain(&totals));
    let mut text = layout.line(&head);
    let mut provider = None;
    for (probe, row) in config.probes.iter().zip(&rows) {
        if provider != Some(&probe.provider.name) {
            provider = Some(&probe.provider.name);
            text.push_str(&heading(probe));
        }
        text.push_str(&layout.line(row));
        if let Some(model) = &probe.model {
            text.extend(["    ", model, "\n"]);
        }
    }
    text + &totals.map(|total| layout.line(&total)).concat()
}

/// Returns the line of a provider: name, API and base URL, which may need a line of its own.
fn heading(probe: &Probe) -> String {
    let provider = &probe.provider;
    let url = provider.base_url.as_str().trim_end_matches('/');
    let line = format!("{} (api {}) at {url}", provider.name, provider.api);
    if line.len() <= WIDTH { format!("{line}\n") } else { line.replace(" at ", "\n  at ") + "\n" }
}

fn row(probe: &Probe) -> Cells {
    let words = [format!("  {}", probe.name), probe.check().to_string(), duration::format(probe.interval)];
    cells(words, Spending::per_day(probe))
}

/// Returns the cells of a row: its words, then requests, input tokens, output tokens and cost.
fn cells([name, check, interval]: [String; 3], spending: Spending) -> Cells {
    let Spending { requests, input_tokens, output_tokens, cost_usd } = spending;
    // Small numbers keep a digit, so that a weekly probe or a cheap model is not shown as 0.
    let number = |number: f64| {
        if number > 0.0 && number < 10.0 { format!("{number:.1}") } else { format!("{number:.0}") }
    };
    let cost = |cost: f64| if cost > 0.0 && cost < 1.0 { format!("{cost:.4}") } else { format!("{cost:.2}") };
    let cost_usd = cost_usd.map_or_else(|| "-".to_owned(), cost);
    [name, check, interval, number(requests), number(input_tokens), number(output_tokens), cost_usd]
}

/// Widths of the columns.
struct Layout([usize; COLUMNS.len()]);

impl Layout {
    /// Fits the columns to their cells. The first one gets what the others leave.
    fn of<'a>(rows: impl Iterator<Item = &'a Cells>) -> Self {
        let mut widths = [0; COLUMNS.len()];
        for row in rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        let others: usize = widths[1..].iter().map(|width| width + GAP).sum();
        widths[0] = widths[0].min(WIDTH.saturating_sub(others));
        Self(widths)
    }

    /// Returns a row as a line. A name that does not fit has a line of its own.
    fn line(&self, row: &Cells) -> String {
        let cell = |(column, (cell, width)): (usize, (&String, usize))| match column {
            0 if cell.chars().count() > width => format!("{cell}\n{:width$}", ""),
            0 => format!("{cell:<width$}"),
            1 => format!("  {cell:<width$}"),
            _ => format!("  {cell:>width$}"),
        };
        let cells: Vec<String> = row.iter().zip(self.0).enumerate().map(cell).collect();
        format!("{}\n", cells.concat().trim_end())
    }
}

/// Returns the table of comparisons after an empty line, or nothing if there are none.
fn comparisons(config: &Config) -> String {
    let rows = config.comparisons.iter().map(|comparison| {
        let Comparison { name, gateway, direct } = &**comparison;
        let interval = config.probes.iter().find(|probe| probe.name == *gateway).map(|probe| probe.interval);
        let interval = interval.map(duration::format).unwrap_or_default();
        vec![name.clone(), gateway.clone(), direct.clone(), interval]
    });
    group(["COMPARISON", "GATEWAY", "DIRECT", "INTERVAL"], 3, rows)
}

/// Returns the table of pool members with their shares after an empty line, or nothing if there are
/// no pools.
fn pools(config: &Config) -> String {
    let rows = config.pools.iter().flat_map(|Pool { name, members }| {
        let total: u32 = members.iter().map(|member| member.weight).sum();
        members.iter().map(move |PoolMember { probe, weight }| {
            let share = f64::from(*weight) / f64::from(total);
            vec![name.clone(), probe.clone(), weight.to_string(), format!("{:.0} %", share * 100.0)]
        })
    });
    group(["POOL", "MEMBER", "WEIGHT", "SHARE"], 2, rows)
}

fn group(head: [&str; 4], words: usize, rows: impl Iterator<Item = Vec<String>>) -> String {
    let rows: Vec<_> = iter::once(head.map(str::to_owned).to_vec()).chain(rows).collect();
    if rows.len() > 1 { format!("\n{}", table::render(&rows, words)) } else { String::new() }
}

/// Returns the notes below the table: how the figures were estimated, the shard and the budget.
fn notes(config: &Config) -> String {
    let mut notes = vec!["Requests, tokens and cost are those of a day.".to_owned()];
    if config.probes.iter().any(|probe| probe.check().generates()) {
        notes.push(format!(
            "Input tokens are estimated: one token per {BYTES_PER_TOKEN} bytes of the prompt, plus some for its \
             framing, times the runs. Output tokens are an upper bound: max_tokens times the runs. The cost is an \
             upper estimate from both and the price of each probe."
        ));
    }
    let unpriced = config.probes.iter().filter(|probe| probe.chat().is_some_and(|chat| chat.price.is_none()));
    let unpriced: Vec<_> = unpriced.map(|probe| probe.name.as_str()).collect();
    if !unpriced.is_empty() {
        notes.push(format!("Not in the cost, because they have no price: {}.", unpriced.join(", ")));
    }
    if let Some(Shard { index, total }) = config.shard {
        let rest = if total == 1 { "which are all of them" } else { "the other daemons run the rest" };
        notes.push(format!("Shard {index} of {total}: {} probes of the file, {rest}.", config.probes.len()));
    }
    if let Some(Budget { daily_cost_usd, daily_tokens }) = config.budget {
        let cost = daily_cost_usd.map(|usd| format!("{usd} USD"));
        let tokens = daily_tokens.map(|tokens| format!("{tokens} tokens"));
        let limits: Vec<_> = cost.into_iter().chain(tokens).collect();
        let limits = if limits.is_empty() { "no limit".to_owned() } else { limits.join(", ") };
        notes.push(format!("Budget per UTC day: {limits}."));
    }
    let lines: Vec<_> = notes.iter().map(|note| wrap(note, WIDTH)).collect();
    format!("\n{}\n", lines.join("\n"))
}

//! Inline SVG: the strip of results and the stacked bars of phases. Shapes convey the same as
//! colours.

use std::{fmt::Write, sync::Arc};

use maud::{Markup, html};

use super::{
    state::{State, state_after},
    words::took,
};
use crate::{
    history::{MAX_RUNS, Run},
    outcome::Phases,
};

/// Draws the last runs as a strip, the latest on the right. Consecutive runs with the same state
/// are one dashed line with a dash per run, so that a strip without failures has few bytes.
/// Failures are tall, successes low.
pub(super) fn strip(runs: &[Arc<Run>]) -> Markup {
    const KINDS: [State; 4] = [State::Up, State::Slow, State::Limited, State::Failing];
    let offset = MAX_RUNS - runs.len().min(MAX_RUNS);
    let mut paths = KINDS.map(|_| String::new());
    let mut position = offset;
    for same in runs.chunk_by(|one, other| state_after(one) == state_after(other)) {
        let kind = KINDS
            .iter()
            .position(|kind| *kind == state_after(&same[0]))
            .expect("every state of a run is listed");
        let _ = write!(paths[kind], "M{position} 8h{}", same.len());
        position += same.len();
    }
    html! {
        svg.strip viewBox="0 0 100 16" preserveAspectRatio="none" role="img" aria-label=(description(runs)) {
            path.s-none d={ "M0 8h" (offset) } {}
            @for (kind, path) in KINDS.iter().zip(&paths) {
                @if !path.is_empty() { path class={ "s-" (kind.name()) } d=(path) {} }
            }
        }
    }
}

/// Describes a strip in words.
fn description(runs: &[Arc<Run>]) -> String {
    if runs.is_empty() {
        return "not run yet".to_owned();
    }
    let mut text = format!("last {} runs:", runs.len());
    for kind in [State::Up, State::Slow, State::Limited, State::Failing] {
        let count = runs.iter().filter(|run| state_after(run) == kind).count();
        if count > 0 {
            let _ = write!(text, " {count} {}", kind.name());
        }
    }
    text
}

const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 160.0;

/// Draws the phases of the runs as stacked bars, the latest on the right, with marks below failed
/// runs.
pub(super) fn phases(runs: &[Arc<Run>]) -> Markup {
    let longest = runs.iter().map(|run| run.duration()).max().unwrap_or_default().as_secs_f64().max(1e-6);
    let step = WIDTH / MAX_RUNS as f64;
    let offset = MAX_RUNS - runs.len().min(MAX_RUNS);
    html! {
        svg.phases viewBox="0 0 1000 180" preserveAspectRatio="none" role="img"
            aria-label={ "phases of the last " (runs.len()) " runs, the longest " (took(seconds(longest))) "; the table below has the figures" } {
            line.grid x1="0" x2="1000" y1="0.5" y2="0.5" {}
            line.grid x1="0" x2="1000" y1="80" y2="80" {}
            line.axis x1="0" x2="1000" y1="160" y2="160" {}
            @for (number, run) in runs.iter().enumerate() {
                (bar(run, (offset + number) as f64 * step, step, longest))
            }
        }
    }
}

fn bar(run: &Run, x: f64, step: f64, longest: f64) -> Markup {
    let mut top = HEIGHT;
    html! {
        @for (name, phase) in Phases::NAMES.iter().zip(run.phases()) {
            @let height = phase.as_secs_f64() / longest * HEIGHT;
            @if height >= 0.05 {
                @let y = { top -= height; top };
                rect class={ "p-" (name) } x=(tenths(x + 1.0)) y=(tenths(y)) width=(tenths(step - 2.0)) height=(tenths(height)) {}
            }
        }
        @if !run.success() {
            path.mark d={ "M" (tenths(x + 1.0)) " 178h" (tenths(step - 2.0)) "l" (tenths(1.0 - step / 2.0)) " -14z" } {}
        }
    }
}

fn seconds(seconds: f64) -> std::time::Duration {
    std::time::Duration::from_secs_f64(seconds)
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

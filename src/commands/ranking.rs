//! A ranking of models by measured speed.

use std::time::Duration;

use super::table;
use crate::outcome::{Outcome, Subject};

/// Renders the models that succeeded as aligned columns, the fastest first. Returns `None` if there
/// are fewer than two.
///
/// A model has a row for each provider, because the network path is part of the latency, and for
/// each prompt size, which has a column if there are several. Each figure is the median of the
/// model's successful runs. The order is that of the total duration, which every check has.
pub(super) fn render<'a>(runs: impl IntoIterator<Item = Run<'a>>) -> Option<String> {
    let mut models: Vec<Model<'a>> = Vec::new();
    let mut held_back = 0;
    for Run { subject, prompt_words, outcome } in runs {
        let Some(name) = subject.model.filter(|_| subject.check.generates() && outcome.success()) else {
            continue;
        };
        if outcome.buffered == Some(true) {
            held_back += 1;
            continue;
        }
        let key = (name, subject.provider, prompt_words);
        let known = models.iter().position(|model| (model.name, model.provider, model.prompt_words) == key);
        let known = known.unwrap_or_else(|| {
            models.push(Model { name, provider: subject.provider, prompt_words, runs: Vec::new() });
            models.len() - 1
        });
        models[known].runs.push(outcome);
    }
    if models.len() < 2 {
        return None;
    }
    models.sort_by_key(Model::total);
    let sized = models.iter().any(|model| model.prompt_words != models[0].prompt_words);
    let mut head =
        ["MODEL", "PROVIDER", "RUNS", "FIRST TOKEN", "TOKENS/S", "TOTAL"].map(str::to_owned).to_vec();
    if sized {
        head.insert(2, "PROMPT WORDS".to_owned());
    }
    let rows: Vec<_> = std::iter::once(head).chain(models.iter().map(|model| model.row(sized))).collect();
    let mut ranking = table::render(&rows, 2);
    if models.iter().any(|model| model.speed().is_none() && model.streams()) {
        ranking.push_str(NO_SPEED);
    }
    if held_back > 0 {
        ranking.push_str(HELD_BACK);
    }
    Some(ranking)
}

/// A run with its subject and prompt size.
pub(super) struct Run<'a> {
    pub(super) subject: Subject<'a>,
    /// Number of words of the prompt; 0 if there is no prompt.
    pub(super) prompt_words: usize,
    pub(super) outcome: &'a Outcome,
}

/// A model at a provider with a prompt size, and its successful runs, at least one.
struct Model<'a> {
    name: &'a str,
    provider: &'a str,
    prompt_words: usize,
    runs: Vec<&'a Outcome>,
}

const NO_SPEED: &str =
    "TOKENS/S needs answers of 64 tokens or more: use workload = \"speed\" in the probe.\n";

const HELD_BACK: &str = "Streams that a proxy or gateway held back are left out.\n";

/// Formats the rate per second of something that takes `each`.
fn per_second(each: Duration) -> String {
    format!("{:.1}", 1.0 / each.as_secs_f64())
}

impl Model<'_> {
    /// Returns the cells of the row, with the prompt size if `sized`.
    fn row(&self, sized: bool) -> Vec<String> {
        let mut row = vec![self.name.to_owned(), self.provider.to_owned()];
        row.extend(sized.then(|| self.prompt_words.to_string()));
        row.extend([
            self.runs.len().to_string(),
            self.median(|run| run.time_to_first_token).map(table::milliseconds).unwrap_or_default(),
            self.speed().map(per_second).unwrap_or_default(),
            self.total().map(table::milliseconds).unwrap_or_default(),
        ]);
        row
    }

    /// Returns the time for each token, of answers that are long enough to measure it.
    fn speed(&self) -> Option<Duration> {
        self.median(Outcome::token_time).filter(|each| !each.is_zero())
    }

    fn streams(&self) -> bool {
        self.runs.iter().any(|run| run.time_to_first_token.is_some())
    }

    fn total(&self) -> Option<Duration> {
        self.median(|run| Some(run.duration))
    }

    /// Returns the median over the runs that have the figure, or `None` if none has it.
    fn median(&self, figure: impl Fn(&Outcome) -> Option<Duration>) -> Option<Duration> {
        let mut values: Vec<Duration> = self.runs.iter().filter_map(|run| figure(run)).collect();
        values.sort_unstable();
        let upper = *values.get(values.len() / 2)?;
        let lower = values[(values.len() - 1) / 2];
        Some((lower + upper) / 2)
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::outcome::{Check, Fault, MIN_SPEED_TOKENS, Reason};

    /// Returns a run by three durations in milliseconds: total, time to first token, time per
    /// output token.
    fn run(reason: Reason, figures: [u64; 3]) -> Outcome {
        let [total, first, each] = figures.map(Duration::from_millis);
        let mut outcome = Outcome::new(SystemTime::UNIX_EPOCH, reason, Fault::None);
        outcome.duration = total;
        outcome.time_to_first_token = Some(first).filter(|first| !first.is_zero());
        outcome.time_per_output_token = Some(each).filter(|each| !each.is_zero());
        outcome.output_tokens = Some(MIN_SPEED_TOKENS);
        outcome
    }

    fn subject<'a>(provider: &'a str, check: Check, model: Option<&'a str>) -> Subject<'a> {
        Subject { probe: "p", provider, check, model }
    }

    fn words(text: Option<String>) -> Vec<String> {
        let squeeze = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        text.unwrap_or_default().lines().skip(1).map(squeeze).collect()
    }

    /// Returns all runs with this prompt size.
    fn all<'a>(runs: &'a [(Subject<'a>, Outcome)], prompt_words: usize) -> impl Iterator<Item = Run<'a>> {
        runs.iter().map(move |(subject, outcome)| Run { subject: *subject, prompt_words, outcome })
    }

    #[test]
    fn prompts_of_different_sizes_are_not_mixed() {
        let m = subject("p", Check::Stream, Some("m"));
        let short = [(m, run(Reason::Ok, [100, 50, 10])), (m, run(Reason::Ok, [300, 50, 10]))];
        let long = [(m, run(Reason::Ok, [900, 800, 10]))];
        let shown = render(all(&short, 3).chain(all(&long, 4000)));
        assert!(shown.as_ref().is_some_and(|text| text.contains("PROMPT WORDS")), "{shown:?}");
        assert_eq!(words(shown), ["m p 3 2 50.0 ms 100.0 200.0 ms", "m p 4000 1 800.0 ms 100.0 900.0 ms"]);
    }

    #[test]
    fn fastest_is_first_and_each_provider_has_a_row() {
        let runs = [
            (subject("langmart", Check::Stream, Some("m")), run(Reason::Ok, [300, 200, 40])),
            (subject("groq", Check::Stream, Some("n")), run(Reason::Ok, [100, 50, 2])),
            (subject("openai", Check::Stream, Some("m")), run(Reason::Ok, [200, 90, 25])),
            (subject("groq", Check::Chat, Some("o")), run(Reason::Ok, [150, 0, 0])),
        ];
        let shown = words(render(all(&runs, 3)));
        assert_eq!(
            shown,
            [
                "n groq 1 50.0 ms 500.0 100.0 ms",
                "o groq 1 150.0 ms",
                "m openai 1 90.0 ms 40.0 200.0 ms",
                "m langmart 1 200.0 ms 25.0 300.0 ms",
            ]
        );
    }

    #[test]
    fn median_covers_successful_runs_with_the_figure() {
        let m = |check| subject("p", check, Some("m"));
        let runs = [
            (m(Check::Stream), run(Reason::Ok, [400, 100, 10])),
            (m(Check::Stream), run(Reason::StreamTruncated, [1, 1, 0])),
            (m(Check::Chat), run(Reason::Ok, [200, 0, 0])),
            (m(Check::Stream), run(Reason::Ok, [300, 200, 0])),
            (subject("p", Check::Chat, Some("n")), run(Reason::Ok, [900, 0, 0])),
        ];
        let shown = words(render(all(&runs, 3)));
        assert_eq!(shown, ["m p 3 150.0 ms 100.0 300.0 ms", "n p 1 900.0 ms"]);
    }

    #[test]
    fn short_answers_and_held_back_streams_have_no_speed() {
        let m = |provider| subject(provider, Check::Stream, Some("m"));
        let short = Outcome { output_tokens: Some(63), ..run(Reason::Ok, [400, 100, 10]) };
        let held_back = Outcome { buffered: Some(true), ..run(Reason::Ok, [300, 299, 0]) };
        let runs = [(m("a"), run(Reason::Ok, [500, 100, 10])), (m("b"), short), (m("c"), held_back)];
        let shown = words(render(all(&runs, 3)));
        assert_eq!(
            shown,
            ["m b 1 100.0 ms 400.0 ms", "m a 1 100.0 ms 100.0 500.0 ms", NO_SPEED.trim(), HELD_BACK.trim()]
        );
    }

    #[test]
    fn single_model_has_no_ranking() {
        let runs = [
            (subject("p", Check::Stream, Some("m")), run(Reason::Ok, [400, 100, 10])),
            (subject("p", Check::Chat, Some("m")), run(Reason::Ok, [400, 0, 0])),
            (subject("p", Check::Chat, Some("n")), run(Reason::ServerError, [1, 0, 0])),
            (subject("p", Check::Models, Some("o")), run(Reason::Ok, [1, 0, 0])),
            (subject("p", Check::Auth, None), run(Reason::Ok, [1, 0, 0])),
        ];
        assert_eq!(render(all(&runs, 3)), None);
        assert_eq!(render([]), None);
    }
}

//! From the file's tables to the configuration: the whole, and the sections that are not about probing.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use toml::de::DeTable;
use tracing_subscriber::{EnvFilter, filter::LevelFilter};
use zeroize::Zeroizing;

use super::{
    duration, key,
    load::Keys,
    model::{Config, KeySource, Log, LogFormat, Probe, Rotation, Schedule, Server},
    problem::{Place, Report, not_one_of, shown},
    raw::Section,
    resolve_budget,
    resolve_groups::{self, Known},
    resolve_manner, resolve_probe, resolve_provider, resolve_server, resolve_shard,
    surroundings::{Surroundings, exposure, is_loopback},
};

/// How often a probe may run: a thousand of them each second are bearable, and a week is still a schedule.
const INTERVALS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(7 * 86_400);

/// How long a run may take.
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(3_600);

/// The most probes of one configuration, so that tasks and series are bounded.
const MOST_PROBES: usize = 10_000;

/// What every part of a resolution needs.
pub(super) struct Context<'a> {
    pub(super) keys: Keys<'a>,
    pub(super) surroundings: &'a Surroundings<'a>,
    pub(super) report: &'a Report,
    credentials: RefCell<BTreeSet<String>>,
}

impl<'a> Context<'a> {
    pub(super) fn new(keys: Keys<'a>, surroundings: &'a Surroundings<'a>, report: &'a Report) -> Self {
        Self { keys, surroundings, report, credentials: RefCell::default() }
    }

    /// The names of the credentials that were asked for.
    pub(super) fn into_credentials(self) -> Vec<String> {
        self.credentials.into_inner().into_iter().collect()
    }

    /// Whether what stands there is some provider's that nobody asked for, or none's at all.
    fn is_idle(&self, place: &Place) -> bool {
        let Keys::ReportedOf(providers) = self.keys else { return false };
        !providers.iter().any(|name| place.path.starts_with(&format!("provider.{name}.")))
    }

    /// A secret's text where it is wanted and can be had; what is wrong with it is reported, never shown.
    pub(super) fn secret(
        &self,
        source: &KeySource,
        place: &Place,
        check: impl FnOnce(&str) -> Result<(), &'static str>,
    ) -> Option<Zeroizing<String>> {
        if self.is_idle(place) {
            return None;
        }
        let credential = match source {
            KeySource::Credential(name) => Some(name),
            KeySource::Env(_) | KeySource::File(_) => None,
        };
        self.credentials.borrow_mut().extend(credential.cloned());
        if self.keys == Keys::Skipped {
            return None;
        }
        if let Some(message) = exposure(source) {
            self.report.error(place, message);
            return None;
        }
        match (self.surroundings.secret(source), self.keys) {
            (Ok(text), _) => match check(&text) {
                Ok(()) => return Some(text),
                Err(message) => self.report.error(place, message),
            },
            (Err(message), Keys::Required) => self.report.error(place, message),
            (Err(message), _) => self.report.warning(place, message),
        }
        None
    }
}

/// The command that gives a command by hand the credentials that otherwise only the unit has.
pub fn systemd_run<'a>(credentials: impl IntoIterator<Item = &'a str>, command: &str) -> String {
    let property = |name| format!(" --property=LoadCredential={name}:/etc/credstore/{name}");
    let properties: String = credentials.into_iter().map(property).collect();
    format!("systemd-run --pipe --wait --collect --quiet{properties} {command}")
}

/// How often and how long, for probes that do not say it themselves.
#[derive(Clone, Copy)]
pub(super) struct Timing {
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
}

impl Timing {
    /// The section's own interval and timeout, these where it has none.
    pub(super) fn overridden_by(self, section: &mut Section<'_>) -> Self {
        Self {
            interval: section.duration("interval", &INTERVALS).unwrap_or(self.interval),
            timeout: section.duration("timeout", &TIMEOUTS).unwrap_or(self.timeout),
        }
    }
}

/// `[defaults]`.
pub(super) struct Defaults {
    /// Of every check that generates nothing.
    pub(super) plain: Timing,
    /// `[defaults.generation]`.
    pub(super) generation: Timing,
}

/// A probe and where the file asks for it.
pub(super) struct Placed {
    pub(super) probe: Probe,
    pub(super) place: Place,
}

/// The configuration of a file. It is for use only where nothing was reported: what is wrong in the file has a
/// default's or a neutral value here, so that the rest can be judged all the same.
pub(super) fn config(table: &DeTable<'_>, context: &Context<'_>) -> Config {
    let mut root = Section::root(table, context.report);
    let server = resolve_server::server(root.section("server"), context);
    let log = log(root.section("log"), context);
    let state_directory = state_directory(root.section("state"), context);
    let schedule = schedule(root.section("schedule"));
    let shard = resolve_shard::shard(&mut root, context);
    let budget = resolve_budget::budget(&mut root);
    let defaults = defaults(root.section("defaults"));

    let mut probes = Vec::new();
    let mut providers = BTreeMap::new();
    for entry in root.section("provider").entries() {
        let section = Section::of(entry.value, entry.place, context.report);
        let provider = resolve_provider::provider(entry.key, section, shard, context);
        probes.extend(resolve_provider::generated(&provider, &defaults, context.report));
        providers.insert(entry.key.to_owned(), provider);
    }
    let mut named = resolve_provider::generated_names(&providers);
    for (value, place) in root.elements("probe", "an array of tables, each written under [[probe]]") {
        named.extend(value.get("name").and_then(|name| name.get_ref().as_str()).map(str::to_owned));
        let section = Section::of(value, place, context.report);
        probes.extend(resolve_probe::written(section, &mut providers, &defaults, context));
    }
    let known = Known::new(&probes, &named, context.report);
    let mut comparisons = resolve_groups::comparisons(&mut root, &known);
    let mut pools = resolve_groups::pools(&mut root, &known);
    resolve_groups::join(&mut probes, &comparisons);
    root.finish();
    if let Some(budget) = &budget {
        resolve_budget::agree(budget, &probes, context.report);
    }
    probes.sort_by_key(|placed| placed.place.line);
    distinct(&probes, context.report);
    // What is only wrong is not missing.
    let complete = context.report.is_good();
    if probes.is_empty() {
        let message = "no probe is configured; add checks to a provider or a [[probe]]";
        complete.then(|| context.report.warning(&Place::default(), message));
    } else if let Some(shard) = shard {
        resolve_shard::keep(shard, &mut probes, &mut comparisons, &mut pools, context.report);
    }

    for provider in providers.values().filter(|provider| complete && !provider.used) {
        let message = "no probe uses this provider; give it checks or a [[probe]], or remove it";
        context.report.warning(&provider.place, message);
    }
    shared_keys(&providers, context.report);
    resolve_manner::paces(&providers, &probes, context.report);
    let usable =
        providers.into_iter().filter_map(|(name, drafted)| Some((name, drafted.provider?))).collect();
    let budget = budget.map(|placed| placed.budget);
    let budget = budget.map(|whole| shard.map_or(whole, |shard| shard.of_budget(whole)));
    let config = finished(server, log, schedule, usable, probes, context);
    Config { shard, budget, state_directory, comparisons, pools, ..config }
}

/// Warns of each key that goes to a second host: the commonest cause is a copied line that keeps its variable.
fn shared_keys(providers: &BTreeMap<String, resolve_provider::Draft>, report: &Report) {
    let keyed = |draft: &&resolve_provider::Draft| draft.provider.as_ref().is_some_and(|p| p.key.is_some());
    let mut drafts: Vec<_> = providers.values().filter(keyed).collect();
    drafts.sort_by_key(|draft| draft.place.line);
    let mut first: Vec<(&KeySource, &super::Provider)> = Vec::new();
    for draft in drafts {
        let Some((provider, key)) = draft.provider.as_deref().and_then(|p| Some((p, p.key.as_ref()?))) else {
            continue;
        };
        match first.iter().find(|(source, _)| **source == key.source) {
            Some((_, other)) if !same_place(other, provider) => {
                let message = format!(
                    "the same {} is the key of provider.{}, which is another host; a key is good at one of them only",
                    key.source, other.name
                );
                report.warning(&draft.key_place, message);
            }
            Some(_) => {}
            None => first.push((&key.source, provider)),
        }
    }
}

/// Whether a key that is good for one of them is meant for the other, too: the same host, whatever the dialect, or this
/// machine under whatever name.
fn same_place(one: &super::Provider, other: &super::Provider) -> bool {
    one.host() == other.host() || is_loopback(&one.base_url) && is_loopback(&other.base_url)
}

/// Puts the parts together, once it is known that the probes agree with each other, and which are this daemon's.
fn finished(
    server: Server,
    log: Log,
    schedule: Schedule,
    providers: BTreeMap<String, Arc<super::Provider>>,
    probes: Vec<Placed>,
    context: &Context<'_>,
) -> Config {
    if probes.len() > MOST_PROBES {
        let message = format!("{} probes are too many; allowed are {MOST_PROBES}", probes.len());
        context.report.error(&Place::default(), message);
    }
    let system_roots = (context.surroundings.system_roots)();
    let untrusting = |provider: &Arc<super::Provider>| {
        provider.base_url.scheme() == "https" && provider.ca_certificates.is_empty()
    };
    if system_roots.is_empty() && providers.values().any(untrusting) {
        let message = "the system has no trusted root certificates: every https probe will fail; \
                       install the package ca-certificates, or set ca_file";
        context.report.warning(&Place::default(), message);
    }
    Config {
        server,
        log,
        schedule,
        shard: None,
        budget: None,
        state_directory: None,
        providers,
        probes: probes.into_iter().map(|placed| Arc::new(placed.probe)).collect(),
        comparisons: Vec::new(),
        pools: Vec::new(),
        system_roots: Arc::new(system_roots),
    }
}

/// Reports each probe that has the name of one before it.
fn distinct(probes: &[Placed], report: &Report) {
    let mut seen: BTreeMap<&str, &Place> = BTreeMap::new();
    for Placed { probe, place } in probes {
        if let Some(first) = seen.get(probe.name.as_str()) {
            let message = format!(
                "the probe name {} is taken by {} in line {}; names are unique, also among generated ones",
                shown(&probe.name),
                first.path,
                first.line
            );
            report.error(place, message);
        } else {
            seen.insert(&probe.name, place);
        }
    }
}

fn log(mut section: Section<'_>, context: &Context<'_>) -> Log {
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let rotations = [("hourly", Rotation::Hourly), ("daily", Rotation::Daily)];
    let log = Log {
        filter: section.text("level", filter).unwrap_or_else(|| "info".to_owned()),
        format: section.text("format", |text| choice(text, &formats)).unwrap_or(LogFormat::Text),
        stderr: section.flag("stderr").unwrap_or(true),
        directory: section.text("directory", absolute).or_else(|| context.surroundings.logs_directory()),
        rotation: section.text("rotation", |text| choice(text, &rotations)).unwrap_or(Rotation::Daily),
        max_files: section.number("max_files", &(2..=10_000)).unwrap_or(14) as usize,
        max_file_size: section.text("max_file_size", log_size).unwrap_or(100 << 20),
    };
    if !log.stderr && log.directory.is_none() {
        let message = "nothing will be logged; set log.directory, or leave log.stderr true";
        context.report.warning(&section.place_of("stderr"), message);
    }
    section.finish();
    log
}

/// A tracing filter. To tracing a lone word that is no level is a module's name, which is what a misspelt level becomes.
fn filter(text: &str) -> Result<String, String> {
    let levels = ["error", "warn", "info", "debug", "trace"];
    let lone = |part: &&str| !part.contains(['=', '[']) && part.parse::<LevelFilter>().is_err();
    if text.trim().is_empty() {
        return Err(format!("is empty; allowed are {} or a tracing filter", levels.join(", ")));
    }
    if let Some(part) = text.split(',').map(str::trim).find(lone) {
        return Err(format!(
            "{}, or a tracing filter such as \"info,hyper=warn\"",
            not_one_of(part, &levels)
        ));
    }
    match EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => {
            Err(format!("{} is not a tracing filter; write one such as \"info,hyper=warn\"", shown(text)))
        }
    }
}

/// The most bytes of a log file: room for some lines, and no more than a disk.
fn log_size(text: &str) -> Result<u64, String> {
    match duration::parse_size(text) {
        Ok(size) if (4 << 10..=1 << 40).contains(&size) => Ok(size),
        Ok(_) => Err(format!("{} is out of range; allowed are \"4KiB\" to \"1024GiB\"", shown(text))),
        Err(message) => Err(format!("{} {message}", shown(text))),
    }
}

/// A path that does not depend on where the process was started.
pub(super) fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() && !text.contains('\0') {
        Ok(path)
    } else {
        Err(format!("{} is not an absolute path; write one that begins with a slash", shown(text)))
    }
}

/// The value of one of a few words.
pub(super) fn choice<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, String> {
    let found = choices.iter().find(|(name, _)| *name == text);
    let names = || choices.iter().map(|(name, _)| *name).collect::<Vec<_>>();
    found.map(|(_, value)| *value).ok_or_else(|| not_one_of(text, &names()))
}

fn state_directory(mut section: Section<'_>, context: &Context<'_>) -> Option<PathBuf> {
    let directory = section.text("directory", absolute).or_else(|| context.surroundings.state_directory());
    section.finish();
    directory
}

fn schedule(mut section: Section<'_>) -> Schedule {
    const RUNS: RangeInclusive<u32> = 1..=10_000;
    const BACKOFFS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(7 * 86_400);
    let schedule = Schedule {
        max_concurrent: section.number("max_concurrent", &RUNS).unwrap_or(64) as usize,
        max_concurrent_per_provider: section.number("max_concurrent_per_provider", &RUNS).unwrap_or(8)
            as usize,
        max_backoff: section.duration("max_backoff", &BACKOFFS).unwrap_or(Duration::from_secs(3_600)),
    };
    section.finish();
    schedule
}

fn defaults(mut section: Section<'_>) -> Defaults {
    let mut generation = section.section("generation");
    let seconds = Duration::from_secs;
    let defaults = Defaults {
        plain: Timing { interval: seconds(60), timeout: seconds(30) }.overridden_by(&mut section),
        generation: Timing { interval: seconds(300), timeout: seconds(90) }.overridden_by(&mut generation),
    };
    generation.finish();
    section.finish();
    defaults
}

/// Where a secret is kept: a table of exactly one of `env`, `file` and `credential`.
pub(super) fn source(mut section: Section<'_>, report: &Report) -> Option<KeySource> {
    let env = section.text("env", |text| name(text, "a variable", "LANGMART_API_KEY", |c| c == '_'));
    let file = section.text("file", |text| {
        // What is not a path may be the key itself.
        absolute(text).map_err(|_| "must be an absolute path; write one that begins with a slash".to_owned())
    });
    let credential = section.text("credential", |text| {
        name(text, "a credential", "langmart-api-key", |c| matches!(c, '.' | '_' | '-'))
    });
    let written = ["env", "file", "credential"].iter().filter(|key| section.has(key)).count();
    let place = section.place().clone();
    section.finish();
    if written != 1 {
        report.error(&place, "must have exactly one of env, file and credential");
        return None;
    }
    env.map(KeySource::Env).or(file.map(KeySource::File)).or(credential.map(KeySource::Credential))
}

/// The name of where a secret is. It is not repeated: the commonest mistake is to write the secret there.
fn name(text: &str, what: &str, example: &str, mark: impl Fn(char) -> bool) -> Result<String, String> {
    if key::looks_like_one(text) {
        return Err(format!(
            "looks like a key itself; write the name of {what} that holds it, such as {example:?}"
        ));
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || mark(c);
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if begins && text.len() <= 128 && text.chars().all(fits) {
        Ok(text.to_owned())
    } else {
        Err(format!("is not the name of {what}; write one such as {example:?}"))
    }
}

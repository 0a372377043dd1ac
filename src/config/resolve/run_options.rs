//! Options that are independent of the check: connection, slowness and rechecks of a probe, and the
//! rate limit of a provider.

use std::{collections::BTreeMap, ops::RangeInclusive, sync::Arc, time::Duration};

use super::{
    context::{Placed, Timing},
    provider::Draft,
    values::choice,
};
use crate::{
    config::{
        duration,
        model::{Connection, Probe, Recheck},
        problem::Report,
        raw::Section,
    },
    outcome::Check,
};

/// Range of `slow_after`.
const SLOW: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(3_600);

/// Ranges of the first wait before a recheck, and of the increment of further waits.
const RECHECK_WAITS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3_600);
const RECHECK_STEPS: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3_600);

/// Maximum number of rechecks; longer failures are left to the next scheduled run.
const MAX_RECHECKS: u32 = 10;

/// The default waits, from LangMart's guide: 5, 10 and 15 s.
const DEFAULT_RECHECK: Recheck =
    Recheck { after: Duration::from_secs(5), step: Duration::from_secs(5), times: 3 };

/// Options of a probe's runs.
pub(super) struct RunOptions {
    connection: Connection,
    slow_after: Option<Duration>,
    recheck: Option<Recheck>,
}

impl RunOptions {
    /// Reads the options of a section.
    pub(super) fn from_section(
        section: &mut Section<'_>,
        check: Option<Check>,
        timing: Timing,
        report: &Report,
    ) -> Self {
        Self {
            connection: connection(section, check),
            slow_after: slow_after(section, timing.timeout.min(timing.interval), report),
            recheck: recheck(section, timing.interval),
        }
    }

    /// Returns the probe with these options.
    pub(super) fn apply_to(&self, probe: Probe) -> Probe {
        let &Self { connection, slow_after, recheck } = self;
        Probe { connection, slow_after, recheck, ..probe }
    }
}

fn connection(section: &mut Section<'_>, check: Option<Check>) -> Connection {
    let kinds = [Connection::Cold, Connection::Warm].map(|kind| (kind.name(), kind));
    let connection = section.text("connection", |text| choice(text, &kinds)).unwrap_or(Connection::Cold);
    if let (Connection::Warm, Some(check @ (Check::Network | Check::Status))) = (connection, check) {
        let why = if check == Check::Network { "measures the connection" } else { "may be redirected" };
        section.problem(
            "connection",
            format!("{check} {why} and needs a new connection for each run; remove the key"),
        );
    }
    connection
}

fn slow_after(section: &mut Section<'_>, timeout: Duration, report: &Report) -> Option<Duration> {
    let slow_after = section.duration("slow_after", &SLOW)?;
    if slow_after >= timeout {
        let message =
            format!("has no effect: it is not below the timeout of {:?}", duration::format(timeout));
        report.warning(&section.place_of("slow_after"), message);
    }
    Some(slow_after)
}

fn recheck(section: &mut Section<'_>, interval: Duration) -> Option<Recheck> {
    if !section.has("recheck") {
        section.mark_known(&["recheck"]);
        return None;
    }
    let mut table = section.section("recheck");
    let recheck = Recheck {
        after: table.duration("after", &RECHECK_WAITS).unwrap_or(DEFAULT_RECHECK.after),
        step: table.duration("step", &RECHECK_STEPS).unwrap_or(DEFAULT_RECHECK.step),
        times: table.number("times", &(1..=MAX_RECHECKS)).unwrap_or(DEFAULT_RECHECK.times),
    };
    let bad = ["after", "step", "times"].into_iter().any(|key| table.is_bad(key));
    table.finish();
    if !bad && !section.is_bad("interval") && recheck.waits() >= interval {
        let message = format!(
            "the waits add up to {:?}, but the next run starts after {:?}; lower them or raise the interval",
            duration::format(recheck.waits()),
            duration::format(interval)
        );
        section.problem("recheck", message);
    }
    Some(recheck)
}

/// Warns of providers whose probes are scheduled more often than the rate limit allows.
pub(super) fn check_rate_limits(providers: &BTreeMap<String, Draft>, probes: &[Placed], report: &Report) {
    let drafts = providers.values().filter_map(|draft| Some((draft, draft.provider.as_ref()?)));
    for (draft, provider) in drafts {
        let Some(limit) = provider.requests_per_minute else { continue };
        let paced = probes
            .iter()
            .map(|placed| &placed.probe)
            .filter(|probe| probe.is_rate_limited() && Arc::ptr_eq(&probe.provider, provider));
        let wanted: f64 = paced.map(|probe| 60.0 / probe.interval.as_secs_f64()).sum();
        // The sum may be inexact.
        if wanted > f64::from(limit) + 1e-6 {
            let message = format!(
                "the probes would send {wanted:.1} requests per minute; runs beyond the limit are skipped; \
                 raise the limit to {:.0} or more, or raise the intervals",
                wanted.ceil()
            );
            report.warning(&draft.pace_place, message);
        }
    }
}

//! How runs are made, whatever they ask: the pace of a provider; connection, slowness and rechecks of a probe.

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

/// What can count as slow.
const SLOW: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(3_600);

/// The first wait before a recheck, and what each of the others is longer.
const AFTER: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3_600);
const STEP: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3_600);

/// The most attempts after one failure: what has not healed by then is for the next due run to see.
const MOST_RECHECKS: u32 = 10;

/// The waits of LangMart's guide: 5, 10 and 15 s.
const GUIDE: Recheck = Recheck { after: Duration::from_secs(5), step: Duration::from_secs(5), times: 3 };

/// How the runs of a probe are made.
pub(super) struct Manner {
    connection: Connection,
    slow_after: Option<Duration>,
    recheck: Option<Recheck>,
}

impl Manner {
    /// What a section says of it.
    pub(super) fn of(
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

    /// The probe with it.
    pub(super) fn applied_to(self, probe: Probe) -> Probe {
        let Self { connection, slow_after, recheck } = self;
        Probe { connection, slow_after, recheck, ..probe }
    }
}

fn connection(section: &mut Section<'_>, check: Option<Check>) -> Connection {
    let kinds = [Connection::Cold, Connection::Warm].map(|kind| (kind.name(), kind));
    let connection = section.text("connection", |text| choice(text, &kinds)).unwrap_or(Connection::Cold);
    if let (Connection::Warm, Some(check @ (Check::Network | Check::Status))) = (connection, check) {
        let why = if check == Check::Network { "measures the way there" } else { "may be redirected" };
        section.problem("connection", format!("{check} {why}, on a new connection each run; remove the key"));
    }
    connection
}

fn slow_after(section: &mut Section<'_>, timeout: Duration, report: &Report) -> Option<Duration> {
    let slow_after = section.duration("slow_after", &SLOW)?;
    if slow_after >= timeout {
        let message = format!(
            "never comes about: the whole run may take no longer than {:?}",
            duration::format(timeout)
        );
        report.warning(&section.place_of("slow_after"), message);
    }
    Some(slow_after)
}

fn recheck(section: &mut Section<'_>, interval: Duration) -> Option<Recheck> {
    if !section.has("recheck") {
        section.pass(&["recheck"]);
        return None;
    }
    let mut table = section.section("recheck");
    let recheck = Recheck {
        after: table.duration("after", &AFTER).unwrap_or(GUIDE.after),
        step: table.duration("step", &STEP).unwrap_or(GUIDE.step),
        times: table.number("times", &(1..=MOST_RECHECKS)).unwrap_or(GUIDE.times),
    };
    let bad = ["after", "step", "times"].into_iter().any(|key| table.is_bad(key));
    table.finish();
    if !bad && !section.is_bad("interval") && recheck.waits() >= interval {
        let message = format!(
            "its waits sum to {:?}, and the next run is due after {:?}; lower them or raise the interval",
            duration::format(recheck.waits()),
            duration::format(interval)
        );
        section.problem("recheck", message);
    }
    Some(recheck)
}

/// Warns of each provider whose probes are due more often than its pace lets them run.
pub(super) fn paces(providers: &BTreeMap<String, Draft>, probes: &[Placed], report: &Report) {
    let drafts = providers.values().filter_map(|draft| Some((draft, draft.provider.as_ref()?)));
    for (draft, provider) in drafts {
        let Some(pace) = provider.requests_per_minute else { continue };
        let paced = probes
            .iter()
            .map(|placed| &placed.probe)
            .filter(|probe| probe.is_paced() && Arc::ptr_eq(&probe.provider, provider));
        let wanted: f64 = paced.map(|probe| 60.0 / probe.interval.as_secs_f64()).sum();
        // A sum of quotients may miss a whole number by a hair.
        if wanted > f64::from(pace) + 1e-6 {
            let message = format!(
                "its probes would send {wanted:.1} requests a minute, and the rest will be skipped; \
                 raise it to {:.0} or more, or the intervals",
                wanted.ceil()
            );
            report.warning(&draft.pace_place, message);
        }
    }
}

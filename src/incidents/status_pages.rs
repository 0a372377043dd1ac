//! What the providers' status pages reported.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use super::{
    name::Name,
    outage::{Maintained, Outage, StatusPageReport},
    run::Observed,
};
use crate::outcome::{ComponentStatus, Indicator, StatusPage};

/// Time after the end of an outage in which an incident on the status page is still attributed to
/// it.
const LATE_ADMISSION: Duration = Duration::from_secs(6 * 3600);

/// Number of the latest outages that an incident on a status page can be attributed to.
const MAX_CANDIDATES: usize = 1_000;

/// Maximum number of maintenance windows in memory per page.
const MAX_WINDOWS: usize = 1_000;

/// The pages, by the name of their provider.
#[derive(Debug, Default)]
pub(super) struct StatusPages(HashMap<Name, Page>);

#[derive(Debug, Default)]
struct Page {
    /// First run that saw the incident which the page reports. `None` if it reports none.
    incident_since: Option<SystemTime>,
    windows: Vec<Maintained>,
}

impl StatusPages {
    /// Adds a run of a status check.
    pub(super) fn add(&mut self, run: &Observed<'_>, outages: &mut [Outage]) {
        let Some(status) = run.status_page else { return };
        if !self.0.contains_key(run.provider) {
            self.0.insert(run.provider.into(), Page::default());
        }
        let page = self.0.get_mut(run.provider).expect("it was inserted above");
        page.add_maintenance(status, run.time);
        if !reports_incident(status) {
            page.incident_since = None;
        } else if page.incident_since.is_none() {
            page.incident_since = Some(run.time);
            let concerned = |outage: &&mut Outage| {
                let limit = run.time.checked_sub(LATE_ADMISSION);
                limit.is_none_or(|limit| !outage.has_ended_before(limit))
                    && outage.status_page.is_none()
                    && outage.is_of(run.provider)
            };
            for outage in outages.iter_mut().rev().take(MAX_CANDIDATES).filter(concerned) {
                outage.status_page = Some(StatusPageReport::new(outage.start, Some(run.time)));
            }
        }
    }

    /// Returns the incident that the pages of an outage's provider reported at its start.
    pub(super) fn at_start(&self, outage: &Outage) -> Option<StatusPageReport> {
        let since = self.of(outage).filter_map(|page| page.incident_since).min()?;
        Some(StatusPageReport::new(outage.start, Some(since)))
    }

    /// Completes an outage by announced maintenance, and by whether a page was read at all.
    pub(super) fn complete(&self, outage: &mut Outage, now: SystemTime) {
        let is_watched = self.of(outage).next().is_some();
        if outage.status_page.is_none() && is_watched {
            outage.status_page = Some(StatusPageReport::new(outage.start, None));
        }
        let (start, end) = (outage.start, outage.end.unwrap_or(now));
        let overlaps =
            |window: &&Maintained| window.start < end && window.end.is_none_or(|until| until > start);
        let windows = self.of(outage).flat_map(|page| &page.windows).filter(overlaps).copied();
        outage.maintenance = windows.take(MAX_LISTED_WINDOWS).collect();
    }

    /// Returns the pages of an outage: its provider's, and that of the upstream provider.
    fn of(&self, outage: &Outage) -> impl Iterator<Item = &Page> {
        let upstream = outage.upstream.as_ref().filter(|upstream| **upstream != outage.provider);
        [Some(&outage.provider), upstream].into_iter().flatten().filter_map(|name| self.0.get(name))
    }
}

/// Maximum number of maintenance windows of an outage.
const MAX_LISTED_WINDOWS: usize = 4;

impl Page {
    /// Adds the announced maintenance. One without a start begins with the first run that saw it in
    /// progress.
    fn add_maintenance(&mut self, status: &StatusPage, time: SystemTime) {
        let Some(maintenance) = status.maintenance else { return };
        let start = match (maintenance.start, maintenance.in_progress) {
            (Some(start), _) => start,
            (None, true) => match self.windows.last() {
                Some(last) if last.end.is_none() => last.start,
                _ => time,
            },
            (None, false) => return,
        };
        let window = Maintained { start, end: maintenance.end };
        let is_full = self.windows.len() >= MAX_WINDOWS;
        match self.windows.iter_mut().rev().find(|known| known.start == start) {
            // The page extended or shortened it.
            Some(known) => *known = window,
            None if !is_full => self.windows.push(window),
            None => {}
        }
    }
}

/// Returns whether a page reports an incident: of the configured components, if there are any.
fn reports_incident(page: &StatusPage) -> bool {
    let impaired = |status: ComponentStatus| match status {
        ComponentStatus::DegradedPerformance
        | ComponentStatus::PartialOutage
        | ComponentStatus::MajorOutage => true,
        ComponentStatus::Operational | ComponentStatus::UnderMaintenance | ComponentStatus::Unknown => false,
    };
    if !page.components.is_empty() {
        return page.components.iter().any(|(_, status)| impaired(*status));
    }
    match page.indicator {
        Indicator::Minor | Indicator::Major | Indicator::Critical => true,
        Indicator::None | Indicator::Maintenance | Indicator::Unknown => {
            page.open_incidents.is_some_and(|open| open > 0)
        }
    }
}

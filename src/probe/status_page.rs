//! Status pages: Statuspage's summary, incident.io's imitation of it, and Google's list of
//! incidents.
//!
//! They are parsed without a tree, because Google's list has hundreds of kilobytes of which few
//! words are needed. Only known words are passed on.

use std::time::SystemTime;

use serde::{Deserialize, de};

use super::loose::{Rows, Text};
use crate::{
    api::{body, hints},
    outcome::{ComponentStatus, Detail, Indicator, Maintenance, StatusPage},
};

/// Reads a page at that time, with a remark if something is unknown. The error is the cause why it
/// is not a page.
pub(super) fn read(
    body: &[u8],
    components: &[String],
    now: SystemTime,
) -> Result<(StatusPage, Option<Detail>), Detail> {
    let body = body::text(body);
    let page = match body.first() {
        None => return Err(Detail::EmptyStatusPage),
        Some(b'<') => return Err(Detail::HtmlStatusPage),
        Some(b'[') => of_google(body, components),
        Some(_) => of_statuspage(body, components, now),
    };
    let page = page.map_err(|_| Detail::NotAStatusPage)?;
    let unknown = |(_, status): &(String, ComponentStatus)| *status == ComponentStatus::Unknown;
    let remark = if page.indicator == Indicator::Unknown {
        Some(Detail::UnknownIndicator)
    } else if page.components.iter().any(unknown) {
        Some(Detail::UnknownComponent)
    } else {
        None
    };
    Ok((page, remark))
}

/// `{"status":{"indicator":…},"components":[…],"incidents":[…],"scheduled_maintenances":[…]}`. In
/// incident.io's imitation the last two are null or missing if they are empty; Statuspage's
/// `status.json` has neither them nor components.
#[derive(Deserialize)]
struct Summary<'a> {
    #[serde(borrow)]
    status: Status<'a>,
    #[serde(borrow, default)]
    components: Rows<Component<'a>>,
    #[serde(borrow, default)]
    incidents: Rows<Incident<'a>>,
    #[serde(borrow, default)]
    scheduled_maintenances: Rows<Announcement<'a>>,
    /// Of incident.io's own summary, which lists apart what has begun.
    #[serde(borrow, default)]
    in_progress_maintenances: Rows<Announcement<'a>>,
}

#[derive(Deserialize)]
struct Status<'a> {
    #[serde(borrow, default)]
    indicator: Text<'a>,
}

#[derive(Deserialize)]
struct Component<'a> {
    #[serde(borrow, default)]
    name: Text<'a>,
    #[serde(borrow, default)]
    status: Text<'a>,
}

#[derive(Deserialize)]
struct Incident<'a> {
    #[serde(borrow, default)]
    status: Text<'a>,
}

/// An announced maintenance: by Statuspage's names, or by incident.io's own.
#[derive(Deserialize)]
struct Announcement<'a> {
    #[serde(borrow, default)]
    status: Text<'a>,
    #[serde(borrow, default)]
    scheduled_for: Text<'a>,
    #[serde(borrow, default)]
    scheduled_until: Text<'a>,
    #[serde(borrow, default)]
    starts_at: Text<'a>,
    #[serde(borrow, default)]
    ends_at: Text<'a>,
    #[serde(borrow, default)]
    started_at: Text<'a>,
    #[serde(borrow, default)]
    scheduled_end_at: Text<'a>,
    /// Affected components; empty if they are not named.
    #[serde(borrow, default)]
    components: Rows<Component<'a>>,
}

fn of_statuspage(body: &[u8], wanted: &[String], now: SystemTime) -> serde_json::Result<StatusPage> {
    let summary: Summary<'_> = serde_json::from_slice(body)?;
    let Some(indicator) = summary.status.indicator.get() else {
        return Err(de::Error::missing_field("indicator"));
    };
    let is_over = |word: Option<&str>| matches!(word, Some("resolved" | "postmortem" | "completed"));
    let open = summary.incidents.rows.iter().filter(|incident| !is_over(incident.status.get())).count();
    let listed = summary.incidents.listed || summary.components.listed;
    let components = wanted.iter().map(|name| (name.clone(), status_of(name, &summary.components.rows)));
    Ok(StatusPage {
        indicator: Indicator::from_name(indicator).unwrap_or(Indicator::Unknown),
        open_incidents: listed.then_some(open as u64),
        components: components.collect(),
        maintenance: summary.maintenance(wanted, now),
    })
}

/// Returns the status of a component, the worst one if several have this name.
fn status_of(name: &str, components: &[Component<'_>]) -> ComponentStatus {
    let named = components.iter().filter(|component| component.name.get() == Some(name));
    let status = |component: &Component<'_>| {
        component.status.get().and_then(ComponentStatus::from_name).unwrap_or(ComponentStatus::Unknown)
    };
    named.map(status).max_by_key(|status| gravity(*status)).unwrap_or(ComponentStatus::Unknown)
}

/// Orders statuses by severity. An unknown one is between operational and any outage.
fn gravity(status: ComponentStatus) -> u8 {
    match status {
        ComponentStatus::Operational => 0,
        ComponentStatus::Unknown => 1,
        ComponentStatus::UnderMaintenance => 2,
        ComponentStatus::DegradedPerformance => 3,
        ComponentStatus::PartialOutage => 4,
        ComponentStatus::MajorOutage => 5,
    }
}

impl Summary<'_> {
    /// Returns the maintenance in progress, else the next one. If components are configured,
    /// maintenance of only other components does not count.
    fn maintenance(&self, wanted: &[String], now: SystemTime) -> Option<Maintenance> {
        let affects = |row: &&Announcement<'_>| {
            let mut names = row.components.rows.iter().filter_map(|component| component.name.get());
            wanted.is_empty()
                || row.components.rows.is_empty()
                || names.any(|name| wanted.iter().any(|wanted| wanted == name))
        };
        let begun = self.in_progress_maintenances.rows.iter().filter(affects).map(|row| (row, true));
        let announced = self.scheduled_maintenances.rows.iter().filter(affects).map(|row| (row, false));
        let maintenances = begun.chain(announced).filter_map(|(row, begun)| row.maintenance(begun, now));
        maintenances.min_by_key(|maintenance| (!maintenance.in_progress, maintenance.start))
    }
}

impl Announcement<'_> {
    /// Returns `None` if it has ended, or is announced without a time. It is in progress once its
    /// time has come, even if its state is still scheduled.
    fn maintenance(&self, begun: bool, now: SystemTime) -> Option<Maintenance> {
        let time = |names: [&Text<'_>; 3]| names.into_iter().filter_map(Text::get).find_map(hints::date);
        let start = time([&self.scheduled_for, &self.starts_at, &self.started_at]);
        let end = time([&self.scheduled_until, &self.ends_at, &self.scheduled_end_at]);
        let is_past = end.is_some_and(|end| end <= now);
        let in_progress = match self.status.get() {
            Some("completed" | "resolved" | "cancelled" | "canceled") => return None,
            Some("in_progress" | "verifying") => true,
            _ if begun => true,
            _ if is_past || start.is_none() => return None,
            _ => end.is_some() && start.is_some_and(|start| start <= now),
        };
        Some(Maintenance { start, end, in_progress })
    }
}

/// Reads an array of incidents, of which those without an end are open. The indicator is that of
/// the worst open incident. Configured components are titles of products, and then no other counts.
/// A product without an open incident is operational, because the list has no operational products.
fn of_google(body: &[u8], wanted: &[String]) -> serde_json::Result<StatusPage> {
    let incidents: Rows<GoogleIncident<'_>> = serde_json::from_slice(body)?;
    let mut worst = Indicator::None;
    let mut open = 0;
    let mut components = vec![Indicator::None; wanted.len()];
    for incident in &incidents.rows {
        let Some(impact) = incident.indicator() else { continue };
        let mut counts = wanted.is_empty();
        for (component, name) in components.iter_mut().zip(wanted) {
            let mut titles = incident.affected_products.rows.iter().filter_map(|product| product.title.get());
            if titles.any(|title| title == name) {
                *component = worse(*component, impact);
                counts = true;
            }
        }
        if counts {
            open += 1;
            worst = worse(worst, impact);
        }
    }
    let status = |impact| match impact {
        Indicator::None => ComponentStatus::Operational,
        Indicator::Minor => ComponentStatus::DegradedPerformance,
        Indicator::Major => ComponentStatus::PartialOutage,
        Indicator::Critical => ComponentStatus::MajorOutage,
        Indicator::Maintenance | Indicator::Unknown => ComponentStatus::Unknown,
    };
    Ok(StatusPage {
        indicator: worst,
        open_incidents: Some(open),
        components: wanted.iter().cloned().zip(components.into_iter().map(status)).collect(),
        maintenance: None,
    })
}

#[derive(Deserialize)]
struct GoogleIncident<'a> {
    #[serde(borrow, default)]
    end: Text<'a>,
    #[serde(borrow, default)]
    status_impact: Text<'a>,
    #[serde(borrow, default)]
    severity: Text<'a>,
    #[serde(borrow, default)]
    affected_products: Rows<Product<'a>>,
}

#[derive(Deserialize)]
struct Product<'a> {
    #[serde(borrow, default)]
    title: Text<'a>,
}

impl GoogleIncident<'_> {
    /// Returns the severity. Returns `None` if it has ended. An outage is worse than a disruption,
    /// and both are one step worse if their severity is high.
    fn indicator(&self) -> Option<Indicator> {
        if self.end.get().is_some_and(|end| !end.is_empty()) {
            return None;
        }
        let high = self.severity.get() == Some("high");
        Some(match self.status_impact.get() {
            Some("SERVICE_OUTAGE") if high => Indicator::Critical,
            Some("SERVICE_OUTAGE") => Indicator::Major,
            Some("SERVICE_DISRUPTION") if high => Indicator::Major,
            Some("SERVICE_DISRUPTION") => Indicator::Minor,
            Some("SERVICE_INFORMATION" | "AVAILABLE") => Indicator::None,
            _ => Indicator::Unknown,
        })
    }
}

/// Returns the worse of two indicators. An unknown one is between none and any incident.
fn worse(one: Indicator, other: Indicator) -> Indicator {
    let gravity = |indicator| match indicator {
        Indicator::None => 0,
        Indicator::Unknown => 1,
        Indicator::Maintenance => 2,
        Indicator::Minor => 3,
        Indicator::Major => 4,
        Indicator::Critical => 5,
    };
    if gravity(other) > gravity(one) { other } else { one }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks indicator, open incidents and components of a page, or the error.
    #[track_caller]
    fn check(body: &str, wanted: &[&str], expected: Result<(&str, Option<u64>, &[&str]), &Detail>) {
        let wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
        let found = read(body.as_bytes(), &wanted, SystemTime::UNIX_EPOCH).map(|(page, _)| page);
        let components = found.as_ref().map_or(vec![], |page| {
            assert_eq!(
                page.components.iter().map(|(name, _)| name).collect::<Vec<_>>(),
                Vec::from_iter(&wanted)
            );
            page.components.iter().map(|(_, status)| status.name()).collect()
        });
        let found = found.as_ref().map(|page| (page.indicator.name(), page.open_incidents, &*components));
        assert_eq!(found, expected, "{body}");
    }

    #[test]
    fn summary_has_indicator_incidents_and_components() {
        let summary = r#"{"page":{"id":"x"},"status":{"indicator":"minor","description":"d"},"components":[
            {"name":"Web","status":"operational"},
            {"name":"API","status":"degraded_performance","group":false},
            {"name":"Files","status":"under_maintenance"}],
            "incidents":[{"status":"investigating"},{"status":"monitoring"},{"status":"resolved"},
                {"status":"postmortem"},{"status":null},{}],
            "scheduled_maintenances":[{"status":"scheduled"}]}"#;
        let expected = &["under_maintenance", "degraded_performance"];
        check(summary, &["Files", "API"], Ok(("minor", Some(4), expected)));
        check(summary, &[], Ok(("minor", Some(4), &[])));
        check(summary, &["api", "API "], Ok(("minor", Some(4), &["unknown", "unknown"])));
    }

    #[test]
    fn incident_io_omits_empty_members() {
        for incidents in ["", r#","incidents":null"#, r#","incidents":[]"#] {
            let shim = format!(
                r#"{{"status":{{"indicator":"none"}},"components":[{{"name":"API","status":"operational"}}]{incidents}}}"#
            );
            check(&shim, &["API"], Ok(("none", Some(0), &["operational"])));
        }
        // The page's status.json: no list of anything.
        check(r#"{"status":{"indicator":"none"}}"#, &["API"], Ok(("none", None, &["unknown"])));
        check(r#"{"status":{"indicator":"none"},"components":null}"#, &[], Ok(("none", None, &[])));
    }

    #[test]
    fn worst_of_components_of_one_name_counts() {
        let of = |statuses: &[&str]| {
            let rows = statuses.iter().map(|status| format!(r#"{{"name":"API","status":"{status}"}}"#));
            let rows: Vec<String> = rows.collect();
            format!(r#"{{"status":{{"indicator":"none"}},"components":[{}]}}"#, rows.join(","))
        };
        check(&of(&["operational", "major_outage", "x"]), &["API"], Ok(("none", Some(0), &["major_outage"])));
        check(&of(&["operational", "x", "operational"]), &["API"], Ok(("none", Some(0), &["unknown"])));
        check(&of(&["x", "under_maintenance"]), &["API"], Ok(("none", Some(0), &["under_maintenance"])));
    }

    #[test]
    fn unlisted_words_are_unknown() {
        let page = r#"{"status":{"indicator":"on fire"},"components":[{"name":"API","status":"on fire"},
            {"name":"Web"},{"name":null,"status":"operational"},{}]}"#;
        check(page, &["API", "Web"], Ok(("unknown", Some(0), &["unknown", "unknown"])));
        let page = r#"[{"status_impact":"ON_FIRE"}]"#;
        check(page, &[], Ok(("unknown", Some(1), &[])));
    }

    #[test]
    fn escapes_and_marks_change_nothing() {
        let page = "\u{feff}\n {\"status\":{\"indicator\":\"\\u006dajor\"},\"\\u0063omponents\":[{\"na\\u006de\":\"A\\u0050I\",\"status\":\"operational\"}]} \n";
        check(page, &["API"], Ok(("major", Some(0), &["operational"])));
    }

    #[test]
    fn googles_incidents_are_open_without_an_end() {
        let incident = |impact: &str, severity: &str, end: &str| {
            format!(
                r#"{{"status_impact":"{impact}","severity":"{severity}"{end},"affected_products":[{{"title":"Vertex Gemini API"}},{{"title":"Cloud Run"}}]}}"#
            )
        };
        let outage = |end| format!("[{}]", incident("SERVICE_OUTAGE", "high", end));
        for open in ["", r#","end":null"#, r#","end":"""#] {
            check(&outage(open), &[], Ok(("critical", Some(1), &[])));
        }
        check(&outage(r#","end":"2026-11-20T01:00:00+00:00""#), &[], Ok(("none", Some(0), &[])));
        check("[]", &["Vertex Gemini API"], Ok(("none", Some(0), &["operational"])));
        for (impact, severity, indicator, component) in [
            ("SERVICE_OUTAGE", "high", "critical", "major_outage"),
            ("SERVICE_OUTAGE", "medium", "major", "partial_outage"),
            ("SERVICE_DISRUPTION", "high", "major", "partial_outage"),
            ("SERVICE_DISRUPTION", "low", "minor", "degraded_performance"),
            ("SERVICE_INFORMATION", "high", "none", "operational"),
            ("AVAILABLE", "low", "none", "operational"),
            ("ELSE", "high", "unknown", "unknown"),
        ] {
            let page = format!("[{}]", incident(impact, severity, ""));
            check(&page, &["Cloud Run"], Ok((indicator, Some(1), &[component])));
        }
        let several = ["SERVICE_INFORMATION", "SERVICE_OUTAGE", "SERVICE_DISRUPTION"];
        let several: Vec<String> = several.iter().map(|impact| incident(impact, "low", "")).collect();
        check(&format!("[{}]", several.join(",")), &[], Ok(("major", Some(3), &[])));
    }

    #[test]
    fn google_incidents_of_other_products_do_not_count() {
        let page = r#"[{"status_impact":"SERVICE_OUTAGE","affected_products":[{"title":"Cloud Run"}]},
            {"status_impact":"SERVICE_DISRUPTION","affected_products":[{"title":"Vertex Gemini API"},{}]},
            {"status_impact":"SERVICE_OUTAGE","affected_products":null},{"status_impact":"SERVICE_OUTAGE"}]"#;
        check(page, &[], Ok(("major", Some(4), &[])));
        let products = &["Vertex Gemini API", "Cloud SQL"];
        check(page, products, Ok(("minor", Some(1), &["degraded_performance", "operational"])));
    }

    #[test]
    fn other_bodies_are_no_status_page() {
        check("", &[], Err(&Detail::EmptyStatusPage));
        check(" \n", &[], Err(&Detail::EmptyStatusPage));
        check("<!DOCTYPE html><html></html>", &[], Err(&Detail::HtmlStatusPage));
        for body in [
            "null",
            "1",
            "\"none\"",
            "{}",
            "{\"status\":null}",
            "{\"status\":\"none\"}",
            "{\"status\":{}}",
            "{\"status\":{\"indicator\":null}}",
            "{\"status\":{\"indicator\":1}}",
            "{\"status\":{\"indicator\":\"none\"},\"components\":{}}",
            "{\"status\":{\"indicator\":\"none\"},\"components\":[1]}",
            "{\"status\":{\"indicator\":\"none\"},\"incidents\":\"none\"}",
            "{\"status\":{\"indicator\":\"none\"},\"incidents\":[null]}",
            "{\"status\":{\"indicator\":\"none\"}",
            "{\"status\":{\"indicator\":\"none\"}} {}",
            "{\"error\":\"not found\"}",
            "[1]",
            "[null]",
            "[{\"affected_products\":{}}]",
            "[{}",
        ] {
            check(body, &["API"], Err(&Detail::NotAStatusPage));
        }
    }

    #[test]
    fn members_of_another_type_count_as_missing() {
        let page = r#"{"status":{"indicator":"none"},"components":[{"name":1},{"name":"API","status":[1]}]}"#;
        check(page, &["API"], Ok(("none", Some(0), &["unknown"])));
        check(r#"[{"end":1,"status_impact":{}}]"#, &[], Ok(("unknown", Some(1), &[])));
        check(r#"[{"affected_products":[{"title":1}]}]"#, &["a"], Ok(("none", Some(0), &["operational"])));
    }

    #[test]
    fn rows_beyond_the_bound_are_dropped() {
        let rows = |row: &str| vec![row; 200_000].join(",");
        let page = format!(r#"{{"incidents":[{}],"status":{{"indicator":"none"}}}}"#, rows("{}"));
        check(&page, &[], Ok(("none", Some(16_384), &[])));
        let products = rows(r#"{"title":"a"}"#);
        let page = format!(r#"[{{"affected_products":[{products}]}}]"#);
        check(&page, &["a"], Ok(("unknown", Some(1), &["unknown"])));
        let deep = "[".repeat(100_000);
        check(
            &format!(r#"{{"status":{{"indicator":"none"}},"deep":{deep}"#),
            &[],
            Err(&Detail::NotAStatusPage),
        );
    }

    /// Returns start, end and progress of the maintenance of a summary with these rows, at noon of
    /// 22 November 2026.
    fn maintenance(rows: &str, wanted: &[&str]) -> Option<(Option<String>, Option<String>, bool)> {
        let now = hints::rfc3339("2026-11-22T12:00:00Z").unwrap();
        let wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
        let body = format!(r#"{{"status":{{"indicator":"none"}},"components":[],{rows}}}"#);
        let (page, _) = read(body.as_bytes(), &wanted, now).unwrap();
        let hour = |time: SystemTime| crate::outcome::rfc3339(time)[8..13].to_owned();
        page.maintenance.map(|found| (found.start.map(hour), found.end.map(hour), found.in_progress))
    }

    #[test]
    fn announced_maintenance_is_read() {
        let row = |status: &str, start: &str, end: &str| {
            format!(
                r#"{{"status":"{status}","scheduled_for":"2026-11-{start}:00:00Z","scheduled_until":"2026-11-{end}:00:00Z"}}"#
            )
        };
        let list = |rows: &[String]| format!(r#""scheduled_maintenances":[{}]"#, rows.join(","));
        let found = |start: &str, end: &str, now| Some((Some(start.to_owned()), Some(end.to_owned()), now));
        let of = |rows: &[String]| maintenance(&list(rows), &[]);
        assert_eq!(of(&[row("scheduled", "23T10", "23T12")]), found("23T10", "23T12", false));
        assert_eq!(of(&[row("in_progress", "22T10", "22T14")]), found("22T10", "22T14", true));
        assert_eq!(of(&[row("verifying", "22T10", "22T11")]), found("22T10", "22T11", true));
        // Its state is still scheduled, but its time has come.
        assert_eq!(of(&[row("scheduled", "22T11", "22T13")]), found("22T11", "22T13", true));
        // The one in progress before the next one, and that before a later one.
        let two = [row("scheduled", "22T20", "22T21"), row("in_progress", "22T10", "22T14")];
        assert_eq!(of(&two), found("22T10", "22T14", true));
        let two = [row("scheduled", "25T20", "25T21"), row("scheduled", "23T10", "23T14")];
        assert_eq!(of(&two), found("23T10", "23T14", false));
        // incident.io's own names.
        let own = r#""scheduled_maintenances":[{"starts_at":"2026-11-23T10:00:00Z","ends_at":"2026-11-23T12:00:00Z"}]"#;
        assert_eq!(maintenance(own, &[]), found("23T10", "23T12", false));
        let begun = r#""in_progress_maintenances":[{"started_at":"2026-11-22T10:00:00Z","scheduled_end_at":"2026-11-22T14:00:00Z"}]"#;
        assert_eq!(maintenance(begun, &[]), found("22T10", "22T14", true));
        let endless =
            r#""scheduled_maintenances":[{"status":"in_progress","scheduled_for":"2026-11-22T10:00:00Z"}]"#;
        assert_eq!(maintenance(endless, &[]), Some((Some("22T10".to_owned()), None, true)));
        let affecting = r#""scheduled_maintenances":[{"status":"scheduled","scheduled_for":"2026-11-23T10:00:00Z","components":[{"name":"API"}]}]"#;
        for wanted in [&[][..], &["API"], &["Web", "API"]] {
            assert_eq!(
                maintenance(affecting, wanted),
                Some((Some("23T10".to_owned()), None, false)),
                "{wanted:?}"
            );
        }
        assert_eq!(maintenance(affecting, &["Web"]), None);
    }

    #[test]
    fn past_or_undated_maintenance_is_ignored() {
        let time = r#""scheduled_for":"2026-11-23T10:00:00Z""#;
        for rows in [
            r#""scheduled_maintenances":null"#.to_owned(),
            r#""scheduled_maintenances":[]"#.to_owned(),
            r#""incidents":[{"status":"investigating","impact":"maintenance"}]"#.to_owned(),
            r#""scheduled_maintenances":[{}]"#.to_owned(),
            format!(r#""scheduled_maintenances":[{{"status":"completed",{time}}}]"#),
            format!(r#""scheduled_maintenances":[{{"status":"canceled",{time}}}]"#),
            r#""scheduled_maintenances":[{"status":"scheduled","scheduled_for":"soon"}]"#.to_owned(),
            r#""scheduled_maintenances":[{"status":"scheduled","scheduled_for":7}]"#.to_owned(),
            r#""scheduled_maintenances":[{"status":"scheduled","scheduled_for":"2026-11-20T10:00:00Z","scheduled_until":"2026-11-20T12:00:00Z"}]"#.to_owned(),
            r#""scheduled_maintenances":[{"status":"scheduled","scheduled_for":"9999-12-31T10:00:00Z"}]"#.to_owned(),
            r#""scheduled_maintenances":[{"name":"x","components":null}]"#.to_owned(),
        ] {
            assert_eq!(maintenance(&rows, &[]), None, "{rows}");
        }
    }
}

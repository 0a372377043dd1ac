//! What a status page says: Statuspage's summary, incident.io's imitation of it, Google's list of incidents.
//!
//! Pure, and without a tree: Google's list has hundreds of kilobytes, of which a handful of words count. Of those only
//! ones that we know come out.

use std::{borrow::Cow, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use crate::outcome::{ComponentStatus, Indicator, StatusPage};

/// The page, and a remark where something of it could not be told; the error says why it is none.
pub(super) fn read(body: &[u8], components: &[String]) -> Result<(StatusPage, &'static str), &'static str> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii();
    let page = match body.first() {
        None => return Err("an empty body in place of the status page's data"),
        Some(b'<') => return Err("an HTML page in place of the status page's data"),
        Some(b'[') => of_google(body, components),
        Some(_) => of_statuspage(body, components),
    };
    let page = page.map_err(|_| "the body is neither a Statuspage summary nor Google's list of incidents")?;
    let unknown = |(_, status): &(String, ComponentStatus)| *status == ComponentStatus::Unknown;
    let remark = if page.indicator == Indicator::Unknown {
        "the page's verdict is in a word that is not known"
    } else if page.components.iter().any(unknown) {
        "a component is not on the page, or in a state that is not known"
    } else {
        ""
    };
    Ok((page, remark))
}

/// `{"status":{"indicator":…},"components":[…],"incidents":[…]}`. Where incident.io imitates it and all is quiet, the
/// incidents are null or missing; Statuspage's own `status.json` has neither them nor components.
fn of_statuspage(body: &[u8], wanted: &[String]) -> serde_json::Result<StatusPage> {
    let mut summary =
        Summary { wanted, indicator: None, components: vec![None; wanted.len()], listed: false, open: None };
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    deserializer.deserialize_map(&mut summary)?;
    deserializer.end()?;
    let Summary { indicator, components, listed, open, .. } = summary;
    let indicator = indicator.ok_or_else(|| de::Error::missing_field("status"))?;
    let status = |status: Option<ComponentStatus>| status.unwrap_or(ComponentStatus::Unknown);
    Ok(StatusPage {
        indicator,
        open_incidents: open.or(listed.then_some(0)),
        components: wanted.iter().cloned().zip(components.into_iter().map(status)).collect(),
    })
}

struct Summary<'w> {
    wanted: &'w [String],
    indicator: Option<Indicator>,
    /// In the order of `wanted`; `None`: not found so far.
    components: Vec<Option<ComponentStatus>>,
    /// Whether the page lists components, as every summary does.
    listed: bool,
    open: Option<u64>,
}

#[derive(Deserialize)]
struct Status<'a> {
    #[serde(borrow)]
    indicator: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Component<'a> {
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    status: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Incident<'a> {
    #[serde(borrow)]
    status: Option<Cow<'a, str>>,
}

impl<'de> Visitor<'de> for &mut Summary<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a summary")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            match &*name {
                "status" => {
                    let status: Status<'de> = map.next_value()?;
                    let known = Indicator::from_name(&status.indicator);
                    self.indicator = Some(known.unwrap_or(Indicator::Unknown));
                }
                "components" => {
                    let each = Each::new(|component: Component<'de>| self.take(&component));
                    self.listed = map.next_value_seed(each)?;
                }
                "incidents" => {
                    let mut open = 0;
                    let is_over = |word: &str| matches!(word, "resolved" | "postmortem" | "completed");
                    let each = Each::new(|incident: Incident<'de>| {
                        open += u64::from(!incident.status.is_some_and(|word| is_over(&word)));
                    });
                    self.open = map.next_value_seed(each)?.then_some(open);
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

impl Summary<'_> {
    /// Of several components of one name, as groups may have them, the worst counts.
    fn take(&mut self, component: &Component<'_>) {
        let Some(index) = self.wanted.iter().position(|wanted| component.name.as_deref() == Some(wanted))
        else {
            return;
        };
        let word = component.status.as_deref();
        let status = word.and_then(ComponentStatus::from_name).unwrap_or(ComponentStatus::Unknown);
        let found = self.components[index].get_or_insert(status);
        if gravity(status) > gravity(*found) {
            *found = status;
        }
    }
}

/// The order of badness, in which what is not known is worse than nothing and better than any trouble.
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

/// A bare array of incidents, old ones included; one without an end is open. The page has no verdict of its own: it is
/// that of the worst open incident. Configured components are titles of products, and then nothing else counts. A
/// product that no open incident affects is operational: the list names none that are well.
fn of_google(body: &[u8], wanted: &[String]) -> serde_json::Result<StatusPage> {
    let mut worst = Indicator::None;
    let mut open = 0;
    let mut components = vec![Indicator::None; wanted.len()];
    let mut take = |incident: GoogleIncident<'_>| {
        let Some(impact) = incident.indicator() else { return };
        let mut counts = wanted.is_empty();
        for (component, name) in components.iter_mut().zip(wanted) {
            if incident.affected_products.contains(&Cow::Borrowed(name.as_str())) {
                *component = worse(*component, impact);
                counts = true;
            }
        }
        if counts {
            open += 1;
            worst = worse(worst, impact);
        }
    };
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    Each::new(&mut take).deserialize(&mut deserializer)?;
    deserializer.end()?;
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
    })
}

#[derive(Deserialize)]
struct GoogleIncident<'a> {
    #[serde(borrow)]
    end: Option<Cow<'a, str>>,
    #[serde(borrow)]
    status_impact: Option<Cow<'a, str>>,
    #[serde(borrow)]
    severity: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "titles")]
    affected_products: Vec<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Product<'a> {
    #[serde(borrow)]
    title: Option<Cow<'a, str>>,
}

/// The titles of products; no real incident has more than some hundred.
fn titles<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Cow<'de, str>>, D::Error> {
    const MOST: usize = 1024;
    let mut titles = Vec::new();
    let each = Each::new(|product: Product<'de>| {
        if titles.len() < MOST {
            titles.extend(product.title);
        }
    });
    each.deserialize(deserializer)?;
    Ok(titles)
}

impl GoogleIncident<'_> {
    /// How bad it is; `None`: it is over. An outage is worse than a disruption, and either is one step worse where its
    /// severity is high.
    fn indicator(&self) -> Option<Indicator> {
        if self.end.as_deref().is_some_and(|end| !end.is_empty()) {
            return None;
        }
        let high = self.severity.as_deref() == Some("high");
        Some(match self.status_impact.as_deref() {
            Some("SERVICE_OUTAGE") if high => Indicator::Critical,
            Some("SERVICE_OUTAGE") => Indicator::Major,
            Some("SERVICE_DISRUPTION") if high => Indicator::Major,
            Some("SERVICE_DISRUPTION") => Indicator::Minor,
            Some("SERVICE_INFORMATION" | "AVAILABLE") => Indicator::None,
            _ => Indicator::Unknown,
        })
    }
}

/// The worse of two verdicts; one that is not known is worse than nothing and better than any trouble.
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

/// Hands each row of an array over and keeps none; the value is whether there was an array, and not null.
struct Each<T, F> {
    visit: F,
    row: PhantomData<T>,
}

impl<T, F: FnMut(T)> Each<T, F> {
    fn new(visit: F) -> Self {
        Self { visit, row: PhantomData }
    }
}

impl<'de, T: Deserialize<'de>, F: FnMut(T)> DeserializeSeed<'de> for Each<T, F> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Deserialize<'de>, F: FnMut(T)> Visitor<'de> for Each<T, F> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array or null")
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut rows: A) -> Result<bool, A::Error> {
        while let Some(row) = rows.next_element()? {
            (self.visit)(row);
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a page comes to: indicator, open incidents and components, by name; the error's text where it is none.
    #[track_caller]
    fn check(body: &str, wanted: &[&str], expected: Result<(&str, Option<u64>, &[&str]), &str>) {
        let wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
        let found = read(body.as_bytes(), &wanted).map(|(page, _)| page);
        let components = found.as_ref().map_or(vec![], |page| {
            assert_eq!(
                page.components.iter().map(|(name, _)| name).collect::<Vec<_>>(),
                Vec::from_iter(&wanted)
            );
            page.components.iter().map(|(_, status)| status.name()).collect()
        });
        let found = found.as_ref().map(|page| (page.indicator.name(), page.open_incidents, &*components));
        match (found, expected) {
            (Err(found), Err(part)) => assert!(found.contains(part), "{body}: {found}"),
            (found, expected) => assert_eq!(found, expected.map_err(|_| &""), "{body}"),
        }
    }

    #[test]
    fn a_summary_tells_indicator_incidents_and_components() {
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
    fn incident_io_leaves_out_what_there_is_none_of() {
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
    fn of_components_of_one_name_the_worst_counts() {
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
    fn words_that_are_not_known_are_unknown() {
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
    fn of_googles_incidents_only_those_of_the_configured_products_count() {
        let page = r#"[{"status_impact":"SERVICE_OUTAGE","affected_products":[{"title":"Cloud Run"}]},
            {"status_impact":"SERVICE_DISRUPTION","affected_products":[{"title":"Vertex Gemini API"},{}]},
            {"status_impact":"SERVICE_OUTAGE","affected_products":null},{"status_impact":"SERVICE_OUTAGE"}]"#;
        check(page, &[], Ok(("major", Some(4), &[])));
        let products = &["Vertex Gemini API", "Cloud SQL"];
        check(page, products, Ok(("minor", Some(1), &["degraded_performance", "operational"])));
    }

    #[test]
    fn what_is_no_status_page_is_refused() {
        check("", &[], Err("empty body"));
        check(" \n", &[], Err("empty body"));
        check("<!DOCTYPE html><html></html>", &[], Err("HTML"));
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
            "{\"status\":{\"indicator\":\"none\"},\"components\":[{\"name\":1}]}",
            "{\"status\":{\"indicator\":\"none\"},\"incidents\":\"none\"}",
            "{\"status\":{\"indicator\":\"none\"},\"incidents\":[null]}",
            "{\"status\":{\"indicator\":\"none\"}",
            "{\"status\":{\"indicator\":\"none\"}} {}",
            "{\"error\":\"not found\"}",
            "[1]",
            "[null]",
            "[{\"end\":1}]",
            "[{\"affected_products\":{}}]",
            "[{\"affected_products\":[{\"title\":1}]}]",
            "[{}",
        ] {
            check(body, &["API"], Err("neither"));
        }
    }

    #[test]
    fn a_page_as_large_as_can_be_read_is_counted_without_being_kept() {
        let rows = |row: &str| vec![row; 200_000].join(",");
        let page = format!(r#"{{"incidents":[{}],"status":{{"indicator":"none"}}}}"#, rows("{}"));
        check(&page, &[], Ok(("none", Some(200_000), &[])));
        let products = rows(r#"{"title":"a"}"#);
        let page = format!(r#"[{{"affected_products":[{products}]}}]"#);
        check(&page, &["a"], Ok(("unknown", Some(1), &["unknown"])));
        let deep = "[".repeat(100_000);
        check(&format!(r#"{{"status":{{"indicator":"none"}},"deep":{deep}"#), &[], Err("neither"));
    }
}

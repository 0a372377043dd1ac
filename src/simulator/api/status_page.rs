//! Status pages of the services, without a key: Statuspage's summary, incident.io's imitation of it
//! for `OpenAI`, and Google's list of incidents.

use serde_json::{Value, json};

use super::SimulatedService;
use crate::simulator::exchange::Reply;

/// Returns the page at a path ([`SimulatedService::status_path`]). Returns `None` if there is none.
/// `incident` is `minor`, `major`, `critical` or `maintenance`.
pub(in crate::simulator) fn status_page(path: &str, incident: Option<&str>) -> Option<Reply> {
    let provider = SimulatedService::ALL.into_iter().find(|provider| provider.status_path() == path)?;
    Some(Reply::json(200, &provider.service().status_page(incident)))
}

/// Returns the terms for the page, for the API's component and for the incident.
fn words(incident: Option<&str>) -> (&str, &'static str) {
    match incident {
        None => ("none", "operational"),
        Some("minor") => ("minor", "degraded_performance"),
        Some("critical") => ("critical", "major_outage"),
        Some("maintenance") => ("maintenance", "under_maintenance"),
        Some(_) => ("major", "partial_outage"),
    }
}

fn component(id: &str, name: &str, status: &str) -> Value {
    json!({"id": id, "name": name, "status": status, "created_at": "2023-07-11T17:59:46.132Z",
        "updated_at": "2026-11-22T07:58:12.345Z", "position": 1, "description": null, "showcase": true,
        "start_date": null, "group_id": null, "page_id": "simulated", "group": false, "only_show_if_degraded": false})
}

/// Returns Statuspage's summary, with a component of this name for the API.
pub(super) fn statuspage(api: &str, incident: Option<&str>) -> Value {
    let (indicator, status) = words(incident);
    let event = |status: &str| {
        json!([{"id": "i1", "name": "Elevated errors", "status": status, "impact": indicator,
            "created_at": "2026-11-22T07:10:00.000Z", "updated_at": "2026-11-22T07:40:00.000Z",
            "resolved_at": null, "shortlink": "https://stspg.io/simulated", "incident_updates": [],
            "components": []}])
    };
    let (incidents, maintenances) = match indicator {
        "none" => (json!([]), json!([])),
        "maintenance" => (json!([]), event("in_progress")),
        _ => (event("investigating"), json!([])),
    };
    json!({"page": {"id": "simulated", "name": "Simulated", "url": "https://status.example", "time_zone": "Etc/UTC",
            "updated_at": "2026-11-22T07:58:12.345Z"},
        "components": [component("c1", "Website", "operational"), component("c2", api, status)],
        "incidents": incidents, "scheduled_maintenances": maintenances,
        "status": {"indicator": indicator, "description": "As simulated"}})
}

/// Returns incident.io's summary. Without incidents, the list is null; components have no `group`,
/// and incidents no components.
pub(super) fn incident_io(incident: Option<&str>) -> Value {
    let (indicator, status) = words(incident);
    let component = |id: &str, name: &str, status: &str| json!({"id": id, "name": name, "status": status, "updated_at": "2026-11-22T07:58:12Z"});
    let incidents = match indicator {
        "none" | "maintenance" => Value::Null,
        _ => json!([{"id": "01KAJ0000000000000000000IN", "name": "Elevated errors", "status": "identified",
            "impact": indicator, "shortlink": null, "resolved_at": null, "incident_updates": []}]),
    };
    json!({"page": {"id": "01JMDK9XYE2AMD7T9MZX1YBBSN", "name": "OpenAI", "url": "https://status.openai.com"},
        "status": {"indicator": indicator, "description": "As simulated"},
        "components": [component("01JMXBRMFE6N2NNT7DG6XZQ6PW", "Chat Completions", status),
            component("01JMXBNJPRCMR5Z2V57RSVKKBG", "Images", "operational")],
        "incidents": incidents, "scheduled_maintenances": Value::Null})
}

/// Returns Google's list, which always has past incidents. An open one has no end.
pub(super) fn google(incident: Option<&str>) -> Value {
    let event = |id: &str, impact: &str, severity: &str| {
        json!({"id": id, "number": "1", "begin": "2026-11-20T00:00:00+00:00", "external_desc": "Elevated errors",
            "status_impact": impact, "severity": severity, "service_name": "Multiple Products",
            "affected_products": [{"title": "Vertex Gemini API", "id": "simulated"}], "updates": [],
            "uri": format!("incidents/{id}")})
    };
    let mut old = event("old", "SERVICE_OUTAGE", "high");
    old["end"] = json!("2026-11-20T01:00:00+00:00");
    let (impact, severity) = match incident {
        None => return json!([old]),
        Some("minor") => ("SERVICE_DISRUPTION", "medium"),
        Some("critical") => ("SERVICE_OUTAGE", "high"),
        Some("maintenance") => ("SERVICE_INFORMATION", "low"),
        Some(_) => ("SERVICE_DISRUPTION", "high"),
    };
    json!([event("open", impact, severity), old])
}

//! `[[comparison]]` and `[[pool]]`: groups of probes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{context::Placed, generated::listed, probe::name};
use crate::{
    config::{
        duration,
        model::{Comparison, Pool, PoolMember, Probe},
        problem::{Place, Report, nearest, shown},
        raw::Section,
    },
    outcome::{Api, Check, Fault, Side},
};

/// Maximum number of pools, which bounds their series. Comparisons are bounded because each needs
/// two probes of its own.
const MAX_POOLS: usize = 1_000;

/// Maximum weight of a pool member.
const MAX_WEIGHT: u32 = 10_000;

/// The probes that a section can refer to.
pub(super) struct Known<'a> {
    probes: BTreeMap<&'a str, &'a Probe>,
    /// All names, including those of invalid probes.
    names: &'a BTreeSet<String>,
    report: &'a Report,
}

impl<'a> Known<'a> {
    pub(super) fn new(probes: &'a [Placed], names: &'a BTreeSet<String>, report: &'a Report) -> Self {
        let probes = probes.iter().map(|placed| (placed.probe.name.as_str(), &placed.probe)).collect();
        Self { probes, names, report }
    }

    /// Returns the name of a probe under the key. Reports a name that does not exist.
    fn named(&self, section: &mut Section<'_>, key: &'static str) -> Option<String> {
        section.required(key, |text| {
            if self.names.contains(text) {
                return Ok(text.to_owned());
            }
            let names: Vec<_> = self.names.iter().map(String::as_str).collect();
            let meant =
                nearest(text, &names).map_or_else(String::new, |name| format!("; did you mean {name:?}?"));
            Err(format!("{} is not the name of a probe{meant}", shown(text)))
        })
    }

    /// Returns the probe of that name, or `None` if it is invalid.
    fn probe(&self, name: &str) -> Option<&'a Probe> {
        self.probes.get(name).copied()
    }
}

/// Returns the section with its name in its path, and the name. Reports a missing or duplicate
/// name.
fn titled<'a>(
    mut section: Section<'a>,
    what: &str,
    taken: &mut BTreeSet<String>,
) -> (Section<'a>, Option<String>) {
    if let Some(title) = section.value("name").and_then(|name| name.as_str()) {
        section = section.with_name(title);
    }
    let name = section.required("name", name).filter(|name| {
        let new = taken.insert(name.clone());
        if !new {
            section.problem("name", format!("an earlier {what} has the same name; names must be unique"));
        }
        new
    });
    (section, name)
}

/// Reads all `[[comparison]]` sections.
pub(super) fn comparisons(root: &mut Section<'_>, known: &Known<'_>) -> Vec<Arc<Comparison>> {
    let mut comparisons = Vec::new();
    let mut names = BTreeSet::new();
    // The comparison of each probe.
    let mut members: BTreeMap<String, String> = BTreeMap::new();
    for (value, place) in root.elements("comparison", "an array of tables, each written under [[comparison]]")
    {
        let (mut section, name) =
            titled(Section::from_value(value, place, known.report), "comparison", &mut names);
        let [gateway, direct] = ["gateway", "direct"].map(|side| known.named(&mut section, side));
        let title = name.clone().unwrap_or_default();
        for (side, probe) in [("gateway", &gateway), ("direct", &direct)] {
            let Some(probe) = probe else { continue };
            let before = members.insert(probe.clone(), title.clone());
            if let Some(before) = before.filter(|_| gateway != direct) {
                let message = format!("{probe:?} is in the comparison {} already", shown(&before));
                section.problem(side, format!("{message}; a probe can be in one only; add another probe"));
            }
        }
        if let Some((gateway, direct)) = gateway.as_ref().zip(direct.as_ref()) {
            check_comparable(&section, known, gateway, direct);
        }
        section.finish();
        if let (Some(name), Some(gateway), Some(direct)) = (name, gateway, direct) {
            comparisons.push(Arc::new(Comparison { name, gateway, direct }));
        }
    }
    comparisons
}

/// Reports why the results of two probes cannot be compared.
fn check_comparable(section: &Section<'_>, known: &Known<'_>, gateway: &str, direct: &str) {
    if gateway == direct {
        section
            .problem("direct", "is the same probe as gateway; use one that addresses the provider directly");
        return;
    }
    let [gateway, direct] = [gateway, direct].map(|name| known.probe(name));
    if let Some(Probe { name, provider, .. }) = gateway.filter(|probe| !by_gateway(probe)) {
        let message = format!("{name:?} addresses {}, which is not a gateway", provider.name);
        let gateways = listed(Api::ALL.iter().filter(|api| api.endpoint() == Fault::Gateway));
        section.problem("gateway", format!("{message}; the APIs {gateways} are gateways"));
    }
    if let Some(Probe { name, provider, .. }) = direct.filter(|probe| by_gateway(probe)) {
        let message = format!("{name:?} addresses {}, which is a gateway itself", provider.name);
        section.problem("direct", format!("{message}; use a probe of the provider behind it"));
    }
    let (Some(gateway), Some(direct)) = (gateway, direct) else { return };
    if gateway.check() != direct.check() {
        report_difference(section, gateway, "check", &[gateway.check(), direct.check()]);
        return;
    }
    if gateway.check() == Check::Status {
        section.problem("gateway", "the status check does not use the service; compare another check");
    }
    if gateway.connection != direct.connection {
        report_difference(
            section,
            gateway,
            "connection",
            &[gateway, direct].map(|probe| probe.connection.name()),
        );
    }
    if gateway.interval != direct.interval {
        report_difference(
            section,
            gateway,
            "interval",
            &[gateway, direct].map(|probe| duration::format(probe.interval)),
        );
    } else if gateway.timeout + direct.timeout > gateway.interval {
        let [one, other] = [gateway, direct].map(|probe| duration::format(probe.timeout));
        let message = format!(
            "the probes run one after the other, and the sum of their timeouts {one} and {other} exceeds their interval \
             {}; lower the timeouts or raise the interval",
            duration::format(gateway.interval)
        );
        known.report.error(section.place(), message);
    }
    check_same_request(section, gateway, direct);
    if let Some((one, other)) = gateway.model.as_deref().zip(direct.model.as_deref())
        && !may_be_same_model(one, other)
    {
        let message = format!("compares the model {} with {}; is this intended?", shown(one), shown(other));
        known.report.warning(section.place(), message);
    }
}

/// Reports differences between the requests for a completion.
fn check_same_request(section: &Section<'_>, gateway: &Probe, direct: &Probe) {
    if let Some((one, other)) = gateway.chat().zip(direct.chat()) {
        if one.prompt != other.prompt {
            section.problem(
                "direct",
                format!("must have the same prompt or prompt_words as {:?}", gateway.name),
            );
        }
        if one.max_tokens != other.max_tokens {
            report_difference(section, gateway, "max_tokens", &[one.max_tokens, other.max_tokens]);
        }
    }
}

fn by_gateway(probe: &Probe) -> bool {
    probe.provider.api.endpoint() == Fault::Gateway
}

fn report_difference(
    section: &Section<'_>,
    gateway: &Probe,
    key: &str,
    [one, other]: &[impl std::fmt::Display; 2],
) {
    section.problem("direct", format!("must have the same {key} as {:?}: {one}, not {other}", gateway.name));
}

/// Returns whether two names may refer to the same model. Gateways prefix the provider's name, omit
/// dates, and replace hyphens by dots.
fn may_be_same_model(one: &str, other: &str) -> bool {
    let [one, other] = [one, other].map(|model| model.rsplit('/').next().unwrap_or(model).replace('.', "-"));
    one.starts_with(&other) || other.starts_with(&one)
}

/// Sets the comparison of each probe.
pub(super) fn set_comparisons(probes: &mut [Placed], comparisons: &[Arc<Comparison>]) {
    let sides = comparisons
        .iter()
        .flat_map(|comparison| Side::ALL.iter().map(move |side| (comparison.probe(*side), comparison)));
    let by_probe: BTreeMap<&str, &Arc<Comparison>> = sides.collect();
    for Placed { probe, .. } in probes {
        probe.comparison = by_probe.get(probe.name.as_str()).map(|comparison| Arc::clone(comparison));
    }
}

/// Reads all `[[pool]]` sections.
pub(super) fn pools(root: &mut Section<'_>, known: &Known<'_>) -> Vec<Pool> {
    let mut pools = Vec::new();
    let mut names = BTreeSet::new();
    let elements = root.elements("pool", "an array of tables, each written under [[pool]]");
    if elements.len() > MAX_POOLS {
        let message = format!("{} pools are too many; allowed: {MAX_POOLS}", elements.len());
        known.report.error(&Place::default(), message);
    }
    for (value, place) in elements {
        let (mut section, name) = titled(Section::from_value(value, place, known.report), "pool", &mut names);
        let members = members(&mut section, known);
        section.finish();
        pools.extend(name.map(|name| Pool { name, members }));
    }
    pools
}

fn members(section: &mut Section<'_>, known: &Known<'_>) -> Vec<PoolMember> {
    let elements = section.elements("members", "an array of tables such as { probe = \"NAME\", weight = 2 }");
    if elements.is_empty() && !section.is_bad("members") {
        section.problem("members", "must have at least one probe: [{ probe = \"NAME\", weight = 2 }, …]");
    }
    let mut members: Vec<PoolMember> = Vec::new();
    for (value, place) in elements {
        let mut section = Section::from_value(value, place, known.report);
        let probe = value.as_table().and_then(|_| known.named(&mut section, "probe"));
        let weight = section.number("weight", &(1..=MAX_WEIGHT)).unwrap_or(1);
        if let Some(probe) = probe {
            if members.iter().any(|member| member.probe == probe) {
                section.problem("probe", format!("{probe:?} is listed twice; combine its weights"));
            }
            if known.probe(&probe).is_some_and(|probe| !probe.check().addresses_service()) {
                section.problem("probe", "the status check does not show whether the service is available");
            }
            members.push(PoolMember { probe, weight });
        }
        section.finish();
    }
    members
}

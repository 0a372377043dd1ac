//! The record of a run: one JSON object, of which what is not known is left out.

use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{
    Check, Compared, Network, Outcome,
    time::{date, rfc3339, seconds},
};

/// Who a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject<'a> {
    /// The probe's name.
    pub probe: &'a str,
    /// The provider's name.
    pub provider: &'a str,
    /// What is looked at.
    pub check: Check,
    /// The model, where the probe has one.
    pub model: Option<&'a str>,
}

/// The result record: one line of `results.jsonl` and of `once --json`. Members without a value are left out.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Whose run.
    pub subject: Subject<'a>,
    /// What it found.
    pub outcome: &'a Outcome,
}

impl Serialize for Record<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Subject { probe, provider, check, model } = self.subject;
        // Taken apart in full, so that a new member of the outcome does not compile until it is written here.
        let Outcome {
            time,
            reason,
            fault,
            detail,
            hint,
            http_status,
            http_version,
            error_code,
            upstream,
            request_id,
            retry_after,
            limited_by,
            clue: _,
            reported_processing,
            model_shutdown,
            answered_model,
            model_match,
            duration,
            phases,
            remote_address,
            ratelimit,
            tls,
            dns,
            failed_addresses,
            clock,
            network,
            clock_offset,
            time_to_first_token: _,
            time_to_first_reasoning: _,
            time_per_output_token: _,
            stream: _,
            buffered: _,
            input_tokens: _,
            cached_input_tokens: _,
            output_tokens: _,
            tokens_estimated: _,
            estimated_cost_usd: _,
            status_page,
            balance,
            recheck,
            connection,
            slow,
            compared,
        } = self.outcome;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("time", &rfc3339(*time))?;
        map.serialize_entry("probe", probe)?;
        map.serialize_entry("provider", provider)?;
        map.serialize_entry("check", &check)?;
        optional(&mut map, "model", model.as_ref())?;
        optional(&mut map, "answered_model", answered_model.as_ref())?;
        optional(&mut map, "model_match", model_match.as_ref())?;
        map.serialize_entry("success", &self.outcome.success())?;
        map.serialize_entry("reason", reason)?;
        map.serialize_entry("fault", fault)?;
        optional(&mut map, "detail", (!detail.is_empty()).then_some(detail))?;
        optional(&mut map, "hint", (!hint.is_empty()).then_some(hint))?;
        optional(&mut map, "http_status", http_status.as_ref())?;
        optional(&mut map, "http_version", http_version.as_ref())?;
        optional(&mut map, "error_code", error_code.as_ref())?;
        optional(&mut map, "upstream", upstream.as_ref())?;
        optional(&mut map, "request_id", request_id.as_ref())?;
        optional(&mut map, "retry_after_seconds", retry_after.as_ref())?;
        optional(&mut map, "limited_by", limited_by.as_ref())?;
        map.serialize_entry("duration_seconds", &seconds(*duration))?;
        map.serialize_entry("phases", phases)?;
        optional(&mut map, "remote_address", remote_address.as_ref())?;
        optional(&mut map, "ratelimit", (!ratelimit.is_empty()).then_some(ratelimit))?;
        optional(&mut map, "tls", tls.as_ref())?;
        optional(&mut map, "dns", (!dns.is_empty()).then_some(dns))?;
        if let Some(Network { dns_servers }) = network.as_deref() {
            optional(&mut map, "dns_servers", (!dns_servers.is_empty()).then_some(dns_servers))?;
        }
        optional(&mut map, "failed_addresses", (!failed_addresses.is_empty()).then_some(failed_addresses))?;
        optional(&mut map, "clock", clock.as_ref())?;
        optional(&mut map, "clock_offset_seconds", clock_offset.as_ref())?;
        generation(&mut map, self.outcome)?;
        let reported = reported_processing.map(seconds);
        optional(&mut map, "reported_processing_seconds", reported.as_ref())?;
        optional(&mut map, "model_shutdown", model_shutdown.map(date).as_ref())?;
        optional(&mut map, "status_page", status_page.as_ref())?;
        optional(&mut map, "balance", balance.as_ref())?;
        optional(&mut map, "recheck", recheck.as_ref())?;
        optional(&mut map, "connection", connection.as_ref())?;
        optional(&mut map, "slow", slow.then_some(&true))?;
        if let Some(Compared { comparison, side, pair }) = compared.as_deref() {
            map.serialize_entry("comparison", comparison)?;
            map.serialize_entry("side", side)?;
            optional(&mut map, "verdict", pair.map(|pair| pair.verdict()).as_ref())?;
        }
        map.end()
    }
}

/// Writes what was measured of a generated answer. [`Record`] does not take these members apart.
fn generation<M: SerializeMap>(map: &mut M, outcome: &Outcome) -> Result<(), M::Error> {
    let first_token = outcome.time_to_first_token.map(seconds);
    optional(map, "time_to_first_token_seconds", first_token.as_ref())?;
    let first_reasoning = outcome.time_to_first_reasoning.map(seconds);
    optional(map, "time_to_first_reasoning_seconds", first_reasoning.as_ref())?;
    let per_token = outcome.time_per_output_token.map(seconds);
    optional(map, "time_per_output_token_seconds", per_token.as_ref())?;
    optional(map, "stream", outcome.stream.as_ref())?;
    optional(map, "buffered", outcome.buffered.as_ref())?;
    optional(map, "input_tokens", outcome.input_tokens.as_ref())?;
    optional(map, "cached_input_tokens", outcome.cached_input_tokens.as_ref())?;
    optional(map, "output_tokens", outcome.output_tokens.as_ref())?;
    optional(map, "tokens_estimated", outcome.tokens_estimated.then_some(&true))?;
    optional(map, "estimated_cost_usd", outcome.estimated_cost_usd.as_ref())
}

/// Writes a member that has a value.
pub(super) fn optional<M: SerializeMap, T: Serialize>(
    map: &mut M,
    name: &'static str,
    value: Option<&T>,
) -> Result<(), M::Error> {
    value.map_or(Ok(()), |value| map.serialize_entry(name, value))
}

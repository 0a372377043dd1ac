//! One run, as the ledger needs it.

use std::time::SystemTime;

use crate::outcome::{Check, Fault, PairVerdict, Reason, Side, StatusPage};

/// A run of a probe, from a record or from memory.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// Start of the run.
    pub time: SystemTime,
    /// The probe's name.
    pub probe: &'a str,
    /// The provider's name.
    pub provider: &'a str,
    /// The probe's check.
    pub check: Check,
    /// The model. `None` if the probe has none.
    pub model: Option<&'a str>,
    /// Reason of the result.
    pub reason: Reason,
    /// Party responsible for the failure.
    pub fault: Fault,
    /// Whether it failed on the network while the prober itself was offline.
    pub offline: bool,
    /// Details of the failure; empty if the reason is sufficient.
    pub detail: &'a str,
    /// HTTP status of the response. `None` if there was no response.
    pub http_status: Option<u16>,
    /// Error code of the service.
    pub error_code: Option<&'a str>,
    /// Provider named in a gateway's error.
    pub upstream: Option<&'a str>,
    /// Request ID assigned by the service.
    pub request_id: Option<&'a str>,
    /// Wait requested by the service, in seconds. `None` if it requested none.
    pub retry_after: Option<f64>,
    /// Comparison that the run belongs to, its side, and the verdict on the pair if this was the
    /// second run.
    pub comparison: Option<(&'a str, Side, Option<PairVerdict>)>,
    /// Content of the status page, of a status check.
    pub status_page: Option<&'a StatusPage>,
}

impl Observed<'_> {
    /// Returns whether the run shows the service to be down. Returns `None` if it shows nothing.
    pub(super) fn shows_downtime(&self) -> Option<bool> {
        if self.offline { None } else { self.fault.shows_downtime() }
    }
}

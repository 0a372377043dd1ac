//! Comparison of two runs: the same request sent through a gateway and directly to the provider
//! behind it.

use std::{fmt, time::Duration};

use serde::{Serialize, Serializer};

use super::{Fault, Outcome};

named! {
    /// Path of a run of a comparison.
    Side {
        /// Through the gateway.
        Gateway = "gateway",
        /// Directly to the provider.
        Direct = "direct",
    }
}

impl Side {
    /// Returns the other side.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Gateway => Self::Direct,
            Self::Direct => Self::Gateway,
        }
    }
}

named! {
    /// Verdict on a pair of runs.
    PairVerdict {
        /// Both succeeded.
        Ok = "ok",
        /// The gateway failed; the provider answers directly.
        GatewayFault = "gateway_fault",
        /// The provider fails on both paths, or the gateway reports that it does.
        ProviderFault = "provider_fault",
        /// The provider failed directly, but answers through the gateway.
        DirectFault = "direct_fault",
        /// Any other result: at least one failure is due to the network, the caller or the prober,
        /// or another model than the requested one answered.
        Inconclusive = "inconclusive",
    }
}

/// Measurements of a run that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measure {
    /// Party responsible for the failure; [`Fault::None`] if the run succeeded.
    pub fault: Fault,
    /// Duration of the run.
    pub duration: Duration,
    /// Time to the first visible content. `None` if there was none.
    pub first_token: Option<Duration>,
    /// Whether another model than the requested one answered.
    pub is_of_another_model: bool,
}

impl Measure {
    /// Extracts the measurements of a run.
    pub fn new(outcome: &Outcome) -> Self {
        Self {
            fault: outcome.fault,
            duration: outcome.duration,
            first_token: outcome.time_to_first_token,
            is_of_another_model: outcome.model_match == Some(false),
        }
    }
}

/// Two runs in one slot, the second of which began after the first had ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The run through the gateway.
    pub gateway: Measure,
    /// The direct run.
    pub direct: Measure,
}

impl Pair {
    /// Builds a pair from a run of that side and the run of the other side.
    pub const fn new(side: Side, run: Measure, other: Measure) -> Self {
        match side {
            Side::Gateway => Self { gateway: run, direct: other },
            Side::Direct => Self { gateway: other, direct: run },
        }
    }

    /// Returns the verdict.
    pub fn verdict(&self) -> PairVerdict {
        match (self.gateway.fault, self.direct.fault) {
            // Two models are no comparison.
            (Fault::None, Fault::None)
                if self.gateway.is_of_another_model || self.direct.is_of_another_model =>
            {
                PairVerdict::Inconclusive
            }
            (Fault::None, Fault::None) => PairVerdict::Ok,
            (Fault::Gateway, Fault::None) => PairVerdict::GatewayFault,
            (Fault::Provider, _) | (Fault::Gateway, Fault::Gateway | Fault::Provider) => {
                PairVerdict::ProviderFault
            }
            (Fault::None, Fault::Provider) => PairVerdict::DirectFault,
            _ => PairVerdict::Inconclusive,
        }
    }
}

/// Comparison that a run belongs to, and its result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Compared {
    /// Name of the comparison.
    pub comparison: String,
    /// Side of the run.
    pub side: Side,
    /// Both runs, if this is the second one. `None` if this was the first, or the other did not
    /// take place.
    #[serde(rename = "verdict", skip_serializing_if = "Option::is_none", serialize_with = "as_verdict")]
    pub pair: Option<Pair>,
}

/// Serializes a pair by its verdict.
#[expect(clippy::ref_option, reason = "serde passes a field by reference")]
fn as_verdict<S: Serializer>(pair: &Option<Pair>, serializer: S) -> Result<S::Ok, S::Error> {
    pair.map(|pair| pair.verdict()).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pair_of_two_models_is_inconclusive() {
        let good = Measure {
            fault: Fault::None,
            duration: Duration::ZERO,
            first_token: None,
            is_of_another_model: false,
        };
        let other = Measure { is_of_another_model: true, ..good };
        assert_eq!(Pair { gateway: good, direct: good }.verdict(), PairVerdict::Ok);
        for pair in [Pair { gateway: other, direct: good }, Pair { gateway: good, direct: other }] {
            assert_eq!(pair.verdict(), PairVerdict::Inconclusive);
        }
        // A failure has its party, whichever model answered.
        let failed = Measure { fault: Fault::Gateway, ..other };
        assert_eq!(Pair { gateway: failed, direct: good }.verdict(), PairVerdict::GatewayFault);
    }

    #[test]
    fn pair_of_faults_has_its_verdict() {
        use Fault::{Caller, Gateway, Network, None, Prober, Provider};
        use PairVerdict::{DirectFault, GatewayFault, Inconclusive, Ok, ProviderFault};

        // Rows: fault through the gateway. Columns: fault of the direct run.
        let columns = [None, Network, Gateway, Provider, Caller, Prober];
        let rows = [
            (None, [Ok, Inconclusive, Inconclusive, DirectFault, Inconclusive, Inconclusive]),
            (Network, [Inconclusive; 6]),
            (Gateway, [GatewayFault, Inconclusive, ProviderFault, ProviderFault, Inconclusive, Inconclusive]),
            (Provider, [ProviderFault; 6]),
            (Caller, [Inconclusive; 6]),
            (Prober, [Inconclusive; 6]),
        ];
        for (gateway, verdicts) in rows {
            for (direct, expected) in columns.into_iter().zip(verdicts) {
                let measure = |fault| Measure {
                    fault,
                    duration: Duration::ZERO,
                    first_token: Option::None,
                    is_of_another_model: false,
                };
                let pair = Pair::new(Side::Direct, measure(direct), measure(gateway));
                assert_eq!(pair.verdict(), expected, "{gateway} and {direct}");
                assert_eq!(pair, Pair::new(Side::Gateway, measure(gateway), measure(direct)));
            }
        }
    }
}

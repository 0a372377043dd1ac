//! What a pair of runs says: the same question asked of a gateway and of the provider behind it, one after the other.

use std::{fmt, time::Duration};

use serde::{Serialize, Serializer};

use super::{Fault, Outcome};

named! {
    /// By which of the two ways of a comparison a run went.
    Side {
        /// By the gateway.
        Gateway = "gateway",
        /// Directly to the provider.
        Direct = "direct",
    }
}

impl Side {
    /// The other way.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Gateway => Self::Direct,
            Self::Direct => Self::Gateway,
        }
    }
}

named! {
    /// What the two runs of a pair together say of whose part failed.
    PairVerdict {
        /// Both succeeded.
        Ok = "ok",
        /// The gateway failed, and without it the provider answers.
        GatewayFault = "gateway_fault",
        /// The provider fails by both ways, or the gateway says that it does.
        ProviderFault = "provider_fault",
        /// The provider failed directly, and by the gateway it answers.
        DirectFault = "direct_fault",
        /// Anything else: a fault of the network, of the caller or of the prober is among the two.
        Inconclusive = "inconclusive",
    }
}

/// What of a run is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measure {
    /// Whose part failed; [`Fault::None`]: it succeeded.
    pub fault: Fault,
    /// From the start of the run to its end.
    pub duration: Duration,
    /// Until the first visible content; `None` where there was none, or no stream.
    pub first_token: Option<Duration>,
}

impl Measure {
    /// Of a finished run.
    pub fn of(outcome: &Outcome) -> Self {
        Self { fault: outcome.fault, duration: outcome.duration, first_token: outcome.time_to_first_token }
    }
}

/// Two runs at one due time, of which the second began when the first had ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The one by the gateway.
    pub gateway: Measure,
    /// The one that went directly.
    pub direct: Measure,
}

impl Pair {
    /// A run of that side, and the one of the other side.
    pub const fn new(side: Side, run: Measure, other: Measure) -> Self {
        match side {
            Side::Gateway => Self { gateway: run, direct: other },
            Side::Direct => Self { gateway: other, direct: run },
        }
    }

    /// Whose part failed, now that both ways are known.
    pub fn verdict(&self) -> PairVerdict {
        match (self.gateway.fault, self.direct.fault) {
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

/// That a run belongs to a comparison, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compared {
    /// The comparison's name.
    pub comparison: String,
    /// The run's way.
    pub side: Side,
    /// Both runs, on the outcome of the second one; `None`: this was the first, or the other did not take place.
    pub pair: Option<Pair>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_of_faults_has_its_verdict() {
        use Fault::{Caller, Gateway, Network, None, Prober, Provider};
        use PairVerdict::{DirectFault, GatewayFault, Inconclusive, Ok, ProviderFault};

        // By the gateway's fault in the rows and the direct way's in the columns.
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
                let measure = |fault| Measure { fault, duration: Duration::ZERO, first_token: Option::None };
                let pair = Pair::new(Side::Direct, measure(direct), measure(gateway));
                assert_eq!(pair.verdict(), expected, "{gateway} and {direct}");
                assert_eq!(pair, Pair::new(Side::Gateway, measure(gateway), measure(direct)));
            }
        }
    }
}

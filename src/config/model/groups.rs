//! `[[comparison]]` and `[[pool]]`: groups of probes.

use crate::outcome::Side;

/// `[[comparison]]`: two probes that send the same request through a gateway and directly, as a
/// pair.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Comparison {
    /// Name, unique among all comparisons.
    pub name: String,
    /// The probe that uses the gateway. Both run in its schedule slots.
    pub gateway: String,
    /// The probe that addresses the provider directly.
    pub direct: String,
}

impl Comparison {
    /// Returns the probe of that side.
    pub fn probe(&self, side: Side) -> &str {
        match side {
            Side::Gateway => &self.gateway,
            Side::Direct => &self.direct,
        }
    }

    /// Returns the side of one of the two probes.
    pub fn side(&self, probe: &str) -> Side {
        if probe == self.gateway { Side::Gateway } else { Side::Direct }
    }
}

/// `[[pool]]`: probes of services that can replace each other, as in a LangMart connection pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Name, unique among all pools.
    pub name: String,
    /// The members, at least one.
    pub members: Vec<PoolMember>,
}

/// A member of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolMember {
    /// The probe that determines whether the member is available; unique within the pool.
    pub probe: String,
    /// Share of the traffic relative to the other members; at least 1.
    pub weight: u32,
}

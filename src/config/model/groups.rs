//! `[[comparison]]` and `[[pool]]`: what puts probes together.

use crate::outcome::Side;

/// `[[comparison]]`: the same question by a gateway and directly, asked by two probes that run as a pair.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Comparison {
    /// Unique among all comparisons.
    pub name: String,
    /// The probe that goes by the gateway. Both run at its due times.
    pub gateway: String,
    /// The probe that goes directly.
    pub direct: String,
}

impl Comparison {
    /// The probe that goes that way.
    pub fn probe(&self, side: Side) -> &str {
        match side {
            Side::Gateway => &self.gateway,
            Side::Direct => &self.direct,
        }
    }

    /// The way of one of its two probes.
    pub fn side(&self, probe: &str) -> Side {
        if probe == self.gateway { Side::Gateway } else { Side::Direct }
    }
}

/// `[[pool]]`: probes of services that can stand in for each other, as in a LangMart connection pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Unique among all pools.
    pub name: String,
    /// Its members, at least one.
    pub members: Vec<PoolMember>,
}

/// A member of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolMember {
    /// The probe that tells whether it is available; once in a pool.
    pub probe: String,
    /// Its share of the work, in relation to the others'; at least 1.
    pub weight: u32,
}

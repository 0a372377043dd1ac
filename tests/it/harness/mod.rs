//! What the tests share: a server that plays scripted bytes, probes made by hand.

pub mod lab;
pub mod parts;
pub mod probes;
pub mod raw;
pub mod tunnel;

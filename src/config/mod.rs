//! What the operator asked for: from a TOML file to checked, immutable types, every problem of a file at once.

pub mod model;
pub mod secret;

pub use self::{model::*, secret::Secret};

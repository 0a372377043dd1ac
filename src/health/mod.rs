//! Whether the daemon lives: parts that must beat, parts that are started again, and how far it is.

mod parts;
mod supervisor;

pub use self::{
    parts::{Beat, Health, Readiness, Silence},
    supervisor::{GaveUp, Panicked, Supervisor, caught},
};

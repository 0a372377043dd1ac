//! The composition root: what is started in which order, the one select loop, reload and stop.

mod certificate;
mod delivery;
mod hygiene;
mod loading;
mod looks;
mod memory;
mod probing;
mod service;

pub use self::{
    loading::Source,
    service::{Fatal, run},
};

//! The installed service: its systemd unit, and what its user and sandbox may read, write and bind.

mod access;
mod unit;

pub(super) use self::access::{
    Usage, first_free_port, hidden_message, home_of, missing_credential, missing_variable,
};
pub use self::{
    access::Service,
    unit::{Unit, systemd_run},
};

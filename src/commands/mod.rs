//! What a person runs by hand, one file for each command.

mod check_config;

pub use self::check_config::check_config;

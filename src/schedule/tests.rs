//! The loops of all probes together, on paused time.

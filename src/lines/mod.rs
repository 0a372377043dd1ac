//! Lines to files that never stop the one who writes: a bounded queue and a thread for each, and files that roll.
//!
//! Every line given is counted exactly once: written, dropped (queue or file full, or stopped), or failed.
//!
//! - `writer` is the thread behind a file and what waits in front of it; the state is written by it too.
//! - `queue` is the bounded queue of lines.
//! - `rolling` is the file: what happens at the end of a day, and when the disk is full, unwritable or gone.
//! - `retired` are the queues that a reload has replaced.

mod queue;
mod retired;
mod rolling;
mod writer;

pub use self::{
    queue::{Counters, Fate, Lines},
    retired::Retired,
    rolling::{Files, OpenError, Period, RollingFile},
    writer::{Inbox, WriteClock, Writer},
};

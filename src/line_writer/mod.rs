//! Writes lines to files without ever blocking the caller: a bounded queue and a thread per file,
//! with rotation.
//!
//! Every line is counted exactly once: as written, dropped (queue or file full, or stopped) or
//! failed.
//!
//! - `writer` is the thread of a file and the inbox in front of it; the state file uses it too.
//! - `queue` is the bounded queue of lines.
//! - `rolling` is the file: rotation, and recovery from a full, unwritable or missing disk.
//! - `compress` compresses the files of earlier periods.
//! - `draining` holds the queues that a reload has replaced.

mod compress;
mod draining;
mod queue;
mod rolling;
mod writer;

pub use self::{
    compress::{PARTIAL, compress},
    draining::DrainingWriters,
    queue::{Counters, LineWriter, WriteResult},
    rolling::{LogFiles, OpenError, Period, RollingFile},
    writer::{Inbox, WriteClock, Writer},
};

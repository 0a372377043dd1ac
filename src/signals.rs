//! Signals of the operating system as two wishes: stop and reload.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
};

use futures_core::Stream;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    flag,
};

/// What the operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM or SIGINT: finish what is in flight and end.
    Stop,
    /// SIGHUP: read the configuration again.
    Reload,
}

/// The signals of this process, from now to its end.
pub struct Signals {
    stream: signal_hook_tokio::Signals,
    impatient: Arc<AtomicBool>,
}

impl Signals {
    /// Takes the signals over from their defaults. Needs a tokio runtime with I/O.
    pub fn listen() -> io::Result<Self> {
        let impatient = Arc::new(AtomicBool::new(false));
        for number in [SIGTERM, SIGINT] {
            // Inside the signal handler, so that it works although the runtime is stuck in the drain.
            flag::register_conditional_shutdown(number, 0, Arc::clone(&impatient))?;
        }
        let stream = signal_hook_tokio::Signals::new([SIGHUP, SIGINT, SIGTERM])?;
        Ok(Self { stream, impatient })
    }

    /// The next wish. Signals that came since the last one become one: a stop if there is any among them, else one
    /// reload, which is after the last SIGHUP. Cancel safe.
    pub async fn next(&mut self) -> Signal {
        poll_fn(|context| {
            let mut wish = None;
            while let Poll::Ready(Some(number)) = Pin::new(&mut self.stream).poll_next(context) {
                wish = match number {
                    SIGHUP => wish.or(Some(Signal::Reload)),
                    _ => Some(Signal::Stop),
                };
            }
            wish.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// From now on a signal to stop ends the process at once, with status 0 and whatever it was doing: for the drain.
    pub fn end_at_next_stop(&self) {
        self.impatient.store(true, Ordering::Relaxed);
    }
}

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

#[cfg(test)]
mod tests {
    use std::{
        env,
        future::Future,
        pin::pin,
        process::{self, Command},
        task::{Context, Waker},
    };

    use signal_hook::low_level::raise;

    use super::*;

    /// Set for the process that plays the daemon: signals are not for the one that runs the tests.
    const PLAY: &str = "LANGMART_PROBER_TEST_SIGNALS";
    /// Its status where all that it saw was right but the last signal did not end it.
    const SURVIVED: i32 = 9;

    #[test]
    fn signals_become_wishes_and_a_second_stop_ends_at_once() {
        let output = Command::new(env::current_exe().unwrap())
            .args(["--exact", "signals::tests::play", "--nocapture", "--test-threads=1"])
            .env(PLAY, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("about to end"), "{output:?}");
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(!said.contains("test result"), "it ended by the signal, not by the harness: {said}");
    }

    #[test]
    fn play() {
        if env::var_os(PLAY).is_none() {
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(async {
            let mut signals = Signals::listen().unwrap();
            // `raise` returns after the handler has run, so that the order is certain.
            for _ in 0..100 {
                raise(SIGHUP).unwrap();
            }
            assert_eq!(signals.next().await, Signal::Reload);
            assert!(nothing(&mut signals), "a burst is one reload");
            raise(SIGHUP).unwrap();
            assert_eq!(signals.next().await, Signal::Reload, "one that comes during the reload is another");

            raise(SIGTERM).unwrap();
            raise(SIGHUP).unwrap();
            assert_eq!(signals.next().await, Signal::Stop, "nothing is reloaded on the way out");
            assert!(nothing(&mut signals));
            raise(SIGINT).unwrap();
            assert_eq!(signals.next().await, Signal::Stop);

            signals.end_at_next_stop();
            println!("about to end");
            raise(SIGHUP).unwrap();
            // Without another turn of the runtime: a stuck drain ends too.
            raise(SIGTERM).unwrap();
            process::exit(SURVIVED);
        });
    }

    fn nothing(signals: &mut Signals) -> bool {
        pin!(signals.next()).poll(&mut Context::from_waker(Waker::noop())).is_pending()
    }
}

//! Signals of the operating system as two commands: stop and reload.

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

/// A command of the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM or SIGINT: finish the runs in flight and exit.
    Stop,
    /// SIGHUP: reload the configuration.
    Reload,
}

/// The signal handlers of this process, which stay installed until it ends.
pub struct Signals {
    stream: signal_hook_tokio::Signals,
    exit_at_once: Arc<AtomicBool>,
}

impl Signals {
    /// Installs the handlers. Needs a tokio runtime with I/O enabled.
    pub fn listen() -> io::Result<Self> {
        let exit_at_once = Arc::new(AtomicBool::new(false));
        for number in [SIGTERM, SIGINT] {
            // Runs inside the signal handler, so that it works even if the runtime is blocked
            // during the drain.
            flag::register_conditional_shutdown(number, 0, Arc::clone(&exit_at_once))?;
        }
        let stream = signal_hook_tokio::Signals::new([SIGHUP, SIGINT, SIGTERM])?;
        Ok(Self { stream, exit_at_once })
    }

    /// Waits for the next command. Signals that arrived since the last call are merged into one
    /// command: a stop if there is any, else one reload. Cancel safe.
    pub async fn next(&mut self) -> Signal {
        poll_fn(|context| {
            let mut command = None;
            while let Poll::Ready(Some(number)) = Pin::new(&mut self.stream).poll_next(context) {
                command = match number {
                    SIGHUP => command.or(Some(Signal::Reload)),
                    _ => Some(Signal::Stop),
                };
            }
            command.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Makes the next SIGTERM or SIGINT end the process immediately with status 0. Called when the
    /// drain begins.
    pub fn end_at_next_stop(&self) {
        self.exit_at_once.store(true, Ordering::Relaxed);
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

    /// The variable that is set for the child process: the process that runs the tests must not
    /// receive signals.
    const CHILD_VARIABLE: &str = "LANGMART_PROBER_TEST_SIGNALS";
    /// Exit status of a child that passed all assertions but survived the last signal.
    const SURVIVED_STATUS: i32 = 9;

    #[test]
    fn signals_become_commands_and_a_second_stop_exits() {
        let output = Command::new(env::current_exe().unwrap())
            .args(["--exact", "signals::tests::child", "--nocapture", "--test-threads=1"])
            .env(CHILD_VARIABLE, "1")
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(printed.contains("about to end"), "{output:?}");
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(!printed.contains("test result"), "it ended by the signal, not by the harness: {printed}");
    }

    #[test]
    fn child() {
        if env::var_os(CHILD_VARIABLE).is_none() {
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(async {
            let mut signals = Signals::listen().unwrap();
            // `raise` returns after the handler has run, so the order is deterministic.
            for _ in 0..100 {
                raise(SIGHUP).unwrap();
            }
            assert_eq!(signals.next().await, Signal::Reload);
            assert!(nothing(&mut signals), "a burst is one reload");
            raise(SIGHUP).unwrap();
            assert_eq!(signals.next().await, Signal::Reload, "a SIGHUP during a reload causes another");

            raise(SIGTERM).unwrap();
            raise(SIGHUP).unwrap();
            assert_eq!(signals.next().await, Signal::Stop, "a stop takes precedence");
            assert!(nothing(&mut signals));
            raise(SIGINT).unwrap();
            assert_eq!(signals.next().await, Signal::Stop);

            signals.end_at_next_stop();
            println!("about to end");
            raise(SIGHUP).unwrap();
            // Not polled again: a blocked drain must end, too.
            raise(SIGTERM).unwrap();
            process::exit(SURVIVED_STATUS);
        });
    }

    fn nothing(signals: &mut Signals) -> bool {
        pin!(signals.next()).poll(&mut Context::from_waker(Waker::noop())).is_pending()
    }
}

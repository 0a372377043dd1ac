//! What a connection is doing and since when: the one measure of how long it may go on.

use std::{
    net::IpAddr,
    pin,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{self, AsyncRead, AsyncWrite, ReadBuf},
    task::AbortHandle,
    time::Instant,
};

/// How long a connection may take for what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For the head of a request, from the connection or its first byte on.
    pub(super) head: Duration,
    /// From the head of a request until the last byte of its response has been taken.
    pub(super) request: Duration,
    /// Between a response and the next request.
    pub(super) idle: Duration,
    /// For the turn of its password to be checked.
    pub(super) login: Duration,
}

/// What one connection is doing.
#[derive(Debug)]
pub(super) struct Activity {
    state: Mutex<State>,
    /// Address of the client. `None` if the client had left before it could be read.
    client: Option<IpAddr>,
    /// The connection's task; empty only until it is spawned.
    task: OnceLock<AbortHandle>,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    since: Instant,
    /// Responses not yet sent: with pipelining, more than one.
    responses: usize,
    /// An answer is being worked out that must not be lost.
    pinned: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Head,
    Request,
    Idle,
}

impl Activity {
    /// Of a connection just accepted, from which a request is awaited.
    pub(super) fn new(client: Option<IpAddr>) -> Arc<Self> {
        let state = State { phase: Phase::Head, since: Instant::now(), responses: 0, pinned: false };
        Arc::new(Self { state: Mutex::new(state), client, task: OnceLock::new() })
    }

    /// Returns the client's address, if it is known.
    pub(super) fn client(&self) -> Option<IpAddr> {
        self.client
    }

    /// Notes which task is to be aborted where the connection must end.
    pub(super) fn belongs_to(&self, task: AbortHandle) {
        let known = self.task.set(task);
        debug_assert!(known.is_ok(), "a connection has one task");
    }

    /// Ends the connection, whatever it is doing.
    pub(super) fn abort(&self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }

    /// Whether the connection has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.task.get().is_some_and(AbortHandle::is_finished)
    }

    /// A request's head is here. The work on it ends when what is returned is dropped, with the response's last byte.
    pub(super) fn request(self: &Arc<Self>) -> Work {
        let mut state = self.state();
        state.responses += 1;
        if state.responses == 1 {
            state.enter(Phase::Request);
        }
        Work(Arc::clone(self))
    }

    /// When the connection has gone on for too long.
    pub(super) fn deadline(&self, patience: &Patience) -> Instant {
        let state = self.state();
        let patience = match state.phase {
            Phase::Head => patience.head,
            Phase::Request => patience.request,
            Phase::Idle => patience.idle,
        };
        state.since + patience
    }

    /// Since when the client has not done what was its turn: to ask, or to take the answer. `None`: the turn is ours.
    pub(super) fn waiting_since(&self) -> Option<Instant> {
        let state = self.state();
        (!state.pinned).then_some(state.since)
    }

    fn received(&self) {
        let mut state = self.state();
        if state.phase == Phase::Idle {
            state.enter(Phase::Head);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.since = Instant::now();
    }
}

/// The work on one request.
#[derive(Debug)]
pub(super) struct Work(Arc<Activity>);

impl Work {
    /// Whose work it is.
    pub(super) fn activity(&self) -> &Arc<Activity> {
        &self.0
    }

    /// While what is returned lives, the connection makes room for no other.
    pub(super) fn pin(&self) -> Pin {
        self.0.state().pinned = true;
        Pin(Arc::clone(&self.0))
    }
}

/// A connection that makes room for no other.
#[derive(Debug)]
pub(super) struct Pin(Arc<Activity>);

impl Drop for Pin {
    fn drop(&mut self) {
        self.0.state().pinned = false;
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.responses -= 1;
        if state.responses == 0 {
            state.enter(Phase::Idle);
        }
    }
}

/// A connection that notes when a request begins to arrive.
#[derive(Debug)]
pub(super) struct Watched<S> {
    stream: S,
    activity: Arc<Activity>,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S, activity: Arc<Activity>) -> Self {
        Self { stream, activity }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: pin::Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(pin::Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            self.activity.received();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: pin::Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        pin::Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        pin::Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        pin::Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: pin::Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        pin::Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        head: Duration::from_secs(10),
        request: Duration::from_secs(30),
        idle: Duration::from_secs(90),
        login: Duration::from_secs(5),
    };

    #[tokio::test(start_paused = true)]
    async fn each_phase_has_its_own_patience() {
        let activity = Activity::new(None);
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(activity.deadline(&PATIENCE), after(10));
        tokio::time::advance(Duration::from_secs(2)).await;
        activity.received();
        assert_eq!(activity.deadline(&PATIENCE), after(10), "bytes that trickle in do not prolong the head");
        let work = activity.request();
        assert_eq!(activity.deadline(&PATIENCE), after(32));
        assert_eq!(activity.waiting_since(), Some(after(2)));
        let pin = work.pin();
        assert_eq!(activity.waiting_since(), None);
        drop(pin);
        assert_eq!(activity.waiting_since(), Some(after(2)));
        tokio::time::advance(Duration::from_secs(1)).await;
        let pipelined = activity.request();
        drop(work);
        assert_eq!(activity.deadline(&PATIENCE), after(32), "a pipelined request does not prolong the first");
        drop(pipelined);
        assert_eq!(activity.deadline(&PATIENCE), after(93));
        assert_eq!(activity.waiting_since(), Some(after(3)));
        tokio::time::advance(Duration::from_secs(1)).await;
        activity.received();
        assert_eq!(activity.deadline(&PATIENCE), after(14));
    }
}

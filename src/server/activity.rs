//! The activity of a connection, which determines its timeout.

use std::{
    net::IpAddr,
    pin,
    sync::{Arc, MutexGuard, OnceLock},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{self, AsyncRead, AsyncWrite, ReadBuf},
    task::AbortHandle,
    time::Instant,
};

use crate::sync::Mutex;

/// The timeouts of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    /// For the head of a request, from the connection or its first byte.
    pub(super) head: Duration,
    /// From the head of a request to the last byte of its response.
    pub(super) request: Duration,
    /// Between a response and the next request.
    pub(super) idle: Duration,
    /// For waiting until a password check starts.
    pub(super) login: Duration,
}

/// The activity of one connection.
#[derive(Debug)]
pub(super) struct Activity {
    state: Mutex<ActivityState>,
    /// Address of the client. `None` if the client had left before it could be read.
    client: Option<IpAddr>,
    /// The connection's task; empty only until it is spawned.
    task: OnceLock<AbortHandle>,
}

#[derive(Debug)]
struct ActivityState {
    phase: Phase,
    since: Instant,
    /// Number of responses not yet sent; more than one with pipelining.
    responses: usize,
    /// Whether the connection must not be closed to make room for another.
    pinned: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Head,
    Request,
    Idle,
}

impl Activity {
    /// Returns the activity of an accepted connection, which waits for a request.
    pub(super) fn new(client: Option<IpAddr>) -> Arc<Self> {
        let state = ActivityState { phase: Phase::Head, since: Instant::now(), responses: 0, pinned: false };
        Arc::new(Self { state: Mutex::new(state), client, task: OnceLock::new() })
    }

    /// Returns the client's address, if it is known.
    pub(super) fn client(&self) -> Option<IpAddr> {
        self.client
    }

    /// Sets the task that is aborted to close the connection.
    pub(super) fn set_task(&self, task: AbortHandle) {
        let known = self.task.set(task);
        debug_assert!(known.is_ok(), "a connection has one task");
    }

    /// Closes the connection.
    pub(super) fn abort(&self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }

    /// Returns whether the connection has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.task.get().is_some_and(AbortHandle::is_finished)
    }

    /// Records the head of a request. The request ends when the result is dropped, after the last
    /// byte of the response.
    pub(super) fn request(self: &Arc<Self>) -> ActiveRequest {
        let mut state = self.state();
        state.responses += 1;
        if state.responses == 1 {
            state.enter(Phase::Request);
        }
        ActiveRequest(Arc::clone(self))
    }

    /// Returns when the current activity times out.
    pub(super) fn deadline(&self, timeouts: &Timeouts) -> Instant {
        let state = self.state();
        let timeout = match state.phase {
            Phase::Head => timeouts.head,
            Phase::Request => timeouts.request,
            Phase::Idle => timeouts.idle,
        };
        state.since + timeout
    }

    /// Returns since when the client has been expected to send or receive. Returns `None` while the
    /// connection is pinned.
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

    fn state(&self) -> MutexGuard<'_, ActivityState> {
        self.state.lock()
    }
}

impl ActivityState {
    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.since = Instant::now();
    }
}

/// A request in progress.
#[derive(Debug)]
pub(super) struct ActiveRequest(Arc<Activity>);

impl ActiveRequest {
    /// Returns the activity of the connection.
    pub(super) fn activity(&self) -> &Arc<Activity> {
        &self.0
    }

    /// Keeps the connection from being closed to make room for another, until the result is
    /// dropped.
    pub(super) fn pin(&self) -> Pin {
        self.0.state().pinned = true;
        Pin(Arc::clone(&self.0))
    }
}

/// Keeps a connection from being closed to make room for another.
#[derive(Debug)]
pub(super) struct Pin(Arc<Activity>);

impl Drop for Pin {
    fn drop(&mut self) {
        self.0.state().pinned = false;
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.responses -= 1;
        if state.responses == 0 {
            state.enter(Phase::Idle);
        }
    }
}

/// A stream that records when a request begins to arrive.
#[derive(Debug)]
pub(super) struct TrackedStream<S> {
    stream: S,
    activity: Arc<Activity>,
}

impl<S> TrackedStream<S> {
    pub(super) fn new(stream: S, activity: Arc<Activity>) -> Self {
        Self { stream, activity }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TrackedStream<S> {
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

impl<S: AsyncWrite + Unpin> AsyncWrite for TrackedStream<S> {
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

    const TIMEOUTS: Timeouts = Timeouts {
        head: Duration::from_secs(10),
        request: Duration::from_secs(30),
        idle: Duration::from_secs(90),
        login: Duration::from_secs(5),
    };

    #[tokio::test(start_paused = true)]
    async fn each_phase_has_its_own_timeout() {
        let activity = Activity::new(None);
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(activity.deadline(&TIMEOUTS), after(10));
        tokio::time::advance(Duration::from_secs(2)).await;
        activity.received();
        assert_eq!(activity.deadline(&TIMEOUTS), after(10), "bytes that trickle in do not prolong the head");
        let work = activity.request();
        assert_eq!(activity.deadline(&TIMEOUTS), after(32));
        assert_eq!(activity.waiting_since(), Some(after(2)));
        let pin = work.pin();
        assert_eq!(activity.waiting_since(), None);
        drop(pin);
        assert_eq!(activity.waiting_since(), Some(after(2)));
        tokio::time::advance(Duration::from_secs(1)).await;
        let pipelined = activity.request();
        drop(work);
        assert_eq!(activity.deadline(&TIMEOUTS), after(32), "a pipelined request does not prolong the first");
        drop(pipelined);
        assert_eq!(activity.deadline(&TIMEOUTS), after(93));
        assert_eq!(activity.waiting_since(), Some(after(3)));
        tokio::time::advance(Duration::from_secs(1)).await;
        activity.received();
        assert_eq!(activity.deadline(&TIMEOUTS), after(14));
    }
}

//! What a connection is doing and since when: the one measure of how long it may go on.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{self, AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
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
    /// For its turn, where a request asks for a large page and too many are being sent.
    pub(super) page: Duration,
}

/// What one connection is doing.
#[derive(Debug)]
pub(super) struct Activity(Mutex<State>);

#[derive(Debug)]
struct State {
    phase: Phase,
    since: Instant,
    /// Responses not yet sent: with pipelining, more than one.
    responses: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Head,
    Request,
    Idle,
}

impl Activity {
    /// Of a connection just accepted, from which a request is awaited.
    pub(super) fn new() -> Arc<Self> {
        let state = State { phase: Phase::Head, since: Instant::now(), responses: 0 };
        Arc::new(Self(Mutex::new(state)))
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

    /// Since when no request is being worked on; `None`: one is.
    pub(super) fn waiting_since(&self) -> Option<Instant> {
        let state = self.state();
        (state.phase != Phase::Request).then_some(state.since)
    }

    fn received(&self) {
        let mut state = self.state();
        if state.phase == Phase::Idle {
            state.enter(Phase::Head);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
pub(super) struct Watched {
    stream: TcpStream,
    activity: Arc<Activity>,
}

impl Watched {
    pub(super) fn new(stream: TcpStream, activity: Arc<Activity>) -> Self {
        Self { stream, activity }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            self.activity.received();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
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
        page: Duration::from_secs(5),
    };

    #[tokio::test(start_paused = true)]
    async fn each_phase_has_its_own_patience() {
        let activity = Activity::new();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(activity.deadline(&PATIENCE), after(10));
        tokio::time::advance(Duration::from_secs(2)).await;
        activity.received();
        assert_eq!(activity.deadline(&PATIENCE), after(10), "bytes that trickle in do not prolong the head");
        let work = activity.request();
        assert_eq!(activity.deadline(&PATIENCE), after(32));
        assert_eq!(activity.waiting_since(), None);
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

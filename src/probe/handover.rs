//! The moment at which a request is handed to its connection, taken where the connection asks for the body.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use reqwest::Request;

use super::clock::Marks;

/// Has the run's marks say when the connection takes the request's body, which it does in the same turn as it writes head
/// and body to the socket.
///
/// A connection that is ready is not enough: its task, and the one that hands over the request, take turns with all other
/// runs, a dozen milliseconds with some hundred of them. A request without a body is left as it is.
pub(super) fn observed(mut request: Request, marks: &Arc<Marks>) -> Request {
    if let Some(body) = request.body_mut().take() {
        let body = Observed { body, marks: marks.clone() };
        *request.body_mut() = Some(reqwest::Body::wrap(body));
    }
    request
}

/// A body that notes when it is first asked for.
struct Observed {
    body: reqwest::Body,
    marks: Arc<Marks>,
}

impl Body for Observed {
    type Data = Bytes;
    type Error = reqwest::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, reqwest::Error>>> {
        let now = Instant::now();
        self.marks.write(|seen| seen.handed_over = seen.handed_over.or(Some(now)));
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    /// Exact, so that the length goes into the head as it would without the mark.
    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use reqwest::Method;

    use super::*;

    #[tokio::test]
    async fn the_first_look_at_the_body_is_the_mark_and_the_body_stays_as_it_was() {
        let marks = Arc::new(Marks::new(false));
        let mut request = Request::new(Method::POST, "http://127.0.0.1".parse().unwrap());
        *request.body_mut() = Some("two words".into());
        let mut request = observed(request, &marks);
        let mut body = request.body_mut().take().unwrap();
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(9), false));
        assert_eq!(marks.seen().handed_over, None, "nobody has asked for it");

        let before = Instant::now();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "two words");
        let first = marks.seen().handed_over.unwrap();
        assert!((before..=Instant::now()).contains(&first));
        assert!(body.is_end_stream() && body.frame().await.is_none());
        assert_eq!(marks.seen().handed_over, Some(first), "the first look counts");
    }

    #[test]
    fn without_a_body_there_is_nothing_to_mark() {
        let marks = Arc::new(Marks::new(false));
        let request = Request::new(Method::GET, "http://127.0.0.1".parse().unwrap());
        assert!(observed(request, &marks).body().is_none());
    }
}

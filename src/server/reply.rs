//! Responses and their bodies.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use hyper::{
    Response, StatusCode,
    body::{self, Bytes, Frame, SizeHint},
    header::{self, HeaderName, HeaderValue},
};

use super::{activity::ActiveRequest, response_cache::CachedResponse};

const TEXT: &str = "text/plain; charset=utf-8";
/// Headers of every response: no inline code, no resources of other sites, no embedding.
const SECURITY_HEADERS: [(HeaderName, &str); 5] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
];
/// Retry-After of a response that was refused because of the load.
const BUSY_RETRY_AFTER_SECONDS: &str = "5";

/// A response before conversion.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) content_type: &'static str,
    /// An additional header.
    pub(super) header: Option<(HeaderName, &'static str)>,
    pub(super) body: Body,
}

#[derive(Debug)]
pub(super) enum Body {
    Text(String),
    Page { page: Arc<CachedResponse>, compressed: bool },
}

impl Reply {
    pub(super) fn text(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, content_type: TEXT, header: None, body: Body::Text(text.into()) }
    }

    /// Returns the response to a request that is refused because of the load.
    pub(super) fn busy(text: &'static str) -> Self {
        let reply = Self::text(StatusCode::SERVICE_UNAVAILABLE, text);
        Self { header: Some((header::RETRY_AFTER, BUSY_RETRY_AFTER_SECONDS)), ..reply }
    }

    pub(super) fn not_allowed(allow: &'static str) -> Self {
        let reply = Self::text(StatusCode::METHOD_NOT_ALLOWED, format!("Method not allowed; use {allow}.\n"));
        Self { header: Some((header::ALLOW, allow)), ..reply }
    }

    pub(super) fn into_response(self, work: ActiveRequest) -> Response<ResponseBody> {
        let Self { status, content_type, header, body } = self;
        let (compressed, tag) = match &body {
            Body::Text(_) => (None, None),
            Body::Page { page, compressed } => (Some(*compressed), HeaderValue::from_str(page.tag()).ok()),
        };
        let body = if status == StatusCode::NOT_MODIFIED { Body::Text(String::new()) } else { body };
        let mut response = Response::new(ResponseBody::new(body, work));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        // Only the client's browser may store pages, and must revalidate them.
        let caching = if tag.is_some() { "private, no-cache" } else { "no-store" };
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
        for (name, value) in SECURITY_HEADERS {
            headers.insert(name, HeaderValue::from_static(value));
        }
        if let Some(tag) = tag {
            headers.insert(header::ETAG, tag);
        }
        if compressed.is_some() {
            headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
        }
        if compressed == Some(true) {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        if let Some((name, value)) = header {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

impl Body {
    fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Page { page, .. } => page.pieces().bytes(),
        }
    }

    /// Returns a piece by its index. It is empty behind the last one.
    fn piece(&self, index: usize) -> &[u8] {
        match self {
            Self::Text(text) if index == 0 => text.as_bytes(),
            Self::Text(_) => &[],
            Self::Page { page, .. } => page.pieces().get(index).unwrap_or_default(),
        }
    }
}

/// A body, of which no byte is copied.
#[derive(Debug)]
pub(super) struct ResponseBody {
    sent: Arc<SentBody>,
    /// Index of the next piece.
    next: usize,
    /// Number of bytes from the next piece on.
    remaining: usize,
}

/// A body that holds the request until its last byte has been sent.
#[derive(Debug)]
struct SentBody {
    body: Body,
    _work: ActiveRequest,
}

/// A piece of a body.
struct SentPiece {
    sent: Arc<SentBody>,
    index: usize,
}

impl AsRef<[u8]> for SentPiece {
    fn as_ref(&self) -> &[u8] {
        self.sent.body.piece(self.index)
    }
}

impl ResponseBody {
    fn new(body: Body, work: ActiveRequest) -> Self {
        let remaining = body.bytes();
        Self { sent: Arc::new(SentBody { body, _work: work }), next: 0, remaining }
    }
}

impl body::Body for ResponseBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.remaining == 0 {
            return Poll::Ready(None);
        }
        let piece = Bytes::from_owner(SentPiece { sent: Arc::clone(&self.sent), index: self.next });
        self.next += 1;
        self.remaining -= piece.len();
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.remaining == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining as u64)
    }
}

//! Content codings (RFC 9110, 12.5.3): gzip if the client accepts it.

use std::io::{self, Write};

use flate2::{Compression, write::GzEncoder};
use hyper::header::{ACCEPT_ENCODING, HeaderMap};

use super::accept::{Member, members};
use crate::pieces::Pieces;

/// Returns whether the response should be compressed: gzip is accepted with at least the weight of
/// `identity`.
pub(super) fn prefers_gzip(headers: &HeaderMap) -> bool {
    let (mut gzip, mut identity, mut any) = (None, None, None);
    // No coding has parameters.
    for Member { name, weight, .. } in
        members(headers, ACCEPT_ENCODING).filter(|member| member.parameters.is_empty())
    {
        match name.to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => gzip = Some(weight),
            "identity" => identity = Some(weight),
            "*" => any = Some(weight),
            _ => {}
        }
    }
    let gzip = gzip.or(any).unwrap_or(0);
    gzip > 0 && gzip >= identity.unwrap_or(0)
}

/// Collects what is written.
pub(super) fn plain(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<Pieces> {
    let mut pieces = Pieces::default();
    write(&mut pieces)?;
    Ok(pieces)
}

/// Compresses what is written, with the fastest level, which reduces pages of samples to a few per
/// cent.
pub(super) fn gzip(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<Pieces> {
    let mut encoder = GzEncoder::new(Pieces::default(), Compression::fast());
    write(&mut encoder)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(lines: &[&str], expected: bool) {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(ACCEPT_ENCODING, line.parse().unwrap());
        }
        assert_eq!(prefers_gzip(&headers), expected, "{lines:?}");
    }

    #[test]
    fn gzip_is_used_according_to_weights() {
        check(&[], false);
        check(&[""], false);
        check(&["gzip"], true);
        check(&["GZIP"], true);
        check(&["x-gzip"], true);
        check(&["deflate, gzip;q=1.0, *;q=0.5"], true);
        check(&["br, deflate"], false);
        check(&["br", "gzip"], true);
        check(&["gzip;q=0"], false);
        check(&["gzip; q=0.000"], false);
        check(&["gzip;Q=0.001"], true);
        check(&["*"], true);
        check(&["*;q=0"], false);
        check(&["gzip;q=0, *"], false);
        check(&["identity, gzip;q=0.5"], false);
        check(&["identity;q=0.5, gzip;q=0.5"], true);
        check(&["identity;q=0"], false);
        check(&["gzip;q=2"], false);
        check(&["gzip;q=NaN"], false);
        check(&["gzip;level=9"], false);
    }
}

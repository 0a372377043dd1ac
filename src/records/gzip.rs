//! Reads gzip files, and what is left of damaged ones.

use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;

/// First bytes of a gzip member (RFC 1952).
static MAGIC: [u8; 3] = [0x1f, 0x8b, 8];

/// A decoder of all members of a file. Behind a damaged or incomplete member it continues with the
/// next one.
#[derive(Debug)]
pub(super) struct GzipReader<R> {
    /// `None` at the end of the file.
    member: Option<GzDecoder<Resumed<R>>>,
    is_damaged: bool,
}

impl<R: BufRead> GzipReader<R> {
    pub(super) fn new(source: R) -> Self {
        let source = Resumed { found: MAGIC.len(), source };
        Self { member: Some(GzDecoder::new(source)), is_damaged: false }
    }

    /// Returns whether a part of the file could not be read.
    pub(super) fn is_damaged(&self) -> bool {
        self.is_damaged
    }
}

impl<R: BufRead> Read for GzipReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while let Some(member) = &mut self.member {
            let decoded = member.read(buffer);
            let is_end = matches!(decoded, Ok(0));
            if !is_end && decoded.is_ok() {
                return decoded;
            }
            let Some(ended) = self.member.take() else { break };
            let mut source = ended.into_inner();
            let skipped = source.skip_to_member()?;
            self.is_damaged |= !is_end || skipped > 0;
            if !source.fill_buf()?.is_empty() {
                self.member = Some(GzDecoder::new(source));
            }
            if !is_end {
                // The next member does not continue the interrupted line.
                buffer[0] = b'\n';
                return Ok(1);
            }
        }
        Ok(0)
    }
}

/// A source that begins with [`MAGIC`] again after that was found in it.
#[derive(Debug)]
struct Resumed<R> {
    /// Number of bytes of [`MAGIC`] that have been consumed or are not to be repeated.
    found: usize,
    source: R,
}

impl<R: BufRead> Resumed<R> {
    /// Skips to the next member, or to the end. Returns the number of bytes skipped.
    fn skip_to_member(&mut self) -> io::Result<u64> {
        let (mut skipped, mut matched) = (0, 0);
        self.found = MAGIC.len();
        loop {
            let buffer = self.source.fill_buf()?;
            if buffer.is_empty() {
                return Ok(skipped + matched as u64);
            }
            let mut used = 0;
            for &byte in buffer {
                used += 1;
                if byte == MAGIC[matched] {
                    matched += 1;
                } else {
                    let begins = byte == MAGIC[0];
                    skipped += matched as u64 + u64::from(!begins);
                    matched = usize::from(begins);
                }
                if matched == MAGIC.len() {
                    break;
                }
            }
            self.source.consume(used);
            if matched == MAGIC.len() {
                self.found = 0;
                return Ok(skipped);
            }
        }
    }
}

impl<R: BufRead> Read for Resumed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let length = available.len().min(buffer.len());
        buffer[..length].copy_from_slice(&available[..length]);
        self.consume(length);
        Ok(length)
    }
}

impl<R: BufRead> BufRead for Resumed<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.found < MAGIC.len() { Ok(&MAGIC[self.found..]) } else { self.source.fill_buf() }
    }

    fn consume(&mut self, amount: usize) {
        if self.found < MAGIC.len() { self.found += amount } else { self.source.consume(amount) }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Write};

    use flate2::{Compression, write::GzEncoder};
    use proptest::prelude::*;

    use super::*;

    fn member(text: &str) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    /// Returns the text and whether the file is damaged.
    fn read(bytes: &[u8]) -> (String, bool) {
        let mut reader = GzipReader::new(BufReader::with_capacity(64, bytes));
        let mut text = Vec::new();
        reader.read_to_end(&mut text).unwrap();
        (String::from_utf8_lossy(&text).into_owned(), reader.is_damaged())
    }

    #[test]
    fn members_are_read_one_after_the_other() {
        assert_eq!(read(&[member("a\nb\n"), member("c\n")].concat()), ("a\nb\nc\n".to_owned(), false));
        assert_eq!(read(&member("")), (String::new(), false));
    }

    /// Returns lines that do not compress well, as members of a real size are longer than a search
    /// for the next one.
    fn lines(seed: u64) -> String {
        let mut number = seed;
        let mut line = || {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            format!("{number:020}\n")
        };
        (0..200).map(|_| line()).collect()
    }

    #[test]
    fn damaged_member_leaves_the_others_readable() {
        let texts = [1, 2, 3, 4, 5].map(lines);
        let members = texts.each_ref().map(|text| member(text));
        let rest = || members[2..].concat();
        // A part in the middle is missing.
        let half = members[1].len() / 2;
        for keep in [0, 5, half, half + 1, members[1].len() - 1] {
            let (text, damaged) = read(&[&members[0], &members[1][..keep], &rest()].concat());
            assert_eq!(damaged, keep > 0);
            // An incomplete member can hide the beginning of the next one.
            assert!(text.starts_with(&texts[0]) && text.ends_with(&texts[3..].concat()), "{keep}: {text}");
        }
        // The end is missing.
        let bytes = members.concat();
        let (text, damaged) = read(&bytes[..bytes.len() - 10]);
        assert!(damaged && text.starts_with(&texts[..4].concat()), "{text}");
        // Something else is between two members.
        let bytes = [&members[0][..], &[0x1f, 0x1f, 0x8b, 0, 0x1f, 0x8b], &rest()].concat();
        assert_eq!(read(&bytes), (texts[0].clone() + &texts[2..].concat(), true));
    }

    #[test]
    fn foreign_file_is_damaged() {
        let (text, damaged) = read(b"plain text");
        assert_eq!((text.trim(), damaged), ("", true));
        assert!(read(b"").1, "an empty file has no member");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0_usize..60) {
            let _ = read(&bytes);
            let mut good = member(&"line\n".repeat(50));
            let at = at.min(good.len());
            good.splice(at..at, bytes);
            let _ = read(&good);
        }
    }
}

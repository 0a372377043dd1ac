//! The exchange of a run, for display: keys masked, control characters escaped, bounded.

use std::{
    collections::HashSet,
    fmt::{self, Write},
};

use hyper::{HeaderMap, header::HeaderName};
use regex::bytes::Regex;
use url::Url;
use zeroize::{Zeroize, Zeroizing};

use super::request::Prepared;
use crate::{
    api::is_key_header,
    config::{Probe, Task},
    outcome::Api,
};

/// Bytes of a transcript.
const MAX_SHOWN: usize = 64 * 1024;

/// Maximum size of a key. That many bytes are kept in addition to those that are shown, so that a
/// truncated key is masked as well.
const MAX_KEY_BYTES: usize = 8 * 1024;
const MAX_KEPT: usize = MAX_SHOWN + 2 * MAX_KEY_BYTES;

/// Number of consecutive characters of a secret that are masked anywhere. Shorter secrets are
/// masked as a whole.
const MASKED_RUN: usize = 8;
const LEAST_TELLING: usize = 4;

/// Conventional prefixes of keys in lower case, which are not secret, in addition to those of the
/// APIs.
const PREFIXES: [&str; 3] = ["sk-ant-api03-", "sk-or-v1-", "sk-"];

/// Headers with credentials, in addition to those of keys and those that are marked as sensitive.
const CREDENTIALS: [&str; 3] = ["proxy-authorization", "cookie", "set-cookie"];

const MASK: &str = "***";

/// The exchange so far, as it was, without the values of headers that are secrets.
#[derive(Default)]
pub(super) struct Recording {
    parts: Vec<(Side, Vec<u8>)>,
    kept: usize,
    /// There was more than is kept.
    cut: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Sent,
    Received,
}

impl Recording {
    /// Records a request.
    pub(super) fn sent(&mut self, request: &Prepared) {
        let mut text = format!("{} {}\n", request.method, shown_url(&request.url));
        add_headers(&mut text, &request.headers);
        let mut bytes = Zeroizing::new(text.into_bytes());
        bytes.extend_from_slice(&request.body);
        self.add(Side::Sent, &bytes);
    }

    /// Records the head of a response.
    pub(super) fn answered(&mut self, status: u16, version: &str, headers: &HeaderMap) {
        let mut text = Zeroizing::new(format!("HTTP/{version} {status}\n"));
        add_headers(&mut text, headers);
        self.add(Side::Received, text.as_bytes());
    }

    /// Records a part of a response's body.
    pub(super) fn received(&mut self, chunk: &[u8]) {
        self.add(Side::Received, chunk);
    }

    /// Returns the transcript without the secrets of the probe.
    pub(super) fn transcript(&self, probe: &Probe) -> Transcript {
        Transcript(show(self, &Secrets::of(probe)))
    }

    fn add(&mut self, side: Side, bytes: &[u8]) {
        let wanted = &bytes[..bytes.len().min(MAX_KEPT - self.kept)];
        self.cut |= wanted.len() < bytes.len();
        self.kept += wanted.len();
        match self.parts.last_mut() {
            Some((last, text)) if *last == side => text.extend_from_slice(wanted),
            Some(_) | None => self.parts.push((side, wanted.to_vec())),
        }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.parts.iter_mut().for_each(|(_, text)| text.zeroize());
    }
}

/// Formats a URL without query values that are long enough to be tokens.
fn shown_url(url: &Url) -> String {
    let mut shown = url[..url::Position::AfterPath].to_owned();
    for (number, pair) in url.query().into_iter().flat_map(|query| query.split('&')).enumerate() {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = if value.len() < MASKED_RUN { value } else { MASK };
        let separator = if number == 0 { '?' } else { '&' };
        write!(shown, "{separator}{name}={value}").expect("a String takes every write");
    }
    shown
}

fn add_headers(text: &mut String, headers: &HeaderMap) {
    let secret = |name: &HeaderName| CREDENTIALS.contains(&name.as_str()) || is_key_header(name.as_str());
    for (name, value) in headers {
        let value = match String::from_utf8_lossy(value.as_bytes()) {
            _ if value.is_sensitive() || secret(name) => MASK.into(),
            value => value,
        };
        writeln!(text, "{name}: {value}").expect("a String takes every write");
    }
    text.push('\n');
}

/// Exchange of a run for display. Its Display has lines with the prefix `> ` for sent and `< ` for
/// received ones; it is empty without an exchange.
#[derive(Debug)]
pub struct Transcript(String);

impl fmt::Display for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn show(recording: &Recording, secrets: &Secrets) -> String {
    // Where the rest is missing, its last bytes may be the beginning of a key.
    let mut left = if recording.cut { MAX_KEPT - MAX_KEY_BYTES } else { usize::MAX };
    let mut page = Page { text: String::new(), full: recording.cut };
    for (side, bytes) in &recording.parts {
        let mark = match side {
            Side::Sent => "> ",
            Side::Received => "< ",
        };
        let masked = secrets.find(bytes);
        let end = bytes.len().min(left);
        left -= end;
        page.add(mark, &bytes[..end], &masked[..end]);
    }
    if page.full {
        page.text.push_str("… more is not shown\n");
    }
    page.text
}

/// The text as it grows.
struct Page {
    text: String,
    /// Something was left out.
    full: bool,
}

impl Page {
    /// Adds bytes as lines; runs of masked ones become one mask.
    fn add(&mut self, mark: &str, bytes: &[u8], masked: &[bool]) {
        let mut line = mark.to_owned();
        let mut at = 0;
        let mut hidden = false;
        for chunk in bytes.utf8_chunks() {
            for character in chunk.valid().chars() {
                if masked[at] {
                    line.push_str(if hidden { "" } else { MASK });
                } else if character == '\n' {
                    self.add_line(&mut line, mark);
                } else if !(character == '\r' && bytes.get(at + 1) == Some(&b'\n')) {
                    push_escaped(&mut line, character);
                }
                hidden = masked[at];
                at += character.len_utf8();
            }
            for byte in chunk.invalid() {
                write!(line, "\\x{byte:02x}").expect("a String takes every write");
                at += 1;
            }
        }
        if line.len() > mark.len() {
            self.add_line(&mut line, mark);
        }
    }

    fn add_line(&mut self, line: &mut String, mark: &str) {
        // Room for the sentence at the end.
        let room = (MAX_SHOWN - 64).saturating_sub(self.text.len() + 1);
        let mut fits = room.min(line.len());
        while !line.is_char_boundary(fits) {
            fits -= 1;
        }
        self.full |= fits < line.len();
        if fits > 0 {
            self.text.push_str(line[..fits].trim_end_matches(' '));
            self.text.push('\n');
        }
        line.truncate(mark.len());
    }
}

/// Appends a character. Control, direction and invisible characters are written as their number.
fn push_escaped(line: &mut String, character: char) {
    let invisible = matches!(character,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}');
    if character.is_control() && character != '\t' || invisible {
        line.extend(character.escape_unicode());
    } else {
        line.push(character);
    }
}

/// Returns a pattern of keys, including those of other services and those that a server masked
/// except for their ends.
fn key_like() -> Regex {
    let prefixes: Vec<String> = key_prefixes().map(regex::escape).collect();
    let pattern = format!(
        r"\b(?i:sk-|sk_|xai-|eyJ|{})[A-Za-z0-9_.*\-]{{4,}}|\b(?i:bearer|basic) +[A-Za-z0-9_.*+/=\-]{{4,}}|[A-Za-z0-9_.\-]*\*{{3,}}[A-Za-z0-9_.*\-]*",
        prefixes.join("|")
    );
    Regex::new(&pattern).expect("the pattern is constant, and used in every test below")
}

/// Returns the prefixes of the APIs' keys.
fn key_prefixes() -> impl Iterator<Item = &'static str> {
    Api::ALL.iter().flat_map(|api| api.profile().key_prefixes).copied()
}

/// Secrets that must not be shown, as sequences in lower case that are long enough to identify
/// them.
struct Secrets {
    telling: [HashSet<u64>; MASKED_RUN + 1],
    key_like: Regex,
}

impl Secrets {
    fn of(probe: &Probe) -> Self {
        let provider = &probe.provider;
        let mut secrets = Self { telling: Default::default(), key_like: key_like() };
        let keys = [&provider.key, &provider.proxy_auth].into_iter().flatten();
        keys.for_each(|key| secrets.add(key.value.expose().as_bytes()));
        if let Some((_, password)) = provider.proxy_credentials() {
            secrets.add(password.as_bytes());
        }
        provider.headers.iter().for_each(|(_, value)| secrets.add(value.as_bytes()));
        if let Task::Http(request) = &probe.task {
            request.headers.iter().for_each(|(_, value)| secrets.add(value.as_bytes()));
            let query = request.path.split_once('?').map_or("", |(_, query)| query);
            let values = query.split('&').filter_map(|pair| Some(pair.split_once('=')?.1));
            values.filter(|value| value.len() >= MASKED_RUN).for_each(|value| secrets.add(value.as_bytes()));
        }
        secrets
    }

    fn add(&mut self, secret: &[u8]) {
        let secret = Zeroizing::new(secret.to_ascii_lowercase());
        let length = secret.len().min(MASKED_RUN);
        if length < LEAST_TELLING {
            return;
        }
        let known = PREFIXES.into_iter().chain(key_prefixes());
        let begun = known.filter(|prefix| secret.starts_with(prefix.to_ascii_lowercase().as_bytes()));
        let convention = begun.map(str::len).max().unwrap_or(0);
        for (start, window) in secret.windows(length).enumerate() {
            if start + length > convention {
                self.telling[length].insert(packed(window));
            }
        }
    }

    /// Returns for each byte of a text whether it must be masked.
    fn find(&self, text: &[u8]) -> Vec<bool> {
        let mut masked = vec![false; text.len()];
        let lower = Zeroizing::new(text.to_ascii_lowercase());
        for (length, telling) in self.telling.iter().enumerate().filter(|(_, telling)| !telling.is_empty()) {
            for (start, window) in lower.windows(length).enumerate() {
                if telling.contains(&packed(window)) {
                    masked[start..start + length].fill(true);
                }
            }
        }
        for found in self.key_like.find_iter(text) {
            masked[found.range()].fill(true);
        }
        masked
    }
}

/// Returns up to eight bytes as a number.
fn packed(window: &[u8]) -> u64 {
    window.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "sk-langmart-0123456789abcdef";

    fn secrets() -> Secrets {
        let mut secrets = Secrets { telling: Default::default(), key_like: key_like() };
        for secret in [KEY, "tenant-7", "four", "sre"] {
            secrets.add(secret.as_bytes());
        }
        secrets
    }

    fn shown(bytes: &[u8]) -> String {
        let mut recording = Recording::default();
        recording.add(Side::Received, bytes);
        show(&recording, &secrets())
    }

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(shown(text.as_bytes()), format!("< {expected}\n"), "{text:?}");
    }

    #[test]
    fn secrets_are_masked_wherever_they_are_echoed() {
        check(&format!("{{\"key\":\"{KEY}\"}}"), "{\"key\":\"***\"}");
        check(&format!("{} and {KEY}{KEY}", KEY.to_uppercase()), "*** and ***");
        check("ends in 89abcdef, begins with 01234567", "ends in ***, begins with ***");
        check("no more than 9abcdef", "no more than 9abcdef");
        check("TENANT-7 four fourteen sre langmart", "*** *** ***teen sre langmart");
        check("Incorrect API key provided: sk-lang*******cdef.", "Incorrect API key provided: ***");
        check("another's: gsk_abcdef012, Bearer abcdefgh, Basic dTpw", "another's: ***, ***, ***");
        check("5 * 3 ** 2", "5 * 3 ** 2");
    }

    #[test]
    fn control_characters_are_escaped_and_lines_are_marked() {
        check("a\u{1b}[2Jb\u{7}\u{9b}\t\u{202e}c\rd", "a\\u{1b}[2Jb\\u{7}\\u{9b}\t\\u{202e}c\\u{d}d");
        assert_eq!(shown(b"a\r\n> b\n\n\xff\xc3\xa4"), "< a\n< > b\n<\n< \\xffä\n");
        assert_eq!(shown(b""), "");
    }

    #[test]
    fn transcript_is_cut_at_64_kib_without_a_key() {
        for text in [&b"x".repeat(100_000)[..], &b"\x1b".repeat(60_000), &b"x\n".repeat(60_000)] {
            let shown = shown(text);
            assert!((MAX_SHOWN - 128..=MAX_SHOWN).contains(&shown.len()), "{}", shown.len());
            assert!(shown.ends_with("\n… more is not shown\n"), "{}", &shown[shown.len() - 80..]);
        }
        // The key's first bytes are the last that are kept, and the bytes before them are masked.
        for kept in 1..KEY.len() {
            let mut text = KEY.repeat(MAX_KEPT / KEY.len() + 1);
            text.truncate(MAX_KEPT - kept);
            let shown = shown((text + KEY).as_bytes());
            assert!(!shown.contains("01") && shown.ends_with("more is not shown\n"), "{shown}");
        }
    }

    #[test]
    fn secret_in_pieces_is_masked() {
        let mut recording = Recording::default();
        KEY.as_bytes().chunks(5).for_each(|chunk| recording.add(Side::Received, chunk));
        assert_eq!(show(&recording, &secrets()), "< ***\n");
    }

    #[test]
    fn tokens_in_a_query_are_not_shown() {
        let shown = |url: &str| shown_url(&url.parse().unwrap());
        assert_eq!(
            shown("https://a.example/b?limit=1&token=0123456789"),
            "https://a.example/b?limit=1&token=***"
        );
        assert_eq!(shown("https://a.example/b"), "https://a.example/b");
    }
}

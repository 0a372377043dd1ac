//! Renders one event as a line of text or JSON.

use std::{
    error::Error,
    fmt::{self, Write},
    time::SystemTime,
};

use serde_json::Value;
use tracing::{
    Event, Level,
    field::{Field, Visit},
};

use crate::outcome::rfc3339;

/// Maximum length of a value in bytes, so that queued lines are bounded. Longer values are
/// truncated.
const MAX_VALUE: usize = 2048;

/// An event, converted before any lock is held, because its values' `Display` and `Debug` run here.
#[derive(Debug)]
pub(super) struct Line {
    time: SystemTime,
    level: Level,
    target: &'static str,
    message: String,
    fields: Vec<(&'static str, FieldValue)>,
}

/// Value of a field.
#[derive(Debug)]
enum FieldValue {
    /// A string, which text output quotes.
    Text(String),
    /// Output of `Display` or `Debug`, which is not quoted again.
    Formatted(String),
    /// A number or boolean.
    Plain(Value),
}

/// Style of text output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TextStyle {
    /// Journal format: with the priority (sd-daemon(3)) and without a timestamp, which the
    /// journal adds.
    pub(super) journal: bool,
    /// Whether the level is coloured.
    pub(super) colour: bool,
}

impl Line {
    pub(super) fn new(event: &Event<'_>, time: SystemTime) -> Self {
        let metadata = event.metadata();
        let mut line = Self {
            time,
            level: *metadata.level(),
            target: metadata.target(),
            message: String::new(),
            fields: Vec::new(),
        };
        event.record(&mut line);
        line
    }

    /// Renders one line of text, including the newline. Control characters in values are escaped.
    pub(super) fn text(&self, style: TextStyle) -> Vec<u8> {
        let mut text = String::with_capacity(160);
        if style.journal {
            push(&mut text, format_args!("<{}>", self.priority()));
        } else {
            push(&mut text, format_args!("{} ", rfc3339(self.time)));
        }
        if style.colour {
            let colour = match self.level {
                Level::ERROR => 31,
                Level::WARN => 33,
                Level::INFO => 32,
                _ => 34,
            };
            push(&mut text, format_args!("\x1b[{colour}m{:>5}\x1b[0m", self.level));
        } else if style.journal {
            push(&mut text, format_args!("{}", self.level));
        } else {
            push(&mut text, format_args!("{:>5}", self.level));
        }
        push(&mut text, format_args!(" {}: {}", self.target, OneLine(&self.message)));
        for (name, value) in &self.fields {
            match value {
                FieldValue::Text(value) => push(&mut text, format_args!(" {name}={value:?}")),
                FieldValue::Formatted(value) => push(&mut text, format_args!(" {name}={}", OneLine(value))),
                FieldValue::Plain(value) => push(&mut text, format_args!(" {name}={value}")),
            }
        }
        text.push('\n');
        text.into_bytes()
    }

    /// Returns the syslog priority of the level (sd-daemon(3)).
    pub(super) fn priority(&self) -> u8 {
        match self.level {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            _ => 7,
        }
    }

    /// Renders one JSON object, including the newline.
    pub(super) fn json(&self) -> Vec<u8> {
        let quoted = |text: &str| Value::from(text).to_string();
        let mut json = format!(
            "{{\"timestamp\":\"{}\",\"level\":\"{}\",\"target\":{},\"message\":{}",
            rfc3339(self.time),
            self.level,
            quoted(self.target),
            quoted(&self.message)
        );
        for (name, value) in &self.fields {
            push(&mut json, format_args!(",{}:", quoted(name)));
            match value {
                FieldValue::Text(value) | FieldValue::Formatted(value) => json.push_str(&quoted(value)),
                FieldValue::Plain(value) => push(&mut json, format_args!("{value}")),
            }
        }
        json.push_str("}\n");
        json.into_bytes()
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message = truncate(value.to_owned());
        } else {
            self.fields.push((field.name(), FieldValue::Text(truncate(value.to_owned()))));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let value = format(format_args!("{value:?}"));
        if field.name() == "message" {
            self.message = value;
        } else {
            self.fields.push((field.name(), FieldValue::Formatted(value)));
        }
    }

    /// Records an error with its sources, because the outermost message alone is rarely enough.
    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let mut text = format(format_args!("{value}"));
        let mut cause = value.source();
        while let Some(error) = cause
            && text.len() < MAX_VALUE
        {
            push(&mut text, format_args!(": {error}"));
            cause = error.source();
        }
        self.fields.push((field.name(), FieldValue::Formatted(truncate(text))));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.fields.push((field.name(), FieldValue::Plain(value.into())));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.fields.push((field.name(), FieldValue::Plain(value.into())));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.fields.push((field.name(), FieldValue::Plain(value.into())));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.fields.push((field.name(), FieldValue::Plain(value.into())));
    }
}

/// Text with its control characters escaped, so that no value starts a new line or moves a cursor.
struct OneLine<'a>(&'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| {
            if c.is_control() { write!(f, "{}", c.escape_default()) } else { f.write_char(c) }
        })
    }
}

/// Appends to a string. If a value's `Display` fails, its output up to that point is kept.
fn push(text: &mut String, arguments: fmt::Arguments<'_>) {
    let _ = text.write_fmt(arguments);
}

fn format(arguments: fmt::Arguments<'_>) -> String {
    let mut text = String::new();
    push(&mut text, arguments);
    truncate(text)
}

fn truncate(mut text: String) -> String {
    if text.len() > MAX_VALUE {
        let end = (0..=MAX_VALUE).rev().find(|&end| text.is_char_boundary(end));
        text.truncate(end.unwrap_or(0));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use tracing_subscriber::{Layer, layer::SubscriberExt};

    use super::*;

    const PLAIN: TextStyle = TextStyle { journal: false, colour: false };

    /// Returns the line of the one event that `log` emits, at the epoch.
    fn line(log: impl FnOnce()) -> Line {
        #[derive(Clone, Default)]
        struct Keep(Arc<Mutex<Option<Line>>>);
        impl<S: tracing::Subscriber> Layer<S> for Keep {
            fn on_event(&self, event: &Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
                *self.0.lock().unwrap() = Some(Line::new(event, SystemTime::UNIX_EPOCH));
            }
        }
        let keep = Keep::default();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(keep.clone()), log);
        keep.0.lock().unwrap().take().expect("an event was logged")
    }

    #[track_caller]
    fn check_text(line: &Line, style: TextStyle, expected: &str) {
        assert_eq!(String::from_utf8(line.text(style)).unwrap(), expected);
    }

    #[test]
    fn text_has_the_format_of_its_output() {
        let warning =
            line(|| tracing::warn!(target: "t", probe = "a b", count = 3, ok = true, "Config reloaded"));
        let rest = r#"t: Config reloaded probe="a b" count=3 ok=true"#;
        check_text(&warning, PLAIN, &format!("1970-01-01T00:00:00Z  WARN {rest}\n"));
        let colour = TextStyle { colour: true, ..PLAIN };
        check_text(&warning, colour, &format!("1970-01-01T00:00:00Z \x1b[33m WARN\x1b[0m {rest}\n"));
        let journal = TextStyle { journal: true, ..PLAIN };
        check_text(&warning, journal, &format!("<4>WARN {rest}\n"));
        check_text(&line(|| tracing::error!(target: "t", "M")), journal, "<3>ERROR t: M\n");
        check_text(&line(|| tracing::info!(target: "t", "M")), journal, "<6>INFO t: M\n");
        check_text(&line(|| tracing::debug!(target: "t", "M")), journal, "<7>DEBUG t: M\n");
        check_text(&line(|| tracing::trace!(target: "t", "M")), journal, "<7>TRACE t: M\n");
    }

    #[test]
    fn value_never_starts_a_new_line() {
        let forged = "x\n<0>EMERG t: forged\x1b[2J\u{9b}";
        let event = line(|| tracing::info!(target: "t", shown = %forged, text = forged, "Message {forged}"));
        let text = String::from_utf8(event.text(PLAIN)).unwrap();
        assert_eq!(text.matches(char::is_control).collect::<Vec<_>>(), ["\n"], "{text:?}");
        assert!(text.ends_with('\n'));
        let json = String::from_utf8(event.json()).unwrap();
        assert_eq!(json.matches('\n').count(), 1, "{json:?}");
    }

    #[test]
    fn json_keeps_types_and_any_text() {
        let quote = "\"\\\n";
        let event = line(|| {
            tracing::info!(target: "t", text = quote, shown = %quote, count = -3, share = 0.5, ok = false, "Quoted {quote}");
        });
        let json: Value = serde_json::from_slice(&event.json()).unwrap();
        let expected = serde_json::json!({
            "timestamp": "1970-01-01T00:00:00Z", "level": "INFO", "target": "t", "message": format!("Quoted {quote}"),
            "text": quote, "shown": quote, "count": -3, "share": 0.5, "ok": false,
        });
        assert_eq!(json, expected);
        let nan = line(|| tracing::info!(share = f64::NAN, "M"));
        assert!(serde_json::from_slice::<Value>(&nan.json()).unwrap()["share"].is_null());
    }

    #[test]
    fn error_is_logged_with_its_sources() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] io::Error);
        let error = Outer(io::Error::other("inner"));
        let event = line(|| tracing::error!(target: "t", error = &error as &dyn Error, "Failed"));
        check_text(&event, PLAIN, "1970-01-01T00:00:00Z ERROR t: Failed error=outer: inner\n");
    }

    #[test]
    fn line_length_is_bounded() {
        let long = "é".repeat(10 * MAX_VALUE);
        let event = line(|| tracing::info!(text = long, shown = %long, "Message {long}"));
        for line in [event.text(PLAIN), event.json()] {
            assert!(line.len() < 4 * MAX_VALUE, "{} bytes", line.len());
        }
    }
}

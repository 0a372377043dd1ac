//! A model list: whether the model is in it, and the last day that is announced for it.

use std::time::SystemTime;

use serde::{Deserialize, Deserializer};

use super::loose::{Rows, Text};
use crate::{
    api::{Dialect, body, hints},
    outcome::Detail,
};

/// Entry of a model in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Listed {
    /// It is in the list, or no model was asked for. The time is its announced shutdown.
    Found(Option<SystemTime>),
    /// It is in the list, as one that was shut down.
    Retired(Option<SystemTime>),
    /// It is not in the list.
    Missing,
    /// There is no list.
    NoList(Detail),
}

/// `{"data":[…]}`, Google's `{"models":[…]}`, or Together's bare array. Go services write an empty
/// list as null.
#[derive(Deserialize)]
struct List<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<Rows<Row<'a>>>,
    #[serde(borrow, default, deserialize_with = "present")]
    models: Option<Rows<Row<'a>>>,
}

/// Reads a member that is present, even if it is null.
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

#[derive(Deserialize)]
struct Row<'a> {
    #[serde(borrow, default)]
    id: Text<'a>,
    /// Google's id; a title for people elsewhere.
    #[serde(borrow, default)]
    name: Text<'a>,
    /// Anthropic's; a date in the past on a model that is not retired means that its end is
    /// overdue.
    #[serde(borrow, default)]
    lifecycle: Text<'a>,
    #[serde(borrow, default)]
    shutdown_date: Text<'a>,
    #[serde(borrow, default)]
    retires_at: Text<'a>,
    #[serde(borrow, default)]
    expiration_date: Text<'a>,
    #[serde(borrow, default)]
    deprecation: Text<'a>,
}

impl Row<'_> {
    fn id(&self) -> Option<&str> {
        self.id.get().or(self.name.get())
    }

    fn is_retired(&self) -> bool {
        self.lifecycle.get() == Some("retired")
    }

    fn shutdown(&self) -> Option<SystemTime> {
        let dates = [&self.shutdown_date, &self.retires_at, &self.expiration_date, &self.deprecation];
        dates.into_iter().filter_map(Text::get).find_map(hints::date)
    }
}

/// Reads a list without building a tree: LangMart's full one has over a megabyte.
pub(super) fn find(dialect: &dyn Dialect, body: &[u8], model: Option<&str>) -> Listed {
    let body = body::text(body);
    let rows = if body.first() == Some(&b'[') {
        serde_json::from_slice::<Rows<Row<'_>>>(body).map(Some)
    } else {
        serde_json::from_slice::<List<'_>>(body).map(|list| list.data.or(list.models))
    };
    let rows = match rows {
        Ok(Some(rows)) => rows.rows,
        Ok(None) => return Listed::NoList(Detail::NoModelList),
        Err(_) => return Listed::NoList(Detail::BrokenModelList),
    };
    if !rows.is_empty() && rows.iter().all(|row| row.id().is_none()) {
        return Listed::NoList(Detail::ModelsWithoutId);
    }
    let Some(model) = model else { return Listed::Found(None) };
    let ids = rows.iter().filter(|row| row.id().is_some_and(|id| dialect.is_model(id, model)));
    let mut matching: Vec<&Row<'_>> = ids.collect();
    // The name as written before an alias of it.
    matching.sort_by_key(|row| (row.is_retired(), row.id() != Some(model)));
    match matching.first() {
        None => Listed::Missing,
        Some(row) if row.is_retired() => Listed::Retired(row.shutdown()),
        Some(row) => Listed::Found(row.shutdown()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::{api, outcome::Api};

    fn find_in(api: Api, body: &str, model: &str) -> Listed {
        find(api::of(api), body.as_bytes(), (!model.is_empty()).then_some(model))
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn lists_of_every_shape() {
        for body in [
            r#"{"object":"list","data":[{"id":"m"}]}"#,
            r#"{"data":[{"id":7},{"id":"m"}]}"#,
            r#"{"data":[{},{"id":"m","name":"A name"}]}"#,
            r#"{"models":[{"name":"m"}]}"#,
            r#"[{"id":"m"}]"#,
            "\u{feff} [{\"id\":\"m\"}] ",
            r#"{"data":[{"id":"m","pricing":{"input":[1,{"a":null}]}}]}"#,
            r#"{"\u0064ata":[{"\u0069d":"\u006d"}],"next":null}"#,
            r#"{"data":[{"id":["x"]},{"id":{"y":1}},{"id":"m"}]}"#,
            r#"{"data":[{"id":"m"},{"id":"m"}]}"#,
        ] {
            assert_eq!(find_in(Api::Openai, body, "m"), Listed::Found(None), "{body}");
            assert_eq!(find_in(Api::Openai, body, ""), Listed::Found(None), "{body}");
            assert_eq!(find_in(Api::Openai, body, "other"), Listed::Missing, "{body}");
        }
        // Go's empty list.
        for empty in [r#"{"object":"list","data":null}"#, r#"{"data":[]}"#, "[]", r#"{"models":null}"#] {
            assert_eq!(find_in(Api::Openai, empty, ""), Listed::Found(None), "{empty}");
            assert_eq!(find_in(Api::Openai, empty, "m"), Listed::Missing, "{empty}");
        }
    }

    #[test]
    fn other_answers_are_no_model_list() {
        for body in [
            "",
            "null",
            "7",
            "{}",
            r#"{"data":7}"#,
            r#"{"data":{}}"#,
            r#"{"data":["m"]}"#,
            r#"{"data":[{"id":7}]}"#,
            r#"{"data":[{"id":"m"}]"#,
            r#"{"data":[{"id":"m"}]} x"#,
            "[1]",
            r#"[{"name":null}]"#,
            r#"{"error":{"message":"m"}}"#,
            "<html>m</html>",
        ] {
            assert!(matches!(find_in(Api::Openai, body, "m"), Listed::NoList(_)), "{body}");
        }
    }

    #[test]
    fn announced_ends_of_models() {
        let row = |members: &str| format!(r#"{{"data":[{{"id":"m",{members}}}]}}"#);
        for (members, expected) in [
            (r#""shutdown_date":"2026-12-11""#, Listed::Found(Some(at(1_796_947_200)))),
            (r#""shutdown_date":null"#, Listed::Found(None)),
            (
                r#""retires_at":"2026-12-11T00:00:00Z","lifecycle":"deprecated""#,
                Listed::Found(Some(at(1_796_947_200))),
            ),
            // Overdue is not retired.
            (
                r#""retires_at":"2020-09-13T12:26:40Z","lifecycle":"deprecated""#,
                Listed::Found(Some(at(1_600_000_000))),
            ),
            (
                r#""retires_at":"2020-09-13T12:26:40Z","lifecycle":"retired""#,
                Listed::Retired(Some(at(1_600_000_000))),
            ),
            (r#""lifecycle":"retired""#, Listed::Retired(None)),
            (r#""lifecycle":"active""#, Listed::Found(None)),
            (r#""lifecycle":7"#, Listed::Found(None)),
            (r#""expiration_date":"2026-12-11""#, Listed::Found(Some(at(1_796_947_200)))),
            (r#""deprecation":"2026-12-11T00:00:00Z""#, Listed::Found(Some(at(1_796_947_200)))),
            (r#""deprecation":"soon""#, Listed::Found(None)),
            (r#""shutdown_date":"9999-99-99""#, Listed::Found(None)),
            (r#""shutdown_date":{"a":1}"#, Listed::Found(None)),
            (r#""shutdown_date":1796947200"#, Listed::Found(None)),
        ] {
            assert_eq!(find_in(Api::Openai, &row(members), "m"), expected, "{members}");
        }
        // Another model's end is not this one's; of an alias' dated models one that lives counts.
        let list = r#"{"data":[{"id":"x","shutdown_date":"2026-12-11"},{"id":"m"}]}"#;
        assert_eq!(find_in(Api::Openai, list, "m"), Listed::Found(None));
        let dated = r#"{"data":[{"id":"c-4-20240101","lifecycle":"retired"},{"id":"c-4-20250101","lifecycle":"active"}]}"#;
        assert_eq!(find_in(Api::Anthropic, dated, "c-4"), Listed::Found(None));
        assert_eq!(find_in(Api::Anthropic, dated, "c-4-20240101"), Listed::Retired(None));
    }
}

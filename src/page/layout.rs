//! The frame of all pages: head, header, and static files.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::state::State;

/// The style sheet.
pub const STYLE: &str = include_str!("assets/style.css");
/// The script that refreshes the page. The pages work without it.
pub const SCRIPT: &str = include_str!("assets/page.js");
/// The icon.
pub const ICON: &str = include_str!("assets/icon.svg");

/// Interval of refreshes, in seconds.
const REFRESH_SECONDS: u32 = 10;

/// A symbol per state, so that states can be distinguished without colours.
const SYMBOLS: &str = include_str!("assets/symbols.svg");

/// Returns a page. Screen readers announce `summary` when it changes.
pub(super) fn page(title: &str, summary: &Markup, home: bool, content: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" data-refresh=(REFRESH_SECONDS) {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                link rel="icon" href="/icon.svg" type="image/svg+xml";
                link rel="stylesheet" href="/style.css";
                script src="/page.js" defer {}
            }
            body {
                (PreEscaped(SYMBOLS))
                a.skip href="#content" { "Skip to the content" }
                header.top {
                    @if home {
                        h1.brand { "langmart-prober" }
                    } @else {
                        p.brand { a href="/" { "langmart-prober" } }
                    }
                    p #summary role="status" { (summary) }
                    nav aria-label="Other views" {
                        a href="/metrics" { "Metrics" } " "
                        a href="/api/v1/probes" { "JSON" } " "
                        a href="/-/healthy" { "Health" }
                    }
                    p.refresh {
                        noscript { a href="" { "Reload" } }
                        button #pause type="button" hidden aria-pressed="false" { "Pause refreshing" }
                        span #stale hidden { "No response: the page may be out of date" }
                    }
                }
                main #content tabindex="-1" { (content) }
            }
        }
    };
    page.into_string()
}

/// Returns a state as a symbol and a word.
pub(super) fn badge(state: State) -> Markup {
    let name = state.name();
    html! { span class={ "state " (name) } { svg.mark aria-hidden="true" { use href={ "#i-" (name) } {} } (name) } }
}

//! The way in for the fuzz target: streams as a run hears them, without a network.

use std::time::{Duration, Instant, SystemTime};

use super::stream::{Ending, Listener};
use crate::{
    config::{Chat, Stream},
    outcome::{Api, Fault, Outcome, Reason},
};

/// What a stream of these chunks comes to, in words that depend on the bytes alone and not on how they are cut.
pub fn stream<'a>(api: Api, chunks: impl IntoIterator<Item = &'a [u8]>) -> String {
    let chat = Chat { prompt: "Hi".to_owned(), max_tokens: 32, max_tokens_parameter: None, price: None };
    let task = Stream { chat, stall_timeout: Duration::from_secs(1), include_usage: true };
    let mut listener = Listener::new(api, &task);
    let now = Instant::now();
    for chunk in chunks {
        if listener.hear(chunk, now).is_break() {
            break;
        }
    }
    let mut outcome = Outcome::new(SystemTime::UNIX_EPOCH, Reason::Ok, Fault::None);
    listener.measure(&mut outcome, Some(now));
    let Outcome { time_to_first_token, input_tokens, output_tokens, tokens_estimated, .. } = outcome;
    let ending: Ending<'_> = listener.ending();
    let foreign = listener.foreign().map(<[u8]>::len);
    format!(
        "{ending:?} foreign {foreign:?} token {} counts {input_tokens:?} {output_tokens:?} {tokens_estimated}",
        time_to_first_token.is_some()
    )
}

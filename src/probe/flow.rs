//! Arrival of the pieces of a stream: one by one, as a model generates them, or held back and in
//! bursts.

use std::time::{Duration, Instant};

use crate::{
    config::BYTES_PER_TOKEN,
    outcome::{MIN_SPEED_TOKENS, StreamShape},
};

/// Reads that are remembered, enough for the longest speed test.
const MAX_READS: usize = 8192;

/// Pieces within this time, or within a share of the average distance of pieces, arrived together.
const TOGETHER: Duration = Duration::from_micros(200);
const TOGETHER_SHARE: u32 = 20;

/// Less time for each token than any model takes: the answer was complete before its first piece
/// was sent.
const MIN_TOKEN_TIME: Duration = Duration::from_micros(200);

/// Pieces from which on their distribution is judged. Services that send few large ones may send
/// two at a time.
const MIN_PIECES: usize = 16;

/// Pieces of a burst that a full packet or buffer at least has, and the share of all pieces, in
/// percent, that are in such bursts if the stream was held back. A machine that is busy for a
/// moment makes a few of them.
const MIN_BURST_PIECES: usize = 3;
const HELD_BACK_PERCENT: usize = 75;

/// Pieces of one kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Flow {
    pub(super) pieces: u64,
    pub(super) bytes: usize,
    pub(super) first: Option<Instant>,
    pub(super) last: Option<Instant>,
    /// The reads that completed pieces, and how many.
    reads: Vec<(Instant, usize)>,
}

/// Pieces that arrived together.
struct Burst {
    begin: Instant,
    end: Instant,
    pieces: usize,
}

impl Flow {
    /// Adds a piece, unless it is empty.
    pub(super) fn add(&mut self, bytes: usize, arrived: Instant) {
        if bytes == 0 {
            return;
        }
        self.pieces += 1;
        self.bytes += bytes;
        self.first = self.first.or(Some(arrived));
        self.last = Some(arrived);
        let has_room = self.reads.len() < MAX_READS;
        match self.reads.last_mut() {
            Some((at, pieces)) if *at == arrived => *pieces += 1,
            _ if has_room => self.reads.push((arrived, 1)),
            _ => {}
        }
    }

    /// Returns about how many tokens these are: no piece has less than one.
    pub(super) fn tokens(&self) -> u64 {
        self.pieces.max(self.bytes.div_ceil(BYTES_PER_TOKEN) as u64)
    }

    /// Returns the shape of the stream; `None` without a piece.
    pub(super) fn shape(&self) -> Option<StreamShape> {
        let bursts = self.bursts();
        let gaps = bursts.windows(2).map(|two| two[1].begin.saturating_duration_since(two[0].end));
        (self.pieces > 0).then(|| StreamShape {
            pieces: self.pieces,
            bursts: bursts.len() as u64,
            longest_gap: gaps.max().unwrap_or_default(),
        })
    }

    /// Returns whether an intermediary held a stream of so many visible tokens back. Returns `None`
    /// if that cannot be decided.
    pub(super) fn is_buffered(&self, tokens: u64) -> Option<bool> {
        let taken = self.taken()?;
        let bursts = self.bursts();
        let pieces: usize = bursts.iter().map(|burst| burst.pieces).sum();
        if tokens < MIN_SPEED_TOKENS {
            None
        } else if bursts.len() == 1 || taken < MIN_TOKEN_TIME.saturating_mul(u32::try_from(tokens).ok()?) {
            Some(true)
        } else if pieces < MIN_PIECES {
            (bursts.len() == pieces).then_some(false)
        } else {
            let large = bursts.iter().map(|burst| burst.pieces).filter(|pieces| *pieces >= MIN_BURST_PIECES);
            Some(large.sum::<usize>() * 100 >= pieces * HELD_BACK_PERCENT)
        }
    }

    /// Returns the time from the first piece to the last; `None` without one.
    pub(super) fn taken(&self) -> Option<Duration> {
        self.last?.checked_duration_since(self.first?)
    }

    fn bursts(&self) -> Vec<Burst> {
        let distance =
            self.taken().unwrap_or_default() / u32::try_from(self.pieces).unwrap_or(u32::MAX).max(1);
        let together = TOGETHER.max(distance / TOGETHER_SHARE);
        let mut bursts: Vec<Burst> = Vec::new();
        for &(at, pieces) in &self.reads {
            match bursts.last_mut() {
                Some(burst) if at.saturating_duration_since(burst.end) <= together => {
                    burst.end = at;
                    burst.pieces += pieces;
                }
                _ => bursts.push(Burst { begin: at, end: at, pieces }),
            }
        }
        bursts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a stream of that many pieces, of which `burst` are sent at a time, after the time in
    /// which they were generated.
    fn flow(pieces: u32, burst: u32, token: Duration) -> Flow {
        let begun = Instant::now();
        let mut flow = Flow::default();
        for number in 0..pieces {
            let complete = ((number / burst + 1) * burst).min(pieces);
            // Of a burst the packets arrive one after the other.
            let packet = Duration::from_micros(u64::from(number % burst / 4) * 20);
            flow.add(4, begun + token * complete + packet);
        }
        flow
    }

    #[test]
    fn streams_by_speed_length_and_buffer() {
        for tokens in [64, 100, 200, 500] {
            for millis in [1, 2, 5, 10, 20, 50] {
                let token = Duration::from_millis(millis);
                for (burst, expected) in
                    [(1, false), (4, true), (8, true), (13, true), (50, true), (500, true)]
                {
                    let flow = flow(tokens, burst, token);
                    let found = flow.is_buffered(tokens.into());
                    assert_eq!(found, Some(expected), "{tokens} tokens, {token:?} each, {burst} at a time");
                    let shape = flow.shape().unwrap();
                    assert_eq!(shape.bursts, u64::from(tokens.div_ceil(burst)));
                }
            }
        }
    }

    #[test]
    fn short_answers_are_undecided() {
        for tokens in [1, 5, 63] {
            assert_eq!(flow(tokens, 1, Duration::from_millis(10)).is_buffered(tokens.into()), None);
            assert_eq!(flow(tokens, tokens, Duration::from_millis(10)).is_buffered(tokens.into()), None);
        }
        assert_eq!(Flow::default().is_buffered(100), None);
        assert_eq!(Flow::default().shape(), None);
    }

    #[test]
    fn few_large_pieces_are_no_buffering() {
        // Gemini sends some thirty tokens at a time.
        let large = flow(7, 1, Duration::from_millis(120));
        assert_eq!(large.is_buffered(200), Some(false));
        assert_eq!(flow(7, 2, Duration::from_millis(120)).is_buffered(200), None);
        assert_eq!(flow(7, 7, Duration::from_millis(120)).is_buffered(200), Some(true));
        assert_eq!(flow(1, 1, Duration::from_millis(120)).is_buffered(200), Some(true));
    }

    #[test]
    fn answer_sent_faster_than_any_model_was_held_back() {
        // A gateway in Python that has the whole answer, and sends it piece by piece.
        assert_eq!(flow(80, 1, Duration::from_micros(150)).is_buffered(80), Some(true));
        assert_eq!(flow(80, 1, Duration::from_micros(500)).is_buffered(80), Some(false));
    }

    #[test]
    fn single_hiccups_are_no_buffering() {
        let begun = Instant::now();
        let mut flow = Flow::default();
        for number in 0..200_u64 {
            // Two stalls of 30 ms, after which what was sent meanwhile arrives at once.
            let late = if (50..80).contains(&number) {
                80
            } else if (150..180).contains(&number) {
                180
            } else {
                number
            };
            flow.add(4, begun + Duration::from_millis(late));
        }
        assert_eq!(flow.is_buffered(200), Some(false));
        assert_eq!(flow.shape().unwrap().longest_gap, Duration::from_millis(31));
    }

    #[test]
    fn long_streams_are_remembered_within_a_bound() {
        let flow = flow(20_000, 1, Duration::from_millis(1));
        assert_eq!((flow.pieces, flow.reads.len()), (20_000, MAX_READS));
        assert_eq!(flow.is_buffered(20_000), Some(false));
    }
}

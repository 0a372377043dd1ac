//! Large pages, rendered for many readers at once: neither a flood of requests nor readers that stall can make them cost
//! more time or memory than these bounds.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    sync,
    time::{Instant, sleep_until},
};

use super::activity::Activity;

/// For so many times as long as the rendering took, the same page is given again: a fifth of the thread's time goes into
/// rendering at most, and the page of a small configuration is no older than a millisecond or two.
const RENDERINGS_BETWEEN: u32 = 4;

/// Bytes of pages in memory, above which the readers of the oldest are given up.
const MOST_BYTES: usize = 64 << 20;

/// How long a page may be read whatever else is asked for: enough for some megabytes over any network that has a
/// Prometheus in it.
const SPARED: Duration = Duration::from_secs(2);

/// A page, and who reads it.
#[derive(Debug)]
pub(super) struct Page {
    bytes: Vec<u8>,
    tag: String,
    made: Instant,
    readers: Mutex<Vec<Weak<Activity>>>,
}

impl AsRef<[u8]> for Page {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Page {
    /// What its entity tag is (RFC 9110, 8.8.3): another for other bytes, compressed or not.
    pub(super) fn tag(&self) -> &str {
        &self.tag
    }

    fn has_reader(&self, reader: &Arc<Activity>) {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.retain(|other| other.strong_count() > 0 && !other.ptr_eq(&Arc::downgrade(reader)));
        readers.push(Arc::downgrade(reader));
    }

    fn give_up_readers(&self) {
        let readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.iter().filter_map(Weak::upgrade).for_each(|reader| reader.abort());
    }
}

/// The pages of one listener.
#[derive(Debug, Default)]
pub(super) struct Pages {
    shelf: Mutex<Shelf>,
    /// When the next page may be rendered whose name a request has made up; `None`: there was none.
    turn: sync::Mutex<Option<Instant>>,
}

#[derive(Debug, Default)]
struct Shelf {
    /// Which edition the latest pages are of.
    edition: usize,
    /// The latest page of each name, compressed or not, and until when it is given again.
    latest: BTreeMap<(String, bool), (Arc<Page>, Instant)>,
    /// Every page that may still be read, the oldest first.
    made: Vec<Weak<Page>>,
}

impl Pages {
    /// The page of that name: the latest of this edition, or a new one where that is due and there is room.
    pub(super) fn page(
        &self,
        name: &str,
        compressed: bool,
        edition: usize,
        reader: &Arc<Activity>,
        make: impl FnOnce() -> Vec<u8>,
    ) -> Arc<Page> {
        let mut stock = self.stock();
        let begun = Instant::now();
        if stock.edition != edition {
            stock.edition = edition;
            stock.latest.clear();
        }
        let known = stock.latest.get(&(name.to_owned(), compressed)).cloned();
        let page = match known {
            Some((page, until)) if begun < until || !stock.make_room(begun) => page,
            Some(_) | None => {
                let bytes = make();
                let page = Arc::new(Page { tag: tag(&bytes), bytes, made: begun, readers: Mutex::default() });
                let ended = Instant::now();
                let until = ended + (ended - begun) * RENDERINGS_BETWEEN;
                stock.made.push(Arc::downgrade(&page));
                stock.latest.insert((name.to_owned(), compressed), (Arc::clone(&page), until));
                page
            }
        };
        page.has_reader(reader);
        page
    }

    /// The same of a name that a request has made up. With another name each time nothing would be given again, so that
    /// such pages take turns, with pauses as long as those of one page. `None`: there is no room for one more.
    pub(super) async fn page_in_turn(
        &self,
        name: &str,
        compressed: bool,
        edition: usize,
        reader: &Arc<Activity>,
        make: impl FnOnce() -> Vec<u8>,
    ) -> Option<Arc<Page>> {
        let mut turn = self.turn.lock().await;
        if let Some(turn) = *turn {
            sleep_until(turn).await;
        }
        let begun = Instant::now();
        if !self.stock().make_room(begun) {
            return None;
        }
        let page = self.page(name, compressed, edition, reader, make);
        let ended = Instant::now();
        *turn = Some(ended + (ended - begun) * RENDERINGS_BETWEEN);
        Some(page)
    }

    /// Drops what is not given again, so that it is in memory only while it is read.
    pub(super) fn tidy(&self) {
        let now = Instant::now();
        let mut stock = self.stock();
        stock.latest.retain(|_, (_, until)| now < *until);
        stock.made.retain(|page| page.strong_count() > 0);
    }
}

/// The same for the same bytes, in every process.
fn tag(bytes: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    format!("\"{:016x}-{:x}\"", hasher.finish(), bytes.len())
}

impl Pages {
    fn stock(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf {
    /// Gives up the readers of old pages while there are too many bytes; `false`: there still are.
    fn make_room(&mut self, now: Instant) -> bool {
        self.made.retain(|page| page.strong_count() > 0);
        let pages: Vec<Arc<Page>> = self.made.iter().filter_map(Weak::upgrade).collect();
        let mut bytes: usize = pages.iter().map(|page| page.bytes.len()).sum();
        for page in pages {
            if bytes <= MOST_BYTES {
                return true;
            }
            if now < page.made + SPARED {
                return false;
            }
            page.give_up_readers();
            bytes -= page.bytes.len();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "/";

    #[tokio::test(start_paused = true)]
    async fn a_page_is_given_again_for_as_long_as_it_took() {
        let (pages, reader) = (Pages::default(), Activity::new(None));
        // The time of a rendering is real, so that it is given here by hand.
        let first = pages.page(NAME, false, 0, &reader, || vec![1]);
        let shelved = |until| {
            pages.shelf.lock().unwrap().latest.get_mut(&(NAME.to_owned(), false)).unwrap().1 = until;
        };
        shelved(Instant::now() + Duration::from_millis(80));
        tokio::time::advance(Duration::from_millis(79)).await;
        let again = pages.page(NAME, false, 0, &reader, || vec![2]);
        assert!(Arc::ptr_eq(&first, &again));
        assert_eq!(pages.page(NAME, true, 0, &reader, || vec![3]).bytes, [3], "compressed, it is another");
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(pages.page(NAME, false, 0, &reader, || vec![4]).bytes, [4]);
        shelved(Instant::now() + Duration::from_secs(1));
        assert_eq!(
            pages.page(NAME, false, 1, &reader, || vec![5]).bytes,
            [5],
            "after a reload it is out of date"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn readers_of_old_pages_give_way_when_there_are_too_many_bytes() {
        let pages = Pages::default();
        let large = || vec![0; MOST_BYTES / 2 + 1];
        let stalled = [Activity::new(None), Activity::new(None)];
        let tasks = stalled.each_ref().map(|reader| {
            let task = tokio::spawn(std::future::pending::<()>());
            reader.belongs_to(task.abort_handle());
            task
        });
        let _first = pages.page(NAME, false, 0, &stalled[0], large);
        pages.tidy();
        let second = pages.page(NAME, false, 0, &stalled[1], large);
        tokio::time::advance(SPARED / 2).await;
        let latest = pages.page(NAME, false, 0, &Activity::new(None), || vec![1]);
        assert!(Arc::ptr_eq(&second, &latest), "none is old enough to be given up, so the latest must do");
        tokio::time::advance(SPARED / 2).await;
        assert_eq!(pages.page(NAME, false, 0, &Activity::new(None), || vec![1]).bytes, [1]);
        tokio::task::yield_now().await;
        assert_eq!(
            tasks.each_ref().map(tokio::task::JoinHandle::is_finished),
            [true, false],
            "the oldest suffices"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn pages_of_any_name_take_turns_and_are_refused_where_there_is_no_room() {
        let pages = Pages::default();
        let reader = Activity::new(None);
        let begun = Instant::now();
        // A rendering takes no time on a clock that stands, so that it is given here by hand.
        *pages.turn.lock().await = Some(begun + Duration::from_millis(80));
        let large = || vec![0; MOST_BYTES / 2 + 1];
        let first = pages.page_in_turn("/?1", false, 0, &reader, large).await;
        assert!(first.is_some() && begun.elapsed() == Duration::from_millis(80), "{:?}", begun.elapsed());
        let _second = pages.page_in_turn("/?2", false, 0, &reader, large).await.unwrap();
        assert!(pages.page_in_turn("/?3", false, 0, &reader, || vec![1]).await.is_none());
        tokio::time::advance(SPARED).await;
        assert!(
            pages.page_in_turn("/?3", false, 0, &reader, || vec![1]).await.is_some(),
            "the oldest give way"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_that_nobody_reads_is_not_kept() {
        let pages = Pages::default();
        let page = Arc::downgrade(&pages.page(NAME, false, 0, &Activity::new(None), || vec![1]));
        tokio::time::advance(Duration::from_secs(60)).await;
        pages.tidy();
        assert_eq!(page.strong_count(), 0);
    }
}

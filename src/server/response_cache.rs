//! A cache of rendered pages. It bounds the time for rendering and the memory for pages, regardless
//! of the number of requests and of stalled clients.

use std::{
    collections::BTreeMap,
    sync::{Arc, MutexGuard, Weak},
    time::Duration,
};

use flate2::Crc;
use tokio::{
    sync,
    time::{Instant, sleep_until},
};

use super::activity::Activity;
use crate::{pieces::Pieces, sync::Mutex};

/// A page is reused for this many times its rendering time, so that rendering takes at most a fifth
/// of the thread's time, and pages of small configurations are only milliseconds old.
const REUSE_FACTOR: u32 = 4;

/// Maximum size of all pages in memory. Above it, clients that read the oldest pages are
/// disconnected.
const MAX_CACHED_BYTES: usize = 64 << 20;

/// Time for which the readers of a page are not disconnected, sufficient for some megabytes.
const MIN_READ_TIME: Duration = Duration::from_secs(2);

/// A rendered page with its readers.
#[derive(Debug)]
pub(super) struct CachedResponse {
    pieces: Pieces,
    tag: String,
    rendered_at: Instant,
    readers: Mutex<Vec<Weak<Activity>>>,
}

impl CachedResponse {
    pub(super) fn pieces(&self) -> &Pieces {
        &self.pieces
    }

    /// Returns the entity tag (RFC 9110, 8.8.3), a checksum of the bytes.
    pub(super) fn tag(&self) -> &str {
        &self.tag
    }

    fn add_reader(&self, reader: &Arc<Activity>) {
        let mut readers = self.readers.lock();
        readers.retain(|other| other.strong_count() > 0 && !other.ptr_eq(&Arc::downgrade(reader)));
        readers.push(Arc::downgrade(reader));
    }

    fn disconnect_readers(&self) {
        let readers = self.readers.lock();
        readers.iter().filter_map(Weak::upgrade).for_each(|reader| reader.abort());
    }
}

/// The cache of one listener.
#[derive(Debug, Default)]
pub(super) struct ResponseCache {
    entries: Mutex<Entries>,
    /// Earliest time of the next rendering by [`ResponseCache::get_or_render_throttled`], if there
    /// was one.
    next_rendering: sync::Mutex<Option<Instant>>,
}

#[derive(Debug, Default)]
struct Entries {
    /// The edition of the latest pages.
    edition: usize,
    /// The latest page by name and compression, with the end of its reuse.
    latest: BTreeMap<(String, bool), (Arc<CachedResponse>, Instant)>,
    /// All pages that may still be read, the oldest first.
    rendered: Vec<Weak<CachedResponse>>,
}

impl ResponseCache {
    /// Returns the latest page of that name and edition, or renders it if it is outdated and the
    /// memory permits.
    pub(super) fn get_or_render(
        &self,
        name: &str,
        compressed: bool,
        edition: usize,
        reader: &Arc<Activity>,
        make_page: impl FnOnce() -> Pieces,
    ) -> Arc<CachedResponse> {
        let mut entries = self.lock();
        let begun = Instant::now();
        if entries.edition != edition {
            entries.edition = edition;
            entries.latest.clear();
        }
        let key = (name.to_owned(), compressed);
        let page = match entries.latest.remove(&key) {
            Some((page, until)) if begun < until || !entries.make_room(begun) => {
                entries.latest.insert(key, (Arc::clone(&page), until));
                page
            }
            outdated => {
                // Before the next page needs memory.
                drop(outdated);
                let pieces = make_page();
                let page = Arc::new(CachedResponse {
                    tag: tag(&pieces),
                    pieces,
                    rendered_at: begun,
                    readers: Mutex::default(),
                });
                let ended = Instant::now();
                let until = ended + (ended - begun) * REUSE_FACTOR;
                entries.rendered.push(Arc::downgrade(&page));
                entries.latest.insert(key, (Arc::clone(&page), until));
                page
            }
        };
        page.add_reader(reader);
        page
    }

    /// Like [`ResponseCache::get_or_render`], for names that clients can choose. Because every name
    /// may be new, such pages are rendered one at a time, with pauses like those of a single page.
    /// Returns `None` if there is no memory for another page.
    pub(super) async fn get_or_render_throttled(
        &self,
        name: &str,
        compressed: bool,
        edition: usize,
        reader: &Arc<Activity>,
        make_page: impl FnOnce() -> Pieces,
    ) -> Option<Arc<CachedResponse>> {
        let mut next = self.next_rendering.lock().await;
        if let Some(time) = *next {
            sleep_until(time).await;
        }
        let begun = Instant::now();
        if !self.lock().make_room(begun) {
            return None;
        }
        let page = self.get_or_render(name, compressed, edition, reader, make_page);
        let ended = Instant::now();
        *next = Some(ended + (ended - begun) * REUSE_FACTOR);
        Some(page)
    }

    /// Removes pages that are outdated, so that they stay in memory only while they are read.
    pub(super) fn remove_unused(&self) {
        let now = Instant::now();
        let mut entries = self.lock();
        entries.latest.retain(|_, (_, until)| now < *until);
        entries.rendered.retain(|page| page.strong_count() > 0);
    }
}

/// Returns a checksum of the bytes, the same in every process, which takes less time than a hash.
fn tag(pieces: &Pieces) -> String {
    let mut crc = Crc::new();
    pieces.iter().for_each(|piece| crc.update(piece));
    format!("\"{:08x}-{:x}\"", crc.sum(), pieces.bytes())
}

impl ResponseCache {
    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock()
    }
}

impl Entries {
    /// Disconnects readers of old pages while the limit is exceeded. Returns whether there is room
    /// now.
    fn make_room(&mut self, now: Instant) -> bool {
        self.rendered.retain(|page| page.strong_count() > 0);
        let pages: Vec<Arc<CachedResponse>> = self.rendered.iter().filter_map(Weak::upgrade).collect();
        let mut bytes: usize = pages.iter().map(|page| page.pieces.bytes()).sum();
        for page in pages {
            if bytes <= MAX_CACHED_BYTES {
                return true;
            }
            if now < page.rendered_at + MIN_READ_TIME {
                return false;
            }
            page.disconnect_readers();
            bytes -= page.pieces.bytes();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const NAME: &str = "/";

    fn page(bytes: &[u8]) -> Pieces {
        let mut pieces = Pieces::default();
        pieces.write_all(bytes).unwrap();
        pieces
    }

    fn large() -> Pieces {
        page(&vec![0; MAX_CACHED_BYTES / 2 + 1])
    }

    fn bytes(page: &CachedResponse) -> Vec<u8> {
        page.pieces().iter().collect::<Vec<_>>().concat()
    }

    #[tokio::test(start_paused = true)]
    async fn page_is_reused_until_it_is_outdated() {
        let (pages, reader) = (ResponseCache::default(), Activity::new(None));
        // The rendering time is measured with the real clock, so the test sets the end of the
        // reuse.
        let first = pages.get_or_render(NAME, false, 0, &reader, || page(&[1]));
        let reuse_until = |until| {
            pages.entries.lock().latest.get_mut(&(NAME.to_owned(), false)).unwrap().1 = until;
        };
        reuse_until(Instant::now() + Duration::from_millis(80));
        tokio::time::advance(Duration::from_millis(79)).await;
        let again = pages.get_or_render(NAME, false, 0, &reader, || page(&[2]));
        assert!(Arc::ptr_eq(&first, &again));
        assert_eq!(
            bytes(&pages.get_or_render(NAME, true, 0, &reader, || page(&[3]))),
            [3],
            "the compressed page is another"
        );
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(bytes(&pages.get_or_render(NAME, false, 0, &reader, || page(&[4]))), [4]);
        reuse_until(Instant::now() + Duration::from_secs(1));
        assert_eq!(
            bytes(&pages.get_or_render(NAME, false, 1, &reader, || page(&[5]))),
            [5],
            "a reload outdates the page"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn readers_of_oldest_page_are_disconnected_for_room() {
        let pages = ResponseCache::default();
        let stalled = [Activity::new(None), Activity::new(None)];
        let tasks = stalled.each_ref().map(|reader| {
            let task = tokio::spawn(std::future::pending::<()>());
            reader.set_task(task.abort_handle());
            task
        });
        let _first = pages.get_or_render(NAME, false, 0, &stalled[0], large);
        pages.remove_unused();
        let second = pages.get_or_render(NAME, false, 0, &stalled[1], large);
        tokio::time::advance(MIN_READ_TIME / 2).await;
        let latest = pages.get_or_render(NAME, false, 0, &Activity::new(None), || page(&[1]));
        assert!(Arc::ptr_eq(&second, &latest), "no page is old enough, so the latest is reused");
        tokio::time::advance(MIN_READ_TIME / 2).await;
        assert_eq!(bytes(&pages.get_or_render(NAME, false, 0, &Activity::new(None), || page(&[1]))), [1]);
        tokio::task::yield_now().await;
        assert_eq!(
            tasks.each_ref().map(tokio::task::JoinHandle::is_finished),
            [true, false],
            "only the oldest"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn throttled_pages_are_refused_without_room() {
        let pages = ResponseCache::default();
        let reader = Activity::new(None);
        let begun = Instant::now();
        // Rendering takes no time on the paused clock, so the test sets the time of the next
        // rendering.
        *pages.next_rendering.lock().await = Some(begun + Duration::from_millis(80));
        let first = pages.get_or_render_throttled("/?1", false, 0, &reader, large).await;
        assert!(first.is_some() && begun.elapsed() == Duration::from_millis(80), "{:?}", begun.elapsed());
        let _second = pages.get_or_render_throttled("/?2", false, 0, &reader, large).await.unwrap();
        assert!(pages.get_or_render_throttled("/?3", false, 0, &reader, || page(&[1])).await.is_none());
        tokio::time::advance(MIN_READ_TIME).await;
        assert!(
            pages.get_or_render_throttled("/?3", false, 0, &reader, || page(&[1])).await.is_some(),
            "the oldest page makes room"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn page_without_readers_is_removed() {
        let pages = ResponseCache::default();
        let page = Arc::downgrade(&pages.get_or_render(NAME, false, 0, &Activity::new(None), || page(&[1])));
        tokio::time::advance(Duration::from_secs(60)).await;
        pages.remove_unused();
        assert_eq!(page.strong_count(), 0);
    }
}

//! Queues changes for the state's writer, and holds back records until the state they changed is on
//! disk.

use std::{
    collections::VecDeque,
    fmt, io, mem,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, MutexGuard, atomic::Ordering},
    time::{Duration, SystemTime},
};

use tracing::{info, warn};

use super::{
    changes::Changes,
    file::{Identity, PersistedBackoff, PersistedSpending, PersistedState, save},
};
use crate::{
    line_writer::{Counters, Inbox, Writer},
    sync::Mutex,
};

/// Maximum number of records held back. Only a blocked disk can fill it.
const CAPACITY: usize = 4096;

/// Minimum time between two writes, and so the longest time that a record is held back. It limits
/// wear of the disk; each write takes some milliseconds.
const GATHERING: Duration = Duration::from_millis(250);

/// Accepts changes without blocking and writes them on a thread of its own. An item that comes with
/// a change is released once the change is on disk or cannot be written.
pub struct StateWriter<T: Send + 'static> {
    writer: Writer<Pending<T>>,
    held: Arc<HeldItems<T>>,
}

/// Changes and items that are not being written yet.
struct Pending<T> {
    changes: Changes,
    /// Whether there is something to write.
    changed: bool,
    /// Items to release once these changes are on disk.
    waiting: VecDeque<T>,
    held: Arc<HeldItems<T>>,
}

/// Items whose changes are being written. An item is released while the queue is locked, so that
/// every item is either in the queue or released. If both locks are needed, the inbox is locked
/// first.
struct HeldItems<T> {
    queue: Mutex<VecDeque<T>>,
    release: Box<dyn Fn(T) + Send + Sync>,
    counters: Counters,
}

impl<T: Send + 'static> StateWriter<T> {
    /// Starts the thread, which writes `kept` immediately, so that an unwritable directory is
    /// detected at the start.
    pub fn start(
        directory: PathBuf,
        kept: PersistedState,
        release: impl Fn(T) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let (release, counters) = (Box::new(release), Counters::default());
        let observed = (Arc::clone(&counters.restarts), counters.clock.clone());
        let held = Arc::new(HeldItems { queue: Mutex::default(), release, counters });
        let (changes, waiting) = (Changes::default(), VecDeque::new());
        let pending = Pending { changes, changed: true, waiting, held: Arc::clone(&held) };
        let mut file = StateFile { directory, kept, failing: false };
        let written = Arc::clone(&held);
        let writer = Writer::start("state", pending, GATHERING, observed, move |changes: Changes| {
            changes.apply(&mut file.kept);
            file.write(&written.counters);
            written.release_all();
        })?;
        Ok(Self { writer, held })
    }

    /// Sets the backoff of a probe. `None` means that it has none.
    pub fn set_backoff(&self, who: &Arc<Identity>, backoff: Option<PersistedBackoff>) {
        self.change(|changes| changes.set_backoff(who, backoff));
    }

    /// Sets the spending of the day. It is read while the inbox is locked, so that of two
    /// concurrent callers the later one stores the latest value.
    pub fn set_spending(&self, spending: impl FnOnce() -> PersistedSpending) {
        self.change(|changes| changes.set_spending(spending()));
    }

    /// Records that a run which started at `time` has ended. `released` is released once all
    /// changes up to now are on disk, or immediately if the disk is blocked and too many items are
    /// held back.
    pub fn record_run(&self, who: &Arc<Identity>, time: SystemTime, success: bool, released: T) {
        self.change_and_release(|changes| changes.record_run(who, time, success), Some(released));
    }

    /// Releases an item as [`StateWriter::record_run`] does, after all changes up to now.
    pub fn release_after_write(&self, released: T) {
        self.change_and_release(|_| (), Some(released));
    }

    /// Drops the state of all probes except these, and of the budget if there is none.
    pub fn retain(&self, mut probes: Vec<Arc<Identity>>, budget: bool) {
        probes.sort();
        self.change(|changes| changes.retain(probes, budget));
    }

    /// Returns the counters: changes after the stop, failed writes, and panics after which the
    /// thread continued.
    pub fn counters(&self) -> &Counters {
        &self.held.counters
    }

    /// Closes the inbox and waits until all changes are written and all items are released, up to
    /// the deadline. The remaining items are then released without being written: a blocked disk
    /// may lose state, but no record.
    pub fn stop(&self, deadline: Duration) {
        self.writer.stop(deadline, Pending::hold);
        self.held.release_all();
    }

    fn change(&self, change: impl FnOnce(&mut Changes)) {
        self.change_and_release(change, None);
    }

    /// Queues a change, or counts it as dropped after the stop. The item is released afterwards, or
    /// immediately if too many are held back.
    fn change_and_release(&self, change: impl FnOnce(&mut Changes), mut released: Option<T>) {
        let open = self.writer.change(|pending| {
            change(&mut pending.changes);
            pending.changed = true;
            if pending.waiting.len() < CAPACITY {
                pending.waiting.extend(released.take());
            }
            true
        });
        if !open {
            self.held.counters.dropped.fetch_add(1, Ordering::Relaxed);
        }
        released.map(&self.held.release);
    }
}

impl<T: Send + 'static> fmt::Debug for StateWriter<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateWriter").field("counters", &self.held.counters).finish_non_exhaustive()
    }
}

impl<T> Pending<T> {
    /// Moves the pending items to those being written. The inbox is locked, so that each item is
    /// always in exactly one place.
    fn hold(&mut self) {
        self.held.lock().append(&mut self.waiting);
    }
}

impl<T: Send + 'static> Inbox for Pending<T> {
    type Batch = Changes;

    fn take(&mut self) -> Option<Changes> {
        self.hold();
        mem::take(&mut self.changed).then(|| mem::take(&mut self.changes))
    }

    fn may_gather(&self) -> bool {
        true
    }

    fn is_filling(&self) -> bool {
        self.waiting.len() >= CAPACITY / 2
    }
}

impl<T> HeldItems<T> {
    fn lock(&self) -> MutexGuard<'_, VecDeque<T>> {
        self.queue.lock()
    }

    /// Releases all items in order. A panic loses its item and is counted.
    fn release_all(&self) {
        let release_next = || self.lock().pop_front().map(&self.release).is_some();
        loop {
            match catch_unwind(AssertUnwindSafe(release_next)) {
                Ok(true) => {}
                Ok(false) => return,
                Err(_) => {
                    self.counters.restarts.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}

/// The state file and its content.
struct StateFile {
    directory: PathBuf,
    kept: PersistedState,
    failing: bool,
}

impl StateFile {
    fn write(&mut self, counters: &Counters) {
        let directory: &Path = &self.directory;
        match save(directory, &self.kept) {
            Ok(()) if mem::take(&mut self.failing) => {
                info!(directory = %directory.display(), "State writable again");
            }
            Ok(()) => {}
            Err(error) => {
                counters.errors.fetch_add(1, Ordering::Relaxed);
                if !mem::replace(&mut self.failing, true) {
                    let directory = directory.display();
                    warn!(%directory, %error, "Failed to write state; a restart would lose backoff and spending");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        sync::mpsc,
        thread,
    };

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::{
        super::file::{BLOCK, PersistedProbe, load},
        *,
    };
    use crate::outcome::{Check, Subject};

    const TEST_TIMEOUT: Duration = Duration::from_secs(60);

    fn identity(probe: &str) -> Arc<Identity> {
        Arc::new(Identity::new(Subject { probe, provider: "groq", check: Check::Chat, model: None }))
    }

    /// Starts a writer whose released items arrive here, each with the content of the disk at that
    /// time.
    fn started_writer(directory: &Path) -> (StateWriter<u32>, mpsc::Receiver<(u32, PersistedState)>) {
        let (sender, released) = mpsc::channel();
        let place = directory.to_owned();
        let release = move |number| {
            let _ = sender.send((number, load(&place, SystemTime::now()).kept));
        };
        (StateWriter::start(directory.to_owned(), PersistedState::default(), release).unwrap(), released)
    }

    #[test]
    fn items_are_released_in_order_after_their_write() {
        let directory = tempfile::tempdir().unwrap();
        let (state, released) = started_writer(directory.path());
        let who = identity("p");
        for number in 0..1000_u32 {
            let backoff = PersistedBackoff { until: None, step: number.into() };
            state.set_backoff(&who, Some(backoff));
            state.set_spending(|| PersistedSpending { day: 1, usd: 0.0, tokens: number.into() });
            state.record_run(&who, SystemTime::UNIX_EPOCH, number == 7, number);
        }
        state.stop(TEST_TIMEOUT);
        for expected in 0..1000_u32 {
            let (number, kept) = released.try_recv().unwrap();
            assert_eq!(number, expected);
            // The disk may hold later values, but not earlier ones.
            let probe = kept.probes[&who];
            assert!(probe.backoff.unwrap().step >= number.into());
            assert!(kept.spending.unwrap().tokens >= number.into());
            assert_eq!(probe.last_run, Some(SystemTime::UNIX_EPOCH));
            assert!(number < 7 || probe.last_success.is_some());
        }
    }

    #[test]
    fn item_is_released_after_earlier_changes() {
        let directory = tempfile::tempdir().unwrap();
        let (state, released) = started_writer(directory.path());
        state.set_backoff(&identity("p"), Some(PersistedBackoff { until: None, step: 4 }));
        state.release_after_write(1);
        let (_, kept) = released.recv_timeout(TEST_TIMEOUT).unwrap();
        let probe = kept.probes[&identity("p")];
        assert_eq!((probe.backoff.unwrap().step, probe.last_run), (4, None));
    }

    #[test]
    fn panic_in_release_loses_one_item() {
        let directory = tempfile::tempdir().unwrap();
        let (sender, released) = mpsc::channel();
        let release = move |number| {
            assert!(number != 2, "on purpose");
            let _ = sender.send(number);
        };
        let state =
            StateWriter::start(directory.path().to_owned(), PersistedState::default(), release).unwrap();
        for number in 1..=3 {
            state.record_run(&identity("p"), SystemTime::UNIX_EPOCH, true, number);
        }
        assert_eq!(
            [released.recv_timeout(TEST_TIMEOUT), released.recv_timeout(TEST_TIMEOUT)],
            [Ok(1), Ok(3)]
        );
        state.record_run(&identity("q"), SystemTime::UNIX_EPOCH, true, 4);
        assert_eq!(released.recv_timeout(TEST_TIMEOUT), Ok(4));
        assert_eq!(state.counters().restarts.load(Ordering::Relaxed), 1);
        assert!(load(directory.path(), SystemTime::now()).kept.probes.contains_key(&identity("q")));
    }

    #[test]
    fn unwritable_disk_loses_no_record() {
        let directory = tempfile::tempdir().unwrap();
        // A file in place of the directory.
        let place = directory.path().join("taken");
        fs::write(&place, "").unwrap();
        let (state, released) = started_writer(&place);
        // The first write is of the initial state.
        while state.counters().errors.load(Ordering::Relaxed) == 0 {
            thread::yield_now();
        }
        state.record_run(&identity("p"), SystemTime::UNIX_EPOCH, true, 1);
        assert_eq!(released.recv_timeout(TEST_TIMEOUT).unwrap().0, 1);
        let Counters { dropped, errors, .. } = state.counters();
        assert_eq!((dropped.load(Ordering::Relaxed), errors.load(Ordering::Relaxed)), (0, 2));
        fs::remove_file(&place).unwrap();
        state.record_run(&identity("p"), SystemTime::UNIX_EPOCH, true, 2);
        assert!(
            released.recv_timeout(TEST_TIMEOUT).unwrap().1.probes.contains_key(&identity("p")),
            "the directory is created again"
        );
    }

    /// Blocks writes from the next one on, because opening a FIFO for writing waits for a reader.
    fn block_writes(directory: &Path) {
        mknodat(CWD, directory.join(BLOCK), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    }

    /// Unblocks the blocked write, as long as the returned file is open.
    fn unblock(directory: &Path) -> File {
        let blocked = directory.join("blocked");
        fs::rename(directory.join(BLOCK), &blocked).unwrap();
        File::options().read(true).write(true).open(blocked).unwrap()
    }

    /// Starts a writer that is blocked in a write, with record 0. All records arrive here.
    fn blocked_writer(directory: &Path) -> (StateWriter<usize>, mpsc::Receiver<usize>) {
        let (sender, released) = mpsc::channel();
        let release = move |number| sender.send(number).unwrap();
        let state = StateWriter::start(directory.to_owned(), PersistedState::default(), release).unwrap();
        // The first write is not blocked.
        state.release_after_write(usize::MAX);
        assert_eq!(released.recv_timeout(TEST_TIMEOUT), Ok(usize::MAX));
        block_writes(directory);
        state.record_run(&identity("p"), SystemTime::UNIX_EPOCH, true, 0);
        while state.held.lock().is_empty() {
            thread::yield_now();
        }
        (state, released)
    }

    #[test]
    fn blocked_disk_delays_no_caller_and_loses_no_record() {
        let directory = tempfile::tempdir().unwrap();
        let (state, released) = blocked_writer(directory.path());
        for number in 1..=CAPACITY + 1 {
            state.record_run(&identity("p"), SystemTime::UNIX_EPOCH, true, number);
        }
        assert_eq!(
            released.try_recv(),
            Ok(CAPACITY + 1),
            "the queue was full, so it is released immediately"
        );
        let _reader = unblock(directory.path());
        state.stop(TEST_TIMEOUT);
        assert_eq!(released.try_iter().collect::<Vec<_>>(), (0..=CAPACITY).collect::<Vec<_>>());
        assert_eq!(state.counters().dropped.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn blocked_disk_loses_no_latest_value() {
        let directory = tempfile::tempdir().unwrap();
        let (state, _released) = blocked_writer(directory.path());
        let [p, q, r] = ["p", "q", "r"].map(identity);
        let at = |second: usize| SystemTime::UNIX_EPOCH + Duration::from_secs(second as u64);
        let wait = |step| Some(PersistedBackoff { until: None, step });
        state.set_backoff(&q, wait(3));
        state.set_backoff(&r, wait(9));
        let last = 3 * CAPACITY;
        for number in 1..=last {
            state.set_backoff(&p, wait(number as u64));
            state.set_spending(|| PersistedSpending { day: 1, usd: 0.5, tokens: number as u64 });
            state.record_run(&p, at(number), number < last, number);
            if number == CAPACITY {
                state.retain(vec![p.clone(), q.clone()], true);
            }
        }
        let _reader = unblock(directory.path());
        state.stop(TEST_TIMEOUT);
        let kept = load(directory.path(), SystemTime::now()).kept;
        assert_eq!(kept.spending, Some(PersistedSpending { day: 1, usd: 0.5, tokens: last as u64 }));
        let (last_run, last_success) = (Some(at(last)), Some(at(last - 1)));
        let expected = [
            ((*p).clone(), PersistedProbe { last_run, last_success, backoff: wait(last as u64) }),
            ((*q).clone(), PersistedProbe { backoff: wait(3), ..PersistedProbe::default() }),
        ];
        assert_eq!(kept.probes, expected.into());
    }

    #[test]
    fn disk_blocked_at_the_stop_loses_no_record() {
        let directory = tempfile::tempdir().unwrap();
        let (state, released) = blocked_writer(directory.path());
        state.record_run(&identity("p"), SystemTime::UNIX_EPOCH, true, 1);
        state.stop(Duration::from_millis(1));
        assert!(state.counters().clock.in_progress() >= Duration::from_millis(1), "the write is blocked");
        assert_eq!(released.try_iter().collect::<Vec<_>>(), [0, 1]);
        // The thread does not need to be awaited.
        drop(unblock(directory.path()));
    }

    #[test]
    fn stop_at_any_time_releases_all_in_order() {
        // Enough records to be moved for a while from the pending to the written ones.
        const RECORDS: u32 = 2000;
        for round in 0..100 {
            let directory = tempfile::tempdir().unwrap();
            let (sender, released) = mpsc::channel();
            let release = move |number| sender.send(number).unwrap();
            let state =
                StateWriter::start(directory.path().to_owned(), PersistedState::default(), release).unwrap();
            state.release_after_write(0);
            assert_eq!(released.recv_timeout(TEST_TIMEOUT), Ok(0));
            for number in 1..RECORDS {
                state.record_run(&identity(&format!("p{number}")), SystemTime::UNIX_EPOCH, true, number);
            }
            state.stop(Duration::from_micros(round * 40));
            let released: Vec<_> = released.try_iter().collect();
            assert!(released.iter().copied().eq(1..RECORDS), "{round}: {}", released.len());
        }
    }

    #[test]
    fn probe_restored_by_a_reload_has_no_state() {
        let directory = tempfile::tempdir().unwrap();
        let (state, _released) = blocked_writer(directory.path());
        let [p, q] = ["p", "q"].map(identity);
        state.set_spending(|| PersistedSpending { day: 1, usd: 1.0, tokens: 1 });
        state.retain(vec![q.clone()], false);
        state.retain(vec![q.clone(), p.clone()], true);
        state.set_backoff(&p, None);
        let _reader = unblock(directory.path());
        state.stop(TEST_TIMEOUT);
        assert_eq!(load(directory.path(), SystemTime::now()).kept, PersistedState::default());
    }

    #[test]
    fn reload_drops_removed_probes() {
        let directory = tempfile::tempdir().unwrap();
        let (state, _released) = started_writer(directory.path());
        let all = ["b", "a", "c"].map(identity);
        for who in &all {
            state.record_run(who, SystemTime::UNIX_EPOCH, true, 0);
        }
        state.set_spending(|| PersistedSpending { day: 1, usd: 1.0, tokens: 1 });
        state.retain(vec![identity("c"), identity("a")], false);
        state.stop(TEST_TIMEOUT);
        let kept = load(directory.path(), SystemTime::now()).kept;
        assert_eq!(kept.probes.keys().collect::<Vec<_>>(), [&*identity("a"), &*identity("c")]);
        assert_eq!(kept.spending, None);
    }
}

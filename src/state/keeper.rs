//! The thread that writes the state, and what it holds back until that is done.

use std::{
    collections::VecDeque,
    fmt, io, mem,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, SystemTime},
};

use tracing::{info, warn};

use super::{
    changes::Changes,
    file::{Identity, Kept, KeptBackoff, KeptSpending, save},
};

/// How many records wait at most. It takes a disk that hangs to fill it.
const CAPACITY: usize = 4096;

/// How long changes gather between two writes, and so how long a record may be held back: a disk of the cheap kind is
/// worn by writes, and each takes it some milliseconds.
const GATHERING: Duration = Duration::from_millis(250);

/// How long the thread pauses after a panic, which would be a bug of ours.
const PAUSE: Duration = Duration::from_millis(100);

/// Takes changes without ever waiting, writes them on a thread of its own, and releases what came with a change once
/// that is on disk, or cannot be brought there.
pub struct Keeper<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    queue: Mutex<Queue<T>>,
    changed: Condvar,
    /// What came with the changes that are being written. One is released while this is locked, so that whoever locks it
    /// finds each of them here or released. Locked after the queue, where both are.
    held: Mutex<VecDeque<T>>,
    release: Box<dyn Fn(T) + Send + Sync>,
    dropped: Arc<AtomicU64>,
    errors: Arc<AtomicU64>,
    restarts: Arc<AtomicU64>,
}

struct Queue<T> {
    changes: Changes,
    /// What is to be released once these changes are on disk.
    waiting: VecDeque<T>,
    /// The thread looks by itself before long.
    resting: bool,
    closed: bool,
    ended: bool,
}

impl<T: Send + 'static> Keeper<T> {
    /// Starts the thread, which writes `kept` at once: a directory that cannot be written is known from the start.
    pub fn start(
        directory: PathBuf,
        kept: Kept,
        release: impl Fn(T) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let queue = Queue {
            changes: Changes::default(),
            waiting: VecDeque::new(),
            resting: false,
            closed: false,
            ended: false,
        };
        let shared = Arc::new(Shared {
            queue: Mutex::new(queue),
            changed: Condvar::new(),
            held: Mutex::default(),
            release: Box::new(release),
            dropped: Arc::default(),
            errors: Arc::default(),
            restarts: Arc::default(),
        });
        let served = Arc::clone(&shared);
        thread::Builder::new().name("state".to_owned()).spawn(move || serve(&served, &directory, kept))?;
        Ok(Self { shared })
    }

    /// The probe's wait is this from now on; `None`: it has none.
    pub fn waits(&self, who: &Arc<Identity>, backoff: Option<KeptBackoff>) {
        self.shared.change(|changes| changes.waits(who, backoff));
    }

    /// The day has taken so much, asked for here: of two who tell at once, the later one tells what is so.
    pub fn spent(&self, spending: impl FnOnce() -> KeptSpending) {
        self.shared.change(|changes| changes.spent(spending()));
    }

    /// A run has ended that began then. What comes with it is released once all that was told so far is on disk; at
    /// once where the disk hangs and too many wait.
    pub fn ran(&self, who: &Arc<Identity>, time: SystemTime, success: bool, released: T) {
        self.shared.change_and_release(|changes| changes.ran(who, time, success), released);
    }

    /// Releases it as [`Keeper::ran`] does, after all that was told so far.
    pub fn follows(&self, released: T) {
        self.shared.change_and_release(|_| (), released);
    }

    /// From now on there are these probes, and a budget or none: what is kept of others is forgotten.
    pub fn retain(&self, mut probes: Vec<Arc<Identity>>, budget: bool) {
        probes.sort();
        self.shared.change(|changes| changes.retain(probes, budget));
    }

    /// Changes that came after the stop, and writes that failed.
    pub fn counters(&self) -> (Arc<AtomicU64>, Arc<AtomicU64>) {
        (Arc::clone(&self.shared.dropped), Arc::clone(&self.shared.errors))
    }

    /// Panics of the thread, after which it went on.
    pub fn restarts(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.shared.restarts)
    }

    /// Takes no more changes and waits until all are written and released, at most until the deadline. Then the rest is
    /// released unwritten: a disk that hangs may cost what a restart remembers, and no record.
    pub fn stop(&self, deadline: Duration) {
        let mut queue = self.shared.lock();
        queue.closed = true;
        self.shared.changed.notify_all();
        let waited = self.shared.changed.wait_timeout_while(queue, deadline, |queue| !queue.ended);
        self.shared.hold(&mut waited.unwrap_or_else(PoisonError::into_inner).0);
        self.shared.release_held();
    }
}

impl<T> Drop for Keeper<T> {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
    }
}

impl<T> fmt::Debug for Keeper<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").field("errors", &self.shared.errors).finish_non_exhaustive()
    }
}

impl<T> Queue<T> {
    fn has_work(&self) -> bool {
        !self.waiting.is_empty() || !self.changes.is_empty()
    }

    fn is_filling(&self) -> bool {
        self.waiting.len() >= CAPACITY / 2
    }
}

impl<T> Shared<T> {
    /// A poisoned queue is as good as any: nothing is left half done under the lock.
    fn lock(&self) -> MutexGuard<'_, Queue<T>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What came with the changes that are being written.
    fn held(&self) -> MutexGuard<'_, VecDeque<T>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a change, unless the end has come.
    fn change(&self, change: impl FnOnce(&mut Changes)) {
        let mut queue = self.lock();
        if self.has_closed(&queue) {
            return;
        }
        change(&mut queue.changes);
        self.wake(queue);
    }

    /// The same, with what is to be released afterwards; at once where there is no room for it.
    fn change_and_release(&self, change: impl FnOnce(&mut Changes), released: T) {
        let mut queue = self.lock();
        let closed = self.has_closed(&queue);
        if !closed {
            change(&mut queue.changes);
            if queue.waiting.len() < CAPACITY {
                queue.waiting.push_back(released);
                return self.wake(queue);
            }
        }
        drop(queue);
        (self.release)(released);
    }

    /// Whether a change comes too late, which is counted.
    fn has_closed(&self, queue: &Queue<T>) -> bool {
        if queue.closed {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        queue.closed
    }

    fn wake(&self, queue: MutexGuard<'_, Queue<T>>) {
        let wake = !queue.resting || queue.is_filling();
        drop(queue);
        if wake {
            self.changed.notify_all();
        }
    }

    /// What waits comes with what is being written from now on. Nobody finds it in neither place: the queue is locked.
    fn hold(&self, queue: &mut Queue<T>) {
        self.held().append(&mut queue.waiting);
    }

    fn release_held(&self) {
        while self.release_next() {}
    }

    /// Whether there was one. A panic costs no more than that.
    fn release_next(&self) -> bool {
        let mut held = self.held();
        held.pop_front().map(&self.release).is_some()
    }

    /// All that has changed, once there is anything to do; `None`: closed, and nothing is left.
    fn take(&self) -> Option<Changes> {
        let wait = |queue: &mut Queue<T>| !queue.has_work() && !queue.closed;
        let queue = self.changed.wait_while(self.lock(), wait);
        let mut queue = queue.unwrap_or_else(PoisonError::into_inner);
        let has_work = queue.has_work();
        self.hold(&mut queue);
        has_work.then(|| mem::take(&mut queue.changes))
    }

    /// Lets changes gather, unless they become many or the last ones.
    fn rest(&self) {
        let mut queue = self.lock();
        queue.resting = true;
        let gather = |queue: &mut Queue<T>| !queue.closed && !queue.is_filling();
        let waited = self.changed.wait_timeout_while(queue, GATHERING, gather);
        waited.unwrap_or_else(PoisonError::into_inner).0.resting = false;
    }
}

fn serve<T>(shared: &Shared<T>, directory: &Path, mut kept: Kept) {
    // Also on a panic nobody waits for this thread, nor fills a queue that nothing empties.
    struct End<'a, T>(&'a Shared<T>);
    impl<T> Drop for End<'_, T> {
        fn drop(&mut self) {
            let mut queue = self.0.lock();
            (queue.closed, queue.ended) = (true, true);
            self.0.changed.notify_all();
        }
    }
    let _end = End(shared);
    while catch_unwind(AssertUnwindSafe(|| write_all(shared, directory, &mut kept))).is_err() {
        shared.restarts.fetch_add(1, Ordering::Relaxed);
        thread::sleep(PAUSE);
    }
}

/// Writes until the end, and first what is known and what a panic has left.
fn write_all<T>(shared: &Shared<T>, directory: &Path, kept: &mut Kept) {
    let mut failing = false;
    let mut write = |kept: &Kept| match save(directory, kept) {
        Ok(()) if failing => {
            failing = false;
            info!(directory = %directory.display(), "State is written again");
        }
        Ok(()) => {}
        Err(error) => {
            shared.errors.fetch_add(1, Ordering::Relaxed);
            if !failing {
                failing = true;
                let directory = directory.display();
                warn!(%directory, %error, "State cannot be written, a restart would forget waits and spending");
            }
        }
    };
    write(kept);
    shared.release_held();
    while let Some(changes) = shared.take() {
        changes.apply(kept);
        write(kept);
        shared.release_held();
        shared.rest();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        sync::mpsc,
    };

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::{
        super::file::{HOLD, KeptProbe, load},
        *,
    };
    use crate::outcome::{Check, Subject};

    const LONG: Duration = Duration::from_secs(60);

    fn identity(probe: &str) -> Arc<Identity> {
        Arc::new(Identity::of(Subject { probe, provider: "groq", check: Check::Chat, model: None }))
    }

    /// A keeper whose releases arrive here, each with what was on disk just then.
    fn keeper(directory: &Path) -> (Keeper<u32>, mpsc::Receiver<(u32, Kept)>) {
        let (sender, released) = mpsc::channel();
        let place = directory.to_owned();
        let release = move |number| {
            let _ = sender.send((number, load(&place, SystemTime::now()).kept));
        };
        (Keeper::start(directory.to_owned(), Kept::default(), release).unwrap(), released)
    }

    #[test]
    fn what_comes_with_a_change_is_released_in_order_once_that_is_on_disk() {
        let directory = tempfile::tempdir().unwrap();
        let (keeper, released) = keeper(directory.path());
        let who = identity("p");
        for number in 0..1000_u32 {
            let backoff = KeptBackoff { until: None, step: number.into() };
            keeper.waits(&who, Some(backoff));
            keeper.spent(|| KeptSpending { day: 1, usd: 0.0, tokens: number.into() });
            keeper.ran(&who, SystemTime::UNIX_EPOCH, number == 7, number);
        }
        keeper.stop(LONG);
        for expected in 0..1000_u32 {
            let (number, kept) = released.try_recv().unwrap();
            assert_eq!(number, expected);
            // More may be there already, less may not.
            let probe = kept.probes[&who];
            assert!(probe.backoff.unwrap().step >= number.into());
            assert!(kept.spending.unwrap().tokens >= number.into());
            assert_eq!(probe.last_run, Some(SystemTime::UNIX_EPOCH));
            assert!(number < 7 || probe.last_success.is_some());
        }
    }

    #[test]
    fn what_follows_a_wait_is_released_once_that_is_on_disk() {
        let directory = tempfile::tempdir().unwrap();
        let (keeper, released) = keeper(directory.path());
        keeper.waits(&identity("p"), Some(KeptBackoff { until: None, step: 4 }));
        keeper.follows(1);
        let (_, kept) = released.recv_timeout(LONG).unwrap();
        let probe = kept.probes[&identity("p")];
        assert_eq!((probe.backoff.unwrap().step, probe.last_run), (4, None));
    }

    #[test]
    fn a_panic_costs_what_it_happened_with_and_is_counted() {
        let directory = tempfile::tempdir().unwrap();
        let (sender, released) = mpsc::channel();
        let release = move |number| {
            assert!(number != 2, "on purpose");
            let _ = sender.send(number);
        };
        let keeper = Keeper::start(directory.path().to_owned(), Kept::default(), release).unwrap();
        for number in 1..=3 {
            keeper.ran(&identity("p"), SystemTime::UNIX_EPOCH, true, number);
        }
        assert_eq!([released.recv_timeout(LONG), released.recv_timeout(LONG)], [Ok(1), Ok(3)]);
        keeper.ran(&identity("q"), SystemTime::UNIX_EPOCH, true, 4);
        assert_eq!(released.recv_timeout(LONG), Ok(4));
        assert_eq!(keeper.restarts().load(Ordering::Relaxed), 1);
        assert!(load(directory.path(), SystemTime::now()).kept.probes.contains_key(&identity("q")));
    }

    #[test]
    fn a_disk_that_cannot_be_written_costs_no_record() {
        let directory = tempfile::tempdir().unwrap();
        // A file in the place of the directory.
        let place = directory.path().join("taken");
        fs::write(&place, "").unwrap();
        let (keeper, released) = keeper(&place);
        keeper.ran(&identity("p"), SystemTime::UNIX_EPOCH, true, 1);
        assert_eq!(released.recv_timeout(LONG).unwrap().0, 1);
        let (dropped, errors) = keeper.counters();
        assert_eq!((dropped.load(Ordering::Relaxed), errors.load(Ordering::Relaxed)), (0, 2));
        fs::remove_file(&place).unwrap();
        keeper.ran(&identity("p"), SystemTime::UNIX_EPOCH, true, 2);
        assert!(
            released.recv_timeout(LONG).unwrap().1.probes.contains_key(&identity("p")),
            "it is made anew"
        );
    }

    /// Makes writes hang from the next one on: whoever opens a pipe for writing waits for a reader.
    fn hang(directory: &Path) {
        mknodat(CWD, directory.join(HOLD), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    }

    /// Lets the write go on that hangs, as long as the file is open.
    fn go_on(directory: &Path) -> File {
        let hung = directory.join("hung");
        fs::rename(directory.join(HOLD), &hung).unwrap();
        File::options().read(true).write(true).open(hung).unwrap()
    }

    /// A keeper that hangs in a write, with record 0. All records arrive here.
    fn hanging(directory: &Path) -> (Keeper<usize>, mpsc::Receiver<usize>) {
        let (sender, released) = mpsc::channel();
        let release = move |number| sender.send(number).unwrap();
        let keeper = Keeper::start(directory.to_owned(), Kept::default(), release).unwrap();
        // A first write was not hindered.
        keeper.follows(usize::MAX);
        assert_eq!(released.recv_timeout(LONG), Ok(usize::MAX));
        hang(directory);
        keeper.ran(&identity("p"), SystemTime::UNIX_EPOCH, true, 0);
        while keeper.shared.held().is_empty() {
            thread::yield_now();
        }
        (keeper, released)
    }

    #[test]
    fn a_disk_that_hangs_delays_nobody_and_costs_no_record() {
        let directory = tempfile::tempdir().unwrap();
        let (keeper, released) = hanging(directory.path());
        for number in 1..=CAPACITY + 1 {
            keeper.ran(&identity("p"), SystemTime::UNIX_EPOCH, true, number);
        }
        assert_eq!(
            released.try_recv(),
            Ok(CAPACITY + 1),
            "there was no room for it, so it waits for nothing"
        );
        let _reader = go_on(directory.path());
        keeper.stop(LONG);
        assert_eq!(released.try_iter().collect::<Vec<_>>(), (0..=CAPACITY).collect::<Vec<_>>());
        assert_eq!(keeper.counters().0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_disk_that_hangs_costs_no_last_value() {
        let directory = tempfile::tempdir().unwrap();
        let (keeper, _released) = hanging(directory.path());
        let [p, q, r] = ["p", "q", "r"].map(identity);
        let at = |second: usize| SystemTime::UNIX_EPOCH + Duration::from_secs(second as u64);
        let wait = |step| Some(KeptBackoff { until: None, step });
        keeper.waits(&q, wait(3));
        keeper.waits(&r, wait(9));
        let last = 3 * CAPACITY;
        for number in 1..=last {
            keeper.waits(&p, wait(number as u64));
            keeper.spent(|| KeptSpending { day: 1, usd: 0.5, tokens: number as u64 });
            keeper.ran(&p, at(number), number < last, number);
            if number == CAPACITY {
                keeper.retain(vec![p.clone(), q.clone()], true);
            }
        }
        let _reader = go_on(directory.path());
        keeper.stop(LONG);
        let kept = load(directory.path(), SystemTime::now()).kept;
        assert_eq!(kept.spending, Some(KeptSpending { day: 1, usd: 0.5, tokens: last as u64 }));
        let (last_run, last_success) = (Some(at(last)), Some(at(last - 1)));
        let expected = [
            ((*p).clone(), KeptProbe { last_run, last_success, backoff: wait(last as u64) }),
            ((*q).clone(), KeptProbe { backoff: wait(3), ..KeptProbe::default() }),
        ];
        assert_eq!(kept.probes, expected.into());
    }

    #[test]
    fn a_disk_that_hangs_at_the_stop_costs_no_record() {
        let directory = tempfile::tempdir().unwrap();
        let (keeper, released) = hanging(directory.path());
        keeper.ran(&identity("p"), SystemTime::UNIX_EPOCH, true, 1);
        keeper.stop(Duration::from_millis(1));
        assert_eq!(released.try_iter().collect::<Vec<_>>(), [0, 1]);
        // The thread need not be waited for.
        drop(go_on(directory.path()));
    }

    #[test]
    fn a_stop_at_any_moment_returns_when_all_records_are_released_in_order() {
        // So many are on their way for long between the changes that wait and those that are written.
        const RECORDS: u32 = 2000;
        for round in 0..100 {
            let directory = tempfile::tempdir().unwrap();
            let (sender, released) = mpsc::channel();
            let release = move |number| sender.send(number).unwrap();
            let keeper = Keeper::start(directory.path().to_owned(), Kept::default(), release).unwrap();
            keeper.follows(0);
            assert_eq!(released.recv_timeout(LONG), Ok(0));
            for number in 1..RECORDS {
                keeper.ran(&identity(&format!("p{number}")), SystemTime::UNIX_EPOCH, true, number);
            }
            keeper.stop(Duration::from_micros(round * 40));
            let released: Vec<_> = released.try_iter().collect();
            assert!(released.iter().copied().eq(1..RECORDS), "{round}: {}", released.len());
        }
    }

    #[test]
    fn a_probe_that_a_reload_brings_back_begins_anew() {
        let directory = tempfile::tempdir().unwrap();
        let (keeper, _released) = hanging(directory.path());
        let [p, q] = ["p", "q"].map(identity);
        keeper.spent(|| KeptSpending { day: 1, usd: 1.0, tokens: 1 });
        keeper.retain(vec![q.clone()], false);
        keeper.retain(vec![q.clone(), p.clone()], true);
        keeper.waits(&p, None);
        let _reader = go_on(directory.path());
        keeper.stop(LONG);
        assert_eq!(load(directory.path(), SystemTime::now()).kept, Kept::default());
    }

    #[test]
    fn a_reload_forgets_who_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let (keeper, _released) = keeper(directory.path());
        let all = ["b", "a", "c"].map(identity);
        for who in &all {
            keeper.ran(who, SystemTime::UNIX_EPOCH, true, 0);
        }
        keeper.spent(|| KeptSpending { day: 1, usd: 1.0, tokens: 1 });
        keeper.retain(vec![identity("c"), identity("a")], false);
        keeper.stop(LONG);
        let kept = load(directory.path(), SystemTime::now()).kept;
        assert_eq!(kept.probes.keys().collect::<Vec<_>>(), [&*identity("a"), &*identity("c")]);
        assert_eq!(kept.spending, None);
    }
}

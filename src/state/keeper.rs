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

use super::file::{Identity, Kept, KeptBackoff, KeptSpending, save};

/// How many changes wait at most. It takes a disk that hangs to fill it.
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
    release: Box<dyn Fn(T) + Send + Sync>,
    dropped: Arc<AtomicU64>,
    errors: Arc<AtomicU64>,
    restarts: Arc<AtomicU64>,
}

struct Queue<T> {
    waiting: Vec<Change<T>>,
    /// What came with the changes that are being written.
    held: VecDeque<T>,
    /// The thread looks by itself before long.
    resting: bool,
    closed: bool,
    ended: bool,
}

enum Change<T> {
    Waits(Arc<Identity>, Option<KeptBackoff>),
    Spent(KeptSpending),
    Ran {
        who: Arc<Identity>,
        time: SystemTime,
        success: bool,
        released: T,
    },
    /// Nothing has changed, but this follows what has.
    Follows(T),
    Retain {
        probes: Vec<Arc<Identity>>,
        budget: bool,
    },
}

impl<T: Send + 'static> Keeper<T> {
    /// Starts the thread, which writes `kept` at once: a directory that cannot be written is known from the start.
    pub fn start(
        directory: PathBuf,
        kept: Kept,
        release: impl Fn(T) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let queue =
            Queue { waiting: Vec::new(), held: VecDeque::new(), resting: false, closed: false, ended: false };
        let shared = Arc::new(Shared {
            queue: Mutex::new(queue),
            changed: Condvar::new(),
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
        drop(self.shared.give(Change::Waits(Arc::clone(who), backoff)));
    }

    /// The day has taken so much.
    pub fn spent(&self, spending: KeptSpending) {
        drop(self.shared.give(Change::Spent(spending)));
    }

    /// A run has ended that began then. What comes with it is released once all that was told so far is on disk; at
    /// once where the disk hangs and the queue is full.
    pub fn ran(&self, who: &Arc<Identity>, time: SystemTime, success: bool, released: T) {
        let change = Change::Ran { who: Arc::clone(who), time, success, released };
        if let Err(Change::Ran { released, .. }) = self.shared.give(change) {
            (self.shared.release)(released);
        }
    }

    /// Releases it as [`Keeper::ran`] does, after all that was told so far.
    pub fn follows(&self, released: T) {
        if let Err(Change::Follows(released)) = self.shared.give(Change::Follows(released)) {
            (self.shared.release)(released);
        }
    }

    /// From now on there are these probes, and a budget or none: what is kept of others is forgotten.
    pub fn retain(&self, mut probes: Vec<Arc<Identity>>, budget: bool) {
        probes.sort();
        drop(self.shared.give(Change::Retain { probes, budget }));
    }

    /// Changes for which there was no room, and writes that failed.
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
        let mut queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        let held = mem::take(&mut queue.held);
        let waiting = mem::take(&mut queue.waiting);
        drop(queue);
        let waiting = waiting.into_iter().filter_map(|change| match change {
            Change::Ran { released, .. } | Change::Follows(released) => Some(released),
            Change::Waits(..) | Change::Spent(_) | Change::Retain { .. } => None,
        });
        held.into_iter().chain(waiting).for_each(&self.shared.release);
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
    fn is_filling(&self) -> bool {
        self.waiting.len() >= CAPACITY / 2
    }
}

impl<T> Shared<T> {
    /// A poisoned queue is as good as any: nothing is left half done under the lock.
    fn lock(&self) -> MutexGuard<'_, Queue<T>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the change back where there is no room for it.
    fn give(&self, change: Change<T>) -> Result<(), Change<T>> {
        let mut queue = self.lock();
        if queue.closed || queue.waiting.len() >= CAPACITY {
            drop(queue);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return Err(change);
        }
        queue.waiting.push(change);
        let wake = !queue.resting || queue.is_filling();
        drop(queue);
        if wake {
            self.changed.notify_all();
        }
        Ok(())
    }

    /// The first of those that came with what has been written.
    fn next_held(&self) -> Option<T> {
        self.lock().held.pop_front()
    }

    /// All changes that wait, once there are any; none: closed, and none is left.
    fn take(&self) -> Vec<Change<T>> {
        let wait = |queue: &mut Queue<T>| queue.waiting.is_empty() && !queue.closed;
        let queue = self.changed.wait_while(self.lock(), wait);
        mem::take(&mut queue.unwrap_or_else(PoisonError::into_inner).waiting)
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
    // One after the other: a panic costs one of them. A stop that could not wait has released them all.
    let release = || std::iter::from_fn(|| shared.next_held()).for_each(&shared.release);
    write(kept);
    release();
    loop {
        let changes = shared.take();
        if changes.is_empty() {
            return;
        }
        let held = changes.into_iter().filter_map(|change| apply(kept, change)).collect();
        shared.lock().held = held;
        write(kept);
        release();
        shared.rest();
    }
}

/// Takes a change over; what comes with it is to be released.
fn apply<T>(kept: &mut Kept, change: Change<T>) -> Option<T> {
    match change {
        Change::Waits(who, backoff) => {
            match kept.probes.get_mut(&*who) {
                Some(probe) => probe.backoff = backoff,
                None if backoff.is_none() => {}
                None => kept.probes.entry((*who).clone()).or_default().backoff = backoff,
            }
            None
        }
        Change::Spent(spending) => {
            kept.spending = Some(spending);
            None
        }
        Change::Ran { who, time, success, released } => {
            let probe = match kept.probes.get_mut(&*who) {
                Some(probe) => probe,
                None => kept.probes.entry((*who).clone()).or_default(),
            };
            probe.last_run = Some(time);
            if success {
                probe.last_success = Some(time);
            }
            Some(released)
        }
        Change::Follows(released) => Some(released),
        Change::Retain { probes, budget } => {
            kept.probes.retain(|who, _| probes.binary_search_by(|probe| (**probe).cmp(who)).is_ok());
            kept.spending = kept.spending.filter(|_| budget);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::mpsc};

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::{super::file::load, *};
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
            keeper.spent(KeptSpending { day: 1, usd: 0.0, tokens: number.into() });
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

    #[test]
    fn a_disk_that_hangs_delays_nobody_and_costs_no_record() {
        let directory = tempfile::tempdir().unwrap();
        let (entered, inside) = mpsc::channel();
        let (sender, released) = mpsc::channel();
        let (go_on, hold) = mpsc::channel::<()>();
        let hold = Mutex::new(hold);
        let release = move |number: usize| {
            if number == 0 {
                // The thread of the state is held in here, as it would be in a write.
                entered.send(()).unwrap();
                let _ = hold.lock().unwrap().recv();
            }
            sender.send(number).unwrap();
        };
        let keeper = Keeper::start(directory.path().to_owned(), Kept::default(), release).unwrap();
        let who = identity("p");
        keeper.ran(&who, SystemTime::UNIX_EPOCH, true, 0);
        inside.recv().unwrap();
        for number in 1..=CAPACITY + 1 {
            keeper.ran(&who, SystemTime::UNIX_EPOCH, true, number);
        }
        assert_eq!(
            released.try_recv(),
            Ok(CAPACITY + 1),
            "there was no room for it, so it waits for nothing"
        );
        assert_eq!(keeper.counters().0.load(Ordering::Relaxed), 1);
        keeper.stop(Duration::from_millis(1));
        go_on.send(()).unwrap();
        keeper.stop(LONG);
        assert_eq!(released.try_iter().count(), CAPACITY + 1);
    }

    #[test]
    fn a_disk_that_hangs_at_the_stop_costs_no_record() {
        let directory = tempfile::tempdir().unwrap();
        let (keeper, released) = keeper(directory.path());
        let who = identity("p");
        let ran = |number| keeper.ran(&who, SystemTime::UNIX_EPOCH, true, number);
        ran(0);
        assert_eq!(released.recv_timeout(LONG).unwrap().0, 0);
        // Whoever opens a pipe for writing waits for a reader.
        let unfinished = directory.path().join("state.json.new");
        mknodat(CWD, unfinished, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        ran(1);
        while keeper.shared.lock().held.is_empty() {
            thread::yield_now();
        }
        ran(2);
        keeper.stop(Duration::from_millis(1));
        assert_eq!(released.try_iter().map(|(number, _)| number).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn a_reload_forgets_who_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let (keeper, _released) = keeper(directory.path());
        let all = ["b", "a", "c"].map(identity);
        for who in &all {
            keeper.ran(who, SystemTime::UNIX_EPOCH, true, 0);
        }
        keeper.spent(KeptSpending { day: 1, usd: 1.0, tokens: 1 });
        keeper.retain(vec![identity("c"), identity("a")], false);
        keeper.stop(LONG);
        let kept = load(directory.path(), SystemTime::now()).kept;
        assert_eq!(kept.probes.keys().collect::<Vec<_>>(), [&*identity("a"), &*identity("c")]);
        assert_eq!(kept.spending, None);
    }
}

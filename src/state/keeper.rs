//! What waits for the state's writer, and what it holds back until the state is on disk.

use std::{
    collections::VecDeque,
    fmt, io, mem,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::{Duration, SystemTime},
};

use tracing::{info, warn};

use super::{
    changes::Changes,
    file::{Identity, Kept, KeptBackoff, KeptSpending, save},
};
use crate::lines::{Counters, Inbox, Writer};

/// How many records wait at most. It takes a disk that hangs to fill it.
const CAPACITY: usize = 4096;

/// How long changes gather between two writes, and so how long a record may be held back: a disk of the cheap kind is
/// worn by writes, and each takes it some milliseconds.
const GATHERING: Duration = Duration::from_millis(250);

/// Takes changes without ever waiting, writes them on a thread of its own, and releases what came with a change once
/// that is on disk, or cannot be brought there.
pub struct Keeper<T: Send + 'static> {
    writer: Writer<Pending<T>>,
    held: Arc<Held<T>>,
}

/// What is not being written yet.
struct Pending<T> {
    changes: Changes,
    /// There is something to write.
    changed: bool,
    /// What is to be released once these changes are on disk.
    waiting: VecDeque<T>,
    held: Arc<Held<T>>,
}

/// What came with the changes that are being written. One is released while the queue is locked, so that whoever locks it
/// finds each of them here or released. It is locked after the writer's inbox, where both are.
struct Held<T> {
    queue: Mutex<VecDeque<T>>,
    release: Box<dyn Fn(T) + Send + Sync>,
    counters: Counters,
}

impl<T: Send + 'static> Keeper<T> {
    /// Starts the thread, which writes `kept` at once: a directory that cannot be written is known from the start.
    pub fn start(
        directory: PathBuf,
        kept: Kept,
        release: impl Fn(T) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let (release, counters) = (Box::new(release), Counters::default());
        let observed = (Arc::clone(&counters.restarts), counters.clock.clone());
        let held = Arc::new(Held { queue: Mutex::default(), release, counters });
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

    /// The probe's wait is this from now on; `None`: it has none.
    pub fn waits(&self, who: &Arc<Identity>, backoff: Option<KeptBackoff>) {
        self.change(|changes| changes.waits(who, backoff));
    }

    /// The day has taken so much, asked for here: of two who tell at once, the later one tells what is so.
    pub fn spent(&self, spending: impl FnOnce() -> KeptSpending) {
        self.change(|changes| changes.spent(spending()));
    }

    /// A run has ended that began then. What comes with it is released once all that was told so far is on disk; at
    /// once where the disk hangs and too many wait.
    pub fn ran(&self, who: &Arc<Identity>, time: SystemTime, success: bool, released: T) {
        self.change_and_release(|changes| changes.ran(who, time, success), Some(released));
    }

    /// Releases it as [`Keeper::ran`] does, after all that was told so far.
    pub fn follows(&self, released: T) {
        self.change_and_release(|_| (), Some(released));
    }

    /// From now on there are these probes, and a budget or none: what is kept of others is forgotten.
    pub fn retain(&self, mut probes: Vec<Arc<Identity>>, budget: bool) {
        probes.sort();
        self.change(|changes| changes.retain(probes, budget));
    }

    /// Changes that came after the stop, writes that failed, panics after which the thread went on.
    pub fn counters(&self) -> &Counters {
        &self.held.counters
    }

    /// Takes no more changes and waits until all are written and released, at most until the deadline. Then the rest is
    /// released unwritten: a disk that hangs may cost what a restart remembers, and no record.
    pub fn stop(&self, deadline: Duration) {
        self.writer.stop(deadline, Pending::hold);
        self.held.release_all();
    }

    fn change(&self, change: impl FnOnce(&mut Changes)) {
        self.change_and_release(change, None);
    }

    /// Takes note of a change, unless the end has come, which is counted. What comes with it is released afterwards; at
    /// once where there is no room for it.
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

impl<T: Send + 'static> fmt::Debug for Keeper<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").field("counters", &self.held.counters).finish_non_exhaustive()
    }
}

impl<T> Pending<T> {
    /// What waits comes with what is being written from now on. It is always found in one place: the inbox is locked.
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

impl<T> Held<T> {
    fn lock(&self) -> MutexGuard<'_, VecDeque<T>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Releases everything in order. A panic costs what it happened with, and is counted.
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

/// The state on disk.
struct StateFile {
    directory: PathBuf,
    kept: Kept,
    failing: bool,
}

impl StateFile {
    fn write(&mut self, counters: &Counters) {
        let directory: &Path = &self.directory;
        match save(directory, &self.kept) {
            Ok(()) if mem::take(&mut self.failing) => {
                info!(directory = %directory.display(), "State is written again");
            }
            Ok(()) => {}
            Err(error) => {
                counters.errors.fetch_add(1, Ordering::Relaxed);
                if !mem::replace(&mut self.failing, true) {
                    let directory = directory.display();
                    warn!(%directory, %error, "State cannot be written, a restart would forget waits and spending");
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
        assert_eq!(keeper.counters().restarts.load(Ordering::Relaxed), 1);
        assert!(load(directory.path(), SystemTime::now()).kept.probes.contains_key(&identity("q")));
    }

    #[test]
    fn a_disk_that_cannot_be_written_costs_no_record() {
        let directory = tempfile::tempdir().unwrap();
        // A file in the place of the directory.
        let place = directory.path().join("taken");
        fs::write(&place, "").unwrap();
        let (keeper, released) = keeper(&place);
        // The first write is of what was kept before.
        while keeper.counters().errors.load(Ordering::Relaxed) == 0 {
            thread::yield_now();
        }
        keeper.ran(&identity("p"), SystemTime::UNIX_EPOCH, true, 1);
        assert_eq!(released.recv_timeout(LONG).unwrap().0, 1);
        let Counters { dropped, errors, .. } = keeper.counters();
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
        while keeper.held.lock().is_empty() {
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
        assert_eq!(keeper.counters().dropped.load(Ordering::Relaxed), 0);
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
        assert!(keeper.counters().clock.in_progress() >= Duration::from_millis(1), "the write is blocked");
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

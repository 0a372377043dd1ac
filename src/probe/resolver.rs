//! Name lookups by getaddrinfo(3), as every other program on the machine does them, on a bounded
//! pool of threads.
//!
//! The C library reads the hosts file, nsswitch.conf, the search list and the options of
//! resolv.conf, and asks the name servers in turn; a lookup cannot be cancelled. So each name has
//! at most one call outstanding, which all runs that need it share, and a silent name server
//! occupies at most as many threads as there are names.

use std::{
    collections::{HashMap, VecDeque},
    fmt, io,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    panic::{self, AssertUnwindSafe},
    sync::{Arc, MutexGuard},
    thread,
    time::{Duration, Instant},
};

use dns_lookup::{AddrInfoHints, LookupError, LookupErrorKind, SockType, getaddrinfo};
use tokio::{sync::oneshot, time::timeout};

use super::failure::is_local_shortage;
use crate::sync::{Condvar, Mutex};

/// Maximum number of addresses of one answer that are dialed and recorded. With a head start of a
/// quarter of a second each, all of them have been tried after 16 seconds.
const MAX_ADDRESSES: usize = 64;

/// Maximum number of threads, below `TasksMax` of the unit. More names than that wait for a thread,
/// within their run's timeout.
const MAX_THREADS: usize = 128;

/// Time after which a thread without work ends.
const THREAD_IDLE: Duration = Duration::from_secs(60);

/// Interval at which a name without a thread tries to start one, and number of attempts before the
/// lack is reported.
const THREAD_RETRY: Duration = Duration::from_millis(100);
const MAX_THREAD_RETRIES: u32 = 5;

/// Stack of a thread: the modules of nsswitch.conf run on it.
const THREAD_STACK_BYTES: usize = 512 * 1024;

/// Failure of the C library's lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResolveError {
    /// `EAI_NONAME`, `EAI_NODATA`: some source answered that there is none.
    NotFound,
    /// `EAI_AGAIN`, `EAI_FAIL` and others: no source could answer.
    NoAnswer,
    /// This process lacks descriptors, memory or threads, or the call panicked.
    LocalShortage,
}

/// A lookup's result, and when the C library returned it.
pub(super) type Answer = (Result<Vec<SocketAddr>, ResolveError>, Instant);

/// Resolver of names. Clones share the threads.
#[derive(Clone)]
pub(super) struct Resolver(Arc<Pool>);

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

/// Lookup of one name.
type LookUp = fn(&str) -> Result<Vec<SocketAddr>, ResolveError>;

/// Starts a thread that runs [`Pool::run_thread`].
type StartThread = fn(Arc<Pool>) -> io::Result<()>;

struct Pool {
    state: Mutex<State>,
    work: Condvar,
    look_up: LookUp,
    start_thread: StartThread,
}

#[derive(Default)]
struct State {
    /// The runs that wait for each name whose lookup has not returned.
    waiting: HashMap<Arc<str>, Vec<oneshot::Sender<Answer>>>,
    /// The names among them that no thread has taken yet.
    queue: VecDeque<Arc<str>>,
    threads: usize,
    idle_threads: usize,
}

impl Resolver {
    pub(super) fn new() -> Self {
        Self::with(look_up, start_thread)
    }

    fn with(look_up: LookUp, start_thread: StartThread) -> Self {
        Self(Arc::new(Pool { state: Mutex::default(), work: Condvar::new(), look_up, start_thread }))
    }

    /// Returns the addresses of a name, with port 0.
    pub(super) async fn resolve(&self, name: &str) -> Answer {
        let name = lookup_name(name);
        let (sender, mut answer) = oneshot::channel();
        self.0.enqueue(&name, sender);
        // The sender is dropped without an answer only where no thread can be started.
        let lost = |_| (Err(ResolveError::LocalShortage), Instant::now());
        for _ in 0..MAX_THREAD_RETRIES {
            match timeout(THREAD_RETRY, &mut answer).await {
                Ok(answer) => return answer.unwrap_or_else(lost),
                Err(_) if self.0.find_thread(&name) => return answer.await.unwrap_or_else(lost),
                Err(_) => {}
            }
        }
        self.0.give_up(&name);
        answer.await.unwrap_or_else(lost)
    }
}

/// Maps names below `localhost` to this machine (RFC 6761, 6.3), as curl and browsers do. The C
/// library does so only with nss-myhostname or systemd-resolved.
fn lookup_name(name: &str) -> Arc<str> {
    if is_localhost(name) { "localhost".into() } else { name.into() }
}

/// Returns whether a name is `localhost` or below it.
pub(super) fn is_localhost(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.strip_suffix(".localhost").is_some_and(|rest| !rest.is_empty())
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    fn enqueue(self: &Arc<Self>, name: &Arc<str>, sender: oneshot::Sender<Answer>) {
        let mut state = self.lock();
        if let Some(waiting) = state.waiting.get_mut(name) {
            waiting.retain(|other| !other.is_closed());
            waiting.push(sender);
            return;
        }
        state.waiting.insert(name.clone(), vec![sender]);
        state.queue.push_back(name.clone());
        if state.queue.len() <= state.idle_threads {
            self.work.notify_one();
        } else {
            // Where none can be started, the run that waits tries again.
            self.start_thread(&mut state);
        }
    }

    /// Starts a thread, and returns whether there is one more, or as many as there may be.
    fn start_thread(self: &Arc<Self>, state: &mut State) -> bool {
        if state.threads == MAX_THREADS {
            return true;
        }
        let started = (self.start_thread)(self.clone()).is_ok();
        state.threads += usize::from(started);
        started
    }

    /// Returns whether the call for a name is under way or has a thread to wait for.
    fn find_thread(self: &Arc<Self>, name: &Arc<str>) -> bool {
        let mut state = self.lock();
        !state.queue.contains(name)
            || state.queue.len() <= state.idle_threads
            || self.start_thread(&mut state)
    }

    /// Ends the wait for a thread: the runs that wait for the name see their senders dropped. A
    /// call that is under way by now has its answer.
    fn give_up(&self, name: &Arc<str>) {
        let mut state = self.lock();
        if let Some(place) = state.queue.iter().position(|other| other == name) {
            state.queue.remove(place);
            state.waiting.remove(name);
        }
    }

    fn run_thread(&self) {
        let mut state = self.lock();
        loop {
            if let Some(name) = state.queue.pop_front() {
                drop(state);
                // A panic is reported by its hook; the name must not wait for ever for it.
                let found = panic::catch_unwind(AssertUnwindSafe(|| (self.look_up)(&name)));
                let answer = (found.unwrap_or(Err(ResolveError::LocalShortage)), Instant::now());
                state = self.lock();
                for waiting in state.waiting.remove(&name).into_iter().flatten() {
                    // The run may have met its deadline meanwhile.
                    let _ = waiting.send(answer.clone());
                }
                continue;
            }
            state.idle_threads += 1;
            let (next, waited) = self.work.wait_timeout(state, THREAD_IDLE);
            state = next;
            state.idle_threads -= 1;
            if waited.timed_out() && state.queue.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }
}

fn start_thread(pool: Arc<Pool>) -> io::Result<()> {
    let thread = thread::Builder::new().name("resolver".to_owned()).stack_size(THREAD_STACK_BYTES);
    thread.spawn(move || pool.run_thread()).map(drop)
}

/// Calls getaddrinfo without flags, so that the answer does not depend on the addresses that this
/// machine has.
fn look_up(name: &str) -> Result<Vec<SocketAddr>, ResolveError> {
    let hints = AddrInfoHints { socktype: SockType::Stream.into(), ..AddrInfoHints::default() };
    let found = getaddrinfo(Some(name), None, Some(hints)).map_err(|error| resolve_error(&error))?;
    let addresses = dial_order(found.flatten().map(|entry| entry.sockaddr));
    if addresses.is_empty() { Err(ResolveError::NotFound) } else { Ok(addresses) }
}

/// Returns the addresses in the order in which they are dialed, each once: the address families
/// alternate, the first one's family first (RFC 8305, 4), so that a family without a route costs
/// one delay. The bound comes last: many addresses of one family do not displace the other.
fn dial_order(addresses: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut families: [Vec<SocketAddr>; 2] = Default::default();
    let mut first = None;
    for address in addresses {
        let family = &mut families[usize::from(address.is_ipv4() != *first.get_or_insert(address.is_ipv4()))];
        if family.len() < MAX_ADDRESSES && !family.contains(&address) {
            family.push(address);
        }
    }
    let mut families = families.map(Vec::into_iter);
    let mut order = Vec::new();
    while families.iter().any(|family| family.len() > 0) {
        order.extend(families.iter_mut().filter_map(Iterator::next));
    }
    order.truncate(MAX_ADDRESSES);
    order
}

fn resolve_error(error: &LookupError) -> ResolveError {
    match error.kind() {
        LookupErrorKind::Memory => ResolveError::LocalShortage,
        // glibc reports a lack of descriptors as one of several codes.
        _ if lacks_sockets() => ResolveError::LocalShortage,
        LookupErrorKind::NoName | LookupErrorKind::NoData => ResolveError::NotFound,
        _ => ResolveError::NoAnswer,
    }
}

/// Returns whether this process cannot have a socket now.
fn lacks_sockets() -> bool {
    UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).is_err_and(|error: io::Error| is_local_shortage(&error))
}

/// Returns the address that a URL's host is. Returns `None` if it is a name.
pub(super) fn literal(host: &str) -> Option<IpAddr> {
    host.trim_matches(['[', ']']).parse().ok()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn lookups_of_one_name_share_a_call_and_a_thread() {
        let resolver = Resolver::new();
        let lookups: Vec<_> = (0..100).map(|_| resolver.resolve("localhost")).collect();
        for lookup in lookups {
            let (answer, _) = lookup.await;
            assert!(answer.unwrap().iter().all(|address| address.ip().is_loopback()));
        }
        assert_eq!(resolver.0.lock().threads, 1);
        assert!(resolver.0.lock().waiting.is_empty());
    }

    fn here() -> Vec<SocketAddr> {
        vec!["127.0.0.1:0".parse().unwrap()]
    }

    /// Returns no answer for `silent.test` until the test has ended, and panics for `panic.test`.
    fn look_up_here(name: &str) -> Result<Vec<SocketAddr>, ResolveError> {
        match name {
            "silent.test" => loop {
                thread::park();
            },
            "panic.test" => panic!("as a module of nsswitch.conf may"),
            "gone.test" => Err(ResolveError::NotFound),
            _ => Ok(here()),
        }
    }

    #[tokio::test]
    async fn lookup_that_panics_is_our_failure_and_the_next_succeeds() {
        let resolver = Resolver::with(look_up_here, start_thread);
        for _ in 0..3 {
            assert_eq!(resolver.resolve("panic.test").await.0, Err(ResolveError::LocalShortage));
            assert_eq!(resolver.resolve("other.test").await.0, Ok(here()));
            assert_eq!(resolver.resolve("gone.test").await.0, Err(ResolveError::NotFound));
        }
        assert!(resolver.0.lock().waiting.is_empty());
        assert_eq!(resolver.0.lock().threads, 1);
    }

    /// Threads that may still be started in these tests, which run one after another.
    static THREADS_LEFT: AtomicUsize = AtomicUsize::new(0);
    static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

    fn start_one_of_few(pool: Arc<Pool>) -> io::Result<()> {
        let take = |left: usize| left.checked_sub(1);
        let taken = THREADS_LEFT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        taken.map_err(|_| io::Error::from(io::ErrorKind::WouldBlock))?;
        start_thread(pool)
    }

    /// Returns a resolver whose only thread is occupied by a call that is not answered.
    async fn with_a_silent_call() -> (Resolver, tokio::task::AbortHandle) {
        THREADS_LEFT.store(1, Ordering::Relaxed);
        let resolver = Resolver::with(look_up_here, start_one_of_few);
        let silent = tokio::spawn({
            let resolver = resolver.clone();
            async move { resolver.resolve("silent.test").await }
        });
        while resolver.0.lock().threads == 0 {
            tokio::task::yield_now().await;
        }
        (resolver, silent.abort_handle())
    }

    #[tokio::test]
    async fn thread_that_cannot_start_is_tried_again() {
        let _alone = ONE_AT_A_TIME.lock().await;
        let (resolver, silent) = with_a_silent_call().await;
        let waiting = tokio::spawn({
            let resolver = resolver.clone();
            async move { resolver.resolve("other.test").await }
        });
        while !resolver.0.lock().waiting.contains_key("other.test") {
            tokio::task::yield_now().await;
        }
        THREADS_LEFT.store(1, Ordering::Relaxed);
        assert_eq!(waiting.await.unwrap().0, Ok(here()));
        silent.abort();
    }

    #[tokio::test]
    async fn lack_of_threads_beside_silent_calls_is_our_failure() {
        let _alone = ONE_AT_A_TIME.lock().await;
        let (resolver, silent) = with_a_silent_call().await;
        assert_eq!(resolver.resolve("other.test").await.0, Err(ResolveError::LocalShortage));
        THREADS_LEFT.store(1, Ordering::Relaxed);
        assert_eq!(resolver.resolve("other.test").await.0, Ok(here()));
        silent.abort();
    }

    #[track_caller]
    fn check_order(given: &[&str], expected: &[&str]) {
        let parse = |written: &[&str]| -> Vec<SocketAddr> {
            written.iter().map(|address| SocketAddr::new(address.parse().unwrap(), 0)).collect()
        };
        assert_eq!(dial_order(parse(given).into_iter()), parse(expected));
    }

    #[test]
    fn families_are_interleaved_in_their_order() {
        check_order(&[], &[]);
        check_order(&["192.0.2.1", "192.0.2.2", "192.0.2.1"], &["192.0.2.1", "192.0.2.2"]);
        check_order(&["::1", "::2", "::3", "192.0.2.1"], &["::1", "192.0.2.1", "::2", "::3"]);
        check_order(&["192.0.2.1", "::1", "192.0.2.2", "::2"], &["192.0.2.1", "::1", "192.0.2.2", "::2"]);
    }

    #[test]
    fn bound_of_addresses_keeps_both_families() {
        let six = |number: u16| SocketAddr::new([0xfd00, 0, 0, 0, 0, 0, 0, number].into(), 0);
        let four = SocketAddr::new([192, 0, 2, 1].into(), 0);
        let order = dial_order((1..=200).map(six).chain([four]));
        assert_eq!(order.len(), MAX_ADDRESSES);
        assert_eq!(order[..3], [six(1), four, six(2)]);
    }

    #[tokio::test]
    async fn names_below_localhost_are_this_machine() {
        let resolver = Resolver::new();
        for name in ["expired.localhost", "a.B.LocalHost.", "localhost"] {
            let (answer, _) = resolver.resolve(name).await;
            assert!(answer.unwrap().iter().all(|address| address.ip().is_loopback()), "{name}");
        }
        assert_eq!(&*lookup_name("notlocalhost"), "notlocalhost");
        assert_eq!(&*lookup_name(".localhost"), ".localhost");
    }

    #[tokio::test]
    async fn numbers_that_are_no_literal_are_the_c_librarys_matter() {
        let (answer, _) = Resolver::new().resolve("127.1").await;
        assert_eq!(answer.unwrap(), ["127.0.0.1:0".parse().unwrap()]);
    }
}

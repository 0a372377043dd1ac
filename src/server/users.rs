//! Authentication with bcrypt passwords, which are checked on a thread, one at a time.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use aws_lc_rs::{constant_time, hmac, rand::SystemRandom};
use base64::{Engine, prelude::BASE64_STANDARD};
use hyper::header::{AUTHORIZATION, HeaderMap};
use rustix::process::setpriority_process;
use tokio::{sync::Semaphore, time::timeout};
use zeroize::Zeroizing;

use super::waiting::WaitingPlace;
use crate::{config::Secret, sync::Mutex};

/// Number of remembered credentials of each kind, so that a scrape does not need bcrypt every time.
const MAX_REMEMBERED: usize = 256;

/// The nice(2) value of the thread that checks passwords.
const NICENESS: i32 = 10;

/// The reason why a request is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rejection {
    /// Credentials are missing or wrong.
    Unknown,
    /// Too many other requests wait for password checks.
    Busy,
}

/// The users of a configuration, and credentials that were checked since it was applied.
#[derive(Debug)]
pub(super) struct Users {
    /// Hash of the password by user name.
    hashes: BTreeMap<String, Secret>,
    /// The key for the tags of remembered credentials, generated at the start.
    secret: hmac::Key,
    accepted: Mutex<Recent>,
    rejected: Mutex<Recent>,
    check_permit: Arc<Semaphore>,
}

impl Users {
    /// Returns `None` if there are no users, which disables authentication.
    pub(super) fn new(hashes: &BTreeMap<String, Secret>) -> Option<Arc<Self>> {
        let secret = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        let users = Self {
            hashes: hashes.clone(),
            secret: secret.expect("the system has random bytes, without which no TLS works either"),
            accepted: Mutex::default(),
            rejected: Mutex::default(),
            check_permit: Arc::new(Semaphore::new(1)),
        };
        (!hashes.is_empty()).then(|| Arc::new(users))
    }

    /// Returns whether the users are those of this configuration.
    pub(super) fn matches(&self, hashes: &BTreeMap<String, Secret>) -> bool {
        self.hashes == *hashes
    }

    /// Authenticates a request. If its password must be checked, it waits for the check for up to
    /// `timeout_after`, in a place of `wait`; without a place it is refused.
    pub(super) async fn authenticate(
        self: &Arc<Self>,
        headers: &HeaderMap,
        timeout_after: Duration,
        wait: impl FnOnce() -> Option<WaitingPlace>,
    ) -> Result<(), Rejection> {
        let credentials = credentials(headers).ok_or(Rejection::Unknown)?;
        let tag = hmac::sign(&self.secret, &credentials);
        if let Some(known) = self.remembered(tag.as_ref()) {
            return known;
        }
        let _place = wait().ok_or(Rejection::Busy)?;
        let permit = timeout(timeout_after, Arc::clone(&self.check_permit).acquire_owned()).await;
        let Ok(Ok(permit)) = permit else { return Err(Rejection::Busy) };
        // An earlier request may have had the same credentials.
        if let Some(known) = self.remembered(tag.as_ref()) {
            return known;
        }
        let users = Arc::clone(self);
        let check = move || {
            let _permit = permit;
            // The unit's system call filter may forbid it; the check then has normal priority.
            let _ = setpriority_process(None, NICENESS);
            let right = users.verify(&credentials);
            let recent = if right { &users.accepted } else { &users.rejected };
            recent.lock().add(tag);
            if right { Ok(()) } else { Err(Rejection::Unknown) }
        };
        tokio::task::spawn_blocking(check).await.unwrap_or(Err(Rejection::Unknown))
    }

    fn remembered(&self, tag: &[u8]) -> Option<Result<(), Rejection>> {
        let has = |recent: &Mutex<Recent>| recent.lock().has(tag);
        match (has(&self.accepted), has(&self.rejected)) {
            (true, _) => Some(Ok(())),
            (false, true) => Some(Err(Rejection::Unknown)),
            (false, false) => None,
        }
    }

    /// Verifies a password. The password of an unknown user is compared with the hash of another
    /// user, which is the same for the same name, so that the duration does not reveal whether the
    /// user exists.
    fn verify(&self, credentials: &[u8]) -> bool {
        let Some(colon) = credentials.iter().position(|byte| *byte == b':') else { return false };
        let (name, password) = (&credentials[..colon], &credentials[colon + 1..]);
        let known = str::from_utf8(name).ok().and_then(|name| self.hashes.get(name));
        let stand_in = || {
            let number = usize::from(hmac::sign(&self.secret, name).as_ref()[0]) % self.hashes.len();
            self.hashes.values().nth(number).expect("passwords are checked only if there are users")
        };
        let hash = known.unwrap_or_else(stand_in);
        bcrypt::verify(password, hash.expose()).unwrap_or(false) && known.is_some()
    }
}

/// Returns `user:password` (RFC 7617, 2), or `None` if there is not exactly one valid header.
fn credentials(headers: &HeaderMap) -> Option<Zeroizing<Vec<u8>>> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, encoded) = value.to_str().ok()?.split_once(' ')?;
    let decoded = BASE64_STANDARD.decode(encoded.trim()).ok().map(Zeroizing::new)?;
    (scheme.eq_ignore_ascii_case("basic") && decoded.contains(&b':')).then_some(decoded)
}

/// Tags of the latest credentials of one kind.
#[derive(Debug, Default)]
struct Recent(VecDeque<hmac::Tag>);

impl Recent {
    fn add(&mut self, tag: hmac::Tag) {
        if self.0.len() == MAX_REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(tag);
    }

    /// Compares with all tags, so that the duration is constant.
    fn has(&self, tag: &[u8]) -> bool {
        let is = |other: &hmac::Tag| constant_time::verify_slices_are_equal(other.as_ref(), tag).is_ok();
        self.0.iter().fold(false, |found, other| found | is(other))
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;
    use crate::server::waiting::Waiters;

    const TEST_TIMEOUT: Duration = Duration::from_secs(60);

    fn users() -> Arc<Users> {
        let hash = |password: &str| Secret::new(bcrypt::hash(password, 5).unwrap());
        let hashes = [("alice".to_owned(), hash("wonder:land")), ("bob".to_owned(), hash("builder"))];
        Users::new(&hashes.into()).unwrap()
    }

    fn place() -> Option<WaitingPlace> {
        Waiters::new(1).enter(None)
    }

    fn basic(credentials: &str) -> String {
        format!("Basic {}", BASE64_STANDARD.encode(credentials))
    }

    async fn authenticate(users: &Arc<Users>, values: &[&str]) -> Result<(), Rejection> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        users.authenticate(&headers, TEST_TIMEOUT, place).await
    }

    #[tokio::test]
    async fn only_the_right_password_is_accepted() {
        let users = users();
        let right = basic("alice:wonder:land");
        // Twice: first checked, then remembered.
        for _ in 0..2 {
            assert_eq!(authenticate(&users, &[&right]).await, Ok(()));
            assert_eq!(authenticate(&users, &[&right.replace("Basic", "bAsIc")]).await, Ok(()));
            for wrong in
                ["alice:wonder", "alice:", "alice:builder", "bob:wonder:land", "carol:builder", ":", "alice"]
            {
                assert_eq!(authenticate(&users, &[&basic(wrong)]).await, Err(Rejection::Unknown), "{wrong}");
            }
        }
        for values in [&[][..], &["Basic"], &["Basic !"], &["Bearer x"], &[&right, &right], &[&right[6..]]] {
            assert_eq!(authenticate(&users, values).await, Err(Rejection::Unknown), "{values:?}");
        }
    }

    #[tokio::test]
    async fn check_that_waits_too_long_is_busy() {
        let users = users();
        let permit = Arc::clone(&users.check_permit).acquire_owned().await.unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, basic("bob:builder").parse().unwrap());
        assert_eq!(users.authenticate(&headers, Duration::from_millis(1), place).await, Err(Rejection::Busy));
        drop(permit);
        assert_eq!(users.authenticate(&headers, TEST_TIMEOUT, place).await, Ok(()));
        let _permit = Arc::clone(&users.check_permit).acquire_owned().await.unwrap();
        assert_eq!(
            users.authenticate(&headers, Duration::ZERO, || None).await,
            Ok(()),
            "remembered credentials need no check"
        );
    }

    #[tokio::test]
    async fn wrong_passwords_do_not_displace_right_ones() {
        let users = users();
        assert_eq!(authenticate(&users, &[&basic("bob:builder")]).await, Ok(()));
        for number in 0..=MAX_REMEMBERED {
            users.rejected.lock().add(hmac::sign(&users.secret, &number.to_ne_bytes()));
        }
        assert_eq!(users.rejected.lock().0.len(), MAX_REMEMBERED);
        let _permit = Arc::clone(&users.check_permit).acquire_owned().await.unwrap();
        assert_eq!(authenticate(&users, &[&basic("bob:builder")]).await, Ok(()));
    }

    #[tokio::test]
    async fn password_check_without_a_place_is_refused_at_once() {
        let users = users();
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, basic("bob:builder").parse().unwrap());
        assert_eq!(users.authenticate(&headers, TEST_TIMEOUT, || None).await, Err(Rejection::Busy));
        assert_eq!(users.authenticate(&headers, TEST_TIMEOUT, place).await, Ok(()));
    }

    #[test]
    fn debug_output_has_no_hash() {
        assert!(!format!("{:?}", users()).contains("$2"));
    }
}

//! Who may ask: passwords, checked by bcrypt on a thread of their own, one at a time.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aws_lc_rs::{constant_time, hmac, rand::SystemRandom};
use base64::{Engine, prelude::BASE64_STANDARD};
use hyper::header::{AUTHORIZATION, HeaderMap};
use rustix::process::setpriority_process;
use tokio::{sync::Semaphore, time::timeout};
use zeroize::Zeroizing;

use super::waiting::WaitingPlace;
use crate::config::Secret;

/// Credentials of each kind that are remembered, so that the next scrape costs no bcrypt.
const REMEMBERED: usize = 256;

/// How much the check of a password gives way to everything else in the process, see nice(2).
const NICENESS: i32 = 10;

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rejection {
    /// Without credentials, or with wrong ones.
    Unknown,
    /// Too many others wait for their passwords to be checked.
    Busy,
}

/// The users of a configuration, and what has been found out about credentials since it is in force.
#[derive(Debug)]
pub(super) struct Users {
    /// By name, the hash of the password.
    hashes: BTreeMap<String, Secret>,
    /// A secret of this process, under which credentials are remembered.
    secret: hmac::Key,
    right: Mutex<Recent>,
    wrong: Mutex<Recent>,
    turn: Arc<Semaphore>,
}

impl Users {
    /// `None` where there is no user: then everybody may ask.
    pub(super) fn new(hashes: &BTreeMap<String, Secret>) -> Option<Arc<Self>> {
        let secret = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        let users = Self {
            hashes: hashes.clone(),
            secret: secret.expect("the system has random bytes, without which no TLS works either"),
            right: Mutex::default(),
            wrong: Mutex::default(),
            turn: Arc::new(Semaphore::new(1)),
        };
        (!hashes.is_empty()).then(|| Arc::new(users))
    }

    /// Whether they are those of this configuration.
    pub(super) fn are(&self, hashes: &BTreeMap<String, Secret>) -> bool {
        self.hashes == *hashes
    }

    /// Lets a request with these headers in, or not. Where its password has to be checked, it waits at most for
    /// `patience` for its turn, in the place that `wait` gives it; without one it is refused.
    pub(super) async fn admit(
        self: &Arc<Self>,
        headers: &HeaderMap,
        patience: Duration,
        wait: impl FnOnce() -> Option<WaitingPlace>,
    ) -> Result<(), Rejection> {
        let credentials = credentials(headers).ok_or(Rejection::Unknown)?;
        let tag = hmac::sign(&self.secret, &credentials);
        if let Some(known) = self.remembered(tag.as_ref()) {
            return known;
        }
        let _place = wait().ok_or(Rejection::Busy)?;
        let turn = timeout(patience, Arc::clone(&self.turn).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else { return Err(Rejection::Busy) };
        // Somebody before us may have brought the same.
        if let Some(known) = self.remembered(tag.as_ref()) {
            return known;
        }
        let users = Arc::clone(self);
        let check = move || {
            let _turn = turn;
            // Where it is not allowed, as by the unit's filter of system calls, the check is as urgent as all else.
            let _ = setpriority_process(None, NICENESS);
            let right = users.verify(&credentials);
            let memory = if right { &users.right } else { &users.wrong };
            memory.lock().unwrap_or_else(PoisonError::into_inner).add(tag);
            if right { Ok(()) } else { Err(Rejection::Unknown) }
        };
        tokio::task::spawn_blocking(check).await.unwrap_or(Err(Rejection::Unknown))
    }

    fn remembered(&self, tag: &[u8]) -> Option<Result<(), Rejection>> {
        let has = |memory: &Mutex<Recent>| memory.lock().unwrap_or_else(PoisonError::into_inner).has(tag);
        match (has(&self.right), has(&self.wrong)) {
            (true, _) => Some(Ok(())),
            (false, true) => Some(Err(Rejection::Unknown)),
            (false, false) => None,
        }
    }

    /// Takes as long for a user whom nobody knows: against the hash of another one, which is always the same for the
    /// same name, and in vain.
    fn verify(&self, credentials: &[u8]) -> bool {
        let Some(colon) = credentials.iter().position(|byte| *byte == b':') else { return false };
        let (name, password) = (&credentials[..colon], &credentials[colon + 1..]);
        let known = str::from_utf8(name).ok().and_then(|name| self.hashes.get(name));
        let stand_in = || {
            let number = usize::from(hmac::sign(&self.secret, name).as_ref()[0]) % self.hashes.len();
            self.hashes.values().nth(number).expect("there is a user, or there were no check")
        };
        let hash = known.unwrap_or_else(stand_in);
        bcrypt::verify(password, hash.expose()).unwrap_or(false) && known.is_some()
    }
}

/// `user:password` (RFC 7617, 2); `None`: there is not exactly one such header.
fn credentials(headers: &HeaderMap) -> Option<Zeroizing<Vec<u8>>> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, encoded) = value.to_str().ok()?.split_once(' ')?;
    let decoded = BASE64_STANDARD.decode(encoded.trim()).ok().map(Zeroizing::new)?;
    (scheme.eq_ignore_ascii_case("basic") && decoded.contains(&b':')).then_some(decoded)
}

/// The tags of the latest credentials of one kind.
#[derive(Debug, Default)]
struct Recent(VecDeque<hmac::Tag>);

impl Recent {
    fn add(&mut self, tag: hmac::Tag) {
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(tag);
    }

    /// Looks at all of them, whatever it finds.
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

    const PATIENCE: Duration = Duration::from_secs(60);

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

    async fn admit(users: &Arc<Users>, values: &[&str]) -> Result<(), Rejection> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        users.admit(&headers, PATIENCE, place).await
    }

    #[tokio::test]
    async fn only_the_right_password_of_a_user_lets_in() {
        let users = users();
        let right = basic("alice:wonder:land");
        // Twice: checked, and remembered.
        for _ in 0..2 {
            assert_eq!(admit(&users, &[&right]).await, Ok(()));
            assert_eq!(admit(&users, &[&right.replace("Basic", "bAsIc")]).await, Ok(()));
            for wrong in
                ["alice:wonder", "alice:", "alice:builder", "bob:wonder:land", "carol:builder", ":", "alice"]
            {
                assert_eq!(admit(&users, &[&basic(wrong)]).await, Err(Rejection::Unknown), "{wrong}");
            }
        }
        for values in [&[][..], &["Basic"], &["Basic !"], &["Bearer x"], &[&right, &right], &[&right[6..]]] {
            assert_eq!(admit(&users, values).await, Err(Rejection::Unknown), "{values:?}");
        }
    }

    #[tokio::test]
    async fn who_finds_no_turn_is_told_to_wait() {
        let users = users();
        let turn = Arc::clone(&users.turn).acquire_owned().await.unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, basic("bob:builder").parse().unwrap());
        assert_eq!(users.admit(&headers, Duration::from_millis(1), place).await, Err(Rejection::Busy));
        drop(turn);
        assert_eq!(users.admit(&headers, PATIENCE, place).await, Ok(()));
        let _turn = Arc::clone(&users.turn).acquire_owned().await.unwrap();
        assert_eq!(
            users.admit(&headers, Duration::ZERO, || None).await,
            Ok(()),
            "who is known needs no turn"
        );
    }

    #[tokio::test]
    async fn a_flood_of_wrong_passwords_does_not_push_out_the_right_one() {
        let users = users();
        assert_eq!(admit(&users, &[&basic("bob:builder")]).await, Ok(()));
        for number in 0..=REMEMBERED {
            users.wrong.lock().unwrap().add(hmac::sign(&users.secret, &number.to_ne_bytes()));
        }
        assert_eq!(users.wrong.lock().unwrap().0.len(), REMEMBERED);
        let _turn = Arc::clone(&users.turn).acquire_owned().await.unwrap();
        assert_eq!(admit(&users, &[&basic("bob:builder")]).await, Ok(()));
    }

    #[tokio::test]
    async fn password_check_without_a_place_is_refused_at_once() {
        let users = users();
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, basic("bob:builder").parse().unwrap());
        assert_eq!(users.admit(&headers, PATIENCE, || None).await, Err(Rejection::Busy));
        assert_eq!(users.admit(&headers, PATIENCE, place).await, Ok(()));
    }

    #[test]
    fn nothing_shows_a_hash() {
        assert!(!format!("{:?}", users()).contains("$2"));
    }
}

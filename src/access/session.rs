//! Sessions of the dashboard: a random value stands for an admin key. Only its hash is kept, and only
//! in memory.
//!
//! Contract: docs/contract/access.md#12

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::secret::{RANDOM_DIGITS, base62};
use super::{Access, Key, KeyState};
use crate::config::{AdminRight, KeyDigest};

/// The most sessions; beyond it the oldest end.
const SESSIONS_MAX: usize = 1_000;

/// The name of the cookie.
pub(crate) const COOKIE: &str = "olla_session";

/// What a session stands for.
#[derive(Debug, Clone)]
pub(crate) struct DashboardSession {
    /// The hash of the secret that it began with, which has to stay valid.
    digest: KeyDigest,
    /// The key of the token that it began with.
    token: Option<Arc<Key>>,
    /// When it ends, in milliseconds of the process's clock.
    until_ms: u64,
}

impl DashboardSession {
    /// A session of the key that a credential with this hash has given.
    pub(crate) fn new(key: &Arc<Key>, digest: KeyDigest, until_ms: u64) -> Self {
        Self {
            digest,
            token: key.is_by_token().then(|| Arc::clone(key)),
            until_ms,
        }
    }
}

/// The sessions of the process.
#[derive(Debug, Default)]
pub(crate) struct Sessions(Mutex<All>);

#[derive(Debug, Default)]
struct All {
    by_hash: HashMap<KeyDigest, DashboardSession>,
    /// In the order in which they began; one that has ended may still be here.
    order: VecDeque<KeyDigest>,
}

impl Sessions {
    /// Begins a session. Returns the value of its cookie.
    ///
    /// # Errors
    /// The system has no random source.
    pub(crate) fn begin(
        &self,
        session: DashboardSession,
        now_ms: u64,
    ) -> Result<String, getrandom::Error> {
        let mut random = [0; 32];
        getrandom::fill(&mut random)?;
        let value = base62(random);
        self.all()
            .insert(KeyDigest::of(value.as_bytes()), session, now_ms);
        Ok(value)
    }

    /// The session of a cookie. `now_ms` in milliseconds of the process's clock.
    pub(crate) fn find(&self, value: &[u8], now_ms: u64) -> Option<DashboardSession> {
        // Others were never given.
        if value.len() != RANDOM_DIGITS {
            return None;
        }
        let all = self.all();
        let session = all.by_hash.get(&KeyDigest::of(value))?;
        (now_ms < session.until_ms).then(|| session.clone())
    }

    /// Ends the session of a cookie. Returns it if there was one.
    pub(crate) fn end(&self, value: &[u8]) -> Option<DashboardSession> {
        self.all().by_hash.remove(&KeyDigest::of(value))
    }

    /// The number of sessions that have not ended.
    pub(crate) fn count(&self, now_ms: u64) -> usize {
        let all = self.all();
        let sessions = all.by_hash.values();
        sessions.filter(|session| now_ms < session.until_ms).count()
    }

    /// A panic while it was locked leaves it whole.
    fn all(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl All {
    fn insert(&mut self, hash: KeyDigest, session: DashboardSession, now_ms: u64) {
        self.by_hash.retain(|_, session| now_ms < session.until_ms);
        let by_hash = &self.by_hash;
        self.order.retain(|hash| by_hash.contains_key(hash));
        while self.order.len() >= SESSIONS_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.by_hash.remove(&oldest);
            }
        }
        self.order.push_back(hash);
        self.by_hash.insert(hash, session);
    }
}

impl Access {
    /// The key that a session stands for, while that is live and may administer. `now_ms` in
    /// milliseconds since 1970.
    pub(crate) fn key_of(&self, session: &DashboardSession, now_ms: u64) -> Option<Arc<Key>> {
        let (key, admin) = match &session.token {
            None => {
                let key = self.keys.find(&session.digest, now_ms)?;
                (key, key.admin())
            }
            Some(key) => {
                let policy = self.tokens.as_ref()?.policy(&key.policy.name)?;
                (key, policy.fields.admin)
            }
        };
        let is_live = key.state(now_ms) == KeyState::Live && admin != AdminRight::None;
        is_live.then(|| Arc::clone(key))
    }
}

/// The value of the session cookie among the values of `Cookie` fields: the first one counts.
pub(crate) fn session_cookie<'h>(lines: impl Iterator<Item = &'h [u8]>) -> Option<&'h [u8]> {
    let mut pairs = lines.flat_map(|line| line.split(|byte| *byte == b';'));
    pairs.find_map(|pair| {
        let rest = pair.trim_ascii().strip_prefix(COOKIE.as_bytes())?;
        rest.strip_prefix(b"=")
    })
}

/// Whether `Origin` names the host and port of `Host`. The port of the scheme may be left out.
pub(crate) fn is_own_origin(origin: &[u8], host: &[u8]) -> bool {
    let Some((scheme, own)) = std::str::from_utf8(origin)
        .ok()
        .and_then(|origin| origin.split_once("://"))
    else {
        return false;
    };
    let usual = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return false,
    };
    let Ok(host) = std::str::from_utf8(host.trim_ascii()) else {
        return false;
    };
    let bare = |text: &str| {
        text.strip_suffix(usual)
            .unwrap_or(text)
            .to_ascii_lowercase()
    };
    !own.is_empty() && bare(own) == bare(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(until_ms: u64) -> DashboardSession {
        DashboardSession {
            digest: KeyDigest::of(b"k"),
            token: None,
            until_ms,
        }
    }

    #[test]
    fn a_session_ends_at_its_time_or_when_asked() {
        let sessions = Sessions::default();
        let value = sessions.begin(session(100), 0).unwrap();
        assert_eq!(value.len(), 43);
        assert!(value.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        assert!(sessions.find(value.as_bytes(), 99).is_some());
        assert!(sessions.find(value.as_bytes(), 100).is_none());
        assert!(sessions.find(&value.as_bytes()[1..], 0).is_none());
        assert!(sessions.find(b"", 0).is_none());
        assert_eq!((sessions.count(99), sessions.count(100)), (1, 0));
        assert!(sessions.end(value.as_bytes()).is_some());
        assert!(sessions.find(value.as_bytes(), 0).is_none());
        let (a, b) = (sessions.begin(session(9), 0), sessions.begin(session(9), 0));
        assert_ne!(a.unwrap(), b.unwrap());
    }

    #[test]
    fn the_oldest_of_too_many_ends() {
        let sessions = Sessions::default();
        let first = sessions.begin(session(100), 0).unwrap();
        let second = sessions.begin(session(100), 0).unwrap();
        for _ in 2..SESSIONS_MAX {
            sessions.begin(session(100), 0).unwrap();
        }
        assert!(sessions.find(first.as_bytes(), 0).is_some());
        sessions.begin(session(100), 0).unwrap();
        assert!(sessions.find(first.as_bytes(), 0).is_none());
        assert!(sessions.find(second.as_bytes(), 0).is_some());
        assert_eq!(sessions.count(0), SESSIONS_MAX);
        // Those that have ended make room.
        sessions.begin(session(300), 200).unwrap();
        assert_eq!(sessions.all().order.len(), 1);
    }

    #[test]
    fn the_first_pair_of_the_name_counts() {
        let table: [(&[&str], Option<&str>); 9] = [
            (&["olla_session=a"], Some("a")),
            (&["theme=dark; olla_session=a"], Some("a")),
            (&["olla_session=a; olla_session=b"], Some("a")),
            (&["x=1", "olla_session=a"], Some("a")),
            (&["xolla_session=a"], None),
            (&["olla_session"], None),
            (&["olla_sessions=a"], None),
            (&["x=olla_session=a"], None),
            (&[], None),
        ];
        for (lines, want) in table {
            let found = session_cookie(lines.iter().map(|line| line.as_bytes()));
            assert_eq!(found, want.map(str::as_bytes), "{lines:?}");
        }
    }

    #[test]
    fn origins_are_compared_with_the_host() {
        let table = [
            ("http://gw:40114", "gw:40114", true),
            ("https://gw", "gw", true),
            ("https://GW", "gw:443", true),
            ("http://gw:80", "gw", true),
            ("https://gw:80", "gw", false),
            ("http://gw", "gw:40114", false),
            ("http://evil", "gw", false),
            ("http://gw.evil", "gw", false),
            ("null", "gw", false),
            ("", "", false),
            ("http://", "", false),
            ("file://gw", "gw", false),
            ("http://[::1]:40114", "[::1]:40114", true),
        ];
        for (origin, host, want) in table {
            assert_eq!(
                is_own_origin(origin.as_bytes(), host.as_bytes()),
                want,
                "{origin} {host}"
            );
        }
    }
}

//! Keys that an issuer serves, fetched and kept.
//!
//! One fetch at a time, for all who wait. Old keys go on serving while new ones are fetched, and for a while when they
//! cannot be; and nobody who sends tokens decides how often the issuer is asked.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use filter_parts::duration::Span;
use serde::Deserialize;
use weir_sdk::schema::Schema;
use weir_sdk::task::Signal;
use weir_sdk::{Error, Result, http, spawn, timer, warn};

use crate::key::{Key, read_set};

/// Where keys are served, as it is written.
#[derive(Debug, Clone, Deserialize, Schema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RemoteConfig {
    /// The cluster that is asked.
    cluster: String,
    /// The path of the set of keys.
    path: String,
    /// The host that is asked for; the cluster's name, when it is left out.
    host: Option<String>,
    /// How long keys are good before they are fetched anew.
    #[serde(default = "five_minutes")]
    cache: Span,
    /// How long keys go on serving after that, when no others are to be had.
    #[serde(default = "an_hour")]
    keep: Span,
    /// How long a fetch may take.
    #[serde(default = "two_seconds")]
    timeout: Span,
}

fn five_minutes() -> Span {
    Span(Duration::from_secs(300))
}

fn an_hour() -> Span {
    Span(Duration::from_secs(3600))
}

fn two_seconds() -> Span {
    Span(Duration::from_secs(2))
}

/// How long nobody asks again: after a failure, and after a fetch for the sake of a key that is not known.
const PAUSE: Duration = Duration::from_secs(5);

/// The most bytes of a set.
const LARGEST: usize = 256 * 1024;

/// Where keys are served.
#[derive(Debug)]
pub(crate) struct Remote {
    config: RemoteConfig,
    state: Rc<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The keys, and when they were fetched.
    kept: RefCell<Option<(Rc<[Key]>, Duration)>>,
    /// When the last fetch ended, however it did.
    tried: Cell<Option<Duration>>,
    fetching: Cell<bool>,
    fetched: Signal,
    /// Those who have waited and go on one by one.
    waiting: RefCell<VecDeque<Signal>>,
    calling_up: Cell<bool>,
}

/// What is to be done for keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Use those that there are.
    Use,
    /// Use those that there are, and have others fetched meanwhile.
    Renew,
    /// Wait for others.
    Fetch,
    /// There are none, and it is too early to ask again.
    Fail,
}

impl RemoteConfig {
    /// # Errors
    /// When it could not be asked.
    pub(crate) fn compile(self) -> Result<Remote> {
        if self.cluster.is_empty() || !self.path.starts_with('/') {
            return Err(Error::new("`jwks` needs a `cluster`, and a `path` that begins with `/`"));
        }
        if self.cache.0.is_zero() || self.timeout.0.is_zero() {
            return Err(Error::new("`jwks`: `cache` and `timeout` are more than 0"));
        }
        Ok(Remote { config: self, state: Rc::default() })
    }
}

impl Remote {
    /// The keys at a moment since 1970; when the ones that there are do not do for `knows`, those that the issuer serves
    /// now.
    ///
    /// # Errors
    /// When there are none.
    pub(crate) async fn keys(&self, now: Duration, knows: impl Fn(&[Key]) -> bool) -> Result<Rc<[Key]>> {
        let mut step = self.step(now, &knows);
        if step == Step::Renew {
            self.fetch(now);
            step = Step::Use;
        }
        if step == Step::Fetch {
            let fetched = self.state.fetched.wait();
            self.fetch(now);
            fetched.await;
            self.turn().await;
        }
        let kept = self.state.kept.borrow();
        let kept = kept.as_ref().filter(|(_, at)| self.is_kept(now, *at));
        kept.map(|(keys, _)| Rc::clone(keys)).ok_or_else(|| Error::new("the keys are not to be had"))
    }

    fn is_kept(&self, now: Duration, at: Duration) -> bool {
        now.saturating_sub(at) < self.config.cache.0.saturating_add(self.config.keep.0)
    }

    fn step(&self, now: Duration, knows: impl Fn(&[Key]) -> bool) -> Step {
        // A clock that has gone back makes nobody wait.
        let pausing = self.state.tried.get().is_some_and(|tried| tried <= now && now - tried < PAUSE);
        let kept = self.state.kept.borrow();
        match kept.as_ref().filter(|(_, at)| self.is_kept(now, *at)) {
            None if pausing && !self.state.fetching.get() => Step::Fail,
            None => Step::Fetch,
            Some((keys, _)) if !knows(keys) => {
                if pausing {
                    Step::Use
                } else {
                    Step::Fetch
                }
            }
            Some((_, at)) if now.saturating_sub(*at) >= self.config.cache.0 && !pausing => Step::Renew,
            Some(_) => Step::Use,
        }
    }

    /// Waits for one's turn. One answer wakes all who have waited for it, and what each does then, to verify a
    /// signature, takes a good part of the CPU time that a callback has: so each goes on in a callback of his own.
    async fn turn(&self) {
        let turn = Signal::default();
        let called = turn.wait();
        self.state.waiting.borrow_mut().push_back(turn);
        if !self.state.calling_up.replace(true) {
            let state = Rc::clone(&self.state);
            spawn(async move {
                // Whoever is gone by now hears nothing, and the next one is called up all the same.
                while let Some(next) = state.next() {
                    next.give();
                    timer::sleep(Duration::from_millis(1)).await;
                }
                state.calling_up.set(false);
            });
        }
        called.await;
    }

    /// Has the keys fetched, unless they are being fetched.
    fn fetch(&self, now: Duration) {
        if self.state.fetching.replace(true) {
            return;
        }
        let (config, state) = (self.config.clone(), Rc::clone(&self.state));
        spawn(async move {
            match ask(&config).await {
                Ok(keys) => drop(state.kept.replace(Some((keys.into(), now)))),
                Err(error) => {
                    warn!("the keys of {}{} are not to be had: {error}", config.cluster, config.path)
                }
            }
            state.tried.set(Some(now));
            state.fetching.set(false);
            state.fetched.give();
        });
    }
}

impl State {
    fn next(&self) -> Option<Signal> {
        self.waiting.borrow_mut().pop_front()
    }
}

async fn ask(config: &RemoteConfig) -> Result<Vec<Key>> {
    let request = http::Request::get(config.path.as_str()).header("accept", "application/json");
    let request =
        request.timeout(config.timeout.0).authority(config.host.as_ref().unwrap_or(&config.cluster));
    let answer = http::call(config.cluster.as_str(), request).await?;
    if answer.status() != 200 {
        return Err(Error::new(format!("the answer is {}", answer.status())));
    }
    if answer.body().len() > LARGEST {
        return Err(Error::new(format!("the answer has more than {LARGEST} bytes")));
    }
    let (keys, odd) = read_set(answer.body()).map_err(Error::new)?;
    if !odd.is_empty() {
        warn!("keys of {}{} are not used: {}", config.cluster, config.path, odd.join("; "));
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote() -> Remote {
        let config = r#"{"cluster": "keys", "path": "/jwks", "cache": "100s", "keep": "1000s"}"#;
        serde_json::from_str::<RemoteConfig>(config).expect("good").compile().expect("good")
    }

    fn step(remote: &Remote, now: u64, known: bool) -> Step {
        remote.step(Duration::from_secs(now), |_| known)
    }

    #[test]
    fn keys_are_renewed_before_they_are_missed_and_kept_when_there_are_no_others() {
        let remote = remote();
        assert_eq!(step(&remote, 1000, true), Step::Fetch);
        remote.state.kept.replace(Some((Rc::from([]), Duration::from_secs(1000))));
        for (now, wanted) in [
            (1000, Step::Use),
            (1099, Step::Use),
            (1100, Step::Renew),
            (2099, Step::Renew),
            (2100, Step::Fetch),
        ] {
            assert_eq!(step(&remote, now, true), wanted, "{now}");
        }
        assert_eq!(step(&remote, 500, true), Step::Use, "the clock went back");
    }

    #[test]
    fn who_sends_tokens_does_not_decide_how_often_the_issuer_is_asked() {
        let remote = remote();
        remote.state.tried.set(Some(Duration::from_secs(1000)));
        assert_eq!(step(&remote, 1004, true), Step::Fail, "it has just failed");
        assert_eq!(step(&remote, 1005, true), Step::Fetch);
        remote.state.kept.replace(Some((Rc::from([]), Duration::from_secs(1000))));
        assert_eq!(step(&remote, 1004, false), Step::Use, "a name that is not known, just after a fetch");
        assert_eq!(step(&remote, 1005, false), Step::Fetch, "a new key may have been made since");
        remote.state.tried.set(Some(Duration::from_secs(9999)));
        assert_eq!(step(&remote, 1005, false), Step::Fetch, "the clock went back");
    }

    #[test]
    fn where_nothing_could_be_asked_the_configuration_is_refused() {
        for config in [
            r#"{"cluster": "", "path": "/"}"#,
            r#"{"cluster": "a", "path": "x"}"#,
            r#"{"cluster": "a", "path": "/", "cache": "0s"}"#,
        ] {
            assert!(
                serde_json::from_str::<RemoteConfig>(config).expect("it can be read").compile().is_err(),
                "{config}"
            );
        }
    }
}

//! Watching the Lease and the pods, through whatever the network and the API server do.
//!
//! A loop of our own rather than kube-runtime's: that one finds a dead connection by the age of the watch alone, after
//! minutes. Here the Lease tells: its holder renews it every other second, so when it is silent, and somebody holds it,
//! both watches are opened anew.

use std::{cell::RefCell, collections::BTreeMap, convert::Infallible, pin::pin, time::Duration};

use futures_util::TryStreamExt;
use kube::{
    api::{ListParams, WatchEvent, WatchParams},
    core::request,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{
    Asked, Built, Error, Kubernetes, Nonsense, REQUEST_TIMEOUT, answer,
    convert::{self, CLUSTER},
    objects::{LeaseObject, List, Object, PodObject},
};
use crate::ha::{
    lease::{Lease, PAUSED},
    member::Pod,
};

/// What the watch tells.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "the largest is the commonest, and there is one at a time")]
pub enum Seen {
    /// The Lease, at each change; none: there is none.
    Lease(Option<Lease>),
    /// The Lease has changed, and says what makes no sense.
    Nonsense(Box<Nonsense>),
    /// All pods of the cluster, whenever something about one of them has changed that matters here.
    Pods(BTreeMap<String, Pod>),
    /// What cannot be watched, and why. It is tried again and again.
    Trouble(String),
    /// All is watched, for the first time or again.
    Fine,
}

/// How long the API server keeps a watch before it ends it, and the next one goes on from there.
const WATCH: Duration = Duration::from_secs(290);
/// A watch that the server has not ended this long after its time is dead.
const OVERDUE: Duration = Duration::from_secs(10);
/// How long the beginning of a watch may take.
const OPEN: Duration = Duration::from_secs(3);
/// A Lease that somebody holds is silent for no longer than this, or half of its duration if that is more.
const SILENCE: Duration = Duration::from_secs(3);
/// A holder that is dead stays silent, and asking ever again would not change that.
const LONGEST_SILENCE: Duration = Duration::from_secs(30);
const FIRST_RETRY: Duration = Duration::from_millis(150);
const LAST_RETRY: Duration = Duration::from_secs(2);

impl Kubernetes {
    /// Watches the Lease and the cluster's pods, and tells what changes, until it is dropped. Whatever fails is tried
    /// again, at once and then ever more slowly. The first that is told of each is how it stands.
    pub async fn watch(&self, tell: impl AsyncFn(Seen)) -> Infallible {
        let health = Health { states: RefCell::default(), told: RefCell::default(), tell: &tell };
        // The Lease was silent: the pods' watch, which may be silent for hours, is not to be trusted either.
        let silent = Notify::new();
        let namespace = &self.identity.namespace;
        let cluster = &self.identity.cluster;
        let lease = Watched {
            objects: self.leases(),
            asked: |verb| self.lease_asked(verb),
            labels: None,
            fields: Some(format!("metadata.name={cluster}")),
        };
        let pods = Watched {
            objects: self.pods(),
            asked: |verb| self.pods_asked(verb, &format!("the pods of {cluster} in {namespace}")),
            labels: Some(format!("{CLUSTER}={cluster}")),
            fields: None,
        };
        let mut see_lease = SeeLease { kubernetes: self, tell: &tell, told: None, held: None, silences: 0 };
        let mut see_pods = SeePods { tell: &tell, now: BTreeMap::new(), told: None };
        let never = Notify::new();
        tokio::join!(
            self.follow(&lease, &mut see_lease, (&never, &silent), health.of(0)),
            self.follow(&pods, &mut see_pods, (&silent, &never), health.of(1)),
        )
        .0
    }

    /// Watches one kind of objects for ever. `reopen`: begin anew from where it was. `silent` is told when it was silent
    /// for longer than it should.
    async fn follow<S: See, A: Fn(&'static str) -> Asked>(
        &self,
        watched: &Watched<A>,
        see: &mut S,
        (reopen, silent): (&Notify, &Notify),
        health: Part<'_, '_, impl AsyncFn(Seen)>,
    ) -> Infallible {
        let mut version = None;
        let mut retry = FIRST_RETRY;
        loop {
            let began = Instant::now();
            match self.once(watched, see, &mut version, reopen, &health).await {
                Ok(End::Over) => {}
                Ok(End::Silent) => {
                    see.silent();
                    silent.notify_one();
                }
                Ok(End::Forgotten) => version = None,
                Err(error) => health.trouble(error.to_string()).await,
            }
            // Also after an orderly end: a server that ends each watch at once is not asked more often than a broken one.
            if began.elapsed() > 2 * LAST_RETRY {
                retry = FIRST_RETRY;
            }
            sleep(retry.mul_f64(jitter())).await;
            retry = LAST_RETRY.min(retry * 2);
        }
    }

    /// One watch, from `version` on, or from a list of all. Moves `version` on with what was seen.
    async fn once<S: See, A: Fn(&'static str) -> Asked>(
        &self,
        watched: &Watched<A>,
        see: &mut S,
        version: &mut Option<String>,
        reopen: &Notify,
        health: &Part<'_, '_, impl AsyncFn(Seen)>,
    ) -> Result<End, Error> {
        let from = match version {
            Some(version) => version,
            None => {
                let asked = (watched.asked)("list");
                let list: List<S::Object> = answer(&self.watching, &asked, watched.list(), REQUEST_TIMEOUT).await?;
                if list.metadata.resource_version.is_empty() {
                    return Err(asked.other("the list has no version to watch from"));
                }
                see.all(list.items).await;
                version.insert(list.metadata.resource_version)
            }
        };
        let asked = (watched.asked)("watch");
        let request = watched.watch(from).map_err(|e| asked.other(e))?;
        let events = match timeout(OPEN, self.watching.request_events::<S::Object>(request)).await {
            Err(_) => return Err(asked.timeout(OPEN)),
            Ok(Err(kube::Error::Api(status))) if status.code == GONE => return Ok(End::Forgotten),
            Ok(Err(error)) => return Err(asked.failed(error)),
            Ok(Ok(events)) => events,
        };
        health.fine().await;

        let mut events = pin!(events);
        let over = Instant::now() + WATCH + OVERDUE;
        loop {
            let patient = see.patience().map_or(over, |patience| over.min(Instant::now() + patience));
            let next = tokio::select! {
                next = timeout_at(patient, events.try_next()) => next,
                () = reopen.notified() => return Ok(End::Over),
            };
            let event = match next {
                Err(_) if patient == over => return Ok(End::Over),
                Err(_) => return Ok(End::Silent),
                Ok(Ok(None)) => return Ok(End::Over),
                Ok(Ok(Some(event))) => event,
                Ok(Err(error)) => return Err(asked.failed(error)),
            };
            *version = Some(match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    let version = object.meta().resource_version.clone();
                    see.is(object).await;
                    version
                }
                WatchEvent::Deleted(object) => {
                    see.gone(&object).await;
                    object.meta().resource_version.clone()
                }
                WatchEvent::Bookmark(bookmark) => bookmark.metadata.resource_version,
                WatchEvent::Error(status) if status.code == GONE => return Ok(End::Forgotten),
                WatchEvent::Error(status) => return Err(asked.refused(&status)),
            });
        }
    }
}

/// The server no longer has the version that was watched from.
const GONE: u16 = 410;

/// How a watch ended that did not fail.
enum End {
    /// Its time is over; the next one goes on.
    Over,
    /// Nothing came for too long.
    Silent,
    /// All has to be listed anew.
    Forgotten,
}

/// What is watched.
struct Watched<A> {
    objects: request::Request,
    asked: A,
    labels: Option<String>,
    fields: Option<String>,
}

impl<A> Watched<A> {
    fn list(&self) -> Built {
        self.objects.list(&ListParams {
            label_selector: self.labels.clone(),
            field_selector: self.fields.clone(),
            ..ListParams::default()
        })
    }

    fn watch(&self, version: &str) -> Built {
        let parameters = WatchParams {
            label_selector: self.labels.clone(),
            field_selector: self.fields.clone(),
            timeout: u32::try_from(WATCH.as_secs()).ok(),
            bookmarks: true,
            send_initial_events: false,
        };
        self.objects.watch(&parameters, version)
    }
}

/// Who looks at what is watched.
trait See {
    type Object: Object;
    async fn all(&mut self, objects: Vec<Self::Object>);
    async fn is(&mut self, object: Self::Object);
    async fn gone(&mut self, object: &Self::Object);
    /// For how long nothing may come. None: for ever.
    fn patience(&self) -> Option<Duration> {
        None
    }
    /// Nothing has come for that long.
    fn silent(&mut self) {}
}

struct SeeLease<'a, T> {
    kubernetes: &'a Kubernetes,
    tell: &'a T,
    told: Option<Seen>,
    /// The duration of the Lease, while somebody holds it.
    held: Option<Duration>,
    silences: u32,
}

impl<T: AsyncFn(Seen)> SeeLease<'_, T> {
    async fn see(&mut self, object: Option<&LeaseObject>) {
        let seen = match object.map(|object| self.kubernetes.lease(object)).transpose() {
            Ok(lease) => Seen::Lease(lease),
            Err(nonsense) => Seen::Nonsense(nonsense),
        };
        self.held = match &seen {
            Seen::Lease(Some(lease)) if !lease.holder.is_empty() => Some(lease.duration),
            Seen::Nonsense(_) => self.held,
            _ => None,
        };
        if self.told.as_ref() != Some(&seen) {
            self.silences = 0;
            (self.tell)(seen.clone()).await;
            self.told = Some(seen);
        }
    }
}

impl<T: AsyncFn(Seen)> See for SeeLease<'_, T> {
    type Object = LeaseObject;

    async fn all(&mut self, objects: Vec<LeaseObject>) {
        self.see(objects.first()).await;
    }

    async fn is(&mut self, object: LeaseObject) {
        self.see(Some(&object)).await;
    }

    async fn gone(&mut self, _: &LeaseObject) {
        self.see(None).await;
    }

    fn patience(&self) -> Option<Duration> {
        self.held.map(|duration| patience(duration, self.silences))
    }

    fn silent(&mut self) {
        self.silences = self.silences.saturating_add(1);
    }
}

/// How long a Lease that somebody holds may be silent, the `silences`th time in a row.
fn patience(duration: Duration, silences: u32) -> Duration {
    // In a pause the Lease lasts for years, and is renewed as ever.
    let duration = if duration >= PAUSED { LONGEST_SILENCE } else { duration };
    let first = SILENCE.max(duration / 2);
    first.saturating_mul(1 << silences.min(8)).min(LONGEST_SILENCE.max(first))
}

struct SeePods<'a, T> {
    tell: &'a T,
    now: BTreeMap<String, Pod>,
    told: Option<BTreeMap<String, Pod>>,
}

impl<T: AsyncFn(Seen)> SeePods<'_, T> {
    async fn see(&mut self) {
        if !self.told.as_ref().is_some_and(|told| same(told, &self.now)) {
            (self.tell)(Seen::Pods(self.now.clone())).await;
            self.told = Some(self.now.clone());
        }
    }
}

/// Whether nothing is different but versions: every heartbeat of a container moves them.
fn same(one: &BTreeMap<String, Pod>, other: &BTreeMap<String, Pod>) -> bool {
    let at = |pod: &Pod, version: &str| Pod { version: version.to_owned(), ..pod.clone() };
    one.len() == other.len() && one.values().zip(other.values()).all(|(a, b)| a == &at(b, &a.version))
}

impl<T: AsyncFn(Seen)> See for SeePods<'_, T> {
    type Object = PodObject;

    async fn all(&mut self, objects: Vec<PodObject>) {
        self.now = objects.iter().map(convert::pod).map(|pod| (pod.name.clone(), pod)).collect();
        self.see().await;
    }

    async fn is(&mut self, object: PodObject) {
        let pod = convert::pod(&object);
        self.now.insert(pod.name.clone(), pod);
        self.see().await;
    }

    async fn gone(&mut self, object: &PodObject) {
        self.now.remove(&object.metadata.name);
        self.see().await;
    }
}

/// How the watches are, together.
struct Health<'a, T> {
    states: RefCell<[Option<Result<(), String>>; 2]>,
    told: RefCell<Option<Seen>>,
    tell: &'a T,
}

/// How one of them is.
struct Part<'h, 'a, T> {
    health: &'h Health<'a, T>,
    index: usize,
}

impl<'a, T: AsyncFn(Seen)> Health<'a, T> {
    fn of(&self, index: usize) -> Part<'_, 'a, T> {
        Part { health: self, index }
    }

    /// None: not both are known yet, and nothing is wrong.
    fn seen(&self) -> Option<Seen> {
        let states = self.states.borrow();
        let mut troubles: Vec<&str> =
            states.iter().flatten().filter_map(|s| s.as_ref().err()).map(String::as_str).collect();
        troubles.dedup();
        match troubles.as_slice() {
            [] => states.iter().all(Option::is_some).then_some(Seen::Fine),
            troubles => Some(Seen::Trouble(troubles.join("; "))),
        }
    }
}

impl<T: AsyncFn(Seen)> Part<'_, '_, T> {
    async fn fine(&self) {
        self.set(Ok(())).await;
    }

    async fn trouble(&self, why: String) {
        self.set(Err(why)).await;
    }

    async fn set(&self, state: Result<(), String>) {
        let health = self.health;
        health.states.borrow_mut()[self.index] = Some(state);
        let seen = health.seen();
        if seen.is_some() && *health.told.borrow() != seen {
            health.told.borrow_mut().clone_from(&seen);
            if let Some(seen) = seen {
                (health.tell)(seen).await;
            }
        }
    }
}

/// From a half to one: members that lost the same server do not come back as one.
fn jitter() -> f64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let random = RandomState::new().build_hasher().finish();
    0.5 + f64::from(u16::try_from(random & 0xffff).unwrap_or(0)) / f64::from(u16::MAX) / 2.0
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;

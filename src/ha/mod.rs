//! Who leads, who follows, who takes over: the decision about the cluster. Pure: no I/O, no clock, no await.
//!
//! [`step`] takes what is remembered and what has just happened and gives back what is to be remembered and done. The
//! loop that feeds it is [`crate::manager`]; the eyes and hands are in [`crate::cluster`]. What a server needs on the way
//! from one [`Goal`] to the next is [`crate::lifecycle`]'s affair.
//!
//! The rules and the reasons for them are in the README beside this file.

pub mod election;
pub mod failsafe;
mod follower;
pub mod history;
mod input;
mod leader;
pub mod lease;
pub mod member;
mod memory;
pub mod quorum;
pub mod record;
mod report;
mod requests;
mod synchronous;
pub mod votes;

use std::time::Duration;

pub use input::{About, Action, Aim, Data, Goal, Input, Local, Refusal, Server, Standby};
use memory::Writing;
pub use memory::{Known, Memory, Office, Reason};
pub use synchronous::in_words;

pub use crate::settings::kubernetes::Sync;

/// Time since the manager started, by a clock that never jumps and goes on while the machine sleeps (`CLOCK_BOOTTIME`).
pub type Mono = Duration;

/// What the decision depends on besides its memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The own pod's name.
    pub pod: String,
    /// The own pod's UID.
    pub uid: String,
    /// This start of this manager.
    pub instance: String,
    /// Where others reach this member's HTTP.
    pub http: String,
    /// `lease-duration`.
    pub duration: Duration,
    /// `renew-interval`.
    pub renew: Duration,
    /// `fence-margin`.
    pub margin: Duration,
    /// `max-lag-on-failover`, in bytes.
    pub max_lag: u64,
    /// `priority`.
    pub priority: u32,
    /// `start-timeout`.
    pub start_timeout: Duration,
    /// `sync` and `sync-strict`.
    pub sync: Sync,
    /// `failsafe`.
    pub failsafe: bool,
}

/// The decision.
pub fn step(config: &Config, memory: Memory, now: Mono, input: Input) -> (Memory, Vec<Action>) {
    let mut turn = Turn { config, now, m: memory, actions: Vec::new() };
    turn.m.wake = None;
    turn.take(input);
    turn.decide();
    (turn.m, turn.actions)
}

/// One step: what came in is noted first, then everything is decided from what is known.
struct Turn<'a> {
    config: &'a Config,
    now: Mono,
    m: Memory,
    actions: Vec<Action>,
}

impl Turn<'_> {
    fn take(&mut self, input: Input) {
        match input {
            Input::Lease(Some(lease)) if self.is_older(&lease) => {}
            Input::Lease(lease) => self.saw(lease),
            Input::Read(result) => {
                self.m.reading = false;
                match result {
                    // The watch was quicker, and does not tell again what it has told.
                    Ok(lease) if self.m.overtaken && lease.as_ref().is_none_or(|l| self.is_older(l)) => self.read(),
                    Ok(lease) => self.saw(lease),
                    Err(_) => self.m.retry_at = self.now + RETRY,
                }
            }
            Input::Pods(pods) => {
                self.m.pods = Some(pods);
                self.m.patched.clear();
                self.look_at_leader();
            }
            Input::Reachable(reachable) => {
                self.m.silent_since = if reachable { None } else { self.m.silent_since.or(Some(self.now)) };
            }
            Input::Local(local) => self.m.local = local,
            Input::Standbys(standbys) => self.streaming(standbys),
            Input::Written { sent, result } => self.written(sent, result),
            Input::Accounts(accounts) => {
                self.m.asking = false;
                self.m.accounts = Some((self.now, accounts));
            }
            Input::Checkpointed => self.checkpointed(),
            Input::TargetSilent(why) => self.target_is_silent(&why),
            Input::CaughtUp(result) => self.caught_up(result),
            Input::Voted(vote) => self.voted(vote),
            Input::Refused { pod, why } => self.refused(pod, why),
            Input::Answered { sent, consents, refusals } => self.answered(sent, &consents, refusals),
            Input::Bound(bound) => self.bind(bound),
            Input::Proven(lsn) => self.proven(lsn),
            Input::Confirmed(names) => self.confirmed(&names),
            Input::Force => self.m.forced = Some(self.now),
            Input::Fired => self.fired(),
            Input::Unpatched(pod) => drop(self.m.patched.remove(&pod)),
            Input::Terminate { hand_over } => {
                self.m.terminating = self.m.terminating.or(Some(self.now));
                self.m.hands_over = hand_over;
            }
            Input::Timer => {}
        }
    }

    fn decide(&mut self) {
        match self.m.office {
            Office::Out | Office::Taking => self.follow(),
            Office::In(_) => self.lead(),
        }
        self.report();
        // With the last process of a server goes what could be fenced.
        let out = self.m.in_office().is_none();
        if out && self.m.local.server == Server::Down && std::mem::take(&mut self.m.armed) {
            self.actions.push(Action::Disarm);
        }
    }

    fn arm(&mut self, at: Mono) {
        self.m.armed = true;
        self.actions.push(Action::Arm(at));
    }

    /// What this server is to become.
    fn aim(&mut self, goal: Goal, reason: Reason) {
        if self.m.goal != Some(goal) {
            self.m.goal = Some(goal);
            self.actions.push(Action::Aim(Aim { goal, kill: false }));
        }
        self.because(reason);
    }

    fn because(&mut self, reason: Reason) {
        self.m.reason = reason;
    }

    /// Asks for [`Input::Timer`] at `at`, if nothing comes earlier. What has passed was seen in this very step.
    fn wake_at(&mut self, at: Mono) {
        if at > self.now {
            self.m.wake = Some(self.m.wake.map_or(at, |w| w.min(at)));
        }
    }

    /// A watch may show what the answer to a read or a write has overtaken. Resource versions of one object are numbers that
    /// rise (<https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions>); where they are not, what comes
    /// last counts.
    fn is_older(&self, lease: &lease::Lease) -> bool {
        let number = |l: &lease::Lease| l.version.parse::<u64>().ok();
        let known = self.m.lease();
        known.is_some_and(|k| number(lease).zip(number(k)).is_some_and(|(a, b)| a < b))
    }

    /// Notes what the Lease says. Others count from the change of (holder, instance, term, renewTime): any other write
    /// restarts nothing (trace T11).
    fn saw(&mut self, lease: Option<lease::Lease>) {
        let Some(lease) = lease else {
            if !matches!(self.m.known, Known::Absent { .. }) {
                self.m.known = Known::Absent { since: self.now };
                self.m.stood_back = None;
            }
            return;
        };
        let since = match &self.m.known {
            Known::Lease { lease: before, since } if tuple(before) == tuple(&lease) => *since,
            _ => {
                // Whoever was stood back for had another election to act in.
                self.m.stood_back = None;
                self.now
            }
        };
        self.m.overtaken |= self.m.reading;
        self.m.term = self.m.term.max(lease.term);
        self.m.known = Known::Lease { lease, since };
    }

    fn written(&mut self, sent: Mono, result: Result<lease::Lease, Refusal>) {
        let Some(writing) = self.m.writing.take() else { return };
        let ours = result.is_ok();
        match result {
            // The watch was quicker, and does not tell again what it has told.
            Ok(lease) if self.is_older(&lease) => {}
            Ok(lease) => self.saw(Some(lease)),
            Err(Refusal::Conflict | Refusal::Missing) => self.read(),
            // It may have been carried out or not: only what the Lease says then tells.
            Err(Refusal::Other(why)) => self.unanswered(why, false),
            Err(Refusal::Denied(why)) => self.unanswered(why, true),
        }
        if ours {
            self.m.denied = false;
            self.m.trouble = None;
            self.m.retry_at = self.now;
        }
        match writing {
            Writing::Take { direct, .. } if ours && self.holds() => self.enter_office(sent, direct),
            Writing::Take { .. } => self.m.office = Office::Out,
            Writing::Renew if ours => self.renewed(sent),
            Writing::Free if ours => self.freed(),
            Writing::Renew | Writing::Free => {}
        }
    }

    fn unanswered(&mut self, why: String, denied: bool) {
        self.m.denied = denied;
        self.m.trouble = Some(why);
        self.m.retry_at = self.now + RETRY;
        self.read();
    }

    /// Whether the Lease names this start of this manager, as far as is known by now.
    fn holds(&self) -> bool {
        let mine = |l: &lease::Lease| l.holder == self.config.pod && l.instance == self.config.instance;
        self.m.lease().is_some_and(mine)
    }

    fn read(&mut self) {
        if !std::mem::replace(&mut self.m.reading, true) {
            self.m.overtaken = false;
            self.actions.push(Action::ReadLease);
        }
    }

    /// Whether it is written now. The answer to the write before this one is waited for first.
    fn write(&mut self, writing: Writing, over: Option<String>, lease: lease::Lease) -> bool {
        if self.m.writing.is_some() {
            return false;
        }
        if self.m.retry_at > self.now {
            self.wake_at(self.m.retry_at);
            return false;
        }
        if writing == Writing::Renew
            && let Some((office, record)) = self.office_mut().zip(lease.record.clone())
            && !office.written.contains(&record)
        {
            office.written.push(record);
        }
        self.m.writing = Some(writing);
        self.actions.push(Action::WriteLease { over, lease: Box::new(lease) });
        true
    }
}

/// After a failed request to the API the next one waits this long: several fit between a missed renewal and the fence.
const RETRY: Duration = Duration::from_millis(300);

type Tuple<'a> = (&'a str, &'a str, u64, &'a str);

fn tuple(lease: &lease::Lease) -> Tuple<'_> {
    (&lease.holder, &lease.instance, lease.term, &lease.renewed)
}

#[cfg(test)]
mod tests;

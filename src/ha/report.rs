//! What the cluster is shown: role labels, this member's status, Events.

use std::{collections::BTreeMap, time::Duration};

use super::{About, Action, Reason, Server, Turn, member::Status};

/// Two changes of the status that are closer together become one, unless the role changes.
const STATUS_PAUSE: Duration = Duration::from_secs(1);

pub(super) const PRIMARY: &str = "primary";
pub(super) const REPLICA: &str = "replica";

impl Turn<'_> {
    pub(super) fn report(&mut self) {
        self.forget_handled();
        self.own_requests();
        if self.m.in_office().is_some() {
            self.complain_of_pause();
            self.correct_labels();
        }
        self.own_report();
    }

    fn role(&self) -> Option<&'static str> {
        match self.m.local.server {
            Server::Primary if self.m.in_office().is_some_and(|o| o.leaving.is_none() && o.is_open()) => Some(PRIMARY),
            Server::Standby => Some(REPLICA),
            _ => None,
        }
    }

    fn own_report(&mut self) {
        let Some(pod) = self.own().cloned() else { return };
        if pod.uid != self.config.uid || self.m.patched.contains(&pod.name) || self.m.exiting {
            return;
        }
        let role = self.role();
        let relabel = pod.role.as_deref() != role;
        let status = self.status();
        let restate = pod.status.as_ref() != Some(&status);
        if !relabel && !restate {
            return;
        }
        let (at, told) = match &self.m.told {
            Some((at, told)) => (*at, Some(told)),
            None => (Duration::ZERO, None),
        };
        let urgent = relabel
            || told.is_none_or(|t| {
                t.role != status.role || t.promised != status.promised || t.copy != status.copy || t.http != status.http
            });
        if !urgent && self.now < at + STATUS_PAUSE {
            return self.wake_at(at + STATUS_PAUSE);
        }
        let text = serde_json::to_string(&status).unwrap_or_default();
        self.m.told = Some((self.now, status));
        self.m.patched.insert(pod.name.clone());
        self.actions.push(Action::PatchPod {
            pod: pod.name,
            uid: pod.uid,
            role: relabel.then(|| role.map(String::from)),
            annotations: BTreeMap::from([("status", Some(text))]),
        });
    }

    fn status(&self) -> Status {
        let local = &self.m.local;
        let standing = match &self.m.reason {
            Reason::Fenced => Some("fenced"),
            Reason::Foreign { .. } => Some("refused"),
            Reason::WaitsForAccounts | Reason::WaitsForFounder | Reason::WaitsForPrimary => Some("waiting"),
            _ => None,
        };
        let down = local.server == Server::Down && !local.busy;
        let has_data = local.data == super::Data::Present;
        Status {
            instance: self.config.instance.clone(),
            role: match self.role() {
                Some(PRIMARY) => "primary".into(),
                Some(_) => "standby".into(),
                None => String::new(),
            },
            state: standing.filter(|_| down).unwrap_or(local.state).into(),
            copy: has_data.then(|| local.copy.clone()),
            system_id: local.system_id.filter(|_| has_data).map(|id| id.to_string()),
            timeline: local.began.map(|b| b.timeline),
            term: local.held,
            promised: local.promised,
            priority: self.config.priority,
            http: self.config.http.clone(),
            version: local.version.clone(),
            pending_restart: local.pending_restart,
            problem: match &self.m.reason {
                reason @ Reason::Foreign { .. } => Some(reason.to_string()),
                _ => local.problem.clone(),
            },
        }
    }

    /// A label outlives its pod's manager: `<cluster>-rw` must not keep a dead or deposed primary.
    fn correct_labels(&mut self) {
        let others = self.m.pods.iter().flatten().filter(|(name, _)| **name != self.config.pod);
        for (name, pod) in others.filter(|(_, pod)| pod.role.as_deref() == Some(PRIMARY)) {
            if self.m.patched.insert(name.clone()) {
                self.actions.push(Action::PatchPod {
                    pod: name.clone(),
                    uid: pod.uid.clone(),
                    role: Some(None),
                    annotations: BTreeMap::new(),
                });
            }
        }
    }

    pub(super) fn tell(&mut self, about: About, reason: &'static str, note: String) {
        self.actions.push(Action::Event { about, warning: false, reason, note });
    }

    pub(super) fn warn(&mut self, reason: &'static str, note: String) {
        let about = About::Pod(self.config.pod.clone());
        self.actions.push(Action::Event { about, warning: true, reason, note });
    }
}

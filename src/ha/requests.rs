//! What people ask for by annotation: checked, carried out or refused in words, and answered.

use std::collections::BTreeMap;

use super::{
    About, Action, Data, Server, Turn,
    leader::Unfit,
    lease::Lease,
    member::Pod,
    memory::{Commanded, HandedOver, Request, Why},
};

/// Several looks at who streams.
const REQUEST_WAITS: std::time::Duration = std::time::Duration::from_secs(3);
/// A hand-over that nobody completed by then is reported as such.
const GIVE_UP: std::time::Duration = std::time::Duration::from_secs(60);

impl Turn<'_> {
    /// A hand-over that somebody asks for and that can be done.
    pub(super) fn request(&mut self) -> Option<(String, Request)> {
        if self.m.local.server != Server::Primary || !self.is_asked() {
            self.m.request_since = None;
            return None;
        }
        let since = *self.m.request_since.get_or_insert(self.now);
        if !self.has_looked_since(since) {
            return None;
        }
        let request = self.promote_request().or_else(|| self.switchover_request());
        if request.is_some() {
            self.m.request_since = None;
        }
        request
    }

    fn is_asked(&self) -> bool {
        let promote = |pod: &Pod| pod.promote.as_ref().is_some_and(|v| !self.is_handled(&pod.uid, "promote", v));
        let switchover = self.m.lease().and_then(|l| l.switchover_to.as_ref());
        self.m.pods.iter().flat_map(|pods| pods.values()).any(promote)
            || switchover.is_some_and(|v| !self.is_handled("", "switchover-to", v))
    }

    fn promote_request(&mut self) -> Option<(String, Request)> {
        let pods = self.m.pods.clone()?;
        for (name, pod) in pods {
            let Some(value) = &pod.promote else { continue };
            if self.is_handled(&pod.uid, "promote", value) {
                continue;
            }
            match self.check_target(&name) {
                Ok(()) => return Some((name.clone(), Request::Promote(name))),
                Err(unfit) if self.may_pass(&unfit) => {}
                Err(unfit) => {
                    self.handle(&pod.uid, "promote", value);
                    self.answer(&name, "promote", false, &unfit.why);
                }
            }
        }
        None
    }

    fn switchover_request(&mut self) -> Option<(String, Request)> {
        let value = self.m.lease()?.switchover_to.clone()?;
        if self.is_handled("", "switchover-to", &value) {
            return None;
        }
        let wanted = if value == "any" {
            let nobody = || Unfit { why: "no standby is fit to take over".into(), may_pass: true };
            self.best_target().ok_or_else(nobody)
        } else {
            self.check_target(&value).map(|()| value.clone())
        };
        match wanted {
            Ok(to) => return Some((to, Request::SwitchoverTo(value))),
            // A slip of the pen is kept for its author to correct.
            Err(_) if value != "any" && !self.m.pods.as_ref().is_some_and(|p| p.contains_key(&value)) => {
                let pods = self.m.pods.iter().flat_map(|p| p.keys()).cloned().collect::<Vec<_>>().join(", ");
                self.complain("", "switchover-to", &value, &format!("a member ({pods}) or any"));
            }
            Err(unfit) if self.may_pass(&unfit) => {}
            Err(Unfit { why, .. }) => {
                self.handle("", "switchover-to", &value);
                self.actions.push(Action::ClearSwitchover);
                self.answer(&self.config.pod.clone(), "switchover", false, &why);
            }
        }
        None
    }

    /// What was seen last may be two seconds old, and a standby that was just restarted is on its way: so long a request
    /// waits before it is refused.
    fn may_pass(&mut self, unfit: &Unfit) -> bool {
        let since = self.m.request_since.unwrap_or(self.now);
        self.wake_at(since + REQUEST_WAITS);
        unfit.may_pass && self.now < since + REQUEST_WAITS
    }

    /// What is asked of this very member.
    pub(super) fn own_requests(&mut self) {
        let Some(pod) = self.own().cloned() else { return };
        for (key, value) in [("restart", &pod.restart), ("reinit", &pod.reinit)] {
            let Some(value) = value.as_ref().filter(|v| !self.is_handled(&pod.uid, key, v)) else { continue };
            self.handle(&pod.uid, key, value);
            let refusal = match key {
                "reinit" if self.m.in_office().is_some() || self.m.local.server == Server::Primary => {
                    Some("this member is the primary: its data are the cluster's")
                }
                _ if self.m.local.data != Data::Present => Some("this member has no data yet"),
                _ if pod.is_fenced() => Some("this member is fenced (podgres.io/fenced)"),
                _ => None,
            };
            if let Some(why) = refusal {
                self.answer(&pod.name, key, false, why);
                continue;
            }
            self.actions.push(if key == "restart" { Action::Restart } else { Action::Reinit });
            let copy = self.m.local.copy.clone();
            self.m.commanded = Some(Commanded { key, since: self.now, copy, interrupted: false });
        }
        self.told_of_own_command();
        if let Some(value) = pod.fenced.filter(|v| v != "true" && v != "false") {
            self.complain(&pod.uid, "fenced", &value, "true or false");
        }
    }

    /// Says that a restart or a new clone is over.
    fn told_of_own_command(&mut self) {
        let up = matches!(self.m.local.server, Server::Standby | Server::Primary) && !self.m.local.busy;
        let Some(commanded) = &mut self.m.commanded else { return };
        commanded.interrupted |= !up;
        let other = commanded.key != "reinit" || commanded.copy != self.m.local.copy;
        if !up || !commanded.interrupted || !other {
            return;
        }
        let (key, ms) = (commanded.key, self.now.saturating_sub(commanded.since).as_millis());
        self.m.commanded = None;
        let what = if key == "restart" { "restarted" } else { "cloned anew" };
        self.answer(&self.config.pod.clone(), key, true, &format!("{what}: accepts connections again after {ms} ms"));
    }

    pub(super) fn complain_of_pause(&mut self) {
        let paused = self.m.lease().and_then(|l| l.paused.clone());
        if let Some(value) = paused.filter(|v| v != "true" && v != "false") {
            self.complain("", "paused", &value, "true or false");
        }
    }

    /// Says how a hand-over that was begun here has ended.
    pub(super) fn told_of_hand_over(&mut self, lease: &Lease) {
        let Some(HandedOver { request, term, stopped, .. }) = self.m.handed_over.clone() else { return };
        let writable = lease.term > term && lease.timeline.is_some_and(|b| b.term > term);
        let ms = self.now.saturating_sub(stopped).as_millis();
        let (done, note) = if writable {
            (true, format!("{} is the primary; writes were refused for {ms} ms", lease.holder))
        } else if self.now >= stopped + GIVE_UP {
            (false, format!("nobody has become the primary within {ms} ms"))
        } else {
            return self.wake_at(stopped + GIVE_UP);
        };
        self.m.handed_over = None;
        match request {
            Request::Promote(pod) => self.answer(&pod, "promote", done, &note),
            Request::SwitchoverTo(_) => self.answer(&self.config.pod.clone(), "switchover", done, &note),
        }
    }

    /// Nobody stops for a member that is not there: the next best is asked, or whoever wanted this one is told.
    pub(super) fn target_is_silent(&mut self, why: &str) {
        let Some(office) = self.office_mut() else { return };
        let Some(leaving) = office.leaving.take_if(|l| l.stopped.is_none()) else { return };
        let Some(to) = leaving.to else { return };
        // It is from before the question.
        let name = self.m.copy_of(&to).map(|copy| copy.application_name());
        self.office_mut().into_iter().for_each(|o| o.standbys.retain(|s| Some(&s.name) != name.as_ref()));
        let note = format!("{to} does not answer: {why}");
        match leaving.why {
            Why::Switchover(Request::SwitchoverTo(value)) => match self.best_target().filter(|_| value == "any") {
                Some(next) => self.begin_to_leave(Some(next), Why::Switchover(Request::SwitchoverTo(value))),
                None => self.answer(&self.config.pod.clone(), "switchover", false, &note),
            },
            Why::Switchover(Request::Promote(name)) => {
                let asked = self.m.pods.as_ref().and_then(|p| p.get(&name));
                if let Some((uid, value)) = asked.and_then(|p| Some((p.uid.clone(), p.promote.clone()?))) {
                    self.handle(&uid, "promote", &value);
                }
                self.answer(&name, "promote", false, &note);
            }
            // Decided anew in this very step.
            Why::Terminating | Why::Fenced | Why::Unable(_) | Why::Full => {}
        }
    }

    /// Takes the request off the pod `name`, and says what came of it.
    fn answer(&mut self, name: &str, command: &'static str, done: bool, note: &str) {
        let Some(pod) = self.m.pods.as_ref().and_then(|p| p.get(name)).cloned() else { return };
        let outcome = serde_json::json!({
            "command": command,
            "outcome": if done { "done" } else { "refused" },
            "message": note,
            // So that one outcome differs from the one before.
            "term": self.m.term,
            "uptime-ms": u64::try_from(self.now.as_millis()).unwrap_or(u64::MAX),
        });
        let mut annotations = BTreeMap::from([("last-command", Some(outcome.to_string()))]);
        if command != "switchover" {
            annotations.insert(command, None);
        }
        self.actions.push(Action::PatchPod { pod: pod.name.clone(), uid: pod.uid, role: None, annotations });
        let reason = match (command, done) {
            ("restart", true) => "Restarted",
            ("reinit", true) => "Reinitialised",
            (_, true) => "SwitchoverDone",
            (_, false) => "RequestRefused",
        };
        let text = format!("{command}: {note}");
        self.actions.push(Action::Event { about: About::Pod(pod.name), warning: !done, reason, note: text });
    }

    /// Says once what would make sense, and changes nothing.
    fn complain(&mut self, uid: &str, key: &'static str, value: &str, allowed: &str) {
        if self.is_handled(uid, key, value) {
            return;
        }
        self.handle(uid, key, value);
        let about = if uid.is_empty() { About::Lease } else { About::Pod(self.config.pod.clone()) };
        let note = format!("podgres.io/{key}: {value:?} makes no sense and changes nothing; it may be {allowed}");
        self.actions.push(Action::Event { about, warning: true, reason: "BadAnnotation", note });
    }

    fn is_handled(&self, uid: &str, key: &'static str, value: &str) -> bool {
        self.m.handled.contains(&(uid.into(), key, value.into()))
    }

    fn handle(&mut self, uid: &str, key: &'static str, value: &str) {
        self.m.handled.insert((uid.into(), key, value.into()));
    }

    /// What is gone may be asked again.
    pub(super) fn forget_handled(&mut self) {
        let mut handled = std::mem::take(&mut self.m.handled);
        handled.retain(|(uid, key, value)| self.annotation(uid, key) == Some(value));
        self.m.handled = handled;
    }

    /// What the annotation says now; an empty UID means the Lease.
    fn annotation(&self, uid: &str, key: &str) -> Option<&String> {
        if uid.is_empty() {
            let lease = self.m.lease()?;
            return if key == "paused" { lease.paused.as_ref() } else { lease.switchover_to.as_ref() };
        }
        let pod = self.m.pods.iter().flat_map(|pods| pods.values()).find(|p| p.uid == uid)?;
        match key {
            "promote" => pod.promote.as_ref(),
            "restart" => pod.restart.as_ref(),
            "reinit" => pod.reinit.as_ref(),
            _ => pod.fenced.as_ref(),
        }
    }
}

//! The hands: what the decision about the cluster answers is carried out, each request to the API as a task of its own.

use std::time::Duration;

use tokio::task::spawn_local;

use super::{ClusterEvent, Manager};
use crate::{
    cluster::{kubernetes, peer},
    ha::{self, Action, Aim, Goal, Mono, Refusal, lease::Lease},
    lifecycle::Input,
    postgres::replication::clone::random,
};

/// For a read of the Lease.
const READ: Duration = Duration::from_secs(2);
/// Before a pod that could not be patched is patched again.
const PATCH_PAUSE: Duration = Duration::from_secs(1);

impl Manager {
    pub(in crate::manager) fn cluster_act(&mut self, action: Action) {
        let Some(cluster) = &mut self.cluster else { return };
        let kubernetes = cluster.kubernetes.clone();
        match action {
            Action::Aim(aim) => self.take_aim(aim),
            Action::Arm(at) => {
                if let Err(error) = cluster.fence.arm(cluster.begun + at) {
                    tracing::error!("the fence cannot be armed, PostgreSQL is stopped: {error}");
                    self.decide(Input::Aim(Aim { goal: Goal::Down, kill: true }));
                }
            }
            Action::Disarm => {
                if let Err(error) = cluster.fence.disarm() {
                    tracing::error!("the fence cannot be disarmed: {error}");
                }
            }
            Action::NoteOffice(term) => {
                cluster.notes.held = term;
                self.save_notes();
            }
            Action::NoteRecorded => {
                cluster.notes.unrecorded = false;
                self.save_notes();
            }
            Action::Discard => {
                cluster.notes = cluster.notes.of_new_copy(random());
                cluster.system_id = None;
                self.save_notes();
                self.decide(Input::Discarded);
            }
            Action::ReadLease => self
                .ask_api(async move |_| ha::Input::Read(kubernetes.read_lease(READ).await.map_err(|e| e.to_string()))),
            Action::WriteLease { over, lease } => self.write_lease(over, *lease),
            Action::Ask(members) => self.ask_members(&members),
            Action::Checkpoint => self.checkpoint(),
            Action::AwaitTarget(pod) => self.await_target(&pod),
            Action::Quit => self.decide(Input::Quit),
            Action::Freeze(term) => self.freeze_self(term),
            Action::AskConsent { term, of } => self.ask_consent(term, &of),
            Action::AskVotes { term, of } => self.ask_votes(term, &of),
            Action::Stop(before) => self.stop_confirming(before),
            Action::Confirm(names) => self.confirm(names),
            Action::Restart => self.decide(Input::Restart),
            Action::Reinit => self.decide(Input::Reinit),
            Action::Exit => self.decide(Input::Signal(crate::pid1::Signal::Term)),
            Action::PatchPod { pod, uid, role, annotations } => {
                self.spawn_input(async move {
                    let role = role.map(|role| ("podgres.io/role", role)).into_iter().collect();
                    let keys: Vec<String> = annotations.keys().map(|key| format!("podgres.io/{key}")).collect();
                    let annotations = keys.iter().map(String::as_str).zip(annotations.values().cloned()).collect();
                    match kubernetes.patch_pod(&pod, &uid, &role, &annotations).await {
                        Ok(()) => None,
                        Err(error) => {
                            tracing::warn!("pod {pod} cannot be patched, trying again: {error}");
                            tokio::time::sleep(PATCH_PAUSE).await;
                            Some(ha::Input::Unpatched(pod))
                        }
                    }
                });
            }
            Action::ClearSwitchover => self.spawn_input(async move {
                let none = [("podgres.io/switchover-to", None)].into();
                let done = kubernetes.patch_lease_annotations(&none).await;
                done.inspect_err(|e| tracing::warn!("podgres.io/switchover-to cannot be removed: {e}")).ok();
                None
            }),
            Action::Event { about, warning, reason, note } => {
                let uid = |name: &String| Some(cluster.memory.pods.as_ref()?.get(name)?.uid.clone());
                let (name, uid) = match about {
                    ha::About::Lease => (None, String::new()),
                    ha::About::Pod(name) => {
                        let uid = uid(&name).unwrap_or_default();
                        (Some(name), uid)
                    }
                };
                if warning {
                    tracing::warn!(reason, "{note}");
                } else {
                    tracing::info!(reason, "{note}");
                }
                self.spawn_input(async move {
                    let pod = name.as_ref().map(|name| kubernetes::About::Pod { name, uid: &uid });
                    let about = pod.unwrap_or(kubernetes::About::Lease);
                    let told = kubernetes.event(about, warning, reason, reason, &note).await;
                    told.inspect_err(|e| tracing::warn!("an Event could not be made: {e}")).ok();
                    None
                });
            }
        }
    }

    fn take_aim(&mut self, aim: Aim) {
        self.take_source();
        self.decide(Input::Aim(aim));
    }

    fn write_lease(&mut self, over: Option<String>, lease: Lease) {
        let Some(cluster) = &self.cluster else { return };
        let (kubernetes, deadline) = (cluster.kubernetes.clone(), cluster.config.renew * 3 / 2);
        self.ask_api(async move |sent| {
            let result = kubernetes.write_lease(over.as_deref(), &lease, deadline).await;
            let result = result.map_err(|error| match error {
                kubernetes::Error::Conflict(_) => Refusal::Conflict,
                kubernetes::Error::NotFound(_) => Refusal::Missing,
                other => {
                    tracing::warn!("the Lease could not be written: {other}");
                    let denied = matches!(other, kubernetes::Error::Forbidden(_) | kubernetes::Error::Unauthorized(_));
                    let why = other.to_string();
                    if denied { Refusal::Denied(why) } else { Refusal::Other(why) }
                }
            });
            ha::Input::Written { sent, result }
        });
    }

    pub(super) fn ask_api(&self, ask: impl AsyncFnOnce(Mono) -> ha::Input + 'static) {
        let Some(cluster) = &self.cluster else { return };
        let sent = cluster.now();
        self.spawn_input(async move { Some(ask(sent).await) });
    }

    pub(in crate::manager) fn spawn_input(&self, work: impl Future<Output = Option<ha::Input>> + 'static) {
        let events = self.events.clone();
        spawn_local(async move {
            if let Some(input) = work.await {
                drop(events.send(ClusterEvent::Input(input).into()).await);
            }
        });
    }

    fn ask_members(&self, members: &[String]) {
        let Some(cluster) = &self.cluster else { return };
        let own = (cluster.config.pod.clone(), cluster.config.http.clone());
        let address = |pod: &String| Some((pod.clone(), self.pod_http(pod)?));
        let others = members.iter().filter(|pod| **pod != own.0).filter_map(address);
        let asked: Vec<(String, String)> = others.chain([own.clone()]).collect();
        let line = self.line();
        self.ask_api(async move |_| ha::Input::Accounts(peer::ask(&line, &asked, peer::DEADLINE).await));
    }
}

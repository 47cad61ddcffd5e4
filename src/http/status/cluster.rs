//! The members of a cluster and what is wrong with it: the Lease and the pods as this member sees them, with what everybody
//! answers right now.

use std::collections::BTreeSet;

use super::{View, findings::Findings};
use crate::{
    ha::{
        lease::Lease,
        member::{Account, ClusterView, Pod, Status},
    },
    lifecycle::Role,
    postgres::replication::{lsn::Lsn, stat::Receiver},
    status::{Cluster, ClusterMember, Level},
};

/// The value of an annotation that is a switch. Another one changes nothing.
fn on(annotation: Option<&String>) -> bool {
    annotation.is_some_and(|value| value == "true")
}

fn leader(lease: Option<&Lease>) -> Option<&str> {
    lease.map(|l| &*l.holder).filter(|holder| !holder.is_empty())
}

fn status(pod: Option<&Pod>) -> Option<&Status> {
    pod?.status.as_ref()
}

impl View<'_> {
    /// The cluster, if this is a member of one. The leader comes first, then the others by name.
    pub(super) fn cluster(&self) -> Option<Cluster> {
        let view = self.snapshot.cluster.as_ref()?;
        let leader = leader(view.lease.as_ref());
        let mut members: Vec<ClusterMember> = names(view).into_iter().map(|name| self.member(view, name)).collect();
        members.sort_by_key(|m| leader != Some(&m.name));
        Some(Cluster {
            name: view.name.clone(),
            this: view.pod.clone(),
            leader: leader.map(Into::into),
            term: view.lease.as_ref().map(|l| l.term),
            paused: on(view.lease.as_ref().and_then(|l| l.paused.as_ref())),
            members,
        })
    }

    fn account(&self, name: &str) -> Option<&Account> {
        self.answers.get(name)?.as_ref().ok()
    }

    fn member(&self, view: &ClusterView, name: &str) -> ClusterMember {
        let (pod, account, own) = (view.pods.get(name), self.account(name), name == view.pod);
        let (status, receiver) = (status(pod), self.receiver(name));
        let this = own.then(|| self.this());
        let role = match (&this, account) {
            (Some(this), _) => this.role.clone(),
            (None, Some(account)) if account.primary => Some("primary".into()),
            (None, Some(_)) => status.map(|s| s.role.clone()).filter(|role| role == "standby"),
            (None, None) => status.map(|s| s.role.clone()).filter(|role| !role.is_empty()),
        };
        let state = match (&this, pod, status) {
            (Some(this), ..) => this.state.clone(),
            (None, None, _) => "no pod".into(),
            (None, _, Some(status)) if !status.state.is_empty() => status.state.clone(),
            _ => "unknown".into(),
        };
        let began = account.and_then(|a| a.began).map(|b| b.timeline);
        let timeline = this.as_ref().and_then(|t| u32::try_from(t.timeline?).ok());
        let copy = account.and_then(|a| a.copy.as_ref()).or_else(|| status?.copy.as_ref());
        let record = view.lease.as_ref().and_then(|l| l.record.as_ref());
        let listed = |copy: &String| record.map(|r| r.names(name, copy));
        ClusterMember {
            name: name.into(),
            streaming: self.streaming(role.as_deref(), &state, receiver, own),
            role,
            state,
            state_age_seconds: match &this {
                Some(this) => this.state_age_seconds,
                None => receiver.and_then(|r| r.age_seconds.try_into().ok()),
            },
            timeline: timeline.or(began).or_else(|| status?.timeline),
            lsn: account.filter(|a| a.lsn > 0).map(|a| Lsn(a.lsn).to_string()),
            lag_bytes: self.lag(view, name),
            sync: receiver.and_then(|r| r.sync.clone()),
            listed: copy.and_then(listed),
            fenced: on(pod.and_then(|p| p.fenced.as_ref())),
            pending_restart: match &this {
                Some(this) => !this.pending_restart().is_empty(),
                None => status.is_some_and(|s| s.pending_restart),
            },
            reachable: own || account.is_some(),
            problem: status.and_then(|s| s.problem.clone()),
        }
    }

    /// How much WAL of the leader this one has not received. Positions on two timelines cannot be compared.
    fn lag(&self, view: &ClusterView, name: &str) -> Option<u64> {
        let leader = leader(view.lease.as_ref()).filter(|l| *l != name)?;
        let (leader, member) = (self.account(leader)?, self.account(name)?);
        let comparable = leader.lsn > 0 && member.lsn > 0 && leader.began == member.began;
        comparable.then(|| leader.lsn.saturating_sub(member.lsn))
    }

    /// The connection with which the member receives WAL from this one: it calls itself `<pod>_<copy>`.
    fn receiver(&self, name: &str) -> Option<&Receiver> {
        let of = |r: &&Receiver| r.name == name || r.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('_'));
        let receivers = self.replication()?.receivers.iter();
        receivers.filter(of).min_by_key(|r| r.state != "streaming")
    }

    /// None: it is not the time to stream, or only the leader knows.
    fn streaming(&self, role: Option<&str>, state: &str, receiver: Option<&Receiver>, own: bool) -> Option<bool> {
        if role != Some("standby") || state != "running" {
            return None;
        }
        if own {
            return Some(self.facts()?.streaming);
        }
        let primary = self.role() == Some(Role::Primary) && self.replication().is_some();
        primary.then(|| receiver.is_some_and(|r| r.state == "streaming"))
    }

    /// What is wrong with the cluster, beside what is wrong here.
    pub(super) fn cluster_findings(&self, found: &mut Findings) {
        let (Some(view), Some(cluster)) = (&self.snapshot.cluster, self.cluster()) else { return };
        self.office(view, &cluster, found);
        for member in &cluster.members {
            self.about(view, &cluster, member, found);
        }
        view.findings.iter().for_each(|text| found.say(Level::Wrong, text));
    }

    fn office(&self, view: &ClusterView, cluster: &Cluster, found: &mut Findings) {
        match (&view.lease, &cluster.leader) {
            (None, _) => found.say(Level::Wrong, format!("cluster {} has no Lease: nobody leads", view.name)),
            (Some(lease), None) => match lease.free.as_ref().map(|f| &f.to) {
                Some(Some(to)) => found.say(Level::Wrong, format!("nobody leads: office is free for {to}")),
                Some(None) => found.say(Level::Wrong, "nobody leads: office is free for anyone who is listed"),
                None => found.say(Level::Wrong, "nobody leads: the Lease names no holder"),
            },
            (Some(_), Some(leader)) if !view.pods.contains_key(leader) => {
                found.say(Level::Wrong, format!("the leader {leader} has no pod"));
            }
            _ => {}
        }
        if cluster.paused {
            found.say(Level::Waiting, "the cluster is paused: no failover, promotion or demotion by itself");
        }
        if let Some(to) = view.lease.as_ref().and_then(|l| l.switchover_to.as_ref()) {
            found.say(Level::Waiting, format!("a switchover to {to} is asked for"));
        }
    }

    fn about(&self, view: &ClusterView, cluster: &Cluster, member: &ClusterMember, found: &mut Findings) {
        let (name, own) = (&member.name, member.name == view.pod);
        let Some(pod) = view.pods.get(name) else {
            if cluster.leader.as_ref() != Some(name) && !own {
                found.say(Level::Wrong, format!("{name} may take over and has no pod"));
            }
            return;
        };
        match (self.answers.get(name), status(Some(pod))) {
            _ if own => {}
            _ if pod.deleting => found.say(Level::Waiting, format!("{name} is being deleted")),
            (Some(Err(why)), _) => found.say(Level::Wrong, format!("{name} cannot be reached: {why}")),
            (None, None) => found.say(Level::Waiting, format!("{name} has not said anything of itself yet")),
            (None, Some(_)) => found.say(Level::Wrong, format!("{name} cannot be reached: it has not said where")),
            (Some(Ok(_)), _) => {}
        }
        if member.fenced {
            found.say(Level::Waiting, format!("{name} is fenced: its PostgreSQL stays down until that is taken away"));
        }
        if member.streaming == Some(false) && !own {
            found.say(Level::Wrong, format!("{name} does not stream from this leader"));
        }
        if let (Some(leader), true, true) =
            (&cluster.leader, member.reachable, member.role.as_deref() == Some("primary"))
            && leader != name
        {
            found.say(Level::Wrong, format!("{name} runs as a primary, and the leader is {leader}"));
        }
        if let Some(problem) = &member.problem {
            found.say_once(Level::Wrong, &format!("{name}: {problem}"), problem);
        }
        if member.pending_restart && !own {
            found.say(Level::Waiting, format!("{name}: changed settings wait for a restart"));
        }
    }
}

/// Everybody who has a pod, leads or may take over.
fn names(view: &ClusterView) -> BTreeSet<&str> {
    let record = view.lease.iter().filter_map(|l| l.record.as_ref()).flat_map(|r| &r.members).map(|c| &*c.pod);
    let pods = view.pods.keys().map(|name| &**name);
    pods.chain(record).chain(leader(view.lease.as_ref())).chain([&*view.pod]).collect()
}

#[cfg(test)]
mod tests;

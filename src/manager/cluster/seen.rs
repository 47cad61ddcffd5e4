//! How this member is: for the decision about the cluster, for other members, for people.

use super::{Cluster, Manager};
use crate::{
    ha::{
        self, Data, Known, Local, Server,
        member::{Account, ClusterView, Confirming},
        quorum::{Names, Stage},
    },
    lifecycle::{self, Phase, Role},
    postgres::health,
};

impl Manager {
    pub(in crate::manager) fn local_for_cluster(&mut self) -> Option<Local> {
        let address = self.own_address();
        let phase = self.memory.phase.clone();
        let cluster = self.cluster.as_mut()?;
        let now = cluster.now();
        let server = match &phase {
            // What is started now would be killed with the rest.
            _ if cluster.fence.is_killing() => Server::Changing,
            Phase::Running { role: Role::Primary } => Server::Primary,
            Phase::Running { role: Role::Standby } => Server::Standby,
            Phase::Starting | Phase::Stopping { .. } | Phase::CleaningUp => Server::Changing,
            _ => Server::Down,
        };
        let data = match self.memory.data {
            lifecycle::Data::Empty => Data::Empty,
            _ if cluster.notes.unrecorded => Data::Unrecorded,
            lifecycle::Data::Whole | lifecycle::Data::HalfRewound { .. } => Data::Present,
        };
        let settled = matches!(server, Server::Primary | Server::Standby) && self.memory.promoting.is_none();
        if settled || phase == Phase::Idle {
            cluster.stuck = None;
        } else if cluster.stuck.as_ref().is_none_or(|(p, _)| *p != phase) {
            cluster.stuck = Some((phase.clone(), now));
        }
        let limit = cluster.config.duration - cluster.config.margin;
        let waits = cluster.memory.hurries(&cluster.config.pod);
        if server != Server::Primary {
            // Its sessions would only be in the way of a shutdown.
            cluster.leading = None;
            cluster.confirming = super::confirm::Confirming::default();
        }
        let health = cluster.leading.as_ref().map(|l| &l.health);
        let sick = health.and_then(|w| health::verdict(&w.health.borrow(), std::time::Instant::now(), limit).err());
        let full = health.is_some_and(|w| w.health.borrow().full);
        cluster.full_since = if full { cluster.full_since.or(Some(now)) } else { None };
        cluster.hurry.send_if_modified(|hurry| std::mem::replace(hurry, waits) != waits);
        Some(Local {
            data,
            copy: cluster.notes.copy.clone(),
            system_id: cluster.system_id,
            began: cluster.notes.began,
            record: cluster.notes.record.clone(),
            held: cluster.notes.held,
            promised: cluster.notes.promised,
            address,
            server,
            state: phase.name(),
            busy: matches!(phase, Phase::Working { .. } | Phase::Cancelling),
            failed_starts: self.memory.failed_starts,
            stuck_since: cluster.stuck.as_ref().map(|(_, since)| *since),
            sick: sick.map(|s| s.to_string()),
            full_since: cluster.full_since,
            version: Some(cluster.facts.version.clone()).filter(|v| !v.is_empty()),
            pending_restart: !cluster.facts.pending_restart.is_empty(),
            problem: self.problem(),
        })
    }

    fn problem(&self) -> Option<String> {
        match &self.memory.phase {
            Phase::Waiting { .. } => Some(self.memory.reason.to_string()),
            Phase::Running { role: Role::Standby } => self.link.waiting.clone(),
            _ => None,
        }
    }

    /// What this member answers when others ask; the position is asked of PostgreSQL in that moment.
    pub(in crate::manager) fn account(&self) -> Option<Account> {
        let cluster = self.cluster.as_ref()?;
        let memory = &cluster.memory;
        let now = cluster.now();
        let fenced = memory.pods.as_ref().and_then(|p| p.get(&cluster.config.pod)).is_some_and(|p| p.is_fenced());
        let has_data = memory.local.data == Data::Present;
        let ready = memory.local.server == Server::Standby && memory.terminating.is_none();
        let seen = match &memory.known {
            Known::Lease { lease, since } if !lease.holder.is_empty() => Some(now.saturating_sub(*since)),
            _ => None,
        };
        Some(Account {
            pod: cluster.config.pod.clone(),
            instance: cluster.config.instance.clone(),
            copy: has_data.then(|| memory.local.copy.clone()),
            system_id: memory.local.system_id.filter(|_| has_data).map(|id| id.to_string()),
            began: memory.local.began,
            lsn: 0,
            primary: memory.local.server == Server::Primary && memory.in_office().is_some(),
            fit: has_data && ready && !fenced && cluster.config.priority > 0,
            priority: cluster.config.priority,
            term: memory.term,
            seen_ms: seen.map(|s| u64::try_from(s.as_millis()).unwrap_or(u64::MAX)),
        })
    }

    /// That commits are not confirmed as the settings say, for as long as that lasts.
    fn who_confirms(&self) -> Option<String> {
        let Cluster { config, memory, .. } = self.cluster.as_ref()?;
        let wanted = config.sync.standbys;
        let lease = memory.lease().filter(|l| wanted > 0 && !l.holder.is_empty())?;
        let record = lease.record.as_ref()?;
        let leader = record.members.iter().find(|m| m.pod == lease.holder)?;
        let quorum = memory.in_office().and_then(|o| o.quorum.as_ref());
        // A strict leader names its standbys also when they are not there.
        let waits = config.sync.strict && quorum.is_some_and(|q| q.told == Some(0));
        let names = match quorum {
            _ if waits => Names::Nobody,
            Some(quorum) => quorum.names.clone(),
            None => Names::of(record, leader),
        };
        let changes = !waits && quorum.is_some_and(|q| q.stage != Stage::Settled);
        (!changes && names.confirm().is_none_or(|n| n < wanted))
            .then(|| ha::in_words(record, &names, wanted, &leader.pod))
    }

    /// The cluster, as it is shown to people.
    pub(in crate::manager) fn cluster_view(&self) -> Option<ClusterView> {
        let cluster = self.cluster.as_ref()?;
        let Cluster { config, memory, name, .. } = cluster;
        let usual = matches!(memory.reason, ha::Reason::Leads(_) | ha::Reason::Follows(_));
        let mut findings: Vec<String> = (!usual).then(|| memory.reason.to_string()).into_iter().collect();
        let api_silent = memory.silent_since.map(|since| cluster.now().saturating_sub(since));
        let why = &cluster.trouble;
        findings.extend(api_silent.map(|t| format!("for {} s the Kubernetes API cannot be used: {why}", t.as_secs())));
        findings.extend(self.who_confirms());
        findings.extend(memory.trouble.iter().map(|t| format!("the Lease could not be written: {t}")));
        Some(ClusterView {
            name: name.clone(),
            pod: config.pod.clone(),
            lease: memory.lease().cloned(),
            pods: memory.pods.clone().unwrap_or_default(),
            findings,
            api_silent,
            failsafe: memory.in_office().is_some_and(|o| o.failsafe.since.is_some()),
            confirming: memory.in_office().and_then(|o| o.quorum.as_ref()).map(|quorum| Confirming {
                wanted: config.sync.standbys,
                standbys: quorum.names.confirm().filter(|_| !config.sync.strict || quorum.told != Some(0)),
            }),
        })
    }
}

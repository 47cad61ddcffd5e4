//! The loop's part in elections of synchronous clusters: freezing, asking others to freeze, and receiving again.

use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::{sync::oneshot, time::timeout};

use super::Manager;
use crate::{
    cluster::{
        proven::{self, Asked, Door, Unanswered},
        vote::{self, DOOR, Question},
    },
    ha::{
        self,
        votes::{Vote, may_promise},
    },
    lifecycle::{Phase, Role},
    postgres::replication::{clone::random, freeze::Frozen, source},
    settings::official::Secret,
};

/// A candidate replays all that it has before it counts; what it was sent last is replayed in no time, unless replay waits
/// for somebody.
const OWN: Duration = Duration::from_secs(60);

/// A question of another member, as it came.
pub struct MemberAsked {
    /// The question.
    pub asked: Asked,
    /// Where the answer goes, with its proof, or why there is none.
    pub reply: oneshot::Sender<Result<(String, String), Unanswered>>,
}

impl Manager {
    fn is_frozen(&self) -> bool {
        self.cluster.as_ref().is_some_and(|c| c.notes.is_frozen())
    }

    /// Whether a standby here may have a source. Whoever takes over by votes receives nothing more either, and whoever was
    /// promoted after all that the leader knows waits until that one has said what it began itself: by then the two timelines
    /// are known to be others, if they have the same number.
    pub(in crate::manager) fn may_receive(&self) -> bool {
        let taken = |c: &super::Cluster| c.config.sync.standbys > 0 && c.memory.office != ha::Office::Out;
        let after = |c: &super::Cluster| {
            let theirs = c.memory.lease().filter(|l| !l.holder.is_empty()).and_then(|l| l.timeline);
            c.notes.began.zip(theirs).is_some_and(|(ours, theirs)| ours.is_after(theirs))
        };
        !self.is_frozen() && !self.cluster.as_ref().is_some_and(|c| taken(c) || after(c))
    }

    /// Receives again when it may. What becomes a standby later finds its source by itself.
    pub(super) fn attend_promise(&mut self) {
        let receives = self.may_receive();
        let Some(cluster) = &mut self.cluster else { return };
        let before = std::mem::replace(&mut cluster.receives, receives);
        if receives && !before && self.memory.phase == (Phase::Running { role: Role::Standby }) {
            tracing::info!("term {} has a leader: this member receives again", cluster.notes.leader_term);
            self.other_source();
        }
    }

    /// [`ha::Action::Freeze`].
    pub(super) fn freeze_self(&mut self, term: u64) {
        let Some(pod) = self.cluster.as_ref().map(|c| c.config.pod.clone()) else { return };
        let frozen = self.freeze(term, true);
        self.spawn_input(async move {
            let vote = match frozen {
                Ok(frozen) => {
                    timeout(OWN, frozen).await.unwrap_or_else(|_| Err("it has not replayed all it has".into()))
                }
                Err(why) => Err(why),
            };
            Some(match vote {
                Ok(vote) => ha::Input::Voted(vote),
                Err(why) => ha::Input::Refused { pod, why },
            })
        });
    }

    /// Promises the term on disk, then takes the standby's source away. The rest takes time: that it receives nothing any
    /// more, and how far it is.
    fn freeze(
        &mut self,
        term: u64,
        replayed: bool,
    ) -> Result<impl Future<Output = Result<Vote, String>> + use<>, String> {
        let standby = self.memory.phase == (Phase::Running { role: Role::Standby }) && self.memory.promoting.is_none();
        let local = self.local().filter(|_| standby).ok_or("not yet: its PostgreSQL does not run as a standby")?;
        let postmaster = self.server.as_ref().map(|s| s.child.clone()).ok_or("its PostgreSQL does not run")?;
        let cluster = self.cluster.as_mut().ok_or("it is a member of no cluster")?;
        if cluster.notes.promised != term {
            let before = std::mem::replace(&mut cluster.notes.promised, term);
            if let Err(error) = cluster.notes.save(&self.plan.launch.pgdata) {
                cluster.notes.promised = before;
                return Err(format!("its promise cannot be noted: {error}"));
            }
            tracing::info!("term {term} is promised: this member receives nothing before somebody leads in it");
        }
        cluster.receives = false;
        let (pod, copy, origin) = (cluster.config.pod.clone(), cluster.notes.copy.clone(), cluster.origin());
        self.lose_source();
        let launch = &self.plan.launch;
        source::forget_password(&launch.run_dir).map_err(|e| format!("the password of its source stays: {e}"))?;
        self.config.set_owned(self.owned(true));
        let put = self.config.put_in_force(postmaster.clone());
        let (pgdata, bindir, runner) = (launch.pgdata.clone(), launch.bindir.clone(), self.runner.clone());
        Ok(async move {
            put.await.map_err(|e| format!("its source cannot be taken away: {e}"))?;
            let frozen = Frozen { pgdata, local, postmaster, bindir, runner };
            let (end, timeline) = frozen.end_of_wal(replayed).await?;
            Ok(Vote { pod, copy, term, began: origin.of(timeline.map(|t| t.0)), lsn: end.0 })
        })
    }

    /// [`ha::Action::AskVotes`].
    pub(super) fn ask_votes(&self, term: u64, of: &[String]) {
        let (Some(cluster), Some(password)) = (&self.cluster, self.peers.password()) else { return };
        for pod in of {
            let found = cluster.memory.pods.as_ref().and_then(|p| p.get(pod)).and_then(|p| p.status.as_ref());
            let question = Question {
                cluster: cluster.name.clone(),
                term,
                candidate: cluster.config.pod.clone(),
                pod: pod.clone(),
                instance: found.map(|s| s.instance.clone()).unwrap_or_default(),
                nonce: format!("{:016x}", random()),
            };
            let (address, password, pod) = (found.map(|s| s.http.clone()), password.clone(), pod.clone());
            let line = self.line();
            self.spawn_input(async move {
                let voted = match address {
                    Some(address) => vote::ask(&line, &password, &address, &question).await,
                    None => Err("it has not said where it is".into()),
                };
                Some(match voted {
                    Ok(vote) => ha::Input::Voted(vote),
                    Err(why) => ha::Input::Refused { pod, why },
                })
            });
        }
    }

    /// What is asked, by a member, now, and for the first time.
    pub(super) fn question<Q: DeserializeOwned>(
        &mut self,
        door: &Door,
        password: &Secret,
        asked: &Asked,
    ) -> Result<Q, Unanswered> {
        let Some(cluster) = &mut self.cluster else { return Err("it is a member of no cluster".to_string().into()) };
        let now = cluster.now();
        if !cluster.challenges.is_fresh(password, now, &asked.challenge) {
            return Err(Unanswered::Challenged(cluster.challenges.give(password, now)));
        }
        let question = proven::read(door, password, asked)?;
        cluster.challenges.used(now, &asked.challenge);
        Ok(question)
    }

    /// Somebody asks for a vote.
    pub(in crate::manager) fn vote_asked(&mut self, asked: MemberAsked) {
        let MemberAsked { asked, reply } = asked;
        let Some(password) = self.peers.password().filter(|_| self.cluster.is_some()) else { return };
        let question = match self.question::<Question>(&DOOR, &password, &asked) {
            Ok(question) => question,
            Err(why) => return drop(reply.send(Err(why))),
        };
        let frozen = match self.may_vote(&question).and_then(|()| self.freeze(question.term, false)) {
            Ok(frozen) => frozen,
            Err(why) => return drop(reply.send(Err(why.into()))),
        };
        tokio::task::spawn_local(async move {
            let vote = timeout(DOOR.deadline, frozen).await.unwrap_or_else(|_| Err("not yet: it is not frozen".into()));
            if let Ok(vote) = &vote {
                tracing::info!("votes for {} in term {}, at {:X}", question.candidate, vote.term, vote.lsn);
            }
            let answer =
                vote.and_then(|v| proven::answer(&DOOR, &password, &question.nonce, &v).map_err(|e| e.to_string()));
            drop(reply.send(answer.map_err(Unanswered::from)));
        });
    }

    fn may_vote(&self, question: &Question) -> Result<(), String> {
        let Some(cluster) = &self.cluster else { return Err("it is a member of no cluster".into()) };
        let (name, pod, instance) = (&cluster.name, &cluster.config.pod, &cluster.config.instance);
        if (&question.cluster, &question.pod, &question.instance) != (name, pod, instance) {
            return Err(format!("this is {pod} of {name}, started as {instance}, and somebody else was asked"));
        }
        may_promise(&cluster.config, &cluster.memory, cluster.now(), question.term)
    }
}

//! The loop's part in failsafe: asking the others to let this leader stay, and promising another one to wait.

use std::time::Duration;

use futures_util::future::join_all;

use super::{Manager, MemberAsked};
use crate::{
    cluster::consent::{self, DOOR, Question},
    ha::{
        self,
        failsafe::{Bound, Claim, may_consent},
    },
    postgres::replication::clone::random,
};

/// Longer than anybody's lease: what asks for more makes no sense.
const LONGEST: Duration = Duration::from_secs(3600);

impl Manager {
    /// [`ha::Action::AskConsent`].
    pub(super) fn ask_consent(&self, term: u64, of: &[String]) {
        let Some(cluster) = &self.cluster else { return };
        let (password, line) = (self.peers.password(), self.line());
        let question = |pod: &String| {
            let status = cluster.memory.pods.as_ref().and_then(|p| p.get(pod)).and_then(|p| p.status.as_ref());
            let question = Question {
                cluster: cluster.name.clone(),
                term,
                leader: cluster.config.pod.clone(),
                uid: cluster.config.uid.clone(),
                of: cluster.config.instance.clone(),
                duration_ms: u64::try_from(cluster.config.duration.as_millis()).unwrap_or(u64::MAX),
                pod: pod.clone(),
                instance: status.map(|s| s.instance.clone()).unwrap_or_default(),
                nonce: format!("{:016x}", random()),
            };
            (question, status.map(|s| s.http.clone()))
        };
        let questions: Vec<_> = of.iter().map(question).collect();
        self.ask_api(async move |sent| {
            let asked = questions.iter().map(async |(question, address)| match (&password, address) {
                (Some(password), Some(address)) => consent::ask(&line, password, address, question).await,
                (None, _) => Err("members know each other by the password of replication, and there is none".into()),
                (_, None) => Err("it has not said where it is".into()),
            });
            let answers = join_all(asked).await;
            let (mut consents, mut refusals) = (Vec::new(), Vec::new());
            for ((question, _), answer) in questions.iter().zip(answers) {
                match answer {
                    Ok(copy) => consents.push(copy),
                    Err(why) => refusals.push((question.pod.clone(), why)),
                }
            }
            ha::Input::Answered { sent, consents, refusals }
        });
    }

    /// A leader asks this member to wait.
    pub(in crate::manager) fn failsafe_asked(&mut self, asked: MemberAsked) {
        let MemberAsked { asked, reply } = asked;
        let Some(password) = self.peers.password().filter(|_| self.cluster.is_some()) else { return };
        let question = self.question::<Question>(&DOOR, &password, &asked);
        let bound = question.and_then(|question| Ok((self.may_wait(&question)?, question)));
        let (bound, question) = match bound {
            Ok(found) => found,
            Err(why) => return drop(reply.send(Err(why))),
        };
        let copy = self.cluster.as_ref().map(|c| c.notes.copy.clone()).unwrap_or_default();
        self.cluster_step(ha::Input::Bound(bound));
        drop(reply.send(consent::answer(&password, &question, copy).map_err(|e| e.to_string().into())));
    }

    fn may_wait(&self, question: &Question) -> Result<Bound, String> {
        let Some(cluster) = &self.cluster else { return Err("it is a member of no cluster".into()) };
        let (name, pod, instance) = (&cluster.name, &cluster.config.pod, &cluster.config.instance);
        if (&question.cluster, &question.pod, &question.instance) != (name, pod, instance) {
            return Err(format!("this is {pod} of {name}, started as {instance}, and somebody else was asked"));
        }
        let duration = Duration::from_millis(question.duration_ms);
        if duration > LONGEST {
            return Err(format!("a lease-duration of {} s makes no sense", duration.as_secs()));
        }
        let claim = Claim {
            term: question.term,
            pod: question.leader.clone(),
            uid: question.uid.clone(),
            instance: question.of.clone(),
        };
        let now = cluster.now();
        may_consent(&cluster.config, &cluster.memory, now, &claim)?;
        Ok(Bound { term: question.term, until: now + duration })
    }
}

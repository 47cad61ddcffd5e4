//! The look at the source before a data directory is started as its standby: what can be known without a server is
//! decided here, what cannot is left to [`super::follow`], which has one.

use std::path::PathBuf;

use super::{
    divergence::{self, Refusal, Verdict},
    membership::Membership,
    source::{Identity, Source},
};
use crate::{
    lifecycle::{Job, Look, Reason, Repair},
    pid1::Runner,
    postgres::{bindir::Bindir, controldata::ControlData},
};

/// What is looked at.
pub struct Looking {
    /// The data directory, on which no server runs.
    pub pgdata: PathBuf,
    /// Its source.
    pub source: Source,
    /// What is remembered about the two.
    pub membership: Membership,
    /// The programs.
    pub bindir: Bindir,
    /// Starts them.
    pub runner: Runner,
}

/// What was seen, and whether the standby may have its source from its start on.
pub struct Seen {
    /// For the decision.
    pub look: Look,
    /// Whether nothing diverged, for certain.
    pub attach: bool,
}

impl Seen {
    fn without_source(why: impl ToString) -> Self {
        Self { look: Look::Standby(Reason::SourceSilent(why.to_string())), attach: false }
    }

    fn refused(why: impl ToString) -> Self {
        Self { look: Look::Refused(why.to_string()), attach: false }
    }
}

impl Looking {
    /// Looks. Takes some seconds at most; a source that does not answer is looked at again when the standby runs.
    pub async fn look(&self) -> Seen {
        let ours = match ControlData::read(&self.pgdata, &self.bindir, &self.runner).await {
            Ok(ours) => ours,
            Err(why) => return Seen::without_source(why),
        };
        let promoted = self.membership.promoted();
        let (identity, theirs) = match self.source.look().await {
            Ok(seen) => seen,
            Err(why) if promoted => return self.as_it_is(&format!("and the source cannot be asked: {why}")),
            Err(why) => return Seen::without_source(why),
        };
        if let Some(refused) = self.refuse(&ours, &identity) {
            return refused;
        }
        if promoted {
            let overtaken = theirs.history.left(ours.checkpoint_timeline).is_some() && !theirs.in_recovery;
            if !overtaken {
                return self
                    .as_it_is(&format!("and the source, on timeline {}, has not been since", identity.timeline));
            }
            tracing::info!("the source was promoted after this member: following it");
            self.membership.forget_promotion();
        }
        self.judge(&ours, &theirs).await
    }

    fn refuse(&self, ours: &ControlData, theirs: &Identity) -> Option<Seen> {
        if ours.system_identifier != theirs.system_identifier {
            let (ours, theirs) = (ours.system_identifier, theirs.system_identifier);
            return Some(Seen::refused(Refusal::OtherCluster { ours, theirs }));
        }
        (theirs.major != self.bindir.major).then(|| {
            Seen::refused(format!(
                "the source is PostgreSQL {} and this is PostgreSQL {}, which cannot follow it. Nothing was changed",
                theirs.major, self.bindir.major
            ))
        })
    }

    fn as_it_is(&self, why: &str) -> Seen {
        let why = format!("this member was promoted over its source, {why}: it stays a primary");
        Seen { look: Look::AsItIs(Reason::WasPromoted(why)), attach: false }
    }

    async fn judge(&self, ours: &ControlData, theirs: &divergence::Source) -> Seen {
        let (position, certain) = (ours.position(), ours.position().is_some());
        // A standby that was killed may need its source to become consistent, before which nobody can ask it anything. If
        // it got farther than this, the follower sees.
        let Some(position) = position.or_else(|| ours.least_position()) else {
            return Seen::without_source("it crashed: how far it got is known when it has recovered");
        };
        match divergence::judge(&position, theirs) {
            Verdict::Rewind { .. } | Verdict::Clone if !certain => Seen::without_source(
                "it was killed, and seems to have diverged: how far it got is known when it has recovered",
            ),
            Verdict::Follow => match self.source.ensure_slot(&self.membership.slot()).await {
                Ok(_) => {
                    let why = format!("nothing diverged: it can follow {}", self.source.place());
                    Seen { look: Look::Standby(Reason::Follows(why)), attach: true }
                }
                Err(why) => Seen::without_source(why),
            },
            Verdict::Refuse(why) => Seen::without_source(why),
            verdict => Seen { look: Look::Diverged(repair(&verdict, &position, theirs)), attach: false },
        }
    }
}

/// What a verdict of divergence asks for, in words.
pub fn repair(verdict: &Verdict, ours: &divergence::Position, theirs: &divergence::Source) -> Repair {
    let (timeline, end, their_timeline) = (ours.timeline, ours.end, theirs.history.timeline);
    match verdict {
        Verdict::Rewind { left } => Repair {
            job: Job::Rewind,
            why: match left {
                Some(left) => format!(
                    "diverged: timeline {timeline} is written up to {end} here, and the source's timeline \
                     {their_timeline} left it at {left}"
                ),
                None => format!(
                    "diverged: timeline {timeline} is written up to {end} here, and is not in the past of the source's \
                     timeline {their_timeline}"
                ),
            },
        },
        _ => Repair {
            job: Job::Clone,
            why: format!(
                "diverged: timeline {timeline} is written up to {end} here, and the source, a primary on the same timeline, \
                 only up to {}",
                theirs.flushed
            ),
        },
    }
}

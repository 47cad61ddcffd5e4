//! What the loop has others wait for: that the server becomes ready or changes its role, and that nothing is left of it.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use nix::sys::signal::Signal;

use super::{Event, Events};
use crate::{
    lifecycle::{Input, Role},
    pid1::Child,
    postgres::{
        processes,
        replication::clone::in_thread,
        server::{self, Launch},
        stage,
    },
};

/// How long processes of a server that was killed get to notice it by themselves, and to obey SIGQUIT after that.
/// Backends notice the postmaster's death when they next wait for something (latch.c), busy ones do not.
const LEFTOVER_PATIENCE: Duration = Duration::from_secs(5);

/// How often `postmaster.pid` is read: while a start should take moments, while it takes long, and on a standby, where
/// only the end of recovery is of interest.
const POLL_QUICK: Duration = Duration::from_millis(5);
const POLL_SLOW: Duration = Duration::from_millis(100);
const POLL_STANDBY: Duration = Duration::from_millis(500);
/// While a promotion is awaited, each time counts in which nobody can write.
const POLL_PROMOTION: Duration = Duration::from_millis(2);

/// Sends the role whenever it changes; returns when it cannot change any more.
pub(super) async fn watch_role(pgdata: &Path, child: &Child, stale: Option<SystemTime>, events: &Events) {
    let begun = Instant::now();
    let mut told = None;
    while child.is_running() {
        let role = server::role(pgdata, child.pid, stale);
        if let Some(role) = role.filter(|r| Some(*r) != told) {
            told = Some(role);
            let _ = events.send(Event::Input(Input::Ready(role))).await;
        }
        let pause = match told {
            Some(Role::Primary) => return,
            Some(Role::Standby) => POLL_STANDBY,
            None if begun.elapsed() < LEFTOVER_PATIENCE => POLL_QUICK,
            None => POLL_SLOW,
        };
        tokio::time::sleep(pause).await;
    }
}

/// Waits for processes that a dead postmaster left behind, then stops them: with leftovers of the old server in its
/// shared memory a new one must not start, and it would refuse to. Returns when none is left, however long that takes:
/// on stalled storage processes do not even die of SIGKILL, and may still write when it recovers.
pub(super) async fn end_leftovers(launch: &Launch) {
    let mut signals = [Signal::SIGQUIT, Signal::SIGKILL].into_iter();
    let mut pause = POLL_QUICK;
    loop {
        let gone = async {
            while !processes::of_postgres_on(&launch.pgdata).is_empty() {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(POLL_SLOW);
            }
        };
        if tokio::time::timeout(LEFTOVER_PATIENCE, gone).await.is_ok() {
            return;
        }
        let left = processes::of_postgres_on(&launch.pgdata);
        let signal = signals.next().unwrap_or(Signal::SIGKILL);
        tracing::warn!(pids = ?left, "processes of PostgreSQL outlived their postmaster: sending {signal}");
        processes::signal_all(&left, signal);
    }
}

/// Sends the role as soon as a promotion has happened.
pub(super) async fn watch_promotion(pgdata: &Path, child: &Child, events: &Events) {
    while child.is_running() {
        if server::role(pgdata, child.pid, None) == Some(Role::Primary) {
            let _ = events.send(Event::Input(Input::Ready(Role::Primary))).await;
            return;
        }
        tokio::time::sleep(POLL_PROMOTION).await;
    }
}

/// Between two looks at the room that a kept directory takes.
const ROOM_PAUSE: Duration = Duration::from_secs(30);

/// Gives the room that a former data directory takes back before the volume is full, for as long as the manager runs.
pub(super) async fn watch_room(pgdata: PathBuf) {
    loop {
        tokio::time::sleep(ROOM_PAUSE).await;
        if stage::kept(&pgdata).is_none() {
            continue;
        }
        let at = pgdata.clone();
        match in_thread(move || stage::make_room(&at)).await {
            Ok(None) => {}
            Ok(Some(old)) => {
                tracing::warn!("{} was removed: less than a tenth of the volume was free", old.display());
            }
            Err(e) => tracing::warn!("the former data directory takes room and cannot be removed: {e}"),
        }
    }
}

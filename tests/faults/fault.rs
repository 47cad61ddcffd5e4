//! The faults: what is done, and how it ends.

use std::{net::Ipv4Addr, time::Instant};

use serde_json::json;

use crate::{
    cluster::Cluster,
    harness::*,
    member::Member,
    network::{BOTH, Direction},
    proxy::Proxy,
};

/// Pseudo-random numbers that can be had again (xorshift, Marsaglia 2003).
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).expect("below a usize")
    }

    fn one_of<T: Copy>(&mut self, those: &[T]) -> T {
        those[self.below(those.len())]
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL to the container.
    Kill,
    /// The same, and the kubelet restarts it at once.
    KillAndRestart,
    /// All processes of the container stand still.
    Freeze,
    /// The manager stands still; its server and its guard do not.
    FreezeManager,
    /// SIGKILL to the postmaster.
    KillPostmaster,
    /// The postmaster stands still; its sessions do not.
    FreezePostmaster,
    /// The pod is deleted: TERM, and SIGKILL when its time is over; then a new pod on its volume.
    Delete,
    /// As when a node is lost for good: the container dies, and a new pod gets the volume.
    Replace,
    /// The volume is lost with the container.
    LoseVolume,
    /// No packet of these directions between the member and the API server.
    CutApi(&'static [Direction]),
    /// The same between it and another member.
    CutMember(usize, &'static [Direction]),
    /// Cut off from everybody but clients.
    Isolate,
    /// The clock that its programs see jumps by so many seconds.
    StepClock(i32),
    /// Somebody asks for it as the primary.
    Promote,
    /// Somebody deletes the Lease.
    DeleteLease,
    /// The API server is not there, for anybody.
    ApiDown,
    /// The API server takes its time.
    ApiSlow,
    /// The API server answers a third of all requests with an error.
    ApiErrors,
}

const DIRECTIONS: [&[Direction]; 3] = [&BOTH, &[Direction::In], &[Direction::Out]];

impl Fault {
    /// Any, for this member.
    pub fn any(random: &mut Random, victim: usize, members: usize, is_primary: bool) -> Self {
        let other = (victim + 1 + random.below(members - 1)) % members;
        let fault = match random.below(18) {
            0 => Self::Kill,
            1 => Self::KillAndRestart,
            2 => Self::Freeze,
            3 => Self::FreezeManager,
            4 => Self::KillPostmaster,
            5 => Self::FreezePostmaster,
            6 => Self::Delete,
            7 => Self::Replace,
            8 => Self::LoseVolume,
            9 => Self::CutApi(random.one_of(&DIRECTIONS)),
            10 => Self::CutMember(other, random.one_of(&DIRECTIONS)),
            11 => Self::Isolate,
            12 => Self::StepClock(random.one_of(&[-600, -20, -3, 3, 20, 600, 7200])),
            13 => Self::Promote,
            14 => Self::DeleteLease,
            15 => Self::ApiDown,
            16 => Self::ApiSlow,
            _ => Self::ApiErrors,
        };
        // Who loses the only complete copy has lost it.
        if fault == Self::LoseVolume && is_primary { Self::Kill } else { fault }
    }

    /// Its kind, to count by.
    pub fn name(self) -> String {
        let text = format!("{self:?}");
        text.split('(').next().unwrap_or_default().to_string()
    }

    pub fn happen(
        self,
        cluster: &Cluster,
        members: &mut [Member<'_>],
        victim: usize,
        proxy: &mut Proxy,
        clocks: &Clocks,
    ) {
        let running = members[victim].container.is_running();
        let member = &mut members[victim];
        match self {
            Self::Kill if running => member.kill(),
            Self::KillAndRestart if running => {
                member.kill();
                member.restart_in_place();
            }
            Self::Freeze if running => drop(docker(&["pause", &member.container.name])),
            Self::FreezeManager if running => member.signal_manager("STOP"),
            Self::KillPostmaster | Self::FreezePostmaster if running => {
                let signal = if self == Self::KillPostmaster { "KILL" } else { "STOP" };
                let order = format!("kill -{signal} $(head -n 1 {}/postmaster.pid)", crate::member::DATA);
                // It may be down just now.
                member.container.exec(&["timeout", "5", "bash", "-c", &order]);
            }
            Self::Delete if running => {
                member.delete();
                docker(&["stop", "--time", "30", &member.container.name]);
                member.report_end();
                member.recreate();
            }
            Self::Replace => member.recreate(),
            Self::LoseVolume => member.recreate_empty(),
            Self::CutApi(directions) if running => member.cut_api(directions),
            Self::CutMember(other, directions) if running => members[victim].cut_member(&members[other], directions),
            Self::Isolate if running => {
                member.cut_api(&BOTH);
                for other in (0..members.len()).filter(|n| *n != victim) {
                    members[victim].cut_member(&members[other], &BOTH);
                }
            }
            Self::StepClock(seconds) => clocks.step(victim, seconds),
            Self::Promote => member.annotate("promote", json!("please")),
            Self::DeleteLease => drop(cluster.api.delete(&cluster.lease_path(), 0)),
            Self::ApiDown => proxy.rules("  tcp-request connection reject"),
            Self::ApiSlow => {
                proxy.rules("  tcp-request inspect-delay 1500ms\n  tcp-request content accept if WAIT_END")
            }
            Self::ApiErrors => proxy.rules("  http-request return status 500 if { rand(3) eq 0 }"),
            // What is not there cannot be hit.
            _ => {}
        }
    }
}

/// Ends what has an end. Whom it has thawed, and when.
pub fn heal(members: &mut [Member<'_>], proxy: &mut Proxy, clocks: &Clocks) -> Vec<(Ipv4Addr, Instant)> {
    let mut thawed = Vec::new();
    proxy.rules("");
    for member in members {
        clocks.step(member.n, 0);
        if member.container.inspect("{{.State.Status}}") == "paused" {
            thawed.push((member.address(), Instant::now()));
            docker(&["unpause", &member.container.name]);
        }
        if member.container.is_running() {
            docker(&["kill", "--signal", "CONT", &member.container.name]);
            member.heal();
        }
        let thaw = format!("kill -CONT $(head -n 1 {}/postmaster.pid)", crate::member::DATA);
        member.container.exec(&["timeout", "5", "bash", "-c", &thaw]);
        if !member.container.is_running() {
            member.restart_in_place();
        }
    }
    thawed
}

/// The clocks that the programs of each member see, by [libfaketime](https://github.com/wolfcw/libfaketime): those of the
/// wall, not those that only count.
pub struct Clocks(Files);

impl Clocks {
    /// Adds what members need to the options that each has.
    pub fn new() -> Self {
        Self(Files::new(&[]))
    }

    /// docker's options for the member's container.
    pub fn options(&self, n: usize) -> Vec<String> {
        self.step(n, 0);
        let file = self.0.path().join(format!("clock-{n}"));
        let options = [
            format!("--volume={}:/faketime/libfaketime.so.1:ro", library().display()),
            format!("--volume={}:/faketime/clock", file.display()),
            "--env=LD_PRELOAD=/faketime/libfaketime.so.1".into(),
            "--env=FAKETIME_TIMESTAMP_FILE=/faketime/clock".into(),
            "--env=FAKETIME_CACHE_DURATION=1".into(),
            "--env=FAKETIME_DONT_FAKE_MONOTONIC=1".into(),
        ];
        options.to_vec()
    }

    /// From now on it is so many seconds off.
    pub fn step(&self, n: usize, seconds: i32) {
        // Written into, as containers have mounted this very file.
        let file = self.0.path().join(format!("clock-{n}"));
        std::fs::write(&file, format!("{seconds:+}\n")).expect("the file of a clock can be written");
        set_readable(&file);
    }
}

/// Of this machine's architecture, which is the images' too.
fn library() -> std::path::PathBuf {
    let directories = std::fs::read_dir("/usr/lib").expect("/usr/lib").flatten();
    let mut found = directories.map(|d| d.path().join("faketime/libfaketime.so.1")).filter(|file| file.exists());
    found.next().expect("Debian's package libfaketime is installed: tests/run does so")
}

fn set_readable(file: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o644)).expect("the mode can be set");
}

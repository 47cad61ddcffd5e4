//! The primary's storage is full, or stalls.

use std::{path::PathBuf, process::Command};

use crate::{
    cluster::Cluster,
    failover::{LEASE, SLACK, TAIL},
    harness::*,
    load::Load,
    member::Member,
};

#[test]
fn a_primary_whose_disk_is_full_is_replaced() {
    let cluster = Cluster::new(17);
    let small = || Volume::small(512);
    let members = [Member::on(&cluster, 0, small()), Member::on(&cluster, 1, small())];
    let p = cluster.settle(&members).n;
    let load = Load::start(&cluster, &members[p]);
    let fill = members[p].container.exec(&["dd", "if=/dev/zero", "of=/var/lib/postgresql/fill", "bs=1M"]);
    assert!(stderr(&fill).contains("No space"), "{}", stderr(&fill));
    let next = cluster.primary_other_than(p, &members).n;
    load.wait_for(&cluster, &members[next]);
    members[p].container.shell("rm /var/lib/postgresql/fill");
    assert_eq!(cluster.settle(&members).n, next);
    load.finish(&cluster, &members[next]).lost_at_most(TAIL);
}

#[test]
fn a_primary_whose_storage_stalls_is_replaced_and_comes_back_when_it_goes_on() {
    let cluster = Cluster::new(17);
    let disks = [Disk::new(1024), Disk::new(1024)];
    let members = [Member::on(&cluster, 0, disks[0].volume()), Member::on(&cluster, 1, disks[1].volume())];
    let p = cluster.settle(&members).n;
    let load = Load::start(&cluster, &members[p]);
    let stalled = disks[p].stall();
    let next = cluster.primary_other_than(p, &members).n;
    load.wait_for(&cluster, &members[next]);
    // Killed, its processes are there until the storage lets them die.
    assert!(!members[p].is_writable());
    drop(stalled);
    assert_eq!(cluster.settle(&members).n, next);
    load.finish(&cluster, &members[next]).lost_at_most(TAIL).gap_at_most(2 * LEASE + SLACK);
}

/// A file system of its own, which can be made to stall.
struct Disk {
    directory: tempfile::TempDir,
    device: String,
}

impl Disk {
    fn new(megabytes: u64) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("disk");
        let made = std::fs::File::create(&file).and_then(|f| f.set_len(megabytes << 20));
        made.expect("a file of that size");
        let file = file.to_str().expect("a name in UTF-8");
        root(&["mkfs.ext4", "-q", "-E", "root_owner=999:999", file]);
        let device = root(&["losetup", "--find", "--show", file]);
        Self { directory, device }
    }

    /// Docker mounts it for whoever uses it.
    fn volume(&self) -> Volume {
        let name = unique("volume");
        let device = format!("device={}", self.device);
        docker_ok(&["volume", "create", "--opt", "type=ext4", "--opt", &device, &name]);
        Volume(name)
    }

    /// Whoever writes waits, and cannot even be killed, until this is dropped.
    fn stall(&self) -> Stalled {
        let at = root(&["findmnt", "--noheadings", "--first-only", "--output=TARGET", "--source", &self.device]);
        root(&["fsfreeze", "--freeze", &at]);
        Stalled(at.into())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        root(&["losetup", "--detach", &self.device]);
    }
}

struct Stalled(PathBuf);

impl Drop for Stalled {
    fn drop(&mut self) {
        root(&["fsfreeze", "--unfreeze", self.0.to_str().expect("a name in UTF-8")]);
    }
}

/// Runs a command; it must succeed. Gives back its stdout.
#[allow(clippy::disallowed_methods, reason = "not PID 1")]
fn root(command: &[&str]) -> String {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = Command::new("timeout").arg("30").args(command).env("PATH", path).output();
    let output = output.expect("timeout can be executed");
    assert!(output.status.success(), "{command:?}: {}", stderr(&output));
    stdout(&output)
}

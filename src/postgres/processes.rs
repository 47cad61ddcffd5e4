//! Which processes are PostgreSQL's, read from `/proc`. Only what the kernel says counts, not what a pid file claims:
//! `kill(pid, 0)` succeeds for the id of a thread, for a zombie and for any unrelated program.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Whether `pid` is a process (not a thread, not a zombie) that runs a PostgreSQL server on `pgdata`.
pub fn is_postgres_on(pid: Pid, pgdata: &Path) -> bool {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    is_ours(&proc) && is_live_process(&proc, pid) && runs_postgres(&proc) && works_in(&proc, pgdata)
}

/// The processes of PostgreSQL on `pgdata`. After a postmaster was killed these are its orphans.
pub fn of_postgres_on(pgdata: &Path) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).map(Pid::from_raw);
    pids.filter(|pid| is_postgres_on(*pid, pgdata)).collect()
}

/// Sends `signal` to each of `pids`.
pub fn signal_all(pids: &[Pid], signal: Signal) {
    for pid in pids {
        let _ = kill(*pid, signal);
    }
}

/// A server insists on owning its data directory (`checkDataDir`, miscinit.c), and so do we: whatever runs as another
/// user, such as another server on the same machine, is on another directory.
fn is_ours(proc: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(proc).is_ok_and(|m| m.uid() == nix::unistd::geteuid().as_raw())
}

/// `/proc/<tid>` opens for threads too, so the thread group must be the process's own.
fn is_live_process(proc: &Path, pid: Pid) -> bool {
    let Ok(status) = fs::read_to_string(proc.join("status")) else { return false };
    let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).map(str::trim);
    field("Tgid:") == Some(&pid.to_string()) && field("State:").is_some_and(|s| !s.starts_with(['Z', 'X']))
}

/// The program file's name; `comm` where the link cannot be read.
fn runs_postgres(proc: &Path) -> bool {
    match fs::read_link(proc.join("exe")) {
        // An upgraded package leaves "/usr/lib/postgresql/15/bin/postgres (deleted)".
        Ok(exe) => exe.file_name().is_some_and(|n| n.to_string_lossy().trim_end_matches(" (deleted)") == "postgres"),
        Err(_) => fs::read_to_string(proc.join("comm")).is_ok_and(|c| c.trim() == "postgres"),
    }
}

/// Every process of a server has its data directory as working directory (`ChangeToDataDir`, miscinit.c). Compared by
/// inode, since one directory can be mounted at several paths. Unknown counts as yes: the careful answer.
fn works_in(proc: &Path, pgdata: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (fs::metadata(proc.join("cwd")), fs::metadata(pgdata)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_this_process_nor_a_thread_nor_nobody_is_postgres() {
        let dir = tempfile::tempdir().unwrap();
        let me = nix::unistd::getpid();
        assert!(!is_postgres_on(me, dir.path()));
        assert!(is_live_process(Path::new(&format!("/proc/{me}")), me));
        let (ask, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || wait.recv());
        let tid = fs::read_dir("/proc/self/task")
            .unwrap()
            .map(|e| Pid::from_raw(e.unwrap().file_name().to_str().unwrap().parse().unwrap()))
            .find(|t| *t != me)
            .unwrap();
        assert!(Path::new(&format!("/proc/{tid}")).exists(), "a thread's directory opens");
        assert!(!is_live_process(Path::new(&format!("/proc/{tid}")), tid));
        drop(ask);
        let _ = thread.join();
        assert!(of_postgres_on(dir.path()).is_empty());
    }
}

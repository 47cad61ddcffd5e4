//! The reaper. In a test program of its own: it reaps every child of the process, those of other tests too.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test program")]

use std::{process::Command, time::Duration};

use nix::sys::signal::Signal;
use podgres::pid1::{self, Child, Children, Exit};

/// Runs `test` on one thread, with a reaper behind it as in the manager.
fn with_reaper<F: Future<Output = ()>>(test: impl FnOnce(Children) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let children = Children::default();
    runtime.block_on(async {
        let mut signals = pid1::Signals::install().unwrap();
        let reaper = async {
            loop {
                signals.next().await.unwrap();
                children.reap();
            }
        };
        let test = tokio::time::timeout(Duration::from_secs(60), test(children.clone()));
        tokio::select! { done = test => done.expect("finished within a minute"), () = reaper => {} }
    });
}

#[test]
fn every_end_is_told_to_whoever_waits_for_it() {
    with_reaper(|children| async move {
        for code in 0..=255 {
            let mut child = children.spawn(Command::new("sh").args(["-c", &format!("exit {code}")])).unwrap();
            assert_eq!(child.wait().await, Exit::Code(code));
            assert_eq!(child.wait().await, Exit::Code(code), "asked again");
            assert!(!child.is_running());
        }
        let mut child = children.spawn(Command::new("sleep").arg("1000")).unwrap();
        child.signal(Signal::SIGKILL);
        assert_eq!(child.wait().await, Exit::Signal(9));
        child.signal(Signal::SIGKILL); // to nobody

        // Many at once, with orphans between them (this process is made their adopter).
        nix::sys::prctl::set_child_subreaper(true).unwrap();
        let many: Vec<Child> = (0..100)
            .map(|i| children.spawn(Command::new("sh").args(["-c", &format!("(exit 2) & exit {i}")])).unwrap())
            .collect();
        for (i, mut child) in (0..100).zip(many) {
            assert_eq!(child.wait().await, Exit::Code(i));
        }
        assert!(children.spawn(&mut Command::new("/does/not/exist")).is_err());
    });
}

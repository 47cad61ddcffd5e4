//! Hand-overs, and what else people ask for.

use super::*;

#[test]
fn a_switchover_is_a_checkpoint_a_shutdown_and_a_lease_freed_for_the_target() {
    let mut a = Member::leader("a");
    assert!(!a.pod("b", |p| p.promote = Some("1".into())).contains(&Action::Checkpoint), "who streams may be old news");
    assert!(a.memory.hurries("a") && a.looks().contains(&Action::Checkpoint));
    a.now += MS(300);
    let actions = a.give(Input::Checkpointed);
    assert_eq!(aims(&actions), [Goal::Down]);
    assert!(!kills(&actions) && actions.contains(&Action::AwaitTarget("b".into())));
    a.local(|l| l.server = Server::Changing);
    assert!(a.give(Input::CaughtUp(Ok(()))).contains(&Action::Quit));
    assert!(a.take_written().is_none(), "not before it is reaped");
    a.now += MS(100);
    a.local(|l| l.server = Server::Down);
    let Some(freed) = a.take_written() else { panic!("{:?}", a.done) };
    assert_eq!((freed.holder.as_str(), freed.free.clone()), ("", Some(Free { term: 8, to: Some(copy("b")) })));
    let freed = Lease { version: "50".into(), renewed: "x".into(), ..freed };
    let actions = a.give(Input::Written { sent: a.now, result: Ok(freed.clone()) });
    assert!(actions.contains(&Action::Disarm));
    assert_eq!(aims(&actions), [Goal::Standby]);
    a.now += MS(50);
    let taken = Lease {
        version: "51".into(),
        term: 9,
        timeline: Some(Began { term: 9, timeline: 2 }),
        free: None,
        ..led_by("b")
    };
    let actions = a.give(Input::Lease(Some(taken)));
    let outcome = actions.iter().find_map(|x| match x {
        Action::PatchPod { pod, annotations, .. } if pod == "b" => annotations.get("last-command").cloned().flatten(),
        _ => None,
    });
    let outcome = outcome.expect("the outcome is on the pod that was annotated");
    assert!(outcome.contains("150 ms") && outcome.contains("done"), "{outcome}");
}

#[test]
fn a_target_that_cannot_take_over_is_refused_in_words() {
    let refusal = |change: &dyn Fn(&mut Member)| {
        let mut a = Member::leader("a");
        change(&mut a);
        a.done.clear();
        let mut actions = a.pod("b", |p| p.promote = Some("yes".into()));
        actions.extend(a.looks());
        actions.extend(a.after(S(3)));
        assert!(!actions.contains(&Action::Checkpoint), "{actions:?}");
        let note = actions
            .into_iter()
            .find_map(|x| if let Action::Event { note, warning: true, .. } = x { Some(note) } else { None });
        note.unwrap()
    };
    assert!(refusal(&|a| drop(a.streams(&["c"]))).contains("b does not stream"));
    assert!(refusal(&|a| drop(a.pod("b", |p| p.fenced = Some("true".into())))).contains("fenced"));
    let row =
        |lag, streaming| Standby { name: format!("b_{}", copy("b")), lag, streaming, flushed: None, replied: None };
    assert!(refusal(&|a| drop(a.give(Input::Standbys(vec![row(Some(101), true)])))).contains("101 bytes behind"));
    assert!(refusal(&|a| drop(a.give(Input::Standbys(vec![row(Some(0), false)])))).contains("catching up"));
    let mut a = Member::leader("a");
    a.pod("a", |p| p.promote = Some("yes".into()));
    a.looks();
    assert!(format!("{:?}", a.done).contains("a is the primary already"));
}

#[test]
fn a_slip_of_the_pen_is_kept_and_complained_of_once() {
    let mut a = Member::leader("a");
    let lease = Lease { version: "80".into(), switchover_to: Some("d".into()), ..a.memory.lease().unwrap().clone() };
    a.give(Input::Lease(Some(lease)));
    let actions = a.looks();
    let complaints = |actions: &[Action]| {
        actions.iter().filter(|x| matches!(x, Action::Event { reason: "BadAnnotation", .. })).count()
    };
    assert_eq!((complaints(&actions), actions.contains(&Action::ClearSwitchover)), (1, false), "{actions:?}");
    assert_eq!(complaints(&a.after(S(1))), 0);
}

#[test]
fn a_leader_that_is_told_to_end_hands_over_first() {
    let mut a = Member::leader("a");
    a.give(Input::Terminate { hand_over: true });
    assert!(a.looks().contains(&Action::Checkpoint));
    let mut alone = Member::leader("a");
    alone.give(Input::Standbys(Vec::new()));
    alone.give(Input::Terminate { hand_over: true });
    let actions = alone.looks();
    assert_eq!(aims(&actions), [Goal::Down], "with nobody to hand over to it just stops");
    alone.local(|l| l.server = Server::Down);
    assert_eq!(alone.take_written().unwrap().free, Some(Free { term: 8, to: None }));
    let free = Lease { version: "90".into(), renewed: "y".into(), ..freed(None) };
    let actions = alone.give(Input::Written { sent: alone.now, result: Ok(free) });
    assert!(actions.contains(&Action::Exit), "{actions:?}");
}

#[test]
fn reinit_is_refused_on_the_primary() {
    let mut a = Member::leader("a");
    let actions = a.pod("a", |p| p.reinit = Some("1".into()));
    assert!(!actions.contains(&Action::Reinit) && format!("{actions:?}").contains("the primary"), "{actions:?}");
    let mut b = Member::standby("b", &led_by("a"));
    assert!(b.pod("b", |p| p.reinit = Some("1".into())).contains(&Action::Reinit));
    assert!(!b.pod("b", |_| {}).contains(&Action::Reinit), "once");
}

#[test]
fn a_watch_that_is_quicker_than_the_answer_to_the_write_ends_no_office_in_anger() {
    let mut a = Member::leader("a");
    a.pod("b", |p| p.promote = Some("1".into()));
    a.looks();
    a.give(Input::Checkpointed);
    a.give(Input::CaughtUp(Ok(())));
    a.local(|l| l.server = Server::Down);
    let freed = Lease { version: "50".into(), renewed: "x".into(), ..a.take_written().unwrap() };
    a.done.clear();
    a.give(Input::Lease(Some(freed.clone())));
    assert!(!kills(&a.done) && a.memory.handed_over.is_some(), "{:?}", a.done);
    a.give(Input::Written { sent: a.now, result: Ok(freed) });
    assert!(!kills(&a.done) && a.memory.in_office().is_none(), "{:?}", a.done);
}

#[test]
fn a_request_waits_a_moment_for_its_standby() {
    let mut a = Member::leader("a");
    a.streams(&["c"]);
    a.done.clear();
    assert!(!a.pod("b", |p| p.promote = Some("1".into())).contains(&Action::Checkpoint));
    assert!(a.memory.hurries("a"));
    a.now += S(1);
    assert!(a.streams(&["b", "c"]).contains(&Action::Checkpoint));
    assert!(!format!("{:?}", a.done).contains("RequestRefused"));
}

#[test]
fn nobody_stops_for_a_target_that_does_not_answer() {
    let mut a = Member::leader("a");
    a.pod("b", |p| p.promote = Some("1".into()));
    assert!(a.looks().contains(&Action::Checkpoint));
    let actions = a.give(Input::TargetSilent("no route".into()));
    assert!(aims(&actions).is_empty() && !actions.contains(&Action::Checkpoint), "{actions:?}");
    let refused = |x: &Action| matches!(x, Action::Event { note, warning: true, .. } if note.contains("no route"));
    assert_eq!(actions.iter().filter(|x| refused(x)).count(), 1, "{actions:?}");
    assert!(!a.after(S(1)).iter().any(refused), "once");

    // Who leaves in any case leaves to another one, or to nobody in particular.
    let mut a = Member::leader("a");
    a.give(Input::Terminate { hand_over: true });
    assert!(a.looks().contains(&Action::Checkpoint));
    assert!(a.give(Input::TargetSilent("no route".into())).contains(&Action::Checkpoint), "the next best is asked");
    assert_eq!(aims(&a.give(Input::TargetSilent("no route".into()))), [Goal::Down]);
}

#[test]
fn a_full_volume_hinders_a_shutdown_only_for_a_moment() {
    let mut a = Member::leader("a");
    a.streams(&["b"]);
    a.granted();
    let now = a.now;
    a.local(|l| l.full_since = Some(now));
    a.after(S(10));
    a.granted();
    let actions = a.give(Input::Checkpointed);
    assert!(aims(&actions) == [Goal::Down] && !kills(&actions), "{actions:?}");
    assert!(!kills(&a.after(S(4))));
    a.granted();
    assert!(kills(&a.after(S(1))), "{:?}", a.done);
    a.granted();
    assert!(!kills(&a.after(S(1))), "once is enough");
    a.granted();
    a.give(Input::CaughtUp(Err("PostgreSQL ended before".into())));
    a.local(|l| l.server = Server::Down);
    let freed = a.take_written().unwrap();
    assert!(freed.holder.is_empty() && freed.free.unwrap().to.is_none());
}

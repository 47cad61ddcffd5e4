use super::*;

const LIMITS: Limits = Limits { shutdown_timeout: Duration::from_secs(25) };

/// Feeds inputs one second apart and collects what the decision answers.
struct Run {
    memory: Memory,
    now: Mono,
    actions: Vec<Action>,
}

impl Run {
    fn new(initialised: bool) -> Self {
        let run = Self { memory: Memory::default(), now: Mono::ZERO, actions: Vec::new() };
        run.then(Input::Begin { initialised })
    }

    /// A server that accepts connections.
    fn running() -> Self {
        Self::new(true).then(Input::Ready(Role::Primary)).forget()
    }

    fn then(mut self, input: Input) -> Self {
        self.now += Duration::from_secs(1);
        let (memory, actions) = step(&LIMITS, self.memory, self.now, input);
        self.memory = memory;
        self.actions.extend(actions);
        self
    }

    fn later(mut self, seconds: u64) -> Self {
        self.now += Duration::from_secs(seconds);
        self
    }

    /// Lets the time of the next deadline come.
    fn timer(mut self) -> Self {
        self.now = self.memory.deadline().expect("a deadline") - Duration::from_secs(1);
        self.then(Input::Timer)
    }

    fn forget(mut self) -> Self {
        self.actions.clear();
        self
    }

    fn does(mut self, actions: &[Action]) -> Self {
        assert_eq!(self.actions, actions, "in {:?}", self.memory);
        self.actions.clear();
        self
    }

    fn exits_with(self, code: i32) {
        assert_eq!(self.memory.phase, Phase::Ended { code });
        assert_eq!(self.actions.last(), Some(&Action::Exit(code)));
    }

    /// The postmaster ends and leaves nothing behind.
    fn ends(self, exit: Exit) -> Self {
        self.then(Input::Exited(exit)).then(Input::CleanedUp)
    }
}

use Signal::{Hup, Int, Quit, Term, Usr1};

fn signal(signal: Signal) -> Input {
    Input::Signal(signal)
}

#[test]
fn an_empty_directory_is_initialised_and_then_started() {
    Run::new(false)
        .does(&[Action::Initialise])
        .then(Input::InitialisationDone(Ok(())))
        .does(&[Action::Start])
        .then(Input::Ready(Role::Primary))
        .does(&[]);
}

#[test]
fn a_failed_initialisation_ends_the_manager_with_1() {
    Run::new(false).then(Input::InitialisationDone(Err("x".into()))).exits_with(1);
}

#[test]
fn an_orderly_stop_ends_with_0() {
    for kind in [Term, Int] {
        Run::running()
            .then(signal(kind))
            .does(&[Action::Stop(Stop::Fast)])
            .then(Input::Exited(Exit::Code(0)))
            .does(&[Action::CleanUp])
            .then(Input::CleanedUp)
            .exits_with(0);
    }
}

#[test]
fn a_second_signal_escalates_and_shows_in_the_exit_code() {
    Run::running()
        .then(signal(Term))
        .does(&[Action::Stop(Stop::Fast)])
        .then(signal(Term))
        .does(&[Action::Stop(Stop::Immediate)])
        .ends(Exit::Code(1))
        .exits_with(128 + 15);
    Run::running().then(signal(Term)).then(signal(Int)).ends(Exit::Code(1)).exits_with(128 + 2);
}

#[test]
fn quit_is_immediate_and_never_softened() {
    Run::running()
        .then(signal(Quit))
        .then(signal(Quit))
        .then(signal(Term))
        .does(&[Action::Stop(Stop::Immediate)])
        .ends(Exit::Code(1))
        .exits_with(128 + 15);
    Run::running().then(signal(Quit)).ends(Exit::Code(0)).exits_with(128 + 3);
}

#[test]
fn a_stop_that_takes_too_long_gets_harder_by_itself() {
    let run = Run::running().then(signal(Term)).forget();
    assert_eq!(run.memory.deadline(), Some(run.now + LIMITS.shutdown_timeout));
    let run = run.timer().does(&[Action::Stop(Stop::Immediate)]);
    assert_eq!(run.memory.deadline(), Some(run.now + IMMEDIATE_TIMEOUT));
    let run = run.timer().does(&[Action::Stop(Stop::Kill)]);
    assert_eq!(run.memory.deadline(), None, "nothing is harder than SIGKILL");
    run.ends(Exit::Signal(9)).exits_with(128 + 9);
}

#[test]
fn a_timer_that_comes_early_does_nothing() {
    Run::running().then(signal(Term)).forget().then(Input::Timer).does(&[]);
}

#[test]
fn a_stop_before_the_server_is_ready_is_a_stop() {
    Run::new(true).forget().then(signal(Term)).does(&[Action::Stop(Stop::Fast)]).ends(Exit::Code(0)).exits_with(0);
    // Before the postmaster had a handler for SIGINT it dies of it; nothing had begun.
    Run::new(true).then(signal(Term)).ends(Exit::Signal(2)).exits_with(0);
}

#[test]
fn a_stop_that_somebody_else_cut_short_is_no_orderly_one() {
    Run::running().then(signal(Term)).ends(Exit::Signal(9)).exits_with(128 + 9);
    Run::running().then(signal(Term)).ends(Exit::Code(1)).exits_with(1);
}

#[test]
fn a_signal_during_initialisation_cancels_it() {
    let cancelled = |kind| Run::new(false).forget().then(signal(kind)).does(&[Action::CancelInitialisation]);
    let done = Input::InitialisationDone(Err("it was told to stop".into()));
    cancelled(Term).then(done.clone()).exits_with(0);
    cancelled(Int).then(done.clone()).exits_with(0);
    cancelled(Quit).then(done).exits_with(128 + 3);
    // It may have finished at that very moment; nobody wants the server any more.
    cancelled(Term).then(Input::InitialisationDone(Ok(()))).exits_with(0);
}

#[test]
fn a_signal_while_waiting_or_cleaning_up_ends_the_manager_without_another_start() {
    let crashed = || Run::running().ends(Exit::Signal(9)).then(Input::Exited(Exit::Signal(9)));
    crashed().forget().then(signal(Term)).then(Input::CleanedUp).exits_with(0);
    let waiting = crashed().then(Input::CleanedUp).ends(Exit::Signal(9)).ends(Exit::Signal(9));
    assert!(matches!(waiting.memory.phase, Phase::Waiting { .. }));
    waiting.then(signal(Term)).exits_with(0);
}

#[test]
fn every_code_with_which_postgres_refuses_to_start_is_passed_on() {
    for code in 0..=255 {
        Run::new(true).ends(Exit::Code(code)).exits_with(code);
    }
}

#[test]
fn a_shutdown_that_somebody_else_ordered_ends_the_manager_with_0() {
    Run::running().ends(Exit::Code(0)).exits_with(0);
}

#[test]
fn a_crash_is_followed_by_a_restart_once_nothing_is_left_of_the_old_server() {
    for exit in [Exit::Signal(9), Exit::Signal(11), Exit::Code(2)] {
        let run = Run::running().then(Input::Exited(exit)).does(&[Action::CleanUp]).then(Input::CleanedUp);
        assert_eq!(run.memory.restarts, 1);
        run.does(&[Action::Start]);
    }
    // A crash before it was ever ready is one too, when it was a signal.
    Run::new(true).forget().ends(Exit::Signal(11)).does(&[Action::CleanUp, Action::Start]);
}

#[test]
fn restarts_slow_down_and_a_steady_run_makes_them_quick_again() {
    let mut run = Run::running();
    let mut delays = Vec::new();
    for _ in 0..8 {
        run = run.forget().ends(Exit::Signal(9));
        delays.push(run.memory.delay.as_secs());
        if run.memory.deadline().is_some() {
            run = run.timer();
        }
        assert_eq!(run.memory.phase, Phase::Starting);
    }
    assert_eq!(delays, [0, 1, 2, 4, 8, 16, 30, 30]);
    let run = run.then(Input::Ready(Role::Primary)).later(61).forget().ends(Exit::Signal(9));
    run.does(&[Action::CleanUp, Action::Start]);
}

#[test]
fn what_would_kill_a_postmaster_without_handlers_waits_until_it_is_ready() {
    Run::new(true)
        .forget()
        .then(signal(Hup))
        .then(signal(Usr1))
        .does(&[])
        .then(Input::Ready(Role::Standby))
        .does(&[Action::Reload, Action::Promote])
        .then(signal(Hup))
        .does(&[Action::Reload]);
}

#[test]
fn promotion_is_for_standbys() {
    Run::running().then(signal(Usr1)).does(&[]);
    let standby = Run::new(true).then(Input::Ready(Role::Standby)).forget();
    let promoted = standby.then(signal(Usr1)).does(&[Action::Promote]).then(Input::Ready(Role::Primary));
    assert_eq!(promoted.memory.phase, Phase::Running { role: Role::Primary });
}

#[test]
fn a_commanded_restart_stops_and_starts() {
    Run::running()
        .then(Input::Restart)
        .does(&[Action::Stop(Stop::Fast)])
        .ends(Exit::Code(0))
        .does(&[Action::CleanUp, Action::Start]);
    // A stop that is ordered meanwhile wins.
    Run::running().then(Input::Restart).then(signal(Term)).ends(Exit::Code(0)).exits_with(0);
}

#[test]
fn readiness_that_is_told_too_late_changes_nothing() {
    let run = Run::running().then(signal(Term)).then(Input::Ready(Role::Primary));
    assert!(matches!(run.memory.phase, Phase::Stopping { .. }));
}

#[test]
fn a_server_that_cannot_be_executed_ends_the_manager_unless_it_could_be_before() {
    Run::new(true).then(Input::NotStarted("no such file".into())).exits_with(1);
    let run = Run::running().ends(Exit::Signal(9)).then(Input::NotStarted("no memory".into()));
    assert!(matches!(run.memory.phase, Phase::Waiting { .. }));
}

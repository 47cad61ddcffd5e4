mod clustered;

use super::{memory::MOST_REPAIRS, *};

const LIMITS: Limits = Limits { shutdown_timeout: Duration::from_secs(25), standby: false, clustered: false };
const STANDBY: Limits = Limits { standby: true, ..LIMITS };
const START: Action = Action::Start { standby: false };

/// Feeds inputs one second apart and collects what the decision answers.
struct Run {
    limits: Limits,
    memory: Memory,
    now: Mono,
    actions: Vec<Action>,
}

impl Run {
    fn new(initialised: bool) -> Self {
        Self::of(LIMITS, if initialised { Data::Whole } else { Data::Empty })
    }

    fn of(limits: Limits, data: Data) -> Self {
        let run = Self { limits, memory: Memory::default(), now: Mono::ZERO, actions: Vec::new() };
        run.then(Input::Begin(data))
    }

    /// A server that accepts connections.
    fn running() -> Self {
        Self::new(true).then(Input::Ready(Role::Primary)).forget()
    }

    fn then(mut self, input: Input) -> Self {
        self.now += Duration::from_secs(1);
        let (memory, actions) = step(&self.limits, self.memory, self.now, input);
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
        .does(&[Action::Work(Job::Initialise)])
        .then(Input::Done(Job::Initialise, Ok(())))
        .does(&[START])
        .then(Input::Ready(Role::Primary))
        .does(&[]);
}

#[test]
fn a_failed_initialisation_ends_the_manager_with_1() {
    Run::new(false).then(Input::Done(Job::Initialise, Err(Failure::ForNow("x".into())))).exits_with(1);
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
    let cancelled = |kind| Run::new(false).forget().then(signal(kind)).does(&[Action::Cancel]);
    let done = Input::Done(Job::Initialise, Err(Failure::ForNow("it was told to stop".into())));
    cancelled(Term).then(done.clone()).exits_with(0);
    cancelled(Int).then(done.clone()).exits_with(0);
    cancelled(Quit).then(done).exits_with(128 + 3);
    // It may have finished at that very moment; nobody wants the server any more.
    cancelled(Term).then(Input::Done(Job::Initialise, Ok(()))).exits_with(0);
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
        run.does(&[START]);
    }
    // A crash before it was ever ready is one too, when it was a signal.
    Run::new(true).forget().ends(Exit::Signal(11)).does(&[Action::CleanUp, START]);
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
    run.does(&[Action::CleanUp, START]);
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
        .does(&[Action::CleanUp, START]);
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

fn standby() -> Run {
    let follows = Look::Standby(Reason::Follows("yes".into()));
    Run::of(STANDBY, Data::Whole).then(Input::Looked(follows)).then(Input::Ready(Role::Standby)).forget()
}

const AS_STANDBY: Action = Action::Start { standby: true };

fn for_now() -> Result<(), Failure> {
    Err(Failure::ForNow("no answer".into()))
}

fn repair(job: Job) -> Repair {
    Repair { job, why: "past the fork".into() }
}

#[test]
fn an_empty_standby_is_cloned_and_started_as_one() {
    Run::of(STANDBY, Data::Empty)
        .does(&[Action::Work(Job::Clone)])
        .then(Input::Done(Job::Clone, Ok(())))
        .does(&[AS_STANDBY]);
}

#[test]
fn a_clone_that_fails_is_tried_again_ever_more_slowly_until_it_streams() {
    let mut run = Run::of(STANDBY, Data::Empty);
    let mut delays = Vec::new();
    for _ in 0..7 {
        run = run.forget().then(Input::Done(Job::Clone, for_now()));
        delays.push((run.memory.deadline().unwrap() - run.now).as_secs());
        run = run.timer().does(&[Action::Work(Job::Clone)]);
    }
    assert_eq!(delays, [1, 2, 4, 8, 16, 30, 30]);
    // What cannot work is not tried again.
    run.then(Input::Done(Job::Clone, Err(Failure::Final("another major".into())))).exits_with(78);
}

#[test]
fn a_data_directory_is_looked_at_before_it_is_started_as_a_standby() {
    let looked = |look| Run::of(STANDBY, Data::Whole).does(&[Action::Work(Job::Look)]).then(Input::Looked(look));
    looked(Look::Standby(Reason::SourceSilent("down".into()))).does(&[AS_STANDBY]);
    looked(Look::AsItIs(Reason::WasPromoted("over it".into()))).does(&[START]);
    looked(Look::Diverged(repair(Job::Rewind))).does(&[Action::Work(Job::Rewind)]);
    looked(Look::Refused("another cluster".into())).exits_with(78);
}

#[test]
fn a_half_rewound_directory_is_never_started() {
    Run::of(LIMITS, Data::HalfRewound { tries: 1 }).exits_with(1);
    Run::of(STANDBY, Data::HalfRewound { tries: 1 }).does(&[Action::Work(Job::Rewind)]);
    Run::of(STANDBY, Data::HalfRewound { tries: 2 }).does(&[Action::Work(Job::Clone)]);
}

#[test]
fn a_rewind_that_fails_is_followed_by_a_clone_and_one_that_could_not_begin_by_another_try() {
    let rewinding = || Run::of(STANDBY, Data::HalfRewound { tries: 1 }).forget();
    let hopeless = Err(Failure::Hopeless("no common ancestor".into()));
    rewinding().then(Input::Done(Job::Rewind, hopeless)).does(&[Action::Work(Job::Clone)]);
    rewinding().then(Input::Done(Job::Rewind, for_now())).timer().does(&[Action::Work(Job::Rewind)]);
}

#[test]
fn a_standby_that_diverged_is_stopped_repaired_and_started() {
    standby()
        .then(Input::Diverged(repair(Job::Rewind)))
        .does(&[Action::Stop(Stop::Fast)])
        .ends(Exit::Code(0))
        .does(&[Action::CleanUp, Action::Work(Job::Rewind)])
        .then(Input::Done(Job::Rewind, Ok(())))
        .does(&[AS_STANDBY]);
    // A stop that is ordered meanwhile wins.
    standby().then(Input::Diverged(repair(Job::Clone))).then(signal(Term)).ends(Exit::Code(0)).exits_with(0);
}

#[test]
fn repairs_that_do_not_help_come_to_an_end_and_begin_anew_once_it_streamed() {
    let mut run = standby();
    for _ in 0..MOST_REPAIRS {
        run = run.then(Input::Diverged(repair(Job::Clone))).ends(Exit::Code(0));
        run = run.then(Input::Done(Job::Clone, Ok(()))).then(Input::Ready(Role::Standby)).forget();
    }
    let run = run.then(Input::Diverged(repair(Job::Clone))).does(&[]);
    assert!(run.memory.gave_up());
    let run = run.then(Input::Streaming).then(Input::Diverged(repair(Job::Clone)));
    run.does(&[Action::Stop(Stop::Fast)]);
}

#[test]
fn a_primary_is_never_repaired_nor_cloned_anew() {
    Run::running().then(Input::Diverged(repair(Job::Clone))).then(Input::Reinit).does(&[]);
    // Nor a standby that is being promoted.
    standby().then(Input::Promote).forget().then(Input::Diverged(repair(Job::Rewind))).does(&[]);
}

#[test]
fn a_promotion_is_ordered_once_and_timed() {
    let run = standby().then(Input::Promote).does(&[Action::Promote]).then(signal(Usr1)).then(Input::Promote).does(&[]);
    let run = run.then(Input::Ready(Role::Primary));
    assert_eq!(run.memory.promotion, Some(Duration::from_secs(3)));
    // From now on it is a primary, after a crash too.
    run.forget().ends(Exit::Signal(9)).does(&[Action::CleanUp, START]);
}

#[test]
fn a_promotion_that_is_cut_short_is_ordered_again() {
    let cut = [
        // By a crash, by a restart, by the end of the container.
        standby().then(Input::Promote).ends(Exit::Signal(9)),
        standby().then(Input::Promote).then(Input::Restart).ends(Exit::Code(0)),
        Run::of(STANDBY, Data::Whole).then(Input::Looked(Look::AsItIs(Reason::WasPromoted("x".into())))),
    ];
    for run in cut {
        run.forget().then(Input::Ready(Role::Standby)).does(&[Action::Promote]);
    }
    // One that was not is only started.
    let run = Run::of(STANDBY, Data::Whole).then(Input::Looked(Look::AsItIs(Reason::WasPromoted("x".into()))));
    run.forget().then(Input::Ready(Role::Primary)).does(&[]);
}

#[test]
fn a_crashed_standby_is_started_as_one() {
    standby().ends(Exit::Signal(9)).does(&[Action::CleanUp, AS_STANDBY]);
}

#[test]
fn a_restart_makes_a_standby_of_what_the_settings_call_one_by_now() {
    let mut run = Run::running();
    run.limits = STANDBY;
    let run = run.then(Input::Restart).ends(Exit::Code(0));
    run.does(&[Action::Stop(Stop::Fast), Action::CleanUp, Action::Work(Job::Look)]);
}

#[test]
fn a_clone_on_command_replaces_what_is_there() {
    let run = standby().then(Input::Reinit).ends(Exit::Code(0));
    run.does(&[Action::Stop(Stop::Fast), Action::CleanUp, Action::Work(Job::Clone)]);
}

#[test]
fn a_signal_during_a_clone_cancels_it() {
    let run = Run::of(STANDBY, Data::Empty).forget().then(signal(Term)).does(&[Action::Cancel]);
    run.then(Input::Done(Job::Clone, for_now())).exits_with(0);
    let waiting = Run::of(STANDBY, Data::Empty).then(Input::Done(Job::Clone, for_now()));
    waiting.then(signal(Term)).exits_with(0);
}

#[test]
fn a_configuration_that_never_worked_gives_way_to_the_one_that_did() {
    Run::new(true)
        .then(Input::Unproven)
        .does(&[START])
        .then(Input::Exited(Exit::Code(1)))
        .does(&[Action::RejectConfiguration, Action::CleanUp])
        .then(Input::CleanedUp)
        .does(&[START])
        // The other one is not unproven: its failure is PostgreSQL's own.
        .ends(Exit::Code(1))
        .exits_with(1);
}

#[test]
fn a_configuration_that_worked_once_is_not_given_up_for_a_crash() {
    Run::new(true)
        .then(Input::Unproven)
        .then(Input::Ready(Role::Primary))
        .forget()
        .then(Input::Exited(Exit::Signal(9)))
        .does(&[Action::CleanUp]);
}

#[test]
fn a_stop_is_a_stop_whatever_the_configuration() {
    Run::new(true).then(Input::Unproven).then(signal(Term)).ends(Exit::Code(0)).exits_with(0);
    Run::new(true).then(signal(Term)).then(Input::Unproven).ends(Exit::Code(0)).exits_with(0);
    Run::new(true).then(signal(Term)).then(refused(1)).exits_with(0);
}

#[test]
fn a_refused_configuration_has_its_exit_code() {
    Run::new(true).then(refused(78)).exits_with(78);
    Run::new(true).then(refused(1)).exits_with(1);
}

#[test]
fn an_initialisation_that_finds_mistakes_is_exit_78_and_any_other_failure_1() {
    let failed = |failure: Failure| Run::new(false).then(Input::Done(Job::Initialise, Err(failure)));
    failed(Failure::Final("x".into())).exits_with(78);
    failed(Failure::ForNow("x".into())).exits_with(1);
}

fn refused(exit: i32) -> Input {
    Input::Refused { why: "x".into(), exit }
}

#[test]
fn a_standby_with_less_than_its_primary_is_restarted_and_nobody_else() {
    let small = || Input::TooSmall("x".into());
    let standby = || Run::of(STANDBY, Data::Whole).then(Input::Looked(Look::Standby(Reason::DataFound)));
    let run = standby().then(small()).then(Input::Ready(Role::Standby)).forget().then(small());
    let run = run.does(&[Action::Stop(Stop::Fast)]).then(small()).does(&[]);
    run.ends(Exit::Code(0)).does(&[Action::CleanUp, Action::Start { standby: true }]);
    Run::running().then(small()).does(&[]);
    standby().then(Input::Ready(Role::Standby)).then(Input::Promote).forget().then(small()).does(&[]);
}

#[test]
fn outcomes_of_jobs_are_counted_and_cancelled_ones_are_not() {
    let failed = |why: &str| Err(Failure::ForNow(why.into()));
    let run = Run::of(STANDBY, Data::Empty).then(Input::Done(Job::Clone, failed("no route"))).timer();
    let run = run.then(Input::Done(Job::Clone, Ok(())));
    assert_eq!(run.memory.outcomes.clone, Outcome { done: 1, failed: 1 });
    let run = Run::new(false).then(signal(Term)).then(Input::Done(Job::Initialise, failed("cancelled")));
    assert_eq!(run.memory.outcomes, Outcomes::default());
}

#[test]
fn every_phase_has_a_known_name() {
    let jobs = [Job::Initialise, Job::Look, Job::Clone, Job::Rewind].map(|job| Phase::Working { job });
    let others =
        [Phase::Begun, Phase::Idle, Phase::Starting, Phase::Running { role: Role::Primary }, Phase::Cancelling];
    let last = [Phase::CleaningUp, Phase::Waiting { until: Mono::ZERO, job: None }, Phase::Ended { code: 0 }];
    let names: Vec<_> = jobs.iter().chain(&others).chain(&last).map(Phase::name).collect();
    assert!(names.iter().all(|n| Phase::NAMES.contains(n)) && Phase::NAMES.iter().all(|n| names.contains(n)));
}

use super::{outside::Outside, *};

fn fill(stage: &Stage) {
    fs::create_dir_all(stage.data().join("global")).unwrap();
    fs::write(stage.data().join("global/pg_control"), "x").unwrap();
    fs::write(stage.data().join(VERSION), "15").unwrap();
}

fn assert_whole(pgdata: &Path) {
    assert!(pgdata.join(VERSION).exists() && pgdata.join("global/pg_control").exists());
    let names: Vec<_> = fs::read_dir(pgdata).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!names.iter().any(|n| n == ".podgres-new"), "{names:?}");
    assert!(!beside(pgdata, "new").unwrap().exists());
    assert_eq!(recover(pgdata).unwrap(), Leftover::None);
}

#[test]
fn an_empty_directory_is_replaced_in_one_step_with_its_lock() {
    let dir = tempfile::tempdir().unwrap();
    let pgdata = dir.path().join("pgdata");
    fs::create_dir(&pgdata).unwrap();
    let _old = DirLock::acquire(&pgdata).unwrap();
    let stage = Stage::begin(&pgdata).unwrap();
    assert_eq!(stage.way, Way::Beside);
    fill(&stage);
    let lock = stage.publish().unwrap();
    assert!(lock.is_some());
    assert!(matches!(DirLock::acquire(&pgdata), Err(lock::Error::Held(_))));
    assert_whole(&pgdata);
}

#[test]
fn a_directory_with_lost_and_found_is_filled_from_inside() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::create_dir(dir.path().join("lost+found")).unwrap();
    let stage = Stage::begin(dir.path()).unwrap();
    assert_eq!(stage.way, Way::Inside);
    fill(&stage);
    assert!(stage.publish().unwrap().is_none());
    assert_whole(dir.path());
    assert_eq!(fs::metadata(dir.path()).unwrap().mode() & 0o7777, 0o700, "or PostgreSQL would refuse it");
}

#[test]
fn an_unfinished_stage_is_removed_with_what_it_left_in_the_wal_directory() {
    let dir = tempfile::tempdir().unwrap();
    for lost_and_found in [false, true] {
        let (pgdata, waldir) = (dir.path().join("pgdata"), dir.path().join("wal"));
        fs::create_dir_all(&waldir).unwrap();
        fs::create_dir_all(&pgdata).unwrap();
        if lost_and_found {
            fs::create_dir(pgdata.join("lost+found")).unwrap();
        }
        let stage = Stage::begin(&pgdata).unwrap();
        fill(&stage);
        stage.note(&[Outside::Emptied(waldir.clone())]).unwrap();
        fs::write(waldir.join("000000010000000000000001"), "x").unwrap();
        drop(stage); // as SIGKILL would
        assert_eq!(recover(&pgdata).unwrap(), Leftover::Removed);
        assert!(!pgdata.join(VERSION).exists());
        assert_eq!(fs::read_dir(&waldir).unwrap().count(), 0);
        assert_eq!(recover(&pgdata).unwrap(), Leftover::None);
    }
}

#[test]
fn the_wal_of_a_published_directory_is_never_touched() {
    for lost_and_found in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (pgdata, waldir) = (dir.path().join("pgdata"), dir.path().join("wal"));
        fs::create_dir(&waldir).unwrap();
        fs::create_dir(&pgdata).unwrap();
        if lost_and_found {
            fs::create_dir(pgdata.join("lost+found")).unwrap();
        }
        let stage = Stage::begin(&pgdata).unwrap();
        stage.note(&[Outside::Emptied(waldir.clone())]).unwrap();
        fs::write(waldir.join("000000010000000000000001"), "x").unwrap();
        fs::write(pgdata.join(VERSION), "15").unwrap(); // named, then killed before the stage was removed
        assert_eq!(recover(&pgdata).unwrap(), Leftover::Removed);
        assert_eq!(fs::read_dir(&waldir).unwrap().count(), 1);
    }
}

/// Every moment at which the moving up can be cut short: after each of its renames.
#[test]
fn a_complete_stage_is_finished_wherever_it_was_cut_short() {
    for moved in 0..4 {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("lost+found")).unwrap();
        let stage = Stage::begin(dir.path()).unwrap();
        fill(&stage);
        stage.complete().unwrap();
        for name in ["global", VERSION].iter().take(moved) {
            fs::rename(stage.data().join(name), dir.path().join(name)).unwrap();
        }
        if moved == 3 {
            fs::remove_dir(stage.data()).unwrap();
        }
        assert_eq!(recover(dir.path()).unwrap(), Leftover::Finished);
        assert_whole(dir.path());
    }
}

/// A data directory with this mark in it, and WAL and a tablespace elsewhere.
fn cluster(data: &Path, mark: &str, elsewhere: &Path) {
    fs::create_dir_all(data.join("global")).unwrap();
    fs::create_dir_all(data.join("pg_tblspc")).unwrap();
    for (link, name) in [("pg_wal", "wal"), ("pg_tblspc/16384", "tablespace")] {
        let target = elsewhere.join(name).join(format!("podgres_{mark}"));
        fs::create_dir_all(&target).unwrap();
        fs::write(target.join("file"), mark).unwrap();
        std::os::unix::fs::symlink(target, data.join(link)).unwrap();
    }
    fs::write(data.join("global/pg_control"), mark).unwrap();
    fs::write(data.join(VERSION), "15").unwrap();
}

fn mark(pgdata: &Path) -> String {
    let read = |path: &str| fs::read_to_string(pgdata.join(path)).unwrap();
    let marks = [read("global/pg_control"), read("pg_wal/file"), read("pg_tblspc/16384/file")];
    assert!(marks.iter().all(|m| *m == marks[0]) && read(VERSION) == "15", "{marks:?}");
    marks[0].clone()
}

/// A stage with a whole clone that is to replace a data directory, beside or inside.
fn replacement(dir: &Path, inside: bool) -> (PathBuf, Stage) {
    let (pgdata, elsewhere) = (dir.join("pgdata"), dir.join("elsewhere"));
    cluster(&pgdata, "former", &elsewhere);
    if inside {
        // Not a mount point here, but as little to be exchanged: a link to the directory.
        fs::rename(&pgdata, dir.join("volume")).unwrap();
        std::os::unix::fs::symlink(dir.join("volume"), &pgdata).unwrap();
    }
    let stage = Stage::begin(&pgdata).unwrap();
    assert_eq!(stage.way, if inside { Way::Inside } else { Way::Beside });
    let made = ["wal", "tablespace"].map(|n| Outside::Removed(elsewhere.join(n).join("podgres_new")));
    stage.note(&made).unwrap();
    cluster(&stage.data(), "new", &elsewhere);
    (pgdata, stage)
}

#[test]
fn a_data_directory_is_exchanged_and_kept_until_it_is_discarded() {
    let dir = tempfile::tempdir().unwrap();
    let (pgdata, stage) = replacement(dir.path(), false);
    let _former = DirLock::acquire(&pgdata).unwrap();
    let lock = stage.publish().unwrap();
    assert!(lock.is_some() && matches!(DirLock::acquire(&pgdata), Err(lock::Error::Held(_))));
    assert_eq!((mark(&pgdata), mark(&kept(&pgdata).unwrap())), ("new".into(), "former".into()));
    discard_kept(&pgdata).unwrap();
    assert_eq!((mark(&pgdata), kept(&pgdata)), ("new".into(), None));
    let wal: Vec<_> = fs::read_dir(dir.path().join("elsewhere/wal")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(wal, ["podgres_new"]);
}

#[test]
fn where_nothing_can_be_exchanged_the_former_entries_move_out_first() {
    let dir = tempfile::tempdir().unwrap();
    let (pgdata, stage) = replacement(dir.path(), true);
    assert!(stage.publish().unwrap().is_none());
    assert_eq!((mark(&pgdata), kept(&pgdata)), ("new".into(), None));
    assert!(!pgdata.join(".podgres-new").exists());
    assert!(!dir.path().join("elsewhere/wal/podgres_former").exists());
}

#[test]
fn an_unfinished_replacement_leaves_the_former_directory_as_it_was() {
    for inside in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (pgdata, stage) = replacement(dir.path(), inside);
        drop(stage); // as SIGKILL would
        assert_eq!(recover(&pgdata).unwrap(), Leftover::Removed);
        assert_eq!(mark(&pgdata), "former");
        assert!(!dir.path().join("elsewhere/tablespace/podgres_new").exists());
        assert_eq!(recover(&pgdata).unwrap(), Leftover::None);
    }
}

#[test]
fn an_exchange_is_finished_wherever_it_was_cut_short() {
    for step in 0..4 {
        let dir = tempfile::tempdir().unwrap();
        let (pgdata, stage) = replacement(dir.path(), false);
        stage.complete().unwrap();
        match step {
            0 => {}
            1 => recover::exchange(&pgdata, &stage.root).map(|()| fs::create_dir(&stage.root).unwrap()).unwrap(),
            // Without RENAME_EXCHANGE: the former one is aside, then the new one has the name.
            2 | 3 => {
                fs::rename(&pgdata, stage.root.join("aside")).unwrap();
                fs::create_dir(&pgdata).unwrap(); // by the next start
                if step == 3 {
                    fs::rename(stage.data(), &pgdata).unwrap();
                }
            }
            _ => unreachable!(),
        }
        recover(&pgdata).unwrap();
        assert_eq!((mark(&pgdata), mark(&kept(&pgdata).unwrap())), ("new".into(), "former".into()), "step {step}");
        assert_eq!(recover(&pgdata).unwrap(), Leftover::None);
    }
}

#[test]
fn moving_out_and_up_is_finished_wherever_it_was_cut_short() {
    // Each step moves one entry: the four of the former directory out, then the four of the new one up.
    for steps in 0..=8 {
        let dir = tempfile::tempdir().unwrap();
        let (pgdata, stage) = replacement(dir.path(), true);
        stage.complete().unwrap();
        let names = ["global", "pg_tblspc", "pg_wal", VERSION];
        fs::create_dir(stage.root.join("old")).unwrap();
        for name in names.iter().take(steps) {
            fs::rename(pgdata.join(name), stage.root.join("old").join(name)).unwrap();
        }
        if steps > 4 {
            File::create(stage.root.join("out")).unwrap();
        }
        for name in names.iter().take(steps.saturating_sub(4)) {
            fs::rename(stage.data().join(name), pgdata.join(name)).unwrap();
        }
        assert_eq!(recover(&pgdata).unwrap(), Leftover::Finished);
        assert_eq!(mark(&pgdata), "new", "{steps} steps");
        assert!(!pgdata.join(".podgres-new").exists());
    }
}

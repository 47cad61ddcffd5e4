//! Custom queries: `queries.yaml` in `config-dir`.
//!
//! They run as `pg_monitor` in a read-only transaction, as CloudNativePG's do: a mistake in the file writes nothing,
//! and needs a grant to read (`GRANT SELECT ON orders TO pg_monitor`), as it would with postgres_exporter and a role of
//! its own. That is a guard against mistakes and no wall: the session belongs to the superuser, and a function that the
//! query calls could take its role back. So `pg_catalog` comes first in the `search_path`; `public`, where extensions
//! such as pg_stat_statements are, comes after it.

pub(crate) mod convert;
pub(crate) mod file;
mod run;
mod version;
mod yaml;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    family::{Family, Group, Kind},
    troubles::Troubles,
};
use file::{Name, Queries, Query};
pub(super) use run::{Server, run};

/// The file's name in `config-dir`.
const FILE: &str = "queries.yaml";

/// The queries, and what is known of each.
pub(super) struct Custom {
    path: PathBuf,
    /// The file's content when it was last read, good or not, and none within where there is no file; none: it could not
    /// be read.
    seen: Option<Option<String>>,
    queries: Arc<Queries>,
    states: BTreeMap<Name, State>,
    mistake: Option<String>,
}

#[derive(Default)]
struct State {
    errors: u64,
    tried: Option<Instant>,
    /// Kept for as long as `cache_seconds` says.
    answer: Option<(Instant, Group)>,
}

impl Custom {
    /// Those of the file in `config_dir`, which is read when they are asked for.
    pub(super) fn new(config_dir: &Path) -> Self {
        Self {
            path: config_dir.join(FILE),
            seen: Some(None),
            queries: Arc::default(),
            states: BTreeMap::new(),
            mistake: None,
        }
    }

    /// Reads the file if it is another by now; a mounted ConfigMap changes by a symbolic link, so its content decides.
    pub(super) fn refresh(&mut self) {
        let content = match fs::read_to_string(&self.path) {
            Ok(content) => Some(content),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                self.seen = None;
                return self.refuse(format!("{}: {error}", self.path.display()));
            }
        };
        if self.seen.as_ref() == Some(&content) {
            return;
        }
        let parsed = content.as_deref().map_or_else(|| Ok(Queries::default()), file::parse);
        self.seen = Some(content);
        match parsed {
            Ok(queries) => self.take(queries),
            Err(why) => self.refuse(format!("{}:{why}", self.path.display())),
        }
    }

    fn take(&mut self, queries: Queries) {
        tracing::info!(queries = queries.len(), "custom queries for metrics were read");
        // An answer to another query is none to this one.
        self.states.retain(|name, _| queries.contains_key(name) && queries.get(name) == self.queries.get(name));
        for name in queries.keys() {
            self.states.entry(name.clone()).or_default();
        }
        (self.queries, self.mistake) = (Arc::new(queries), None);
    }

    fn refuse(&mut self, mistake: String) {
        if self.mistake.as_ref() != Some(&mistake) {
            tracing::error!("custom queries for metrics are refused, the old ones stay: {mistake}");
        }
        self.mistake = Some(mistake);
    }

    /// What is wrong with the file.
    pub(super) fn problem(&self) -> Option<String> {
        self.mistake.as_ref().map(|m| format!("custom queries for metrics are refused, the old ones stay: {m}"))
    }

    /// What is wrong, as metrics.
    pub(super) fn families(&self) -> Vec<Family> {
        let help = "Whether queries.yaml has a mistake, so that an earlier one is in use.";
        let refused = Family::new("podgres_custom_queries_refused", Kind::Gauge, help);
        let help = "Failed runs of a custom query.";
        let mut errors = Family::new("podgres_custom_query_errors_total", Kind::Counter, help);
        for (name, state) in &self.states {
            errors.push(vec![("query".into(), name.0.clone())], state.errors);
        }
        vec![refused.with(vec![], self.mistake.is_some()), errors]
    }

    /// The queries that are to be run on such a server: those first that waited longest.
    fn due(&self, server_version_num: u32, is_primary: bool) -> Vec<(Name, Query)> {
        let fits = |q: &Query| {
            (is_primary || !q.primary) && q.runonserver.as_ref().is_none_or(|r| r.contains(server_version_num))
        };
        let due = self.queries.iter().filter(|(n, q)| fits(q) && self.cached(n).is_none());
        let mut due: Vec<_> = due.map(|(n, q)| (n.clone(), q.clone())).collect();
        due.sort_by_key(|(name, _)| self.states.get(name).and_then(|s| s.tried));
        due
    }

    fn cached(&self, name: &Name) -> Option<Group> {
        let keep = Duration::from_secs(self.queries.get(name)?.cache_seconds.into());
        let (at, group) = self.states.get(name)?.answer.as_ref()?;
        (at.elapsed() < keep).then(|| group.clone())
    }

    /// The answers that are still good.
    fn all_cached(&self, is_primary: bool) -> Vec<Group> {
        let wanted = self.queries.iter().filter(|(_, q)| is_primary || !q.primary);
        wanted.filter_map(|(name, _)| self.cached(name)).collect()
    }

    /// Takes the outcome of a run; gives back what is to be shown.
    fn done(&mut self, name: &Name, result: Result<Vec<Family>, String>, troubles: &mut Troubles) -> Option<Group> {
        let caches = self.queries.get(name)?.cache_seconds > 0;
        let state = self.states.get_mut(name)?;
        state.tried = Some(Instant::now());
        match result {
            Ok(families) => {
                troubles.over(&name.0);
                let group: Group = Arc::new(families);
                state.answer = caches.then(|| (Instant::now(), group.clone()));
                Some(group)
            }
            Err(why) => {
                state.errors += 1;
                troubles.report(&name.0, &format!("the custom query {} for metrics failed: {why}", name.0));
                None
            }
        }
    }
}

/// Those families whose names are free, and the first whose name is not.
pub(crate) fn unclaimed(families: Vec<Family>, taken: &mut BTreeSet<String>) -> Result<Vec<Family>, String> {
    match families.iter().find(|f| !f.claim(taken)) {
        Some(family) => Err(format!("there is a metric {} already", family.name())),
        None => Ok(families),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "a:\n  query: x\n  primary: true\n  cache_seconds: 60\n  metrics: [{v: {usage: GAUGE}}]\n\
        b:\n  query: y\n  runonserver: '>=16'\n  metrics: [{v: {usage: GAUGE}}]\n";

    fn names(custom: &Custom, version: u32, primary: bool) -> Vec<String> {
        custom.due(version, primary).into_iter().map(|(n, _)| n.0).collect()
    }

    #[test]
    fn a_mistake_keeps_the_last_good_ones_until_it_is_corrected() {
        let dir = tempfile::tempdir().unwrap();
        let mut custom = Custom::new(dir.path());
        custom.refresh();
        assert!(custom.queries.is_empty() && custom.problem().is_none());
        let put = |text: &str| fs::write(dir.path().join(FILE), text).unwrap();
        put(GOOD);
        custom.refresh();
        assert_eq!(custom.queries.len(), 2);
        put("a: [");
        custom.refresh();
        assert_eq!(custom.queries.len(), 2);
        assert!(custom.problem().unwrap().contains("queries.yaml:1: "), "{:?}", custom.problem());
        put(GOOD);
        custom.refresh();
        assert!(custom.problem().is_none());
        fs::remove_file(dir.path().join(FILE)).unwrap();
        custom.refresh();
        assert!(custom.queries.is_empty());
    }

    #[test]
    fn what_runs_where_and_when() {
        let mut custom = Custom::new(Path::new("/nowhere"));
        custom.take(file::parse(GOOD).unwrap());
        assert_eq!(names(&custom, 170_000, true), ["a", "b"]);
        assert_eq!(names(&custom, 170_000, false), ["b"]);
        assert_eq!(names(&custom, 150_000, true), ["a"]);
        custom.done(&Name("a".into()), Ok(vec![]), &mut Troubles::default());
        assert_eq!(names(&custom, 170_000, true), ["b"], "the answer is still good");
        assert_eq!((custom.all_cached(true).len(), custom.all_cached(false).len()), (1, 0));
        custom.take(file::parse(&GOOD.replace("query: x", "query: z")).unwrap());
        assert_eq!(names(&custom, 170_000, true), ["a", "b"], "another query");
    }

    #[test]
    fn those_that_waited_longest_come_first() {
        let mut custom = Custom::new(Path::new("/nowhere"));
        custom.take(file::parse(GOOD).unwrap());
        custom.done(&Name("a".into()), Err("no".into()), &mut Troubles::default());
        assert_eq!(names(&custom, 170_000, true), ["b", "a"]);
    }
}

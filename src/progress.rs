//! How far a long job is, for `status`, metrics and the log.

use std::{
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::sync::watch;

/// A job that runs.
#[derive(Debug, Clone)]
pub struct Progress {
    /// `clone`, `rewind`, `initialise`.
    pub job: &'static str,
    /// What it does right now, or waits for, in words.
    pub step: String,
    /// Bytes copied so far.
    pub bytes_done: u64,
    /// How many it will be, as far as one can tell.
    pub bytes_total: Option<u64>,
    /// When it began.
    pub begun: Instant,
}

impl Progress {
    /// How much is done, 0 to 100.
    pub fn percent(&self) -> Option<f64> {
        #[allow(clippy::cast_precision_loss, reason = "a percentage")]
        self.bytes_total.filter(|t| *t > 0).map(|total| (self.bytes_done as f64 / total as f64 * 100.0).min(100.0))
    }

    /// How long the rest takes if it goes on as it went so far.
    pub fn left(&self) -> Option<Duration> {
        let done = self.percent().filter(|p| *p >= 1.0)?;
        Some(self.begun.elapsed().mul_f64((100.0 - done) / done))
    }
}

/// A line in the log each time so much more is done, or so much time has passed.
const LOG_PERCENT: f64 = 10.0;
const LOG_TIME: Duration = Duration::from_secs(30);

/// Where a job tells how far it is. Clones share it.
#[derive(Debug, Clone)]
pub struct Reporter {
    shown: Rc<watch::Sender<Option<Progress>>>,
}

impl Default for Reporter {
    fn default() -> Self {
        Self { shown: Rc::new(watch::Sender::new(None)) }
    }
}

impl Reporter {
    /// The job that runs, if any.
    pub fn current(&self) -> Option<Progress> {
        self.shown.borrow().clone()
    }

    /// A job begins; it ends when what is given back is dropped.
    pub fn begin(&self, job: &'static str) -> Running {
        let progress = Progress { job, step: String::new(), bytes_done: 0, bytes_total: None, begun: Instant::now() };
        self.shown.send_replace(Some(progress));
        Running { reporter: self.clone(), logged: (0.0, Instant::now()) }
    }

    fn change(&self, change: impl FnOnce(&mut Progress)) {
        self.shown.send_modify(|shown| {
            if let Some(progress) = shown {
                change(progress);
            }
        });
    }
}

/// A job on its way.
pub struct Running {
    reporter: Reporter,
    logged: (f64, Instant),
}

impl Running {
    /// What it does now.
    pub fn step(&self, text: impl Into<String>) {
        let text = text.into();
        tracing::info!("{text}");
        self.reporter.change(|p| p.step = text);
    }

    /// How far it is.
    pub fn bytes(&mut self, done: u64, total: u64) {
        self.reporter.change(|p| {
            p.bytes_done = done;
            p.bytes_total = Some(total.max(done));
        });
        let Some(progress) = self.reporter.current() else { return };
        let percent = progress.percent().unwrap_or_default();
        let (before, at) = self.logged;
        if percent - before >= LOG_PERCENT || at.elapsed() >= LOG_TIME {
            self.logged = (percent, Instant::now());
            let left = progress.left().map(|l| l.as_secs());
            tracing::info!(
                bytes_done = done,
                bytes_total = total,
                seconds_left = left,
                "{}: {percent:.0} %",
                progress.job
            );
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.reporter.shown.send_replace(None);
    }
}

/// Reads what pg_basebackup and pg_rewind say of their progress when nobody looks: `38412/482501 kB (7%), 0/1
/// tablespace` and `38412/482501 kB (7%) copied` (`progress_report`). Bytes done and in all.
pub fn parse_kilobytes(line: &str) -> Option<(u64, u64)> {
    let (done, rest) = line.trim_start().split_once('/')?;
    let (total, rest) = rest.split_once(' ')?;
    rest.starts_with("kB (").then_some(())?;
    Some((done.parse::<u64>().ok()?.checked_mul(1024)?, total.parse::<u64>().ok()?.checked_mul(1024)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_programs() {
        assert_eq!(parse_kilobytes("  38412/482501 kB (7%), 0/1 tablespace"), Some((38412 << 10, 482_501 << 10)));
        assert_eq!(parse_kilobytes("38412/482501 kB (7%) copied"), Some((38412 << 10, 482_501 << 10)));
        for other in ["pg_basebackup: error: x", "1/2 tablespaces", "", "a/b kB (1%)"] {
            assert_eq!(parse_kilobytes(other), None, "{other}");
        }
    }

    #[test]
    fn a_job_is_shown_until_it_ends() {
        let reporter = Reporter::default();
        let mut job = reporter.begin("clone");
        job.step("copying");
        job.bytes(1, 4);
        let shown = reporter.current().unwrap();
        assert_eq!((shown.percent(), shown.step.as_str()), (Some(25.0), "copying"));
        assert!(shown.left().is_some());
        drop(job);
        assert!(reporter.current().is_none());
    }
}

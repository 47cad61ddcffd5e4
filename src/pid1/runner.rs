//! Children whose every line of output becomes a line of the log, and children whose output is an answer.

use std::{
    io,
    os::{fd::OwnedFd, unix::process::CommandExt},
    process::{Command, Stdio},
    time::Duration,
};

use tokio::{io::AsyncReadExt, net::unix::pipe};

use super::{Child, Children, Exit, KillOnDrop};
use crate::logs::{self, Sink};

/// How much of each stream of a captured child is kept, in bytes. Answers are a few lines; what a source says is not ours
/// to trust.
const MOST_CAPTURED: u64 = 1 << 20;

/// What a child said, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    /// How it ended.
    pub exit: Exit,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

/// Starts children. Clones share the table of children and the log.
#[derive(Clone)]
pub struct Runner {
    /// The table of children.
    pub children: Children,
    /// Where their lines go.
    pub sink: Sink,
}

impl Runner {
    /// Starts `command`, whose stdout and stderr go to the log under the name `logger`. Must be called inside a
    /// [`tokio::task::LocalSet`].
    ///
    /// # Errors
    /// What the system said when the program could not be executed, or no pipe could be made.
    pub fn spawn(&self, command: &mut Command, logger: &'static str) -> io::Result<Child> {
        self.spawn_but(command, logger, |_| false)
    }

    /// [`Runner::spawn`], without the lines that `taken` says it has taken.
    ///
    /// # Errors
    /// As there.
    pub fn spawn_but(
        &self,
        command: &mut Command,
        logger: &'static str,
        taken: impl FnMut(&[u8]) -> bool + 'static,
    ) -> io::Result<Child> {
        let (read, write) = io::pipe()?;
        command.stdout(Stdio::from(write.try_clone()?)).stderr(Stdio::from(write));
        let child = self.children.spawn(command);
        // The command keeps the pipe's write end open; the reader below would never see its end.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = child?;
        tokio::task::spawn_local(logs::lines_but(read.into(), logger, self.sink.clone(), taken));
        Ok(child)
    }

    /// Runs `command` to its end and gives back what it said. Its process group is killed when `deadline` has passed, or
    /// when the caller gives up waiting.
    ///
    /// # Errors
    /// What the system said when the program could not be executed; [`io::ErrorKind::TimedOut`].
    pub async fn capture(&self, command: &mut Command, deadline: Duration) -> io::Result<Captured> {
        let (out, out_write) = io::pipe()?;
        let (err, err_write) = io::pipe()?;
        command.stdin(Stdio::null()).stdout(out_write).stderr(err_write).process_group(0);
        let child = self.children.spawn(command);
        // The command keeps the pipes' write ends open; the readers below would never see their end.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = KillOnDrop(child?);
        let run = async {
            let (stdout, stderr) = tokio::join!(text(out.into()), text(err.into()));
            Ok(Captured { exit: child.0.wait().await, stdout: stdout?, stderr: stderr? })
        };
        tokio::time::timeout(deadline, run).await.unwrap_or_else(|_| {
            let why = format!("no answer within {} s", deadline.as_secs());
            Err(io::Error::new(io::ErrorKind::TimedOut, why))
        })
    }
}

async fn text(pipe: OwnedFd) -> io::Result<String> {
    let mut bytes = Vec::new();
    pipe::Receiver::from_owned_fd(pipe)?.take(MOST_CAPTURED).read_to_end(&mut bytes).await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

//! Children whose every line of output becomes a line of the log.

use std::{
    io,
    process::{Command, Stdio},
};

use super::{Child, Children};
use crate::logs::{self, Sink};

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
        let (read, write) = io::pipe()?;
        command.stdout(Stdio::from(write.try_clone()?)).stderr(Stdio::from(write));
        let child = self.children.spawn(command);
        // The command keeps the pipe's write end open; the reader below would never see its end.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = child?;
        tokio::task::spawn_local(logs::lines(read.into(), logger, self.sink.clone()));
        Ok(child)
    }
}

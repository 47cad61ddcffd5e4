//! The files with which the server last became ready, or which a running one has put in force as a whole, kept beside
//! the data directory: one file, so that they always fit together.

use super::{Layers, Live, UserFiles};
use crate::postgres::state_dir::StateDir;

const NAME: &str = "config/proven.json";

/// Reads them, once.
pub(super) fn get<'a>(layers: &Layers, live: &'a mut Live) -> Option<&'a UserFiles> {
    live.proven.get_or_insert_with(|| read(layers)).as_ref()
}

fn read(layers: &Layers) -> Option<UserFiles> {
    let state = StateDir::of(&layers.launch.pgdata);
    match state.read(NAME) {
        Ok(bytes) => serde_json::from_slice(&bytes?).ok(),
        Err(error) => {
            tracing::warn!("the last configuration that worked, {}: {error}", state.path().join(NAME).display());
            None
        }
    }
}

/// Keeps what is installed, if that is something new.
pub(super) fn keep(layers: &Layers, live: &mut Live) {
    let Some(installed) = live.installed.as_ref().map(|i| i.files.clone()) else { return };
    live.rejected = live.rejected.filter(|r| *r != installed.fingerprint());
    if get(layers, live) == Some(&installed) {
        return;
    }
    let state = StateDir::of(&layers.launch.pgdata);
    let bytes = serde_json::to_vec(&installed).unwrap_or_default();
    live.proven = Some(Some(installed));
    // In a thread, which ends with it: the disk may take its time, and the loop has none.
    std::thread::spawn(move || {
        if let Err(error) = state.write(NAME, &bytes) {
            tracing::warn!(
                "cannot keep the configuration that works in {}: {error}; a later one that does not work will not be \
                 replaced by it after a restart of the container",
                state.path().display()
            );
        }
    });
}

//! What goes wrong from scrape to scrape is said once.

use std::collections::BTreeMap;

/// What is wrong, by what it is with.
#[derive(Debug, Default)]
pub(super) struct Troubles(BTreeMap<String, String>);

impl Troubles {
    /// Says it, unless that was said before.
    pub(super) fn report(&mut self, with: &str, text: &str) {
        if self.0.insert(with.into(), text.into()).as_deref() != Some(text) {
            tracing::warn!("{text}");
        }
    }

    /// It is well now: the next trouble with it is news.
    pub(super) fn over(&mut self, with: &str) {
        self.0.remove(with);
    }
}

//! The loop's part in TLS: certificates that change are handed on, and those that end soon are complained of.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use tokio::{task::spawn_local, time::sleep};

use super::Manager;
use crate::{
    cluster::{kubernetes::About, peer::Line},
    postgres::{config, replication::source::Source},
    tls::{self, Keeper},
};

/// How often it is looked whether a certificate ends soon: an hour is little of a week. A complaint is repeated once a day.
const LOOK: Duration = Duration::from_secs(60 * 60);
const LOOKS_A_DAY: u32 = 24;

impl Manager {
    /// With these certificates.
    pub fn with_certificates(mut self, keeper: Option<Keeper>) -> Self {
        self.certificates = keeper;
        self.demand_tls();
        self
    }

    /// By which other members are called.
    pub(super) fn line(&self) -> Line {
        self.certificates.as_ref().map(Keeper::certificates).into()
    }

    /// The files are looked at again. The HTTP port has what is new at once, PostgreSQL at the reload that follows.
    pub(super) fn read_certificates_again(&mut self) {
        if self.certificates.as_mut().is_some_and(Keeper::read_again) {
            self.demand_tls();
        }
    }

    fn demand_tls(&mut self) {
        let Some(keeper) = &self.certificates else { return };
        let clients = keeper.files().client_ca.is_some();
        self.config.set_tls(config::Tls { only: keeper.only(), clients, exchanges: keeper.exchanges() });
    }

    /// PostgreSQL's settings of TLS. Whom it asks for certificates of their own is the user's affair where `client-ca` does not
    /// say it.
    pub(super) fn owned_of_tls(&self) -> Vec<(&'static str, String)> {
        let Some(keeper) = &self.certificates else { return Vec::new() };
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let files = keeper.files();
        let mut owned = vec![
            ("ssl", "on".to_string()),
            ("ssl_cert_file", text(files.certificate)),
            ("ssl_key_file", text(files.key)),
        ];
        owned.extend(files.client_ca.map(|path| ("ssl_ca_file", text(path))));
        owned
    }

    /// The source, as it is connected to.
    pub(super) fn secured(&self, source: Source) -> Source {
        match &self.certificates {
            Some(keeper) => source.secured(|info, member| tls::secured(info, &keeper.files(), keeper.only(), member)),
            None => source,
        }
    }

    /// Complains, for as long as the manager runs, of a certificate that ends soon: in the log, and in a cluster by an Event.
    pub(super) fn watch_certificates(&self) {
        let Some(certificates) = self.certificates.as_ref().map(Keeper::certificates) else { return };
        let pod = self.cluster.as_ref().map(|cluster| (cluster.kubernetes(), cluster.pod()));
        spawn_local(async move {
            let mut looks = 0u32;
            loop {
                let complaint = tls::complaint(certificates.borrow().expires, SystemTime::now());
                looks = if complaint.is_some() { looks.wrapping_add(1) } else { 0 };
                if let Some(complaint) = complaint.filter(|_| looks % LOOKS_A_DAY == 1) {
                    tracing::warn!("{complaint}");
                    if let Some((kubernetes, (name, uid))) = &pod {
                        let about = About::Pod { name, uid };
                        let told = kubernetes.event(about, true, "CertificateExpires", "Warn", &complaint).await;
                        told.inspect_err(|e| tracing::warn!("an Event could not be made: {e}")).ok();
                    }
                }
                sleep(LOOK).await;
            }
        });
    }
}

//! Which certificates are accepted: those of the system's issuers, those of an endpoint's own
//! issuer, or all.
//!
//! Contract: docs/contract/balancing.md#13, docs/contract/README.md#11

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;

use olla_engine::tls::{Roots, TlsClient, TlsTrust};

use crate::config::{EndpointPlan, EndpointTlsPlan, Scheme};
use crate::log::{Level, Logger, Value};
use crate::roots::{self, SystemRoots};

/// The sets of trusted certificates, each read once. Reading and parsing takes some milliseconds,
/// so nothing is read before the first https endpoint.
pub(super) struct Trusts {
    system: OnceCell<Roots>,
    made: RefCell<HashMap<EndpointTlsPlan, TlsTrust>>,
    /// `None` = nothing is logged.
    logger: Option<Logger>,
}

impl Trusts {
    pub(super) fn new(logger: Option<Logger>) -> Self {
        Self {
            system: OnceCell::new(),
            made: RefCell::default(),
            logger,
        }
    }

    /// Reads every file again when it is needed next.
    pub(super) fn forget(&self) {
        self.made.borrow_mut().clear();
    }

    /// TLS settings for requests to an endpoint; `None` if its URL is not https.
    pub(super) fn of_endpoint(&self, plan: &EndpointPlan) -> Option<TlsClient> {
        (plan.url.scheme == Scheme::Https).then(|| self.with(&plan.tls).client(&plan.url.host))
    }

    /// TLS settings for a health check of an endpoint on this host. `insecure_skip_verify` of the
    /// endpoint does not extend to other hosts, such as that of a redirect.
    pub(super) fn of_check(&self, plan: &EndpointPlan, host: &str) -> TlsClient {
        let mut tls = plan.tls.clone();
        tls.insecure_skip_verify &= host == plan.url.host;
        self.with(&tls).client(host)
    }

    /// TLS settings for a host that is no endpoint's: the system's issuers are trusted.
    pub(super) fn of_host(&self, host: &str) -> TlsClient {
        self.with(&EndpointTlsPlan::default()).client(host)
    }

    fn with(&self, plan: &EndpointTlsPlan) -> TlsTrust {
        if let Some(made) = self.made.borrow().get(plan) {
            return made.clone();
        }
        let made = self.make(plan);
        self.made.borrow_mut().insert(plan.clone(), made.clone());
        made
    }

    fn make(&self, plan: &EndpointTlsPlan) -> TlsTrust {
        if plan.insecure_skip_verify {
            return TlsTrust::insecure();
        }
        let system = self.system.get_or_init(|| self.system());
        let Some(path) = &plan.ca_file else {
            return TlsTrust::verifying(system);
        };
        // It was readable when the configuration was validated. If it no longer is, the
        // certificates of its issuer are not trusted.
        let read = std::fs::read(path).map_err(|error| error.to_string());
        match read.and_then(|pem| system.with_pem(&pem).map_err(|fault| fault.to_string())) {
            Ok(roots) => TlsTrust::verifying(&roots),
            Err(reason) => {
                let path = path.to_string_lossy();
                let fields = [
                    ("ca_file", Value::Str(&path)),
                    ("reason", Value::Str(&reason)),
                ];
                let message = "Trusted certificates cannot be read";
                self.log(Level::Error, message, &fields);
                TlsTrust::verifying(system)
            }
        }
    }

    /// The certificates that the system trusts.
    fn system(&self) -> Roots {
        let SystemRoots { roots, faults } = roots::system();
        for reason in &faults {
            let fields = [("reason", Value::Str(reason))];
            self.log(Level::Warn, "Trusted certificates cannot be read", &fields);
        }
        if roots.is_empty() {
            let message = "This system trusts no certificates; https endpoints need tls.ca_file";
            self.log(Level::Warn, message, &[]);
        }
        roots
    }

    fn log(&self, level: Level, message: &str, fields: &[(&'static str, Value<'_>)]) {
        if let Some(logger) = &self.logger {
            logger.emit(level, message, fields);
        }
    }
}

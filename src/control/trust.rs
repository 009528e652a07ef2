//! Whose certificates are accepted: the system's issuers, an endpoint's own, or anybody.
//!
//! Contract: docs/contract/balancing.md#13, docs/contract/README.md#11

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;

use olla_engine::tls::{Roots, TlsClient, TlsTrust};

use crate::config::{EndpointPlan, EndpointTlsPlan, Scheme};
use crate::log::{Level, Logger, Value};
use crate::roots::{self, SystemRoots};

/// What was made ready, each kind once. Reading and parsing certificates takes some milliseconds,
/// and nothing is read before the first https address is met.
pub(super) struct Trusts {
    system: OnceCell<Roots>,
    made: RefCell<HashMap<EndpointTlsPlan, TlsTrust>>,
    logger: Logger,
}

impl Trusts {
    pub(super) fn new(logger: Logger) -> Self {
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

    /// How requests to an endpoint are secured.
    pub(super) fn of_endpoint(&self, plan: &EndpointPlan) -> Option<TlsClient> {
        (plan.url.scheme == Scheme::Https).then(|| self.with(&plan.tls).client(&plan.url.host))
    }

    /// How a check of an endpoint is secured that goes to this host. That the endpoint's own
    /// certificate is not verified says nothing about another host's.
    pub(super) fn of_check(&self, plan: &EndpointPlan, host: &str) -> TlsClient {
        let mut tls = plan.tls.clone();
        tls.insecure_skip_verify &= host == plan.url.host;
        self.with(&tls).client(host)
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
        // It was readable when the configuration was judged; if it is not any more, its servers
        // are those of an unknown issuer.
        let read = std::fs::read(path).map_err(|error| error.to_string());
        match read.and_then(|pem| system.with_pem(&pem).map_err(|fault| fault.to_string())) {
            Ok(roots) => TlsTrust::verifying(&roots),
            Err(reason) => {
                let path = path.to_string_lossy();
                let fields = [
                    ("ca_file", Value::Str(&path)),
                    ("reason", Value::Str(&reason)),
                ];
                let words = "Trusted certificates cannot be read";
                self.logger.emit(Level::Error, words, &fields);
                TlsTrust::verifying(system)
            }
        }
    }

    /// The certificates that the system trusts.
    fn system(&self) -> Roots {
        let SystemRoots { roots, faults } = roots::system();
        for reason in &faults {
            let fields = [("reason", Value::Str(reason))];
            self.logger
                .emit(Level::Warn, "Trusted certificates cannot be read", &fields);
        }
        if roots.is_empty() {
            let words = "This system trusts no certificates; https endpoints need tls.ca_file";
            self.logger.emit(Level::Warn, words, &[]);
        }
        roots
    }
}

//! The address of the listener, as it is bound and as programs on this machine reach it.

use std::borrow::Cow;

use super::plan::ServerPlan;

impl ServerPlan {
    /// The URL by which programs on this machine reach the gateway.
    pub fn local_url(&self) -> String {
        self.url_or("localhost")
    }

    /// The same without a name where the gateway listens on all interfaces
    /// (docs/contract/operations.md#9, `olla health`).
    pub fn health_url(&self) -> String {
        self.url_or("127.0.0.1")
    }

    fn url_or(&self, unspecified: &str) -> String {
        let host = match self.host.as_str() {
            "" | "0.0.0.0" | "::" => unspecified.into(),
            host => bracketed(host),
        };
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{host}:{}", self.port)
    }

    /// Host and port as they are configured.
    pub fn bind(&self) -> String {
        format!("{}:{}", bracketed(&self.host), self.port)
    }
}

/// A host in the form that it has before a port.
fn bracketed(host: &str) -> Cow<'_, str> {
    if host.contains(':') {
        format!("[{host}]").into()
    } else {
        host.into()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{ConfigInputs, Env, FileFormat, NameFilter, plan_from_str};
    use super::*;

    fn server(toml: &str) -> ServerPlan {
        let admits = |_: &NameFilter, _: &str| true;
        let inputs = ConfigInputs {
            env: &Env::default(),
            cwd: Path::new("."),
            types: &[],
            admits: &admits,
        };
        let loaded = plan_from_str(toml, FileFormat::Toml, None, &inputs);
        loaded.server.unwrap()
    }

    #[test]
    fn programs_on_this_machine_reach_the_listener() {
        for (host, url, bind) in [
            ("", "http://localhost:40114", ":40114"),
            ("0.0.0.0", "http://localhost:40114", "0.0.0.0:40114"),
            ("::", "http://localhost:40114", "[::]:40114"),
            ("::1", "http://[::1]:40114", "[::1]:40114"),
            ("gw", "http://gw:40114", "gw:40114"),
        ] {
            let server = server(&format!("server.host = \"{host}\""));
            assert_eq!(server.local_url(), url);
            assert_eq!(server.bind(), bind);
        }
        // The address is known although the certificate cannot be read.
        let tls = "server.tls = { cert_file = \"none.pem\", key_file = \"none.pem\" }";
        assert_eq!(server(tls).local_url(), "https://localhost:40114");
    }
}

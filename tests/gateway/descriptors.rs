//! A process that is out of file descriptors: who may use the last ones.
//!
//! Contract: docs/contract/balancing.md#9.3

use std::sync::{Arc, Mutex, mpsc};

use testkit::{
    Backend, Client, Config, Driver, Gateway, endpoint, get, on_both_drivers, wait_until,
};

/// The limit of open files.
const LIMIT: usize = 160;

/// What accepting leaves to everything else.
const LEFT_BY_CLIENTS: usize = 32;

/// A gateway under the limit.
fn limited(driver: Driver, backends: &[(&str, &Backend)]) -> Gateway {
    let endpoints = backends
        .iter()
        .map(|(name, at)| endpoint(name, "vllm", at, ""));
    let under = format!("ulimit -n {LIMIT} && exec \"$@\"");
    // Clients that send nothing stay.
    let more = "[server]\nread_header_timeout = \"2m\"\n";
    let config = Config::new(driver)
        .more(&endpoints.collect::<String>())
        .more(more)
        .under(&["sh", "-c", &under, "sh"]);
    Gateway::start(&config)
}

/// A connection from before the shortage. A new one would wait for others to leave.
struct Kept(Client);

impl Kept {
    fn get(&mut self, path: &str) -> testkit::Response {
        self.0.request(&format!("GET {path}"), b"");
        self.0.response()
    }

    fn metric(&mut self, sample: &str) -> f64 {
        let page = self.get("/internal/metrics").text();
        let value = |line: &str| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok();
        page.lines().find_map(value).unwrap_or(0.0)
    }

    /// No endpoint is blamed, and each is checked again and again.
    fn are_all_in_service(&mut self, backends: &[(&str, &Backend)]) {
        let before: Vec<_> = backends.iter().map(|(_, at)| at.requests()).collect();
        wait_until("further health checks", || {
            let mut both = backends.iter().zip(&before);
            both.all(|((_, at), before)| at.requests() >= before + 3)
        });
        let page = self.get("/internal/status/endpoints").json();
        for endpoint in page["endpoints"].as_array().unwrap() {
            assert_eq!(endpoint["status"], "healthy", "{endpoint}");
        }
        for (name, _) in backends {
            let failed =
                format!("olla_endpoint_requests_total{{endpoint=\"{name}\",status=\"failure\"}}");
            assert_eq!(self.metric(&failed), 0.0, "{name}");
        }
    }
}

fn clients(gateway: &Gateway) -> Vec<Client> {
    (0..2 * LIMIT).map(|_| Client::to(gateway)).collect()
}

#[test]
fn idle_clients_leave_descriptors_to_checks_and_requests() {
    on_both_drivers(|driver| {
        let (one, two) = (Backend::ok(&["m"]), Backend::ok(&["m"]));
        let backends = [("one", &one), ("two", &two)];
        let gateway = limited(driver, &backends);
        let mut kept = Kept(Client::to(&gateway));
        let failures = "olla_accept_failures_total{reason=\"emfile\"}";
        assert_eq!(kept.metric(failures), 0.0);
        let held = clients(&gateway);
        gateway.wait_line(&[
            "\"level\":\"WARN\"",
            "Connections not accepted",
            "\"reason\":\"emfile\"",
            &format!("\"open_files_limit\":{LIMIT}"),
            "LimitNOFILE",
        ]);
        kept.are_all_in_service(&backends);
        // Further connections to endpoints can be opened, and nearly all of what accepting leaves
        // is free.
        for _ in 0..8 {
            assert_eq!(kept.get("/olla/proxy/x").status, 200);
        }
        assert!(one.count() > 0 && two.count() > 0);
        let open = std::fs::read_dir(format!("/proc/{}/fd", gateway.id())).unwrap();
        let open = open.count();
        assert!(open <= LIMIT - LEFT_BY_CLIENTS + 8, "{open} are open");
        assert!(kept.metric(failures) >= 1.0);
        drop(held);
        assert_eq!(get(&gateway, "/olla/proxy/x", &[]).status, 200);
        // A second shortage is counted, and not logged within the minute.
        let before = kept.metric(failures);
        let held = clients(&gateway);
        wait_until("further failures", || kept.metric(failures) > before);
        drop(held);
        let lines = gateway.log().matches("Connections not accepted").count();
        assert_eq!(lines, 1, "at most one line a minute");
        assert_eq!(
            kept.metric("olla_local_faults_total{reason=\"emfile\"}"),
            0.0
        );
    });
}

#[test]
fn requests_leave_descriptors_to_checks() {
    on_both_drivers(|driver| {
        let (gate, closed) = mpsc::channel::<()>();
        let closed = Arc::new(Mutex::new(closed));
        // Responds once the sender is dropped, so no request gives a descriptor back before.
        let waiting = || {
            let closed = closed.clone();
            Backend::new(&["m"], move |_, link| {
                let _ = closed.lock().unwrap().recv();
                link.ok();
            })
        };
        let (one, two) = (waiting(), waiting());
        let backends = [("one", &one), ("two", &two)];
        let gateway = limited(driver, &backends);
        let mut kept = Kept(Client::to(&gateway));
        let mut held = clients(&gateway);
        // All that accepting may take is taken. Otherwise it could stop when every accepted client
        // has its connection to an endpoint already, and none would be refused.
        gateway.wait_line(&["Connections not accepted", "\"reason\":\"emfile\""]);
        for client in &mut held {
            // Each gives its descriptor back with its response, in whatever order they are read.
            client.request("GET /olla/vllm/x\r\nConnection: close", b"");
        }
        gateway.wait_line(&[
            "\"level\":\"WARN\"",
            "Connections to endpoints not opened",
            "\"reason\":\"emfile\"",
            "LimitNOFILE",
        ]);
        kept.are_all_in_service(&backends);
        assert!(kept.metric("olla_local_faults_total{reason=\"emfile\"}") >= 1.0);
        drop(gate);
        let (mut served, mut refused) = (0, 0);
        for mut client in held {
            let response = client.response();
            if response.status == 200 {
                served += 1;
                continue;
            }
            let message = response.is_error(503, "service_unavailable", "OVERLOADED");
            assert!(message.contains("file descriptors"), "{message}");
            assert_eq!(response.header("Retry-After"), Some("5"));
            refused += 1;
        }
        assert!(served > 0 && refused > 0, "{served} {refused}");
        assert_eq!(one.count() + two.count(), served);
        kept.are_all_in_service(&backends);
    });
}

//! Pages of other origins.
//!
//! Contract: docs/contract/surface.md#12

use testkit::{
    Backend, Config, Driver, Gateway, Response, endpoint, exchange, get, on_both_drivers,
};

const X: &str = "/olla/proxy/x";
const PAGE: &str = "Origin: https://page.test";
const PREFLIGHT_VARY: &str =
    "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
const EXPOSED: &str = "X-Olla-Request-ID, X-Olla-Endpoint, X-Olla-Backend-Type, X-Olla-Model, \
    X-Olla-Response-Time, X-Olla-Routing-Strategy, X-Olla-Routing-Decision, \
    X-Olla-Routing-Reason, X-Olla-Mode, X-Olla-Sticky-Session, X-Olla-Sticky-Key-Source, \
    X-Olla-Session-ID";

fn over(driver: Driver, backend: &Backend, cors: &str) -> Gateway {
    let endpoints = endpoint("one", "vllm", backend, "");
    let more = format!("[server.cors]\n{cors}");
    Gateway::start(&Config::new(driver).more(&endpoints).more(&more))
}

fn preflight(gateway: &Gateway, path: &str, method: &str, more: &[&str]) -> Response {
    let mut head = format!("OPTIONS {path}\r\nAccess-Control-Request-Method: {method}");
    for line in more {
        head += &format!("\r\n{line}");
    }
    exchange(gateway, &head, b"")
}

#[track_caller]
fn has_no_grant(answer: &Response) {
    let granted =
        |(name, _): &&(String, String)| name.to_ascii_lowercase().starts_with("access-control-");
    let found = answer.headers.iter().find(granted);
    assert_eq!(found, None);
}

#[test]
fn a_preflight_is_answered_on_every_route_before_everything_else() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let limits = "[server.rate_limits]\nper_ip_requests_per_minute = 60\nburst_size = 1";
        let endpoints = endpoint("one", "vllm", &backend, "");
        let gateway = Gateway::start(&Config::new(driver).more(&endpoints).more(limits));
        for path in [
            X,
            X,
            "/nosuch",
            "/internal/health",
            "/olla/models",
            "/olla/proxy/../x",
        ] {
            let fields = [PAGE, "Access-Control-Request-Headers: x-own, Authorization"];
            let answer = preflight(&gateway, path, "POST", &fields);
            assert_eq!((answer.status, answer.text().as_str()), (204, ""), "{path}");
            answer.has_the_fields_of_every_response();
            let header = |name: &str| answer.header(name);
            assert_eq!(header("Vary"), Some(PREFLIGHT_VARY));
            assert_eq!(header("Access-Control-Allow-Origin"), Some("*"));
            assert_eq!(
                header("Access-Control-Allow-Methods"),
                Some("GET, POST, OPTIONS")
            );
            assert_eq!(
                header("Access-Control-Allow-Headers"),
                Some("Content-Type, Authorization, x-own")
            );
            assert_eq!(header("Access-Control-Max-Age"), Some("300"));
            assert_eq!(header("Access-Control-Allow-Credentials"), None);
            assert_eq!(header("X-RateLimit-Limit"), None);
        }
        // No token was taken, no backend asked.
        assert_eq!(get(&gateway, X, &[]).status, 200);
        assert_eq!(backend.count(), 1);
    });
}

#[test]
fn a_preflight_that_is_not_allowed_is_204_without_a_grant() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let cors = "allowed_origins = [\"https://page.test\"]\nallowed_methods = [\"GET\"]\n\
                    allowed_headers = [\"X-One\", \"x-two\"]";
        let gateway = over(driver, &backend, cors);
        let ask = "Access-Control-Request-Headers:";
        let other_header = format!("{ask} X-Three");
        let refused: [(&str, &[&str]); 4] = [
            ("GET", &["Origin: https://other.test"]),
            ("POST", &[PAGE]),
            ("GET", &[PAGE, &other_header]),
            ("GET", &[]),
        ];
        for (method, fields) in refused {
            let answer = preflight(&gateway, X, method, fields);
            assert_eq!(answer.status, 204);
            assert_eq!(answer.header("Vary"), Some(PREFLIGHT_VARY));
            has_no_grant(&answer);
        }
        // Any order and any case of the request is understood; OPTIONS is always allowed.
        for (method, names) in [("GET", "X-TWO , x-one"), ("OPTIONS", "x-one")] {
            let answer = preflight(
                &gateway,
                X,
                method,
                &["Origin: HTTPS://Page.Test", &format!("{ask} {names}")],
            );
            let header = |name: &str| answer.header(name);
            assert_eq!(
                header("Access-Control-Allow-Origin"),
                Some("HTTPS://Page.Test")
            );
            assert_eq!(header("Access-Control-Allow-Methods"), Some("GET"));
            assert_eq!(header("Access-Control-Allow-Headers"), Some("X-One, x-two"));
        }
        assert_eq!(backend.count(), 0);
    });
}

#[test]
fn other_requests_are_served_and_granted() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let gateway = over(driver, &backend, "");
        for path in [
            X,
            "/nosuch",
            "/internal/health",
            "/olla/models",
            "/olla/ollama/x",
        ] {
            let answer = get(&gateway, path, &[PAGE]);
            let header = |name: &str| answer.header(name);
            assert_eq!(header("Access-Control-Allow-Origin"), Some("*"), "{path}");
            assert_eq!(
                header("Access-Control-Allow-Methods"),
                Some("GET, POST, OPTIONS")
            );
            assert!(header("Access-Control-Allow-Headers").is_some());
            assert_eq!(header("Access-Control-Expose-Headers"), Some(EXPOSED));
            let vary = header("Vary").unwrap();
            assert!(
                vary.split(", ").any(|name| name == "Origin"),
                "{path}: {vary}"
            );
            let answer = get(&gateway, path, &[]);
            has_no_grant(&answer);
            assert!(answer.header("Vary").unwrap().contains("Origin"));
        }
    });
}

#[test]
fn a_request_without_a_grant_is_served_all_the_same() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let gateway = over(
            driver,
            &backend,
            "allowed_origins = [\"https://page.test\"]",
        );
        let answer = get(&gateway, X, &["Origin: https://other.test"]);
        assert_eq!(answer.status, 200);
        has_no_grant(&answer);
        // Neither an origin that is not allowed nor a method that is not.
        let answer = exchange(&gateway, &format!("DELETE {X}\r\n{PAGE}"), b"");
        assert_eq!(answer.status, 200);
        has_no_grant(&answer);
        assert_eq!(backend.count(), 2);
    });
}

#[test]
fn origins_are_lists_with_a_star_inside() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let cors = "allowed_origins = [\"https://*.apps.example\", \"http://localhost:3000\"]\n\
                    allow_credentials = true\nexposed_headers = [\"X-A\", \"X-B\"]\nmax_age = 0";
        let gateway = over(driver, &backend, cors);
        let rows = [
            ("https://a.apps.example", true),
            ("https://a.b.APPS.example", true),
            ("http://localhost:3000", true),
            ("http://localhost:3001", false),
            ("https://apps.example", false),
            ("http://a.apps.example", false),
            ("https://a.apps.example.evil.test", false),
            ("null", false),
        ];
        for (origin, allowed) in rows {
            let answer = get(&gateway, X, &[&format!("Origin: {origin}")]);
            let granted = answer.header("Access-Control-Allow-Origin");
            assert_eq!(granted, allowed.then_some(origin));
            let credentials = answer.header("Access-Control-Allow-Credentials");
            assert_eq!(credentials, allowed.then_some("true"), "{origin}");
            let exposed = answer.header("Access-Control-Expose-Headers");
            assert_eq!(exposed, allowed.then_some("X-A, X-B"), "{origin}");
        }
        let answer = preflight(&gateway, X, "GET", &["Origin: http://localhost:3000"]);
        assert_eq!(answer.header("Access-Control-Max-Age"), None);
        assert_eq!(
            answer.header("Access-Control-Allow-Credentials"),
            Some("true")
        );
    });
}

#[test]
fn options_without_a_requested_method_is_an_ordinary_request() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let gateway = over(driver, &backend, "");
        let answer = exchange(&gateway, &format!("OPTIONS {X}\r\n{PAGE}"), b"");
        assert_eq!(answer.status, 200);
        assert_eq!(backend.last().method, "OPTIONS");
        assert_eq!(answer.header("Access-Control-Allow-Origin"), Some("*"));
    });
}

fn speaks_cors() -> Backend {
    Backend::new(&["m"], |_, link| {
        link.send(
            "HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: https://own.test\r\n\
             Access-Control-Own: 1\r\nVary: Accept\r\nContent-Length: 0\r\n\r\n",
        );
    })
}

#[test]
fn a_backend_s_own_cors_gives_way_and_its_vary_stays() {
    on_both_drivers(|driver| {
        let backend = speaks_cors();
        let gateway = over(driver, &backend, "");
        let answer = get(&gateway, X, &[PAGE]);
        assert_eq!(answer.header("Access-Control-Allow-Origin"), Some("*"));
        assert_eq!(answer.header("Access-Control-Own"), None);
        assert_eq!(answer.header("Vary"), Some("Accept, Origin"));
    });
}

#[test]
fn switched_off_nothing_is_added_and_the_backend_s_own_passes() {
    on_both_drivers(|driver| {
        let backend = speaks_cors();
        let gateway = over(driver, &backend, "enabled = false");
        for answer in [
            get(&gateway, X, &[PAGE]),
            preflight(&gateway, X, "GET", &[PAGE]),
        ] {
            assert_eq!(answer.status, 200);
            assert_eq!(
                answer.header("Access-Control-Allow-Origin"),
                Some("https://own.test")
            );
            assert_eq!(answer.header("Access-Control-Own"), Some("1"));
            assert_eq!(answer.header("Vary"), Some("Accept"));
        }
        assert_eq!(backend.last().method, "OPTIONS");
        let answer = get(&gateway, "/internal/health", &[PAGE]);
        has_no_grant(&answer);
        assert_eq!(answer.header("Vary"), None);
    });
}

/// docs/contract/observe.md#8
#[test]
fn pages_of_other_sites_may_not_read_an_operator_s_pages() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let gateway = over(driver, &backend, "");
        for path in [
            "/internal/status",
            "/internal/nosuch",
            "/internal/ui/",
            "/internal",
        ] {
            let asked = preflight(&gateway, path, "GET", &[PAGE]);
            assert_eq!(asked.status, 204, "{path}");
            has_no_grant(&asked);
            let answer = get(&gateway, path, &[PAGE]);
            has_no_grant(&answer);
            let vary = answer.header("Vary").unwrap_or_default();
            assert!(!vary.contains("Origin"), "{path} {vary}");
        }
        for path in ["/internal/health", "/internal/ready"] {
            let asked = preflight(&gateway, path, "GET", &[PAGE]);
            assert_eq!(asked.header("Access-Control-Allow-Origin"), Some("*"));
            let answer = get(&gateway, path, &[PAGE]);
            assert_eq!(answer.header("Access-Control-Allow-Origin"), Some("*"));
        }
    });
}

/// docs/contract/surface.md#12
#[test]
fn a_page_of_the_internet_reaches_a_private_network_where_it_may() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let cors = "allowed_origins = [\"https://page.test\"]";
        let on = over(
            driver,
            &backend,
            &format!("{cors}\nallow_private_network = true"),
        );
        let off = over(driver, &backend, cors);
        let asks = "Access-Control-Request-Private-Network: true";
        let allowed = |gateway: &Gateway, fields: &[&str]| {
            let answer = preflight(gateway, X, "GET", fields);
            let vary = answer.header("Vary").unwrap().to_owned();
            let allows = answer.header("Access-Control-Allow-Private-Network");
            (allows.map(str::to_owned), vary)
        };
        let vary = format!("{PREFLIGHT_VARY}, Access-Control-Request-Private-Network");
        let yes = Some("true".to_owned());
        assert_eq!(allowed(&on, &[PAGE, asks]), (yes, vary.clone()));
        assert_eq!(allowed(&on, &[PAGE]), (None, vary.clone()));
        let other = ["Origin: https://other.test", asks];
        assert_eq!(allowed(&on, &other), (None, vary));
        let plain = PREFLIGHT_VARY.to_owned();
        assert_eq!(allowed(&off, &[PAGE, asks]), (None, plain));
    });
}

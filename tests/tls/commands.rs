//! `olla status` and `olla models` with a gateway whose listener uses TLS.
//!
//! Contract: docs/contract/README.md#11, docs/contract/operations.md#9

use testkit::tls::{Identity, Issuer};
use testkit::{Config, Driver, Folder, Gateway, PATIENCE, Process, program};

use crate::{config, listener};

/// Runs a command to its end: the exit code, and what it has written.
fn olla(arguments: &[&str], env: &[(String, String)]) -> (Option<i32>, String) {
    let mut process = Process::start(&program("olla"), arguments, env);
    let code = process.wait_end(PATIENCE).code();
    (code, process.log())
}

/// A gateway with this certificate and without endpoints, and its configuration file.
fn gateway(folder: &Folder, identity: &Identity) -> (Gateway, String) {
    let config: Config = config(Driver::Auto, "discovery.static.endpoints = []");
    let gateway = Gateway::start(&config.more(&listener(folder, identity)));
    let file = gateway.config_file().to_str().unwrap().to_owned();
    (gateway, file)
}

#[test]
fn the_configuration_tells_the_scheme_and_the_certificate() {
    let issuer = Issuer::new("private");
    for identity in [
        issuer.issue(&["127.0.0.1"]),
        // The certificate of the gateway itself is trusted, whatever its names are.
        issuer.issue(&["gateway.example"]),
        Identity::self_signed(),
    ] {
        let folder = Folder::new();
        let (_gateway, file) = gateway(&folder, &identity);
        for (command, want) in [("status", "0/0 endpoints up"), ("models", "0 models on 0")] {
            let (code, output) = olla(&[command, "-c", &file], &[]);
            assert_eq!(code, Some(0), "{command}: {output}");
            assert!(output.contains(want), "{command}: {output}");
        }
        let (code, output) = olla(&["status", "--json", "-c", &file], &[]);
        assert!(code == Some(0) && output.contains("\"system\""), "{output}");
    }
}

/// docs/contract/operations.md#9
#[test]
fn health_of_this_machine_needs_no_trusted_certificate() {
    let folder = Folder::new();
    let identity = Issuer::new("private").issue(&["gateway.example"]);
    let (gateway, file) = gateway(&folder, &identity);
    let (code, output) = olla(&["health", "-c", &file], &[]);
    let url = format!("https://127.0.0.1:{}", gateway.port);
    assert_eq!((code, output), (Some(0), format!("{url}: healthy\n")));
    let (code, output) = olla(&["health", &url], &[]);
    assert_eq!(code, Some(1), "{output}");
    assert_eq!(olla(&["health", "-k", &url], &[]).0, Some(0));
}

#[test]
fn the_address_is_found_although_the_private_key_cannot_be_read() {
    let folder = Folder::new();
    let identity = Issuer::new("private").issue(&["localhost"]);
    let (_gateway, file) = gateway(&folder, &identity);
    std::fs::remove_file(folder.file("key.pem")).unwrap();
    let (code, output) = olla(&["status", "-c", &file], &[]);
    assert_eq!(code, Some(0), "{output}");
}

#[test]
fn a_url_needs_a_trusted_certificate() {
    let folder = Folder::new();
    let issuer = Issuer::new("private");
    let (gateway, _) = gateway(&folder, &issuer.issue(&["localhost"]));
    let ca_file = folder.write("ca.pem", &issuer.pem());
    let url = |host: &str| format!("https://{host}:{}", gateway.port);
    let by_name = url("localhost");
    let status = |more: &[&str]| {
        let mut arguments = vec!["status", "--url"];
        arguments.extend(more);
        olla(&arguments, &[])
    };
    for accepted in [
        &[&*by_name, "--ca-file", &ca_file][..],
        &[&*by_name, "--cacert", &ca_file],
        &[&*by_name, "-k"],
        &[&*url("127.0.0.1"), "--insecure"],
    ] {
        let (code, output) = status(accepted);
        assert_eq!(code, Some(0), "{accepted:?}: {output}");
    }
    let env = [("SSL_CERT_FILE".to_owned(), ca_file.clone())];
    let (code, output) = olla(&["status", "--url", &by_name], &env);
    assert_eq!(code, Some(0), "{output}");
    let missing = folder.file("none.pem");
    let missing = missing.to_str().unwrap();
    let plain = format!("http://localhost:{}", gateway.port);
    for (refused, want) in [
        (&[&*by_name][..], "not trusted; pass the certificate"),
        (
            &[&*url("127.0.0.1"), "--ca-file", &ca_file],
            "valid for other names",
        ),
        (&[&*by_name, "--ca-file", missing], "--ca-file: expected"),
        (&[&*plain], "https"),
    ] {
        let (code, output) = status(refused);
        assert_eq!(code, Some(1), "{refused:?}: {output}");
        assert!(output.contains(want), "{refused:?}: {output}");
        assert_eq!(output.lines().count(), 1, "{output}");
    }
}

#[test]
fn https_to_a_plain_listener_is_named() {
    let gateway = Gateway::start(&config(Driver::Auto, "discovery.static.endpoints = []"));
    let url = format!("https://127.0.0.1:{}", gateway.port);
    let (code, output) = olla(&["status", "--url", &url], &[]);
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("try http://"), "{output}");
}
